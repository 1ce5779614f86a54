"""What only this study draws: the share of the effect of memory that each switch removes, and how well who acts is read
from the features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from ablate import words
from ablate.analyse import estimators
from ablate.analyse.estimators import Asked, Untold
from ablate.registry import register
from ablate.report import style, summaries
from ablate.report.figures import base
from ablate.report.results import Results
from ablate.study.contrast import level_text

PLAIN = {
    "data": "lq-mix/episode-3000",
    "condition": "time",
    "history": "states+actions",
    "head": "mse",
    "measure.past.shown": "as-it-was",
    "measure.past.context": "trained",
    "measure.past.smooth": "0",
}
MEMORY = "context[1] - context[20]"


@dataclass(frozen=True)
class Mechanism:
    """A switch, in words, and the share of the effect of memory that it removes: contrast `of` over contrast `over`.

    held: levels at which other factors than usual are held. group: the heading it stands under. exact: whether the
    exact posterior is under the same switch.
    """

    group: str
    said: str
    of: str
    over: str
    held: Mapping[str, str]
    exact: bool = True

    def share(self, rows: Any, metric: str) -> estimators.Finding:
        """The share, of a response. Raises Untold where it can't be told."""
        return self._found(rows, metric, "ratio", {"of": self.of, "over": self.over})

    def amount(self, rows: Any, metric: str) -> estimators.Finding:
        """What it removes, in the response's unit. Raises Untold where it can't be told."""
        return self._found(rows, metric, "contrast", {"of": self.of})

    def _found(
        self, rows: Any, metric: str, name: str, options: Mapping[str, str]
    ) -> estimators.Finding:
        named = {name for name in rows.columns if f"{name}[" in self.of}
        for factor, level in {**PLAIN, **self.held}.items():
            if factor not in named and factor in rows.columns:
                rows = rows[rows[factor].map(level_text) == level_text(level)]
        if not len(rows):
            raise Untold("nothing was run")
        return estimators.make(name, options)(rows, Asked(metric))


_GRU = {"mixer": "gru"}


def _past(said: str, level: str, **held: str) -> Mechanism:
    """What is shown of the past is changed, of policies that were trained with it as it was."""
    factor = "measure.past.shown"
    plain = f"context[20] : {factor}[as-it-was]"
    of = f"context[20] : {factor}[{level}] - {plain}"
    over = f"context[1] : {factor}[as-it-was] - {plain}"
    return Mechanism("The past that it is shown", said, of, over, held)


def _tested(trained: int, tested: str) -> Mechanism:
    """Another window in use than in training."""

    def cell(context: int, used: str) -> str:
        return f"context[{context}] : measure.past.context[{used}]"

    base = cell(20, "trained")
    of = f"{cell(trained, tested)} - {base}"
    over = f"{cell(1, 'trained')} - {base}"
    said = f"trained with {trained}, used with {trained if tested == 'trained' else tested}"
    return Mechanism("Window in training and in use", said, of, over, _GRU)


def _with(
    group: str, said: str, factor: str, level: str, usual: str, exact: bool = True
) -> Mechanism:
    """The effect at another level of a factor of training, against the effect at the usual one."""
    of = f"({MEMORY}) : ({factor}[{usual}] - {factor}[{level}])"
    return Mechanism(group, said, of, f"({MEMORY}) : {factor}[{usual}]", _GRU, exact)


def _shows(said: str, level: str) -> Mechanism:
    """Less of the past is shown, in training and in use."""
    plain = "context[20] : history[states+actions]"
    of = f"context[20] : history[{level}] - {plain}"
    over = f"context[1] : history[states+actions] - {plain}"
    return Mechanism("Told", said, of, over, _GRU, exact=False)


def _filtered(by: str) -> Mechanism:
    """A filter of the actions of a policy without memory, as if it were one."""
    factor = "measure.past.smooth"
    plain = f"context[1] : {factor}[0]"
    of = f"{plain} - context[1] : {factor}[{by}]"
    over = f"{plain} - context[20] : {factor}[0]"
    said = f"no memory, its actions smoothed ({by})"
    return Mechanism("Memory that isn't belief", said, of, over, {})


def _on(said: str, data: str) -> Mechanism:
    """The effect on other data."""
    return _with("Data", said, "data", data, PLAIN["data"])


MECHANISMS = (
    _past("another past of who acts (control)", "redrawn"),
    _past("in random order, the bag (control)", "shuffled", mixer="bag"),
    _past("in random order, each action with its state", "paired"),
    _past("in random order, each action with the next state", "shuffled"),
    _past("states and actions in different orders", "torn"),
    _past("another controller's, ending in the same state", "transplanted"),
    _past("the best controller's, ending in the same state", "better"),
    _tested(20, "5"),
    _tested(20, "1"),
    _tested(5, "20"),
    _tested(5, "trained"),
    _tested(5, "1"),
    _tested(1, "20"),
    _tested(1, "5"),
    _with("Told", "who acts", "condition", "policy-id+time", "time", exact=False),
    _with("Told", "the time (against nothing)", "condition", "time", "none"),
    _shows("past actions only", "actions"),
    _shows("past states only", "states"),
    _on("4 controllers", "lq-mix/episode-3000-of-4"),
    _on("8 controllers", "lq-mix/episode-3000-of-8"),
    _on("drawn anew at each step (control)", "lq-mix/step-3000"),
    _filtered("0.5"),
    _filtered("0.8"),
)
SHARES, POINTS = (-1.2, 2.2), (-45.0, 75.0)  # of the axes


@register("figure", "mechanisms", order=10)
def mechanisms(results: Results) -> base.Drawn | None:
    """The share of the effect of memory that each switch removes, a row a switch; None where there is none."""
    done = summaries.finished(results.rows)
    found: list[tuple[Mechanism, dict[str, estimators.Finding]]] = []
    for mechanism in MECHANISMS:
        shares: dict[str, estimators.Finding] = {}
        asked = {"past.action_error": mechanism.share, "past.regret": mechanism.amount}
        if mechanism.exact:
            asked["past.clone_error"] = mechanism.share
        for metric, number in asked.items():
            try:
                shares[metric] = number(done, metric)
            except (Untold, KeyError):
                continue
        if shares:
            found.append((mechanism, shares))
    if not found:
        return None
    heights, height, group = [], 0.0, ""
    headings: list[tuple[float, str]] = []
    for mechanism, _ in found:
        if mechanism.group != group:
            group = mechanism.group
            headings.append((height, group))
            height += 1.0
        heights.append(height)
        height += 1.0
    figure = style.new_figure(0.75 + 0.145 * height)
    panels = figure.subplots(1, 2, sharey=True)
    beyond = False
    for place, (_, shares) in zip(heights, found, strict=True):
        for panel, metric, limits, at, look in (
            (panels[0], "past.action_error", SHARES, place, _POLICY),
            (panels[0], "past.clone_error", SHARES, place + 0.32, _CLONE),
            (panels[1], "past.regret", POINTS, place, _POLICY),
        ):
            if metric in shares:
                beyond |= _drawn(panel, shares[metric], limits, at, look)
    panels[0].axvline(1.0, color="#808080", linewidth=0.8, linestyle=":", zorder=0.5)
    for panel, limits, said in (
        (panels[0], SHARES, "share gone of what memory\ntakes off the action error"),
        (panels[1], POINTS, "regret that memory then takes off\nno longer, or adds (points)"),
    ):
        panel.axvline(0.0, color="#808080", linewidth=0.8, zorder=0.5)
        panel.set_xlim(*limits)
        panel.set_xlabel(said)
        panel.tick_params(axis="y", length=0)
    panels[0].set_ylim(height - 0.4, -0.7)
    panels[0].set_yticks(
        [*(place for place, _ in headings), *heights],
        [*(said for _, said in headings), *(mechanism.said for mechanism, _ in found)],
    )
    for tick in panels[0].get_yticklabels()[: len(headings)]:
        tick.set_fontweight("bold")
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, linewidth=0.9, label=label)
        for look, label in ((_POLICY, "learnt"), (_CLONE, "exact posterior, same windows"))
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    seeds = done["seed"].nunique()
    return base.Drawn(
        figure=figure,
        title="Which mechanism carries the effect of memory",
        caption=(
            "What is gone of the effect of memory (20 timesteps against 1) under each switch, or given by a filter,"
            f" with 95 % intervals over {seeds} seeds. Left: as a share of the effect on the error of held-out actions"
            " (Fieller), beside the exact posterior's that reads the same windows: 0 (solid) nothing is gone, 1"
            " (dotted) all of it; below 0 the effect grows, above 1 it is more than undone. Right: in points of the"
            " regret to the optimal policy, since the effect on it may be none, of which there is no share."
            f" {words.data(PLAIN['data'])}." + (base.OFF_AXIS if beyond else "")
        ),
        trials=tuple(dict.fromkeys(done["trial"])),
    )


_POLICY = style.Look("#0072b2", "o", "-")
_CLONE = style.Look("#1a1a1a", "D", "-")


def _drawn(
    panel: Any,
    found: estimators.Finding,
    limits: tuple[float, float],
    height: float,
    look: style.Look,
) -> bool:
    """A number with its interval; whether anything of it lies beyond the axis."""
    (low, high), (left, right) = found.interval(0.95), limits
    inside = [min(max(x, left), right) for x in (low, high)]
    panel.plot(inside, [height] * 2, color=look.colour, linewidth=0.9, zorder=2)
    size = 2.6 if look is _CLONE else 3.8
    if left <= found.value <= right:
        panel.plot(found.value, height, color=look.colour, marker=look.marker, markersize=size)
    for over, edge, marker in ((low < left, left, "<"), (high > right, right, ">")):
        if over:
            panel.plot(edge, height, marker, color=look.colour, markersize=size, clip_on=False)
    return low < left or high > right


@register("figure", "probe", order=11)
def probe(results: Results) -> base.Drawn | None:
    """How often who acts is read from the features, by timestep; None where it wasn't asked."""
    done = summaries.finished(results.rows)
    for factor, level in PLAIN.items():
        if factor not in done.columns:
            return None
        done = done[done[factor].map(level_text) == level_text(level)]
    series = results.series.merge(done[["trial", "mixer", "context", "seed"]], on="trial")
    at = series[series["response"].isin(_READ)]
    known = series[series["response"] == "probe.exact_at"]
    if not len(at):
        return None
    at, known = (x[x["context"].isin([1, 20])] for x in (at, known))
    contexts = sorted(at["context"].unique())
    mixers = words.levels("mixer", at["mixer"].unique())
    looks = style.looks("mixer", mixers)
    figure, panels, place = base.grid(len(contexts), 2, 2.0)
    for panel, context in zip(panels, contexts, strict=True):
        exactly = known[known["context"] == context].groupby("index")["value"].mean()
        spots = [_log(x) for x in exactly.index]
        panel.plot(spots, exactly, color="#1a1a1a", linewidth=0.9, linestyle="--")
        for mixer in mixers:
            look = looks[mixer]
            here = at[(at["context"] == context) & (at["mixer"] == mixer)]
            for response, one in here.groupby("response"):
                cells = [
                    summaries.mean_interval(x["value"].to_numpy(dtype=float))
                    for _, x in one.groupby("index")
                ]
                panel.plot(
                    spots,
                    [c.mean for c in cells],
                    color=look.colour,
                    marker=look.marker,
                    linestyle=_READ[str(response)],
                    linewidth=0.9,
                )
                panel.vlines(
                    spots,
                    [c.low for c in cells],
                    [c.high for c in cells],
                    color=look.colour,
                    linewidth=0.7,
                )
        base.title(panel, words.setting("context", context))
        panel.set_xticks(spots, [f"{x:g}" for x in exactly.index])
        panel.set_ylim(0.4, 1.02)
        panel.set_xlabel("timestep from which on")
    base.label(panels[0], "accuracy of who acts")
    lines = [
        Line2D([], [], color="#1a1a1a", linewidth=0.9, linestyle=line, label=label)
        for line, label in (
            ("--", "exact posterior"),
            ("-", "read linearly"),
            (":", "by its action"),
        )
    ]
    base.legend(figure, "mixer", {m: replace(x, line="") for m, x in looks.items()}, lines, place)
    return base.Drawn(
        figure=figure,
        title="Who acts, read from the features",
        caption=(
            "How often the likeliest controller by a logistic regression on the last hidden vector is the one who acts,"
            " on held-out episodes that the regression wasn't fitted on (solid), and the model's own action is nearest"
            " to that of who acts (dotted), by timestep of the episode (each mark: up to"
            f" the next); means over {base.seeds(cells)} seeds with 95 % intervals. Dashed: the likeliest controller by"
            f" the exact posterior with the same window. {words.data(PLAIN['data'])}."
        ),
        trials=tuple(dict.fromkeys(at["trial"])),
        appended=True,
    )


_READ = {"probe.accuracy_at": "-", "probe.nearest_at": ":"}  # response -> line


def _log(timestep: float) -> float:
    return float(np.log2(timestep + 1.0))
