"""The measurement `open-loop`: what a model of the dynamics imagines for h timesteps, beside what happens.

Whose actions are played, how a future is taken from what the model predicts, and how far ahead, are options that cost
no training, so that long-horizon error can be taken apart (Janner et al. 2021, section 4.1). Every number is taken of
the true simulator too, from the same states under the same actions, and of its futures after they went through the
model's bins: what nobody can do better than, and what nobody with these bins can.

States are in units of the standard deviations of the training set; a number that has left it by a thousand of them, or
is none, counts as a thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ablate import registry
from ablate.config import timesteps
from ablate.data import streams
from ablate.data.behaviour import Behaviour
from ablate.data.catalogue import DataSet
from ablate.data.normalise import moments
from ablate.data.trajectories import Trajectories
from ablate.errors import UserError
from ablate.measure.base import Measurement, Trained
from ablate.plan.futures import Dynamics, Propagation, Sampling
from ablate.registry import Section, register
from ablate.words import Response

NEAR = 50  # timesteps over which `area` is taken
LEAST = 1e-3  # deviations: an error that is smaller counts as this
MOST = 1e3  # deviations
VALID = 0.4  # deviations: a prediction is valid until its error is larger (Pathak et al. 2018)
WIDER = (
    0.5  # by which share of its range a coordinate may leave the training set and still be possible
)
PLACES = 12  # of the timesteps ahead at which errors stand in a study's table; a run keeps all of everything
DIRECTIONS = 64  # of the sliced Wasserstein distance
UNIT, EXCESS = "of the state's deviation", "in log error"  # of responses

Floats = np.ndarray


# --- how far futures are from the truth ---


def errors(imagined: Floats, truth: Floats) -> dict[str, Floats]:
    """How far imagined futures (E, r, h, N) are from the true one (E, h, N), by timesteps ahead, (h,) each.

    rmse: of the mean of the r samples, of which 1 / r of their variance is sampling's. spread: standard deviation of
    the samples. spread_skill: their ratio times sqrt(1 + 1 / r), 1 where a model knows how wrong it is (V. Fortin et
    al., J. Hydrometeorology 15 (2014) 1708-1713). energy_score: mean |x - y| - mean |x - x'| / 2 over samples, lower
    is better, and proper (Gneiting & Raftery 2007, equation 21).
    error_median, error_p90: over the beginnings, of the error of the samples' mean. wasserstein: see `sliced`.
    """
    samples = imagined.shape[1]
    mean = imagined.mean(1)  # (E, h, N)
    square = np.square(mean - truth).mean(-1)  # (E, h)
    variance = imagined.var(1, ddof=1).mean(-1) if samples > 1 else np.zeros_like(square)
    rmse = np.sqrt(square.mean(0))
    to_truth = np.linalg.norm(imagined - truth[:, None], axis=-1).mean(1)  # (E, h)
    among = np.zeros_like(to_truth)
    for shift in range(1, samples):  # every ordered pair of different samples once
        among += np.linalg.norm(imagined - np.roll(imagined, shift, 1), axis=-1).mean(1)
    spread = np.sqrt(variance.mean(0))
    apart = np.sqrt(square)
    return {
        "rmse": rmse,
        "spread": spread,
        "spread_skill": np.sqrt(1.0 + 1.0 / samples) * spread / np.maximum(rmse, LEAST),
        "energy_score": (to_truth - 0.5 * among / max(1, samples - 1)).mean(0),
        "error_median": np.median(apart, axis=0),
        "error_p90": np.quantile(apart, 0.9, axis=0),
        "wasserstein": sliced(imagined.reshape(-1, *imagined.shape[2:]), truth),
    }


def sliced(some: Floats, others: Floats) -> Floats:
    """Sliced Wasserstein-1 distance (h,) of points (n k, h, N) and (n, h, N): the mean over `DIRECTIONS`.

    Source: N. Bonneel et al., J. Mathematical Imaging and Vision 51 (2015) 22-45.
    """
    drawn = streams.stream("open-loop", 0, "directions").standard_normal(
        (DIRECTIONS, some.shape[-1])
    )
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    each = len(some) // len(others)
    found = []
    for h in range(some.shape[1]):
        one, other = (np.sort(points[:, h] @ drawn.T, axis=0) for points in (some, others))
        found.append(np.abs(one - np.repeat(other, each, axis=0)).mean())
    return np.array(found)


def area(values: Floats, least: Floats) -> float:
    """Mean over the first `NEAR` timesteps of log values (h,) - log least (h,), each `LEAST` or more."""
    above = np.log(np.maximum(values, LEAST)) - np.log(np.maximum(least, LEAST))
    return float(above[:NEAR].mean())


def valid_steps(imagined: Floats, truth: Floats) -> float:
    """Mean over beginnings of the timesteps until the error of the samples' mean is above `VALID`; all where it
    stays below."""
    wrong = np.sqrt(np.square(imagined.mean(1) - truth).mean(-1)) > VALID  # (E, h)
    first = np.where(wrong.any(1), wrong.argmax(1), wrong.shape[1])
    return float(first.mean())


# --- what happens ---


def beginnings(
    trajectories: Trajectories, past: int, horizon: int, count: int, name: str, seed: int
) -> Floats:
    """Rows (E,), at most `count`, with `past` timesteps before and `horizon` after them in their episode.

    Drawn by the seed's stream of `name` without replacement, the same for every model. Raises UserError where there
    are none.
    """
    timestep = trajectories.timestep
    left = np.repeat(trajectories.lengths, trajectories.lengths) - timestep - 1
    rows = np.flatnonzero((timestep >= past) & (left >= horizon))
    if not len(rows):
        raise UserError(
            f"{trajectories.name}: no timestep has {past} before and {horizon} after it in its episode."
        )
    drawn = streams.stream(name, seed, "open-loop").permutation(len(rows))[:count]
    return np.sort(rows[drawn])


class Playing:
    """A behaviour that acts on what is imagined. settled: without its noise, where it has an action without."""

    def __init__(self, behaviour: Behaviour, rng: np.random.Generator, settled: bool) -> None:
        self._behaviour, self._rng, self._settled = behaviour, rng, settled
        self._began = False

    def __call__(self, observation: Tensor) -> Tensor:
        """Actions (B, M) at observations (B, N); the first call begins the episodes."""
        seen = observation.cpu().numpy()
        if not self._began:
            self._behaviour.start(seen, self._rng)
            self._began = True
        acted = self._behaviour.act(seen)
        action = acted.mean if self._settled and acted.mean is not None else acted.actions
        return torch.from_numpy(np.asarray(action, dtype=np.float32)).to(observation)


def simulated(
    data: DataSet, rows: Floats, horizon: int, samples: int, actions: Floats | Playing, seed: int
) -> Floats | None:
    """Futures (E, samples, h, N) of the true simulator from held-out rows (E,); None where it can't be put there.

    actions: logged ones (E, h, M), or a policy. seed: of the noise.
    """
    truth = data.held_out
    if data.spec.lacks_simulator or truth.simulator_state is None:
        return None
    count = len(rows) * samples
    env = data.spec.make_env(count)
    rng = np.random.default_rng(seed)
    env.reset(rng.integers(1 << 62, size=count).tolist())
    again = np.repeat(rows, samples)
    goals = None if truth.goal is None else truth.goal[again]
    try:
        seen = env.set_simulator_state(truth.simulator_state[again], goals)
    except UserError:
        return None
    found = []
    for step in range(horizon):
        action = (
            actions(torch.from_numpy(seen)).numpy()
            if isinstance(actions, Playing)
            else np.repeat(actions[:, step], samples, axis=0)
        )
        seen = env.step(action)[0]
        found.append(seen)
    return np.stack(found, axis=1).reshape(len(rows), samples, horizon, -1)


@dataclass(frozen=True)
class Happened:
    """What happens after the beginnings of a seed, raw: rows (E,) with `past` timesteps before them, truth (E, h, N),
    futures of the simulator (E, r, h, N) or None."""

    rows: Floats
    past: int
    truth: Floats
    simulated: Floats | None


class Asked:
    """A data set that is looked up by what it holds."""

    def __init__(self, data: DataSet) -> None:
        self.data = data

    def __hash__(self) -> int:
        return hash(self.data.content_hash)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Asked) and other.data.content_hash == self.data.content_hash


@lru_cache(maxsize=8)
def happened(
    asked: Asked,
    source: str,
    past: int,
    horizon: int,
    count: int,
    samples: int,
    name: str,
    seed: int,
) -> Happened:
    """What happens under the logged actions, or under the behaviour's: the same for all models of a seed."""
    data = asked.data
    past = max(0, min(past, int(data.held_out.lengths.max()) - horizon - 1))
    rows = beginnings(data.held_out, past, horizon, count, name, seed)
    drawn = streams.entropy(name, seed, "open-loop/truth") % (1 << 63)
    ahead = rows[:, None] + np.arange(horizon)
    truth = data.held_out.observations[ahead + 1]

    def played(number: int) -> Floats | Playing:
        if source != "behaviour":
            return data.held_out.actions[ahead]
        assert data.spec.behaviour is not None
        return Playing(data.spec.behaviour(), np.random.default_rng(drawn + number), False)

    if source == "behaviour":
        once = simulated(data, rows, horizon, 1, played(0), drawn)
        if once is None:
            raise UserError(
                f"{data.spec.name}: its simulator can't be put into a logged state; allowed: actions logged, own."
            )
        truth = once[:, 0]
    futures = simulated(data, rows, horizon, samples, played(1), drawn + 1)
    return Happened(rows, past, truth, futures)


@dataclass(frozen=True)
class Futures:
    """What one model imagines after E beginnings beside what happens there, all raw.

    there: the beginnings, rows of the held-out episodes, and what happens. observation: (E, N), what is seen at a
    beginning. imagined: (E, r, h, N), 1 .. h timesteps ahead. deviation: (N,), of the training set's observations,
    the unit of errors.
    """

    there: Happened
    observation: Floats
    imagined: Floats
    deviation: Floats


# --- the measurement ---


@register("measurement", "open-loop", version="3")
class OpenLoop(Measurement):
    """How far imagined states lie from what happens, by timesteps ahead: see `errors`.

    area, area_energy: how far log rmse (log energy score) is above the simulator's, see `area`; 0 is the truth, 0.69
    twice the error. Logged actions of a policy that saw the states tell of them what noise made of them, so that a
    model that reads them as evidence can be below the simulator, which only does them; a policy that acts on what is
    imagined tells nothing. floor_...: the simulator's futures after the model's bins. distance: see `sliced`, the
    mean over the first `NEAR` timesteps. valid_time: valid timesteps in Lyapunov times, where one is known. invalid:
    share of imagined states that can't be: more than half the range of the training set beyond it, or refused by the
    environment.
    """

    responses = (
        Response("area", "excess log error", EXCESS, "lower", digits=2),
        Response("area_energy", "excess log energy score", EXCESS, "lower", digits=2),
        Response("floor_area", "excess log error of the bins alone", EXCESS, digits=2),
        Response("distance", "mean distance to the states of the data", UNIT, "lower"),
        Response("simulator_distance", "mean distance of the simulator", UNIT),
        Response("valid_steps", "valid prediction", "timesteps", "higher", digits=1),
        Response("valid_time", "valid prediction time", "Lyapunov times", "higher", digits=2),
        Response("simulator_valid_steps", "valid prediction of the simulator", "timesteps", digits=1),
        Response("rmse", "error of the mean", UNIT, "lower", index="horizon", places=PLACES),
        Response("simulator_rmse", "error of the simulator's mean", UNIT, index="horizon", places=PLACES),
        Response("floor_rmse", "error of the bins alone", UNIT, index="horizon", places=PLACES),
        Response("spread", "spread of samples", UNIT, index="horizon", tabled=False),
        Response("spread_skill", "spread over error", index="horizon", tabled=False),
        Response("energy_score", "", UNIT, "lower", index="horizon", tabled=False),
        Response("wasserstein", "distance to the states of the data", UNIT, "lower", index="horizon", tabled=False),
        Response("invalid", "share of impossible states", "fraction", "lower", index="horizon", tabled=False),
        Response("error_median", "median error", UNIT, "lower", index="horizon", tabled=False),
        Response("error_p90", "90th percentile of the error", UNIT, "lower", index="horizon", tabled=False),
        Response("simulator_energy", "energy score of the simulator", UNIT, index="horizon", tabled=False),
        Response("simulator_wasserstein", "distance of the simulator", UNIT, index="horizon", tabled=False),
        Response("floor_energy", "energy score of the bins alone", UNIT, index="horizon", tabled=False),
    )  # fmt: skip

    class Options(Section):
        """horizon: timesteps ahead. samples: futures of each beginning, where they are drawn. beginnings: how many, or
        all that there are where there are fewer; past: timesteps that each has before it, whatever the model sees of
        them, or as many as the longest episode leaves. actions: those that were logged; the model's own, whose states
        are then to be compared as distributions; or those of the data's behaviour, which acts on what is imagined,
        beside the simulator under that behaviour. sampling: of each number a draw, the likeliest value, or the mean.
        propagation: which member of an ensemble makes a step, see `ablate.plan.futures`."""

        horizon: int = Field(default=50, ge=1)
        samples: int = Field(default=8, ge=2)
        beginnings: int = Field(default=100, ge=1)
        past: int = Field(default=19, ge=0)
        actions: Literal["logged", "own", "behaviour"] = "logged"
        sampling: Sampling = "draw"
        propagation: Propagation = "ts-inf"

    def __call__(self, trained: Trained, options: Any) -> Mapping[str, np.ndarray]:
        data = trained.system.data
        scales = moments(data.train.observations)
        found = [
            summary(made.imagined, made.there, data, scales, binned(model))
            for made, model in zip(self.futures(trained, options), trained.models, strict=True)
        ]
        made = {name: np.stack([one[name] for one in found]) for name in found[0]}
        return {**made, "horizon": np.arange(1, options.horizon + 1)}

    @classmethod
    def futures(cls, trained: Trained, options: Any) -> list[Futures]:
        """What is summed up, of each model. Raises UserError where the data's behaviour can't act as asked."""
        system: Any = trained.system  # one that has `dynamics`, see `refusal`
        data = system.data
        if options.actions == "behaviour" and (data.spec.behaviour is None or data.spec.hiding):
            raise UserError(
                f"{data.spec.name}: its behaviour can't act on what is imagined; allowed: actions logged, own."
            )
        source = "behaviour" if options.actions == "behaviour" else "logged"
        deviation = np.maximum(moments(data.train.observations)[1], 1e-6)
        found = []
        for seed, model in zip(trained.seeds, trained.models, strict=True):
            there = happened(
                Asked(data), source, options.past, options.horizon, options.beginnings,
                options.samples, trained.streams, seed,
            )  # fmt: skip
            dynamics = system.dynamics(model, options.sampling, options.propagation)
            imagined = cls._imagined(trained, dynamics, there, options, seed)
            seen = data.held_out.observations[there.rows]
            found.append(Futures(there, seen, imagined, deviation))
        return found

    @staticmethod
    def _imagined(
        trained: Trained, dynamics: Dynamics, there: Happened, options: Any, seed: int
    ) -> Floats:
        """The model's futures (E, r, h, N), raw."""
        rows = there.rows
        system, truth = trained.system, trained.system.data.held_out
        drawn = streams.entropy(trained.streams, seed, "open-loop") % (1 << 63)
        settled = options.sampling != "draw"
        actions: Any = None
        if options.actions == "logged":
            logged = truth.actions[rows[:, None] + np.arange(options.horizon)]
            actions = torch.from_numpy(logged).to(system.device)
        elif options.actions == "behaviour":
            assert system.data.spec.behaviour is not None
            rng = np.random.default_rng(drawn)
            actions = Playing(system.data.spec.behaviour(), rng, settled)
        before = min(system.context - 1, there.past)
        found = dynamics.imagine(
            system.rows(truth)[0][rows[:, None] + np.arange(-before, 0)],  # (E, K-1, D)
            torch.from_numpy(truth.observations)[rows].to(system.device),
            options.horizon,
            1 if settled else options.samples,
            actions,
            drawn,
        )
        return found.cpu().numpy()

    @classmethod
    def refusal(cls, config: Mapping[str, Any]) -> str:
        algorithm = registry.get("algorithm", config["algorithm"])
        system = registry.get("system", algorithm.system)
        if not hasattr(system, "dynamics"):
            return (
                "the measurement 'open-loop' samples imagined trajectories, which the algorithm"
                f" '{config['algorithm']}' doesn't predict; allowed: joint, one-step"
            )
        if config["condition"] != "none":
            return (
                "the measurement 'open-loop' doesn't ask for anything; found the condition"
                f" '{config['condition']}', allowed: none"
            )
        if timesteps(config) < 2:
            return (
                "the measurement 'open-loop' asks for the next observation, which a window of one timestep never"
                " predicts; found the context 1, allowed: 2 or more"
            )
        options = config.get("measure", {}).get("open-loop", {})
        if options.get("actions") == "own" and algorithm.system != "joint":
            return (
                f"the measurement 'open-loop': the algorithm '{config['algorithm']}' predicts no actions of its own;"
                " allowed: measure.open-loop.actions logged, behaviour"
            )
        return ""

    @classmethod
    def seconds(
        cls, config: Mapping[str, Any], options: Mapping[str, Any], tokens: Callable[[], int]
    ) -> float:
        """See `Measurement.seconds`: a window of tokens is encoded for each imagined timestep."""
        drawn = options["sampling"] == "draw"
        imagined = options["beginnings"] * (options["samples"] if drawn else 1) * options["horizon"]
        if registry.get("algorithm", config["algorithm"]).system != "joint":
            return 1e-5 * imagined
        seen = (timesteps(config) - 1) * tokens()
        return 1.4e-10 * config["model"]["parameters"] * imagined * seen

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> frozenset[str]:
        options = config.get("measure", {}).get("open-loop", {})
        sampling = options.get("sampling", "draw")
        unread = set() if sampling == "draw" else {"samples"}
        if sampling == "mean" or config["settings"].get("members", 1) == 1:
            unread |= {"propagation"}
        return frozenset(cls.Options.model_fields) - unread


def binned(model: Any) -> Any:
    """What the bins of a model make of raw observations (..., N); None where it has none."""
    heads = getattr(model, "head", None)
    if heads is None or not getattr(heads, "binned", False):
        return None

    def rounded(values: Floats) -> Floats:
        raw = torch.from_numpy(np.ascontiguousarray(values)).to(heads.mean)
        found: Floats = heads.raw(heads.symbols(raw)).cpu().numpy()
        return found

    return rounded


def summary(
    imagined: Floats, there: Happened, data: DataSet, scales: tuple[Floats, Floats], rounded: Any
) -> dict[str, Any]:
    """The responses of raw futures (E, r, h, N), a number or (h,) each."""
    centre, deviation = scales[0], np.maximum(scales[1], 1e-6)

    def scaled(values: Floats) -> Floats:
        apart = (values.astype(np.float64) - centre) / deviation
        return np.clip(np.nan_to_num(apart, nan=MOST, posinf=MOST, neginf=-MOST), -MOST, MOST)

    mine, truth = scaled(imagined), scaled(there.truth)
    undefined = np.full(truth.shape[1], np.nan)
    found: dict[str, Any] = errors(mine, truth)
    found["invalid"] = impossible(imagined, data).mean((0, 1))
    found["valid_steps"] = valid_steps(mine, truth)
    known = data.spec.make_env(1).lyapunov if not data.spec.lacks_simulator else None
    found["valid_time"] = found["valid_steps"] / known if known else np.nan
    futures = there.simulated
    best = None if futures is None else errors(scaled(futures), truth)
    coarse = None
    if rounded is not None:
        raw = there.truth[:, None] if futures is None else futures
        coarse = errors(scaled(rounded(raw)), truth)
    for name, one in (("simulator", best), ("floor", coarse)):
        found[f"{name}_rmse"] = undefined if one is None else one["rmse"]
        found[f"{name}_energy"] = undefined if one is None else one["energy_score"]
    found["simulator_wasserstein"] = undefined if best is None else best["wasserstein"]
    found["distance"] = found["wasserstein"][:NEAR].mean()
    found["simulator_distance"] = found["simulator_wasserstein"][:NEAR].mean()
    found["simulator_valid_steps"] = (
        np.nan if futures is None else valid_steps(scaled(futures), truth)
    )
    for name, of, one in (
        ("area", "rmse", found),
        ("area_energy", "energy_score", found),
        ("floor_area", "rmse", coarse),
    ):
        there_is = one is not None and best is not None
        found[name] = area(one[of], best[of]) if there_is else np.nan  # type: ignore[index]
    return found


def impossible(states: Floats, data: DataSet) -> np.ndarray:
    """Which raw states (..., N) can't be, see `OpenLoop`: (...,) bool."""
    low, high = data.train.observations.min(0), data.train.observations.max(0)
    room = WIDER * np.maximum(high - low, 1e-6)
    bad = ~((states >= low - room) & (states <= high + room)).all(-1)
    if data.spec.lacks_simulator:
        return bad
    return bad | data.spec.make_env(1).impossible(states)
