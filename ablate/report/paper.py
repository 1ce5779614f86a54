"""`main.tex`, written whole from the story, and its compilation where LaTeX is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ablate import words
from ablate.analyse.verdict import EQUIVALENT
from ablate.report import macros, style, tex
from ablate.report.figures.base import Drawn
from ablate.report.findings import Finding
from ablate.report.story import Story
from ablate.report.tables import Table

SCRIPT = "ablate/report/paper.py"
TIMEOUT = 120  # seconds for one pass
_NOT_OURS = ("d4rl", "minari", "file")  # families that this project doesn't generate


@dataclass(frozen=True)
class Compiled:
    """The PDF, or in one line why there is none."""

    pdf: bytes | None
    problem: str = ""


def source(
    story: Story,
    figures: Sequence[Drawn],
    tables: Sequence[Table],
    venue: str = style.DEFAULT,
) -> str:
    """The LaTeX of the paper, as wide as the venue's text. Every number comes from `macros.tex`, a
    table or the study file."""
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
    named = macros.names(story)
    has_primary = any(finding.primary for finding in story.tested)
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
            "result_macro": named.get((finding.id, "Result"), ""),
            "reason": tex.latex(_reason(finding)),
            "main": finding.primary or not has_primary,
            "sentence_macro": named[finding.id, "Sentence"],
        }
        for finding in story.findings
    ]
    shown = {
        table.name: {
            "name": table.name,
            "caption": tex.latex(table.caption),
            "main": not table.appended,
            "small": table.small,
        }
        for table in tables
    }
    own = [d.name for d in story.data if d.name.split("/")[0].split("@")[0] not in _NOT_OURS]
    pairs = ("factors", "settings")
    escaped = {
        name: [(tex.latex(a), tex.latex(b)) for a, b in getattr(story, name)] for name in pairs
    }
    return environment.get_template("main.tex.j2").render(
        question=tex.latex(story.question),
        reduced=story.reduced,
        confirmatory=story.confirmatory,
        designs=[
            (tex.latex(n), tex.latex(why.rstrip(".")), named["design", n])
            for n, why, _ in story.designs
        ],
        sequential=tex.latex(story.sequential),
        further=[(tex.latex(h), named["further", h]) for h, _ in story.further],
        width=f"{style.sizes(venue)[0]:g}",
        reading=[tex.latex(line) for line in story.reading],
        aliasing=[tex.latex(line) for line in story.aliasing],
        pairing=[tex.latex(line) for line in story.pairing],
        data=[
            {
                "name": tex.latex(d.name),
                "shown": tex.latex(words.data(d.name)),
                "content_hash": tex.latex(d.content_hash),
                "trials_macro": named["data", d.name],
            }
            for d in story.data
        ],
        findings=findings,
        untested=[finding for finding in findings if not finding["tested"]],
        absent=[finding for finding in findings if finding["tested"] and finding["absent"]],
        inconclusive=[finding for finding in findings if finding["verdict"] == "inconclusive"],
        incomplete=tex.latex(story.incomplete),
        verdict_table=shown.get("verdicts"),
        tables=[entry for name, entry in shown.items() if name != "verdicts"],
        has_matching="matching" in shown,
        presets="preset" in dict(story.factors),
        notes=[tex.latex(note) for note in story.study_notes],
        own_data=tex.latex(words.listing(own)),
        has_others=has_primary and not all(finding.primary for finding in story.tested),
        foreign=story.foreign,
        figures=[
            {
                "name": drawn.name,
                "caption": tex.latex(drawn.caption),
                "main": not drawn.appended,
            }
            for drawn in figures
        ],
        **escaped,
    )


def _reason(finding: Finding) -> str:
    """Why a hypothesis was not tested."""
    why = finding.notes[0] if finding.notes else ""
    return "no cell of this profile is about it" if "no trial" in why or not why else why


def compile_pdf(files: Mapping[str, bytes]) -> Compiled:
    """Run pdflatex on `main.tex` of `files` (path below paper/ -> content) until references
    settle."""
    program = shutil.which("pdflatex")
    if program is None:
        return Compiled(None, "pdflatex is not installed")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1", "TZ": "UTC"}
    command = [
        program,
        "-interaction=nonstopmode",
        "-halt-on-error",
        "-no-shell-escape",
        "main.tex",
    ]
    with tempfile.TemporaryDirectory(prefix="ablate-paper-") as scratch:
        for name, content in files.items():
            path = Path(scratch, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for _ in range(2):
            try:
                done = subprocess.run(
                    command,
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
        return Compiled(Path(scratch, "main.pdf").read_bytes())


def _first_error(output: bytes) -> str:
    """The first line of the log that says what is wrong, e.g. which package is missing."""
    lines = output.decode("utf-8", "replace").splitlines()
    return next((line[1:].strip() for line in lines if line.startswith("!")), "no reason given")
