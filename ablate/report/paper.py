"""A study's chapter of the paper's supplement, and the paper's compilation where LaTeX is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ablate import words
from ablate.analyse.verdict import EQUIVALENT
from ablate.report import macros, tex
from ablate.report.figures.base import Drawn
from ablate.report.findings import FIRM, Finding
from ablate.report.story import Story
from ablate.report.tables import Table

TIMEOUT = 120  # seconds for one pass
SOURCES = (".tex", ".pdf", ".png", ".bib", ".bst", ".cls", ".sty")
_NOT_OURS = ("d4rl", "minari", "file")  # families that this project doesn't generate


@dataclass(frozen=True)
class Compiled:
    """The PDF, or in one line why there is none."""

    pdf: bytes | None
    problem: str = ""


def _template(name: str, **values: Any) -> str:
    """A LaTeX template, filled."""
    environment = Environment(
        loader=PackageLoader("ablate.report"),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
    )
    return environment.get_template(name).render(**values)


def skeleton() -> str:
    """A main.tex to start from, for a folder that has none."""
    return _template("main.tex.j2")


def opening(universes: Sequence[str]) -> str:
    """What the supplement says of all its chapters. universes: the files of the figure of all universes."""
    return _template("supplement.tex.j2", universes=universes, firm=f"{100 * FIRM:g}")


def chapter(story: Story, figures: Sequence[Drawn], tables: Sequence[Table]) -> str:
    """The LaTeX of what was asked, done and found. Every number comes from `macros.tex`, a table or the
    study file."""
    named = macros.names(story)

    def number(kind: str, of: str = "") -> str:
        """The command that prints a number, safe before a letter or a blank."""
        return f"\\{named[of, kind]}{{}}"

    findings = [
        {
            "id": tex.latex(finding.id),
            "says": tex.latex(finding.says.rstrip(".")),
            "where": tex.latex(finding.where),
            "tested": finding.tested,
            "verdict": tex.latex(finding.verdict),
            "word": "No difference that matters"
            if finding.absent and finding.verdict == EQUIVALENT
            else finding.verdict.capitalize(),
            "absent": finding.absent,
            "result": number("Result", finding.id) if finding.tested else "",
            "reason": tex.latex(_reason(finding)),
            "sentence": number("Sentence", finding.id),
        }
        for finding in story.findings
    ]
    own = [d.name for d in story.data if d.name.split("/")[0].split("@")[0] not in _NOT_OURS]
    return _template(
        "chapter.tex.j2",
        study=tex.latex(story.study),
        key=story.study,
        number=number,
        question=tex.latex(story.question),
        reduced=story.reduced,
        standing=tex.latex(story.standing),
        factors=_escaped(story.factors),
        settings=_escaped(story.settings),
        designs=[
            (tex.latex(n), tex.latex(why.rstrip(".")), number(n, "design"))
            for n, why, _ in story.designs
        ],
        sequential=tex.latex(story.sequential),
        further=[(tex.latex(h), number(h, "further")) for h, _ in story.further],
        reading=[tex.latex(line) for line in story.reading],
        aliasing=[tex.latex(line) for line in story.aliasing],
        pairing=[tex.latex(line) for line in story.pairing],
        data=[
            {
                "name": tex.latex(d.name),
                "shown": tex.latex(words.data(d.name)),
                "content_hash": tex.latex(d.content_hash),
                "trials": number(d.name, "data"),
            }
            for d in story.data
        ],
        findings=findings,
        untested=[finding for finding in findings if not finding["tested"]],
        absent=[finding for finding in findings if finding["tested"] and finding["absent"]],
        inconclusive=[finding for finding in findings if finding["verdict"] == "inconclusive"],
        incomplete=tex.latex(story.incomplete),
        has_matching=any(table.name == "matching" for table in tables),
        presets="preset" in dict(story.factors),
        notes=[tex.latex(note) for note in story.study_notes],
        own_data=tex.latex(words.listing(own)),
        foreign=story.foreign,
        tables=_floats(tables),
        figures=_floats(figures),
    )


def _floats(made: Sequence[Drawn | Table]) -> list[dict[str, Any]]:
    """What a chapter shows of figures or tables, those of an appendix last."""
    return [
        {
            "name": one.name,
            "caption": tex.latex(one.caption),
            "small": isinstance(one, Table) and one.small,
        }
        for one in sorted(made, key=lambda one: one.appended)
    ]


def _escaped(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(tex.latex(a), tex.latex(b)) for a, b in pairs]


def _reason(finding: Finding) -> str:
    """Why a hypothesis was not tested."""
    why = finding.notes[0] if finding.notes else ""
    return "no cell of this profile is about it" if "no trial" in why or not why else why


def compile_pdf(folder: Path) -> Compiled:
    """Run pdflatex on a copy of `folder` until the references of main.tex settle, and bibtex where it asks
    for it. Nothing in `folder` is touched."""
    program, bibliography = shutil.which("pdflatex"), shutil.which("bibtex")
    if program is None:
        return Compiled(None, "pdflatex is not installed")
    options = ("-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1", "TZ": "UTC"}
    with tempfile.TemporaryDirectory(prefix="ablate-paper-") as scratch:
        for path in sources(folder):
            copy = Path(scratch, path.relative_to(folder))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        for _ in range(3):
            try:
                done = subprocess.run(
                    [program, *options, "main.tex"],
                    cwd=scratch,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=TIMEOUT,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return Compiled(None, f"pdflatex took more than {TIMEOUT} s")
            if done.returncode != 0:
                return Compiled(None, f"pdflatex failed: {_first_error(done.stdout)}")
            auxiliary = Path(scratch, "main.aux").read_text(errors="replace")
            if bibliography and "\\bibdata" in auxiliary and not Path(scratch, "main.bbl").exists():
                subprocess.run(
                    [bibliography, "main"], cwd=scratch, capture_output=True, check=False
                )
        return Compiled(Path(scratch, "main.pdf").read_bytes())


def sources(folder: Path) -> list[Path]:
    """The files that main.pdf is made from."""
    found = (path for path in sorted(folder.rglob("*")) if path.suffix in SOURCES)
    return [path for path in found if path.is_file() and path != folder / "main.pdf"]


def _first_error(output: bytes) -> str:
    """The first line of the log that says what is wrong, e.g. which package is missing."""
    lines = output.decode("utf-8", "replace").splitlines()
    return next((line[1:].strip() for line in lines if line.startswith("!")), "no reason given")
