"""What only this study shows: the effect of context group by group, and beside an earlier measurement.

A group is a data set with everything but mixer and context held still. Its effect is the mean at its longest minus
that at its shortest context, averaged with equal weights over the mixers run at both: the fixed estimand (these
mixers, new seeds).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from ablate import words
from ablate.analyse import intervals, replication
from ablate.analyse import tidy as frame
from ablate.analyse.intervals import Estimate
from ablate.registry import register
from ablate.report import style, summaries
from ablate.report.figures import base
from ablate.report.grid import Grid
from ablate.report.results import Results

SCORE = "rollout.score"
METRICS = (SCORE, "held-out.action_error_early")
HISTORY = "states+actions"  # what the mixers of an earlier measurement are taken to have seen
_STEP = 0.1  # inches of a condition
_LEAST = 0.3  # inches of a row, which has a label of two lines
_ROW = 0.3  # inches of an earlier effect
_EARLIER = style.Look("#5b2a86", "D", "-")
_AVERAGE = style.Look("#1a1a1a", "o", "-")
Row = tuple[str, str]  # data set, head


@dataclass(frozen=True)
class Change:
    """Means at the shortest and the longest context, and the estimate of long minus short, over
    `mixers` with equal weights; ends: the two contexts."""

    short: float
    long: float
    estimate: Estimate
    ends: tuple[int, int]
    mixers: tuple[str, ...]
    trials: tuple[str, ...]


def context_change(rows: pd.DataFrame, metric: str, keep: set[str] | None = None) -> Change | None:
    """What the longest context of `rows` changes against the shortest, over the mixers run at both.

    keep: only these mixers. None where no mixer was run at both with at least two seeds each.
    """
    if metric not in rows.columns or rows.empty:
        return None
    rows = rows[np.isfinite(rows[metric].to_numpy(dtype=float))]
    if keep is not None:
        rows = rows[rows["mixer"].isin(keep)]
    if rows["context"].nunique() < 2:
        return None
    low, high = rows["context"].min(), rows["context"].max()
    cells: list[np.ndarray] = []
    mixers: list[str] = []
    trials: list[str] = []
    for name, group in rows.groupby("mixer", sort=True):
        short, long = (group[group["context"] == level] for level in (low, high))
        if len(short) >= 2 and len(long) >= 2:
            cells += [frame.values(long, metric), frame.values(short, metric)]
            mixers.append(str(name))
            trials += [*short["trial"], *long["trial"]]
    if not cells:
        return None
    n = len(mixers)
    return Change(
        short=float(np.mean([cell.mean() for cell in cells[1::2]])),
        long=float(np.mean([cell.mean() for cell in cells[::2]])),
        estimate=intervals.combine([1 / n, -1 / n] * n, cells),
        ends=(int(low), int(high)),
        mixers=tuple(mixers),
        trials=tuple(trials),
    )


def context_effect(
    rows: pd.DataFrame, metric: str, keep: set[str] | None = None
) -> summaries.Interval | None:
    """The change of `context_change` with its 95 % interval: Welch-Satterthwaite over the cells
    (Welch 1947, Satterthwaite 1946)."""
    change = context_change(rows, metric, keep)
    if change is None:
        return None
    bounds = intervals.interval(change.estimate)
    return summaries.Interval(change.estimate.value, *bounds, len(change.mixers), change.trials)


def context_mixers(rows: pd.DataFrame) -> set[str]:
    """The mixers with at least two seeds at both the shortest and the longest context of `rows`."""
    if rows.empty or rows["context"].nunique() < 2:
        return set()
    ends = rows[rows["context"].isin([rows["context"].min(), rows["context"].max()])]
    counts = ends.groupby(["mixer", "context"]).size().unstack()
    return set(counts.index[(counts.fillna(0) >= 2).all(axis=1)])


@dataclass(frozen=True)
class Compared:
    """A row of an earlier measurement with ours beside it.

    alike: the effect of the mixer it was made with; average: that of all mixers; None where not
    run. `..._word` of the two: reproduces, refutes or open, empty where not run.
    """

    earlier: dict[str, Any]
    ends: tuple[int, int] | None
    alike: Change | None
    average: Change | None
    alike_word: str
    average_word: str

    @property
    def half_width(self) -> float:
        """Of the earlier 95 % interval; NaN where none is known."""
        return float(self.earlier["half_width"])


def factorial(table: pd.DataFrame) -> bool:
    """Whether the table crosses mixers and contexts."""
    return {"mixer", "context"} <= set(table.columns)


def groups(table: pd.DataFrame) -> list[tuple[str, dict[str, Any], pd.DataFrame]]:
    """(data set, what is held still, its finished rows) of every group run at two contexts."""
    done = summaries.finished(table)
    held = summaries.sliced(done, "mixer", "context")
    out = []
    for key, rows in done.groupby(["data", *held], sort=True, dropna=False):
        if rows["context"].nunique() > 1:
            name, *levels = key if isinstance(key, tuple) else (key,)
            out.append((str(name), dict(zip(held, levels, strict=True)), rows))

    def place(group: tuple[str, dict[str, Any], pd.DataFrame]) -> tuple:
        name, levels, _ = group
        return (
            name,
            [words.place(factor, levels[factor]) for factor in sorted(levels, reverse=True)],
        )

    return sorted(out, key=place)


@register("table", "context_effect", order=30)
def effects(results: Results) -> Grid | None:
    """The effect of context in every group; None where no group has two contexts."""
    table = results.rows
    if not factorial(table):
        return None
    metrics = [m for m in METRICS if m in table.columns and table[m].notna().any()]
    rows: list[tuple[str, ...]] = []
    trials: list[str] = []
    last = ""
    for name, levels, group in groups(table):
        changes = {m: context_change(group, m) for m in metrics}
        first = next((c for c in changes.values() if c is not None), None)
        if first is None:
            continue
        if name != last:
            rows.append((words.data(name),))
            last = name
        cells = [
            words.held(levels) or "as in every trial",
            f"{first.ends[0]} → {first.ends[1]}",
            str(len(first.mixers)),
        ]
        for metric in metrics:
            cells += _cells(changes[metric], words.response(metric))
        rows.append(tuple(cells))
        trials += [t for c in changes.values() if c is not None for t in c.trials]
    if not rows:
        return None
    head = ["condition, head", "K", "mixers"]
    for metric in metrics:
        brief = words.response(metric).said.replace("action ", "")
        head += [f"{brief}: short K", "long K", "change"]
    return Grid(
        "context_effect",
        "Effect of context",
        "Effect of context for every data set, head and condition: mean at the shortest and at the "
        "longest context run there, and their difference with its 95 % Welch–Satterthwaite "
        "interval, averaged with equal weights over all mixers run at both contexts (the placebo "
        "too): the fixed estimand, of new seeds of these mixers. Early action error is that of "
        "the first timesteps of an episode, as a fraction of the variance of the acting "
        "controller's action (0 is perfect; 1 is no better than the mean action, over whole "
        "episodes).",
        tuple(head),
        tuple(rows),
        tuple(dict.fromkeys(trials)),
    )


def _cells(change: Change | None, response: words.Response) -> list[str]:
    if change is None:
        return ["–"] * 3
    return [
        response.amount(change.short),
        response.amount(change.long),
        _effect(change, response),
    ]


def _effect(change: Change | None, response: words.Response) -> str:
    if change is None:
        return "not run"
    low, high = intervals.interval(change.estimate)
    return plus_minus(change.estimate.value, (high - low) / 2, response)


def plus_minus(value: float, half: float, response: words.Response) -> str:
    """`+1.2 ± 0.3`, or the value alone where no interval is known."""
    shown = response.amount(value, sign=True)
    return shown if math.isnan(half) else f"{shown} ± {response.amount(half)}"


def compare(
    table: pd.DataFrame, reference: pd.DataFrame, margin: float | None, alpha: float
) -> list[Compared]:
    """Each row of `reference` (see `ablate.report.reference`) with our effect of context in the same group.

    The margin is one of points, so it serves for the score only; for other metrics signs are
    compared.
    """
    done = summaries.finished(table)
    if "history" in done.columns:
        done = done[done["history"] == HISTORY]
    out = []
    for row in reference.to_dict("records"):
        named = {str(name): value for name, value in row.items()}
        keys = [k for k in ("data", "head", "condition") if k in done.columns]
        rows = summaries.at(done, {k: named[k] for k in keys})
        metric = str(named["metric"])
        alike = context_change(rows, metric, {str(named["mixer"])})
        average = context_change(rows, metric)
        said = [
            ""
            if change is None
            else replication.judge(
                change.estimate,
                float(named["effect"]),
                float(named["half_width"]),
                margin if words.response(metric).points else None,
                alpha,
            )
            for change in (alike, average)
        ]
        found = average or alike
        out.append(Compared(named, None if found is None else found.ends, alike, average, *said))
    return out


def compared_in(results: Results) -> list[Compared]:
    """The earlier measurement with our effects beside it; empty where there is none."""
    if results.reference.empty or not factorial(results.rows):
        return []
    return compare(results.rows, results.reference, results.study.margin, results.study.alpha)


@register("table", "replication", order=20)
def comparison(results: Results) -> Grid | None:
    """The table of earlier and present effects; None where nothing of it was run."""
    compared, margin = compared_in(results), results.study.margin
    if not any(one.average for one in compared):
        return None
    rows: list[tuple[str, ...]] = []
    last = ""
    for one in compared:
        row = one.earlier
        metric = str(row["metric"])
        response = words.response(metric)
        if metric != last:
            rows.append((response.axis("change in"),))
            last = metric
        rows.append(
            (
                _label_of(row),
                plus_minus(float(row["effect"]), one.half_width, response),
                _effect(one.alike, response),
                _word(one, one.alike, one.alike_word),
                _effect(one.average, response),
                _word(one, one.average, one.average_word),
            )
        )
    first = compared[0].earlier
    sources = words.listing(dict.fromkeys(str(one.earlier["source"]) for one in compared))
    ours = words.listing(dict.fromkeys(f"K = {a} → {b}" for a, b in _ends(compared)))
    notes = dict.fromkeys(
        f"{words.response(str(one.earlier['metric'])).said}: {one.earlier['note']}"
        for one in compared
        if math.isnan(one.half_width) and isinstance(one.earlier["note"], str)
    )
    rule = (
        f" An effect is none when it is within the margin of {margin:g} points of zero (ours by "
        "TOST; the earlier one when its whole interval is)."
        if margin
        else ""
    )
    shown = words.level("mixer", str(first["mixer"]))
    return Grid(
        "replication",
        "Beside an earlier measurement",
        f"Effect of context in an earlier measurement ({sources}; one {shown}, "
        f"K = {first['context_low']} → {first['context_high']}) and "
        f"here ({ours}), with 95 % intervals: with the {shown}, and averaged over all mixers run. "
        "Ours reproduces the earlier effect when both are none, or when neither is and both "
        "intervals exclude zero on the same side; it refutes it when neither is none and they exclude "
        "zero on opposite sides, or when one is none and the other's interval lies wholly beyond the margin; "
        f"anything else leaves it open.{rule} An earlier effect without an interval cannot be "
        "judged; of it we say whether the sign agrees."
        + (f" Earlier {words.listing(notes)}." if notes else ""),
        ("data; condition; head", "earlier", f"ours, {shown}", "verdict", "ours, all", "verdict"),
        tuple(rows),
        tuple(
            dict.fromkeys(
                t for one in compared for c in (one.alike, one.average) if c for t in c.trials
            )
        ),
    )


def _ends(compared: Sequence[Compared]) -> list[tuple[int, int]]:
    return [one.ends for one in compared if one.ends is not None]


def _word(one: Compared, change: Change | None, word: str) -> str:
    if change is None:
        return "–"
    if math.isnan(one.half_width):
        same = change.estimate.value * float(one.earlier["effect"]) > 0
        return "open; same sign" if same else "open; other sign"
    return word


@register("figure", "interaction", order=22)
def interaction(results: Results) -> base.Drawn | None:
    """Effect of the longest against the shortest context with intervals, a panel a response, a row a
    data set and head; None where nothing compares. The margin shades effects that are too small to matter."""
    table = results.rows
    if not factorial(table):
        return None
    done = summaries.finished(table)
    metrics = [m for m in METRICS if m in done and done[m].notna().any()]
    if "condition" not in done or not metrics:
        return None
    found: dict[str, dict[tuple, summaries.Interval]] = {metric: {} for metric in metrics}
    ends: dict[Row, tuple[int, int]] = {}
    for name, levels in summaries.core(table, "mixer", "context").items():
        still = {k: v for k, v in levels.items() if k not in ("condition", "head")}
        rows = summaries.at(done[done["data"] == name], still)
        for head, under in _by_head(rows):
            groups = dict(list(under.groupby("condition", sort=True)))
            sets = [s for group in groups.values() if (s := context_mixers(group))]
            common = set.intersection(*sets) if sets else set()
            for condition, group in groups.items():
                for metric in metrics:
                    effect = context_effect(group, metric, common or None)
                    if effect is not None:
                        found[metric][name, head, condition] = effect
                        ends[name, head] = (
                            int(group["context"].min()),
                            int(group["context"].max()),
                        )
    metrics = [metric for metric in metrics if found[metric]]
    if not metrics:
        return None
    return _plot({metric: found[metric] for metric in metrics}, ends, results.study.margin)


def _by_head(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    if "head" not in rows:
        return [("", rows)]
    return [
        (head, rows[rows["head"] == head]) for head in words.levels("head", rows["head"].unique())
    ]


def _plot(
    found: dict[str, dict[tuple, summaries.Interval]],
    ends: dict[Row, tuple[int, int]],
    margin: float | None,
) -> base.Drawn:
    names = {key[2] for effects in found.values() for key in effects}
    looks = style.looks("condition", words.levels("condition", names))
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
        if margin and words.response(metric).points:
            style.shade(panel, -margin, margin)
        panel.axvline(0, color="#b0b0b0", linewidth=0.8, zorder=0.5)
        for row, top, height in zip(rows, tops, heights, strict=False):
            for place, condition in enumerate(shown[row]):
                effect = effects.get((*row, condition))
                if effect is not None:
                    middle = top + height / 2 + (place - (len(shown[row]) - 1) / 2) * _STEP
                    _point(panel, effect, middle, looks[condition])
                    bars.append((effect.low, effect.high, middle, looks[condition].colour))
            if top:
                panel.axhline(top, color="#cccccc", linewidth=0.4, zorder=0)
        beyond |= base.zoom(panel, bars, [0.0, *(effect.mean for effect in effects.values())])
        panel.set_xlabel(
            words.response(metric).axis("change in").replace(" (", "\n("), linespacing=1.0
        )
        panel.tick_params(axis="y", length=0)
    several = {name for name, _ in rows if sum(name == other for other, _ in rows) > 1}
    panels[0].set_yticks(
        [top + height / 2 for top, height in zip(tops, heights, strict=False)],
        [_label(row, ends[row], row[0] in several) for row in rows],
        fontsize=style.SMALL,
        linespacing=1.0,
    )
    panels[0].set_ylim(tops[-1], 0)
    base.legend(figure, "condition", looks)
    return base.Drawn(
        figure=figure,
        title="Effect of context by data set, condition and head",
        caption=(
            "Context × condition × data set: change from the shortest to the longest context, "
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
    )


def _point(panel: Any, effect: summaries.Interval, height: float, look: style.Look) -> None:
    panel.plot([effect.low, effect.high], [height] * 2, color=look.colour, linewidth=0.9)
    panel.plot(
        effect.mean,
        height,
        color=look.colour,
        marker=look.marker,
        markersize=3.8,
        markeredgewidth=0,
    )


def _label(row: Row, ends: tuple[int, int], several: bool) -> str:
    """The data set, the head where it was run with several, and the contexts, in two lines."""
    name, head = row
    said = f"{words.setting('head', head)}, " if several else ""
    return f"{words.data(name)}\n{said}K = {ends[0]} → {ends[1]}"


@register("figure", "replication", order=23)
def beside(results: Results) -> base.Drawn | None:
    """One row an earlier effect on the score: it, the same mixer's here, and the mean over mixers.

    None where none of them was run.
    """
    margin = results.study.margin
    rows = [one for one in compared_in(results) if one.earlier["metric"] == SCORE and one.average]
    if not rows:
        return None
    figure = style.new_figure(0.75 + _ROW * len(rows))
    panel = figure.subplots()
    if margin:
        style.shade(panel, -margin, margin)
    panel.axvline(0, color="#b0b0b0", linewidth=0.8, zorder=0.5)
    mixer = str(rows[0].earlier["mixer"])
    alike = style.looks("mixer", [mixer])[mixer]
    for place, one in enumerate(rows):
        effect, half = float(one.earlier["effect"]), one.half_width
        _bar(panel, place - 0.24, effect, (effect - half, effect + half), _EARLIER, hollow=True)
        for shift, change, look in ((0.0, one.alike, alike), (0.24, one.average, _AVERAGE)):
            if change is not None:
                _bar(
                    panel,
                    place + shift,
                    change.estimate.value,
                    intervals.interval(change.estimate),
                    look,
                )
        if one.alike_word:
            panel.text(
                1.02,
                place,
                one.alike_word,
                transform=panel.get_yaxis_transform(),
                va="center",
                fontsize=style.SMALL,
            )
        if place:
            panel.axhline(place - 0.5, color="#cccccc", linewidth=0.4, zorder=0)
    labels = ["\n".join(base.wrap(_label_of(one.earlier), 38)) for one in rows]
    panel.set_yticks(range(len(rows)), labels, linespacing=1.0)
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.tick_params(axis="y", length=0)
    panel.set_xlabel(words.response(SCORE).axis("change in"))
    first, shown = rows[0].earlier, words.level("mixer", mixer)
    earlier = f"earlier {shown}, K = {first['context_low']} → {first['context_high']}"
    handles = [
        _handle(_EARLIER, earlier, hollow=True),
        _handle(alike, f"our {shown}"),
        _handle(_AVERAGE, "all our mixers"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return base.Drawn(
        figure=figure,
        title="An earlier measurement and ours",
        caption=(
            "Effect of context on the score, shortest to longest, in an earlier measurement "
            f"({first['source']}) and here, with 95 % intervals; rows are data set, condition and "
            f"head. On the right: what our {shown} says of the earlier effect, by the "
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
    )


def _bar(
    panel: Any,
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


def _label_of(row: dict[str, Any]) -> str:
    """The data set, condition and head of an earlier effect."""
    at = {name: row[name] for name in ("condition", "head")}
    return f"{words.data(str(row['data']))}; {words.held(at)}"
