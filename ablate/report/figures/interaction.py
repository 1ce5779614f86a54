"""What a longer context changes, by data set, condition and head."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.lines import Line2D

from ablate.report import context, style, summaries
from ablate.report import text as words
from ablate.report.figures import base

_STEP = 0.085  # inches of a condition
_LEAST = 0.27  # inches of a row, which has a label of two lines
Row = tuple[str, str]  # data set, head


def draw(table: pd.DataFrame, margin: float | None = None) -> base.Drawn | None:
    """Effect of the longest against the shortest context with intervals, a panel a metric, a row a
    data set and head; None where nothing compares.

    `margin` shades the effects on the score that are too small to matter.
    """
    done = summaries.finished(table)
    metrics = [m for m in context.METRICS if m in done and done[m].notna().any()]
    if "condition" not in done or not metrics:
        return None
    found: dict[str, dict[tuple, summaries.Interval]] = {metric: {} for metric in metrics}
    ends: dict[Row, tuple[int, int]] = {}
    for name, levels in summaries.core(table).items():
        still = {k: v for k, v in levels.items() if k not in ("condition", "head")}
        rows = summaries.at(done[done["data"] == name], still)
        for head, under in _by_head(rows):
            groups = dict(list(under.groupby("condition", sort=True)))
            sets = [s for group in groups.values() if (s := summaries.context_mixers(group))]
            common = set.intersection(*sets) if sets else set()
            for condition, group in groups.items():
                for metric in metrics:
                    effect = summaries.context_effect(group, metric, common or None)
                    if effect is not None:
                        found[metric][name, head, condition] = effect
                        ends[name, head] = (
                            int(group["context"].min()),
                            int(group["context"].max()),
                        )
    metrics = [metric for metric in metrics if found[metric]]
    if not metrics:
        return None
    return _plot({metric: found[metric] for metric in metrics}, ends, margin)


def _by_head(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    if "head" not in rows:
        return [("", rows)]
    known = [h for h in summaries.PREFERRED["head"] if h in set(rows["head"])]
    heads = known + sorted(set(rows["head"]) - set(known))
    return [(head, rows[rows["head"] == head]) for head in heads]


def _plot(
    found: dict[str, dict[tuple, summaries.Interval]],
    ends: dict[Row, tuple[int, int]],
    margin: float | None,
) -> base.Drawn:
    looks = style.conditions(key[2] for effects in found.values() for key in effects)
    rows = list(ends)
    shown = {
        row: [c for c in looks if any((*row, c) in effects for effects in found.values())]
        for row in rows
    }
    heights = [max(_LEAST, _STEP * len(shown[row]) + 0.08) for row in rows]
    tops = [sum(heights[:i]) for i in range(len(rows) + 1)]
    figure = style.new_figure(0.82 + tops[-1])
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    beyond = False
    for panel, (metric, effects) in zip(panels, found.items(), strict=True):
        bars = []
        if margin and metric == "score":
            style.shade(panel, -margin, margin)
        panel.axvline(0, color="#000000", linewidth=0.5, zorder=1)
        for row, top, height in zip(rows, tops, heights, strict=False):
            for place, condition in enumerate(shown[row]):
                effect = effects.get((*row, condition))
                if effect is not None:
                    middle = top + height / 2 + (place - (len(shown[row]) - 1) / 2) * _STEP
                    _point(panel, effect, middle, looks[condition])
                    bars.append((effect.low, effect.high, middle, looks[condition].colour))
            if top:
                panel.axhline(top, color="#cccccc", linewidth=0.4, zorder=0)
        beyond |= base.zoom(panel, bars)
        panel.set_xlabel(words.axis(metric, change=True).replace(" (", "\n("))
        panel.tick_params(axis="y", length=0)
    several = {name for name, _ in rows if sum(name == other for other, _ in rows) > 1}
    panels[0].set_yticks(
        [top + height / 2 for top, height in zip(tops, heights, strict=False)],
        [_label(row, ends[row], row[0] in several) for row in rows],
        fontsize=6.5,
        linespacing=1.0,
    )
    panels[0].set_ylim(tops[-1], 0)
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, linewidth=0.9, label=label)
        for look, label in ((look, words.condition(name)) for name, look in looks.items())
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return base.Drawn(
        name="interaction",
        figure=figure,
        title="Effect of context by data set, condition and head",
        caption=(
            "Context × condition × mixture type: change from the shortest to the longest context, "
            "averaged over the mixers that were run under every condition of a row, with 95 % "
            "Welch–Satterthwaite intervals."
            + (" Left of zero on the right, longer context lowers the error." * (len(found) > 1))
            + (f" The band marks effects within the margin (±{margin:g} points)." if margin else "")
            + base.OFF_AXIS * beyond
        ),
        trials=tuple(
            dict.fromkeys(
                t
                for effects in found.values()
                for effect in effects.values()
                for t in effect.trials
            )
        ),
        script="ablate/report/figures/interaction.py",
    )


def _point(panel: Any, effect: summaries.Interval, height: float, look: style.Look) -> None:
    panel.plot([effect.low, effect.high], [height] * 2, color=look.colour, linewidth=0.9)
    panel.plot(
        effect.mean,
        height,
        color=look.colour,
        marker=look.marker,
        markersize=5 if look.marker == "*" else 3.4,
        markeredgewidth=0,
    )


def _label(row: Row, ends: tuple[int, int], several: bool) -> str:
    """The data set, the head where it was run with several, and the contexts, in two lines."""
    name, head = row
    said = f"{head} head, " if several else ""
    return f"{words.data(name)}\n{said}K = {ends[0]} → {ends[1]}"
