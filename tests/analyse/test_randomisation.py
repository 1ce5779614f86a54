"""Permutation, sign flips, t over data sets and Holm, against scipy, statsmodels and by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ablate.analyse.randomisation import (
    Block,
    generator,
    holm,
    over_data_sets,
    permutation,
    sign_flip,
)

PAIR = np.array([1.0, -1.0])


def welch(x, y, axis=-1):
    v = x.var(axis=axis, ddof=1) / x.shape[axis] + y.var(axis=axis, ddof=1) / y.shape[axis]
    return (x.mean(axis=axis) - y.mean(axis=axis)) / np.sqrt(v)


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_one_block_listed_in_full_is_scipys_exact_test(alternative):
    rng = np.random.default_rng(1)
    x, y = rng.normal(1.0, 1.0, 5), rng.normal(0.0, 1.0, 5)
    ours = permutation([Block(PAIR, (x, y))], generator("h"))
    theirs = stats.permutation_test(
        (x, y), welch, vectorized=True, n_resamples=np.inf, alternative=alternative
    )
    assert ours.exact
    assert ours.arrangements == 252
    assert ours.p(alternative) == pytest.approx(theirs.pvalue)


def test_drawn_permutations_come_near_scipys_exact_test():
    rng = np.random.default_rng(2)
    x, y = rng.normal(0.8, 2.0, 8), rng.normal(0.0, 1.0, 7)
    scipys = stats.permutation_test(
        (x, y), welch, vectorized=True, n_resamples=np.inf, alternative="greater"
    )
    exact = scipys.pvalue
    ours = permutation([Block(PAIR, (x, y))], generator("h"), draws=4000)
    assert not ours.exact
    assert ours.greater == pytest.approx(exact, abs=4 * np.sqrt(exact / 4000))
    assert ours.smallest == pytest.approx(1 / 4001)


def test_several_blocks_listed_in_full_equal_a_plain_loop():
    rng = np.random.default_rng(5)
    data = [rng.normal(size=5), 30.0 + rng.normal(size=4)]  # arms of 3 + 2 and of 2 + 2
    firsts = [3, 2]
    blocks = [Block(PAIR / 2, (d[:k], d[k:])) for d, k in zip(data, firsts, strict=True)]

    def statistic(chosen):
        value = variance = 0.0
        for d, pick in zip(data, chosen, strict=True):
            x, y = d[list(pick)], np.delete(d, list(pick))
            value += (x.mean() - y.mean()) / 2
            variance += (x.var(ddof=1) / len(x) + y.var(ddof=1) / len(y)) / 4
        return value / np.sqrt(variance)

    picks = [
        list(itertools.combinations(range(len(d)), k)) for d, k in zip(data, firsts, strict=True)
    ]
    null = np.array([statistic(chosen) for chosen in itertools.product(*picks)])
    observed = statistic([range(3), range(2)])
    found = permutation(blocks, generator("h"))
    assert found.arrangements == len(null) == 60
    assert found.greater == pytest.approx((null >= observed - 1e-12).mean())
    assert found.two_sided == pytest.approx((abs(null) >= abs(observed) - 1e-12).mean())


def test_three_arms_are_listed_in_full():
    arms = (np.array([5.0, 6.0]), np.array([1.0, 2.0]), np.array([0.0, 3.0]))
    found = permutation([Block(np.array([1.0, -0.5, -0.5]), arms)], generator("h"))
    assert found.arrangements == 90  # 6! / (2! 2! 2!)
    assert found.exact


def test_levels_of_blocks_dont_matter():
    rng = np.random.default_rng(7)
    blocks = [Block(PAIR, (rng.normal(1, 1, 6), rng.normal(0, 1, 6))) for _ in range(3)]
    moved = [
        Block(PAIR, tuple(arm + 1000.0 * (i + 1) for arm in b.arms)) for i, b in enumerate(blocks)
    ]
    first = permutation(blocks, generator("h"), 500)
    assert permutation(moved, generator("h"), 500) == first


def test_equal_ids_give_equal_p_and_others_other_draws():
    rng = np.random.default_rng(8)
    block = [Block(PAIR, (rng.normal(0.3, 1, 12), rng.normal(0, 1, 12)))]
    assert permutation(block, generator("a")) == permutation(block, generator("a"))
    assert permutation(block, generator("a")) != permutation(block, generator("b"))


@pytest.mark.parametrize(("gap", "p"), [(1.0, 1 / 70), (0.0, 1.0)])
def test_arms_without_spread(gap, p):
    found = permutation([Block(PAIR, (np.full(4, gap), np.zeros(4)))], generator("h"))
    assert found.greater == pytest.approx(p)


def test_what_cannot_be_permuted_is_refused():
    with pytest.raises(ValueError, match="two replicates"):
        permutation([Block(PAIR, (np.ones(1), np.ones(3)))], generator("h"))
    with pytest.raises(ValueError, match="sum to zero"):
        permutation([Block(np.array([1.0, -0.5]), (np.ones(2), np.ones(3)))], generator("h"))


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_sign_flips_of_one_sample_are_scipys(alternative):
    x = np.random.default_rng(9).normal(0.5, 1.0, 9)
    ours = sign_flip(x / len(x), generator("h"))
    theirs = stats.permutation_test(
        (x,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative=alternative
    )
    assert ours.exact
    assert ours.p(alternative) == pytest.approx(theirs.pvalue)


def test_many_sign_flips_are_drawn():
    x = np.random.default_rng(10).normal(0.0, 1.0, 40)
    found = sign_flip(x, generator("h"), draws=2000)
    assert not found.exact
    assert found.arrangements == 2000
    # by the normal approximation, which is good at 40 terms
    normal = stats.norm.sf(x.sum() / np.sqrt(np.square(x).sum()))
    assert found.greater == pytest.approx(normal, abs=0.05)
    assert found.greater + found.less == pytest.approx(1.0, abs=2e-3)


def test_over_data_sets_is_the_one_sample_t_test():
    contrasts = np.array([3.0, 5.0, 1.0, 4.0])
    estimate, reason = over_data_sets(contrasts)
    assert reason == ""
    assert estimate is not None
    assert estimate.df == pytest.approx(3.0)
    assert estimate.value == pytest.approx(3.25)
    nothing, reason = over_data_sets(contrasts[:1])
    assert nothing is None
    assert "at least two" in reason


def test_holm_is_statsmodels_and_takes_an_empty_family():
    p = [0.01, 0.04, 0.03, 0.2]
    ties = np.round(np.random.default_rng(0).random(20), 1)
    assert holm(ties) == pytest.approx(multipletests(ties, method="holm")[1])
    assert holm(p) == pytest.approx([0.04, 0.09, 0.09, 0.2])  # by hand: 4 x .01, 3 x .03, ...
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert len(holm([])) == 0
