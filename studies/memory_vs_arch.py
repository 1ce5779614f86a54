"""What only the studies of memory and architecture estimate and show: memory against the widest gap between
architectures, and the effect of context group by group.

A group is a data set with everything but mixer and context held still. Its effect is the mean at its longest minus
that at its shortest context, averaged with equal weights over the mixers run at both: the fixed estimand (these
mixers, new seeds).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ablate import words
from ablate.analyse import intervals
from ablate.analyse.estimators import Asked, ByT, Estimator, Untold, jackknife, seeds_paired
from ablate.analyse.intervals import Estimate
from ablate.registry import Section, register
from ablate.report import style, summaries
from ablate.report.figures import base
from ablate.report.grid import Grid
from ablate.report.results import Results
from ablate.study.contrast import Level, level_text

METRICS = (
    "rollout.regret",
    "rollout.score",
    "held-out.action_error",
)  # of which a group has two at most
_STEP = 0.1  # inches of a condition
_LEAST = 0.3  # inches of a row, which has a label of two lines
HEAD = 0.025  # of the axis: how long the head of an arrow is
Row = tuple[str, str]  # data set, head


@register("estimator", "beyond-gaps")
class BeyondGaps(Estimator):
    """How much more one factor does than the widest gap between the levels of another.

    |m(high) - m(low)| - max over k in {low, high} of (max over f of m(k, f) - min over f of m(k, f)), where m(k, f) is
    the mean over seeds of the cells with level k of `over` and level f of `factor`, and m(k) their mean over f. The
    maximum of noisy gaps errs upwards, so that the estimate errs on the side of `factor`. Variance by the jackknife
    over seeds (Efron & Stein 1981), which share targets, streams and episodes among all cells.
    """

    class Options(Section):
        """factor: whose gaps. over: the factor whose effect from `low` to `high` stands against them."""

        factor: str
        over: str
        low: Level
        high: Level

    def __call__(self, rows: pd.DataFrame, asked: Asked) -> ByT:
        o = self.options
        for name in (o.factor, o.over):
            if name not in rows.columns:
                raise Untold(f"the table has no column '{name}'")
        ends = [level_text(o.low), level_text(o.high)]
        by = rows.assign(end=rows[o.over].map(level_text), which=rows[o.factor].map(level_text))
        by = by[by["end"].isin(ends) & np.isfinite(by[asked.metric].to_numpy(dtype=float))]
        cells = by.groupby(["end", "which"]).size().unstack()
        if set(cells.index) != set(ends) or cells.isna().any(axis=None) or cells.shape[1] < 2:
            raise Untold(f"not every {o.factor} was run at {o.over} {' and '.join(ends)}")

        def beyond(part: pd.DataFrame) -> np.ndarray:
            means = part.groupby(["end", "which"])[asked.metric].mean().unstack()
            gap = (means.max(axis=1) - means.min(axis=1)).max()
            effect = means.loc[ends[1]].mean() - means.loc[ends[0]].mean()
            return np.array([abs(effect) - gap])

        value, covariance, n = jackknife(by, beyond, asked.paired)
        estimate = Estimate(float(value[0]), float(covariance[0, 0]), n - 1.0, 1, 0)
        return ByT(estimate, n, seeds_paired(n) if asked.paired else "unpaired: runs are the units")

    @property
    def says(self) -> str:
        o = self.options
        return (
            f"|{o.over}[{o.high}] - {o.over}[{o.low}]| - the widest gap between two of {o.factor}"
        )


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

    keep: only these mixers. The unit is the seed: its cells share targets, streams and evaluation episodes, so the
    change is taken within each. None where fewer than two seeds have every cell.
    """
    if metric not in rows.columns or rows.empty:
        return None
    rows = rows[np.isfinite(rows[metric].to_numpy(dtype=float))]
    if keep is not None:
        rows = rows[rows["mixer"].isin(keep)]
    if rows["context"].nunique() < 2:
        return None
    low, high = int(rows["context"].min()), int(rows["context"].max())
    rows = rows[rows["context"].isin([low, high])]
    both = rows.pivot_table(index="seed", columns=["context", "mixer"], values=metric)
    mixers = sorted(set(both[low].columns) & set(both[high].columns))
    whole = both[[(end, mixer) for end in (low, high) for mixer in mixers]].dropna()
    if not mixers or len(whole) < 2:
        return None
    short, long = (whole[end].to_numpy().mean(axis=1) for end in (low, high))  # (seeds,)
    used = rows[rows["mixer"].isin(mixers) & rows["seed"].isin(whole.index)]
    return Change(
        short=float(short.mean()),
        long=float(long.mean()),
        estimate=intervals.combine([1.0], [long - short]),
        ends=(low, high),
        mixers=tuple(mixers),
        trials=tuple(used["trial"]),
    )


def context_effect(
    rows: pd.DataFrame, metric: str, keep: set[str] | None = None
) -> summaries.Interval | None:
    """The change of `context_change` with its 95 % interval: Student's t over seeds."""
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


def measured(table: pd.DataFrame) -> list[str]:
    """How a policy acts and how it predicts: the first of either that the table has."""
    here = [m for m in METRICS if m in table.columns and table[m].notna().any()]
    acting = [m for m in here if m.startswith("rollout.")][:1]
    return acting + [m for m in here if not m.startswith("rollout.")]


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
    metrics = measured(table)
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
        "longest context run there, and their difference with its 95 % interval over seeds, averaged with "
        "equal weights over all mixers run at both contexts (the placebo too): the fixed estimand, of new "
        "seeds of these mixers. The action error is a fraction of the variance of the acting controller's "
        "action (0 is perfect; 1 is no better than the mean action).",
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
    shown = response.amount(change.estimate.value, sign=True)
    return f"{shown} ± {response.amount((high - low) / 2)}"


@dataclass(frozen=True)
class Arrow:
    """What memory does to one mixer in one group, said in words: means at its shortest and its longest context."""

    data: str
    group: str
    mixer: str
    ends: tuple[int, int]
    means: dict[str, tuple[summaries.Interval, summaries.Interval]]  # by response
    exact: dict[
        str, tuple[float, float]
    ]  # of the exact clone, by response; NaN where it isn't known


def arrows(results: Results) -> list[Arrow]:
    """One for each mixer of each group that has two contexts; the groups as the study lists its data sets."""
    table, metrics = results.rows, measured(results.rows)
    known = {metric: results.exact(metric) for metric in metrics}
    out = []
    for name, levels, rows in groups(table):
        ends = int(rows["context"].min()), int(rows["context"].max())
        short = {k: v for k, v in levels.items() if k not in ("condition", "head")}
        if words.held(short) or str(levels.get("head", "mse")) != "mse":
            continue  # another size, or a head that draws its actions
        said = words.data(name)
        condition = str(levels.get("condition", "time"))
        if condition != "time":
            said += f", {words.level('condition', condition)}"
        exact = {
            metric: (_at(found, name, ends[0]), _at(found, name, ends[1]))
            for metric, found in known.items()
            if condition == "time"
        }
        for mixer in words.levels("mixer", rows["mixer"].unique()):
            cells = [rows[(rows["mixer"] == mixer) & (rows["context"] == end)] for end in ends]
            if min(len(cell) for cell in cells) < 2:
                continue
            low, high = cells
            out.append(
                Arrow(
                    name,
                    said,
                    str(mixer),
                    ends,
                    {m: (_mean(low, m), _mean(high, m)) for m in metrics},
                    exact,
                )
            )
    return sorted(out, key=lambda one: results.study.data.index(one.data))


def _mean(cell: pd.DataFrame, metric: str) -> summaries.Interval:
    return summaries.mean_interval(cell[metric].to_numpy(dtype=float), tuple(cell["trial"]))


def _at(known: pd.DataFrame, data: str, context: int) -> float:
    found = known.loc[(known["data"] == data) & (known["context"] == context), "value"]
    return float(found.iloc[0]) if len(found) else float("nan")


@register("figure", "memory", order=5)
def memory(results: Results) -> base.Drawn | None:
    """An arrow a mixer from no memory to memory, a panel a response; None where nothing has two contexts."""
    if not factorial(results.rows):
        return None
    found = arrows(results)
    metrics = measured(results.rows)
    if not found or not metrics:
        return None
    names = list(dict.fromkeys(one.group for one in found))
    looks = style.looks("mixer", words.levels("mixer", {one.mixer for one in found}))
    heights, top = [], 0.0
    for before, one in zip([None, *found], found, strict=False):
        top += 1.0 if before is None or before.group == one.group else 1.9
        heights.append(top)
    figure = style.new_figure(0.9 + 0.092 * (top + 1.0))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for panel, metric in zip(panels, metrics, strict=True):
        widest = max(end.high for one in found for end in one.means[metric])
        for height, one in zip(heights, found, strict=True):
            look, (low, high) = looks[one.mixer], one.means[metric]
            moves = abs(high.mean - low.mean) > HEAD * widest
            if moves:
                panel.annotate(
                    "",
                    (high.mean, height),
                    (low.mean, height),
                    arrowprops={
                        "arrowstyle": "-|>",
                        "color": look.colour,
                        "linewidth": 1.0,
                        "shrinkA": 0,
                        "shrinkB": 0,
                        "mutation_scale": 6,
                    },
                )
            panel.plot(
                [high.low, high.high], [height] * 2, color=look.colour, linewidth=2.4, alpha=0.35
            )
            panel.plot(
                low.mean,
                height,
                marker="o",
                color=look.colour,
                markerfacecolor="white" if moves else look.colour,
                markersize=3,
                clip_on=False,
            )
        for name in names:
            rows = [(h, one) for h, one in zip(heights, found, strict=True) if one.group == name]
            ends = [rows[0][0] - 0.5, rows[-1][0] + 0.5]
            for value, line in zip(rows[0][1].exact.get(metric, ()), (":", "-"), strict=False):
                panel.plot(
                    [value] * 2,
                    ends,
                    color="#1a1a1a",
                    linewidth=0.8,
                    linestyle=line,
                    zorder=0.5,
                )
        panel.set_xlim(left=0)
        panel.tick_params(axis="y", length=0)
        panel.set_xlabel(words.response(metric).axis().replace(" (", "\n("), linespacing=1.0)
    panels[0].set_yticks(
        [
            float(np.mean([h for h, one in zip(heights, found, strict=True) if one.group == name]))
            for name in names
        ],
        ["\n".join(base.wrap(name, 27)) for name in names],
        fontsize=style.SMALL,
        linespacing=1.0,
    )
    panels[0].set_ylim(top + 0.8, 0.2)
    base.legend(figure, "mixer", looks)
    low, high = found[0].ends
    return base.Drawn(
        figure=figure,
        title="What memory does to each architecture",
        caption=(
            f"From no memory (open circles, K = {low}) to memory (heads of arrows, K = {high}; a full circle where the "
            "two are nearer than a head is long), with 95 % intervals of the latter over seeds; an arrow to the left "
            "lowers a regret or an error. Rows: data set, and what the policy is told besides time. Vertical lines: "
            "the exact clone, without memory (dotted) and with it; it acts without noise."
        ),
        trials=tuple(
            dict.fromkeys(
                t
                for one in found
                for ends in one.means.values()
                for cell in ends
                for t in cell.trials
            )
        ),
    )


@register("figure", "interaction", order=22)
def interaction(results: Results) -> base.Drawn | None:
    """Effect of the longest against the shortest context with intervals, a panel a response, a row a
    data set and head; None where nothing compares. The margin shades effects that are too small to matter."""
    table = results.rows
    if not factorial(table):
        return None
    done = summaries.finished(table)
    metrics = measured(done)
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
            "intervals over seeds. Left of zero, longer context lowers a regret or an error."
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
