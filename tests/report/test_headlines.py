"""Headlines on tables from elsewhere name the data sets that they rest on, and agree with their interval."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from ablate.report import style
from ablate.report.commands import elsewhere
from ablate.report.results import Results

STUDY = """\
study: theirs
question: Does A beat B?
table: {}
factors: {algo: [A, B]}
data: [hop, run, swim]
margin: 3
hypotheses:
  - {id: ab, says: A beats B., contrast: "algo[A] - algo[B]", test: TEST, primary: true}
"""


def rows(effect: float, spread: float = 1.0, seeds: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    lines = [
        {"data": data, "algo": algo, "seed": seed, "score": 50 + effect * (algo == "A") + noise}
        for data in ("hop", "run", "swim")
        for algo in ("A", "B")
        for seed, noise in enumerate(rng.normal(0.0, spread, seeds))
    ]
    return pd.DataFrame(lines)


def told(folder: Path, table: pd.DataFrame, test: str = "superiority", **options: bool) -> Results:
    (folder / "theirs.yaml").write_text(STUDY.replace("TEST", test))
    table.to_csv(folder / "runs.csv", index=False)
    return elsewhere(folder / "theirs.yaml", folder / "runs.csv", folder / "results", **options)


def test_a_headline_says_the_data_sets_that_it_rests_on(tmp_path):
    whole = told(tmp_path, rows(7.0))
    assert "data sets" not in whole.analysis.answer
    assert whole.story.scale.startswith("Scale: 5 seeds per cell on 3 data sets; ")
    table = rows(7.0)
    found = told(tmp_path, table[~((table["data"] == "run") & (table["algo"] == "B"))])
    assert "on 2 of 3 data sets (a cell is missing on run)" in found.analysis.answer
    assert "on 3 data sets, of which some estimates rest on 2 only" in found.story.scale
    assert found.findings[0].rests == 2
    assert found.findings[0].lost == ("run",)


def test_seeds_are_those_of_a_cell(tmp_path):
    table = rows(7.0)
    table["seed"] += 100 * (table["algo"] == "A")
    assert "5 seeds per cell" in told(tmp_path, table).story.scale
    assert "4 to 5 seeds per cell" in told(tmp_path, table.iloc[1:]).story.scale


@pytest.mark.parametrize("effect", np.linspace(-3.5, 3.5, 15))
@pytest.mark.parametrize("test", ["superiority", "difference", "equivalence"])
def test_interval_and_word_agree(tmp_path, effect, test):
    """In every headline: supported excludes zero, equivalent lies within the margin, by the interval shown."""
    found = told(tmp_path, rows(effect, 2.0, 4), test).analysis
    verdict = found.verdicts[0]
    shown = found.answer.split("interval ")[1].split(")")[0].replace("−", "-")
    low, high = map(float, shown.split(" to "))
    if verdict.verdict == "supported":
        assert low > 0.0 or (high < 0.0 and test == "difference")
    if verdict.verdict == "equivalent":
        assert low >= -3.05
        assert high <= 3.05
    new, here = verdict.population, verdict.fixed
    assert new.low is not None
    assert here.low is not None
    assert new.high - new.low >= here.high - here.low - 1e-9


def test_pairing_is_said_by_the_study_or_the_command(tmp_path):
    table = rows(7.0)
    assert "unpaired" in told(tmp_path, table).analysis.verdicts[0].pairing
    said = told(tmp_path, table, paired=True)
    assert said.paired
    assert said.analysis.verdicts[0].pairing == "paired within 5 seeds"


@pytest.mark.parametrize("level", [r"$\catcode12$", "$x$ and $y", "a_b^c$", "x]y, [z]", "100 %"])
def test_a_level_of_any_text_is_drawn_and_compared(tmp_path, level):
    with style.paper_style():
        figure = Figure(figsize=(2, 1))
        figure.subplots().set_title(level)
        assert style.files(figure)["pdf"].startswith(b"%PDF")
    table = rows(7.0).replace({"algo": {"A": level}})
    text = STUDY.replace("algo: [A, B]", f"algo: ['{level}', B]").replace(
        '"algo[A] - algo[B]", test: TEST', "each pair of algo, test: difference"
    )
    (tmp_path / "theirs.yaml").write_text(text)
    table.to_csv(tmp_path / "runs.csv", index=False)
    found = elsewhere(tmp_path / "theirs.yaml", tmp_path / "runs.csv", tmp_path / "results")
    assert found.analysis.verdicts[0].verdict == "supported"


def test_a_logarithmic_axis_has_numbers_and_no_formulas() -> None:
    with style.paper_style():
        figure = style.new_figure(2.0)
        panel = figure.subplots()
        panel.plot([1e-6, 1e7], [0.1, 1000.0])
        panel.set_xscale("log")
        panel.set_yscale("log")
        style.files(figure)
        shown = [label.get_text() for label in (*panel.get_xticklabels(), *panel.get_yticklabels())]
    assert {"1e-6", "0.01", "1", "10,000", "0.1", "100"} <= set(shown)
    assert not any("$" in text for text in shown)
