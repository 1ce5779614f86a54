"""From the results to the bytes of every file, without touching the disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ablate.report import figures, macros, page, paper, provenance, style, tables
from ablate.report.material import Results
from ablate.report.story import Story


@dataclass(frozen=True)
class Rendered:
    """files: path below `paper/` -> content, without main.pdf and the manifest; page:
    report.html."""

    files: dict[str, bytes]
    page: bytes
    story: Story
    inputs: dict[str, str]
    venue: str


def render(results: Results, venue: str = style.DEFAULT) -> Rendered:
    """Everything that the report writes for the study at its profile.

    Raises UserError when nothing of this profile has finished.
    """
    story, mine = results.story, results.rows
    drawn = figures.draw(results, venue)
    grids = tables.grids(results)
    made = tables.make(results, grids)
    lines = macros.make(story)
    hashes = provenance.row_hashes(mine)
    curves = results.curves
    inputs = {
        "table": provenance.frame_hash(mine),
        "curves": provenance.frame_hash(curves[curves["trial"].isin(hashes)]),
        "audit": provenance.sha(json.dumps(list(results.audit), sort_keys=True).encode()),
        **{
            name: provenance.frame_hash(frame) if len(frame) else ""
            for name, frame in (
                ("yardsticks", results.yardsticks),
                ("reference", results.reference),
                ("series", results.series),
                ("tuning", results.tuning),
            )
        },
    }

    def sidecar(script: str, trials: Sequence[str], **further: Any) -> bytes:
        return provenance.sidecar(
            story.study_hash, story.profile, script, trials, hashes, study=story.study, **further
        )

    files: dict[str, bytes] = {}
    for figure, kinds in drawn:
        stem = f"figures/{figure.name}"
        files[f"{stem}.pdf"], files[f"{stem}.png"] = kinds["pdf"], kinds["png"]
        also = {**figure.also, "caption": figure.caption}
        files[f"{stem}.json"] = sidecar(figure.script, figure.trials, **also)
    for one in made:
        stem = f"tables/{one.name}"
        files[f"{stem}.tex"] = one.body.encode()
        files[f"{stem}.json"] = sidecar(tables.SCRIPT, one.trials, caption=one.caption)
    files["macros.tex"] = macros.render(lines).encode()
    files["macros.json"] = sidecar(
        macros.SCRIPT,
        list(hashes),
        macros=lines,
        hypotheses={finding.id: sorted(finding.trials) for finding in story.findings},
        behind=macros.behind(story),
    )
    files["main.tex"] = paper.source(story, [figure for figure, _ in drawn], made, venue).encode()
    files["main.json"] = sidecar(paper.SCRIPT, list(hashes))
    return Rendered(
        files, page.render(story, mine, drawn, results.audit, grids), story, inputs, venue
    )
