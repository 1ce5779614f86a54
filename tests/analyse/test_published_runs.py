"""Pairs of published algorithms, compared in three ways, give the counts that are known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from analyse_samples import RUNS, analyse
from scipy import stats

from ablate.analyse.randomisation import generator, holm
from ablate.data.d4rl_index import normalised_score
from ablate.study.hypotheses import Hypothesis

OFFLINE = ("AWAC", "BCQ", "BEAR", "CQL", "CRR", "IQL", "PLAS", "PLASWithPerturbation", "TD3PlusBC")

pytestmark = pytest.mark.skipif(
    not RUNS.exists(), reason="the published runs of d3rlpy-benchmarks aren't here"
)


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    """Nine offline algorithms on twelve MuJoCo data sets, ten seeds, in D4RL's points."""
    table = pd.read_csv(RUNS)
    mujoco = table["dataset"].str.match(r"(halfcheetah|hopper|walker2d)-.*-v0")
    table = table[mujoco & table["algo"].isin(OFFLINE)].rename(
        columns={"dataset": "data", "algo": "mixer"}
    )
    points = [normalised_score(d, s) for d, s in zip(table["data"], table["score"], strict=True)]
    return table.assign(score=points).drop(columns="suite")


def test_its_spreads_are_the_known_ones(runs):
    assert len(runs) == 9 * 12 * 10
    sd = runs.groupby(["mixer", "data"])["score"].std()
    assert np.sqrt((sd**2).mean()) == pytest.approx(10.7, abs=0.05)
    assert sd.median() == pytest.approx(2.7, abs=0.05)


def test_seeds_alone_find_29_of_36_pairs_different(runs):
    """The popular way: percentile interval of the difference of IQMs, seeds resampled."""
    wide = runs.pivot(index=["mixer", "data"], columns="seed", values="score").to_numpy()
    scores = wide.reshape(9, 12, 10)
    rng = generator("pairs")
    resamples = 1000
    drawn = np.empty((9, resamples))
    for i, algorithm in enumerate(scores):
        seeds = rng.integers(0, 10, (resamples, 12, 10))
        taken = algorithm[np.arange(12)[:, None], seeds].reshape(resamples, -1)
        drawn[i] = stats.trim_mean(taken, 0.25, axis=1)
    different = 0
    for a, b in itertools.combinations(range(9), 2):
        low, high = np.percentile(drawn[a] - drawn[b], [2.5, 97.5])
        different += not low <= 0.0 <= high
    assert abs(different - 29) <= 1


def pairs(estimand: str, family: str) -> list[Hypothesis]:
    return [
        Hypothesis(
            id=f"{a}-{b}",
            says=f"{a} and {b} differ.",
            contrast=f"mixer[{a}] - mixer[{b}]",
            test="difference",
            estimand=estimand,
            family=family or f"{a}-{b}",
        )
        for a, b in itertools.combinations(OFFLINE, 2)
    ]


def test_over_data_sets_7_of_36_differ_and_none_after_holm(runs):
    alone = analyse(runs, pairs("population", ""), paired=False).verdicts
    assert sum(v.verdict == "supported" for v in alone) == 7
    assert (holm([v.p for v in alone]) >= 0.05).all()
    eight = [p for p in pairs("population", "all pairs") if p.id.startswith("AWAC")]
    for verdict in analyse(runs, eight, paired=False).verdicts:
        assert verdict.family_size == 8
        assert verdict.verdict != "supported"
    # The model-based twin agrees with the t wherever slopes vary, as they do here.
    for verdict in alone:
        assert verdict.population.mixed_p == pytest.approx(verdict.p, rel=0.01)


def test_on_these_data_sets_most_differ_also_after_holm(runs):
    """The fixed estimand asks another question, and answers it with its level kept."""
    some = [p for p in pairs("fixed", "all pairs") if p.id.startswith("CQL")]
    found = analyse(runs, some, paired=False).verdicts
    assert sum(v.verdict == "supported" for v in found) >= 4
    for hypothesis, verdict in zip(some, found, strict=True):
        a, b = hypothesis.id.split("-")
        cells = runs[runs["mixer"].isin([a, b])].groupby(["mixer", "data"])["score"]
        shares = cells.var() / cells.size() / 12**2
        df = shares.sum() ** 2 / (shares**2 / (cells.size() - 1)).sum()
        means = cells.mean().unstack("mixer")
        t = stats.t(df, (means[a] - means[b]).mean(), math.sqrt(shares.sum()))
        assert (verdict.low, verdict.high) == pytest.approx(t.interval(0.95), rel=1e-9)
