"""From the inputs to the bytes of every file, without touching the disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ablate.analyse.analysis import analyse
from ablate.report import context, macros, page, paper, provenance, style, subject, tables
from ablate.report.figures import every
from ablate.report.story import Story, gather
from ablate.study.foreign import ForeignStudy
from ablate.study.schema import Study


@dataclass(frozen=True)
class Rendered:
    """files: path below `paper/` -> content, without main.pdf and the manifest; page:
    report.html."""

    files: dict[str, bytes]
    page: bytes
    story: Story
    inputs: dict[str, str]
    venue: str


def render(
    study: Study | ForeignStudy,
    table: pd.DataFrame,
    curves: pd.DataFrame | None,
    audit: Sequence[dict[str, Any]],
    registration: Mapping[str, Any],
    yardsticks: pd.DataFrame | None = None,
    reference: pd.DataFrame | None = None,
    reading: Sequence[str] = (),
    venue: str = style.DEFAULT,
) -> Rendered:
    """Everything that the report writes for the study at its profile.

    table: one row a trial; curves: trial, update, metrics; registration: content of study.json,
    empty for a table that `ablate` did not write; reading: how such a table was read; yardsticks:
    data, context, and the metrics of the
    exact posterior; reference: an earlier measurement, see `ablate.report.context`. Raises
    UserError when nothing of this profile has finished.
    """
    about = subject.of(study, table, registration, reading)
    mine = about.table
    analysis = analyse(
        mine,
        study.hypotheses,
        study.levels,
        alpha=study.alpha,
        margin=study.margin,
        registered=about.confirmatory,
    )
    story = gather(about, analysis)
    curve_rows = pd.DataFrame(columns=["trial", "update"]) if curves is None else curves
    factorial = {"mixer", "context"} <= set(mine.columns)
    earlier = reference if factorial and reference is not None else pd.DataFrame()
    compared = context.compare(mine, earlier, study.margin, study.alpha) if len(earlier) else []
    drawn = every.draw(
        mine, story.findings, curve_rows, audit, yardsticks, study.margin, compared, venue
    )
    shown = [
        context.comparison(compared, study.margin),
        context.effects(mine) if factorial else None,
    ]
    grids = [grid for grid in shown if grid is not None]
    made = tables.make(story, mine, grids)
    lines = macros.make(story)
    results = provenance.row_hashes(mine)
    inputs = {
        "table": provenance.frame_hash(mine),
        "curves": provenance.frame_hash(curve_rows[curve_rows["trial"].isin(results)]),
        "audit": provenance.sha(json.dumps(list(audit), sort_keys=True).encode()),
        "yardsticks": provenance.frame_hash(yardsticks) if yardsticks is not None else "",
        "reference": provenance.frame_hash(reference) if reference is not None else "",
    }

    def sidecar(script: str, trials: Sequence[str], **further: Any) -> bytes:
        return provenance.sidecar(
            story.study_hash, story.profile, script, trials, results, study=story.study, **further
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
        list(results),
        macros=lines,
        hypotheses={finding.id: sorted(finding.trials) for finding in story.findings},
        behind=macros.behind(story),
    )
    figures = [figure for figure, _ in drawn]
    files["main.tex"] = paper.source(story, figures, made, venue).encode()
    files["main.json"] = sidecar(paper.SCRIPT, list(results))
    return Rendered(files, page.render(story, mine, drawn, audit, grids), story, inputs, venue)
