"""What only this study estimates and draws: what memory is worth over the dose, the trend of it, its harm, its worth
where nothing is hidden, and the dose-response figure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from pydantic import Field

from ablate.analyse import trends
from ablate.analyse.estimators import Asked, ByT, Estimator, Untold, seeds_paired
from ablate.analyse.intervals import Alternative, combine, interval, p_value
from ablate.analyse.randomisation import Block, generator
from ablate.registry import Section, register
from ablate.report import style, summaries
from ablate.report.figures import base
from ablate.report.results import Results
from ablate.study.contrast import level_text
from ablate.words import Response

Floats = np.ndarray

ORACLES = {"lq-filter/3000": "lq-mix/single-3000"}  # who saw the state is cloned from these data


def oracle(data: str) -> str:
    """The same task with nothing hidden."""
    whole = data.partition("@")[0]
    return ORACLES.get(whole, whole)


def responses(
    rows: pd.DataFrame, metric: str, memory: int, without: int = 1, nats: str = "dose.nats"
) -> pd.DataFrame:
    """A row for each data set and seed that has cells with and without memory: its `dose`; the `gain` of memory, by how
    much it lowers the metric; and the `gap` from without memory to who is shown the whole state, who is perfect (0)
    where no such model was trained.

    rows: finished trials, one each. The mean over whatever else varies is taken.
    """
    context = rows["context"].map(level_text)
    without_rows = rows[context == str(without)]
    cells = [
        each.groupby(["data", "seed"])[metric].mean()
        for each in (rows[context == str(memory)], without_rows)
    ]
    found = pd.concat(cells, axis=1, keys=["with", "without"], join="inner").dropna().reset_index()
    doses = without_rows.groupby("data")[nats].mean()
    whole = dict(cells[1].items())
    found["dose"] = found["data"].map(doses).astype(float)
    found["gain"] = found["without"] - found["with"]
    best = [
        whole.get((oracle(d), s), 0.0) for d, s in zip(found["data"], found["seed"], strict=True)
    ]
    found["gap"] = found["without"] - np.array(best, dtype=float)
    return found[np.isfinite(found["dose"])]


def table(found: pd.DataFrame, of: str, least: float) -> tuple[Floats, Floats, int]:
    """Doses (D,), rising, and values (D, seeds) of all seeds that have every dose, and how many were left out.

    of: `gain`, or `share`: of the gap, at doses whose mean gap is at least `least`.
    """
    if of == "share":
        wide = found.groupby("data")["gap"].mean()
        found = found[found["data"].isin(wide[wide >= least].index)]
        found = found.assign(share=found["gain"] / found["gap"])
    values = found.pivot(index="data", columns="seed", values=of)
    whole = values.dropna(axis=1)
    doses = found.groupby("data")["dose"].mean().reindex(whole.index).to_numpy(dtype=float)
    order = np.argsort(doses, kind="stable")
    return doses[order], whole.to_numpy(dtype=float)[order], values.shape[1] - whole.shape[1]


def concordance(doses: Floats, values: Floats, apart: float) -> Floats:
    """For each column of values (D, n), over all pairs of doses (D,) that differ by more than `apart`: the share in
    which the higher dose has the higher value minus the share in which it has the lower.

    It is the count of Jonckheere and Terpstra between -1 and 1, and Somers' D of the value on the dose.
    """
    later = doses[None, :] - doses[:, None] > apart  # (D, D)
    if not later.any():
        raise Untold("no two doses differ")
    sign = np.sign(values[None, :] - values[:, None])  # (D, D, n)
    found: Floats = sign[later].mean(axis=0)
    return found


class OverDoses(Section):
    """What of models is compared over doses: contexts with and without memory."""

    memory: int = 20
    without: int = 1


def _found(rows: pd.DataFrame, asked: Asked, options: Any) -> pd.DataFrame:
    found = responses(rows, asked.metric, options.memory, options.without)
    if found.empty:
        raise Untold("no data set has a dose, and models with and without memory")
    return found


@register("estimator", "dose-trend")
class DoseTrend(Estimator):
    """How strictly what memory is worth rises with the dose: `concordance` within each seed. The test of Jonckheere and
    Terpstra, which permutes runs between doses, stands beside it."""

    class Options(OverDoses):
        """of: the gain of memory in the response, or the share of the gap that it is. least: the gap, in the response's
        unit, that a share needs. apart: doses that differ by fewer nats count as the same."""

        of: Literal["gain", "share"] = "gain"
        least: float = Field(default=5.0, gt=0)
        apart: float = Field(default=0.01, ge=0)

    def __call__(self, rows: pd.DataFrame, asked: Asked) -> ByT:
        o = self.options
        doses, values, lost = table(_found(rows, asked, o), o.of, o.least)
        if values.shape[1] < 2:
            raise Untold(f"{values.shape[1]} seeds have every dose; two are needed")
        each = concordance(doses, values, o.apart)
        arms = [values[i] for i in range(len(doses))]
        weights = np.linspace(-1.0, 1.0, len(arms))
        test = trends.jonckheere_test(
            [Block(weights, tuple(arms))], generator(f"dose-trend/{asked.name}")
        )
        notes = [f"{len(doses)} doses from {doses[0]:.3f} to {doses[-1]:.3f} nats"]
        notes.append(f"Jonckheere-Terpstra by permutation: p = {test.greater:.2g}")
        if lost:
            notes.append(f"{lost} seeds were left out, as they lack a dose")
        n = values.shape[1]
        return ByT(combine([1.0], [each]), n, seeds_paired(n), tuple(notes))

    @classmethod
    def gives(cls, response: Response) -> Response:
        return replace(
            response, label="rank correlation with the dose", unit="", digits=2, points=False
        )

    @property
    def says(self) -> str:
        o = self.options
        return f"{o.of} of K = {o.memory} over K = {o.without}, by dose"


@register("estimator", "no-dose")
class NoDose(Estimator):
    """What memory is worth where the meter reads (next to) nothing: the mean gain over those data sets."""

    class Options(OverDoses):
        """below: nats."""

        below: float = Field(default=0.01, gt=0)

    def __call__(self, rows: pd.DataFrame, asked: Asked) -> ByT:
        found = _found(rows, asked, self.options)
        found = found[found["dose"] < self.options.below]
        if found.empty:
            raise Untold(f"no dose is below {self.options.below:g} nats")
        _, values, lost = table(found, "gain", 0.0)
        n = values.shape[1]
        if n < 2:
            raise Untold(f"{n} seeds have every dose; two are needed")
        notes = (
            f"{len(values)} data sets without a dose: {', '.join(sorted(set(found['data'])))}",
        )
        if lost:
            notes = (*notes, f"{lost} seeds were left out, as they lack a dose")
        return ByT(combine([1.0], [values.mean(axis=0)]), n, seeds_paired(n), notes)

    @property
    def says(self) -> str:
        o = self.options
        return f"gain of K = {o.memory} over K = {o.without} below {o.below:g} nats"


@dataclass(frozen=True)
class Worst:
    """The largest of several means with bounds that hold for whichever it is (Bonferroni)."""

    each: tuple[ByT, ...]
    pairing: str
    notes: tuple[str, ...]

    @property
    def value(self) -> float:
        """The largest."""
        return max(one.value for one in self.each)

    @property
    def n(self) -> int:
        """Seeds."""
        return min(one.n for one in self.each)

    def interval(self, confidence: float) -> tuple[float, float]:
        """The largest of the lower and of the upper bounds, each at the level that all hold together."""
        level = 1.0 - (1.0 - confidence) / len(self.each)
        both = [interval(one.estimate, level) for one in self.each]
        return max(low for low, _ in both), max(high for _, high in both)

    def p_value(self, null: float, alternative: Alternative) -> float:
        """Of "it is `null`"; "greater": that some mean is, "less": that all are."""
        greater = [p_value(one.estimate, null, "greater") for one in self.each]
        some = min(1.0, len(greater) * min(greater))
        if alternative == "greater":
            return some
        every = max(p_value(one.estimate, null, "less") for one in self.each)
        return every if alternative == "less" else min(1.0, 2.0 * min(some, every))


@register("estimator", "dose-harm")
class DoseHarm(Estimator):
    """By how much memory harms at the dose at which it harms most. The dose isn't chosen beforehand, so that the bounds
    are those of all doses together."""

    Options = OverDoses

    def __call__(self, rows: pd.DataFrame, asked: Asked) -> Worst:
        found = _found(rows, asked, self.options)
        each = {
            str(name): one["gain"].to_numpy(dtype=float)
            for name, one in found.groupby("data")
            if len(one) > 1
        }
        if not each:
            raise Untold("no dose has two seeds")
        made = {name: ByT(combine([1.0], [-x]), len(x)) for name, x in each.items()}
        most = max(made, key=lambda name: made[name].value)
        n = min(len(x) for x in each.values())
        return Worst(tuple(made.values()), seeds_paired(n), (f"{most}, of {len(made)} data sets",))

    @property
    def says(self) -> str:
        o = self.options
        return f"largest harm of K = {o.memory} over K = {o.without} at any dose"


# --- the figure ---

DRAWN = {
    "condition": "time",
    "history": "states+actions",
    "train.loss": "all",
    "measure.recovery.shown": "as-it-was",
}
METRIC = "recovery.shortfall"
KINDS = {  # what hides -> marker
    "": "o",
    "mask": "s",
    "noise": "D",
    "drop": "^",
    "delay": "v",
}
SAID = {
    "": "nothing hidden",
    "mask": "velocities masked",
    "noise": "noise",
    "drop": "frames dropped",
    "delay": "late actions",
}
WHO = {  # who demonstrates -> (filled, colour)
    "saw the state": ("full", "#0173b2"),
    "filtered": ("none", "#d55e00"),
    "saw the present": ("left", "#029e73"),
}


def demonstrator(data: str) -> str:
    """Who acted in a data set of the linear system, a key of `WHO`."""
    saw, filtered, blind = WHO
    return filtered if data.startswith("lq-filter") else blind if data.endswith(":masked") else saw


def kind(data: str) -> str:
    """What hides, a key of `KINDS`."""
    return data.partition("@")[2].partition("-")[0]


def _shown(results: Results) -> pd.DataFrame:
    done = summaries.finished(results.rows)
    for factor, level in DRAWN.items():
        if factor in done.columns:
            # an option that changes nothing without memory has no level there
            kept = done[factor].map(level_text).isin([level_text(level), "", "nan", "None"])
            done = done[kept]
    return done[done["data"].str.startswith("lq-")]


@register("figure", "dose_response", order=10)
def dose_response(results: Results) -> base.Drawn | None:
    """What memory is worth, over the dose: in points, and as a share of the gap; a mark a data set. None without
    doses."""
    if not {METRIC, "dose.nats", "context", "mixer"} <= set(results.rows.columns):
        return None
    rows = _shown(results)
    rows = rows[rows["mixer"] == "gru"]
    memory = rows["context"].max()
    if memory == 1 or rows.empty:
        return None
    found = responses(rows, METRIC, int(memory))
    if found["data"].nunique() < 2:
        return None
    figure = style.new_figure(2.75)
    panels = figure.subplots(1, 2)
    cells = {"gain": found, "share": _with_gap(found)}
    for panel, (of, each) in zip(panels, cells.items(), strict=True):
        for name, one in each.groupby("data"):
            cell = summaries.mean_interval(one[of].to_numpy(dtype=float))
            x = max(float(one["dose"].mean()), 0.0)
            fill, colour = WHO[demonstrator(str(name))]
            panel.plot([x, x], [cell.low, cell.high], color=colour, linewidth=0.8, zorder=2)
            panel.plot(
                x, cell.mean, color=colour, marker=KINDS[kind(str(name))], markersize=4.5,
                fillstyle=fill, markerfacecoloralt="white", markeredgewidth=0.9, zorder=3,
            )  # fmt: skip
        if of == "gain":
            _curve(panel, each)
        _filtered(panel, rows, each, of)
        panel.axhline(0.0, color="#808080", linewidth=0.6, zorder=0)
        panel.set_xscale("function", functions=(_root, np.square))
        panel.set_xlim(0.0, 1.1 * max(float(found["dose"].max()), 0.02))
        top = panel.get_xlim()[1]
        panel.set_xticks([t for t in (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0) if t <= top])
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.set_xlabel("dose, in nats a timestep")
    panels[1].axhline(1.0, color="#808080", linewidth=0.6, linestyle=":", zorder=0)
    _limit(panels[1])
    base.label(panels[0], "less shortfall with memory, in points")
    base.label(panels[1], "share of the gap recovered")
    handles = [
        Line2D([], [], color="#333333", marker=KINDS[each], linestyle="", label=SAID[each])
        for each in KINDS
        if each in {kind(name) for name in found["data"]}
    ]
    present = {demonstrator(name) for name in found["data"]}
    for who, (fill, colour) in WHO.items():
        if who in present:
            look = {"marker": "o", "fillstyle": fill, "markerfacecoloralt": "white"}
            said = f"demonstrator: {who}"
            handles.append(Line2D([], [], color=colour, linestyle="", label=said, **look))
    handles += [
        Line2D([], [], color="#1a1a1a", linewidth=0.9, label="nearest rising curve"),
        Line2D([], [], color="#1a1a1a", marker="_", linestyle="", label="exact filter"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return base.Drawn(
        figure=figure,
        title="What memory is worth, by how much is hidden",
        caption=(
            f"By how much {memory} timesteps of memory lower the shortfall to the optimum that sees the state (left; at"
            " most 100 points an episode), and which share that is of the gap between a model without memory and"
            " one that is shown the state (right; where the gap is at least 5 points), over the dose. A mark: a data"
            " set of the linear system, GRUs, with its 95 % interval over"
            f" {found['seed'].nunique()} seeds. Line and band: the nearest rising curve through the marks of the"
            " demonstrator who saw the state, and its 95 % bootstrap band. Bars: what the Kalman filter with the"
            " optimal regulator gains over the same models without memory, the most that can be had. Demonstrators saw"
            " the state, or what is shown of it and acted by their Kalman filter or by the present alone."
        ),
        trials=tuple(dict.fromkeys(rows["trial"])),
    )


def _root(values: Any) -> Any:
    return np.sqrt(np.maximum(values, 0.0))


def _with_gap(found: pd.DataFrame, least: float = 5.0) -> pd.DataFrame:
    wide = found.groupby("data")["gap"].transform("mean") >= least
    return found[wide].assign(share=lambda x: x["gain"] / x["gap"])


def _curve(panel: Any, found: pd.DataFrame) -> None:
    """The isotonic curve with its band through the doses of the demonstrator who saw the state."""
    saw = found[found["data"].map(demonstrator) == next(iter(WHO))]
    doses, values, _ = table(saw, "gain", 0.0)
    if len(doses) < 3 or values.shape[1] < 2:
        return
    block = Block(np.linspace(-1.0, 1.0, len(doses)), tuple(values))
    fit = trends.isotonic(
        [block], [f"{d:g}" for d in doses], generator("dose-response"), together=True
    )
    x = np.maximum(doses, 0.0)
    panel.fill_between(x, fit.low, fit.high, color="#1a1a1a", alpha=0.12, linewidth=0, zorder=1)
    panel.plot(x, fit.fit, color="#1a1a1a", linewidth=0.9, zorder=1)


def _filtered(panel: Any, rows: pd.DataFrame, found: pd.DataFrame, of: str) -> None:
    """What the exact filter would gain over the models without memory."""
    without = rows[rows["context"] == 1].groupby("data")[[METRIC, "recovery.filter"]].mean()
    for name, one in found.groupby("data"):
        gain = float(without.loc[name, METRIC] - without.loc[name, "recovery.filter"])
        if math.isfinite(gain):
            y = gain if of == "gain" else gain / float(one["gap"].mean())
            panel.plot(
                max(float(one["dose"].mean()), 0.0), y, color="#1a1a1a", marker="_", markersize=9
            )


def _limit(panel: Any) -> None:
    """Shares between -1.5 and 1.5 at most, whatever intervals of few seeds say."""
    low, high = panel.get_ylim()
    panel.set_ylim(max(low, -1.5), min(high, 1.5))
