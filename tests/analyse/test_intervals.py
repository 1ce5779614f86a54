"""Intervals against scipy, statsmodels and a hand-worked example."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.weightstats import ttost_ind

from ablate.analyse.intervals import combine, equivalence_p, interval, p_value

RNG = np.random.default_rng(3)
A, B = RNG.normal(4.0, 3.0, 7), RNG.normal(2.0, 0.5, 11)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_two_cells_are_welchs_t_test(alternative):
    estimate = combine([1.0, -1.0], [A, B])
    scipys = stats.ttest_ind(A, B, equal_var=False, alternative=alternative)
    assert p_value(estimate, 0.0, alternative) == pytest.approx(scipys.pvalue, rel=1e-10)
    assert estimate.df == pytest.approx(scipys.df)
    bounds = scipys.confidence_interval(0.9)
    side = {"two-sided": "two", "greater": "lower", "less": "upper"}[alternative]
    assert interval(estimate, 0.9, side) == pytest.approx((bounds.low, bounds.high))


def test_one_cell_is_the_one_sample_t_test():
    estimate = combine([1.0], [A])
    scipys = stats.ttest_1samp(A, 3.0)
    assert p_value(estimate, 3.0) == pytest.approx(scipys.pvalue)
    bounds = scipys.confidence_interval(0.95)
    assert interval(estimate) == pytest.approx((bounds.low, bounds.high))


def test_equivalence_is_statsmodels_tost():
    theirs = ttost_ind(A, B, -5.0, 5.0, usevar="unequal")[0]
    assert equivalence_p(combine([1.0, -1.0], [A, B]), 5.0) == pytest.approx(theirs)
    shifted = ttost_ind(A + 50.0, B, 45.0, 55.0, usevar="unequal")[0]
    assert equivalence_p(combine([1.0, -1.0], [A + 50.0, B]), 5.0, 50.0) == pytest.approx(shifted)


def test_a_hand_worked_combination_of_three_cells():
    # s^2 = 2, 8, 8; n = 2, 2, 4 (values a - d, a + d have variance 2 d^2)
    cells = [np.array([9.0, 11.0]), np.array([1.0, 5.0]), np.array([-1.0, 3.0, 5.0, 5.0])]
    assert [np.var(c, ddof=1) for c in cells] == pytest.approx([2.0, 8.0, 8.0])
    estimate = combine([1.0, -0.5, -0.5], cells)
    assert estimate.value == pytest.approx(10.0 - 1.5 - 1.5)
    # parts: 1 * 2/2 = 1; .25 * 8/2 = 1; .25 * 8/4 = .5
    assert estimate.variance == pytest.approx(2.5)
    # 2.5^2 / (1/1 + 1/1 + .25/3) = 6.25 / 2.08333
    assert estimate.df == pytest.approx(3.0)
    low, high = interval(estimate, 0.95)
    assert (low, high) == pytest.approx(
        (7.0 - 3.182446 * math.sqrt(2.5), 7.0 + 3.182446 * math.sqrt(2.5)), rel=1e-6
    )


def test_without_any_spread_the_interval_is_a_point_and_says_so():
    flat = combine([1.0, -1.0], [np.full(3, 0.1 + 0.2), np.full(4, 0.1)])
    assert flat.degenerate
    assert math.isnan(flat.df)
    assert interval(flat) == (flat.value, flat.value)
    assert [p_value(flat, 0.0, a) for a in ("two-sided", "greater", "less")] == [0.0, 0.0, 1.0]
    assert p_value(flat, 0.2) == 1.0  # 0.30000000000000004 - 0.1 is 0.2 but for rounding
    assert equivalence_p(flat, 0.3) == 0.0
    assert equivalence_p(flat, 0.1) == 1.0


def test_flat_cells_among_others_are_counted_and_add_no_freedom():
    mixed = combine([1.0, -1.0], [A, np.full(9, 2.0)])
    assert not mixed.degenerate
    assert (mixed.cells, mixed.flat_cells) == (2, 1)
    assert mixed.df == pytest.approx(len(A) - 1)


def test_a_cell_needs_two_replicates_unless_it_carries_no_weight():
    assert combine([1.0, 0.0], [A, np.array([1.0])]).cells == 1
    with pytest.raises(ValueError, match="two replicates"):
        combine([1.0, -1.0], [A, np.array([1.0])])


def test_a_margin_is_positive():
    with pytest.raises(ValueError, match="positive"):
        equivalence_p(combine([1.0], [A]), 0.0)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    shift=st.floats(-100, 100),
    scale=st.floats(0.01, 100),
    sizes=st.lists(st.integers(2, 9), min_size=2, max_size=4),
    draw=st.integers(0, 10_000),
)
def test_contrasts_ignore_a_shift_and_follow_the_scale(shift, scale, sizes, draw):
    rng = np.random.default_rng(draw)
    cells = [rng.normal(size=n) for n in sizes]
    weights = rng.normal(size=len(sizes))
    weights -= weights.mean()
    before = combine(weights, cells)
    after = combine(weights, [scale * c[::-1] + shift for c in cells])
    assert after.value == pytest.approx(scale * before.value, rel=1e-6, abs=1e-9)
    assert after.df == pytest.approx(before.df, rel=1e-6)
    expected = [scale * bound for bound in interval(before)]
    assert interval(after) == pytest.approx(expected, rel=1e-6, abs=1e-8)
