"""The measurement `support`: what a search makes of its model, beside what its plans bring.

A search among more candidates finds more promise, some of which is the model's error: whatever is overrated is what is
chosen. How fast promise outgrows what plans bring, per doubling of the candidates, is the exploitation slope. Beside it
stands where plans lie: how likely the behaviour does what is planned, how far it is from the data, how wrong the model
is there.

Nothing is trained. Plans start from held-out timesteps, and their worth is known in closed form, or by doing them from
the simulator's state with the behaviour going on after them, since the values that a joint model predicts are the
behaviour's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from scipy.spatial import cKDTree

from ablate.data import streams
from ablate.data.catalogue import DataSet
from ablate.data.normalise import moments
from ablate.errors import UserError
from ablate.learn.joint import JointSettings, joint_rows
from ablate.measure.base import Measurement, Numbers, Trained, needs_joint
from ablate.measure.openloop import Asked, beginnings, binned
from ablate.plan.options import PlanOptions, check_fits
from ablate.plan.search import Plan, search
from ablate.registry import Section, register
from ablate.words import Response

NEIGHBOURS = (1, 5, 20)
POINTS = 20_000  # of the training set, most that neighbours are sought among
REFERENCE = 2_000  # held-out points, most that planned ones are ranked among
VALUES, PER = "of the values' deviation", "of the values' deviation per doubling"
INDEX = "candidates"

Floats = np.ndarray


# --- what plans bring ---


@dataclass(frozen=True)
class Worth:
    """What E plans bring, discounted to their first timestep.

    rewards: (E,) of the plan's timesteps. after: (E,) of the behaviour, which goes on to the episode's end; None where
    it isn't known. ended: (E,) share of runs that truly end during the plan.
    """

    rewards: Floats
    after: Floats | None
    ended: Floats


def executed(
    data: DataSet,
    rows: Floats,
    actions: Floats,
    samples: int,
    settings: JointSettings,
    seed: int,
) -> Worth | None:
    """What plans (E, H, M) bring from the simulator states of held-out rows (E,), the mean of `samples` runs each.

    None where the simulator can't be put there. seed: of the noise, and of what the behaviour does.
    """
    truth, count = data.held_out, len(rows) * samples
    if data.spec.lacks_simulator or truth.simulator_state is None:
        return None
    again = np.repeat(rows, samples)
    env, rng = data.spec.make_env(count), np.random.default_rng(seed)
    env.reset(rng.integers(1 << 62, size=count).tolist())
    try:
        goals = None if truth.goal is None else truth.goal[again]
        seen = env.set_simulator_state(truth.simulator_state[again], goals)
    except UserError:
        return None
    total, ended = np.zeros(count), np.zeros(count, dtype=bool)
    alive = np.ones(count, dtype=bool)

    def step(action: Floats, going: Floats, weight: float) -> Floats:
        """One timestep: rewards (E r,), discounted, of the runs that go on."""
        nonlocal seen, alive, ended
        seen, reward, terminated, truncated, _ = env.step(action)
        new = terminated & alive
        if settings.penalty is not None:
            reward = np.where(new, settings.penalty, reward)
        found = weight * np.where(alive & going, reward, 0.0)
        ended = ended | (new & going)
        alive = alive & ~(terminated | truncated)
        return found

    everyone, steps = np.ones(count, dtype=bool), actions.shape[1]
    for h in range(steps):
        total += step(np.repeat(actions[:, h], samples, axis=0), everyone, settings.discount**h)
    stopped = ended.reshape(len(rows), samples).mean(1)

    def mean(values: Floats) -> Floats:
        each: Floats = values.reshape(len(rows), samples).mean(1)
        return each

    if data.spec.behaviour is None or data.spec.hiding:
        return Worth(mean(total), None, stopped)
    behaviour, after = data.spec.behaviour(), np.zeros(count)
    behaviour.start(seen, rng)
    left = data.spec.horizon - truth.timestep[again] - steps
    for h in range(int(left.max(initial=0))):
        if not alive.any():
            break
        acted = behaviour.act(seen)
        after += step(acted.actions, h < left, settings.discount ** (steps + h))
    return Worth(mean(total), mean(after), stopped)


def worth(
    data: DataSet,
    rows: Floats,
    actions: Floats,
    samples: int,
    settings: JointSettings,
    seed: int,
) -> Worth | None:
    """The same in closed form where the law is known; see `executed`."""
    truth, law = data.held_out, data.spec.law
    if law is None or truth.simulator_state is None or truth.behaviour_id is None:
        return executed(data, rows, actions, samples, settings, seed)
    rewards, after = law.plan_value(
        truth.simulator_state[rows],
        truth.timestep[rows],
        truth.behaviour_id[rows],
        actions,
        settings.discount,
    )
    return Worth(rewards, after, np.zeros(len(rows)))


def true_steps(
    data: DataSet, rows: Floats, states: Floats, actions: Floats, samples: int, seed: int
) -> tuple[Floats, Floats] | None:
    """What the simulator makes of planned timesteps: observations (E, h, N) that follow on `states` (E, h, N) and
    `actions` (E, h, M), the mean of `samples` draws; and which h they are.

    Where an observation tells the simulator's state these are all, else the first alone, which is that of the held-out
    rows (E,). None where the simulator can't be put there, or there is no such timestep.
    """
    truth, steps = data.held_out, states.shape[1]
    if data.spec.lacks_simulator or truth.simulator_state is None or not steps:
        return None
    size = truth.simulator_state.shape[1]
    tells = size <= truth.observations.shape[1] and np.array_equal(
        truth.simulator_state, truth.observations[:, :size]
    )
    laid = states[..., :size].astype(np.float64) if tells else truth.simulator_state[rows][:, None]
    laid[:, 0] = truth.simulator_state[rows]
    h = laid.shape[1]
    again = np.repeat(np.repeat(rows, h), samples)
    env, rng = data.spec.make_env(len(again)), np.random.default_rng(seed)
    env.reset(rng.integers(1 << 62, size=len(again)).tolist())
    try:
        goals = None if truth.goal is None else truth.goal[again]
        env.set_simulator_state(np.repeat(laid.reshape(-1, size), samples, axis=0), goals)
    except UserError:
        return None
    done = np.repeat(actions[:, :h].reshape(-1, actions.shape[-1]), samples, axis=0)
    after = env.step(done)[0].astype(np.float64)
    return after.reshape(len(rows), h, samples, -1).mean(2), np.arange(h)


# --- where plans lie ---


@dataclass(frozen=True)
class Neighbourhood:
    """Training points (s, a) in units of their deviations, and how far held-out ones are from them.

    tree: over the points. centre, deviation: (N + M,). reference: for each of `NEIGHBOURS` the sorted distances (R,) of
    held-out points to their k-th neighbour.
    """

    tree: cKDTree
    centre: Floats
    deviation: Floats
    reference: tuple[Floats, ...]

    def percentiles(self, points: Floats) -> Floats:
        """Percentile (..., 3) among held-out points of the distance of raw points (..., N + M) to the k-th neighbour,
        for each of `NEIGHBOURS`: 50 is as far as data usually are, 100 farther than all."""
        found = self.distances(points.reshape(-1, points.shape[-1]))
        ranks = [
            100.0 * np.searchsorted(sorted_, column, side="right") / len(sorted_)
            for sorted_, column in zip(self.reference, found.T, strict=True)
        ]
        return np.stack(ranks, -1).reshape(*points.shape[:-1], len(NEIGHBOURS))

    def distances(self, points: Floats) -> Floats:
        """Distances (R, 3) of raw points (R, N + M) to the k-th neighbours."""
        apart = (points - self.centre) / self.deviation
        k = [min(each, self.tree.n) for each in NEIGHBOURS]
        found: Floats = self.tree.query(np.nan_to_num(apart), k=k)[0]
        return found


@lru_cache(maxsize=4)
def neighbourhood(asked: Asked) -> Neighbourhood:
    """That of a data set; of larger ones evenly spread timesteps."""

    def points(part: Any, most: int) -> Floats:
        every = np.concatenate([part.observations, part.actions], axis=1).astype(np.float64)
        return every[:: max(1, -(-len(every) // most))]

    train = points(asked.data.train, POINTS)
    centre, deviation = moments(train)
    deviation = np.where(deviation > 1e-6, deviation, 1.0)
    made = Neighbourhood(cKDTree((train - centre) / deviation), centre, deviation, ())
    far = made.distances(points(asked.data.held_out, REFERENCE))
    return Neighbourhood(made.tree, centre, deviation, tuple(np.sort(far, axis=0).T))


# --- the measurement ---


@register("measurement", "support")
class Support(Measurement):
    """Promise and worth of plans by the number of candidates, and where they lie.

    promise: discounted imagined rewards and final value of the chosen plan, on average over the beginnings. realised:
    what it brings. gap: promise - realised. slope: of the least-squares line of gap against log2 candidates. illusory:
    that slope over the promise's, the share of what a search gains in promise that its plans don't bring; NaN where it
    gains none.
    reward_gap, reward_slope: the same of the plan's own rewards, which are known also where the behaviour isn't. All in
    standard deviations of the held-out values.

    log_density: of the planned actions under the behaviour at the imagined states. percentile_k: see `Neighbourhood`.
    dynamics_error: root mean squared error of the imagined next observation against the simulator's, in standard
    deviations of the data's change in one timestep; 1 is no better than to expect no change. dynamics_floor: what the
    model's bins alone cost there. top: share of plans whose final value lies in the highest bin of the data's values,
    or as high where the head has no bins. ended: share of executed plans during which the episode truly ends.
    """

    responses = (
        Response("slope", "exploitation slope", PER, "lower"),
        Response("reward_slope", "exploitation slope of rewards", PER, "lower"),
        Response("illusory", "share of the promise gained that isn't real", "fraction", "lower", digits=2),
        Response("gap", "exploitation gap", VALUES, "lower", index=INDEX),
        Response("reward_gap", "exploitation gap of rewards", VALUES, "lower", index=INDEX),
        Response("promise", "", VALUES, index=INDEX),
        Response("realised", "realised value", VALUES, "higher", index=INDEX),
        Response("log_density", "behaviour's log-density of planned actions", "nats", index=INDEX),
        *(
            Response(f"percentile_{k}", f"percentile by neighbour {k}", "%", digits=1, index=INDEX)
            for k in NEIGHBOURS
        ),
        Response("dynamics_error", "error at planned points", "of the change's deviation", "lower", index=INDEX),
        Response("dynamics_floor", "error of the bins alone", "of the change's deviation", index=INDEX),
        Response("top", "share of plans in the top bin", "fraction", index=INDEX),
        Response("ended", "share of plans that end the episode", "fraction", "lower", index=INDEX),
    )  # fmt: skip

    class Options(Section):
        """candidates: how many actions are compared at each imagined timestep, in one search each. horizon: imagined
        timesteps. proposals, temperature, spread: see `PlanOptions`. selection: after each `step` the better half of
        the candidates goes on (a beam search with two continuations); or whole sequences are compared at the `end`
        (with uniform proposals, random shooting); or `none`, one is taken whatever it promises. beginnings: held-out
        timesteps, or all where there are fewer. samples: runs of each plan, where its worth isn't known in closed
        form."""

        candidates: tuple[Annotated[int, Field(ge=1)], ...] = (1, 8, 64, 512)
        horizon: int = Field(default=5, ge=1)
        proposals: Literal["model", "uniform", "inflated"] = "model"
        temperature: float = Field(default=1.0, gt=0)
        spread: float = Field(default=1.0, gt=0)
        selection: Literal["step", "end", "none"] = "step"
        beginnings: int = Field(default=64, ge=1)
        samples: int = Field(default=4, ge=1)

        @field_validator("candidates")
        @classmethod
        def _increasing(cls, found: tuple[int, ...]) -> tuple[int, ...]:
            if len(found) < 2 or list(found) != sorted(set(found)):
                raise ValueError("expected two numbers or more, that increase")
            return found

    def __call__(self, trained: Trained, options: Any) -> Mapping[str, Numbers]:
        """See `Measurement`; NaN for what isn't known on a data set."""
        found = [
            [self._one(trained, model, seed, options, count) for count in options.candidates]
            for model, seed in zip(trained.models, trained.seeds, strict=True)
        ]
        made = {
            name: np.array([[each[name] for each in one] for one in found]) for name in found[0][0]
        }
        doublings = np.log2(options.candidates)
        centred = doublings - doublings.mean()
        slope = centred / np.square(centred).sum()
        grows = made["promise"] @ slope
        return {
            **made,
            "slope": made["gap"] @ slope,
            "illusory": np.where(grows > 0, (made["gap"] @ slope) / grows, np.nan),
            "reward_slope": made["reward_gap"] @ slope,
            "candidates": np.array(options.candidates),
        }

    @staticmethod
    def _one(
        trained: Trained, model: Any, seed: int, options: Any, candidates: int
    ) -> dict[str, float]:
        """The responses of one model with so many candidates."""
        system: Any = trained.system
        data, truth = system.data, system.data.held_out
        settings = JointSettings.model_validate(system.config["settings"])
        past = max(0, min(system.context - 1, int(truth.lengths.max()) - options.horizon - 1))
        rows = beginnings(truth, past, options.horizon, options.beginnings, trained.streams, seed)
        plan = _planned(system, model, rows, past, options, candidates, settings, trained, seed)
        planned = plan.rows.cpu().numpy().astype(np.float64)  # (E, H, D)
        n, m = model.spec.observation_dim, model.spec.action_dim
        # a head without bins may plan beyond the bounds, which is not what is done then
        states, actions = planned[..., :n], planned[..., n : n + m].clip(-1.0, 1.0)
        drawn = streams.entropy(trained.streams, seed, "support/truth") % (1 << 63)
        values = joint_rows(truth, settings.discount, settings.penalty)[:, -1].astype(np.float64)
        unit = max(float(values.std()), 1e-9)
        promise, gained = (x.double().cpu().numpy() for x in (plan.score, plan.gained))
        found = dict.fromkeys(("realised", "gap", "reward_gap", "ended"), np.nan)
        brought = worth(data, rows, actions, options.samples, settings, drawn)
        if brought is not None:
            found["reward_gap"] = float((gained - brought.rewards).mean()) / unit
            found["ended"] = float(brought.ended.mean())
        if brought is not None and brought.after is not None:
            realised = brought.rewards + brought.after
            found["realised"] = float(realised.mean()) / unit
            found["gap"] = float((promise - realised).mean()) / unit
        found["promise"] = float(promise.mean()) / unit
        law = data.spec.law
        density = np.nan if law is None else float(law.log_density(states, actions).mean())
        ranks = neighbourhood(Asked(data)).percentiles(np.concatenate([states, actions], -1))
        found |= {
            f"percentile_{k}": float(rank)
            for k, rank in zip(NEIGHBOURS, ranks.mean((0, 1)), strict=True)
        }
        learned = joint_rows(data.train, settings.discount, settings.penalty)[:, -1]
        high = np.quantile(learned, 1.0 - 1.0 / settings.bins)
        found |= {"log_density": density, "top": float((planned[:, -1, -1] >= high).mean())}
        return found | _errors(data, rows, states, actions, options.samples, drawn, binned(model))

    @classmethod
    def refusal(cls, config: Mapping[str, Any]) -> str:
        return needs_joint(config, "support", "searches over imagined trajectories", asks=False)

    @classmethod
    def seconds(
        cls, config: Mapping[str, Any], options: Mapping[str, Any], tokens: Callable[[], int]
    ) -> float:
        """See `Measurement.seconds`: every candidate's tokens are computed once by every net."""
        compared = [1 if options["selection"] == "none" else n for n in options["candidates"]]
        imagined = options["beginnings"] * sum(compared) * options["horizon"] * tokens()
        nets = {"separate": 3, "transplanted": 2}.get(config["settings"].get("sharing"), 1)
        return imagined * (3.7e-6 * nets + 2.6e-10 * config["model"]["parameters"])

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> frozenset[str]:
        proposals = config.get("measure", {}).get("support", {}).get("proposals", "model")
        unread = {"model": {"spread"}, "uniform": {"temperature", "spread"}}
        return frozenset(cls.Options.model_fields) - unread.get(proposals, {"temperature"})


def _planned(
    system: Any,
    model: Any,
    rows: Floats,
    past: int,
    options: Any,
    candidates: int,
    settings: JointSettings,
    trained: Trained,
    seed: int,
) -> Plan:
    """The best of so many plans from each held-out row (E,), which has `past` timesteps before it."""
    compared = 1 if options.selection == "none" else candidates
    whole = options.selection == "end" or compared == 1
    asked = PlanOptions(
        horizon=options.horizon,
        beam=compared if whole else -(-compared // 2),
        n_expand=1 if whole else 2,
        cdf_act=None,
        discount=settings.discount,
        max_context_transitions=system.context,
        proposals=options.proposals,
        temperature=options.temperature,
        spread=options.spread,
    )
    check_fits(model.spec, asked)
    table = system.rows(system.data.held_out)[0]
    index = torch.from_numpy(rows)[:, None] + torch.arange(-past, 1)
    told = table[index.to(table.device)]  # (E, past + 1, D)
    shape = (len(rows), asked.horizon, asked.beam * asked.n_expand, model.spec.slots)
    generator = streams.torch_stream(trained.streams, seed, f"support/{candidates}")
    noise = torch.rand(shape, generator=generator).to(table.device)
    n = model.spec.observation_dim
    return search(model, told[:, :-1], told[:, -1, :n], asked, noise)


def _errors(
    data: DataSet,
    rows: Floats,
    states: Floats,
    actions: Floats,
    samples: int,
    seed: int,
    rounded: Any,
) -> dict[str, float]:
    """Errors of imagined observations (E, H, N) at planned points, and of the model's bins alone."""
    found = true_steps(data, rows, states[:, :-1], actions[:, :-1], samples, seed)
    if found is None:
        return {"dynamics_error": np.nan, "dynamics_floor": np.nan}
    after, which = found
    train = data.train
    inside = train.timestep[1:] > 0
    change = moments(np.diff(train.observations, axis=0)[inside])[1]
    unit = np.where(change > 1e-6, change, np.inf)  # what never changes can't be wrong

    def error(values: Floats) -> float:
        return float(np.sqrt(np.square((values - after) / unit).mean()))

    floor = 0.0 if rounded is None else error(rounded(after).astype(np.float64))
    return {"dynamics_error": error(states[:, 1 + which]), "dynamics_floor": floor}
