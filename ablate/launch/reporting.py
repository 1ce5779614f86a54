"""`report`: find a study's tables and hand them to the report room."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from ablate.errors import UserError
from ablate.launch.run import LAST, YARDSTICKS
from ablate.report.write import check, printed, write_report
from ablate.study.schema import Study
from ablate.track.folder import StudyFolder
from ablate.track.table import read_csv, read_table

SHIPPED = "studies/memory_vs_arch.yaml"


def last_run(results: Path) -> dict[str, Any]:
    """How the study that was run last was called; the shipped one at its default profile before any run."""
    found = sorted(results.glob(f"*/{LAST}"), key=lambda path: path.stat().st_mtime)
    if not found:
        return {"study": SHIPPED, "profile": None, "set": [], "seeds": None, "plugins": []}
    try:
        return dict(json.loads(found[-1].read_text("utf-8")))
    except ValueError as error:
        raise UserError(
            f"{found[-1]}: not JSON ({error}); delete it and name the study file."
        ) from error


def make(study: Study, results: Path, paper: Path) -> str:
    """Write the report; what to print."""
    return printed(
        write_report(
            study, None, *_inputs(study, results), paper, yardsticks=_exact(study, results)
        )
    )


def stale(study: Study, results: Path, paper: Path) -> list[str]:
    """What of the report is not as the results say, one line each."""
    return check(study, None, *_inputs(study, results), paper, yardsticks=_exact(study, results))


def _inputs(
    study: Study, results: Path
) -> tuple[pd.DataFrame, pd.DataFrame | None, list[dict[str, Any]], Path]:
    folder = StudyFolder(results / study.study, study.study)
    if not folder.table.exists():
        raise UserError(
            f"{folder.table}: there are no results yet; run them first: python -m ablate run STUDY."
        )
    curves = read_csv(folder.curves) if folder.curves.exists() else None
    audit = json.loads(folder.audit.read_text("utf-8")) if folder.audit.exists() else []
    return read_table(folder.table), curves, audit, folder.root


def _exact(study: Study, results: Path) -> pd.DataFrame | None:
    path = results / study.study / YARDSTICKS
    return read_csv(path) if path.exists() else None
