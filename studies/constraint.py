"""What only this study draws: promise and worth of plans by the number of candidates, and where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from ablate import words
from ablate.registry import register
from ablate.report import style, summaries
from ablate.report.figures import base
from ablate.report.results import Results

OPTION = "measure.support."
USUAL = {OPTION + "temperature": 1.0, OPTION + "selection": "step", OPTION + "horizon": 5}
NETS: dict[str, dict[str, Any]] = {
    "joint": {"settings.sharing": "joint", "model.parameters": 24000},
    "separate, same total size": {"settings.sharing": "separate", "model.parameters": 24000},
    "separate, same size each": {"settings.sharing": "separate", "model.parameters": 72000},
    "stopped gradients": {"settings.sharing": "stopped", "model.parameters": 24000},
    "transplanted dynamics": {"settings.sharing": "transplanted", "model.parameters": 48000},
}
PROPOSALS = {"uniform": "uniform proposals", "model": "the model's own proposals"}
LINES = {"uniform": "-", "model": (0, (4, 2))}
ROWS = {
    "support.gap": "promised - brought\n(deviations of the values)",
    "support.percentile_5": "distance to the data\n(percentile among data)",
}


def at(rows: pd.DataFrame, levels: Mapping[str, Any]) -> pd.DataFrame:
    """The rows at these levels of the factors that the table has."""
    return summaries.at(rows, {name: level for name, level in levels.items() if name in rows})


@register("figure", "constraint", order=10)
def constraint(results: Results) -> base.Drawn | None:
    """How much more plans promise than they bring (above), and how far from the data they lie (below), by the number of
    candidates: a column a data set and head, a colour an arm of training, a line a source of proposals. None where
    nothing runs over candidates."""
    rows = at(summaries.finished(results.rows), USUAL)
    series = results.series[results.series["response"].isin(ROWS)].dropna(subset=["value"])
    joined = series.merge(rows, on="trial")
    columns = [
        (name, head)
        for name in results.study.data
        for head in ("categorical", "gaussian")
        if len(at(joined, {"data": name, "head": head}))
    ][:5]
    if not columns:
        return None
    figure = style.new_figure(3.7)
    panels = figure.subplots(len(ROWS), len(columns), squeeze=False, sharex=True, sharey="row")
    looks = {n: look for n, look in style.looks("", list(NETS)).items() if len(at(joined, NETS[n]))}
    trials: set[str] = set()
    for column, (name, head) in enumerate(columns):
        here = at(joined, {"data": name, "head": head})
        for place, response in enumerate(ROWS):
            panel = panels[place][column]
            for label, look in looks.items():
                for proposals in PROPOSALS:
                    mine = at(here, {**NETS[label], OPTION + "proposals": proposals})
                    mine = mine[mine["response"] == response]
                    trials |= set(mine["trial"])
                    _line(panel, mine, look.colour, LINES[proposals])
            panel.set_xscale("log", base=2)
            ticks = sorted(here["index"].unique())
            panel.set_xticks(ticks, [f"{int(tick)}" for tick in ticks])
        panels[0][column].axhline(0.0, color="#808080", linewidth=0.7, zorder=0)
        panels[-1][column].set_ylim(0, 105)
        panels[-1][column].axhline(50.0, color="#808080", linewidth=0.7, zorder=0)
        panels[-1][column].set_xlabel("candidates")
        said = "bins" if head == "categorical" else "Gaussian"
        base.title(panels[0][column], f"{words.data(name)}, {said}")
    for place, label in enumerate(ROWS.values()):
        base.label(panels[place][0], label)
    handles = [
        Line2D([], [], color=look.colour, linewidth=1.0, label=label)
        for label, look in looks.items()
    ]
    handles += [
        Line2D([], [], color="#000000", linestyle=LINES[name], linewidth=1.0, label=label)
        for name, label in PROPOSALS.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return base.Drawn(
        figure=figure,
        title="What plans promise beyond what they bring, and where they lie",
        caption=(
            "By the number of candidates that a search of five timesteps compares. Above: promised value minus what the"
            " plan brings, in standard deviations of the data's values; above the line plans promise too much. Below:"
            " percentile, among held-out points, of the distance of planned states and actions to their fifth nearest"
            " neighbour in the training set; 50 is as near as data are. Solid: actions proposed uniformly; dashed:"
            " by the model itself. Means over seeds with 95 % intervals."
        ),
        trials=tuple(sorted(trials)),
    )


def _line(panel: Any, rows: pd.DataFrame, colour: str, line: Any) -> None:
    """The mean over seeds along the candidates, with its interval where there are several seeds."""
    if rows.empty:
        return
    cells = {
        index: summaries.mean_interval(each.to_numpy(dtype=float))
        for index, each in rows.groupby("index")["value"]
    }
    x = sorted(cells)
    mean = np.array([cells[i].mean for i in x])
    panel.plot(x, mean, color=colour, linestyle=line, linewidth=1.0, marker="o", markersize=2.0)
    if rows["seed"].nunique() > 2:  # of two, an interval hides everything else
        low, high = (np.array([getattr(cells[i], end) for i in x]) for end in ("low", "high"))
        panel.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
