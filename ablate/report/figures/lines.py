"""Responses against a factor that is a number, such as the context, one panel a data set."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.lines import Line2D

from ablate import words
from ablate.registry import register
from ablate.report import style, summaries
from ablate.report.figures import base
from ablate.report.results import Results

MOST_RESPONSES = 3
MOST_PANELS = 12
LEAST = 20.0  # points that a panel spans at least
_YARDSTICK = style.YARDSTICK


@register("figure", "lines", order=20)
def draw(results: Results) -> base.Drawn | None:
    """Means over seeds with 95 % t intervals at each data set's most complete slice: a row a response that
    hypotheses are about, a column a data set; None where no factor is a number."""
    rows = results.rows
    views = {}
    for metric in shown(results):
        view = summaries.view(rows, metric, results.study.hypotheses, ordered=True)
        if view is not None:
            views[metric] = view
    if not views:
        return None
    first = next(iter(views.values()))
    views = {metric: view for metric, view in views.items() if view.across == first.across}
    names = list(dict.fromkeys(name for view in views.values() for name in view.panels))
    wide = len(views) > 1
    names = names[: 4 if wide else MOST_PANELS]
    if wide:
        figure = style.new_figure(0.5 + 1.6 * len(views))
        panels = figure.subplots(len(views), len(names), squeeze=False)
        place = None
        cells = {(m, n): panels[i][j] for i, m in enumerate(views) for j, n in enumerate(names)}
    else:
        figure, flat, place = base.grid(len(names), 3, 1.7, head=0.35)
        cells = {(next(iter(views)), name): panel for name, panel in zip(names, flat, strict=True)}
    levels = list(dict.fromkeys(x for view in views.values() for x in view.levels(view.series)))
    looks = style.looks(first.series, levels) if first.series else {"": style.plain()}
    yardstick = False
    # The exact clone is told the time; a table from elsewhere may not say what its models are told.
    timed = "time" in set(results.rows.get("condition", ()))
    for (metric, name), panel in cells.items():
        response, view = words.response(metric), views[metric]
        if name not in view.panels:
            panel.axis("off")
            continue
        held, _ = view.panels[name]
        means = view.cells(name, metric)
        places = base.ticks(panel, view.across, sorted({across for across, _ in means}))
        base.lines(panel, means, looks, places)
        base.fit(panel, list(means.values()))
        if view.across == "context" and timed and held.get("condition", "time") == "time":
            yardstick |= _yardstick(panel, results.exact(metric), name, places)
        if response.points:
            base.least_span(panel, LEAST)
        base.from_zero(panel, response, list(means.values()))
        panel.locator_params(axis="y", nbins=5)
        top, bottom = metric == next(iter(views)), metric == list(views)[-1]
        if not wide or top:
            base.title(panel, words.data(name), words.held(held))
        index = names.index(name)
        if index % (len(names) if wide else 3) == 0:
            base.label(panel, response.axis())
        if (wide and bottom) or (not wide and index + 3 >= len(names)):
            panel.set_xlabel(axis(view.across))
    extra = [_handle()] if yardstick else []
    base.legend(figure, first.series, looks, extra, place)
    used = [
        cell for m, view in views.items() for n in view.panels for cell in view.cells(n, m).values()
    ]
    said = words.listing(words.response(metric).said for metric in views)
    return base.Drawn(
        figure=figure,
        title=f"{words.capital(said)} by {words.factor(first.across).label}",
        caption=(
            f"{words.capital(said)} by {words.factor(first.across).label}"
            + (f" and {words.factor(first.series).label}" if first.series else "")
            + f": mean over {base.seeds(used)} seeds with 95 % Student-t intervals (bands of few lines, bars of "
            "many; not corrected for multiplicity). The grey line says at which levels the other factors are held."
            + base.CUT
            + (
                " The dotted line is the exact posterior's value given the same window, where it is known."
                if yardstick
                else ""
            )
            + (
                f" Of more data sets the first {len(names)} are shown."
                if len(names) < len(first.panels)
                else ""
            )
        ),
        trials=tuple(dict.fromkeys(trial for cell in used for trial in cell.trials)),
    )


def shown(results: Results) -> list[str]:
    """The responses of the figure: those that hypotheses are about and the table holds."""
    rows = results.rows
    held = [m for m in results.metrics if m in rows.columns and rows[m].notna().any()]
    return held[:MOST_RESPONSES]


def axis(factor: str) -> str:
    """The label of a factor's axis: `context K (timesteps)`."""
    known = words.factor(factor)
    shown = f"{known.label} {known.symbol}".strip()
    return f"{shown} ({known.unit})" if known.unit else shown


def _yardstick(panel: Any, table: pd.DataFrame, name: str, places: dict[Any, int]) -> bool:
    """The exact posterior's value at each context, where it is known."""
    rows = table[(table["data"] == name) & table["context"].isin(list(places))]
    if rows.empty:
        return False
    rows = rows.sort_values("context")
    x: list[float] = [places[level] for level in rows["context"]]
    y = list(rows["value"])
    if len(x) == 1:
        x, y = [x[0] - 0.3, x[0] + 0.3], [y[0]] * 2
    low, high = panel.get_ylim()
    panel.set_ylim(min(low, 0.95 * min(y)), max(high, 1.05 * max(y)))
    panel.plot(x, y, color=_YARDSTICK.colour, linestyle=_YARDSTICK.line, linewidth=1.4, zorder=1)
    return True


def _handle() -> Line2D:
    return Line2D(
        [],
        [],
        color=_YARDSTICK.colour,
        linestyle=_YARDSTICK.line,
        linewidth=1.4,
        label="exact posterior",
    )
