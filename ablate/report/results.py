"""`report`: find the studies' results, or somebody else's, and hand them to the report room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablate.config import STANDARD
from ablate.errors import UserError
from ablate.registry import load_plugin
from ablate.report.material import Results
from ablate.report.reference import read_reference
from ablate.report.write import check, printed, write_index, write_paper, write_report
from ablate.study.foreign import is_foreign, load_foreign, tidy
from ablate.study.load import load
from ablate.study.schema import Study
from ablate.track import kept
from ablate.track.folder import folder_of
from ablate.track.foreign import read_foreign
from ablate.track.table import read_csv, read_curves, read_table

SHIPPED = "studies/memory_vs_arch.yaml"
PAPER = Path("paper")


def last_run(results: Path) -> dict[str, Any]:
    """How the study that was run last was called; before any run, the shipped one as it is."""
    return kept.last(results) or {**dict.fromkeys(kept.ASKED), "study": SHIPPED}


def ours(study: Study, file: Path, results: Path) -> Results:
    """The results of a loaded study at its profile; file: where it was loaded from, as an earlier
    measurement lies beside it. Raises UserError where nothing was run."""
    folder = folder_of(results, study)
    if not folder.table.exists():
        raise UserError(
            f"{folder.table}: there are no results yet; run them first: python -m ablate run {file}"
            + ("." if study.profile == STANDARD else f" --profile {study.profile}.")
        )
    series = folder.root / "series.csv"
    found: dict[str, Any] = {
        "curves": read_curves(folder.curves) if folder.curves.exists() else None,
        "series": read_csv(series) if series.exists() else None,
        "yardsticks": kept.yardsticks(folder),
        "reference": read_reference(file.with_name(f"{study.study}.reference.csv")),
    }
    return Results(
        study,
        read_table(folder.table),
        study.profile,
        audit=kept.audits(folder),
        registration=folder.read(),
        folder=folder.root,
        **{name: table for name, table in found.items() if table is not None},
    )


def elsewhere(study: Path, table: Path, results: Path) -> Results:
    """The results of a table from elsewhere; study: a file of either kind, one of ours takes a table
    with our columns."""
    if is_foreign(study):
        theirs = load_foreign(study)
        found = read_foreign(table)
        tidied = tidy(theirs, found.table, found.file, found.names)
        reading = (*found.notes, *tidied.notes)
        folder = results / theirs.study
        return Results(theirs, tidied.table, foreign=True, reading=reading, folder=folder)
    loaded = load(study)
    return Results(loaded, read_csv(table), foreign=True, folder=results / loaded.study)


def every(results: Path) -> list[Results]:
    """All studies that have results of their own profile under `results`, each as it was run last.

    A study's file is the one that was run, or `studies/<study>.yaml` beside `results`. Raises UserError
    where there is neither.
    """
    out = []
    for path in sorted(results.glob("*/study.json")):
        if path.with_name("trials.csv").exists():
            name = path.parent.name
            asked = kept.asked(path.parent)
            shipped = results.parent / "studies" / f"{name}.yaml"
            if asked is None or not Path(asked["study"]).is_file():
                asked = {**dict.fromkeys(kept.ASKED), "study": shipped}
            if not Path(asked["study"]).is_file():
                raise UserError(
                    f"{path.parent}: whose results are these? There is no {shipped}; put the study's file "
                    "there, or move the folder away."
                )
            out.append(_asked(asked, results))
    return out


def make(
    asked: Results | None, results: Path, paper: Path | None = None, venue: str | None = None
) -> str:
    """Write the report of `asked`, or of the paper with all studies and of what was run last; what to
    print. paper: where the paper lies, `paper/` when None, or the folder of results that don't belong
    there: those of another profile and tables from elsewhere."""
    whole = [] if asked else every(results)
    named = None if asked else kept.last(results)
    last = _asked(named, results) if named else asked
    if last is None and not whole:
        raise UserError(
            f"{results}: there are no results yet; run a study first: python -m ablate run {SHIPPED}."
        )
    told = []
    if last is not None and (asked or _apart(last)):
        told.append(printed(write_report(last, _place(last, paper), venue), last))
    if whole:
        among = next((one for one in whole if last and one.folder == last.folder), None)
        told.append(printed(write_paper(whole, paper or PAPER, venue), among))
    index = write_index(results, paper or PAPER)
    return "\n\n".join(told) + (f"\n  {index}: all studies" if index else "")


def stale(asked: Results | None, results: Path, paper: Path | None = None) -> list[str]:
    """What of the report of `asked`, or of the paper with all studies, is not as the results say; and what
    is wrong in the paper's own text. One line each."""
    if asked is None:
        return check(every(results), paper or PAPER, whole=True)
    return check([asked], _place(asked, paper), whole=False)


def refuse_foreign(study: Path) -> None:
    """Raise UserError for a study of somebody else's runs, which cannot be reported without a table."""
    if is_foreign(study):
        raise UserError(
            f"{study}: this study is about a table from elsewhere; name it: "
            f"python -m ablate report --table FILE --study {study}."
        )


def _asked(asked: dict[str, Any], results: Path) -> Results:
    """The results of a study by how a command named it."""
    for source in asked["plugins"] or ():
        load_plugin(source)
    overrides = [*(asked["set"] or ()), *([f"seeds={asked['seeds']}"] if asked["seeds"] else ())]
    file = Path(asked["study"])
    return ours(load(file, asked["profile"], overrides), file, results)


def _apart(results: Results) -> bool:
    """Whether these results don't belong into the paper of all studies."""
    return results.foreign or results.profile != STANDARD


def _place(results: Results, paper: Path | None) -> Path:
    assert results.folder is not None
    return paper or (results.folder / "paper" if _apart(results) else PAPER)
