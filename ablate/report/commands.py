"""`report`: find the studies' results, or somebody else's, and hand them to the report room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablate import registry
from ablate.analyse.tidy import unmeasured
from ablate.config import STANDARD
from ablate.errors import UserError
from ablate.report.results import Results
from ablate.report.write import check, printed, write_index, write_paper, write_report
from ablate.study.foreign import arranged, is_foreign, load_foreign, tidy
from ablate.study.load import load
from ablate.study.schema import Study
from ablate.study.shipped import find
from ablate.study.tuning import by_draws
from ablate.track import kept
from ablate.track.book import tuned, tuning_arms
from ablate.track.folder import folder_of
from ablate.track.foreign import read_foreign
from ablate.track.known import verify
from ablate.track.table import read_csv, read_curves, read_series, read_table

SHIPPED = "studies/memory_vs_arch.yaml"
PAPER = Path("paper")


def last_run(results: Path) -> dict[str, Any]:
    """How the study that was run last was called; before any run, the shipped one as it is."""
    folder = kept.newest(results)
    return (folder and kept.asked(folder)) or _as_it_is(find(Path(SHIPPED)))


def ours(study: Study, results: Path) -> Results:
    """The results of a loaded study at its profile. Raises UserError where nothing was run."""
    folder = folder_of(results, study)
    if not folder.table.exists():
        raise UserError(
            f"{folder.table}: there are no results yet; run them first: python -m ablate run {study.file}"
            + ("." if study.profile == STANDARD else f" --profile {study.profile}.")
        )
    verify(folder)
    registration = folder.read()
    study = tuned(study, folder, registration["data"])
    table = read_table(folder.table)
    found: dict[str, Any] = {"yardsticks": kept.yardsticks(folder)}
    if folder.curves.exists():  # of fits; each trial has those of its fit
        fits = table[["trial", "fit"]]
        found["curves"] = fits.merge(read_curves(folder.curves), on="fit").drop(columns="fit")
    if folder.series.exists():
        found["series"] = read_series(folder.series)
    if folder.replications.exists():
        found["replications"] = read_csv(folder.replications)
    if study.tune is not None and folder.tuning.exists():
        arms = tuning_arms(study, registration["data"])
        draws = read_table(folder.tuning)
        found["tuning"] = by_draws(draws, study.tune, arms, study.tune.judge)
    return Results(
        study,
        table,
        study.profile,
        audit=kept.audits(folder),
        registration=registration,
        folder=folder.root,
        reading=unmeasured(table),
        **{name: table for name, table in found.items() if table is not None},
    )


def elsewhere(study: Path, table: Path, results: Path, paired: bool = False) -> Results:
    """The results of a table from elsewhere; study: a file of either kind, one of ours takes a table
    with our columns. paired: runs of one seed share something in all cells, whatever the study says."""
    if is_foreign(study):
        theirs = load_foreign(study)
        found = read_foreign(table)
        rows, said = found.table, list(found.notes)
        if found.matrices:
            rows, how = arranged(theirs, rows, found.file)
            said.append(how)
        tidied = tidy(theirs, rows, found.file, found.names)
        return Results(
            theirs,
            tidied.table,
            curves=tidied.curves,
            foreign=True,
            said_paired=paired,
            reading=(*said, *tidied.notes),
            folder=results / theirs.study,
        )
    loaded = load(study)
    return Results(
        loaded,
        read_csv(table, sealed=False),
        foreign=True,
        said_paired=paired,
        folder=results / loaded.study,
    )


def every(results: Path) -> Iterator[Results]:
    """All studies that have results of their own profile under `results`, each as it was run last.

    A study's file is the one that was run, or `studies/<study>.yaml` beside `results`, or the one of this name
    that comes with `ablate`. What a study's own code registers is there until the next study is asked for. Raises
    UserError where a study has no file.
    """
    for path in sorted(results.glob("*/study.json")):
        folder = path.parent
        if not (folder / "trials.csv").exists():
            continue
        beside = results.parent / "studies" / f"{folder.name}.yaml"
        known = beside if beside.is_file() else find(Path(folder.name))
        asked = kept.asked(folder) or _as_it_is(known)
        if not Path(asked["study"]).is_file():
            asked = _as_it_is(known)
        if not Path(asked["study"]).is_file():
            raise UserError(
                f"{folder}: whose results are these? There is no {beside}; put the study's file there, "
                "or move the folder away."
            )
        with registry.scope():
            yield _asked(asked, results)


def make(
    asked: Results | None, results: Path, paper: Path | None = None, venue: str | None = None
) -> str:
    """Write the report of `asked`, or of the paper with all studies and of what was run last; what to
    print. paper: where the paper lies, `paper/` when None, or the folder of results that don't belong
    there: those of another profile or other streams, and tables from elsewhere."""
    if asked is not None:
        told = [printed(write_report(asked, _place(asked, results, paper), venue), asked.story)]
    else:
        told = _of_all(results, paper or PAPER, venue)
    index = write_index(results, paper or PAPER)
    return "\n\n".join(told) + (f"\n  {index}: all studies" if index else "")


def _of_all(results: Path, paper: Path, venue: str | None) -> list[str]:
    """Write the paper, and before it the report of what was run last where it doesn't belong there."""
    told, newest, story = [], kept.newest(results), None
    if newest is not None and newest.parent != results:
        with registry.scope():
            last = _asked(last_run(results), results)
            told.append(printed(write_report(last, newest / "paper", venue), last.story))

    def studies() -> Iterator[Results]:
        nonlocal story
        for one in every(results):
            if one.folder == newest:
                story = one.story
            yield one

    if any(results.glob("*/trials.csv")):
        told.append(printed(write_paper(studies(), paper, venue), story))
    if not told:
        raise UserError(
            f"{results}: there are no results yet; run a study first: python -m ablate run {SHIPPED}."
        )
    return told


def stale(asked: Results | None, results: Path, paper: Path | None = None) -> list[str]:
    """What of the report of `asked`, or of the paper with all studies, is not as the results say; and what
    is wrong in the paper's own text. One line each."""
    if asked is None:
        return check(every(results), paper or PAPER, whole=True)
    return check([asked], _place(asked, results, paper), whole=False)


def refuse_foreign(study: Path) -> None:
    """Raise UserError for a study of somebody else's runs, which cannot be reported without a table."""
    if is_foreign(study):
        raise UserError(
            f"{study}: this study is about a table from elsewhere; name it: "
            f"python -m ablate report --table FILE --study {study}."
        )


def _as_it_is(study: Path) -> dict[str, Any]:
    """A study file named without anything else."""
    return {**dict.fromkeys(kept.ASKED), "study": study}


def _asked(asked: dict[str, Any], results: Path) -> Results:
    """The results of a study by how a command named it."""
    for source in asked["plugins"] or ():
        registry.load_plugin(source)
    overrides = [*(asked["set"] or ()), *([f"seeds={asked['seeds']}"] if asked["seeds"] else ())]
    return ours(load(Path(asked["study"]), asked["profile"], overrides), results)


def _place(results: Results, root: Path, paper: Path | None) -> Path:
    """Where a study's part of a paper belongs."""
    assert results.folder is not None
    apart = results.foreign or results.folder.parent != root
    return paper or (results.folder / "paper" if apart else PAPER)
