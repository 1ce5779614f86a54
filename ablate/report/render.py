"""From a study's results to the bytes of everything that the report writes of it, without touching
the disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ablate.report import figures, macros, page, paper, provenance, tables
from ablate.report.results import Results
from ablate.report.shared import Part


@dataclass(frozen=True)
class Rendered:
    """part: of the paper; files: path below the paper's folder -> content, the study's own figures and
    tables; page: report.html."""

    results: Results
    part: Part
    files: dict[str, bytes]
    page: bytes


def render(results: Results, venue: str) -> Rendered:
    """Everything that the report writes of a study at its profile, with figures of a venue's sizes.

    Raises UserError when nothing of this profile has finished.
    """
    story, rows = results.story, results.rows
    drawn = figures.draw(results, venue)
    grids = tables.grids(results)
    made = tables.make(results, grids)
    files: dict[str, bytes] = {}
    shown: dict[str, dict[str, Any]] = {}
    for figure, kinds in drawn:
        stem = f"figures/{story.study}/{figure.name}"
        files[f"{stem}.pdf"], files[f"{stem}.png"] = kinds["pdf"], kinds["png"]
        shown[stem] = {
            **figure.also,
            "caption": figure.caption,
            "script": figure.script,
            "trials": figure.trials,
        }
    for table in made:
        stem = f"tables/{story.study}/{table.name}"
        files[f"{stem}.tex"] = table.body.encode()
        shown[stem] = {"caption": table.caption, "script": tables.SCRIPT, "trials": table.trials}
    trials = {finding.id: finding.trials for finding in story.findings}
    behind = macros.behind(story)
    everything: Iterable[str] = tuple(rows["trial"].astype(str).tolist())
    numbers = {
        name: (value, trials[behind[name]] if name in behind else everything)
        for name, value in macros.make(story).items()
    }
    chapter = paper.chapter(story, [figure for figure, _ in drawn], made)
    seen = page.render(results, drawn, grids)
    entry = provenance.entry(results, venue, files, shown, numbers)
    entry |= {"chapter": provenance.sha(chapter.encode()), "page": provenance.sha(seen)}
    return Rendered(results, Part(entry, chapter), files, seen)
