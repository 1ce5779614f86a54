"""Jonckheere-Terpstra against a plain loop; isotonic regression against scipy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from ablate.analyse.randomisation import Block, generator
from ablate.analyse.trends import isotonic, jonckheere_test

RISE = np.array([-1.0, 0.0, 1.0])


def arms(rng, sizes=(5, 7, 4), step=0.4, digits=8):
    return [np.round(rng.normal(step * i, 1.0, n), digits) for i, n in enumerate(sizes)]


def studentised(found) -> float:
    """The centred count over the root of its placement variance, by loops."""
    total = variance = 0.0
    for i, mine in enumerate(found):
        placements = []
        for x in mine:
            p = 0.0
            for j, other in enumerate(found):
                p += np.sign(j - i) * sum(np.sign(y - x) / 2 for y in other)
            placements.append(p)
        total += sum(placements) / 2
        variance += len(mine) * np.var(placements, ddof=1)
    return total / np.sqrt(variance) if variance > 0 else np.sign(total) * np.inf


@pytest.mark.parametrize("draw", [4, 5])
def test_the_exact_permutation_test_equals_a_plain_loop(draw):
    rng = np.random.default_rng(draw)
    found = arms(rng, sizes=(2, 3, 2), step=1.0)
    pooled = np.concatenate(found)
    null = []
    for first in itertools.combinations(range(7), 2):
        rest = [i for i in range(7) if i not in first]
        for second in itertools.combinations(rest, 3):
            third = [i for i in rest if i not in second]
            null.append(studentised([pooled[list(first)], pooled[list(second)], pooled[third]]))
    observed = studentised(found)
    ours = jonckheere_test([Block(RISE, tuple(found))], generator("h"))
    assert ours.exact
    assert ours.arrangements == len(null) == 210
    assert ours.greater == pytest.approx(np.mean(np.array(null) >= observed - 1e-9))
    assert ours.less == pytest.approx(np.mean(np.array(null) <= observed + 1e-9))


def test_arms_are_taken_in_the_order_of_their_weights():
    rng = np.random.default_rng(6)
    low, middle, high = arms(rng, sizes=(4, 4, 4), step=2.0)
    up = jonckheere_test([Block(RISE, (low, middle, high))], generator("h"), 500)
    mixed = jonckheere_test([Block(RISE[[2, 0, 1]], (high, low, middle))], generator("h"), 500)
    assert up.greater == mixed.greater < 0.01
    assert up.less > 0.98


def test_only_runs_of_one_block_are_compared():
    rng = np.random.default_rng(7)
    blocks = [Block(RISE, tuple(arms(rng, sizes=(4, 4, 4)))) for _ in range(3)]
    moved = [Block(RISE, tuple(arm + 100.0 * i for arm in b.arms)) for i, b in enumerate(blocks)]
    first = jonckheere_test(blocks, generator("h"), 400)
    assert jonckheere_test(moved, generator("h"), 400) == first


@pytest.mark.parametrize("spreads", [(1.0, 1.0, 1.0), (1.0, 2.0, 6.0), (6.0, 2.0, 1.0)])
def test_it_keeps_its_level_also_where_arms_differ_in_spread(spreads):
    rng = np.random.default_rng(8)
    repetitions, hits = 300, 0
    for _ in range(repetitions):
        blocks = [Block(RISE, tuple(s * rng.normal(size=5) for s in spreads)) for _ in range(4)]
        hits += jonckheere_test(blocks, rng, draws=199).greater <= 0.05
    assert hits <= stats.binom.ppf(0.999, repetitions, 0.05)


def test_it_needs_two_runs_an_arm():
    with pytest.raises(ValueError, match="two replicates"):
        jonckheere_test([Block(RISE, (np.ones(2), np.ones(1), np.ones(3)))], generator("h"))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.floats(-50, 50), min_size=2, max_size=6))
def test_the_rising_curve_is_scipys(means):
    cells = tuple(np.array([m - 1.0, m + 1.0]) for m in means)
    weights = np.arange(len(means), dtype=float)
    found = isotonic([Block(weights, cells)], list("abcdef"[: len(means)]), generator("h"))
    assert found.means == pytest.approx(means)
    assert found.fit == pytest.approx(optimize.isotonic_regression(means).x.tolist(), abs=1e-9)
    assert all(a <= b <= c for a, b, c in zip(found.low, found.fit, found.high, strict=True))
    assert list(found.low) == sorted(found.low)


def test_the_band_covers_the_truth():
    rng = np.random.default_rng(9)
    truth, covered = np.array([0.0, 1.0, 2.0, 3.0]), np.zeros(4)
    for _ in range(150):
        cells = tuple(m + rng.normal(size=5) for m in truth)
        found = isotonic([Block(truth - 1.5, cells)], list("abcd"), rng, resamples=400)
        covered += (np.array(found.low) <= truth) & (truth <= np.array(found.high))
    assert (covered / 150).min() > 0.89  # .95, three standard errors down


def test_blocks_weigh_as_in_the_contrast_and_flat_cells_have_no_band():
    blocks = [
        Block(RISE[[0, 2]] * share, (np.full(3, level), np.full(3, level + 4.0)))
        for share, level in ((0.75, 0.0), (0.25, 8.0))
    ]
    found = isotonic(blocks, ["1", "20"], generator("h"))
    assert found.fit == pytest.approx((2.0, 6.0))
    assert found.low == found.fit == found.high
