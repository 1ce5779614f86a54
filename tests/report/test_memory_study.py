"""What only the study of memory and architecture shows: effects of context, and an earlier measurement."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import report_samples as samples

from ablate import registry
from ablate.errors import UserError
from ablate.report import figures, reference, style, summaries, tables
from ablate.report.results import Results

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture(scope="module")
def own() -> Any:
    """The study's own file, forgotten after these tests."""
    with registry.scope():
        registry.load_plugin(str(STUDIES / "memory_vs_arch.py"))
        yield sys.modules[registry.get("figure", "interaction").__module__]


@pytest.fixture(scope="module")
def results(study) -> Results:
    """The sample results with an earlier measurement beside them."""
    return samples.results(study, reference=samples.reference())


def shortened(results: Results) -> Results:
    """Only the shortest context of these."""
    return replace(results, table=results.table[results.table["context"] == 1])


def test_every_group_with_two_contexts_has_a_row(own, results):
    grid = own.effects(results)
    assert grid is not None
    shown = [row for row in grid.rows if len(row) > 1]
    assert len(shown) == len(own.groups(results.rows)) == 6
    assert [row[0] for row in grid.rows if len(row) == 1] == [
        *("LQ, mixed by episode", "LQ, one policy", "T-Maze, 20 steps"),
    ]
    assert all(len(row) == len(grid.head) for row in shown)
    assert own.effects(shortened(results)) is None


def test_the_effect_is_the_mean_over_the_mixers_run_at_both(own, results):
    rows = results.rows
    here = {"data": "lq-mix/episode", "condition": "time", "head": "mixture"}
    change = own.context_change(summaries.at(rows, here), "rollout.score")
    assert change is not None
    assert (change.ends, change.mixers) == ((1, 20), ("gru", "mlp"))
    assert change.long - change.short == pytest.approx(change.estimate.value)
    row = next(r for r in own.effects(results).rows if "mixture head" in r[0])
    assert row[1:3] == ("1 → 20", "2")
    assert row[5].startswith(f"+{change.estimate.value:.1f} ± ")
    means = rows[rows["data"] == "lq-mix/single"]
    means = summaries.at(means, {"condition": "time", "head": "mse"})
    by_hand = means.groupby(["mixer", "context"])["rollout.score"].mean().unstack()
    effect = own.context_effect(means, "rollout.score")
    assert effect.mean == pytest.approx((by_hand[20] - by_hand[1]).mean())
    assert effect.low < effect.mean < effect.high
    assert own.context_effect(means[means["seed"] == 0], "rollout.score") is None


def test_an_earlier_measurement_is_compared_row_by_row(own, results):
    compared = own.compared_in(results)
    assert [one.alike_word for one in compared] == ["reproduces", "reproduces", "", "open"]
    effect, _, absent, error = compared
    assert effect.alike is not None
    assert effect.alike.mixers == ("mlp",)
    assert effect.average is not None
    assert len(effect.average.mixers) == 4
    assert absent.average is None
    assert math.isnan(error.half_width)
    grid = own.comparison(results)
    assert grid is not None
    assert "K = 1 → 16" in grid.caption
    assert "other units" in grid.caption
    words = [row[3] for row in grid.rows if len(row) > 1]
    assert words == ["reproduces", "reproduces", "–", "open; same sign"]
    lone = results.reference[results.reference["data"] == "lq-mix/step"]
    assert own.comparison(replace(results, reference=lone)) is None


def test_figures_and_tables_of_the_study_stand_among_ours(own, results):
    assert figures.chosen(results)[:4] == ["forest", "lines", "levels", "interaction"]
    with style.paper_style():
        effect, beside = own.interaction(results), own.beside(results)
        assert own.interaction(shortened(results)) is None
        assert own.beside(replace(results, reference=results.reference[:0])) is None
    assert [panel.get_xlabel() for panel in effect.figure.axes] == [
        "change in score\n(points)",
        "change in early action error\n(fraction of the action variance)",
    ]
    assert "MLP" in beside.caption
    assert {"context_effect", "replication"} <= {grid.name for grid in tables.grids(results)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.drop(columns="half_width"), "no column half_width"),
        (lambda table: table.assign(effect="large"), "column effect holds text"),
        (lambda table: table.iloc[:0, :0], "not a table"),
    ],
)
def test_a_broken_reference_is_refused_in_one_line(tmp_path, change, said):
    path = tmp_path / "small.reference.csv"
    change(samples.reference()).to_csv(path, index=False)
    with pytest.raises(UserError, match=said) as refusal:
        reference.read_reference(path)
    assert str(refusal.value).startswith(str(path))
    assert "\n" not in str(refusal.value)
    assert reference.read_reference(tmp_path / "none.csv") is None


def test_the_shipped_reference_can_be_read(own):
    shipped = reference.read_reference(STUDIES / "memory_vs_arch.reference.csv")
    assert isinstance(shipped, pd.DataFrame)
    assert set(shipped["metric"]) == set(own.METRICS)
