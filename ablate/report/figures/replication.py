"""Effects of context beside those of an earlier measurement."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ablate.analyse.intervals import interval
from ablate.report import style, summaries
from ablate.report import text as words
from ablate.report.context import Compared
from ablate.report.figures import base

_EARLIER = style.Look("#5b2a86", "D", "-")
_AVERAGE = style.Look("#1a1a1a", "o", "-")
_ROW = 0.27  # inches


def draw(compared: Sequence[Compared], margin: float | None) -> base.Drawn | None:
    """One row an earlier effect on the score: it, the same mixer's here, and the mean over mixers.

    None where none of them was run.
    """
    rows = [one for one in compared if one.earlier["metric"] == "score" and one.average]
    if not rows:
        return None
    figure = style.new_figure(0.75 + _ROW * len(rows))
    panel = figure.subplots()
    if margin:
        style.shade(panel, -margin, margin)
    panel.axvline(0, color="#000000", linewidth=0.5, zorder=1)
    mixer = str(rows[0].earlier["mixer"])
    alike = style.mixers([mixer])[mixer]
    for place, one in enumerate(rows):
        effect, half = float(one.earlier["effect"]), one.half_width
        _bar(panel, place - 0.24, effect, (effect - half, effect + half), _EARLIER, hollow=True)
        for shift, change, look in ((0.0, one.alike, alike), (0.24, one.average, _AVERAGE)):
            if change is not None:
                _bar(panel, place + shift, change.estimate.value, _bounds(change), look)
        if one.alike_word:
            panel.text(
                1.02,
                place,
                one.alike_word,
                transform=panel.get_yaxis_transform(),
                va="center",
                fontsize=7,
            )
        if place:
            panel.axhline(place - 0.5, color="#cccccc", linewidth=0.4, zorder=0)
    labels = [
        f"{words.data(str(one.earlier['data']))}; {words.condition(str(one.earlier['condition']))}"
        f"; {one.earlier['head']}"
        for one in rows
    ]
    panel.set_yticks(range(len(rows)), labels)
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.tick_params(axis="y", length=0)
    panel.set_xlabel(words.axis("score", change=True))
    first = rows[0].earlier
    earlier = f"earlier {words.mixer(mixer)}, K = {first['context_low']} → {first['context_high']}"
    handles = [
        _handle(_EARLIER, earlier, hollow=True),
        _handle(alike, f"our {words.mixer(mixer)}"),
        _handle(_AVERAGE, "all our mixers"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return base.Drawn(
        name="replication",
        figure=figure,
        title="An earlier measurement and ours",
        caption=(
            "Effect of context on the score, shortest to longest, in an earlier measurement "
            f"({first['source']}) and here, with 95 % intervals; rows are data set, condition and "
            f"head. On the right: what our {words.mixer(mixer)} says of the earlier effect, by the "
            "rule in the table's caption."
            + (f" The band is the margin (±{margin:g} points)." if margin else "")
        ),
        trials=tuple(
            dict.fromkeys(
                t
                for one in rows
                for change in (one.alike, one.average)
                if change
                for t in change.trials
            )
        ),
        script="ablate/report/figures/replication.py",
    )


def _bounds(change: summaries.Change) -> tuple[float, float]:
    return interval(change.estimate)


def _bar(
    panel: Axes,
    row: float,
    value: float,
    ends: tuple[float, float],
    look: style.Look,
    hollow: bool = False,
) -> None:
    panel.plot(ends, [row] * 2, color=look.colour, linewidth=0.9, zorder=2)
    panel.plot(
        value,
        row,
        color=look.colour,
        marker=look.marker,
        markersize=3.6,
        markerfacecolor="white" if hollow else look.colour,
        markeredgewidth=0.8,
        zorder=3,
    )


def _handle(look: style.Look, label: str, hollow: bool = False) -> Line2D:
    return Line2D(
        [],
        [],
        color=look.colour,
        marker=look.marker,
        markerfacecolor="white" if hollow else look.colour,
        markeredgewidth=0.8,
        linewidth=0.9,
        label=label,
    )
