"""Many repetitions at once give what one at a time gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ablate.analyse import batch, intervals, randomisation
from ablate.analyse.randomisation import Block

RNG = np.random.default_rng(5)


@given(st.lists(st.integers(2, 6), min_size=1, max_size=4), st.integers(0, 100))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_combinations_and_p_values(sizes, seed):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=len(sizes))
    cells = [rng.normal(1.0, s, (3, s)) for s in sizes]
    cells[0][1] = 2.0  # one without spread
    made = batch.combine(weights, cells)
    for r in range(3):
        one = intervals.combine(weights, [cell[r] for cell in cells])
        assert made.value[r] == pytest.approx(one.value)
        assert made.variance[r] == pytest.approx(one.variance, rel=1e-12, abs=1e-20)
        for side in ("two-sided", "greater", "less"):
            expected = intervals.p_value(one, 0.3, side)
            assert batch.p_value(made, 0.3, side)[r] == pytest.approx(expected, abs=1e-12)
        expected = intervals.equivalence_p(one, 1.5, 0.3)
        assert batch.equivalence_p(made, 1.5, 0.3)[r] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("sizes", [[(3, 3)], [(2, 3), (3, 2)], [(2, 2, 2)]])
def test_exact_permutations(sizes):
    weights = {2: np.array([1.0, -1.0]), 3: np.array([1.0, -0.5, -0.5])}
    data = [[RNG.normal(a, 1.0, (4, n)) for a, n in enumerate(block)] for block in sizes]
    arms = [batch.Arms(weights[len(block)], tuple(block)) for block in data]
    made = batch.permutation(arms, RNG, 10_000)
    for r in range(4):
        blocks = [Block(weights[len(b)], tuple(arm[r] for arm in b)) for b in data]
        one = randomisation.permutation(blocks, RNG)
        assert one.exact
        found = (made.greater[r], made.less[r], made.two_sided[r])
        assert found == pytest.approx((one.greater, one.less, one.two_sided))


def test_drawn_permutations_agree_within_their_noise():
    data = [RNG.normal(m, 1.0, (6, 8)) for m in (0.0, 0.5)]
    weights = np.array([-1.0, 1.0])
    made = batch.permutation([batch.Arms(weights, tuple(data))], RNG, 4000)
    for r in range(6):
        one = randomisation.permutation([Block(weights, (data[0][r], data[1][r]))], RNG, 4000)
        noise = 4.0 * np.sqrt(one.greater * (1.0 - one.greater) / 2000.0) + 1e-3
        assert made.greater[r] == pytest.approx(one.greater, abs=noise)


def test_constant_arms():
    """No spread at all, and a difference without spread: as in `randomisation.permutation`."""
    weights = np.array([1.0, -1.0])
    flat = (np.full((1, 3), 7.0), np.full((1, 3), 7.0))
    apart = (np.full((1, 3), 7.3), np.full((1, 3), 1.1))
    for arms in (flat, apart):
        made = batch.permutation([batch.Arms(weights, arms)], RNG, 1000)
        one = randomisation.permutation([Block(weights, (arms[0][0], arms[1][0]))], RNG)
        assert made.two_sided[0] == pytest.approx(one.two_sided)


def test_exact_sign_flips():
    terms = RNG.normal(0.3, 1.0, (5, 8))
    made = batch.sign_flip(terms, RNG, 1000)
    for r in range(5):
        one = randomisation.sign_flip(terms[r], RNG)
        assert made.greater[r] == pytest.approx(one.greater)
        assert made.two_sided[r] == pytest.approx(one.two_sided)


def test_the_wider_of_two():
    one, two = (batch.combine([1.0], [RNG.normal(0.0, 1.0, (40, n))]) for n in (4, 7))
    made = batch.wider(one, two, 0.95)
    for r in range(40):
        pair = [intervals.Estimate(e.value[r], e.variance[r], e.df[r], 1, 0) for e in (one, two)]
        expected = intervals.wider(*pair, 0.95)
        assert (made.value[r], made.variance[r]) == (expected.value, expected.variance)
        assert made.df[r] == expected.df


def test_holm_row_by_row():
    p = RNG.uniform(size=(5, 6))
    made = batch.holm(p)
    for row, found in zip(p, made, strict=True):
        assert found == pytest.approx(randomisation.holm(row))


def test_numbers_of_arrangements():
    assert batch.arrangements([[3, 3]]) == 20
    assert batch.arrangements([[2, 2, 2], [1, 4]]) == 90 * 5
    assert batch.arrangements([[60, 60]] * 20) == np.inf


def test_simulated_p_values_are_uniform_under_the_null():
    data = [RNG.normal(size=(2000, 4)) for _ in range(4)]
    arms = [batch.Arms(np.array([0.5, -0.5]), (data[0], data[1]))]
    arms.append(batch.Arms(np.array([0.5, -0.5]), (data[2], data[3])))
    p = batch.permutation(arms, RNG, 499).two_sided
    assert stats.binomtest(int((p <= 0.05).sum()), 2000, 0.05).pvalue > 0.001
