"""Held-out action error by context, with the exact Bayes posterior as the yardstick where it is
known."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.lines import Line2D

from ablate.report import style, summaries
from ablate.report import text as words
from ablate.report.figures import base

METRICS = ("action_error", "action_error_early")


def draw(table: pd.DataFrame, yardsticks: pd.DataFrame | None = None) -> base.Drawn | None:
    """Rows: whole episode, early steps; columns: the data sets with a yardstick (else all with an
    error)."""
    metrics = [m for m in METRICS if m in table.columns and table[m].notna().any()]
    if not metrics:
        return None
    done = summaries.finished(table)
    known = yardsticks if yardsticks is not None and len(yardsticks) else None
    panels: dict[str, tuple[dict[str, object], dict[str, dict]]] = {}
    for name, levels in summaries.core(table).items():
        if known is not None and name not in set(known["data"]):
            continue
        rows = summaries.at(done[done["data"] == name], levels)
        cells = {m: summaries.by_level(rows, ["mixer", "context"], m) for m in metrics}
        if cells[metrics[0]]:
            panels[name] = (levels, cells)
    if not panels:
        return None
    if len(panels) > 4:  # one page's width; the data sets with most cells first
        largest = sorted(panels, key=lambda n: (-len(panels[n][1][metrics[0]]), n))[:4]
        panels = {name: panels[name] for name in sorted(largest)}
    looks = style.mixers(m for _, cells in panels.values() for m, _ in cells[metrics[0]])
    figure = style.new_figure(0.4 + 1.55 * len(metrics))
    grid = figure.subplots(len(metrics), len(panels), squeeze=False)
    drawn_yardstick = False
    for column, (name, (levels, cells)) in enumerate(panels.items()):
        for row, metric in enumerate(metrics):
            panel = grid[row][column]
            contexts = sorted({context for _, context in cells[metrics[0]]})
            places = base.context_axis(panel, contexts)
            base.lines(panel, cells[metric], looks, places)
            if known is not None and metric in known.columns:
                drawn_yardstick |= _yardstick(panel, known[known["data"] == name], metric, places)
            panel.set_ylim(bottom=0)
            if row == 0:
                base.title(panel, name, base.describe(levels))
            if row == len(metrics) - 1:
                panel.set_xlabel("context K (timesteps)")
            if column == 0:
                panel.set_ylabel(words.metric(metric) + "\n(fraction of variance)")
    extra = [_exact_handle()] if drawn_yardstick else []
    base.mixer_legend(figure, looks, extra)
    return base.Drawn(
        name="action_error",
        figure=figure,
        title="Held-out action error by context",
        caption=(
            "Held-out squared error to the acting controller's noise-free action, as a fraction of "
            "that action's variance (0 is perfect; 1 is no better than the mean action), over whole "
            "episodes"
            + (" and over their first steps, by the same variance" if len(metrics) > 1 else "")
            + ": mean over seeds "
            "with 95 % Student-t intervals. Unlike the score it has no ceiling."
            + (
                " The dotted line is the error of the exact Bayes posterior over controllers "
                "given the same window, over all held-out timesteps (the models' are over a fixed "
                "sample of these); but for the luck of the sample no model of that window can beat "
                "it."
                if drawn_yardstick
                else ""
            )
        ),
        trials=tuple(
            t
            for _, cells in panels.values()
            for metric in metrics
            for cell in cells[metric].values()
            for t in cell.trials
        ),
        script="ablate/report/figures/errors.py",
    )


def _yardstick(panel: Any, rows: pd.DataFrame, metric: str, places: dict[int, int]) -> bool:
    rows = rows[rows["context"].isin(list(places)) & rows[metric].notna()].sort_values("context")
    if rows.empty:
        return False
    look = style.YARDSTICK
    x: list[float] = [places[context] for context in rows["context"]]
    if len(x) == 1:
        x, y = [x[0] - 0.3, x[0] + 0.3], [rows[metric].iloc[0]] * 2
    else:
        y = list(rows[metric])
    panel.plot(x, y, color=look.colour, linestyle=look.line, linewidth=1.4, zorder=1)
    return True


def _exact_handle() -> Line2D:
    look = style.YARDSTICK
    return Line2D(
        [], [], color=look.colour, linestyle=look.line, linewidth=1.4, label="exact posterior"
    )
