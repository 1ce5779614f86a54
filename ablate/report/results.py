"""`report`: find a study's tables and hand them to the report room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablate.errors import UserError
from ablate.report.context import read_reference
from ablate.report.write import check, printed, write_report
from ablate.study.schema import Study
from ablate.track import kept
from ablate.track.folder import StudyFolder
from ablate.track.table import read_curves, read_table

SHIPPED = "studies/memory_vs_arch.yaml"


def last_run(results: Path) -> dict[str, Any]:
    """How the study that was run last was called; before any run, the shipped one as it is."""
    return kept.last(results) or {**dict.fromkeys(kept.ASKED), "study": SHIPPED}


def make(study: Study, results: Path, paper: Path) -> str:
    """Write the report; what to print."""
    return printed(write_report(study, None, paper=paper, **_inputs(study, results)))


def stale(study: Study, results: Path, paper: Path) -> list[str]:
    """What of the report is not as the results say, one line each."""
    return check(study, None, paper=paper, **_inputs(study, results))


def _inputs(study: Study, results: Path) -> dict[str, Any]:
    """What the report room wants of the study's folder, by the names of its arguments."""
    folder = StudyFolder(results / study.study, study.study)
    if not folder.table.exists():
        raise UserError(
            f"{folder.table}: there are no results yet; run them first: python -m ablate run STUDY."
        )
    return {
        "table": read_table(folder.table),
        "curves": read_curves(folder.curves) if folder.curves.exists() else None,
        "audit": kept.audits(folder),
        "folder": folder.root,
        "yardsticks": kept.yardsticks(folder),
        "reference": read_reference(Path("studies", f"{study.study}.reference.csv")),
    }
