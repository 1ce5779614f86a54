"""One report of a small study, written once and shared; tests that change files copy it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import report_samples as samples

from ablate.report import figures, provenance, style
from ablate.report.write import Report, check, write_report
from ablate.study.load import load
from ablate.study.schema import Study


@dataclass
class Written:
    """Inputs and folders of a written report."""

    study: Study
    table: Any
    curves: Any
    folder: Path
    paper: Path
    report: Report | None = None

    def arguments(self) -> tuple:
        """What `write_report` and `check` take."""
        audits = samples.audits()
        profile = self.study.profile
        return (self.study, profile, self.table, self.curves, audits, self.folder, self.paper)

    def write(self, **options: Any) -> Report:
        """Write the report."""
        return write_report(
            *self.arguments(),
            yardsticks=samples.yardsticks(),
            reference=samples.reference(),
            **options,
        )

    def check(self) -> list[str]:
        """What is stale."""
        return check(
            *self.arguments(), yardsticks=samples.yardsticks(), reference=samples.reference()
        )

    def copy(self, folder: Path) -> Written:
        """The same report in another place."""
        shutil.copytree(self.folder.parent, folder / "copy")
        here = folder / "copy"
        return Written(self.study, self.table, self.curves, here / "results", here / "paper")


@pytest.fixture(scope="session", autouse=True)
def drawn_once() -> Iterator[Any]:
    """Draw the figures of the same inputs only once in all tests; gives the real function."""
    real, known = figures.draw, {}

    def draw(results: Any, venue: str = style.DEFAULT) -> Any:
        frames = (results.rows, results.curves, results.series, results.yardsticks)
        said = repr((results.findings, results.audit, results.study.margin))
        key = (*map(provenance.frame_hash, frames), said, *figures.chosen(results), venue)
        if key not in known:
            known[key] = real(results, venue)
        return known[key]

    figures.draw = draw
    yield real
    figures.draw = real


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at words only."""
    monkeypatch.setattr(figures, "draw", lambda *arguments: [])


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The small study at its default profile."""
    return load(samples.write_study(tmp_path_factory.mktemp("study")))


@pytest.fixture(scope="session")
def written(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A report without a PDF."""
    root = tmp_path_factory.mktemp("report")
    made = Written(study, samples.table(study), None, root / "results", root / "paper")
    made.curves = samples.curves(made.table)
    made.folder.mkdir()
    (made.folder / "study.json").write_text(json.dumps(samples.registration(study)))
    made.report = made.write(pdf=False)
    return made
