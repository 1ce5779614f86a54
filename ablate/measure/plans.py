"""The measurement `plans`: what a joint model plans, kept as the imagined trajectory that it is, beside what happens.

A plan is made where it decides something (`VectorEnv.decisive`), or every so many timesteps. Its first action is done
in the episode. Then the whole plan is executed without another look, from the very state of the simulator in which it
was made; every imagined timestep is asked for by itself, from where it was imagined; and it is compared with the plan
of the timestep after, and with another one of the same prefix. What the bins alone cost stands beside: the same
numbers of what really happened, once it went through them.

Distances of two states are sqrt(mean_j ((x_j - y_j) / d_j)^2), with the standard deviations d of the training set, over
the coordinates that chance doesn't draw anew. Over h timesteps they are in units of the mean distance of two states of
the data that are h apart, so that a plan in which little happens isn't a good one for that.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ablate.config import timesteps
from ablate.data import streams
from ablate.data.catalogue import DataSet
from ablate.data.normalise import moments
from ablate.data.trajectories import Trajectories
from ablate.envs.base import State, VectorEnv
from ablate.errors import UserError
from ablate.learn.joint import JointSettings
from ablate.measure.base import Measurement, Trained, needs_joint
from ablate.measure.openloop import binned, impossible
from ablate.measure.rollout import evaluation_seeds
from ablate.models.assembly import Model, block
from ablate.plan.imagine import Imagination
from ablate.plan.options import PlanOptions, holds, observation_tokens, per_step
from ablate.plan.search import search
from ablate.registry import Section, register
from ablate.words import Response

Floats = np.ndarray
WINDOWS = 512  # of the data, over which the floor of telescoping is taken
MOVED, LAGGED = (
    "of the data's displacement in as many timesteps",
    "of the data's displacement in a timestep",
)


# --- making plans ---


class Planner:
    """One joint model that plans for some episodes at once.

    sees: timesteps of the window, the present one included. options: those of the measurement.
    """

    def __init__(self, model: Model, options: Any, sees: int) -> None:
        """Raises UserError where the model's window can't hold what is asked for."""
        spec = model.spec
        self.model, self.options, self.sees = model.eval(), options, sees
        n = per_step(spec)
        self.cap = (
            min(self.sees * n - (n > 1), block(spec)) if options.mode == "reference" else None
        )
        longest = holds(spec)
        if self.cap is None and longest is not None and self.sees - 1 + options.horizon > longest:
            raise UserError(
                f"measure.plans.mode: full needs a window of {self.sees - 1 + options.horizon} timesteps, and the mixer"
                f" '{spec.mixer}' has parameters for {longest}; allowed: mode reference, or model.positions: rotary."
            )
        self.positions = 0  # of tokens, computed so far

    def make(
        self, context: Tensor, observation: Tensor, generator: torch.Generator, one: bool = False
    ) -> Tensor:
        """Plans (E, r, H, D), raw rows (s, a, r, V) of which the first begins with what is seen.

        context: executed rows (E, L, D); observation: (E, N). one: r is 1, and no more is imagined than the first
        action needs. A search for the likeliest has one plan, whatever r.
        """
        o = self.options
        context = context[:, max(0, context.shape[1] - self.sees + 1) :]
        if o.objective == "draw":
            samples, horizon = (1, 1) if one else (o.samples, o.horizon)
            return self._drawn(context, observation, generator, samples, horizon)
        asked = PlanOptions(
            objective=o.objective, mode=o.mode, horizon=o.horizon, beam=o.beam, n_expand=o.n_expand,
            max_context_transitions=self.sees,
        )  # fmt: skip
        found = []
        for _ in range(o.samples if o.objective == "return" and not one else 1):
            shape = (len(observation), o.horizon, o.beam * o.n_expand, self.model.spec.slots)
            noise = None
            if o.objective == "return":
                noise = torch.rand(shape, generator=generator, device=observation.device)
            made = search(self.model, context, observation, asked, noise)
            self.positions += made.positions
            found.append(made.rows)
        return torch.stack(found, 1)

    def _drawn(
        self,
        context: Tensor,
        observation: Tensor,
        generator: torch.Generator,
        samples: int,
        horizon: int,
    ) -> Tensor:
        """Plans whose every slot is a draw, and which nothing ends."""
        spec = self.model.spec
        running = Imagination(self.model, context, observation, self.cap)
        running.branch(samples)
        for _ in range(horizon * spec.slots - spec.observation_dim):
            slot, params = running.slot, running.parameters()
            noise = torch.rand(params.shape[:-1], generator=generator, device=params.device)
            running.push(running.heads.draw(params, slot, noise, None, None, ends=False))
        self.positions += running.positions
        whole = running.imagined.new_zeros(len(observation), samples, horizon * spec.slots)
        whole[..., spec.observation_dim :] = running.imagined
        rows = running.raw(whole.unflatten(-1, (horizon, spec.slots))).clone()
        rows[:, :, 0, : spec.observation_dim] = observation[:, None]
        return rows


# --- acting by them ---


@dataclass
class Made:
    """The plans of one timestep: of episodes (n,), rows (n, r, H, D), and where the simulator stood then."""

    timestep: int
    episodes: np.ndarray
    rows: Floats
    state: State | None


@dataclass
class Acted:
    """Episodes in which a model acted by its plans.

    observations (T + 1, E, N), the last repeated once an episode is over; returns, lengths, success (E,), NaN where
    the task has none. plans: in order. tokens: of the window, the mean over plans. seconds: of the processor, for a
    plan. positions: computed token positions, for a plan.
    """

    observations: Floats
    returns: Floats
    lengths: Floats
    success: Floats
    plans: list[Made] = field(default_factory=list)
    tokens: float = math.nan
    seconds: float = math.nan
    positions: float = math.nan


@torch.no_grad()
def act(planner: Planner, data: DataSet, options: Any, name: str, seed: int) -> Acted:
    """One model in its seed's episodes."""
    spec, count = planner.model.spec, options.episodes
    env = data.spec.make_env(count)
    seen = env.reset(evaluation_seeds(name, seed, count))
    device = planner.model.head.mean.device
    generator = torch.Generator(device).manual_seed(
        streams.entropy(name, seed, "plans") % (1 << 63)
    )
    other = None
    if options.between == "behaviour":
        if data.spec.behaviour is None or data.spec.hiding:
            raise UserError(
                f"measure.plans.between: nobody knows how {data.spec.name} was acted in; allowed: model."
            )
        other = data.spec.behaviour()
        rng = np.random.default_rng(streams.entropy(name, seed, "plans/behaviour"))
        other.start(env.full_observation(), rng)
    context = torch.zeros(count, 0, spec.slots, device=device)
    made = Acted(np.empty(0), np.zeros(count), np.zeros(count), np.full(count, np.nan))
    observations, alive = [seen], np.ones(count, dtype=bool)
    spent, planned, tokens = 0.0, 0, 0.0
    for t in range(env.horizon):
        now = torch.from_numpy(seen).to(device)
        action = np.zeros((count, env.action_dim), dtype=np.float32)
        if other is not None:  # who is asked at every timestep, as it may remember
            action = other.act(env.full_observation()).actions
        decisive = env.decisive()
        asked = alive & (np.full(count, t % options.every < 2) if decisive is None else decisive)
        for group, recorded in ((asked, True), (alive & ~asked, False)):
            if not group.any() or (not recorded and other is not None):
                continue
            rows, before = np.flatnonzero(group), planner.positions
            began = time.process_time()
            found = planner.make(context[rows], now[rows], generator, one=not recorded)
            if recorded:
                spent += time.process_time() - began
                made.positions = np.nansum([made.positions, planner.positions - before])
                planned += len(rows)
                timesteps_seen = min(t, planner.sees - 1)
                tokens += len(rows) * (timesteps_seen * per_step(spec) + observation_tokens(spec))
                made.plans.append(Made(t, rows, found.cpu().numpy(), _state(env, rows)))
            first = found[:, 0, 0, spec.observation_dim : spec.observation_dim + spec.action_dim]
            action[rows] = first.clamp(-1.0, 1.0).cpu().numpy()
        seen, rewards, terminations, truncations, info = env.step(np.nan_to_num(action))
        made.returns += np.where(alive, rewards, 0.0)
        made.lengths += alive
        if "success" in info:
            made.success = np.where(alive, info["success"], made.success).astype(np.float64)
        paid = torch.from_numpy(np.where(alive, rewards, 0.0)[:, None]).to(now)
        done = torch.from_numpy(action).to(now)
        row = torch.cat(
            [now, done, paid, torch.zeros_like(paid)], -1
        )  # executed values aren't known
        context = torch.cat([context, row[:, None]], 1)[:, -max(1, planner.sees - 1) :]
        observations.append(seen)
        alive &= ~(terminations | truncations)
        if not alive.any():
            break
    made.observations = np.stack(observations)
    if planned:
        made.tokens, made.seconds = tokens / planned, spent / planned
        made.positions /= planned
    return made


def _state(env: VectorEnv, rows: np.ndarray) -> State | None:
    """Where the episodes (n,) stand; None where the environment can't tell."""
    try:
        return env.state().take(rows)
    except UserError:
        return None


# --- what became of plans ---


@dataclass(frozen=True)
class Scales:
    """Units of distances: `spread` (N,) of the training set, `kept` coordinates, and the mean distance of two states
    of the data h timesteps apart, `moved` (H,), h = 0 .. H - 1; that of none is not a number."""

    spread: Floats
    kept: np.ndarray
    moved: Floats

    @classmethod
    def of(cls, data: DataSet, horizon: int, chance: tuple[int, ...]) -> Scales:
        """Of a data set, over so many timesteps."""
        truth = data.train
        spread = moments(truth.observations)[1]
        kept = (spread > 1e-6) & ~np.isin(np.arange(len(spread)), chance)
        bare = cls(spread, kept, np.empty(0))
        left = np.repeat(truth.lengths, truth.lengths) - truth.timestep - 1
        moved = [np.nan]
        for h in range(1, horizon):
            rows = np.flatnonzero(left >= h)
            apart = bare.apart(truth.observations[rows], truth.observations[rows + h])
            moved.append(float(apart.mean()) if len(rows) else np.nan)
        return cls(spread, kept, np.array(moved))

    def apart(self, one: Floats, other: Floats) -> Floats:
        """Distances (...,) of states (..., N)."""
        scaled = ((one.astype(np.float64) - other) / self.spread)[..., self.kept]
        found: Floats = np.sqrt(np.square(scaled).mean(-1))
        return found


def executed(env: VectorEnv, state: State, actions: Floats) -> tuple[Floats, np.ndarray]:
    """What is seen (n, H, N) after each of the actions (n, H, M) done from n states, and whether the episode went on
    until there (n, H). env: of any number of episodes."""
    seen, going = [], []
    size = env.num_envs
    for begin in range(0, len(state), size):
        part = np.arange(begin, min(begin + size, len(state)))
        places = np.resize(part, size)  # what is over is repeated
        env.set_state(state.take(places))
        found, on, alive = [], [], np.ones(size, dtype=bool)
        for h in range(actions.shape[1]):
            observation, _, terminations, truncations, _ = env.step(
                np.clip(actions[places, h], -1.0, 1.0)
            )
            alive = alive & ~(terminations | truncations)
            found.append(observation)
            on.append(alive)
        seen.append(np.stack(found, 1)[: len(part)])
        going.append(np.stack(on, 1)[: len(part)])
    return np.concatenate(seen), np.concatenate(going)


def stepped(env: VectorEnv, observations: Floats, actions: Floats) -> Floats | None:
    """What is seen (n, N) one timestep after actions (n, M) where observations (n, N) say, NaN where the episode ends
    then; None where they don't say where that is. env: of any number of episodes, begun."""
    placed, size, found = env.placed(observations), env.num_envs, []
    if placed is None:
        return None
    states, goals = placed
    for begin in range(0, len(states), size):
        part = np.arange(begin, min(begin + size, len(states)))
        places = np.resize(part, size)
        env.reset(list(range(size)))  # whose episodes are over
        try:
            env.set_simulator_state(states[places], None if goals is None else goals[places])
        except UserError:
            return None
        seen, _, terminations, truncations, _ = env.step(np.clip(actions[places], -1.0, 1.0))
        over = (terminations | truncations)[:, None]
        found.append(np.where(over, np.nan, seen)[: len(part)])
    return np.concatenate(found)


def violation(env: VectorEnv, scales: Scales, states: Floats, actions: Floats) -> float:
    """Mean distance of imagined states (n, h + 1, N) from where the simulator goes from the state before, under actions
    (n, h, M), but where either isn't a number; NaN where it can't be asked."""
    before, then = (each.reshape(-1, states.shape[-1]) for each in (states[:, :-1], states[:, 1:]))
    known = np.isfinite(before).all(1) & np.isfinite(then).all(1)
    after = stepped(env, before[known], actions.reshape(-1, actions.shape[-1])[known])
    if after is None:
        return math.nan
    return _mean(scales.apart(after, then[known])) / float(scales.moved[1])


def telescoping(rows: Floats, discount: float) -> Floats:
    """|V_0 - (r_1 + g r_2 + ... + g^(H-2) r_(H-1) + g^(H-1) V_(H-1))| (...,) of rows (..., H, D) that end with r and V.

    V is the discounted sum of the rewards after a timestep's own, so that this is 0 for what really happened.
    """
    rewards, values = rows[..., -2].astype(np.float64), rows[..., -1].astype(np.float64)
    steps = rows.shape[-2] - 1
    paid = (discount ** np.arange(steps) * rewards[..., 1:]).sum(-1)
    found: Floats = np.abs(values[..., 0] - paid - discount**steps * values[..., -1])
    return found


def replanned(scales: Scales, plans: list[Made], dimension: int) -> float:
    """Mean distance of the overlap of two consecutive plans over that of two of one prefix; 1 where the plan of a
    timestep is to that of the next as one draw is to another. NaN where there is one plan of a prefix only."""
    between, within = [], []
    for earlier, later in itertools.pairwise(plans):
        if later.timestep != earlier.timestep + 1 or earlier.rows.shape[1] < 2:
            continue
        _, a, b = np.intersect1d(earlier.episodes, later.episodes, return_indices=True)
        old, new = earlier.rows[a][..., :dimension], later.rows[b][..., :dimension]
        between.append(scales.apart(old[:, 0, 2:], new[:, 0, 1:-1]).ravel())
        within.append(scales.apart(old[:, 0, 2:], old[:, 1, 2:]).ravel())
    if not between:
        return math.nan
    apart = _mean(np.concatenate(within))
    return _mean(np.concatenate(between)) / apart if apart > 0.0 else math.nan


@dataclass(frozen=True)
class Ways:
    """Which ways plans take; see `Plans` for what each number is."""

    switches: float = math.nan
    apart: float = math.nan
    kept: float = math.nan
    commitment: float = math.nan
    coherent: float = math.nan
    coverage: float = math.nan


def ways(env: VectorEnv, acted: Acted, horizon: int, dimension: int) -> Ways:
    """Of the plans of some episodes; all NaN where the environment knows no ways, or no plan was made."""
    told: dict[tuple[int, int], int] = {}  # of the plan that is followed, by episode and timestep
    drawn, mixed, twins = [], [], []
    last = len(acted.observations) - 1
    taken: dict[tuple[int, int], int] = {}
    for plan in acted.plans:
        found = env.ways(plan.rows[..., :dimension])
        if found is None:
            return Ways()
        way, both = found  # (n, r)
        drawn.append(way.ravel())
        mixed.append(both.ravel())
        if way.shape[1] > 1:
            twins.append(way[:, :2])
        ahead = np.minimum(plan.timestep + np.arange(horizon + 1), last)
        done = env.ways(np.moveaxis(acted.observations[ahead][:, plan.episodes], 0, 1))
        assert done is not None
        for place, episode in enumerate(plan.episodes.tolist()):
            told[episode, plan.timestep] = int(way[place, 0])
            taken[episode, plan.timestep] = int(done[0][place])
    if not drawn:
        return Ways()
    every, both_ways = np.concatenate(drawn), np.concatenate(mixed)
    pairs = [
        (way, told[e, t + 1]) for (e, t), way in told.items() if way and told.get((e, t + 1), 0)
    ]
    same = [way == taken[key] for key, way in told.items() if way and taken[key]]
    both_drawn = np.concatenate(twins) if twins else np.zeros((0, 2), dtype=np.int64)
    both_drawn = both_drawn[(both_drawn != 0).all(1)]
    shares = np.unique(every[every != 0], return_counts=True)[1] / max(1, (every != 0).sum())
    return Ways(
        switches=_mean(np.array([a != b for a, b in pairs], dtype=np.float64)),
        apart=_mean((both_drawn[:, 0] != both_drawn[:, 1]).astype(np.float64)),
        kept=_mean(np.array(same, dtype=np.float64)),
        commitment=committed(told, taken),
        coherent=float(((every != 0) & ~both_ways).mean()),
        coverage=float(-(shares * np.log2(shares)).sum()) if len(shares) else math.nan,
    )


def committed(told: Mapping[tuple[int, int], int], taken: Mapping[tuple[int, int], int]) -> float:
    """Mean timesteps from the first plan of a run, plans of consecutive timesteps of an episode, to the one from which
    on all take the way (of plans, and of what was done from there, by episode and timestep) that was taken in the end;
    all of the run where the last doesn't. Runs that end nowhere are left out."""
    found = []
    for episode, begin in told:
        if (episode, begin - 1) in told:
            continue
        run = [begin]
        while (episode, run[-1] + 1) in told:
            run.append(run[-1] + 1)
        ends = [taken[episode, t] for t in run if taken[episode, t]]
        if not ends:
            continue
        wrong = [i for i, t in enumerate(run) if told[episode, t] != ends[-1]]
        found.append(wrong[-1] + 1 if wrong else 0)
    return _mean(np.array(found, dtype=np.float64))


def _mean(values: Floats) -> float:
    """Of what is a number."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


# --- the measurement ---


@register("measurement", "plans")
class Plans(Measurement):
    """Models act by plans, and what they planned is held against what happens; see the module.

    Of the plan that is followed:
    divergence: distance of its states from those that its actions lead to in the simulator, h timesteps after the plan
        was made; `floor_divergence`: of what the bins make of the latter.
    violation: distance of each of its states from where the simulator goes from the state before it;
        `floor_violation`: the same of what happened when it was executed, after the bins. invalid: share of its states
        that can't be, as of `open-loop`.
    replan: see `replanned`; 1 is the best that can be expected of draws.
    switches: share of consecutive plans that take different ways; `apart`: that of two plans of one prefix, which
        switches come from where nothing is remembered. kept: share of the plans that take the way that is taken then.
        commitment: see `committed`.
    coherent: share of all plans that take one way and no other; coverage: entropy of their ways, 1 where both of two
        are as likely.
    telescoping: see there, in standard deviations of the data's values; `floor_telescoping`: of the data after bins.
    best: score of the best policy that sees as many timesteps, where the data's law is known. timesteps: of the window
        when it is full; tokens: of the window when a plan is made. positions: token positions that a plan takes to
        compute; latency: the processor's time, which alone of all numbers isn't the same again.
    """

    responses = (
        Response("success", "success rate of plans", "fraction", "higher"),
        Response("score", "score of plans", "points", "higher", digits=1, points=True),
        Response("best", "best score with the window", "points", digits=1),
        Response("return_mean", "return of plans", "reward units", "higher", digits=2),
        Response("length", "episode length", "timesteps", digits=1),
        Response("divergence_mean", "divergence of plan and execution", MOVED, "lower"),
        Response("floor_divergence_mean", "divergence by the bins alone", MOVED),
        Response("violation", "violation of the dynamics", LAGGED, "lower"),
        Response("floor_violation", "violation by the bins alone", LAGGED),
        Response("invalid", "share of impossible states", "fraction", "lower"),
        Response("replan", "distance of consecutive plans over that of two of one prefix", "", "lower", digits=2),
        Response("switches", "plans that switch to another way", "fraction", "lower"),
        Response("apart", "pairs of plans of one prefix with different ways", "fraction"),
        Response("kept", "plans whose way is taken", "fraction", "higher"),
        Response("commitment", "commitment time", "timesteps", "lower", digits=2),
        Response("coherent", "plans that take one way", "fraction", "higher"),
        Response("coverage", "entropy of planned ways", "bits", digits=2),
        Response("telescoping", "violation of telescoping", "of the values' deviation", "lower"),
        Response("floor_telescoping", "violation of telescoping by the bins alone", "of the values' deviation"),
        Response("timesteps", "timesteps of a plan's window", digits=0),
        Response("tokens", "tokens seen by a plan", digits=0),
        Response("positions", "token positions computed for a plan", digits=0),
        Response("latency", "processor time of a plan", "milliseconds", "lower", digits=1),
        Response("divergence", "divergence of plan and execution", MOVED, "lower", index="horizon"),
        Response("floor_divergence", "divergence by the bins alone", MOVED, index="horizon"),
    )  # fmt: skip
    acts = True

    class Options(Section):
        """objective: a plan is drawn slot by slot, or searched for by likelihood or return (`ablate.plan.options`).
        mode: `reference` counts imagined timesteps into the window and drops executed ones for them, as released;
        `full` keeps all. visible: timesteps of the window, the present one included; 0 for those of the model's
        context. horizon: timesteps of a plan. samples: plans of one prefix, of which the first is followed. beam:
        sequences that a search keeps. n_expand: continuations of each, of a search for return. every: timesteps between
        pairs of plans that are kept, where the environment doesn't say what is decisive. between: who acts where no
        plan is kept, the model, or the data's behaviour, which costs nothing. episodes: of each seed.
        """

        objective: Literal["draw", "likelihood", "return"] = "draw"
        mode: Literal["reference", "full"] = "reference"
        visible: int = Field(default=0, ge=0)
        horizon: int = Field(default=8, ge=4)
        samples: int = Field(default=4, ge=2)
        beam: int = Field(default=8, ge=1)
        n_expand: int = Field(default=2, ge=1)
        every: int = Field(default=10, ge=2)
        between: Literal["model", "behaviour"] = "model"
        episodes: int = Field(default=32, ge=1)

    def __call__(self, trained: Trained, options: Any) -> Mapping[str, np.ndarray]:
        system, data = trained.system, trained.system.data
        scales = Scales.of(data, options.horizon, data.spec.make_env(1).chance)
        sees = options.visible or timesteps(system.config)
        settings = JointSettings.model_validate(system.config["settings"])
        rows = system.rows(data.train)[0].cpu().numpy()  # type: ignore[attr-defined]
        best = data.yardstick(sees) or {}
        found = []
        for seed, model in zip(trained.seeds, trained.models, strict=True):
            acted = act(Planner(model, options, sees), data, options, trained.streams, seed)
            one = summary(acted, model, data, scales, options.horizon)
            spread = max(float(rows[:, -1].std()), 1e-9)
            one["telescoping"] = _mean(_told(acted, settings.discount)) / spread
            one["floor_telescoping"] = (
                floor_telescoping(model, rows, data.train, settings.discount, options.horizon)
                / spread
            )
            one |= {"best": best.get("score", math.nan), "timesteps": float(sees)}
            found.append(one)
        made = {name: np.stack([one[name] for one in found]) for name in found[0]}
        return {**made, "horizon": np.arange(1, options.horizon)}

    @classmethod
    def refusal(cls, config: Mapping[str, Any]) -> str:
        if refused := needs_joint(config, "plans", "plans by imagined trajectories", asks=False):
            return refused
        if timesteps(config) < 2:
            return (
                "the measurement 'plans' asks for the next observation, which a window of one timestep never predicts;"
                " found the context 1, allowed: 2 or more"
            )
        visible, most = (
            config.get("measure", {}).get("plans", {}).get("visible", 0),
            timesteps(config),
        )
        if visible > most:
            return (
                f"measure.plans.visible: found {visible}; the model's context has {most} timesteps"
            )
        return ""

    @classmethod
    def seconds(
        cls, config: Mapping[str, Any], options: Mapping[str, Any], tokens: Callable[[], int]
    ) -> float:
        """See `Measurement.seconds`: at some twenty timesteps of each episode a window is encoded and continued."""
        sees, each = options["visible"] or timesteps(config), tokens()
        wide = 1 if options["objective"] == "draw" else options["beam"] * options["n_expand"]
        imagined = options["samples"] * options["horizon"] * wide
        return (
            1e-9
            * config["model"]["parameters"]
            * options["episodes"]
            * 20
            * each
            * (0.3 * sees + imagined)
        )

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> frozenset[str]:
        objective = config["measure"]["plans"]["objective"]
        unread = {"draw": {"beam", "n_expand"}, "likelihood": {"n_expand", "samples"}}.get(
            objective, set()
        )
        return frozenset(cls.Options.model_fields) - unread


def _told(acted: Acted, discount: float) -> Floats:
    """See `telescoping`: of every plan that is followed."""
    each = [telescoping(plan.rows[:, 0], discount) for plan in acted.plans]
    return np.concatenate(each) if each else np.empty(0)


def floor_telescoping(
    model: Any, rows: Floats, truth: Trajectories, discount: float, horizon: int
) -> float:
    """See `telescoping`: the mean over `WINDOWS` windows of the data's rows (T, D) after the model's bins."""
    heads = model.head
    left = np.repeat(truth.lengths, truth.lengths) - truth.timestep
    begins = np.flatnonzero(left >= horizon)
    begins = begins[:: max(1, len(begins) // WINDOWS)]
    if not len(begins):
        return math.nan
    windows = torch.from_numpy(rows[begins[:, None] + np.arange(horizon)]).to(heads.mean)
    coarse = heads.raw(heads.symbols(windows)) if heads.binned else windows
    return _mean(telescoping(coarse.cpu().numpy(), discount))


def summary(
    acted: Acted, model: Any, data: DataSet, scales: Scales, horizon: int
) -> dict[str, Any]:
    """The responses of one model that need its episodes, a number or (horizon - 1,) each."""
    n, m = model.spec.observation_dim, model.spec.action_dim
    undefined = np.full(horizon - 1, np.nan)
    found: dict[str, Any] = {
        "success": acted.success.mean(),
        "score": float(data.anchors.score(acted.returns).mean()),
        "return_mean": acted.returns.mean(),
        "length": acted.lengths.mean(),
        "divergence": undefined,
        "floor_divergence": undefined,
        **dict.fromkeys(("violation", "floor_violation", "invalid"), math.nan),
        "replan": replanned(scales, acted.plans, n),
        "tokens": acted.tokens,
        "positions": acted.positions,
        "latency": 1e3 * acted.seconds,
    }
    env = data.spec.make_env(len(acted.returns))
    env.reset(list(range(env.num_envs)))
    found |= vars(ways(env, acted, horizon, n))
    if acted.plans:
        followed = np.concatenate([plan.rows[:, 0] for plan in acted.plans])  # (P, H, D)
        states, actions = followed[..., :n], followed[..., n : n + m]
        found["invalid"] = float(impossible(states[:, 1:], data).mean())
        found["violation"] = violation(env, scales, states, actions[:, :-1])
        stood = [plan.state for plan in acted.plans if plan.state is not None]
        if stood:
            seen, going = executed(env, State.joined(stood), actions[:, :-1])  # (P, H - 1, N)
            rounded = binned(model)
            coarse = seen if rounded is None else rounded(seen)

            def diverged(imagined: Floats) -> Floats:
                apart = np.where(going, scales.apart(imagined, seen), np.nan)
                each = [_mean(apart[:, h]) for h in range(horizon - 1)]
                return np.array(each) / scales.moved[1:]

            found["divergence"], found["floor_divergence"] = (
                diverged(states[:, 1:]),
                diverged(coarse),
            )
            env.reset(list(range(env.num_envs)))
            coarse = np.where(going[..., None], coarse, np.nan)
            found["floor_violation"] = violation(env, scales, coarse, actions[:, 1:-1])
    for name in ("divergence", "floor_divergence"):
        found[f"{name}_mean"] = _mean(found[name])
    return found
