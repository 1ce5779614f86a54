"""The table of what the exact clone reaches."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import report_samples as samples

from ablate.report.figures.lines import draw
from ablate.report.headroom import head_room
from ablate.report.results import Results


def results(study, yardsticks: pd.DataFrame) -> Results:
    return replace(samples.results(study, samples.table(study)), yardsticks=yardsticks)


def test_each_data_set_has_a_line_for_each_window(study):
    grid = head_room(results(study, samples.yardsticks().assign(score=[50.0, 60.0, 70.0] * 2)))
    assert grid is not None
    assert grid.head == ("timesteps", "Action error", "Early action error", "Score")
    # Exact values of data that no trial is about, here those mixed by step, aren't shown.
    assert [row for row in grid.rows if len(row) == 1] == [("LQ, mixed by episode",)]
    assert len(grid.rows) == 4
    assert grid.rows[1] == ("1", "0.880", "0.960", "50.0")
    assert [row[0] for row in grid.rows[1:4]] == ["1", "5", "20"]


def test_what_is_not_known_has_no_column_and_a_hole_a_dash(study):
    known = samples.yardsticks()
    known.loc[0, "action_error_early"] = float("nan")
    grid = head_room(results(study, known))
    assert grid is not None
    assert "Score" not in grid.head
    assert grid.rows[1][2] == "–"


def test_without_an_exact_law_or_of_other_data_there_is_none(study):
    none = pd.DataFrame(columns=["data", "context", "action_error"])
    assert head_room(results(study, none)) is None
    assert head_room(results(study, samples.yardsticks().assign(data="other/set"))) is None


def test_a_table_from_elsewhere_has_none(study):
    found = results(study, samples.yardsticks())
    assert head_room(replace(found, table=found.table.drop(columns="context"))) is None


def test_lines_of_a_table_that_does_not_say_what_models_are_told_have_no_exact_clone(study):
    table = samples.table(study)
    table = table[(table["condition"] == "time") & (table["head"] == "mse")]
    found = replace(samples.results(study, table), yardsticks=samples.yardsticks())
    legends = [
        [text.get_text() for legend in drawn.figure.legends for text in legend.get_texts()]
        for drawn in (draw(found), draw(replace(found, table=table.drop(columns="condition"))))
        if drawn is not None
    ]
    assert ["exact posterior" in texts for texts in legends] == [True, False]


def test_the_exact_clone_of_a_response_is_found_by_its_name(study):
    found = results(study, samples.yardsticks())
    error = found.exact("held-out.action_error")
    assert list(error.columns) == ["data", "context", "value"]
    assert len(error) == 6
    assert found.exact("rollout.length").empty
    assert found.exact("rollout.regret").empty
