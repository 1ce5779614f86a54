"""Responses by the levels of a factor that is no number, one panel a data set."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ablate import words
from ablate.registry import register
from ablate.report import style, summaries
from ablate.report.figures import base
from ablate.report.results import Results

MOST_PANELS = 15
MOST_LEVELS = 25
MOST_STROKES = 40  # trials of a level that are shown one by one
_ROW = 0.15  # inches of a level


@register("figure", "levels", order=21)
def draw(results: Results) -> base.Drawn | None:
    """Mean over seeds with 95 % t intervals and the seeds behind it; None where a factor is a number (see
    `lines`) or nothing varies.

    Down: the factor that most hypotheses are about; by marker: the next, where it has few levels.
    """
    metric = results.metric
    if metric not in results.rows.columns:
        return None
    view = summaries.view(results.rows, metric, results.study.hypotheses)
    if view is None or view.ordered:
        return None
    response = words.response(metric)
    sizes = {name: len(rows) for name, (_, rows) in view.panels.items()}
    names = sorted(
        sorted(sizes, key=lambda name: -sizes[name])[:MOST_PANELS], key=list(sizes).index
    )
    levels = view.levels(view.across)[:MOST_LEVELS]
    looks = (
        style.looks(view.series, view.levels(view.series)) if view.series else {"": style.plain()}
    )
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    height = max(_ROW * len(levels) * max(1.0, 0.55 * len(looks)), 0.4)
    figure = style.new_figure(rows * (height + 0.5) + 0.1 + 0.2 * (len(looks) > 1))
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    used: list[summaries.Interval] = []
    for place, panel in enumerate(grid.flat):
        if place >= len(names):
            panel.remove()
            continue
        held, trials = view.panels[names[place]]
        for (across, level), cell in view.cells(names[place], metric).items():
            if across not in levels or level not in looks:
                continue
            look, index = looks[level], list(looks).index(level)
            row = levels.index(across) + (index - (len(looks) - 1) / 2) * 0.8 / len(looks)
            values = _values(trials, view, across, level, metric)
            if len(values) <= MOST_STROKES:
                panel.plot(
                    values,
                    np.full(len(values), row),
                    "|",
                    color=look.colour,
                    alpha=0.45,
                    markersize=4,
                    markeredgewidth=0.6,
                    zorder=2,
                )
            panel.plot([cell.low, cell.high], [row] * 2, color=look.colour, zorder=3)
            panel.plot(
                cell.mean, row, marker=look.marker, color=look.colour, markeredgewidth=0, zorder=4
            )
            used.append(cell)
        panel.set_yticks(range(len(levels)), [_short(words.level(view.across, x)) for x in levels])
        panel.set_ylim(len(levels) - 0.4, -0.6)
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="y", color="#e4e4e4", linewidth=0.4)
        panel.locator_params(axis="x", nbins=4)
        base.title(panel, words.data(names[place]), words.held(held))
        if place + columns >= len(names):
            panel.set_xlabel(response.axis())
    if len(looks) > 1:
        base.legend(figure, view.series, looks)
    down = words.factor(view.across).label
    return base.Drawn(
        figure=figure,
        title=f"{words.capital(response.said)} by {down}",
        caption=(
            f"{words.capital(response.said)} by {down} on every data set: mean of {base.seeds(used)} trials with its "
            "95 % Student-t interval (not corrected for multiplicity); the small strokes are the trials. The grey "
            "line says at which levels other factors are held."
            + (f" Markers tell the {words.factor(view.series).label}." if view.series else "")
            + (
                f" Of {len(sizes)} data sets the {len(names)} with most trials are shown."
                if len(names) < len(sizes)
                else ""
            )
        ),
        trials=tuple(dict.fromkeys(trial for cell in used for trial in cell.trials)),
    )


def _values(
    rows: pd.DataFrame, view: summaries.View, across: object, level: object, metric: str
) -> np.ndarray:
    """The trials of one cell."""
    here = rows[rows[view.across] == across]
    if view.series:
        here = here[here[view.series] == level]
    return here[metric].to_numpy(dtype=float)


def _short(level: str) -> str:
    return level if len(level) <= 20 else f"{level[:19]}…"
