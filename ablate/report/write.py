"""The report's door: write everything, check everything, and say it at the end of the command."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ablate import words
from ablate.errors import UserError
from ablate.report import claims, numbers, page, provenance, shared
from ablate.report.paper import compile_pdf, skeleton, sources
from ablate.report.render import Rendered, render
from ablate.report.results import Results
from ablate.report.shared import Paper, Part
from ablate.report.story import Story
from ablate.track.files import write_atomic

PAGE = "report.html"
INDEX = "index.html"
MAIN = "main.tex"
PDF = "main.pdf"
OWNED = ("figures", "tables")  # folders of a paper that hold nothing but what the report writes
WIDTH = 100  # characters of a line at most, however wide the terminal


@dataclass(frozen=True)
class Report:
    """What was written into a paper's folder.

    paper: the parts of all studies. written: every file of the report; changed: those that differ from
    what was there; removed: files of an earlier report that this one has no use for; notes: what a
    person should know, e.g. why there is no PDF.
    """

    folder: Path
    paper: Paper
    written: tuple[Path, ...]
    changed: tuple[Path, ...]
    removed: tuple[Path, ...]
    notes: tuple[str, ...]


def write_report(
    results: Results, folder: Path, venue: str | None = None, pdf: bool = True
) -> Report:
    """Write a study's page and its part of the paper in `folder`; the other studies' parts stay.

    venue: a name of `style.VENUES`, whose widths and font sizes the figures have; that of the paper as
    it is when None. pdf: compile main.tex where LaTeX is installed. What is already there byte for byte
    is left alone. Raises UserError when there is nothing to report, a file cannot be written, or the
    other studies' figures are another venue's.
    """
    before = shared.read(folder)
    kept = {name: part for name, part in before.parts.items() if name != results.study.study}
    if kept and venue not in (None, before.venue):
        raise UserError(
            f"{folder}: its figures have the sizes of '{before.venue}', found '{venue}' for one study; "
            f"change all of them: python -m ablate report --venue {venue}."
        )
    _refuse_damaged(folder, before, results.study.study)
    made = render(results, venue or before.venue)
    return _write([made], replace(before, venue=venue or before.venue, parts=kept), folder, pdf)


def write_paper(
    studies: Iterable[Results], folder: Path, venue: str | None = None, pdf: bool = True
) -> Report:
    """Write the pages of all `studies` and the paper of exactly these, one after another. Arguments as of
    `write_report`.

    A study is not told again where neither its results nor the code that tells them has changed.
    """
    before = shared.read(folder)
    after = replace(before, venue=venue or before.venue, parts={})
    made, kept = [], {}
    for one in studies:
        part = before.parts.get(one.study.study)
        if part and _fresh(part, one, folder, after.venue) and _page(one).is_file():
            kept[one.study.study] = part
        else:
            made.append(render(one, after.venue))
    return _write(made, replace(after, parts=kept), folder, pdf)


def check(studies: Iterable[Results], folder: Path, whole: bool) -> list[str]:
    """What is stale, missing or extra in the paper in `folder`, and where its own text uses a number that
    no macro gives, one line each; empty when everything is as it would be written now.

    whole: `studies` are all that the paper may be about. Figures are drawn again only where results or
    code are others than those that the manifest names; then what they were drawn with must be here too.
    Pages that were not made here, and main.pdf, are no part of it.
    """
    before = shared.read(folder)
    parts = {} if whole else dict(before.parts)
    found: list[str] = []
    wanted: dict[Path, bytes] = {}
    for one in studies:
        part = before.parts.get(one.study.study)
        page_there = _read(_page(one))
        if part is None or not _fresh(part, one, folder, before.venue):
            made = render(one, before.venue)
            wanted |= {folder / name: content for name, content in made.files.items()}
            # Code and packages that give the same bytes are as good as those that gave them.
            same = {name: part.entry[name] for name in ("code", "packages")} if part else {}
            part = replace(made.part, entry={**made.part.entry, **same})
        parts[one.study.study] = part
        if page_there is not None and provenance.sha(page_there) != part.entry["page"]:
            found.append(f"{_page(one)}: stale, not what the results say now")
    after = replace(before, parts=parts)
    if parts or shared.manifest(folder):
        wanted |= {folder / name: content for name, content in after.files().items()}
    for path, content in sorted(wanted.items()):
        there = _read(path)
        if there is None:
            found.append(f"{path}: missing")
        elif there != content:
            found.append(f"{path}: stale, not what the results say now")
    known = {folder / name for part in parts.values() for name in part.files}
    for path in sorted(path for name in OWNED for path in (folder / name).rglob("*")):
        if path.is_file() and path not in known | wanted.keys():
            found.append(f"{path}: extra, not written by this report")
    given = {name for part in parts.values() for name in part.macros}
    return found + numbers.by_hand(folder, _own_text(folder), given)


def _fresh(part: Part, results: Results, folder: Path, venue: str) -> bool:
    """Whether a part lies there as it was written, from these results by this code."""
    return (
        part.entry["code"] == provenance.code()
        and part.entry["inputs"] == provenance.inputs(results, venue)
        and all(_matches(folder / name, digest) for name, digest in part.files.items())
    )


def _matches(path: Path, digest: str) -> bool:
    content = _read(path)
    return content is not None and provenance.sha(content) == digest


def _refuse_damaged(folder: Path, before: Paper, study: str) -> None:
    """Raise UserError when another study's part can't be kept as it is."""
    for name in shared.manifest(folder).get("studies", {}):
        if name not in before.parts and name != study:
            raise UserError(
                f"{folder / shared.SUPPLEMENT}: the chapter of '{name}' isn't the one that was written; "
                f"{shared.ANEW}."
            )


def _write(made: Sequence[Rendered], kept: Paper, folder: Path, pdf: bool) -> Report:
    """Write what was made beside what is kept."""
    new = {one.results.study.study: one.part for one in made}
    paper = replace(kept, parts={**kept.parts, **new})
    targets = {folder / name: content for one in made for name, content in one.files.items()}
    shown = {folder / name: content for name, content in paper.files().items()}
    targets |= shown
    targets |= {_page(one.results): one.page for one in made}
    if not (folder / MAIN).exists():
        targets[folder / MAIN] = skeleton().encode()
    earlier = {
        folder / name
        for entry in shared.manifest(folder).get("studies", {}).values()
        for name in entry["files"]
    }
    earlier |= {folder / name for name in shared.OVERVIEW}
    changed = [path for path, content in targets.items() if _put(path, content)]
    wanted = {folder / name for part in paper.parts.values() for name in part.files}
    removed = [path for path in sorted(earlier - wanted - shown.keys()) if _owned(path, folder)]
    for path in removed:
        path.unlink()
    written = [*targets, *sorted(wanted - set(targets))]
    notes: list[str] = []
    if pdf:
        compiled, notes = _compile(folder)
        changed += compiled
        written += [folder / PDF] if (folder / PDF).is_file() else []
    return Report(
        folder,
        paper,
        tuple(written),
        tuple(changed),
        tuple(removed),
        tuple(notes),
    )


def _owned(path: Path, folder: Path) -> bool:
    """Whether it is a file in a folder that holds nothing but what the report writes."""
    inside = (path.resolve().is_relative_to((folder / name).resolve()) for name in OWNED)
    return path.is_file() and any(inside)


def _compile(folder: Path) -> tuple[list[Path], list[str]]:
    """Make main.pdf where it is older than its sources; (what changed, what to say). One that lies there
    is never taken away."""
    path = folder / PDF
    newest = max(one.stat().st_mtime_ns for one in sources(folder))
    if path.is_file() and path.stat().st_mtime_ns >= newest:
        return [], []
    compiled = compile_pdf(folder)
    if compiled.pdf is None:
        there = "the one that lies there is older than its sources" if path.is_file() else ""
        why = f"{path} was not made: {compiled.problem}"
        return [], [f"{why}; {there or f'{MAIN} is complete without it'}."]
    write_atomic(path, compiled.pdf)
    return [path], []


def write_index(root: Path, folder: Path) -> Path | None:
    """Write `results/index.html`, which leads to the pages below `root` that the paper in `folder` and
    those of single profiles tell of; None where there is none."""
    others = [*root.glob(f"*/paper/{shared.MANIFEST}"), *root.glob(f"*/*/paper/{shared.MANIFEST}")]
    lines = {}
    for paper in [folder, *sorted(path.parent for path in others)]:
        for study, entry in shared.manifest(paper).get("studies", {}).items():
            path = (root / study if paper == folder else paper.parent) / PAGE
            if path.is_file():
                lines[path] = page.Line(
                    study=study,
                    profile=entry["profile"],
                    question=entry["question"],
                    answer=entry["answer"],
                    findings=entry["findings"],
                    address=path.relative_to(root).as_posix(),
                )
    if not lines:
        return None
    claimed = _read(folder / f"{claims.FIGURE}.png")
    _put(root / INDEX, page.index([lines[path] for path in sorted(lines)], claimed))
    return root / INDEX


def printed(report: Report, asked: Story | None = None) -> str:
    """What the command says last: of the study that was asked about the answer, a line a hypothesis and
    what to mind; the answers of the paper's other studies; the files."""
    lines = [] if asked is None else _told(asked)
    for study, part in sorted(report.paper.parts.items()):
        if asked is None or study != asked.study:
            lines += _wrapped(f"Study {study}: {part.entry['answer'].splitlines()[0]}")
    return "\n".join([*lines, "", *_files(report)])


def _told(story: Story) -> list[str]:
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
                shown = f"{finding.shown_estimate} {finding.response.unit}".strip()
                head += (
                    f"  {shown} ({finding.shown_interval}), p "
                    f"{finding.p_relation}, {words.count(finding.failed, 'trial')} failed"
                )
            lines.append(head.rstrip())
    return lines


def _files(report: Report) -> list[str]:
    """The files of the report, those that are to be opened first."""
    first = (PAGE, INDEX, PDF, MAIN, shared.SUPPLEMENT, shared.MACROS)
    shown = [path for path in report.written if path.name in first]
    lines = [f"  {path}" for path in sorted(shown, key=lambda path: first.index(path.name))]
    for name in OWNED:
        there = [path for path in report.written if path.is_relative_to(report.folder / name)]
        if there:
            lines.append(f"  {report.folder / name}/ ({words.count(len(there), 'file')})")
    changed = len(report.changed)
    lines.append(f"  {len(report.written)} files in all, {changed or 'none'} changed.")
    lines += [f"  removed {path}, which this report has no use for" for path in report.removed]
    return ["Files:", *lines, *(line for note in report.notes for line in _wrapped(note))]


def _wrapped(line: str, first: str = "", rest: str = "  ") -> list[str]:
    return textwrap.wrap(
        line,
        min(max(shutil.get_terminal_size((80, 24)).columns, 40), WIDTH),
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _page(results: Results) -> Path:
    assert results.folder is not None  # only a report that is written has a page
    return results.folder / PAGE


def _own_text(folder: Path) -> list[Path]:
    """The LaTeX that people wrote: all but what the report writes."""
    ours = {folder / shared.MACROS, folder / shared.SUPPLEMENT}
    found = (path for path in sorted(folder.rglob("*.tex")) if path not in ours)
    return [path for path in found if path.relative_to(folder).parts[0] not in OWNED]


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
    write_atomic(path, content)
    return True
