"""Aggregates, profiles and probability of improvement, against rliable, scipy and statsmodels.

`rliable.json` holds what rliable 1.2.0 gives for fixed scores (its `made_by` names the versions).
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from analyse_samples import tidy
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.nonparametric import rank_compare_2indep

from ablate.analyse.aggregate import (
    RESAMPLES,
    STATISTICS,
    aggregates,
    bootstrap,
    difference,
    point,
    stretched,
)
from ablate.analyse.profiles import grid, improvement, profile
from ablate.analyse.strata import strata
from ablate.errors import UserError

CASES = json.loads((Path(__file__).parent / "rliable.json").read_text())["cases"]


def data_sets(matrix):
    """rliable's (runs, data sets) as a list of data sets."""
    return list(np.asarray(matrix).T)


@pytest.mark.parametrize("case", CASES)
def test_points_and_profiles_are_rliables(case):
    scores = data_sets(case["x"])
    for name in STATISTICS:
        expected = case[name.replace(" ", "_")]
        assert point(scores, name) == pytest.approx(expected, abs=1e-8)
    pooled = np.concatenate(scores)
    assert point(scores, "iqm") == pytest.approx(stats.trim_mean(pooled, 0.25), abs=1e-10)
    assert profile(scores, case["tau"]).share == pytest.approx(case["profile"], abs=1e-8)
    found = improvement(scores, data_sets(case["y"]))
    assert found.value == pytest.approx(case["improvement"], abs=1e-8)


def test_the_interval_of_improvement_is_brunner_and_munzels():
    x, y = data_sets(CASES[0]["x"])[0], data_sets(CASES[1]["y"])[0]
    reference = rank_compare_2indep(x, y, use_t=True)
    found = improvement([x], [y])
    assert found.value == pytest.approx(reference.prob1, abs=1e-10)
    assert found.estimate.df == pytest.approx(reference.df, abs=1e-8)
    low, high = np.clip(reference.conf_int(), 0.0, 1.0)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-8)


def test_no_spread_gives_no_interval():
    apart = improvement([np.arange(5.0)], [np.arange(5.0) + 10.0])
    assert apart.value == 0.0
    assert np.isnan([apart.low, apart.high]).all()
    lonely = improvement([np.arange(5.0)], [np.array([2.0])])
    assert lonely.value == 0.5
    assert np.isnan(lonely.low)
    single = aggregates([np.arange(5.0), np.array([1.0])], resamples=10)
    assert np.isnan([one.low for one in single]).all()
    assert np.isnan(profile([np.array([1.0])], np.array([0.0])).low).all()
    flat = aggregates([np.full(4, 7.0)], ["mean"], resamples=50)[0]
    assert (flat.low, flat.high) == (7.0, 7.0)


def test_resamples_stay_within_their_data_set():
    scores = [np.full(5, 1.0), np.full(5, 3.0)]
    assert (bootstrap(scores, "mean", resamples=100) == 2.0).all()
    unequal = [np.full(5, 1.0), np.full(3, 3.0)]
    for name in ("mean", "median", "iqm"):
        assert bootstrap(unequal, name, resamples=100) == pytest.approx(np.full(100, 2.0))


def test_the_bootstrap_has_the_spread_that_theory_gives():
    rng = np.random.default_rng(2)
    scores = [rng.normal(0, 3, 5), rng.normal(50, 6, 5), rng.normal(20, 1, 5)]
    drawn = bootstrap(scores, "mean", resamples=40_000)
    plain = sum(np.var(x) / 5 for x in scores) / 9  # divisor n: what plain resampling has
    assert drawn.var() == pytest.approx(plain, rel=0.03)
    wide = bootstrap(scores, "mean", resamples=40_000, stretch=True)
    assert wide.var() == pytest.approx(sum(np.var(x, ddof=1) / 5 for x in scores) / 9, rel=0.03)
    assert point(stretched(scores), "mean") == pytest.approx(point(scores, "mean"))


def test_the_corrected_interval_of_a_mean_is_students():
    half = np.abs(np.random.default_rng(3).normal(0, 10, 6))
    scores = [np.concatenate([50.0 + half, 50.0 - half])]  # symmetric, so quantiles are too
    found = aggregates(scores, ["mean"], resamples=50_000)[0]
    low, high = stats.ttest_1samp(scores[0], 0.0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.35)
    assert found.low < found.plain_low < found.plain_high < found.high


def test_false_alarms_of_the_corrected_interval_are_nominal():
    rng = np.random.default_rng(1)
    alarms = np.zeros(2)
    for i in range(400):
        a, b = rng.normal(0, 6, (2, 6, 5))
        found = difference(list(a), list(b), ["iqm"], resamples=500, name=str(i))[0]
        alarms += [not found.low <= 0 <= found.high, not found.plain_low <= 0 <= found.plain_high]
    corrected, plain = alarms / 400
    assert 0.02 < corrected < 0.08  # 0.05, standard error 0.011
    assert plain > corrected + 0.01


@given(st.integers(1, 6), st.integers(4, 8), st.integers(0, 2**32 - 1))
def test_equal_weights_make_the_iqm_of_unequal_seeds(count, n, seed):
    rng = np.random.default_rng(seed)
    scores = [rng.normal(50, 20, n) for _ in range(count)]
    doubled = [np.tile(x, 2) if i % 2 else x for i, x in enumerate(scores)]
    if count > 1:  # the same distributions, each data set weighing the same
        whole = [np.tile(x, 4) for x in scores]
        if n * count % 4 == 0:
            assert point(doubled, "iqm") == pytest.approx(point(whole, "iqm"), abs=1e-8)
    assert point(doubled, "mean") == pytest.approx(point(scores, "mean"))
    assert min(map(min, scores)) <= point(doubled, "iqm") <= max(map(max, scores))


def test_profiles_fall_from_one_to_nothing_within_their_band():
    rng = np.random.default_rng(5)
    scores = [rng.normal(50, 20, 5) for _ in range(8)]
    found = profile(scores, grid([scores]))
    assert found.share[0] == 1.0
    assert found.share[-1] == 0.0
    assert (np.diff(found.share) <= 0).all()
    assert ((found.low <= found.share + 1e-12) & (found.share <= found.high + 1e-12)).all()


def test_fifty_thousand_resamples_take_a_tenth_of_a_second():
    scores = [np.random.default_rng(i).normal(50, 20, 5) for i in range(8)]
    times = []
    for _ in range(5):
        start = time.process_time()
        drawn = bootstrap(scores, "iqm")
        times.append(time.process_time() - start)
    assert len(drawn) == RESAMPLES == 50_000
    assert min(times) < 0.1  # 0.015 s when nothing else runs


def test_variants_are_compared_where_all_were_run():
    table = tidy(lambda cell: 1.0 * cell["context"])
    lost = (table["data"] == "tmaze/passive-20") & (table["mixer"] == "gru")
    found = strata(table[~lost], ["mixer"], "score", where={"context": [20]})
    assert found.names == ("lq-mix/episode",)
    assert found.left_out == ("tmaze/passive-20 (not run: gru)",)
    assert list(found.scores) == ["attention", "gru", "mlp"]
    assert len(found.trials) == 15
    with pytest.raises(UserError, match="differ in context; hold context"):
        strata(table, ["mixer"], "score")
    with pytest.raises(UserError, match="no column 'depth'"):
        strata(table, ["depth"], "score")
    with pytest.raises(UserError, match="no finished trial"):
        strata(table, ["mixer"], "score", where={"context": [7]})
    apart = (table["data"] == "lq-mix/episode") == (table["mixer"] == "gru")
    with pytest.raises(UserError, match="no data set has all of"):
        strata(table[apart], ["mixer"], "score", where={"context": [20]})
