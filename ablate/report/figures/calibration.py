"""Achieved against target return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from ablate import words
from ablate.analyse.intervals import combine, interval
from ablate.analyse.targets import TargetCurve, overall, target_curves
from ablate.registry import register
from ablate.report import style, summaries
from ablate.report.figures import base
from ablate.report.results import Results

TARGET, ACHIEVED = "measure.rollout.target", "rollout.return_mean"


@register("figure", "calibration", order=50)
def draw(results: Results) -> base.Drawn | None:
    """One panel a data set with a line a variant; the slopes stand in the legend. None unless the study varies the
    return that is asked for, as a number, in some cell."""
    table = summaries.finished(results.rows)
    numbers = {TARGET, ACHIEVED} <= set(table.columns) and pd.api.types.is_numeric_dtype(
        table[TARGET]
    )
    if not numbers or table[TARGET].nunique() < 2:
        return None
    # What acts without being told a return has one level of it, which was never asked.
    cell = ["data", *summaries.sliced(table, TARGET)]
    table = table[table.groupby(cell, dropna=False)[TARGET].transform("nunique") > 1]
    if table.empty:
        return None
    names = [name for name in summaries.varied(table, results.study.hypotheses) if name != TARGET]
    by = next((n for n in names if table[n].nunique() <= summaries.MOST_SERIES), "")
    slices = summaries.core(table, TARGET, by)
    rows = pd.concat(
        [summaries.at(table[table["data"] == name], held) for name, held in slices.items()]
    )
    rows = rows[rows[ACHIEVED].notna()].assign(
        target=rows[TARGET].astype(float), achieved=rows[ACHIEVED]
    )
    ends = rows.groupby("data", observed=True)["target"].agg(["min", "max"])
    rows = rows.assign(low=rows["data"].map(ends["min"]), high=rows["data"].map(ends["max"]))
    rows = rows if by else rows.assign(all="")
    return calibration(target_curves(rows, [by or "all"]), by, tuple(rows["trial"].tolist()))


def calibration(
    found: Mapping[str, Sequence[TargetCurve]], by: str, trials: Sequence[str] = ()
) -> base.Drawn | None:
    """The figure of these target_curves, whose variants are levels of the factor `by`."""
    names = sorted({one.data for variant in found.values() for one in variant})
    if not names:
        return None
    looks = style.looks(by, words.levels(by, found)) if by else dict.fromkeys(found, style.plain())
    unit = words.response(ACHIEVED).unit
    figure, panels, place = base.grid(len(names), 3, 1.75, head=0.45)
    for panel, name in zip(panels, names, strict=True):
        ends: list[float] = []
        for variant, look in looks.items():
            for one in found[variant]:
                if one.data != name:
                    continue
                mean = one.achieved.mean(axis=0)
                reach = np.array([_reach(one.achieved[:, t]) for t in range(len(one.targets))])
                panel.errorbar(
                    one.targets,
                    mean,
                    yerr=reach,
                    color=look.colour,
                    marker=look.marker,
                    linestyle=look.line,
                    elinewidth=0.7,
                    markeredgewidth=0,
                )
                ends += [float(one.targets.min()), float(one.targets.max())]
        panel.plot(
            [min(ends), max(ends)], [min(ends), max(ends)], color="#000000", linewidth=0.6, zorder=1
        )
        base.title(panel, words.data(name))
    panels[0].set_ylabel(f"achieved ({unit})")
    for panel in panels:
        panel.set_xlabel(f"target ({unit})")
    handles = [
        Line2D(
            [],
            [],
            color=look.colour,
            marker=look.marker,
            linestyle=look.line,
            label=f"{_level(by, variant)}slope {_slope(found[variant])}",
        )
        for variant, look in looks.items()
    ]
    if place is not None:
        place.legend(handles=handles, loc="center", borderpad=0)
    else:
        long = max(len(str(each.get_label())) for each in handles) > 40  # letters of half a width
        figure.legend(handles=handles, loc="outside upper center", ncols=1 if long else 2)
    missed = _errors(found, by)
    return base.Drawn(
        figure=figure,
        title="Achieved against target return",
        caption=(
            "Achieved against target return, mean over seeds with 95 % intervals; the line is exact "
            "obedience. Slopes are fitted for each seed, with 95 % intervals over seeds. Mean absolute error: "
            f"{missed}."
        ),
        trials=tuple(trials),
    )


def _reach(values: np.ndarray) -> float:
    if len(values) < 2:
        return 0.0
    low, high = interval(combine([1.0], [values]))
    return (high - low) / 2


def _slope(found: Sequence[TargetCurve]) -> str:
    estimate = overall(found, "slope")
    if estimate is None:
        return "unknown"
    low, high = interval(estimate)
    return f"{words.number(estimate.value, 2)} [{words.interval(low, high, 2)}]"


def _level(by: str, variant: str) -> str:
    return f"{words.level(by, variant)}: " if by else ""


def _errors(found: Mapping[str, Sequence[TargetCurve]], by: str) -> str:
    said = []
    for variant, ones in found.items():
        estimate = overall(ones, "error_inside")
        if estimate is not None:
            said.append(f"{_level(by, variant)}{words.response(ACHIEVED).amount(estimate.value)}")
    return words.listing(said)
