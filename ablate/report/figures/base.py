"""What a drawing function gets and gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ablate.report import style, text


@dataclass(frozen=True)
class Drawn:
    """A finished figure: file stem, the figure, caption and the trials it shows."""

    name: str
    figure: Figure
    title: str
    caption: str
    trials: tuple[str, ...]
    script: str
    also: dict[str, Any] = field(default_factory=dict)  # further facts for the sidecar


def grid(
    count: int, columns: int, panel_height: float, head: float = 0.3
) -> tuple[Figure, list[Axes], Axes | None]:
    """`count` panels in rows of `columns`, and an unused place of the last row for the legend (None
    where there is none; the figure then has `head` inches for it)."""
    columns = min(columns, count)
    rows = -(-count // columns)
    spare = rows * columns > count
    figure = style.new_figure(rows * panel_height + (0.05 if spare else head))
    axes = figure.subplots(rows, columns, squeeze=False)
    flat = list(axes.flat)
    for unused in flat[count + 1 :]:
        unused.remove()
    if not spare:
        return figure, flat, None
    flat[count].axis("off")
    return figure, flat[:count], flat[count]


def mixer_legend(
    figure: Figure,
    looks: dict[str, style.Look],
    extra: list[Line2D] | None = None,
    place: Axes | None = None,
) -> None:
    """One legend, in `place` or above all panels."""
    handles = [
        Line2D(
            [],
            [],
            color=look.colour,
            marker=look.marker,
            linestyle=look.line,
            label=text.mixer(name),
        )
        for name, look in looks.items()
    ]
    handles += extra or []
    if place is not None:
        place.legend(handles=handles, loc="center", borderpad=0)
        return
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 7))


def context_axis(axes: Axes, contexts: list[int]) -> dict[int, int]:
    """Contexts as equally spaced ticks; returns the place of each."""
    axes.set_xticks(range(len(contexts)), [str(value) for value in contexts])
    axes.set_xlim(-0.4, len(contexts) - 0.6)
    return {value: place for place, value in enumerate(contexts)}


def lines(
    axes: Axes,
    cells: dict[tuple, Any],
    looks: dict[str, style.Look],
    places: dict[int, int],
) -> None:
    """One line per mixer over contexts with seed intervals, dodged so that none hides another.

    cells: (mixer, context) -> Interval.
    """
    present = [name for name in looks if any(key[0] == name for key in cells)]
    step = min(0.06 * len(places), 0.5 / max(len(present), 1))
    for index, name in enumerate(present):
        shift = (index - (len(present) - 1) / 2) * step
        points = [(context, cell) for (mixer, context), cell in cells.items() if mixer == name]
        points.sort(key=lambda pair: pair[0])
        look = looks[name]
        axes.errorbar(
            [places[context] + shift for context, _ in points],
            [cell.mean for _, cell in points],
            yerr=[
                [max(cell.mean - cell.low, 0.0) if cell.n > 1 else 0.0 for _, cell in points],
                [max(cell.high - cell.mean, 0.0) if cell.n > 1 else 0.0 for _, cell in points],
            ],
            color=look.colour,
            marker=look.marker,
            linestyle=look.line,
            elinewidth=0.7,
            markeredgewidth=0,
        )


def describe(levels: dict[str, Any]) -> str:
    """`return-to-go + time, mse head` for the small line under a panel's title."""
    words = []
    for name, value in levels.items():
        if name == "condition":
            words.append(text.condition(str(value)))
        elif name == "head":
            words.append(f"{value} head")
        elif name == "history":
            words.append("" if value == "states+actions" else f"history: {value}")
        elif not pd.isna(value):
            words.append(f"{name.split('.')[-1].replace('_', ' ')} {value}")
    return ", ".join(word for word in words if word)


def title(axes: Axes, name: str, note: str = "") -> None:
    """The data set's name, and below it in grey what is held still."""
    shown = text.data(name)
    axes.set_title(shown, pad=10 if note else 4, fontsize=max(min(8.5, 8.5 * 26 / len(shown)), 6.0))
    if note:
        axes.text(
            0, 1.02, note, transform=axes.transAxes, va="bottom", fontsize=6, color="#555555"
        ).set_in_layout(False)


def least_span(axes: Axes, span: float) -> None:
    """Widen the vertical range to at least `span`, so that noise does not look like an effect."""
    low, high = axes.get_ylim()
    missing = span - (high - low)
    if missing > 0:
        axes.set_ylim(low - missing / 2, high + missing / 2)


OFF_AXIS = " An arrow at the border: the interval lies, or goes on, beyond the axis."


def zoom(panel: Any, bars: Sequence[tuple[float, float, float, str]]) -> bool:
    """Limit the x axis to where most intervals lie; arrows at the border stand for what lies beyond.

    bars: (low, high, height, colour). The axis ends at twice the 85th percentile of the intervals' reach
    (their end farther from zero) when one of them reaches much farther. Returns whether anything lies beyond.
    """
    reach = sorted(max(abs(low), abs(high)) for low, high, _, _ in bars)
    if not reach:
        return False
    end = 2.0 * reach[int(0.85 * (len(reach) - 1))]
    if end == 0.0 or reach[-1] <= 1.5 * end:
        return False
    left = max(-end, min(low for low, _, _, _ in bars))
    right = min(end, max(high for _, high, _, _ in bars))
    pad = 0.04 * (right - left)
    left, right = left - pad, right + pad
    for low, high, height, colour in bars:
        for beyond, edge, marker in ((low < left, left, "<"), (high > right, right, ">")):
            if beyond:
                panel.plot(
                    edge, height, marker, color=colour, markersize=4, clip_on=False, zorder=5
                )
    panel.set_xlim(left, right)
    return True
