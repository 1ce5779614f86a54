"""Scores by the levels of a factor, one panel a data set: for tables without mixers and contexts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from ablate.analyse import intervals
from ablate.analyse import table as frame
from ablate.report import style, summaries
from ablate.report import text as words
from ablate.report.figures import base
from ablate.report.findings import Finding

MOST_PANELS = 15
MOST_SERIES = 6
_ROW = 0.135  # inches of a level


def draw(
    table: pd.DataFrame, findings: Sequence[Finding] = (), metric: str = "score"
) -> base.Drawn | None:
    """Mean over seeds with 95 % t intervals and the seeds behind it; None where nothing varies.

    Down: the factor that most hypotheses are about; by marker: the next, where it has few levels.
    Over any further factor cells count equally.
    """
    done = summaries.finished(table)
    if metric not in done or done[metric].notna().sum() == 0:
        return None
    shown = factors(done, findings)
    if not shown:
        return None
    down, series = shown[0], (shown[1] if len(shown) > 1 else None)
    sizes = done["data"].value_counts()
    order = [name for name in levels_of(done["data"]) if sizes.get(name, 0)]
    names = sorted(order, key=lambda name: -sizes[name])[:MOST_PANELS]
    names = [name for name in order if name in names]
    levels = levels_of(done[down])
    looks = style.series(levels_of(done[series]) if series else [""])
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    height = _ROW * len(levels) * max(1.0, 0.55 * len(looks))
    figure = style.new_figure(rows * (height + 0.42) + 0.1 + 0.2 * (len(looks) > 1))
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    trials: list[str] = []
    counts: set[int] = set()
    for place, panel in enumerate(grid.flat):
        if place >= len(names):
            panel.remove()
            continue
        here = done[done["data"] == names[place]]
        for index, (name, look) in enumerate(looks.items()):
            part = here if series is None else here[here[series].astype(str) == name]
            shift = (index - (len(looks) - 1) / 2) * 0.8 / len(looks)
            for row, level in enumerate(levels):
                group = part[part[down].astype(str) == level]
                found = mean(group, metric)
                if found is None:
                    continue
                trials += found.trials
                counts.add(found.n)
                panel.plot(
                    group[metric],
                    np.full(len(group), row + shift),
                    "|",
                    color=look.colour,
                    alpha=0.45,
                    markersize=3.5,
                    markeredgewidth=0.5,
                    zorder=2,
                )
                panel.plot([found.low, found.high], [row + shift] * 2, color=look.colour, zorder=3)
                panel.plot(
                    found.mean,
                    row + shift,
                    marker=look.marker,
                    color=look.colour,
                    markeredgewidth=0,
                    zorder=4,
                )
        panel.set_yticks(range(len(levels)), [_short(level) for level in levels])
        panel.set_ylim(len(levels) - 0.4, -0.6)
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="y", color="#e4e4e4", linewidth=0.4)
        panel.locator_params(axis="x", nbins=4)
        base.title(panel, names[place])
        if place + columns >= len(names):
            panel.set_xlabel(words.axis(metric))
    if len(looks) > 1:
        handles = [
            Line2D([], [], color=look.colour, marker=look.marker, label=name)
            for name, look in looks.items()
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    further = shown[2:]
    seeds = str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return base.Drawn(
        name="levels",
        figure=figure,
        title=f"{words.metric(metric).capitalize()} by {words.plain(down)}",
        caption=(
            f"{words.metric(metric).capitalize()} by {words.plain(down)} on every data set: mean of "
            f"{seeds} trials with its 95 % Student-t interval (not corrected for multiplicity); the "
            "small strokes are the trials."
            + (f" Markers tell {words.plain(series)}." if series else "")
            + (
                f" Cells of {words.listing(map(words.plain, further))} count equally."
                if further
                else ""
            )
            + (
                f" Of {len(order)} data sets the {len(names)} with most trials are shown."
                if len(names) < len(order)
                else ""
            )
        ),
        trials=tuple(dict.fromkeys(trials)),
        script="ablate/report/figures/levels.py",
    )


def factors(done: pd.DataFrame, findings: Sequence[Finding] = ()) -> list[str]:
    """The factors that vary: the one that most hypotheses name, then one with few levels, then the
    rest."""
    varied = [
        name
        for name in frame.factor_columns(done)
        if name != "data" and done[name].nunique(dropna=False) > 1
    ]

    def named(name: str) -> int:
        return sum(f"{name}[" in finding.contrast for finding in findings)

    ranked = sorted(varied, key=lambda name: (-named(name), -done[name].nunique(), name))
    if len(ranked) > 1:
        few = [name for name in ranked[1:] if done[name].nunique() <= MOST_SERIES]
        if few:
            ranked = [ranked[0], few[0], *(n for n in ranked[1:] if n != few[0])]
        else:
            ranked = ranked[:1]
    return ranked


def mean(group: pd.DataFrame, metric: str) -> summaries.Interval | None:
    """The mean of the group's cells, each counting equally, with its interval."""
    group = group[np.isfinite(group[metric].to_numpy(dtype=float))]
    if group.empty:
        return None
    by = [name for name in frame.factor_columns(group) if group[name].nunique() > 1]
    cells = [g for _, g in group.groupby(by, sort=True, observed=True)] if by else [group]
    trials = tuple(group["trial"])
    arrays = [frame.values(cell, metric) for cell in cells]
    if len(arrays) == 1 or min(map(len, arrays)) < 2:
        found = summaries.mean_interval(np.concatenate(arrays), trials)
        return found
    estimate = intervals.combine([1 / len(arrays)] * len(arrays), arrays)
    return summaries.Interval(
        estimate.value, *intervals.interval(estimate), sum(map(len, arrays)), trials
    )


def levels_of(column: pd.Series) -> list[str]:
    """The levels that occur, as text, in the declared order (or sorted)."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        present = set(column)
        return [str(level) for level in column.cat.categories if level in present]
    return [str(level) for level in sorted(column.unique().tolist())]


def _short(level: str) -> str:
    return level if len(level) <= 20 else f"{level[:19]}…"
