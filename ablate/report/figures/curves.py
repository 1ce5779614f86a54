"""Learning curves, one panel a data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ablate import words
from ablate.registry import register
from ablate.report import style, summaries
from ablate.report.figures import base
from ablate.report.results import Results

MEASURES = {"heldout_loss": "held-out loss", "train_loss": "training loss"}
MOST_PANELS = 12


@register("figure", "learning_curves", order=60)
def draw(results: Results) -> base.Drawn | None:
    """Mean over seeds at the last level of the factor along the axis, a line a level of the other; None when no
    curve was recorded.

    A panel is of one head or layout, as losses of different ones have different units.
    """
    curves = results.curves
    measure = next((m for m in MEASURES if m in curves.columns and curves[m].notna().any()), None)
    if measure is None:
        return None
    table = summaries.finished(results.rows)
    across, series = summaries.axes(table, results.study.hypotheses)
    apart = [name for name in ("head", "layout", "algorithm") if name in (across, series)]
    panels = {}
    for data, levels in summaries.core(table, across, series).items():
        rows = summaries.at(table[table["data"] == data], levels)
        if across and across not in apart and pd.api.types.is_numeric_dtype(rows[across]):
            levels = {across: rows[across].max(), **levels}
            rows = rows[rows[across] == rows[across].max()]
        for at, group in _apart(rows, apart):
            wanted = ["trial", *filter(None, [series])]
            joined = curves[["trial", "update", measure]].merge(group[wanted], on="trial")
            joined = joined[np.isfinite(joined[measure].to_numpy(dtype=float))]
            if joined["update"].nunique() > 1:
                panels[data, str(at)] = ({**at, **levels}, joined)
    if not panels:
        return None
    names = list(panels)[:MOST_PANELS]
    every = pd.concat([panels[name][1] for name in names])
    shown = words.levels(series, every[series].unique()) if series else [""]
    looks = style.looks(series, shown) if series else {"": style.plain()}
    figure, axes, spare = base.grid(len(names), 3, 1.65)
    trials: list[str] = []
    for place, (panel, name) in enumerate(zip(axes, names, strict=True)):
        held, joined = panels[name]
        for level, look in looks.items():
            rows = joined[joined[series] == level] if series else joined
            group = rows.groupby("update", sort=True)[measure]
            if len(group) == 0:
                continue
            mean = group.mean()
            if len(looks) <= 3:
                panel.fill_between(
                    mean.index, group.min(), group.max(), color=look.colour, alpha=0.15, linewidth=0
                )
            panel.plot(
                mean.index,
                mean,
                color=look.colour,
                linestyle=look.line,
                marker=look.marker,
                markevery=max(1, len(mean) // 4),
                markeredgewidth=0,
            )
            trials += sorted(rows["trial"].unique())
        base.title(panel, words.data(name[0]), words.held(held))
        if place % 3 == 0:
            panel.set_ylabel(MEASURES[measure])
        if place + 3 >= len(names):
            panel.set_xlabel("updates")
    base.legend(figure, series, looks, place=spare)
    banded = "; the band spans the lowest and highest seed" if len(looks) <= 3 else ""
    return base.Drawn(
        figure=figure,
        title="Learning curves",
        caption=(
            f"Learning curves: {MEASURES[measure]} by updates, mean over seeds{banded}. The grey line says at which "
            "levels the factors are held. Losses of different heads have different units, so compare within a panel."
        ),
        trials=tuple(dict.fromkeys(trials)),
        appended=True,
    )


def _apart(rows: pd.DataFrame, factors: Sequence[str]) -> list[tuple[dict, pd.DataFrame]]:
    """The rows by the levels of the factors that set the unit of a loss."""
    if not factors:
        return [({}, rows)]
    grouped = rows.groupby(list(factors), sort=True, observed=True)
    return [
        (dict(zip(factors, key if isinstance(key, tuple) else (key,), strict=True)), group)
        for key, group in grouped
    ]
