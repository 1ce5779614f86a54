"""What only this study measures: prediction and acting when the past that a policy is shown is another one than it was,
or when its actions are filtered; and how well a linear map reads from a policy's features who acts.

Data sets: the linear-quadratic mixtures (`lq-mix/...`). There a controller's episodes are a Gaussian Markov chain, so
that its past can be drawn exactly, backwards from the state in which it ends; and the posterior over who acts is known.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from statsmodels.discrete.discrete_model import MNLogit

from ablate.data import exact, streams
from ablate.data.catalogue import spec
from ablate.data.exact import EARLY, EXPLORATION
from ablate.data.families.lq import mixture
from ablate.data.trajectories import Trajectories
from ablate.data.windows import Visibility, window_rows
from ablate.envs.lq import ACTION_SCALE, PROCESS_NOISE, A, B
from ablate.measure.base import Measurement, Numbers, Trained
from ablate.measure.episodes import CAP, CAPPED, LOST, REGRET, SCORE, optimal_returns
from ablate.measure.episodes import summaries as responses
from ablate.measure.rollout import rollout
from ablate.models.agent import TOKENS, Agent, Around, stored
from ablate.models.assembly import Model
from ablate.models.layouts import Fields
from ablate.registry import Section, register
from ablate.words import Response

# Of what is measured here. Change it whenever that changes: all rows are then measured again.
VERSION = "9c02b5f7e1d4"
CHUNK = 2048  # windows that are encoded at once
Floats = np.ndarray


# --- windows of the past ---


@dataclass(frozen=True)
class Windows:
    """R windows of at most K timesteps, left-aligned; the last valid position is the present.

    state: (R, K, 4). led: (R, K, 2), the stored action that led to the state, zero at the oldest one, which was reached
    from outside the window. told: what each condition says, (R, K, w). length: (R,) valid positions. first: (R,), the
    timestep of the oldest state.
    """

    state: Floats
    led: Floats
    told: Mapping[str, Floats]
    length: Floats
    first: Floats

    def done(self) -> Floats:
        """The action taken in each state, (R, K, 2); zero at the present and behind it."""
        past = np.arange(self.state.shape[1] - 1) < self.length[:, None] - 1
        return np.pad(self.led[:, 1:] * past[..., None], ((0, 0), (0, 1), (0, 0)))

    def doing(self, done: Floats) -> Windows:
        """The same with other actions (R, K, 2) taken in its past states."""
        return replace(self, led=np.pad(done[:, :-1], ((0, 0), (1, 0), (0, 0))))

    def order(self, rng: np.random.Generator) -> Floats:
        """A random order of the past positions, (R, K, 1); all others stay where they are."""
        rows, size = self.state.shape[:2]
        position = np.arange(size)
        past = position < self.length[:, None] - 1
        keys = np.where(past, rng.random((rows, size)), 1.0 + position)
        return np.argsort(keys, axis=1)[..., None]


def logged(fields: Fields, timestep: torch.Tensor, targets: torch.Tensor, context: int) -> Windows:
    """Windows of at most `context` timesteps that end at the rows `targets` (R,) of stored episodes."""
    rows, length = window_rows(targets, timestep, context)
    seen = fields.map(lambda each: each[rows])
    led = seen.action.cpu().numpy().copy()
    led[:, 0] = 0.0
    told = {name: values.cpu().numpy() for name, values in seen.told.items()}
    first = (timestep[targets] - length + 1).cpu().numpy()
    return Windows(seen.observation.cpu().numpy(), led, told, length.cpu().numpy(), first)


class Reader:
    """S policies that read windows as they are given to them.

    What a policy hides of the past stays hidden; the oldest action is zero in the windows themselves, so that a
    timestep that is moved keeps what it showed.
    """

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        stays = [kept for _, width, _, kept in agent.layout.columns for _ in range(width)]
        self.visible = Visibility.of(agent.context, [True] * len(stays), stays, agent.device)

    def __call__(self, windows: Sequence[Windows], size: int = CHUNK) -> torch.Tensor:
        """Head parameters (S, R, P) of each policy's R windows, `size` encoded at once."""
        agent = self.agent

        def stacked(values: Sequence[Floats]) -> torch.Tensor:
            return torch.from_numpy(np.stack(values).astype(np.float32)).to(agent.device)

        state = stacked([each.state for each in windows])  # (S, R, L, 4)
        raw = Fields(
            observation=state,
            action=stacked([each.led for each in windows]),
            reward=torch.zeros_like(state[..., 0]),
            time=torch.zeros_like(state[..., 0]),
            told={name: stacked([each.told[name] for each in windows]) for name in windows[0].told},
        )
        length = stacked([each.length for each in windows]).long()  # (S, R)
        rows = F.pad(agent.tokens(raw), (0, 0, 0, agent.context - state.shape[2]))
        shown = self.visible.show(rows, length)
        pieces = zip(shown.split(size, 1), length.split(size, 1), strict=True)
        return torch.cat([agent.stack(*piece) for piece in pieces], dim=1)


# --- a controller's past that ends in a given state ---


@functools.cache
def backwards(policies: int) -> tuple[Floats, Floats]:
    """J and C^(1/2), (Z, T - 1, 4, 4): s_t given s_t+1 is N(J s_t+1, C) in the episodes of controller z.

    The states of a controller are a Gaussian Markov chain, s_t ~ N(0, S_t) and s_t+1 = M s_t + noise, so that
    J = S_t M' S_t+1^-1 and C = S_t - J S_t+1 J' (the backward step of the smoother of Rauch, Tung and Striebel, AIAA
    Journal 3 (1965) 1445-1450). Clipping, of 0.01 % of the actions, is ignored.
    """
    gains = exact.controllers(policies)
    means, roots = [], []
    for gain in gains:
        covariance = exact.state_covariances(gain, EXPLORATION)  # (T, 4, 4)
        before, after = covariance[:-1], covariance[1:]
        step = before @ (A - B @ gain).T @ np.linalg.inv(after)
        left = before - step @ after @ step.transpose(0, 2, 1)
        means.append(step)
        roots.append(np.linalg.cholesky((left + left.transpose(0, 2, 1)) / 2))
    return np.stack(means), np.stack(roots)


def action_between(
    state: Floats, following: Floats, gain: Floats, rng: np.random.Generator
) -> Floats:
    """A force (R, 2) of controllers (R, 2, 4) between two states (R, 4) that follow each other, from its exact law."""
    precision = np.eye(2) / EXPLORATION**2 + B.T @ B / PROCESS_NOISE**2
    covariance = np.linalg.inv(precision)
    pushed = (following - state @ A.T) @ B / PROCESS_NOISE**2
    mean = (pushed - np.einsum("rij,rj->ri", gain, state) / EXPLORATION**2) @ covariance
    drawn: Floats = mean + rng.standard_normal(mean.shape) @ np.linalg.cholesky(covariance).T
    return drawn


def past_of(windows: Windows, policy: Floats, policies: int, rng: np.random.Generator) -> Windows:
    """The same windows with the past that controller `policy` (R,) would have made before the same present state."""
    means, roots = backwards(policies)
    gains = exact.controllers(policies)[policy]  # (R, 2, 4)
    state, led = windows.state.astype(np.float64), np.zeros_like(windows.led)
    for lag in range(1, state.shape[1]):
        rows = np.flatnonzero(windows.length > lag)
        place = windows.length[rows] - 1 - lag
        time, who = windows.first[rows] + place, policy[rows]
        following = state[rows, place + 1]
        before = np.einsum("rij,rj->ri", means[who, time], following)
        before += np.einsum("rij,rj->ri", roots[who, time], rng.standard_normal((len(rows), 4)))
        state[rows, place] = before
        force = action_between(before, following, gains[rows], rng)
        led[rows, place + 1] = np.clip(force / ACTION_SCALE, -1.0, 1.0)
    return replace(windows, state=state.astype(np.float32), led=led)


# --- the exact posterior, which takes a window at its word ---


def beliefs(windows: Windows, mixing: str, policies: int, context: int, timed: bool) -> Floats:
    """p(z | window) (R, Z): each past state with the action behind it, as if the window were of one episode."""
    rows, size = windows.state.shape[:2]
    if mixing != "episode":
        return np.full((rows, policies), 1 / policies)
    past = np.arange(size) < windows.length[:, None] - 1  # (R, K)
    flat = windows.state.reshape(-1, 4), windows.done().reshape(-1, 2)
    each = exact.action_evidence(*flat, policies).reshape(rows, size, policies)
    evidence = (each * past[..., None]).sum(1)
    return exact.window_posterior(
        windows.state[:, 0], windows.first, windows.length, evidence, context, timed
    )


def present(windows: Windows) -> Floats:
    """The present state of each window, (R, 4)."""
    return windows.state[np.arange(len(windows.length)), windows.length - 1]


# --- what is done to the past ---


@dataclass(frozen=True)
class Scene:
    """What a change of the past may use. own: (R,) who acts (in prediction), or who the exact posterior of the true
    window says does, drawn from it (in acting). other: (R,) in prediction another controller than the one who acts,
    drawn at random; in acting one that is drawn for the episode."""

    own: Floats
    other: Floats
    policies: int
    rng: np.random.Generator


def shuffled(windows: Windows, scene: Scene) -> Windows:
    """Its past timesteps in random order, each as the policy reads it: a state and the action that led to it."""
    order = windows.order(scene.rng)
    told = {name: np.take_along_axis(each, order, 1) for name, each in windows.told.items()}
    state, led = (np.take_along_axis(each, order, 1) for each in (windows.state, windows.led))
    return replace(windows, state=state, led=led, told=told)


def paired(windows: Windows, scene: Scene) -> Windows:
    """Its past timesteps in random order, each a state and the action that was taken in it."""
    return _moved(windows, *[windows.order(scene.rng)] * 2)


def torn(windows: Windows, scene: Scene) -> Windows:
    """Its past states in one random order and its past actions in another."""
    return _moved(windows, windows.order(scene.rng), windows.order(scene.rng))


def _moved(windows: Windows, states: Floats, actions: Floats) -> Windows:
    told = {name: np.take_along_axis(each, states, 1) for name, each in windows.told.items()}
    moved = replace(windows, state=np.take_along_axis(windows.state, states, 1), told=told)
    return moved.doing(np.take_along_axis(windows.done(), actions, 1))


def redrawn(windows: Windows, scene: Scene) -> Windows:
    """Another past of the controller who acts that ends in the same state."""
    return past_of(windows, scene.own, scene.policies, scene.rng)


def transplanted(windows: Windows, scene: Scene) -> Windows:
    """A past of another controller that ends in the same state."""
    return past_of(windows, scene.other, scene.policies, scene.rng)


def better(windows: Windows, scene: Scene) -> Windows:
    """A past of the best controller that ends in the same state."""
    return past_of(windows, np.zeros_like(scene.own), scene.policies, scene.rng)


CHANGES: dict[str, Callable[[Windows, Scene], Windows] | None] = {
    "as-it-was": None,
    "shuffled": shuffled,
    "paired": paired,
    "torn": torn,
    "redrawn": redrawn,
    "transplanted": transplanted,
    "better": better,
}
DRAWN = ("redrawn", "transplanted", "better")  # from the law of one controller's episodes


class Retold(Around[Agent]):
    """S policies as they act, which see another past than theirs, or whose actions are filtered.

    smooth: a in [0, 1) of y_t = a y_t-1 + (1 - a) action, which is executed; y_0 is the action itself. generators: one
    a policy.
    """

    def __init__(
        self,
        agent: Agent,
        shown: str,
        smooth: float,
        mixing: tuple[str, int],
        generators: Sequence[np.random.Generator],
    ) -> None:
        super().__init__(agent)
        self.change, self.smooth = CHANGES[shown], smooth
        self.mixing, self.policies = mixing
        self.generators = generators
        self.reader = Reader(agent)

    def start(self, batch: int) -> _Acting:
        """`batch` fresh episodes of each policy."""
        return _Acting(self, batch)


class _Acting:
    def __init__(self, owner: Retold, batch: int) -> None:
        self.owner = owner
        self.plain = owner.agent.start(batch)
        self.past: list[Fields] = []
        self.t = 0
        self.other = [g.integers(owner.policies, size=batch) for g in owner.generators]

    def act(self, raw: Fields, noise: torch.Tensor | None) -> torch.Tensor:
        """See `Acting`."""
        owner = self.owner
        if owner.change is None:
            action = self.plain.act(raw, noise)
        else:
            head, params = owner.agent.stack.head, self._params(raw)
            action = head.mode(params) if noise is None else head.sample(params, noise)
        if self.t and owner.smooth:
            action = owner.smooth * raw.action + (1.0 - owner.smooth) * action
        self.t += 1
        return action

    def _params(self, raw: Fields) -> torch.Tensor:
        owner, context = self.owner, self.owner.agent.context
        assert owner.change is not None
        self.past = [*self.past, raw][-context:]
        length = len(self.past)
        found = []
        for place, rng in enumerate(owner.generators):
            true = self._window(place, length)
            who = np.zeros(len(true.length), dtype=np.int64)
            if owner.mixing == "episode":
                weights = beliefs(true, owner.mixing, owner.policies, context, timed=True)
                drawn = rng.random((len(who), 1)) > np.cumsum(weights, axis=1)[:, :-1]
                who = drawn.sum(1)
            found.append(owner.change(true, Scene(who, self.other[place], owner.policies, rng)))
        return owner.reader(found, max(1, TOKENS // context))

    def _window(self, place: int, length: int) -> Windows:
        """The true windows (E, L) of one policy."""

        def joined(values: Sequence[torch.Tensor]) -> Floats:
            return torch.stack([each[place] for each in values], dim=1).cpu().numpy()

        led = joined([each.action for each in self.past])
        led[:, 0] = 0.0
        told = {name: joined([each.told[name] for each in self.past]) for name in self.past[0].told}
        full = np.full(len(led), length)
        state = joined([each.observation for each in self.past])
        return Windows(state, led, told, full, np.full_like(full, self.t + 1 - length))


@register("measurement", "past", VERSION)
class Past(Measurement):
    """Prediction on held-out episodes and acting, with another past than it was, other windows than in training, or
    filtered actions."""

    responses = (
        Response("action_error", "action error", "of the action variance", "lower", digits=3),
        Response("follows", "share of the way to the action of the past's controller"),
        Response(
            "clone_error", "action error of the exact posterior", "of the action variance", "lower"
        ),
        Response("clone_follows", "the same share, of the exact posterior"),
        SCORE,
        REGRET,
        Response("lost", "share of lost episodes", "fraction", "lower"),
        *REGRET.ways(*CAPPED),
    )
    acts = True

    class Options(Section):
        """shown: see `CHANGES`. context: K of predicting and acting. smooth: see `Retold`. timesteps: how many held-out
        ones are predicted at most. episodes, cap, below: as of `rollout`."""

        shown: Literal[tuple(CHANGES)] = "as-it-was"  # type: ignore[valid-type]
        context: int | Literal["trained"] = "trained"
        smooth: float = Field(default=0.0, ge=0, lt=1)
        timesteps: int = Field(default=16_384, gt=0)
        episodes: int = Field(default=200, gt=0)
        cap: float = Field(default=CAP, gt=0)
        below: float = LOST

    def __call__(self, trained: Trained, options: Any) -> Mapping[str, Numbers]:
        context = None if options.context == "trained" else options.context
        agent = trained.system.actor(trained.models, {"context": context, "state": "re-encoded"})
        agent.eval()
        return predicted(trained, agent, options) | acted(trained, agent, options)

    @classmethod
    def refusal(cls, config: Mapping[str, Any]) -> str:
        asked = config["measure"]["past"]
        if not re.match(r"lq-mix/[^@]*$", str(config["data"])):
            return f"the measurement 'past' needs the exact posterior; found '{config['data']}', allowed: lq-mix/..."
        if asked["shown"] in DRAWN and mixture(spec(str(config["data"])))[0] != "episode":
            return f"measure.past.shown: '{asked['shown']}' needs one controller an episode; found '{config['data']}'"
        if asked["context"] == config["context"]:
            return f"measure.past.context: {asked['context']} is that of training; allowed: trained"
        if "return" in str(config["condition"]):
            return f"the measurement 'past' doesn't ask for a return; found the condition '{config['condition']}'"
        return ""

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> frozenset[str]:
        asked = config["measure"]["past"]["context"]
        without = (config["context"] if asked == "trained" else asked) == 1
        return frozenset(cls.Options.model_fields) - ({"shown"} if without else set())


def acted(trained: Trained, agent: Agent, options: Any) -> dict[str, Numbers]:
    """The responses of acting, (S,) each."""
    data, seeds = trained.system.data, trained.seeds
    generators = [streams.stream(trained.streams, seed, "past-acting") for seed in seeds]
    retold = Retold(agent, options.shown, options.smooth, mixture(data.spec), generators)
    found = rollout(
        retold,
        data.spec.make_env(len(seeds) * options.episodes),
        options.episodes,
        study=trained.streams,
        seeds=seeds,
        target=0.0,
        policy=data.spec.best_policy,
        sample=True,
    )
    optimal = optimal_returns(data.spec, found.env_seeds)
    every = responses(found, data.anchors, optimal, options.cap, options.below)
    return {each.name: every[each.name] for each in Past.responses if each.name in every}


@torch.no_grad()
def predicted(trained: Trained, agent: Agent, options: Any) -> dict[str, Numbers]:
    """The responses of prediction, (S,) each, on the held-out targets that every cell is measured on."""
    system = trained.system
    held, episodes = (
        system.held(trained.streams, trained.models, options.timesteps),
        system.data.held_out,
    )
    mixing, policies = mixture(system.data.spec)
    timed = "time" in system.config["condition"]
    data = stored(episodes, agent.layout, agent.device)
    # A filter needs what was predicted before, in the whole episode.
    targets = torch.arange(len(data.timestep)) if options.smooth else held.targets.cpu()
    true = logged(data.fields, data.timestep.cpu(), targets, agent.context)
    change, who = CHANGES[options.shown], episodes.behaviour_id[targets.numpy()].astype(np.int64)
    shown, others = [], []
    for seed in trained.seeds:
        rng = streams.stream(trained.streams, seed, "past-predicting")
        other = (who + rng.integers(1, policies, size=len(who))) % policies
        others.append(np.zeros_like(who) if options.shown == "better" else other)
        shown.append(true if change is None else change(true, Scene(who, other, policies, rng)))
    actions = agent.stack.head.mean(Reader(agent)(shown)).cpu().numpy()  # (S, R, 2)
    weights = [beliefs(each, mixing, policies, agent.context, timed) for each in shown]
    means = exact.controller_actions(present(true), policies)  # (R, Z, 2)
    cloned = np.einsum("srz,rzi->sri", np.stack(weights), means)
    if options.smooth:
        kept = held.targets.cpu().numpy()
        actions, cloned = (
            filtered(each, episodes.timestep, options.smooth)[:, kept] for each in (actions, cloned)
        )
        who, means, others = who[kept], means[kept], [each[kept] for each in others]
    wanted, rows = held.wanted.cpu().numpy()[held.targets.cpu().numpy()], np.arange(len(who))
    own = means[rows, who]
    away = np.stack([means[rows, each] for each in others]) - own  # (S, R, 2)
    led = options.shown in ("transplanted", "better")

    def follows(predictions: Floats) -> Floats:
        """Least squares of where predictions go on where the past's controller would: 0 own, 1 the past's."""
        found: Floats = ((predictions - own) * away).sum((1, 2)) / np.square(away).sum((1, 2))
        return found if led else np.full(len(predictions), np.nan)

    return {
        "action_error": np.square(actions - wanted).mean((1, 2)) / held.variance,
        "clone_error": np.square(cloned - wanted).mean((1, 2)) / held.variance,
        "follows": follows(actions),
        "clone_follows": follows(cloned),
    }


def filtered(actions: Floats, timestep: Floats, smooth: float) -> Floats:
    """y_t = a y_t-1 + (1 - a) action_t along each episode, of actions (S, T, 2) at timesteps (T,); y_0 = action_0."""
    found = actions.astype(np.float64)
    for t in range(1, timestep.max() + 1):
        now = np.flatnonzero(timestep == t)
        found[:, now] = smooth * found[:, now - 1] + (1.0 - smooth) * found[:, now]
    return found


# --- who acts, read from the features ---

SPANS = (0, 1, 2, 4, 8, 16, 32, 64)  # the timesteps at which spans of timesteps begin


@register("measurement", "probe", VERSION)
class Probe(Measurement):
    """How often a linear map of the last hidden vector before the head tells who acts, on held-out episodes.

    Early is in timesteps 1 to 7: at 0 there is no past, and later the state alone tells nearly as much. A multinomial
    logistic regression over all timesteps is fitted on the even episodes and asked on the odd ones, and the other way
    round.

    An action is a controller's gain times the state, so that a belief may stand in the features only in products with
    the state, which no linear map reads. So it is also asked whose action the model's own is nearest to: that of the
    exact posterior is nearest to the likelier of two.
    """

    responses = (
        Response("accuracy", "accuracy of the probe", "fraction", "higher"),
        Response("exact", "accuracy of the exact posterior", "fraction", "higher"),
        Response("early", "early accuracy of the probe", "fraction", "higher"),
        Response("exact_early", "early accuracy of the exact posterior", "fraction", "higher"),
        Response("short", "early accuracy that the probe lacks", "fraction", "lower"),
        Response("nearest", "share of actions that are nearest to who acts", "fraction", "higher"),
        Response(
            "nearest_early", "early share of actions nearest to who acts", "fraction", "higher"
        ),
        Response("accuracy_at", "accuracy of the probe", "fraction", "higher", index="timestep"),
        Response(
            "nearest_at",
            "share of actions nearest to who acts",
            "fraction",
            "higher",
            index="timestep",
        ),
        Response(
            "exact_at", "accuracy of the exact posterior", "fraction", "higher", index="timestep"
        ),
    )

    def __call__(self, trained: Trained, options: Section) -> Mapping[str, Numbers]:
        """See `Measurement`."""
        system = trained.system
        episodes, context = system.data.held_out, system.context
        mixing, policies = mixture(system.data.spec)
        agent = system.program(trained.models[:1])
        data = stored(episodes, agent.layout, agent.device)
        rows = agent.tokens(data.fields)
        targets = torch.arange(len(rows), device=agent.device)
        who = episodes.behaviour_id.astype(np.int64)
        windows = logged(data.fields, data.timestep, targets, context)
        timed = "time" in system.config["condition"]
        best = beliefs(windows, mixing, policies, context, timed).argmax(1) == who  # (T,)
        means = exact.controller_actions(episodes.observations, policies)  # (T, Z, 2)
        read_right, done_right = [], []
        for model in trained.models:
            parts = [
                hidden(model, *(x[0] for x in agent.windows(rows, data.timestep, part[None])))
                for part in targets.split(CHUNK)
            ]
            features = torch.cat(parts)
            action = acted_on(model, features).cpu().numpy()
            apart = np.square(means - action[:, None]).sum(-1)  # (T, Z)
            done_right.append(apart.argmin(1) == who)
            read_right.append(cross_read(features.cpu().numpy(), who, episodes) == who)
        right, nearest = np.stack(read_right), np.stack(done_right)  # (S, T)
        early = (episodes.timestep > 0) & (episodes.timestep < EARLY)
        span = np.searchsorted(SPANS, episodes.timestep, side="right") - 1
        spans = [span == i for i in range(len(SPANS))]
        known = np.array([best[one].mean() for one in spans])
        size = len(right)
        return {
            "accuracy": right.mean(1),
            "exact": np.full(size, best.mean()),
            "early": right[:, early].mean(1),
            "exact_early": np.full(size, best[early].mean()),
            "short": best[early].mean() - right[:, early].mean(1),
            "nearest": nearest.mean(1),
            "nearest_early": nearest[:, early].mean(1),
            "accuracy_at": np.stack([right[:, one].mean(1) for one in spans], axis=1),
            "nearest_at": np.stack([nearest[:, one].mean(1) for one in spans], axis=1),
            "exact_at": np.tile(known, (size, 1)),
            "timestep": np.array(SPANS),
        }

    @classmethod
    def refusal(cls, config: Mapping[str, Any]) -> str:
        if not re.match(r"lq-mix/[^@]*$", str(config["data"])):
            return f"the measurement 'probe' needs the exact posterior; found '{config['data']}', allowed: lq-mix/..."
        return ""


@torch.no_grad()
def hidden(model: Model, rows: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """What the head of a model reads at the last position of windows (R, K, F) with lengths (R,): (R, W)."""
    mixed = model.mixer.last(model.embed(rows), model.embed.length(lengths))
    found: torch.Tensor = model.norm(mixed)
    return found


@torch.no_grad()
def acted_on(model: Model, features: torch.Tensor) -> torch.Tensor:
    """The mean action (R, 2) of what the head of a model reads, (R, W)."""
    found: torch.Tensor = model.head.mean(model.head(features))
    return found


def cross_read(features: Floats, who: Floats, episodes: Trajectories) -> Floats:
    """Who acts (T,) as read from features (T, W) by the regression of those episodes that a row's isn't among."""
    odd = np.repeat(np.arange(episodes.num_episodes) % 2, np.diff(episodes.episode_starts)) == 1
    found = np.empty_like(who)
    for half in (odd, ~odd):
        found[~half] = read(features[half], who[half], features[~half])
    return found


def read(features: Floats, who: Floats, elsewhere: Floats) -> Floats:
    """The likeliest of the policies `who` (R,) at `elsewhere` (Q, W) by logistic regression on features (R, W).

    Two hundred steps: where the features separate the policies there is no end to the coefficients.
    """
    mean, scale = features.mean(0), features.std(0)
    kept = scale > 1e-6 * max(float(scale.max()), 1e-12)

    def design(values: Floats) -> Floats:
        whitened = (values[:, kept] - mean[kept]) / scale[kept]
        return np.column_stack([np.ones(len(values)), whitened]).astype(np.float64)

    names, codes = np.unique(who, return_inverse=True)
    if len(names) < 2:
        return np.full(len(elsewhere), names[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it hasn't settled
        fitted = MNLogit(codes, design(features)).fit(
            method="lbfgs", maxiter=200, disp=False, skip_hessian=True
        )
        found: Floats = names[np.asarray(fitted.predict(design(elsewhere))).argmax(1)]
    return found
