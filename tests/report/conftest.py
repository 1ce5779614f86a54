"""One report of a small study, written once and shared; tests that change files copy it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import report_samples as samples

from ablate.report import figures, provenance, style
from ablate.report.results import Results
from ablate.report.write import Report, check, write_report
from ablate.study.load import load
from ablate.study.schema import Study


@dataclass
class Written:
    """Results and the folders of a written report."""

    results: Results
    paper: Path
    report: Report | None = None

    @property
    def folder(self) -> Path:
        """Where the study's results and page lie."""
        assert self.results.folder is not None
        return self.results.folder

    def write(self, **options: Any) -> Report:
        """Write the report."""
        return write_report(self.results, self.paper, **options)

    def check(self) -> list[str]:
        """What is stale."""
        return check([self.results], self.paper, whole=True)

    def changed(self, **fields: Any) -> Written:
        """The same folders with other results."""
        return replace(self, results=replace(self.results, **fields))

    def copy(self, folder: Path) -> Written:
        """The same report in another place."""
        shutil.copytree(self.paper.parent, folder / "copy")
        here = folder / "copy"
        return Written(replace(self.results, folder=here / "results/small"), here / "paper")


@pytest.fixture(scope="session", autouse=True)
def drawn_once() -> Iterator[Any]:
    """Draw the figures of the same inputs only once in all tests; gives the real function."""
    real, known = figures.draw, {}

    def draw(results: Results, venue: str = style.DEFAULT) -> Any:
        key = tuple(sorted(provenance.inputs(results, venue).items()))
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
    table = samples.table(study)
    results = Results(
        study,
        table,
        curves=samples.curves(table),
        audit=samples.audits(),
        yardsticks=samples.yardsticks(),
        registration=samples.registration(study),
        folder=root / "results/small",
    )
    made = Written(results, root / "paper")
    made.report = made.write(pdf=False)
    return made
