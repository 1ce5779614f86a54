"""Figures and tables: what is chosen, what is left out, and one look for each level."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import report_samples as samples

import ablate
from ablate import registry
from ablate.errors import UserError
from ablate.registry import register
from ablate.report import figures, style, summaries, tables, tex
from ablate.report.figures import base, forest
from ablate.report.results import Results
from ablate.study.hypotheses import Hypothesis

ROOT = Path(ablate.__file__).parents[1]


@pytest.fixture(scope="module")
def results(study) -> Results:
    """The sample results with everything that a figure may show."""
    table = samples.table(study)
    return samples.results(
        study,
        table.assign(**{"rollout.score_median": table["rollout.score"] + 1.0}),
        curves=samples.curves(table),
        audit=samples.audits(),
        yardsticks=samples.yardsticks(),
    )


def drawn(name: str, results: Results) -> base.Drawn | None:
    """One figure in the paper's style."""
    with style.paper_style():
        return registry.get("figure", name)(results)


def texts(one: base.Drawn) -> str:
    """All words that stand in a figure."""
    figure = one.figure
    found = [text for panel in figure.axes for text in panel.texts]
    found += [label for panel in figure.axes for label in panel.get_yticklabels()]
    found += [panel.xaxis.label for panel in figure.axes] + [p.yaxis.label for p in figure.axes]
    found += [panel.title for panel in figure.axes]
    found += [panel._left_title for panel in figure.axes]
    for legend in [*figure.legends, *filter(None, (p.get_legend() for p in figure.axes))]:
        found += legend.get_texts()
    return "\n".join(text.get_text() for text in found)


def smallest(one: base.Drawn) -> float:
    """Points of the smallest letters that are not empty."""
    found = [text for panel in one.figure.axes for text in panel.texts]
    found += [label for panel in one.figure.axes for label in panel.get_yticklabels()]
    return min(text.get_fontsize() for text in found if text.get_text())


def budgets(study) -> pd.DataFrame:
    """The sample table with every fit measured at three budgets, as a table that is matched by levels."""
    table = samples.table(study)
    parts = [
        table.assign(
            budget=budget,
            trial=table["trial"] + f"-{budget}",
            **{"rollout.score": table["rollout.score"] * share},
        )
        for budget, share in ((500, 0.5), (2_000, 0.8), (8_000, 1.0))
    ]
    return pd.concat(parts, ignore_index=True)


def test_the_sample_has_the_figures_that_apply_in_their_order(results):
    made = figures.draw(results)
    assert [one.name for one, _ in made] == [
        *("forest", "lines", "learning_curves", "variance", "profiles", "multiverse"),
        "receptive_fields",
    ]
    for one, files in made:
        assert (ROOT / one.script).is_file()
        assert files["pdf"].startswith(b"%PDF")
        if one.name != "receptive_fields":  # whose bar of colours is a picture
            assert b"/Subtype /Image" not in files["pdf"]  # vector
        assert one.caption.endswith(".")
        assert "?" not in tex.latex(one.caption)  # LaTeX has every glyph
        assert smallest(one) >= style.SMALL


def test_a_study_names_its_figures_and_brings_its_own(results, drawn_once, monkeypatch, scope):
    @register("figure", "mine", version="1")
    def draw(results: Results) -> base.Drawn:
        figure = style.new_figure(1.0)
        figure.subplots().plot(results.rows["rollout.score"].dropna().to_numpy())
        return base.Drawn(figure, "Mine", "Mine.", tuple(results.rows["trial"]))

    assert figures.chosen(results)[-1] == "mine"
    named = SimpleStudy(results.study, ("mine", "variance"))
    both = replace(results, study=named)
    monkeypatch.setattr(Results, "further", results.further)
    monkeypatch.setattr(Results, "metric", "rollout.score")
    monkeypatch.setattr(Results, "rows", results.rows)
    made = drawn_once(both)
    assert [one.name for one, _ in made] == ["mine", "variance"]
    assert made[0][0].script == "tests/report/test_report_figures.py"
    with pytest.raises(UserError, match="the figure: 'varience' is not known"):
        figures.chosen(replace(results, study=SimpleStudy(results.study, ("varience",))))


class SimpleStudy:
    """A study that names figures."""

    def __init__(self, study: object, names: tuple[str, ...]) -> None:
        self.study, self.figures = study.study, names


def test_the_forest_says_claims_and_cuts_what_is_too_wide(results):
    one = forest.forest(results.findings)
    said = texts(one)
    assert "Memory helps by more than the margin" in said.replace("\n", " ")
    assert "contrast of score (points)" in said
    assert "GRU" in said
    assert "arrow" not in one.caption
    far = replace(results.findings[0], low=-300.0, high=315.0)
    assert far.other is None
    found = [far, *results.findings[1:], *results.findings[1:]]
    wide = forest.forest(found)
    low, high = wide.figure.axes[0].get_xlim()
    assert -60 < low < high < 60
    assert "An arrow at the border" in wide.caption
    assert forest.forest([]) is None
    alone = [finding for finding in results.findings if finding.absolute]
    assert len(alone) == 1
    assert "mean" in forest.forest(alone).title
    assert "One claim" in one.caption or "1 claim" in one.caption


def test_lines_stand_at_their_true_places_with_units_and_the_exact_posterior(results):
    one = drawn("lines", results)
    assert "fraction of the action variance" in texts(one).replace("\n", " ")
    assert "score (points)" in texts(one)
    assert "exact posterior" in texts(one)
    assert "dotted" in one.caption
    panel = one.figure.axes[0]
    assert all(set(line.get_xdata()) <= {0, 1, 2} for line in panel.lines)
    plain = drawn("lines", replace(results, yardsticks=pd.DataFrame(columns=["data", "context"])))
    assert "exact posterior" not in texts(plain)


def test_a_table_without_numbers_has_levels_instead(study, results):
    table = samples.table(study)
    rows = table[table["context"] == 20].drop(columns="context")
    shown = replace(results, table=rows)
    assert drawn("lines", shown) is None
    one = drawn("levels", shown)
    assert "score (points)" in texts(one)
    assert "bag (placebo)" in texts(one)
    assert drawn("levels", results) is None
    assert drawn("levels", replace(results, table=rows.assign(**{"rollout.score": np.nan}))) is None


def test_budgets_are_drawn_and_verdicts_are_of_the_last(study, results):
    registered = {**samples.registration(study), "data": {}}
    several = replace(results, table=budgets(study), registration=registered)
    assert set(several.rows["budget"]) == {8_000}
    assert len(several.budgets) == 3 * len(several.rows)
    one = drawn("budget", several)
    assert "updates of training" in texts(one)
    assert set(one.trials) - set(several.rows["trial"])
    cell = next(line for line in one.figure.axes[0].lines if len(line.get_xdata()) == 3)
    assert list(cell.get_xdata()) == [500.0, 2_000.0, 8_000.0]
    assert drawn("budget", results) is None


def test_tuning_is_drawn_by_draws(results):
    rows = [
        {"arm": arm, "draws": draws, "value": 1.0 / draws + off + 0.01 * again}
        for arm, off in (("mixer gru", 0.0), ("mixer mlp", 0.2))
        for draws in (1, 2, 4, 8)
        for again in range(2)
    ]
    one = drawn("tuning", replace(results, tuning=pd.DataFrame(rows)))
    assert "draws of settings" in texts(one)
    assert "GRU" in texts(one)
    first = one.figure.axes[0].lines[0]
    assert list(first.get_xdata()) == [1.0, 2.0, 4.0, 8.0]
    assert first.get_ydata()[0] == pytest.approx(1.005)
    assert drawn("tuning", results) is None


def test_a_response_over_an_index_has_a_line_a_level_and_a_band(study, results):
    done = results.rows[results.rows["status"] == "COMPLETED"]
    series = pd.DataFrame(
        [
            {
                "trial": row.trial,
                "response": "open-loop.error",
                "index": index,
                "value": index * (1 + row.seed),
            }
            for row in done.itertuples()
            for index in range(1, 6)
        ]
    )
    one = drawn("series", replace(results, series=series))
    panel = one.figure.axes[0]
    assert len(panel.lines) == 3  # contexts, which most hypotheses compare
    assert list(panel.lines[0].get_xdata()) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert panel.lines[0].get_ydata()[-1] == pytest.approx(5 * 2.0)  # mean of 1, 2 and 3 times 5
    assert panel.collections
    assert "K = 20" in texts(one)
    assert drawn("series", results) is None


def test_achieved_against_target_return_has_slopes(study, results):
    table = samples.table(study)
    rows = table[
        (table["context"] == 20) & (table["condition"] == "time") & (table["head"] == "mse")
    ]
    parts = [
        rows.assign(
            **{
                "measure.rollout.target": target,
                "rollout.return_mean": target * np.where(rows["mixer"] == "gru", 1.0, 0.5)
                + rows["seed"],
                "trial": rows["trial"] + f"-{target}",
            }
        )
        for target in (0.0, 25.0, 50.0, 100.0)
    ]
    registered = {**samples.registration(study), "data": {}}
    shown = replace(results, table=pd.concat(parts, ignore_index=True), registration=registered)
    said = texts(drawn("calibration", shown))
    assert "GRU: slope 1.00" in said
    assert "MLP: slope 0.50" in said
    assert "target (reward units)" in said
    assert drawn("calibration", results) is None
    # A cell of which one return alone is asked, or none, is no curve.
    first = shown.table["mixer"] == "mlp"
    first &= shown.table["measure.rollout.target"] > 0.0
    said = texts(drawn("calibration", replace(shown, table=shown.table[~first])))
    assert "MLP" not in said
    assert "GRU: slope 1.00" in said


def test_what_brings_the_gain_is_drawn_where_hypotheses_declare_it(results, study):
    def claim(name: str, contrast: str, **where: object) -> Hypothesis:
        given = {"id": name, "says": name, "contrast": contrast, "where": where}
        return Hypothesis.model_validate(
            {**given, "test": "difference", "primary": True, "metric": "rollout.score"}
        )

    mixers = ["gru", "mlp", "attention", "bag"]
    claims = (
        claim(
            "memory", "context[20] - context[1]", data="lq-mix/episode", head="mse", mixer=mixers
        ),
        claim("asking", "condition[return-to-go+time] - condition[time]"),
    )
    asked = replace(results, study=study.model_copy(update={"hypotheses": claims}))
    one = drawn("attribution", asked)
    assert "share of the gain in score (points)" in texts(one)
    assert drawn("attribution", results) is None


def test_nothing_to_show_is_no_figure(results):
    bare = replace(results, curves=pd.DataFrame(columns=["trial", "update"]), audit=())
    assert drawn("learning_curves", bare) is None
    assert drawn("receptive_fields", bare) is None
    broken = [{"mixer": "gru", "context": 5, "findings": ["does not run"]}]
    assert drawn("receptive_fields", replace(results, audit=broken)) is None
    [first, *_] = samples.audits()
    single = {**first, "influence": {shape: {} for shape in first["influence"]}}
    assert (
        drawn("receptive_fields", replace(results, audit=[*samples.audits(), single])) is not None
    )


def test_the_slice_is_where_most_cells_are(study):
    chosen = summaries.core(samples.table(study), "context", "mixer")
    assert chosen["lq-mix/episode"]["condition"] in ("time", "return-to-go+time")
    assert chosen["lq-mix/episode"]["head"] == "mse"
    assert chosen["tmaze/passive-20"]["condition"] == "none"


def test_the_view_puts_numbers_along_the_axis_and_the_compared_factor_in_colour(study):
    view = summaries.view(samples.table(study), "rollout.score", study.hypotheses)
    assert (view.across, view.series, view.ordered) == ("context", "mixer", True)
    assert view.levels("mixer") == ["attention", "gru", "mlp", "bag"]
    rows = samples.table(study)
    here = summaries.at(
        rows,
        {"data": "lq-mix/single", "mixer": "gru", "context": 5, **view.panels["lq-mix/single"][0]},
    )
    assert view.cells("lq-mix/single", "rollout.score")[5, "gru"].mean == pytest.approx(
        here["rollout.score"].mean()
    )


def test_levels_are_compared_however_they_are_spelt():
    rows = pd.DataFrame({"mask": ["True", "True", "False"], "context": [1, 20, 20], "x": [1, 2, 3]})
    assert summaries.at(rows, {"mask": True, "context": "20"})["x"].tolist() == [2]
    assert summaries.at(rows.assign(mask=[True, None, False]), {"mask": "true"})["x"].tolist() == [
        1
    ]
    assert summaries.at(rows.assign(mask=[True, None, False]), {"mask": None})["x"].tolist() == [2]


def test_a_level_looks_the_same_in_every_figure():
    alone = style.looks("mixer", ["gru"])
    names = ["attention", "gru", "bag", "mine"]
    together = style.looks("mixer", names)
    assert alone["gru"] == together["gru"]
    assert list(together) == names
    looks = style.looks("mixer", ["attention", "lstm", "gru", "conv", "mlp", "bag", "a", "b"])
    assert len({look.marker for look in looks.values()}) == len(looks)
    assert len({look.colour for look in looks.values()}) == len(looks)


def test_a_single_seed_has_no_interval():
    one = summaries.mean_interval(np.array([3.0, np.nan]))
    assert (one.mean, one.n) == (3.0, 1)
    assert np.isnan(one.low)


@pytest.mark.parametrize("width", [12, 20, 46])
def test_lines_of_a_label_are_alike_and_lose_nothing(width):
    said = "Memory helps by more than the margin where policies are mixed by episode"
    lines = base.wrap(said, width)
    assert " ".join(lines) == said
    assert max(map(len, lines)) <= width
    assert base.wrap("", width) == []


def test_tables_count_failures_and_mismatch(written):
    failures = tables.failures(written.results.table)
    assert failures is not None
    assert "loss is NaN at update 130" in failures.body
    assert failures.body.count(r"\\") == len(written.results.table["data"].unique()) + 2
    matching = tables.matching(written.results.table)
    assert matching is not None
    assert r"2.25\,\%" in matching.body
    assert tables.matching(written.results.table.drop(columns=["parameters"])) is None


def test_a_table_of_long_texts_fits_a_line() -> None:
    """Columns of long texts break their cells, and share what the others leave; short ones stay as they are."""
    assert tables.alignments([["", "one", "two"], ["mean", "1.0", "2.0"]]) == "lrr"
    found = tables.alignments([["axis", "options", "n"], ["checkpoint", "as declared, " * 9, "5"]])
    [share] = map(float, re.findall(r"p\{(0\.\d+)\\linewidth\}", found))
    assert re.fullmatch(r"l>\{\\raggedright\\arraybackslash\}p\{0\.\d+\\linewidth\}r", found)
    assert 0.5 < share < 0.9
    both = tables.alignments([["a" * 80, "b" * 320, "c"]])
    narrow, wide = map(float, re.findall(r"p\{(0\.\d+)\\linewidth\}", both))
    assert narrow < wide
    assert narrow + wide < 1.0
    assert tables.spanning(3, "told", 4) == r"\multicolumn{3}{l}{told}"
    assert r"p{0.97\linewidth}" in tables.spanning(3, "told", 200)


def test_coordinates_that_differ_in_the_last_digits_alone_are_written_alike() -> None:
    """As the same numbers do that another processor computed; matplotlib leaves zeros behind out."""
    for value in (238.77, 76.5, 12.0, 0.0, -0.25):
        for by in (-2e-6, 0.0, 2e-6):
            full = f"{value + by:.6f}".rstrip("0").rstrip(".").encode()
            assert style._LONG.sub(style._short, full) == f"{value:g}".encode()
