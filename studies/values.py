"""What only this study measures, conditions on and draws: a predicted return beside every value that it could be an
estimate of; decoding by what is likely and by what pays; returns to ask for from which luck was taken.

In the tabular processes (`chain/...`, `grid/...`) every value is known exactly, and in the linear-quadratic system
(`lq-mix/...`) all but the planner's. Of a window h and the action a at its
end,

    the behaviour's, given the window    E[r + g V | h, a], the policies weighed by how likely each made h
    the behaviour's                      the same given the present state and the time alone: Q of no single policy
    the planner's                        Q of the policy that looks `horizon` steps ahead on the behaviour's value
    the optimum's                        Q*

with the time limit and the discount of the models throughout. A value token doesn't count the reward beside it, so that
what is held against them is r + g V.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from pydantic import Field

from ablate import registry, words
from ablate.config import timesteps
from ablate.data import catalogue, exact, streams, tabular
from ablate.data.catalogue import DataSet
from ablate.data.families import lq
from ablate.data.families import tabular as sets
from ablate.data.monte_carlo import monte_carlo
from ablate.data.tabular_windows import window_returns
from ablate.data.trajectories import Trajectories
from ablate.learn.joint import Joint, values_to_go
from ablate.measure.acting import ActingOptions, act, no_value, read_options, unread
from ablate.measure.base import Measurement, Numbers, Trained
from ablate.measure.episodes import RESPONSES, optimal_returns, summaries
from ablate.measure.values import action_values
from ablate.models.conditions.return_to_go import ReturnToGo
from ablate.plan.options import PlanOptions
from ablate.registry import Section, register
from ablate.report import style
from ablate.report import summaries as tables
from ablate.report.figures import base
from ablate.report.results import Results
from ablate.words import Response

# Of what is measured here. Change it whenever that changes: all its rows are then measured again.
VERSION = "1"
Floats = np.ndarray


def joint(config: Mapping[str, Any]) -> bool:
    """Whether models of this configuration predict whole trajectories."""
    return bool(registry.get("algorithm", config["algorithm"]).system == "joint")


def nothing(responses: Sequence[Response], size: int) -> dict[str, Numbers]:
    """What a measurement gives where it has nothing to say: NaN for each of `size` models."""
    found: dict[str, Numbers] = {}
    for one in responses:
        found[one.name] = np.full((size, 1) if one.index else size, np.nan)
        if one.index:
            found[one.index] = np.zeros(1)
    return found


# --- every value that a return could be an estimate of ---

CANDIDATES = ("window", "behaviour", "plan", "optimal")


def candidates(
    data: DataSet, rows: Floats, context: int, discount: float, horizon: int
) -> dict[str, Floats] | None:
    """The exact values (B,) of what the held-out `rows` did, by `CANDIDATES`; None where they aren't known.

    horizon: steps that the planner looks ahead on the behaviour's value.
    """
    name, held = data.spec.name, data.held_out
    if data.spec.family == "lq-mix" and "@" not in name:
        mixing, policies = lq.mixture(data.spec)
        past, present = (
            exact.window_worth(held, k, mixing, discount, policies)[rows] for k in (context, 1)
        )
        best = exact.worth(held, None, discount)[rows]
        unknown = np.full(len(rows), np.nan)
        return {"window": past, "behaviour": present, "plan": unknown, "optimal": best}
    if data.spec.family not in sets.TASKS or "@" in name:
        return None
    law = sets.parse(name, name, []).law
    if law.observable is not None:
        return None
    process = law.process
    past = min(context, process.horizon)
    behaviour = tabular.data_values(law, discount)
    _, planned = tabular.lookahead(process, behaviour.state, horizon, discount)
    assert held.simulator_state is not None
    state = held.simulator_state[rows, 0].astype(np.int64)
    at = held.timestep[rows], state, held.actions[rows].argmax(1)
    return {
        "window": window_returns(law, held, past, acted=True, discount=discount)[rows],
        "behaviour": behaviour.action[at],
        "plan": tabular.evaluate(process, planned, discount).action[at],
        "optimal": tabular.optimise(process, discount)[0].action[at],
    }


def tracked(
    predicted: Floats, told: Floats, other: Floats, apart: float
) -> tuple[Floats, Floats, float]:
    """Which of two values `told` and `other` (B,) predictions (S, B) are nearer, where the two differ.

    apart: least difference that counts, in standard deviations of `told`. Returns the mean squared error to `other`
    less that to `told`, over the variance of `told` (S,); how far predictions are on the way from `told` (0) to `other`
    (1), the least-squares coefficient (S,); and the share of rows that count. NaN where fewer than ten do.
    """
    gap, spread = other - told, told.std()
    rows = np.flatnonzero(np.abs(gap) > apart * spread)
    if len(rows) < 10 or not spread:
        undefined = np.full(len(predicted), np.nan)
        return undefined, undefined, len(rows) / len(told)
    gap, off = gap[rows], predicted[:, rows] - told[rows]
    way = (off * gap).sum(1) / np.square(gap).sum()
    excess = (np.square(off - gap) - np.square(off)).mean(1) / spread**2
    return excess, way, len(rows) / len(told)


def line(predicted: Floats, exact: Floats) -> tuple[Floats, Floats]:
    """Slope (S,) of the least-squares line of predictions (S, B) against exact values (B,), and their mean squared
    error (S,) over the variance of the exact values; NaN where these don't vary."""
    spread = exact.std()
    if not spread:
        return (np.full(len(predicted), np.nan),) * 2
    centred = exact - exact.mean()
    slope = predicted @ centred / np.square(centred).sum()
    return slope, np.square(predicted - exact).mean(1) / spread**2


@register("measurement", "semantics", VERSION)
class Semantics(Measurement):
    """What a predicted return is an estimate of: r + g V of held-out windows and their actions beside exact values."""

    responses = (
        *(
            Response(f"slope_{name}", f"slope on {said}")
            for name, said in (
                ("window", "the behaviour's value given the window"),
                ("behaviour", "the behaviour's value"),
                ("plan", "the planning policy's value"),
                ("optimal", "the optimal value"),
            )
        ),
        *(
            Response(f"error_{name}", f"squared error to {said}", "of the values' variance", "lower", digits=3)
            for name, said in (
                ("window", "the behaviour's value given the window"),
                ("behaviour", "the behaviour's value"),
                ("plan", "the planning policy's value"),
                ("optimal", "the optimal value"),
            )
        ),
        Response("excess_behaviour", "squared error to the behaviour's value beyond that given the window",
                 "of the values' variance", digits=3),
        Response("excess_plan", "squared error to the planner's value beyond that to the behaviour's",
                 "of the values' variance", digits=3),
        Response("excess_optimal", "squared error to the optimum beyond that to the behaviour's value",
                 "of the values' variance", digits=3),
        Response("toward_behaviour", "way from the value given the window to that without it", "fraction"),
        Response("toward_plan", "way from the behaviour's value to the planner's", "fraction"),
        Response("toward_optimal", "way from the behaviour's value to the optimum", "fraction"),
        Response("differing", "share of rows where behaviour and optimum differ", "fraction"),
        Response("floor_error", "squared error of the Monte-Carlo table", "of the values' variance", "lower", digits=3),
        Response("beyond_floor", "squared error of the Monte-Carlo table beyond the model's", "of the values' variance",
                 "higher", digits=3),
        Response("floor_slope", "slope of the Monte-Carlo table"),
        Response("floor_toward_optimal", "way from the behaviour's value to the optimum, of the Monte-Carlo table",
                 "fraction"),
    )  # fmt: skip

    class Options(Section):
        """timesteps: held-out ones that are asked about. horizon: of the planner whose value is compared. apart: least
        difference of two exact values that counts, in deviations of the behaviour's. least: see `monte_carlo`."""

        timesteps: int = Field(default=2048, ge=16)
        horizon: int = Field(default=3, ge=1)
        apart: float = Field(default=0.25, gt=0)
        least: int = Field(default=10, ge=1)

    def __call__(self, trained: Trained, options: Any) -> Mapping[str, Numbers]:
        system, size = trained.system, len(trained.seeds)
        if not joint(system.config):
            return nothing(self.responses, size)
        data, discount = system.data, system.settings.discount
        held = data.held_out
        drawn = streams.stream(trained.streams, 0, "semantics").permutation(len(held.timestep))
        rows = np.sort(drawn[: options.timesteps])
        values = candidates(data, rows, system.context, discount, options.horizon)
        if values is None:
            return nothing(self.responses, size)
        predicted = np.stack([action_values(system, m, held, rows) for m in trained.models])
        rewards, after = values_to_go(data.train, discount, system.settings.penalty)
        counted = monte_carlo(
            data.train, rewards + discount * after, held, system.context, options.least
        )
        seen = np.isfinite(counted)
        mean = (
            counted[seen].mean() if seen.any() else np.nan
        )  # of continuous states there is no table
        floor = np.where(seen, counted, mean)[rows]
        return compared(predicted, floor, values, options.apart)

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> frozenset[str]:
        return frozenset(cls.Options.model_fields) if joint(config) else frozenset()

    @classmethod
    def seconds(cls, config: Mapping[str, Any], options: Mapping[str, Any], tokens: Any) -> float:
        return 0.003 * options["timesteps"] if joint(config) else 0.0


def compared(
    predicted: Floats, floor: Floats, values: Mapping[str, Floats], apart: float
) -> dict[str, Numbers]:
    """The responses of `Semantics` of predictions (S, B), a Monte-Carlo table's (B,), and exact values (B,).

    Slopes and errors are taken where the behaviour's value given the window and the optimum differ, everywhere where
    they never do.
    """
    gap = np.abs(values["optimal"] - values["window"])
    rows = np.flatnonzero(gap > apart * values["window"].std())
    rows = rows if len(rows) >= 10 else np.arange(len(gap))
    found: dict[str, Numbers] = {}
    size = len(predicted)
    for name in CANDIDATES:
        found[f"slope_{name}"], found[f"error_{name}"] = line(
            predicted[:, rows], values[name][rows]
        )
        if name != "window":
            excess, way, share = tracked(predicted, values["window"], values[name], apart)
            found[f"excess_{name}"], found[f"toward_{name}"] = excess, way
    found["differing"] = np.full(size, share)
    slope, error = line(floor[None, rows], values["window"][rows])
    _, way, _ = tracked(floor[None], values["window"], values["optimal"], apart)
    for name, value in (("error", error), ("slope", slope), ("toward_optimal", way)):
        found[f"floor_{name}"] = np.full(size, value[0])
    found["beyond_floor"] = found["floor_error"] - found["error_window"]
    return found


# --- decoding ---

# What is decoded for, and the options of the search that say so.
DECODINGS: dict[str, dict[str, Any]] = {
    "greedy": {"objective": "direct"},
    "likelihood": {"objective": "likelihood"},
    "rewards": {"objective": "rewards"},
    "return": {"objective": "return"},
    "value": {"objective": "value"},
    "quantile": {"objective": "return", "percentile": 0.9},
    "thresholded": {"objective": "return", "least_likely": 0.3},
    "critic": {"objective": "return", "value": "critic"},
    "exact": {"objective": "return", "value": "exact"},
}


def searches(config: Mapping[str, Any]) -> bool:
    """Whether models of this configuration can be searched as it says: they predict whole trajectories, and their
    window holds the timesteps that are looked at and those that are imagined."""
    options = PlanOptions(
        **{n: v for n, v in config["measure"]["decode"].items() if n in PlanOptions.model_fields}
    )
    needed = options.executed + options.horizon
    return joint(config) and (options.mode == "reference" or needed <= timesteps(config))


def decoded(by: str, options: Any) -> PlanOptions:
    """The search that the options of `decode` ask for."""
    said = options.model_dump(include=set(PlanOptions.model_fields))
    return PlanOptions(**said | DECODINGS[by])


def exact_score(data: DataSet, by: str, horizon: int, discount: float) -> float:
    """The expected score of the same decoding done without error: likelihood by the exact clone without memory, rewards
    and values by look-ahead on the behaviour's exact values, and the optimal policy.

    NaN where none is known: of other decodings, and of likelihood where the past tells who acts.
    """
    name = data.spec.name
    if data.spec.family not in sets.TASKS or "@" in name or "-hidden" in name:
        return float("nan")
    law = sets.parse(name, name, []).law
    process, after = law.process, tabular.data_values(law, discount).state
    if by in ("greedy", "likelihood") and len(law.components[0]) == 1:
        policy = tabular.greedy(tabular.clone(law))
    elif by == "return":
        policy = tabular.lookahead(process, after, horizon, discount)[1]
    elif by == "rewards":
        policy = tabular.lookahead(process, np.zeros_like(after), horizon, discount)[1]
    elif by == "value":
        unpaid = replace(process, rewards=np.zeros_like(process.rewards))
        policy = tabular.lookahead(unpaid, after, horizon, discount)[1]
    elif by == "exact":
        policy = tabular.optimise(process, discount)[1]
    else:
        return float("nan")
    return float(data.anchors.score(tabular.expected_return(process, policy)))


def best_value(data: DataSet, discount: float) -> float:
    """What the best policy can expect from the start, which no promise should exceed; NaN where it isn't known."""
    name = data.spec.name
    if data.spec.family not in sets.TASKS or "@" in name:
        return float("nan")
    process = sets.parse(name, name, []).process
    return float(process.start @ tabular.optimise(process, discount)[0].state[0])


@register("measurement", "decode", VERSION)
class Decode(Measurement):
    """A joint model acts by what it decodes, replanned at each timestep."""

    responses = (
        *RESPONSES,
        Response("promised", "return that the first plan promises", "reward units", digits=1),
        Response("optimism", "promise beyond the optimal value", "reward units", digits=1),
        Response("exact", "expected score of the same decoding without error", "points", digits=1, points=True),
        Response("gap", "score beyond that of the exact decoding", "points", digits=1, points=True),
    )  # fmt: skip
    acts = True

    class Options(PlanOptions, ActingOptions):
        """by: what is decoded for, see `DECODINGS`, whose options of the search are laid over the others'."""

        by: Literal[tuple(DECODINGS)] = "return"  # type: ignore[valid-type]

    def __call__(self, trained: Trained, options: Any) -> Mapping[str, Numbers]:
        size = len(trained.seeds)
        if not searches(trained.system.config | {"measure": {"decode": options.model_dump()}}):
            return nothing(self.responses, size)
        plan = decoded(options.by, options)
        data = trained.system.data
        agent: Any = trained.system.actor(trained.models, {"plan": plan})
        if options.by == "greedy":
            options = options.model_copy(update={"actions": "mode"})
        rollouts = act(trained, options, {}, agent=agent)
        optimal = optimal_returns(data.spec, rollouts.env_seeds)
        found = summaries(rollouts, data.anchors, optimal, options.cap, options.below)
        promised = np.full(size, np.nan)
        if options.by not in ("greedy", "likelihood", "value"):  # whose score is no return
            promised = np.array([float(each.score.mean()) for each in agent.first])
        without_error = exact_score(data, options.by, options.horizon, options.discount)
        return {
            **found,
            "promised": promised,
            "optimism": promised - best_value(data, options.discount),
            "exact": np.full(size, without_error),
            "gap": found["score"] - without_error,
        }

    @classmethod
    def refusal(cls, config: Mapping[str, Any]) -> str:
        value = DECODINGS[config["measure"]["decode"]["by"]].get("value", "tokens")
        return no_value(config, "decode", value) if searches(config) else ""

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> frozenset[str]:
        if not searches(config):
            return frozenset()
        said = DECODINGS[config["measure"]["decode"]["by"]]
        mine = read_options(config, cls.Options.model_fields) - unread(said["objective"])
        return mine - {"objective", "value", "percentile", "least_likely"}

    @classmethod
    def seconds(
        cls, config: Mapping[str, Any], options: Mapping[str, Any], tokens: Any
    ) -> float | None:
        if not searches(config):
            return 0.0
        by, steps = options["by"], duration(config["data"]) * options["episodes"]
        searched = 1 if by == "greedy" else options["horizon"] * options["beam"]
        return 2e-5 * steps * max(searched, 10)


@functools.cache
def duration(name: str) -> int:
    """Timesteps after which an episode of a data set ends at the latest."""
    return catalogue.spec(name).horizon


# --- returns to ask for from which luck was taken ---


class Alike(ReturnToGo):
    """Of the returns-to-go logged at timesteps that look alike: the same time, observation and action.

    Where it matters what an action is worth and not what came of it once, this is what there is to condition on
    (Paster et al. 2022, "You can't count on luck", who learn what is alike). Where no two timesteps look alike, as in
    continuous systems, it is the realised return. Held-out episodes are told by their own.
    """

    def summed(self, values: Floats, starts: Floats) -> Floats:
        """Of sorted groups of values (T,), which begin at `starts` (G,), one number each (G,)."""
        raise NotImplementedError

    def logged(self, trajectories: Trajectories, layout: Any) -> Numbers:
        parts = (trajectories.timestep[:, None], trajectories.observations, trajectories.actions)
        group = np.unique(np.concatenate(parts, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
        returns = trajectories.returns_to_go.astype(np.float64)
        order = np.lexsort((returns, group))
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        return self.summed(returns[order], starts)[group][:, None].astype(np.float32)


@register("condition", "expected-return", VERSION, label="expected return", order=11)
class ExpectedReturn(Alike):
    """Their mean."""

    def summed(self, values: Floats, starts: Floats) -> Floats:
        counts = np.diff(np.append(starts, len(values)))
        return np.add.reduceat(values, starts) / counts


@register("condition", "low-return", VERSION, label="lower quartile of the return", order=12)
class LowReturn(Alike):
    """Their lower quartile: what an action brings at least in three of four cases."""

    def summed(self, values: Floats, starts: Floats) -> Floats:
        counts = np.diff(np.append(starts, len(values)))
        return values[starts + (counts - 1) // 4]


# --- a search that asks a Q-function ---


@register("algorithm", "joint-critic", VERSION, label="joint, with a critic")
class WithCritic(Joint):
    """`joint` by another name, so that a study can have models with a critic too (`settings.joint-critic.critic`)."""


# --- the figure ---

BY, HORIZON, BEAM = ("measure.decode." + name for name in ("by", "horizon", "beam"))
PLAIN = {
    "algorithm": "joint", "condition": "time", "settings.value_mask": True,
}  # fmt: skip
# How plans are decoded, from what is likely to what pays: what is compared, how far ahead, how widely.
WAYS: dict[str, dict[str, Any]] = {
    "likeliest, slot by slot": {BY: "greedy", HORIZON: 9},
    "likelihood, beam of 1": {BY: "likelihood", HORIZON: 9, BEAM: 1},
    "likelihood, beam of 32": {BY: "likelihood", HORIZON: 9, BEAM: 32},
    "rewards, 9 timesteps": {BY: "rewards", HORIZON: 9, BEAM: 32},
    "rewards and value, 1": {BY: "return", HORIZON: 1, BEAM: 32},
    "rewards and value, 9": {BY: "return", HORIZON: 9, BEAM: 32},
    "rewards and exact Q*, 9": {BY: "exact", HORIZON: 9, BEAM: 32},
}


def plain(results: Results) -> pd.DataFrame:
    """The finished trials of joint models that are told the time alone."""
    rows = tables.finished(results.rows)
    return tables.at(rows, {name: level for name, level in PLAIN.items() if name in rows})


@register("figure", "semantics", order=10)
def semantics(results: Results) -> base.Drawn | None:
    """Left, whose value a predicted return is, a row a data set and a marker a context; right, what ways of decoding
    score on two chains. None where neither was measured."""
    rows = plain(results)
    if not {"semantics.toward_optimal", HORIZON} <= set(rows):
        return None
    told = rows[rows["semantics.toward_optimal"].notna()]
    names = [name for name in results.study.data if name in set(told["data"])]
    if not names:
        return None
    once = told.drop_duplicates(["data", "context", "seed"])
    figure = style.new_figure(max(2.4, 1.05 + 0.3 * len(names)))
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.1))
    chains = _chains(rows, results)
    looks = style.looks("context", sorted(once["context"].unique()))
    for height, name in enumerate(names):
        here = once[once["data"] == name]
        for place, (context, look) in enumerate(looks.items()):
            cell = here[here["context"] == context]["semantics.toward_optimal"]
            if cell.empty:
                continue
            found = tables.mean_interval(cell.to_numpy(dtype=float))
            y = height + 0.2 * (place - (len(looks) - 1) / 2)
            left.plot([found.low, found.high], [y, y], color=look.colour, linewidth=0.9)
            left.plot(found.mean, y, color=look.colour, marker=look.marker, markersize=4)
        floor = here["semantics.floor_toward_optimal"].mean()
        left.plot(floor, height, color="#000000", marker="x", markersize=4, zorder=1)
    for place in (0.0, 1.0):
        left.axvline(place, color="#808080", linewidth=0.7, zorder=0)
    left.set_xlim(-0.5, 1.15)
    left.set_ylim(len(names) - 0.5, -0.5)
    left.set_xticks([0.0, 0.5, 1.0], ["behaviour's value,\ngiven the past", "", "optimal\nvalue"])
    left.set_yticks(
        range(len(names)), ["\n".join(base.wrap(words.data(name), 24)) for name in names]
    )
    left.tick_params(axis="y", length=0)
    base.title(left, "What a predicted return is near")
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, linewidth=0.9, label=f"K = {context}")
        for context, look in looks.items()
    ]
    handles.append(Line2D([], [], color="#000000", marker="x", linewidth=0, label="table of means"))
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
    trials = {*once["trial"], *_decoded(right, rows, chains)}
    if chains:
        handles = [
            _handle(look, words.data(name)) for name, look in style.looks("data", chains).items()
        ]
        figure.legend(handles=handles, loc="outside upper right")
    return base.Drawn(
        figure=figure,
        title="Whose value a return token estimates, and what decoding for it brings",
        caption=(
            "Left: how far the predicted return of held-out windows and actions (the expected reward and the value"
            " that follows) is on the way from the exact value of the behaviour, given the window, to the exact optimal"
            " value: least squares, on the timesteps where the two differ; means over seeds with 95 % intervals. The"
            " cross is what a table of means makes of the same data; intervals that go on are cut. Right: scores of"
            " ways to decode, a point a model and a line their range; 100 is the optimum. Numbers are the imagined"
            " timesteps; a black line is what an exact look-ahead on the behaviour's values would score."
        ),
        trials=tuple(sorted(trials)),
    )


def _chains(rows: pd.DataFrame, results: Results) -> list[str]:
    """The two data sets, or fewer, on which most ways of decoding were measured, in the study's order."""
    counts = {
        name: sum(len(_way(rows[rows["data"] == name], levels)) > 0 for levels in WAYS.values())
        for name in results.study.data
        if name in set(rows["data"])
    }
    most = sorted((name for name in counts if counts[name] > 2), key=lambda name: -counts[name])[:2]
    return [name for name in results.study.data if name in most]


def _way(rows: pd.DataFrame, levels: Mapping[str, Any]) -> pd.DataFrame:
    """The trials of the longest context that were decoded so."""
    there = {name: level for name, level in levels.items() if name in rows}
    found = tables.at(rows[rows["decode.score"].notna()], there)
    return found[found["context"] == found["context"].max()]


def _handle(look: style.Look, label: str) -> Line2D:
    return Line2D(
        [], [], color=look.colour, marker=look.marker, markerfacecolor="none", linewidth=0, label=label
    )  # fmt: skip


def _decoded(panel: Any, rows: pd.DataFrame, chains: Sequence[str]) -> set[str]:
    """Scores on these data sets, a row a way of decoding; the trials shown."""
    if not chains:
        panel.axis("off")
        return set()
    shown: set[str] = set()
    for place, (name, look) in enumerate(style.looks("data", chains).items()):
        for height, levels in enumerate(WAYS.values()):
            mine = _way(rows[rows["data"] == name], levels)
            if mine.empty:
                continue
            shown |= set(mine["trial"])
            score = mine["decode.score"].to_numpy(dtype=float)
            y = height + 0.3 * (place - (len(chains) - 1) / 2)
            panel.plot([score.min(), score.max()], [y] * 2, color=look.colour, linewidth=0.8)
            panel.plot(
                score, np.full(len(score), y), look.marker, color=look.colour, markersize=4.2,
                markerfacecolor="none", clip_on=False,
            )  # fmt: skip
            ideal = mine["decode.exact"].mean()
            if levels[BY] == "return" and np.isfinite(ideal):
                panel.plot([ideal] * 2, [y - 0.14, y + 0.14], color="#000000", linewidth=1.4)
    panel.axvline(100.0, color="#808080", linewidth=0.7, zorder=0)
    panel.set_ylim(len(WAYS) - 0.5, -0.5)
    panel.set_yticks(range(len(WAYS)), list(WAYS))
    panel.tick_params(axis="y", length=0)
    panel.set_xlabel("score")
    base.title(panel, "What decoding brings")
    return shown
