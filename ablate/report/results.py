"""`report`: find a study's tables, or somebody else's, and hand them to the report room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablate.errors import UserError
from ablate.report.reference import read_reference
from ablate.report.write import check, printed, write_report
from ablate.study.foreign import ForeignStudy, is_foreign, load_foreign, tidy
from ablate.study.load import load
from ablate.study.schema import Study
from ablate.track import kept
from ablate.track.folder import StudyFolder
from ablate.track.foreign import read_foreign
from ablate.track.table import read_csv, read_curves, read_table

SHIPPED = "studies/memory_vs_arch.yaml"


def last_run(results: Path) -> dict[str, Any]:
    """How the study that was run last was called; before any run, the shipped one as it is."""
    return kept.last(results) or {**dict.fromkeys(kept.ASKED), "study": SHIPPED}


def make(study: Study, results: Path, paper: Path, venue: str | None = None) -> str:
    """Write the report; what to print."""
    return printed(write_report(study, None, paper=paper, venue=venue, **_inputs(study, results)))


def stale(study: Study, results: Path, paper: Path, venue: str | None = None) -> list[str]:
    """What of the report is not as the results say, one line each."""
    return check(study, None, paper=paper, venue=venue, **_inputs(study, results))


def make_foreign(
    study: Path, table: Path, results: Path, paper: Path | None, venue: str | None = None
) -> str:
    """Write the report of a table from elsewhere; what to print.

    study: a study file of either kind; one of ours takes a table with our columns. paper:
    `results/<study>/paper` when None, so that the paper of one's own study is left alone.
    """
    return printed(write_report(venue=venue, **_elsewhere(study, table, results, paper)))


def stale_foreign(
    study: Path, table: Path, results: Path, paper: Path | None, venue: str | None = None
) -> list[str]:
    """What of such a report is not as the table says, one line each."""
    return check(venue=venue, **_elsewhere(study, table, results, paper))


def refuse_foreign(study: Path) -> None:
    """Raise UserError for a study of somebody else's runs, which cannot be reported without a table."""
    if is_foreign(study):
        raise UserError(
            f"{study}: this study is about a table from elsewhere; name it: "
            f"python -m ablate report --table FILE --study {study}."
        )


def _elsewhere(study: Path, table: Path, results: Path, paper: Path | None) -> dict[str, Any]:
    """The arguments of the report room for a table from elsewhere."""
    if is_foreign(study):
        theirs = load_foreign(study)
        found = read_foreign(table)
        tidied = tidy(theirs, found.table, found.file, found.names)
        declared: Study | ForeignStudy = theirs
        rows, reading = tidied.table, (*found.notes, *tidied.notes)
    else:
        declared = load(study)
        rows, reading = read_csv(table), ()
    folder = results / declared.study
    return {
        "study": declared,
        "profile": None,
        "table": rows,
        "curves": None,
        "audit": [],
        "folder": folder,
        "paper": folder / "paper" if paper is None else paper,
        "reading": reading,
        "foreign": True,
    }


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
