"""What goes beyond the verdicts as figures, tables, words and macros."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import report_samples as samples

from ablate.analyse.calibration import calibrations
from ablate.analyse.further import Further, further
from ablate.report import further as told
from ablate.report import style, text
from ablate.report.figures import calibration, variants
from ablate.report.figures import further as figures
from ablate.study.hypotheses import Hypothesis

NAMES = (
    *("attribution", "variance", "aggregates", "profiles", "learning_bands", "multiverse"),
    "leave_out",
)


def hypothesis(id: str, contrast: str, **rest: object) -> Hypothesis:
    """A primary difference on the score."""
    return Hypothesis.model_validate(
        {"id": id, "says": id, "contrast": contrast, "test": "difference", "primary": True, **rest}
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
    return made.assign(score_median=made["score"] + 1.0)


@pytest.fixture(scope="module")
def found(table, study) -> Further:
    """All there is on the sample table."""
    where = {"data": "lq-mix/episode", "head": "mse", "mixer": ["gru", "mlp", "attention", "bag"]}
    claims = [CLAIMS[0].model_copy(update={"where": where}), *CLAIMS[1:]]
    return further(table, claims, study.levels)


@pytest.fixture(scope="module")
def drawn(found, table) -> dict:
    """The figures by name, and their files twice."""
    curves = samples.curves(table)
    out = {}
    for _ in range(2):
        with style.paper_style():
            for one in figures.draw(found, table, curves):
                if one is not None:
                    out.setdefault(one.name, (one, []))[1].append(style.files(one.figure))
    return out


def test_every_part_has_a_figure_of_the_same_bytes_each_time(drawn):
    assert tuple(drawn) == NAMES
    for one, (first, second) in drawn.values():
        assert first == second
        assert first["pdf"].startswith(b"%PDF")
        assert b"/Subtype /Image" not in first["pdf"]  # vector
        assert one.trials
        assert one.caption.endswith(".")
        assert "?" not in text.latex(one.caption)  # LaTeX has every glyph
        assert (figures_root() / one.script).exists()


def figures_root():
    """The folder that scripts are named from."""
    from pathlib import Path

    import ablate

    return Path(ablate.__file__).parents[1]


def test_words_tables_and_macros_say_what_was_found(found):
    words = dict(told.paragraphs(found))
    share = found.attribution.shares[0]
    assert f"memory (context 1 → 20) {share.fixed.value:+.1f}" in words["What brings the gain"]
    assert "Not varied: checkpoint of score" in words["The same runs, scored otherwise"]
    assert "failed trials counted as the worst" in words["With less, or with failures"]
    assert [grid.name for grid in told.grids(found)] == ["attribution", "multiverse"]
    for grid in told.grids(found):
        assert "?" not in "".join(
            text.latex(cell) for row in [grid.head, *grid.rows] for cell in row
        )
        assert all(len(row) == len(grid.head) for row in grid.rows)
    macros = told.macros(found)
    assert all(re.fullmatch("[A-Za-z]+", name) for name in macros)
    assert macros["UniverseCount"] == str(found.multiverse.universes)
    assert "AttributionMemoryShare" in macros
    assert "StandsObjective" in macros


def test_what_a_table_cannot_serve_is_a_reason(table, study):
    single = table[table["seed"] == 0].drop(columns="score_median")
    nothing = further(single, [CLAIMS[0]], study.levels)
    assert "fewer than two factors" in nothing.reasons["attribution"]
    assert "every cell has a single seed" in nothing.reasons["variance"]
    assert nothing.variance is None
    words = dict(told.paragraphs(nothing))
    assert words["What brings the gain"].startswith("Not attributed: fewer than two factors")
    with style.paper_style():
        made = figures.draw(nothing, single, pd.DataFrame(columns=["trial", "update"]))
    assert made[0] is None
    assert made[1] is None
    assert told.macros(nothing)["UniverseCount"] == "2"
    assert further(table, [], study.levels).reasons["multiverse"] == "the study has no hypothesis."


def test_variants_are_mixers_or_the_levels_of_one_factor(table):
    mixers = variants.of_mixers(table)
    assert list(mixers.looks) == ["attention", "gru", "mlp", "bag"]
    assert set(mixers.found.names) == set(table["data"])
    plain = table[["trial", "status", "data", "seed", "score"]].assign(
        algo=pd.Categorical(table["mixer"])
    )
    plain = plain.drop_duplicates(["data", "algo", "seed"])
    of_algo = variants.of_factor(plain, "algo")
    assert of_algo.label("gru") == "gru"
    assert variants.of_mixers(plain) is None
    assert variants.of_factor(plain, "depth") is None
    assert variants.of_factor(table, "mixer") is None  # contexts aren't held
    assert variants.of_factor(plain[plain["algo"] == "gru"], "algo") is None


def test_calibration_is_drawn_with_its_slopes():
    rows = pd.DataFrame(
        [
            {
                "mixer": m,
                "data": d,
                "seed": s,
                "target": t,
                "achieved": a * t + s,
                "low": 0.0,
                "high": 90.0,
            }
            for m, a in (("gru", 1.0), ("mlp", 0.5))
            for d in ("lq-mix/episode", "lq-mix/step")
            for s in range(3)
            for t in np.linspace(0.0, 120.0, 5)
        ]
    )
    with style.paper_style():
        one = calibration.draw(calibrations(rows, ["mixer"]), ["t1"])
        labels = [label.get_text() for label in one.figure.legends[0].get_texts()]
        again = calibration.draw(calibrations(rows, ["mixer"]), ["t1"])
        assert style.files(one.figure)["pdf"] == style.files(again.figure)["pdf"]
    assert labels[0].startswith("GRU: slope 1.00")
    assert labels[1].startswith("MLP: slope 0.50")
    assert "beyond it" in one.caption
    assert calibration.draw({}) is None
