"""What a drawing function gives, and what several of them need."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ablate import words
from ablate.report import style
from ablate.report.summaries import Interval

GREY = "#555555"


@dataclass(frozen=True)
class Drawn:
    """A finished figure: the figure, its title on the page, its caption and the trials it shows.

    also: further facts for the file beside it. appended: it stands in the paper's appendix. name and script are those
    that it is registered under and by, filled in by `figures.draw`.
    """

    figure: Figure
    title: str
    caption: str
    trials: tuple[str, ...]
    also: dict[str, Any] = field(default_factory=dict)
    appended: bool = False
    name: str = ""
    script: str = ""


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


def legend(
    figure: Figure,
    factor: str,
    looks: Mapping[Any, style.Look],
    extra: Sequence[Line2D] = (),
    place: Axes | None = None,
) -> None:
    """One legend of the levels of `factor`, in `place` or above all panels."""
    handles = [
        Line2D(
            [],
            [],
            color=look.colour,
            marker=look.marker,
            linestyle=look.line,
            label=words.level(factor, level)
            if isinstance(level, str)
            else words.setting(factor, level),
        )
        for level, look in looks.items()
        if factor
    ]
    handles += extra
    if not handles:
        return
    if place is not None:
        place.legend(handles=handles, loc="center", borderpad=0)
        return
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 7))


def ticks(axes: Axes, factor: str, levels: Sequence[Any]) -> dict[Any, int]:
    """Levels as equally spaced ticks along the horizontal axis; returns the place of each."""
    axes.set_xticks(range(len(levels)), [words.level(factor, level) for level in levels])
    axes.set_xlim(-0.4, len(levels) - 0.6)
    return {level: place for place, level in enumerate(levels)}


def lines(
    axes: Axes,
    cells: Mapping[tuple[Any, Any], Interval],
    looks: Mapping[Any, style.Look],
    places: Mapping[Any, float],
    most_bands: int = 3,
) -> None:
    """One line a series through its means, at their true places, with a band or bars over seeds.

    cells: (level across, level of the series) -> Interval. Of more than `most_bands` series the intervals are
    thin bars, as bands would hide each other.
    """
    present = [level for level in looks if any(key[1] == level for key in cells)]
    banded = len(present) <= most_bands
    for level in present:
        look = looks[level]
        points = sorted(
            (places[across], cell) for (across, one), cell in cells.items() if one == level
        )
        x = [place for place, _ in points]
        low = [cell.low if cell.n > 1 else cell.mean for _, cell in points]
        high = [cell.high if cell.n > 1 else cell.mean for _, cell in points]
        if banded and len(points) > 1:
            axes.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)
        else:
            axes.vlines(x, low, high, color=look.colour, linewidth=0.7, alpha=0.7)
        axes.plot(
            x,
            [cell.mean for _, cell in points],
            color=look.colour,
            marker=look.marker,
            linestyle=look.line,
            markevery=max(1, len(points) // 8),
            markeredgewidth=0,
        )


def title(axes: Axes, name: str, note: str = "") -> None:
    """A panel's name, and below it in grey what is held still; both broken where they are too long."""
    room = axes.get_subplotspec()
    columns = room.get_gridspec().ncols if room is not None else 1
    width = max(int(90 / columns), 16)  # letters of a panel's width
    shown = "\n".join(wrap(name, width))
    said = "\n".join(wrap(note, width))
    size = style.SMALL
    height = 3.0 + 1.3 * size * (said.count("\n") + 1) if said else 4.0
    axes.set_title(shown, pad=height, fontsize=8.0, linespacing=1.0)
    if said:
        axes.annotate(
            said,
            (0.0, 1.0),
            xytext=(0.0, 2.0),
            xycoords="axes fraction",
            textcoords="offset points",
            va="bottom",
            fontsize=size,
            linespacing=1.0,
            color=GREY,
        ).set_in_layout(False)


def wrap(said: str, width: int) -> list[str]:
    """`said` in lines of about `width` letters, alike in length and broken between words."""
    count = math.ceil(len(said) / width)
    lines = textwrap.wrap(said, width)
    for narrower in range(max(-(-len(said) // max(count, 1)), 1), width):
        found = textwrap.wrap(said, narrower, break_long_words=False)
        if len(found) <= count:
            return found
    return lines


def label(axes: Axes, said: str, width: int = 26) -> None:
    """The label of the vertical axis, broken where it is long."""
    axes.set_ylabel("\n".join(wrap(said, width)), linespacing=1.0)


def fit(axes: Axes, cells: Sequence[Interval]) -> None:
    """Limit the vertical axis to the means and as much of the intervals as most of them need, so that no
    single interval sets it."""
    known = [cell for cell in cells if math.isfinite(cell.mean)]
    half = sorted(cell.high - cell.mean for cell in known if math.isfinite(cell.high))
    if not half:
        return
    reach = min(half[-1], 2.0 * half[int(0.8 * (len(half) - 1))])
    low = min(max(cell.low, cell.mean - reach) if cell.n > 1 else cell.mean for cell in known)
    high = max(min(cell.high, cell.mean + reach) if cell.n > 1 else cell.mean for cell in known)
    pad = 0.05 * max(high - low, 1e-12)
    axes.set_ylim(low - pad, high + pad)


def from_zero(axes: Axes, response: words.Response, cells: Sequence[Interval]) -> None:
    """Let the vertical axis of an error, which is never negative, begin at zero."""
    if response.lower and all(cell.mean >= 0.0 for cell in cells):
        axes.set_ylim(bottom=0.0)


CUT = " Intervals that are much wider than most are cut at the border."


def least_span(axes: Axes, span: float) -> None:
    """Widen the vertical range to at least `span`, so that noise does not look like an effect."""
    low, high = axes.get_ylim()
    missing = span - (high - low)
    if missing > 0:
        axes.set_ylim(low - missing / 2, high + missing / 2)


OFF_AXIS = " An arrow at the border: the interval lies, or goes on, beyond the axis."
Bar = tuple[float, float, float, str]  # low, high, height, colour


def zoom(
    panel: Any, bars: Sequence[Bar], within: Sequence[float] = (), beside: Sequence[Bar] = ()
) -> bool:
    """Limit the horizontal axis to where most intervals lie; arrows at the border stand for what lies beyond.

    The axis reaches to twice the 85th percentile of the reach of `bars` (of their end farther from zero), so
    that no single interval sets it. within: values that lie on the axis whatever they are, as estimates and
    margins; beside: intervals that have no say. Returns whether anything lies beyond.
    """
    reach = sorted(max(abs(v) for v in bar[:2] if math.isfinite(v)) for bar in bars if _finite(bar))
    if not reach:
        return False
    end = max(2.0 * reach[int(0.85 * (len(reach) - 1))], 1e-12)
    kept = [v for bar in bars for v in bar[:2] if math.isfinite(v)]
    left = min([max(min(kept), -end), *within])
    right = max([min(max(kept), end), *within])
    pad = 0.05 * max(right - left, 1e-12)
    left, right = left - pad, right + pad
    beyond = False
    for low, high, height, colour in (*bars, *beside):
        for over, edge, marker in ((low < left, left, "<"), (high > right, right, ">")):
            if over:
                beyond = True
                panel.plot(
                    edge, height, marker, color=colour, markersize=4, clip_on=False, zorder=5
                )
    panel.set_xlim(left, right)
    return beyond


def _finite(bar: Bar) -> bool:
    return math.isfinite(bar[0]) or math.isfinite(bar[1])


def seeds(cells: Sequence[Interval]) -> str:
    """How many seeds stand behind the means: `5`, or `3 to 5`."""
    counts = sorted({cell.n for cell in cells if cell.n})
    return (
        "no"
        if not counts
        else str(counts[0])
        if len(counts) == 1
        else f"{counts[0]} to {counts[-1]}"
    )


Draw = Callable[[Any], Drawn | None]
