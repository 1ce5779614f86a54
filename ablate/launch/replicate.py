"""`run --replications N`: the study again under other streams, to see whether its intervals cover what they claim."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.console import Console

from ablate.analyse.replication import COLUMNS
from ablate.analyse.verdict import judge
from ablate.launch.run import Options, Summary, run
from ablate.study import expand
from ablate.study.schema import Study
from ablate.track.book import tuned
from ablate.track.folder import folder_of
from ablate.track.table import read_table, write_table


def replicate(
    study: Study,
    options: Options,
    console: Console,
    asked: Mapping[str, Any] | None = None,
    *,
    times: int,
) -> Summary:
    """Run the study `times` times under streams of its own, each in a folder beside its results.

    What every hypothesis came to in each replication is kept in replications.csv of the study itself. Returns
    how many trials of all replications have which status; raises as `run` does.
    """
    total = Summary(0, 0, 0, 0)
    rows: list[dict[str, Any]] = []
    for number in range(1, times + 1):
        at = study.model_copy(update={"streams": f"{study.study}-{number}"})
        found = run(
            at, options, console, None if asked is None else {**asked, "streams": at.streams}
        )
        total = total.with_those_of(found)
        if not found.missing:
            rows += judged(at, options)
    if rows:
        write_table(
            pd.DataFrame(rows, columns=COLUMNS), folder_of(options.results, study).replications
        )
    return total


def judged(study: Study, options: Options) -> list[dict[str, Any]]:
    """What each hypothesis and each part of it came to under the study's streams: columns as in `COLUMNS`."""
    folder = folder_of(options.results, study)
    hashes = folder.read()["data"]
    wanted = {one.id for one in expand.trials(tuned(study, folder, hashes), hashes)}
    table = read_table(folder.table)
    verdicts = judge(
        table[table["trial"].isin(wanted)].reset_index(drop=True),
        study.hypotheses,
        study.levels,
        alpha=study.alpha,
        margin=study.margin,
        registered={h.id: False for h in study.hypotheses},
    )
    return [
        {
            "streams": study.streams,
            "hypothesis": one.hypothesis,
            "part": part.label if len(one.details) > 1 else "",
            "estimate": part.estimate,
            "low": part.low,
            "high": part.high,
            "confidence": one.confidence,
            "verdict": one.verdict,
        }
        for one in verdicts
        for part in one.details
    ]
