"""Scores by mixer and context, one panel a data set."""

from __future__ import annotations

import pandas as pd

from ablate.report import style, summaries
from ablate.report import text as words
from ablate.report.figures import base


def draw(table: pd.DataFrame, metric: str = "score") -> base.Drawn | None:
    """Mean over seeds with 95 % t intervals at each data set's most complete slice; None without
    cells."""
    done = summaries.finished(table)
    slices = summaries.core(table)
    panels = {}
    for name, levels in slices.items():
        rows = summaries.at(done[done["data"] == name], levels)
        cells = summaries.by_level(rows, ["mixer", "context"], metric)
        if cells:
            panels[name] = (levels, cells)
    if not panels:
        return None
    looks = style.mixers(mixer for _, cells in panels.values() for mixer, _ in cells)
    figure, axes, spare = base.grid(len(panels), 3, 1.55)
    for place, (panel, (name, (levels, cells))) in enumerate(
        zip(axes, panels.items(), strict=True)
    ):
        places = base.context_axis(panel, sorted({context for _, context in cells}))
        base.lines(panel, cells, looks, places)
        if metric == "score":
            base.least_span(panel, 20.0)
        panel.locator_params(axis="y", nbins=5)
        base.title(panel, name, base.describe(levels))
        if place % 3 == 0:
            panel.set_ylabel(words.axis(metric))
        if place + 3 >= len(panels):
            panel.set_xlabel("context K (timesteps)")
    base.mixer_legend(figure, looks, place=spare)
    seeds = sorted({cell.n for _, cells in panels.values() for cell in cells.values()})
    shown = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return base.Drawn(
        name="scores" if metric == "score" else f"scores_{metric}",
        figure=figure,
        title=f"{words.metric(metric).capitalize()} by mixer and context",
        caption=(
            f"{words.metric(metric).capitalize()} by mixer and context for every data set: mean "
            f"over {shown} seeds with 95 % Student-t intervals (not corrected for multiplicity). "
            "The grey line says at which levels the other factors are held; points are shifted "
            "sideways so that none hides another."
        ),
        trials=tuple(
            t for _, cells in panels.values() for cell in cells.values() for t in cell.trials
        ),
        script="ablate/report/figures/scores.py",
    )
