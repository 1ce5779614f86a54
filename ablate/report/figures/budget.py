"""Responses against what was spent: updates of training, and draws of tuning."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes

from ablate import words
from ablate.registry import register
from ablate.report import style, summaries
from ablate.report.figures import base
from ablate.report.results import Results

MOST_PANELS = 12
_ROOM = 0.2  # of the axis, from one number at it to the next


@register("figure", "budget", order=30)
def draw(results: Results) -> base.Drawn | None:
    """The first response at every budget, a line a level of the factor that most hypotheses compare; a panel
    a data set. None where trials were measured at one budget only."""
    rows, metric = summaries.finished(results.budgets), results.metric
    if "budget" not in rows.columns or metric not in rows.columns:
        return None
    rows = rows[rows[metric].notna()]
    if rows["budget"].nunique() < 2:
        return None
    few = [
        name
        for name in summaries.varied(rows, results.study.hypotheses)
        if rows[name].nunique() <= summaries.MOST_SERIES
    ]
    series = few[0] if few else ""
    response = words.response(metric)
    panels = {}
    for name, levels in summaries.core(rows, "budget", series).items():
        here = summaries.at(rows[rows["data"] == name], levels)
        keys = ["budget", *filter(None, [series])]
        cells = summaries.by_level(here, keys, metric)
        panels[name] = (levels, {(key[0], key[1] if series else ""): c for key, c in cells.items()})
    names = list(panels)[:MOST_PANELS]
    every = {key[1] for name in names for key in panels[name][1]}
    looks = style.looks(series, words.levels(series, every)) if series else {"": style.plain()}
    figure, axes, spare = base.grid(len(names), 3, 1.7)
    for place, (panel, name) in enumerate(zip(axes, names, strict=True)):
        held, cells = panels[name]
        budgets = sorted({budget for budget, _ in cells})
        base.lines(panel, cells, looks, {budget: float(budget) for budget in budgets})
        base.fit(panel, list(cells.values()))
        _logarithmic(panel, budgets)
        base.title(panel, words.data(name), words.held(held))
        if place % 3 == 0:
            base.label(panel, response.axis())
        if place + 3 >= len(names):
            panel.set_xlabel("updates of training")
    base.legend(figure, series, looks, place=spare)
    used = [cell for name in names for cell in panels[name][1].values()]
    return base.Drawn(
        figure=figure,
        title=f"{words.capital(response.said)} against budget",
        caption=(
            f"{words.capital(response.said)} against the budget of training: the same fits, measured at each of their "
            f"checkpoints; mean over {base.seeds(used)} seeds with 95 % Student-t intervals (not corrected for "
            "multiplicity). The grey line says at which levels the other factors are held."
        ),
        trials=tuple(dict.fromkeys(trial for cell in used for trial in cell.trials)),
    )


@register("figure", "tuning", order=31)
def tuning(results: Results) -> base.Drawn | None:
    """The best judged value after 1, 2, 4, … draws of settings, a line an arm; None without tuning.

    The frame gives one value a draw, the best so far, in as many rows as it was judged with seeds.
    """
    table = results.tuning
    if table.empty:
        return None
    table = table.assign(arm=[words.claim(str(arm)) for arm in table["arm"]])
    looks = style.looks("arm", table["arm"])
    figure = style.new_figure(2.6)
    panel = figure.subplots()
    cells = {}
    for (arm, draws), group in table.groupby(["arm", "draws"], sort=True):
        values = group["value"].to_numpy(dtype=float)
        cells[int(draws), str(arm)] = summaries.mean_interval(values)  # type: ignore[call-overload]
    base.lines(panel, cells, looks, {draws: float(draws) for draws, _ in cells})
    _logarithmic(panel, sorted({draws for draws, _ in cells}))
    judged = getattr(results.study, "tune", None)
    judge = str(getattr(judged, "judge", "") or "")
    response = words.response(judge)
    panel.set_ylabel(response.axis("best") if judge else "best judged value")
    panel.set_xlabel("draws of settings")
    base.legend(figure, "arm", looks)
    return base.Drawn(
        figure=figure,
        title="What tuning brings",
        caption=(
            f"What tuning brings: the best {response.said if judge else 'judged value'} found after so many draws from "
            "the same space of settings, an arm a line, judged on a split and on seeds that nothing else uses"
            + (
                "; bands and bars are 95 % intervals over what was judged."
                if _repeated(cells)
                else "."
            )
        ),
        trials=(),
        appended=True,
    )


def _repeated(cells: dict) -> bool:
    return any(cell.n > 1 for cell in cells.values())


def _logarithmic(panel: Axes, values: list[int]) -> None:
    """Numbers of updates or draws on a logarithmic axis with those values as its ticks, the last one and those that
    leave it room with a number."""
    places = np.array(values, dtype=float)
    if places.max() / places.min() > 4:
        panel.set_xscale("log")
        places = np.log(places)
    labels, last = [""] * len(values), math.inf
    for i in reversed(range(len(values))):
        if last - places[i] >= _ROOM * np.ptp(places):
            labels[i], last = f"{values[i]:,}", places[i]
    panel.set_xticks(values, labels)
    panel.minorticks_off()
