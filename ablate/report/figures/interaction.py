"""What a longer context changes, by data set, condition and head."""

from __future__ import annotations

import pandas as pd
from matplotlib.lines import Line2D

from ablate.report import style, summaries
from ablate.report import text as words
from ablate.report.figures import base


def draw(
    table: pd.DataFrame, metric: str = "score", margin: float | None = None
) -> base.Drawn | None:
    """Effect of the longest against the shortest context with intervals; None where nothing
    compares.

    `margin` shades the effects too small to matter, in the metric's unit.
    """
    done = summaries.finished(table)
    if "condition" not in done or metric not in done:
        return None
    slices = summaries.core(table)
    heads = [h for h in summaries.PREFERRED["head"] if h in set(done.get("head", ()))]
    heads += sorted(set(done.get("head", ())) - set(heads))
    effects: dict[tuple, summaries.Interval] = {}
    ends: dict[str, tuple[int, int]] = {}
    for name, levels in slices.items():
        still = {k: v for k, v in levels.items() if k not in ("condition", "head")}
        rows = summaries.at(done[done["data"] == name], still)
        for head in [*heads] or [""]:
            under = rows if not head else rows[rows["head"] == head]
            groups = dict(list(under.groupby("condition", sort=True)))
            sets = [
                found for group in groups.values() if (found := summaries.context_mixers(group))
            ]
            common = set.intersection(*sets) if sets else set()
            for condition, group in groups.items():
                effect = summaries.context_effect(group, metric, common or None)
                if effect is not None:
                    effects[head, name, condition] = effect
                    ends[name] = (int(group["context"].min()), int(group["context"].max()))
    if not effects:
        return None
    return _plot(effects, ends, metric, margin)


def _plot(
    effects: dict[tuple, summaries.Interval],
    ends: dict[str, tuple[int, int]],
    metric: str,
    margin: float | None,
) -> base.Drawn:
    heads = list(dict.fromkeys(head for head, _, _ in effects))
    names = sorted({name for _, name, _ in effects})
    looks = style.conditions(condition for _, _, condition in effects)
    figure = style.new_figure(0.62 + len(names) * max(0.32, 0.085 * len(looks) + 0.1))
    rows = [len({name for h, name, _ in effects if h == head}) for head in heads]
    panels = figure.subplots(
        1,
        len(heads),
        sharex=True,
        sharey=True,
        squeeze=False,
        gridspec_kw={"width_ratios": [max(n / max(rows), 0.6) for n in rows]},
    )[0]
    order = list(looks)
    for panel, head in zip(panels, heads, strict=True):
        if margin:
            style.shade(panel, -margin, margin)
        panel.axvline(0, color="#000000", linewidth=0.5, zorder=1)
        for row, name in enumerate(names):
            if not any((head, name, condition) in effects for condition in order):
                panel.text(
                    0.5,
                    row,
                    "not run",
                    transform=panel.get_yaxis_transform(),
                    ha="center",
                    va="center",
                    fontsize=6,
                    color="#777777",
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
                )
            for place, condition in enumerate(order):
                effect = effects.get((head, name, condition))
                if effect is None:
                    continue
                look = looks[condition]
                height = row + (place - (len(order) - 1) / 2) * 0.8 / len(order)
                panel.plot(
                    [effect.low, effect.high], [height] * 2, color=look.colour, linewidth=0.9
                )
                panel.plot(
                    effect.mean,
                    height,
                    color=look.colour,
                    marker=look.marker,
                    markersize=5 if look.marker == "*" else 3.4,
                    markeredgewidth=0,
                )
        for row in range(1, len(names)):
            panel.axhline(row - 0.5, color="#cccccc", linewidth=0.4, zorder=0)
        if head:
            panel.set_title(f"{head} head")
        panel.tick_params(axis="y", length=0)
    figure.supxlabel(words.axis(metric, change=True), fontsize=8)
    panels[0].set_yticks(range(len(names)), [_label(name, ends[name]) for name in names])
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    handles = [
        Line2D(
            [],
            [],
            color=look.colour,
            marker=look.marker,
            linewidth=0.9,
            label=words.condition(name),
        )
        for name, look in looks.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    better = "Left of zero, longer context lowers the error." if "error" in metric else ""
    return base.Drawn(
        name="interaction" if metric == "score" else f"interaction_{metric}",
        figure=figure,
        title=f"Effect of context on {words.metric(metric)}, by data set and condition",
        caption=(
            f"Context × condition × mixture type: change in {words.metric(metric)} from the "
            "shortest to the longest context, averaged over the mixers that were run under every "
            f"condition of a panel's row, with 95 % Welch–Satterthwaite intervals. {better}"
            + (
                f" The band marks effects within the margin (±{margin:g} {words.unit(metric)})."
                if margin
                else ""
            )
        ).strip(),
        trials=tuple(t for effect in effects.values() for t in effect.trials),
        script="ablate/report/figures/interaction.py",
    )


def _label(name: str, ends: tuple[int, int]) -> str:
    """The data set, its twin, and the contexts compared, in two lines."""
    base_name, _, twin = name.partition("@")
    context = f"K = {ends[0]} → {ends[1]}"
    return f"{base_name}\n{'@' + twin + ', ' if twin else ''}{context}"
