"""Calibration of achieved against target returns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ablate.analyse.intervals import interval
from ablate.analyse.targets import overall, target_curve, target_curves
from ablate.errors import UserError


def test_a_line_is_fitted_within_the_range_of_the_data():
    rng = np.random.default_rng(6)
    targets = np.array([0.0, 25.0, 50.0, 75.0, 100.0, 150.0])
    achieved = np.minimum(5.0 + 0.8 * targets, 85.0) + rng.normal(0, 2, (6, 6))
    found = target_curve("a", targets[::-1], achieved[:, ::-1], 0.0, 100.0)
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
    inside = target_curve("b", targets[:5], achieved[:, :5], 0.0, 100.0)
    assert overall([inside], "error_outside") is None
    assert overall([found, inside], "slope").value == pytest.approx(found.slope.mean())
    one = target_curve("c", targets[:1], achieved[:, :1], 0.0, 100.0)
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
    found = target_curves(rows, ["mixer"])
    assert [one.data for one in found["gru"]] == ["a", "b"]
    assert found["mlp"][0].slope == pytest.approx([1.0, 1.0, 1.0])
    assert found["mlp"][0].intercept == pytest.approx([0.0, 1.0, 2.0])
    assert len(target_curves(rows.drop(index=0), ["mixer"])["gru"][0].slope) == 2
    with pytest.raises(UserError, match="column 'low' is missing"):
        target_curves(rows.drop(columns="low"), ["mixer"])
    with pytest.raises(UserError, match="'achieved' holds text"):
        target_curves(rows.assign(achieved="x"), ["mixer"])
    with pytest.raises(UserError, match="infinite"):
        target_curves(rows.assign(achieved=np.inf), ["mixer"])
    with pytest.raises(UserError, match="two rows for data=a, seed=0, target=0"):
        target_curves(pd.concat([rows, rows.head(1)]), ["mixer"])
