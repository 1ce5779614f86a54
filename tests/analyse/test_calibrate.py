"""A/A splits: procedures that cry wolf are told from those that don't."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from analyse_samples import RUNS, tidy
from scipy import stats

from ablate.analyse import calibrate as module
from ablate.analyse.calibrate import Rate, variants_of
from ablate.errors import UserError

DATA = [f"d{i}" for i in range(6)]


def calibrate(table, metric="score", **rest):
    return module.calibrate(table, metric, **rest)


def runs(seeds: int = 8, **more) -> pd.DataFrame:
    return tidy(lambda cell: 50.0 * cell["context"], data=DATA, seeds=seeds, **more)


def test_sound_procedures_keep_their_level_and_the_bootstrap_does_not():
    found = calibrate(runs(), "score", splits=40)
    rates = {r.procedure: r for r in found.rates}
    assert (found.variants, found.cells) == (6, 36)
    for name in (
        "paired t over seeds",
        "Welch-Satterthwaite t",
        "stratified permutation",
        "t over data sets",
    ):
        assert rates[name].rate < 0.05 + 3.0 * rates[name].error, name
        assert rates[name].judgement != "too many"
    assert rates["stratified percentile bootstrap, mean"].judgement == "too many"
    assert rates["any data set's Welch t, uncorrected"].rate > 0.1
    text = found.text()
    assert "warning: stratified percentile bootstrap, mean finds a difference" in text
    assert len(found.frame()) == len(found.rates)


def test_the_same_table_gives_the_same_rates():
    assert calibrate(runs(), "score", splits=6) == calibrate(runs(), "score", splits=6)


def test_fewer_than_four_seeds_are_refused():
    with pytest.raises(UserError, match=r"allowed: four seeds or more a cell") as refused:
        calibrate(runs(seeds=3), "score")
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="no cell has 4 finished trials"):
        calibrate(runs().assign(score=1.0), "score")
    with pytest.raises(UserError, match="metric of a hypothesis"):
        calibrate(runs(), "scor")


def test_thin_and_flat_cells_are_left_out_and_said():
    table = runs()
    thin = (table["data"] == "d0") & (table["seed"] > 2)
    table = table[~thin].reset_index(drop=True)
    table.loc[table["data"] == "d1", "score"] = 3.0
    found = calibrate(table, "score", splits=5)
    assert found.cells == 24
    assert found.left_out == (
        "6 cells with fewer than 4 finished trials were left out.",
        "6 cells that don't vary over seeds were left out.",
    )


def test_one_data_set_has_no_population_to_speak_of():
    found = calibrate(runs()[lambda t: t["data"] == "d0"].reset_index(drop=True), "score", splits=8)
    assert {r.kind for r in found.rates} == {"fixed", "popular"}


def test_halves_are_halves():
    variants, _ = variants_of(runs(seeds=9), "score")
    halves = module._split(variants[0], 7, np.random.default_rng(0))
    assert [(a.shape, b.shape) for a, b in halves] == [((7, 4), (7, 5))] * 6
    for (a, b), cell in zip(halves, variants[0].cells, strict=True):
        together = np.sort(np.concatenate([a, b], axis=1), axis=1)
        assert np.array_equal(together, np.broadcast_to(np.sort(cell), (7, 9)))


def test_the_iqm_is_scipys():
    x = np.random.default_rng(1).normal(size=(3, 30))
    assert module._iqm(x) == pytest.approx(stats.trim_mean(x, 0.25, axis=1))


@pytest.mark.parametrize(
    ("rate", "error", "judgement"),
    [
        (0.05, 0.01, "as it should"),
        (0.069, 0.01, "as it should"),
        (0.08, 0.01, "too many"),
        (0.01, 0.01, "few"),
        (0.055, 0.001, "as it should"),
    ],
)
def test_judgements(rate, error, judgement):
    assert Rate("p", "fixed", 0.05, rate, error, 500, 9).judgement == judgement


@pytest.mark.skipif(not RUNS.exists(), reason="the published runs of d3rlpy-benchmarks aren't here")
def test_real_runs():
    """Nine offline algorithms on twelve data sets; the popular bootstrap is off by a factor."""
    table = pd.read_csv(RUNS)
    table = table[table["suite"].str.startswith("d4rl") & table["dataset"].str.endswith("v0")]
    table = table[~table["dataset"].str.startswith("ant") & ~table["algo"].isin(["SAC", "TD3"])]
    low = {"hopper": -20.272305, "halfcheetah": -280.178953, "walker2d": 1.629008}
    high = {"hopper": 3234.3, "halfcheetah": 12135.0, "walker2d": 4592.3}
    task = table["dataset"].str.split("-").str[0]
    table = pd.DataFrame(
        {
            "data": table["dataset"],
            "mixer": table["algo"],
            "seed": table["seed"],
            "score": 100.0 * (table["score"] - task.map(low)) / (task.map(high) - task.map(low)),
        }
    ).reset_index(drop=True)
    found = calibrate(table, "score")
    rates = {r.procedure: r.rate for r in found.rates}
    assert (found.variants, found.splits) == (9, 60)
    assert 0.03 <= rates["paired t over seeds"] <= 0.065
    assert 0.03 <= rates["Welch-Satterthwaite t"] <= 0.065
    assert 0.03 <= rates["stratified permutation"] <= 0.065
    assert rates["stratified percentile bootstrap, IQM"] > 0.085
    assert rates["any data set's Welch t, uncorrected"] > 0.25
