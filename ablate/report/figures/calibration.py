"""Achieved against target return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.lines import Line2D

from ablate.analyse.calibration import Calibration, overall
from ablate.analyse.intervals import combine, interval
from ablate.report import style
from ablate.report import text as words
from ablate.report.figures import base


def draw(
    found: Mapping[str, Sequence[Calibration]], trials: Sequence[str] = ()
) -> base.Drawn | None:
    """One panel a data set with a line a variant; the slopes within range stand in the legend."""
    names = sorted({one.data for variant in found.values() for one in variant})
    if not names:
        return None
    known = style.mixers(found)
    looks = known if set(known) == set(found) and len(known) <= 10 else style.series(found)
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
                panel.axvspan(one.low, one.high, color="#000000", alpha=0.05, linewidth=0, zorder=0)
                ends += [float(one.targets.min()), float(one.targets.max())]
        panel.plot(
            [min(ends), max(ends)], [min(ends), max(ends)], color="#000000", linewidth=0.6, zorder=1
        )
        base.title(panel, name)
    panels[0].set_ylabel("achieved (points)")
    for panel in panels:
        panel.set_xlabel("target (points)")
    handles = [
        Line2D(
            [],
            [],
            color=look.colour,
            marker=look.marker,
            linestyle=look.line,
            label=f"{words.mixer(variant)}: slope {_slope(found[variant])}",
        )
        for variant, look in looks.items()
    ]
    if place is not None:
        place.legend(handles=handles, loc="center", borderpad=0)
    else:
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
    inside = _errors(found, "error_inside")
    outside = _errors(found, "error_outside")
    return base.Drawn(
        name="calibration",
        figure=figure,
        title="Achieved against target return",
        caption=(
            "Achieved against target return, mean over seeds with 95 % intervals; the line is exact "
            "obedience, the grey band the range of the training returns. Slopes are fitted within "
            "that range for each seed, with 95 % intervals over seeds. Mean absolute error within "
            f"the range: {inside}" + (f"; beyond it: {outside}." if outside else ".")
        ),
        trials=tuple(trials),
        script="ablate/report/figures/calibration.py",
    )


def _reach(values: np.ndarray) -> float:
    if len(values) < 2:
        return 0.0
    low, high = interval(combine([1.0], [values]))
    return (high - low) / 2


def _slope(found: Sequence[Calibration]) -> str:
    estimate = overall(found, "slope")
    if estimate is None:
        return "unknown"
    low, high = interval(estimate)
    return f"{words.number(estimate.value, 2)} [{words.interval(low, high, 2)}]"


def _errors(found: Mapping[str, Sequence[Calibration]], quantity: str) -> str:
    said = []
    for variant, ones in found.items():
        estimate = overall(ones, quantity)
        if estimate is not None:
            said.append(f"{words.mixer(variant)} {words.number(estimate.value, 1)}")
    return words.listing(said)
