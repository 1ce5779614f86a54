"""The mixed model with random slopes against statsmodels' MixedLM and the balanced closed form."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ablate.analyse.mixed import fit


def runs(sizes, slope_sd: float, noise: float, draw: int) -> pd.DataFrame:
    """Two cells on each data set, sizes (D, 2)."""
    rng = np.random.default_rng(draw)
    rows = []
    for d, pair in enumerate(sizes):
        slope = 2.0 + slope_sd * rng.normal()
        for cell, n in enumerate(pair):
            rows += [
                (d, cell - 0.5, 10.0 * d + slope * cell + noise * rng.normal()) for _ in range(n)
            ]
    return pd.DataFrame(rows, columns=["data", "z", "y"])


def ours(frame: pd.DataFrame):
    contrasts, scales, within = [], [], []
    for _, group in frame.groupby("data"):
        cells = [c["y"].to_numpy() for _, c in group.groupby("z")]
        contrasts.append(cells[1].mean() - cells[0].mean())
        scales.append(sum(1.0 / len(cell) for cell in cells))
        within += cells
    found, reason = fit(np.array(contrasts), np.array(scales), within)
    assert reason == ""
    return found


def theirs(frame: pd.DataFrame):
    """The same model: data sets' levels fixed, the slope of z random."""
    model = smf.mixedlm("y ~ 0 + C(data) + z", frame, groups="data", re_formula="0 + z")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(reml=True, gtol=1e-10)


@pytest.mark.parametrize("draw", range(3))
def test_unequal_seeds_are_fitted_as_statsmodels_does(draw):
    frame = runs([(5, 5), (5, 4), (3, 5), (2, 2), (5, 5), (6, 3)], 4.0, 2.0, draw)
    found, known = ours(frame), theirs(frame)
    assert found.estimate.value == pytest.approx(known.fe_params["z"], rel=1e-5)
    # Its own standard error, from the observed information, is .4 % larger where seeds are unequal.
    assert np.sqrt(found.estimate.variance) == pytest.approx(known.bse_fe["z"], rel=1e-2)
    x, z = known.model.exog, known.model.exog[:, -1]
    same = known.model.groups[:, None] == known.model.groups[None, :]
    v = known.scale * np.eye(len(z)) + known.cov_re.iloc[0, 0] * same * np.outer(z, z)
    by_gls = np.linalg.inv(x.T @ np.linalg.solve(v, x))[-1, -1]
    assert found.estimate.variance == pytest.approx(by_gls, rel=1e-4)
    assert found.seed_sd == pytest.approx(np.sqrt(known.scale), rel=1e-4)
    assert found.slope_sd == pytest.approx(np.sqrt(known.cov_re.iloc[0, 0]), rel=1e-3, abs=0.01)
    assert found.estimate.df == 5


def test_the_fixed_effect_of_balanced_runs_is_statsmodels():
    frame = runs([(5, 5)] * 6, 4.0, 2.0, 7)
    assert ours(frame).estimate.value == pytest.approx(theirs(frame).fe_params["z"], abs=1e-8)


@pytest.mark.parametrize("draw", range(4))
def test_balanced_runs_have_a_closed_form(draw):
    """One-way analysis of variance: slopes differ by more than seeds explain, or all is pooled."""
    data_sets, seeds = 6, 5
    rng = np.random.default_rng(draw)
    slopes = rng.normal(0.0, 0.4, (data_sets, 1))
    scores = 1.0 + slopes + rng.normal(size=(data_sets, seeds))  # contrasts of single seeds
    means = scores.mean(axis=1)
    found, _ = fit(means, np.full(data_sets, 1.0 / seeds), list(scores))
    between = seeds * means.var(ddof=1)
    within = scores.var(axis=1, ddof=1).mean()
    pooled = between if between > within else scores.var(ddof=1)
    slope_sd = np.sqrt(max(between - within, 0.0) / seeds)
    assert found.estimate.value == pytest.approx(means.mean(), abs=1e-8)
    assert found.estimate.variance == pytest.approx(pooled / scores.size, rel=1e-6)
    assert found.slope_sd == pytest.approx(slope_sd, abs=1e-4)
    if between > within:  # then it is the t over data sets
        t = means.mean() / np.sqrt(found.estimate.variance)
        assert t == pytest.approx(stats.ttest_1samp(means, 0.0).statistic, rel=1e-6)


def test_why_there_is_no_fit():
    pair = [np.array([1.0, 2.0]), np.array([2.0, 5.0])]
    assert "two data sets" in fit(np.ones(1), np.ones(1), pair)[1]
    assert "two seeds" in fit(np.arange(3.0), np.ones(3), [np.ones(1)] * 3)[1]
    assert "nothing varies" in fit(np.arange(3.0), np.ones(3), [np.ones(2)] * 3)[1]
    assert "nothing varies" in fit(np.ones(3), np.ones(3), pair)[1]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.floats(0.01, 100.0), st.floats(-50.0, 50.0), st.integers(0, 1000))
def test_it_follows_scale_and_shift(scale, shift, draw):
    rng = np.random.default_rng(draw)
    within = [rng.normal(size=n) for n in (5, 3, 4)]
    contrasts, scales = rng.normal(0.0, 2.0, 3), np.array([0.2, 1 / 3, 0.25])
    before, _ = fit(contrasts, scales, within)
    after, _ = fit(shift + scale * contrasts, scales, [scale * w for w in within])
    assert after.estimate.value == pytest.approx(
        shift + scale * before.estimate.value, rel=1e-4, abs=1e-4 * scale
    )
    assert after.estimate.variance == pytest.approx(scale**2 * before.estimate.variance, rel=1e-4)


def test_without_a_spread_of_slopes_it_is_least_squares_with_data_sets_as_levels():
    rng = np.random.default_rng(3)
    cells = rng.normal(0.0, 2.0, (4, 2, 5)) + rng.normal(0.0, 20.0, (4, 1, 1))
    cells[:, 1] += 7.0 - (cells[:, 1] - cells[:, 0]).mean(axis=1, keepdims=True)  # alike everywhere
    cells[0, 1] += 0.1
    contrasts = (cells[:, 1] - cells[:, 0]).mean(axis=1)
    found, why = fit(contrasts, np.full(4, 2 / 5), [cell for pair in cells for cell in pair])
    assert found is not None, why
    assert found.slope_sd == 0.0
    y = cells.ravel()
    data, arm = np.repeat(np.arange(4), 10), np.tile(np.repeat([0.0, 1.0], 5), 4)
    x = np.column_stack([arm, *(data == d for d in range(4))])
    beta, squares, *_ = np.linalg.lstsq(x, y)
    variance = squares[0] / (len(y) - 5) * np.linalg.inv(x.T @ x)[0, 0]
    assert found.estimate.value == pytest.approx(beta[0], rel=1e-9)
    assert found.estimate.variance == pytest.approx(variance, rel=1e-9)
