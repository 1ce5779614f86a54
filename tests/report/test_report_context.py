"""Effects of context group by group, and beside an earlier measurement."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import report_samples as samples

from ablate.errors import UserError
from ablate.report import context, summaries


def test_every_group_with_two_contexts_has_a_row(study):
    table = samples.table(study)
    grid = context.effects(table)
    assert grid is not None
    shown = [row for row in grid.rows if len(row) > 1]
    assert len(shown) == len(context.groups(table)) == 6
    assert [row[0] for row in grid.rows if len(row) == 1] == [
        *("LQ, mixed by episode", "LQ, one policy", "T-Maze, 20 steps"),
    ]
    assert all(len(row) == len(grid.head) for row in shown)
    assert context.effects(table[table["context"] == 1]) is None


def test_the_effect_is_the_mean_over_the_mixers_run_at_both(study):
    table = samples.table(study)
    rows = summaries.at(table, {"data": "lq-mix/episode", "condition": "time", "head": "mixture"})
    change = summaries.context_change(rows, "score")
    assert change is not None
    assert (change.ends, change.mixers) == ((1, 20), ("gru", "mlp"))
    assert change.long - change.short == pytest.approx(change.estimate.value)
    row = next(r for r in context.effects(table).rows if r[0] == "time, mixture head")
    assert row[1:3] == ("1 → 20", "2")
    assert row[5].startswith(f"+{change.estimate.value:.1f} ± ")


def test_an_earlier_measurement_is_compared_row_by_row(study):
    compared = context.compare(samples.table(study), samples.reference(), 3.0, 0.05)
    assert [one.alike_word for one in compared] == ["reproduces", "reproduces", "", "open"]
    effect, _, absent, error = compared
    assert effect.alike is not None
    assert effect.alike.mixers == ("mlp",)
    assert effect.average is not None
    assert len(effect.average.mixers) == 4
    assert absent.average is None
    assert math.isnan(error.half_width)
    grid = context.comparison(compared, 3.0)
    assert grid is not None
    assert "K = 1 → 16" in grid.caption
    assert "other units" in grid.caption
    words = [row[3] for row in grid.rows if len(row) > 1]
    assert words == ["reproduces", "reproduces", "–", "open; same sign"]
    assert context.comparison([absent], 3.0) is None


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
        context.read_reference(path)
    assert str(refusal.value).startswith(str(path))
    assert "\n" not in str(refusal.value)
    assert context.read_reference(tmp_path / "none.csv") is None


def test_the_report_goes_without_a_reference(written, tmp_path, no_figures):
    again = written.copy(tmp_path)
    report = again.changed(reference=written.results.reference.iloc[:0]).write(pdf=False)
    assert "replication.tex" in {path.name for path in report.removed}
    assert 'id="context_effect"' in (again.folder / "report.html").read_text()
    assert 'id="replication"' in (written.folder / "report.html").read_text()


def test_the_shipped_reference_can_be_read():
    path = Path(__file__).parents[2] / "studies/memory_vs_arch.reference.csv"
    shipped = context.read_reference(path)
    assert shipped is not None
    assert set(shipped["metric"]) == set(context.METRICS)
