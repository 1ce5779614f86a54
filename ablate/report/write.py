"""The report's door: write everything, check everything, and say it at the end of the command."""

from __future__ import annotations

import json
import os
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ablate import words
from ablate.errors import UserError
from ablate.report import provenance, style
from ablate.report.material import Results
from ablate.report.paper import compile_pdf
from ablate.report.render import Rendered, render
from ablate.report.story import Story
from ablate.study.foreign import ForeignStudy
from ablate.study.load import load
from ablate.study.schema import Study

PAGE = "report.html"
MANIFEST = "manifest.json"
PDF = "main.pdf"
OWNED = ("figures", "tables")  # folders of paper/ that hold nothing but what the report writes
WIDTH = 96  # characters of a line on the terminal


@dataclass(frozen=True)
class Report:
    """What was written.

    written: every file of the report, in the order of the paper; changed: those that differ from
    what was there; removed: files of an earlier report that this one has no use for; notes: what a
    person should know, e.g. why there is no PDF.
    """

    story: Story
    written: tuple[Path, ...]
    changed: tuple[Path, ...]
    removed: tuple[Path, ...]
    notes: tuple[str, ...]

    @property
    def answer(self) -> str:
        """The study's answer in words."""
        return self.story.answer


def write_report(
    study: Study | ForeignStudy | Path | str,
    profile: str | None,
    table: pd.DataFrame,
    curves: pd.DataFrame | None,
    audit: Sequence[dict[str, Any]],
    folder: Path,
    paper: Path,
    *,
    yardsticks: pd.DataFrame | None = None,
    reference: pd.DataFrame | None = None,
    foreign: bool = False,
    reading: Sequence[str] = (),
    venue: str | None = None,
    pdf: bool = True,
) -> Report:
    """Write `paper/` and `folder/report.html`; what is already there byte for byte is left alone.

    study: a loaded study, or the path of its file; profile: which profile to load from a path.
    folder: results/<study>, whose study.json (unless `foreign`: the table is not ours) says what
    was registered.
    reference: an earlier measurement of effects of context, columns as in `reference.COLUMNS`.
    reading: how a table from elsewhere was read. venue: a name of `style.VENUES`, whose widths and
    font sizes the figures have; that of the last report when None.
    pdf: compile main.tex where LaTeX is installed. Raises UserError when there is nothing to
    report or a file cannot be written.
    """
    loaded = _loaded(study, profile)
    registration = _registration(folder, foreign)
    folder, paper = Path(folder), Path(paper)
    before = _manifest(paper)
    made = render(
        _results(
            loaded,
            table,
            curves,
            audit,
            folder,
            registration,
            yardsticks,
            reference,
            foreign,
            reading,
        ),
        _venue(venue, before),
    )
    compiled, notes = _pdf(made, paper, before, pdf)
    files = dict(made.files)
    files[MANIFEST] = _new_manifest(made, compiled)
    if compiled is not None:
        files[PDF] = compiled
    targets = {paper / name: content for name, content in sorted(files.items(), key=_order)}
    targets[folder / PAGE] = made.page
    changed = [path for path, content in targets.items() if _put(path, content)]
    removed = []
    for name in [*before.get("files", {}), *([PDF] if before.get("pdf") else [])]:
        path = paper / name
        if name not in files and _inside(path, paper) and path.is_file():
            path.unlink()
            removed.append(path)
    return Report(made.story, tuple(targets), tuple(changed), tuple(removed), tuple(notes))


def check(
    study: Study | ForeignStudy | Path | str,
    profile: str | None,
    table: pd.DataFrame,
    curves: pd.DataFrame | None,
    audit: Sequence[dict[str, Any]],
    folder: Path,
    paper: Path,
    *,
    yardsticks: pd.DataFrame | None = None,
    reference: pd.DataFrame | None = None,
    foreign: bool = False,
    reading: Sequence[str] = (),
    venue: str | None = None,
) -> list[str]:
    """What is stale, missing or extra, one line each; empty when everything is as it would be
    written now.

    main.pdf is compared with the manifest (its own hash, and what it was compiled from), so that
    the check needs no LaTeX and does not fail because of another one.
    """
    loaded = _loaded(study, profile)
    registration = _registration(folder, foreign)
    folder, paper = Path(folder), Path(paper)
    before = _manifest(paper)
    made = render(
        _results(
            loaded,
            table,
            curves,
            audit,
            folder,
            registration,
            yardsticks,
            reference,
            foreign,
            reading,
        ),
        _venue(venue, before),
    )
    pdf = _read(paper / PDF)
    recorded = before.get("pdf") or {}
    wanted = {**{paper / name: content for name, content in made.files.items()}}
    wanted[folder / PAGE] = made.page
    # What the manifest says of the PDF is checked below, so here it may say what it said.
    wanted[paper / MANIFEST] = _new_manifest(made, None, recorded or None)
    found = []
    for path, content in sorted(wanted.items()):
        there = _read(path)
        if there is None:
            found.append(f"{path}: missing")
        elif there != content:
            found.append(f"{path}: stale, not what the results say now")
    for name in OWNED:
        for path in sorted((paper / name).glob("*")):
            if path not in wanted:
                found.append(f"{path}: extra, not written by this report")
    if pdf is not None and provenance.sha(pdf) != recorded.get("sha256"):
        found.append(f"{paper / PDF}: stale, not the file that the report wrote")
    elif pdf is not None and recorded.get("source") != provenance.source_hash(made.files):
        found.append(f"{paper / PDF}: stale, compiled from other sources")
    elif pdf is None and recorded:
        found.append(f"{paper / PDF}: missing")
    return found


def _results(
    study: Study | ForeignStudy,
    table: pd.DataFrame,
    curves: pd.DataFrame | None,
    audit: Sequence[dict[str, Any]],
    folder: Path,
    registration: Mapping[str, Any],
    yardsticks: pd.DataFrame | None,
    reference: pd.DataFrame | None,
    foreign: bool,
    reading: Sequence[str],
) -> Results:
    given = {"curves": curves, "yardsticks": yardsticks, "reference": reference}
    return Results(
        study=study,
        table=table,
        audit=audit,
        folder=folder,
        registration=registration,
        foreign=foreign,
        reading=reading,
        **{name: frame for name, frame in given.items() if frame is not None},  # type: ignore[arg-type]
    )


def printed(report: Report) -> str:
    """What the command says last: the answer, a line a hypothesis, what to mind, the files."""
    story = report.story
    head = f"Study {story.study}"
    lines = [head if story.foreign else f"{head}, profile {story.profile}", ""]
    lines += _wrapped(f"Question: {story.question}")
    plainly, *further = story.answer.splitlines()
    lines += _wrapped(f"Answer: {plainly}")
    lines += [wrapped for line in further for wrapped in _wrapped(line, "  ")]
    lines += ["", *_wrapped(story.scale)]
    if story.incomplete:
        lines += _wrapped(f"Mind: {story.incomplete}.")
    if not story.confirmatory and story.findings:
        lines += _wrapped(f"Mind: {story.standing[0].lower()}{story.standing[1:]}")
    if story.sequential:
        lines += _wrapped(story.sequential)
    for line in story.reading:
        lines += _wrapped(f"Read: {line}.")
    if story.findings:
        lines += ["", f"Hypotheses (* primary; {PAGE} says what each claims):"]
        width = max(len(finding.id) for finding in story.findings)
        for finding in story.findings:
            mark = "*" if finding.primary else " "
            head = f"{mark} {finding.id:<{width}}  {finding.verdict:<12}"
            if finding.tested:
                unit = words.response(finding.metric).unit
                head += (
                    f"  {finding.shown_estimate} {unit} ({finding.shown_interval}), p "
                    f"{finding.p_relation}, {words.count(finding.failed, 'trial')} failed"
                )
            lines.append(head.rstrip())
    lines += ["", "Files:"]
    pictures = [
        path for path in report.written if path.suffix == ".pdf" and path.parent.name == "figures"
    ]
    first = [path for path in report.written if path.name in (PAGE, PDF, "main.tex", "macros.tex")]
    first.sort(key=lambda path: (PAGE, PDF, "main.tex", "macros.tex").index(path.name))
    lines += [f"  {path}" for path in first]
    if pictures:
        names = ", ".join(path.stem for path in pictures)
        lines += _wrapped(f"{pictures[0].parent}/ ({names}; each as .pdf and .png)", "  ", "    ")
    made = [
        path for path in report.written if path.suffix == ".tex" and path.parent.name == "tables"
    ]
    if made:
        lines += _wrapped(
            f"{made[0].parent}/ ({', '.join(path.stem for path in made)})", "  ", "    "
        )
    changed = len(report.changed)
    lines.append(f"  {len(report.written)} files in all, {changed or 'none'} changed.")
    for path in report.removed:
        lines.append(f"  removed {path}, which this report has no use for")
    lines += [line for note in report.notes for line in _wrapped(note)]
    return "\n".join(lines)


def _wrapped(line: str, first: str = "", rest: str = "  ") -> list[str]:
    return textwrap.wrap(
        line,
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _venue(asked: str | None, before: Mapping[str, Any]) -> str:
    """The venue asked for, else that of the report that is there, else the default."""
    kept = str(before.get("venue", ""))
    return asked or (kept if kept in style.VENUES else style.DEFAULT)


def _loaded(study: Study | ForeignStudy | Path | str, profile: str | None) -> Study | ForeignStudy:
    if isinstance(study, ForeignStudy):
        return study
    if not isinstance(study, Study):
        return load(study, profile)
    if profile is not None and study.profile != profile:
        raise UserError(
            f"study '{study.study}' was loaded at profile '{study.profile}', not '{profile}'."
        )
    return study


def _registration(folder: Path, foreign: bool) -> Mapping[str, Any]:
    """Content of study.json; empty for a table from elsewhere."""
    content = None if foreign else _read(Path(folder) / "study.json")
    if content is None:
        return {}
    try:
        found = json.loads(content)
    except ValueError as error:
        raise UserError(
            f"{Path(folder) / 'study.json'}: not JSON ({error}); take it from git."
        ) from error
    return found if isinstance(found, dict) else {}


def _pdf(
    made: Rendered, paper: Path, before: Mapping[str, Any], wanted: bool
) -> tuple[bytes | None, list[str]]:
    """main.pdf and what to say of it. One that was compiled from these very sources is kept as it
    is."""
    source = provenance.source_hash(made.files)
    recorded = before.get("pdf") or {}
    there = _read(paper / PDF)
    if (
        there is not None
        and recorded.get("source") == source
        and recorded.get("sha256") == provenance.sha(there)
    ):
        return there, []
    if not wanted:
        return None, []
    compiled = compile_pdf(made.files)
    if compiled.pdf is not None:
        return compiled.pdf, []
    return None, [
        f"{paper / PDF} was not made: {compiled.problem}; main.tex is complete without it."
    ]


def _new_manifest(
    made: Rendered, pdf: bytes | None, recorded: Mapping[str, Any] | None = None
) -> bytes:
    story = made.story
    content = provenance.manifest(
        story.study,
        story.study_hash,
        story.profile,
        made.venue,
        made.inputs,
        made.files,
        made.page,
        pdf,
    )
    if recorded is None:
        return content
    return provenance.dump({**json.loads(content), "pdf": dict(recorded)})


def _manifest(paper: Path) -> Mapping[str, Any]:
    """The manifest of the last report; empty when there is none that can be read."""
    content = _read(paper / MANIFEST)
    if content is None:
        return {}
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _order(item: tuple[str, bytes]) -> tuple[int, str]:
    name = item[0]
    return (0 if name.startswith("main") else 1 if "/" not in name else 2, name)


def _inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error


def _put(path: Path, content: bytes) -> bool:
    """Write atomically unless the file already holds `content`; whether it was written."""
    if _read(path) == content:
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.chmod(scratch, 0o644)
            os.replace(scratch, path)
        except BaseException:
            os.unlink(scratch)
            raise
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); nothing there was changed."
        ) from error
    return True
