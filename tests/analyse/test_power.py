"""Power: what is predicted is what happens when the verdicts themselves are asked."""

from __future__ import annotations

import json
import math
import re
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from analyse_samples import claim, tidy
from scipy import stats

from ablate.analyse import planned, power, power_table, spreads
from ablate.analyse.spreads import Between, Spreads
from ablate.analyse.verdict import EQUIVALENT, SUPPORTED, judge
from ablate.errors import UserError
from ablate.study import expand
from ablate.study.load import load
from ablate.track.table import read_table

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "studies" / "memory_vs_arch_locomotion.yaml"
FACTORS = ["data", "mixer", "context", "condition", "history", "head"]


@cache
def shipped():
    """A shipped study, its hypotheses about responses and by estimators that are known here."""
    made = load(STUDY)
    renamed = [
        h.model_copy(
            update={"metric": h.metric.rpartition(".")[2].replace("score", "sample.score")}
        )
        for h in made.hypotheses
        if h.estimator is None
    ]
    return made.model_copy(update={"hypotheses": tuple(renamed)})


def design(data: int = 3, mixers: tuple[str, ...] = ("mlp", "gru", "attention")) -> pd.DataFrame:
    table = tidy(lambda cell: 0.0, data=[f"d{i}" for i in range(data)], mixer=mixers, seeds=2)
    return table[FACTORS].drop_duplicates().reset_index(drop=True)


def levels(cells: pd.DataFrame) -> dict[str, list]:
    return {name: list(dict.fromkeys(cells[name])) for name in cells.columns}


def known(cells: pd.DataFrame, seed: float = 6.0, between: float = 3.0) -> dict[str, Spreads]:
    flat = np.full(len(cells), seed)
    found = Spreads("a test", flat, np.full(len(cells), math.inf), lambda one: Between(between))
    return {"score": found}


def forecast(hypotheses, cells, *, seeds=5, repetitions=1000, **more):
    made = power.forecast(
        hypotheses,
        levels(cells),
        cells,
        known(cells, **more),
        seeds=seeds,
        alpha=0.05,
        margin=3.0,
        repetitions=repetitions,
    )
    return {one.hypothesis: one for one in made}


def test_predicted_power_is_simulated_power():
    """A family of three under Holm, judged one made-up study at a time; all effects as planned.

    (By 40,000 draws of the three contrasts: .622, .621, .319.)
    """
    cells = design(2)
    family = [
        claim("memory", margin=5.0, primary=True),
        claim(
            "architecture",
            "mixer[attention] - mixer[mlp, gru]",
            test="equivalence",
            margin=6.0,
            primary=True,
        ),
        claim("above", threshold=2.0, margin=3.0, primary=True),
    ]
    predicted = forecast(family, cells)
    studies = 80
    hits = dict.fromkeys(predicted, 0)
    for draw in range(studies):
        table = tidy(
            lambda cell: 2.5 * (1 if cell["context"] == 20 else -1),
            data=["d0", "d1"],
            noise=6.0,
            seeds=5,
            draw=100 + draw,
        )
        for v in judge(
            table,
            family,
            levels(cells),
            alpha=0.05,
            margin=3.0,
            registered=dict.fromkeys(hits, True),
        ):
            hits[v.hypothesis] += v.verdict == (
                EQUIVALENT if v.test == "equivalence" else SUPPORTED
            )
    for name, count in hits.items():
        p = predicted[name].fixed.planned
        assert p is not None
        assert abs(count / studies - p) < 0.05 + 2.0 * math.sqrt(p * (1.0 - p) / studies), name


def test_the_paired_t_and_its_population_twin_agree_with_the_noncentral_t():
    cells = design(4, ("mlp",))
    found = forecast([claim(threshold=2.0, margin=4.0)], cells)["memory"]
    error = math.sqrt(2.0 * 36.0 / (4 * 5))
    df = 4  # seeds; a one-sided test has to agree with the two-sided interval
    exact = stats.nct.sf(stats.t.isf(0.025, df), df, 4.0 / error)
    assert found.fixed.planned == pytest.approx(exact, abs=0.05)
    error = math.sqrt((9.0 + 2.0 * 36.0 / 5) / 4)
    exact = stats.nct.sf(stats.t.isf(0.025, 3), 3, 4.0 / error)
    assert exact / 2 < found.population.planned < exact  # never narrower than for these data sets
    # What is detectable has 80 %; the formula is near, and nearer with more degrees of freedom.
    reach = stats.nct.sf(stats.t.isf(0.025, df), df, found.fixed.detectable / (6.0 / math.sqrt(10)))
    assert reach == pytest.approx(0.8, abs=0.04)
    assert found.fixed.formula == pytest.approx(found.fixed.detectable, rel=0.06)


def test_seeds_that_are_needed_are_enough_and_one_step_fewer_is_not():
    cells = design(1, ("mlp",))
    family = [claim(threshold=2.0, margin=4.0)]
    needed = forecast(family, cells)["memory"].fixed.needed
    assert needed is not None

    def exact(seeds: int) -> float:
        df, error = seeds - 1, 6.0 * math.sqrt(2.0 / seeds)
        return float(stats.nct.sf(stats.t.isf(0.025, df), df, 4.0 / error))

    assert exact(needed) > 0.77
    assert exact(needed - 5) < 0.8


def test_data_sets_that_are_needed():
    cells = design(3, ("mlp",))
    found = forecast([claim(threshold=2.0, margin=4.0)], cells)["memory"].population
    assert found.needed is not None

    def exact(n: int) -> float:
        error = math.sqrt((9.0 + 72.0 / 5) / n)
        return float(stats.nct.sf(stats.t.isf(0.025, n - 1), n - 1, 4.0 / error))

    assert exact(found.needed + 1) > 0.78
    assert exact(found.needed - 2) < 0.8


@pytest.mark.parametrize(
    ("data_sets", "seeds", "population", "fixed"),
    [(6, 5, 35.8, 7.7), (12, 5, 22.2, 5.5), (12, 10, 21.8, 3.9)],
)
def test_published_spreads_give_the_known_table(data_sets, seeds, population, fixed):
    """The detectable differences that were computed from d3rlpy's benchmarks, two-sided 5 %."""
    cells = design(data_sets, ("mlp",))
    made = power.forecast(
        [claim(test="difference")],
        levels(cells),
        cells,
        {"score": spreads.published("d3rlpy", cells, "sample.score")},
        seeds=seeds,
        alpha=0.05,
        margin=3.0,
        paired=False,
    )[0]
    assert made.population.formula == pytest.approx(population, rel=0.01)
    assert made.population.detectable == pytest.approx(population, rel=0.08)
    assert made.fixed.formula == pytest.approx(fixed, rel=0.03)
    assert made.fixed.detectable == pytest.approx(fixed, rel=0.08)


def test_more_hypotheses_in_a_family_cost_power():
    cells = design(2, ("mlp",))
    one = claim("a", threshold=1.0, margin=4.0)
    alone = forecast([one], cells)["a"].fixed
    others = [claim(f"b{i}", threshold=1.0, margin=0.1) for i in range(4)]
    among = forecast([one, *others], cells)["a"].fixed
    assert among.planned < alone.planned - 0.1
    assert among.detectable > alone.detectable


def test_a_trend_and_a_pair_and_a_population():
    cells = design(3)
    hypotheses = [
        claim("rise", "log_trend(context[1, 20])", test="trend", margin=4.0),
        claim("pairs", "each pair of mixer", where={"context": 20}, test="equivalence"),
        claim("new", estimand="population", margin=6.0, primary=True),
    ]
    found = forecast(hypotheses, cells, repetitions=300)
    assert found["rise"].fixed.planned > 0.5
    # Three claims that must all hold need a wider margin than one.
    single = claim("pairs", "mixer[mlp] - mixer[gru]", where={"context": 20}, test="equivalence")
    alone = forecast([single], cells, repetitions=300)["pairs"]
    assert found["pairs"].fixed.detectable > 1.1 * alone.fixed.detectable
    assert found["new"].estimand == "population"


def pilot(seeds: int = 4, noise: float = 5.0, **more) -> pd.DataFrame:
    return tidy(lambda cell: 0.0, data=["d0", "d1", "d2"], seeds=seeds, noise=noise, **more)


def test_a_pilots_spreads_are_found():
    table = pilot(seeds=40, noise=5.0)
    table["score"] += (
        4.0 * table["data"].map({"d0": -1.0, "d1": 0.0, "d2": 1.0}) * (table["context"] == 20)
    )
    found = spreads.from_pilot(table, design(4), "score")
    assert math.sqrt(np.mean(np.square(found.seed))) == pytest.approx(5.0, rel=0.1)
    assert found.notes == ("6 of 24 cells take the SD between seeds of all cells",)
    one = planned.lay(claim(), levels(design(3)), planned.structure(design(3)), found, 3.0, True)
    assert isinstance(one, planned.Planned)
    between = one.laid[0].between
    assert between.sd == pytest.approx(4.0, rel=0.25)
    assert between.df == 2.0
    assert spreads.upper(4.0) == pytest.approx(math.sqrt(4.0 / stats.chi2.ppf(0.2, 4.0)))
    assert spreads.upper(math.inf) == 1.0


def test_a_short_pilot_is_not_taken_at_its_word():
    cells = design(3)
    found = {}
    for seeds in (3, 30):
        table = pilot(seeds=seeds)
        known = {"score": spreads.from_pilot(table, cells, "score")}
        one = power.forecast(
            [claim()], levels(cells), cells, known, seeds=5, alpha=0.05, margin=3.0, repetitions=200
        )[0]
        found[seeds] = one.fixed.upper / one.fixed.detectable
    assert found[3] > found[30] > 1.0


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda t: t[t["seed"] == 0], "no cell has two finished trials"),
        (lambda t: t.assign(score=1.0), "doesn't vary over the seeds"),
        (lambda t: t.assign(status="FAILED"), "no cell has two finished trials"),
        (lambda t: t.drop(columns="score"), "metric of a hypothesis"),
        (lambda t: t.assign(score="high"), "holds text"),
        (lambda t: pd.concat([t, t]), "two rows for the same trial"),
    ],
)
def test_a_pilot_that_says_nothing_is_refused(change, line):
    made = shipped()
    table = change(pilot()).rename(columns={"score": "sample.score"})
    with pytest.raises(UserError, match=line) as refused:
        power_table.make(made, table, repetitions=50)
    assert "\n" not in str(refused.value)


def test_one_seed_and_no_cells_and_no_hypotheses_are_refused():
    cells = design(1)
    with pytest.raises(UserError, match="found 1 seed; allowed: two or more"):
        forecast([claim()], cells, seeds=1)
    with pytest.raises(UserError, match="the design has no cells"):
        forecast([claim()], cells.iloc[:0])
    with pytest.raises(UserError, match="the design doesn't have its cells"):
        forecast([claim(where={"data": "d7"})], cells)
    made = shipped()
    with pytest.raises(UserError, match="declares no hypotheses"):
        power_table.make(made.model_copy(update={"hypotheses": ()}))


def test_one_data_set_says_nothing_of_others():
    found = forecast([claim()], design(1, ("mlp",)))["memory"]
    assert found.population.reason == "one data set says nothing about others"
    assert found.population.detectable is None
    assert found.fixed.detectable is not None
    across = claim("c", "(context[20] - context[1]) : (data[d0] - data[d1])")
    reason = forecast([across], design(2, ("mlp",)))["c"].population.reason
    assert "compares data sets" in reason


def test_without_a_pilot_the_published_spreads_are_named(tmp_path, monkeypatch):
    made = shipped()
    monkeypatch.setattr(power_table, "make", partial(power_table.make, repetitions=50))
    text = power_table.from_files(made, tmp_path, None, None, read_table).text()
    assert "d3rlpy-benchmarks" in text
    assert "action_error: none (published spreads" in text
    with pytest.raises(UserError, match="Did you mean 'd3rlpy'"):
        power_table.make(made, spreads="d3rply")
    with pytest.raises(UserError, match="no such file"):
        power_table.from_files(made, tmp_path, tmp_path / "none.csv", None, read_table)
    with pytest.raises(UserError, match="found both"):
        power_table.from_files(made, tmp_path, tmp_path / "none.csv", "d3rlpy", read_table)


def test_the_shipped_studys_own_runs():
    """A pilot of all its cells, in which half of a trial's variance belongs to its seed."""
    made = shipped()
    rng = np.random.default_rng(11)
    cells = expand.frame(expand.cells(made), made)
    table = cells.merge(pd.DataFrame({"seed": range(6)}), how="cross")
    metrics = list(dict.fromkeys(h.metric for h in made.hypotheses))
    for metric in metrics:
        shift = rng.normal(0.0, 5.0, (6,))
        table[metric] = 50.0 + shift[table["seed"]] + rng.normal(0.0, 5.0, len(table))
    main = next(h.metric for h in made.hypotheses if h.primary)
    found = power_table.make(made, table, repetitions=100)
    assert len(found.forecasts) == len(made.hypotheses)
    text = found.text()
    measured = re.search(r"Measured pairing: equal seeds correlate by r = (\S+)", text)
    by_data = []
    for _, group in table.groupby("data"):
        wide = group.set_index(["mixer", "context", "condition", "seed"])[main].unstack("seed")
        between = wide.T.corr().to_numpy()  # of the seeds of each two cells
        by_data.append(between[~np.eye(len(between), dtype=bool)].mean())
    assert float(measured[1]) == pytest.approx(np.mean(by_data), abs=0.05)
    assert "Costs: of one worker" in text
    files = found.files()
    assert len(json.loads(files["power.json"])["forecasts"]) == len(made.hypotheses)
    assert files["power.csv"].count("\n") == 2 * len(made.hypotheses) + 1
    timed = power_table.make(made, table.assign(seconds=7.0), repetitions=50)
    one = timed.forecasts[0]
    assert one.fixed.cost == pytest.approx(7.0 * one.cells * one.fixed.needed)
