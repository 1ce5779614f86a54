"""Bands of learning curves and calibration of achieved against target returns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from analyse_samples import tidy
from scipy import stats

from ablate.analyse.calibration import calibrate, calibrations, overall
from ablate.analyse.curves import band, bands
from ablate.analyse.intervals import combine, interval
from ablate.errors import UserError


def test_a_band_is_the_interval_of_every_update():
    rng = np.random.default_rng(0)
    cells = [rng.normal(0, 3, (5, 4)), rng.normal(9, 1, (3, 4))]
    cells[0][:, 2] = 4.0  # one data set without spread
    found = band(np.arange(4.0), cells)
    for update in range(4):
        estimate = combine([0.5, 0.5], [cell[:, update] for cell in cells])
        assert found.mean[update] == pytest.approx(estimate.value)
        bounds = (found.low[update], found.high[update])
        assert bounds == pytest.approx(interval(estimate))
    assert found.runs == 8
    flat = band(np.arange(4.0), [np.ones((3, 4))])
    assert (flat.low == 1.0).all()
    assert np.isnan(band(np.arange(4.0), [np.ones((1, 4))]).low).all()


def test_bands_by_variant_leave_out_broken_curves_and_say_so():
    table = tidy(lambda cell: 0.0)
    curves = pd.DataFrame(
        {
            "trial": np.repeat(table["trial"].to_numpy(), 3),
            "update": np.tile([100, 200, 300], len(table)),
            "loss": np.tile([3.0, 2.0, 1.0], len(table))
            + np.repeat(table["seed"].to_numpy(dtype=float), 3),
        }
    )
    curves.loc[4, "loss"] = np.nan
    curves.loc[7, "loss"] = np.inf
    curves = curves.sample(frac=1.0, random_state=1)
    found = bands(table, curves, ["mixer"], "loss", {"context": [1]})
    assert found.bands["gru"].mean == pytest.approx([5.0, 4.0, 3.0])
    assert found.bands["gru"].runs == 10
    assert found.bands["mlp"].runs == 8
    assert found.left_out == ("2 finished trials without a whole curve",)
    assert list(found.bands["mlp"].updates) == [100, 200, 300]
    assert not found.share


def test_curves_of_different_lengths_stand_over_shares_of_their_own_updates():
    table = tidy(lambda cell: 0.0)
    long = (table["mixer"] == "gru").to_numpy()
    rows = []
    for trial, slow in zip(table["trial"], long, strict=True):
        count, step = (8, 500) if slow else (4, 10)
        rows += [{"trial": trial, "update": step * (i + 1), "loss": float(i)} for i in range(count)]
    found = bands(table, pd.DataFrame(rows), ["mixer"], "loss", {"context": [1]})
    assert found.share
    assert found.left_out == ()
    assert found.bands["gru"].updates == pytest.approx(np.arange(1, 9) / 8)
    assert found.bands["mlp"].updates == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert found.bands["mlp"].mean == pytest.approx([0.0, 1.0, 2.0, 3.0])


def test_a_line_is_fitted_within_the_range_of_the_data():
    rng = np.random.default_rng(6)
    targets = np.array([0.0, 25.0, 50.0, 75.0, 100.0, 150.0])
    achieved = np.minimum(5.0 + 0.8 * targets, 85.0) + rng.normal(0, 2, (6, 6))
    found = calibrate("a", targets[::-1], achieved[:, ::-1], 0.0, 100.0)
    for seed in range(6):
        fit = stats.linregress(targets[:5], achieved[seed, :5])
        assert found.slope[seed] == pytest.approx(fit.slope)
        assert found.intercept[seed] == pytest.approx(fit.intercept)
        missed = np.abs(achieved[seed] - targets)
        assert found.error_inside[seed] == pytest.approx(missed[:5].mean())
        assert found.error_outside[seed] == pytest.approx(missed[5])
    slope = overall([found], "slope")
    bounds = stats.ttest_1samp(found.slope, 0.0).confidence_interval()
    assert interval(slope) == pytest.approx((bounds.low, bounds.high))
    inside = calibrate("b", targets[:5], achieved[:, :5], 0.0, 100.0)
    assert overall([inside], "error_outside") is None
    assert overall([found, inside], "slope").value == pytest.approx(found.slope.mean())
    one = calibrate("c", targets[:1], achieved[:, :1], 0.0, 100.0)
    assert np.isnan(one.slope).all()


def test_rows_become_calibrations_by_variant():
    rows = pd.DataFrame(
        [
            {"mixer": m, "data": d, "seed": s, "target": t, "achieved": t + s, "low": 0, "high": 60}
            for m in ("gru", "mlp")
            for d in ("a", "b")
            for s in range(3)
            for t in (0.0, 50.0, 100.0)
        ]
    )
    found = calibrations(rows, ["mixer"])
    assert [one.data for one in found["gru"]] == ["a", "b"]
    assert found["mlp"][0].slope == pytest.approx([1.0, 1.0, 1.0])
    assert found["mlp"][0].intercept == pytest.approx([0.0, 1.0, 2.0])
    assert len(calibrations(rows.drop(index=0), ["mixer"])["gru"][0].slope) == 2
    with pytest.raises(UserError, match="column 'low' is missing"):
        calibrations(rows.drop(columns="low"), ["mixer"])
    with pytest.raises(UserError, match="'achieved' holds text"):
        calibrations(rows.assign(achieved="x"), ["mixer"])
    with pytest.raises(UserError, match="infinite"):
        calibrations(rows.assign(achieved=np.inf), ["mixer"])
    with pytest.raises(UserError, match="two rows for data=a, seed=0, target=0"):
        calibrations(pd.concat([rows, rows.head(1)]), ["mixer"])
