"""How often the procedures cry wolf: on simulated nulls, and on real runs split at random.

Bounds are the .999 quantile of the number of false alarms at the nominal level.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from analyse_samples import RUNS
from scipy import stats

from ablate.analyse.intervals import combine, p_value
from ablate.analyse.randomisation import Block, generator, permutation, sign_flip

LEVEL = 0.05


def most(repetitions: int) -> float:
    return float(stats.binom.ppf(0.999, repetitions, LEVEL)) / repetitions


@pytest.mark.parametrize(
    ("spreads", "sizes", "weights"),
    [
        ((1.0, 1.0), (5, 5), (1.0, -1.0)),
        ((6.0, 2.0), (5, 5), (1.0, -1.0)),
        ((6.0, 2.0, 2.0), (10, 10, 10), (1.0, -0.5, -0.5)),  # .12 without studentising
        ((6.0, 2.0), (4, 10), (1.0, -1.0)),  # .20 without studentising
    ],
)
def test_permutation_and_welch_keep_their_level_on_four_data_sets(spreads, sizes, weights):
    repetitions, data_sets = 300, 4
    rng = np.random.default_rng(11)
    hits = np.zeros(2)
    for _ in range(repetitions):
        arms = [
            tuple(rng.normal(0.0, s, n) for s, n in zip(spreads, sizes, strict=True))
            for _ in range(data_sets)
        ]
        blocks = [Block(np.array(weights) / data_sets, a) for a in arms]
        estimate = combine(
            [w / data_sets for _ in arms for w in weights], [x for a in arms for x in a]
        )
        hits += (
            permutation(blocks, rng, draws=199).two_sided <= LEVEL,
            p_value(estimate) <= LEVEL,
        )
    assert (hits / repetitions).max() <= most(repetitions)


def test_a_main_effect_that_cancels_doesnt_blunt_the_permutation_test():
    rng = np.random.default_rng(12)
    hits = 0
    for _ in range(200):  # the contrast is 2, other differences are 10
        arms = (rng.normal(2, 1, 8), rng.normal(5, 1, 8), rng.normal(-5, 1, 8))
        hits += permutation([Block(np.array([1.0, -0.5, -0.5]), arms)], rng, 199).greater <= LEVEL
    assert hits / 200 > 0.9  # unstudentised: .005


def test_sign_flips_keep_their_level():
    rng = np.random.default_rng(13)
    repetitions = 400
    hits = sum(
        sign_flip(np.concatenate([rng.normal(0, s, 5) for s in (1.0, 4.0)]), rng, 199).two_sided
        <= LEVEL
        for _ in range(repetitions)
    )
    assert hits / repetitions <= most(repetitions)


@pytest.mark.skipif(not RUNS.exists(), reason="the published runs of d3rlpy-benchmarks aren't here")
def test_real_runs_split_at_random_rarely_differ():
    """A/A: one algorithm's ten seeds on twelve data sets, five against five."""
    runs = pd.read_csv(RUNS)
    runs = runs[runs["suite"].str.startswith("d4rl") & runs["dataset"].str.endswith("v0")]
    wide = runs.pivot_table(index=["algo", "dataset"], columns="seed", values="score")
    wide = wide[~wide.index.get_level_values("dataset").str.startswith("ant")]
    rng = generator("A/A")
    splits, outcomes = 20, []
    for _, cells in wide.groupby("algo"):
        scores = cells.to_numpy()
        scores = scores / np.abs(wide.to_numpy()).max()
        if len(scores) < 9:
            continue
        for _ in range(splits):
            halves = [(s[:5], s[5:]) for s in rng.permuted(scores, axis=1)]
            share = np.array([1.0, -1.0]) / len(halves)
            random = permutation([Block(share, h) for h in halves], rng, draws=199)
            t = combine(np.tile(share, len(halves)), [x for h in halves for x in h])
            outcomes.append((random.two_sided <= LEVEL, p_value(t) <= LEVEL))
    assert len(outcomes) >= 180
    # Splits of one algorithm share runs, so rates scatter more than independent ones.
    rates = np.mean(outcomes, axis=0)
    assert rates.max() <= most(len(outcomes)) + 0.02, rates
