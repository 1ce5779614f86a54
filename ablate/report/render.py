"""From the inputs to the bytes of every file, without touching the disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ablate.analyse import looks
from ablate.analyse.analysis import Analysis, analyse
from ablate.analyse.further import further
from ablate.analyse.looks import Record
from ablate.analyse.wording import answer, sentence
from ablate.report import (
    context,
    macros,
    page,
    paper,
    provenance,
    style,
    subject,
    summaries,
    tables,
)
from ablate.report import further as further_tables
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
    record: Record | None = None,
) -> Rendered:
    """Everything that the report writes for the study at its profile.

    table: one row a trial; curves: trial, update, metrics; registration: content of study.json,
    empty for a table that `ablate` did not write; reading: how such a table was read; yardsticks:
    data, context, and the metrics of the exact posterior; reference: an earlier measurement, see
    `ablate.report.context`; record: the looks of a study that is run sequentially. Raises UserError
    when nothing of this profile has finished.
    """
    about = subject.of(study, table, registration, reading)
    record = looks.of(
        record, about.hypotheses_hash
    )  # a record of other hypotheses says nothing here
    mine = about.table
    curve_rows = pd.DataFrame(columns=["trial", "update"]) if curves is None else curves
    alpha = study.alpha if record is None else record.level
    analysis = analyse(
        mine,
        study.hypotheses,
        study.levels,
        alpha=alpha,
        margin=study.margin,
        registered=about.confirmatory,
    )
    if record is not None:
        analysis = _held(analysis, record)
    beyond = further(
        mine,
        study.hypotheses,
        study.levels,
        curve_rows,
        alpha=alpha,
        margin=study.margin,
        registered={h.id: about.confirmatory for h in study.hypotheses},
        crossing=summaries.crossing(mine),
    )
    story = gather(about, analysis, beyond, "" if record is None else record.line)
    factorial = {"mixer", "context"} <= set(mine.columns)
    earlier = reference if factorial and reference is not None else pd.DataFrame()
    compared = context.compare(mine, earlier, study.margin, study.alpha) if len(earlier) else []
    drawn = every.draw(
        mine, story.findings, curve_rows, audit, yardsticks, study.margin, compared, venue, beyond
    )
    shown = [
        context.comparison(compared, study.margin),
        context.effects(mine) if factorial else None,
        *further_tables.grids(beyond),
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


def _held(analysis: Analysis, record: Record) -> Analysis:
    """The analysis with what earlier looks decided put back."""
    held = looks.held(analysis.verdicts, record)
    told = tuple(replace(verdict, sentence=sentence(verdict)) for verdict in held)
    return replace(analysis, verdicts=told, answer=answer(told))
