"""What goes beyond the verdicts as tables, words and macros."""

from __future__ import annotations

import re

import pandas as pd
import pytest
import report_samples as samples

from ablate.analyse.beyond import Beyond, beyond
from ablate.report import further as told
from ablate.report import tex
from ablate.study.hypotheses import Hypothesis


def hypothesis(id: str, contrast: str, **rest: object) -> Hypothesis:
    """A primary difference on the score."""
    return Hypothesis.model_validate(
        {
            "id": id,
            "says": id,
            "contrast": contrast,
            "test": "difference",
            "primary": True,
            "metric": "rollout.score",
            **rest,
        }
    )


CLAIMS = (
    hypothesis("memory", "context[20] - context[1]", where={"data": "lq-mix/episode"}),
    hypothesis("objective", "condition[return-to-go+time] - condition[time]"),
    hypothesis("everywhere", "context[20] - context[1]", where={"head": "mse"}, primary=False),
)


@pytest.fixture(scope="module")
def table(study) -> pd.DataFrame:
    """The sample table with its failed trial and a median over episodes."""
    made = samples.table(study)
    return made.assign(**{"rollout.score_median": made["rollout.score"] + 1.0})


@pytest.fixture(scope="module")
def found(table, study) -> Beyond:
    """All there is on the sample table."""
    where = {"data": "lq-mix/episode", "head": "mse", "mixer": ["gru", "mlp", "attention", "bag"]}
    claims = [CLAIMS[0].model_copy(update={"where": where}), *CLAIMS[1:]]
    return beyond(table, claims, study.levels, metric="rollout.score")


def test_words_tables_and_macros_say_what_was_found(found):
    words = dict(told.paragraphs(found, "rollout.score"))
    share = found.attribution.shares[0]
    assert f"memory (context 1 → 20) {share.fixed.value:+.1f}" in words["What brings the gain"]
    said = words["The same runs, scored otherwise"]
    assert "how episodes become a number" in said
    assert "at a level of 5 %" in said or "No control" in said
    assert "failed trials counted as the worst" in words["With less, or with failures"]
    assert [grid.name for grid in told.grids(found)] == ["attribution", "multiverse", "universes"]
    axes = {row[0]: row[1:] for row in told.grids(found)[-1].rows}
    assert axes["checkpoint"] == (
        "as declared",
        "not measured: score: the curves hold no rollout.score for every trial, and it was measured once",
    )
    assert set(axes) == set(told.AXES.values())
    for grid in told.grids(found):
        assert "?" not in "".join(
            tex.latex(cell) for row in [grid.head, *grid.rows] for cell in row
        )
        assert all(len(row) == len(grid.head) for row in grid.rows)
    macros = told.macros(found)
    assert all(re.fullmatch("[A-Za-z]+", name) for name in macros)
    assert macros["UniverseCount"] == str(found.multiverse.universes)
    assert "AttributionMemoryShare" in macros
    assert "StandsObjective" in macros


def test_what_a_table_cannot_serve_is_a_reason(table, study):
    single = table[table["seed"] == 0].drop(columns="rollout.score_median")
    nothing = beyond(single, [CLAIMS[0]], study.levels, metric="rollout.score")
    assert "fewer than two factors" in nothing.reasons["attribution"]
    assert "every cell has a single seed" in nothing.reasons["variance"]
    assert nothing.variance is None
    words = dict(told.paragraphs(nothing, "rollout.score"))
    assert words["What brings the gain"].startswith("Not attributed: fewer than two factors")
    assert told.macros(nothing)["UniverseCount"] == "2"
    assert (
        beyond(table, [], study.levels, metric="rollout.score").reasons["multiverse"]
        == "the study has no hypothesis."
    )
