"""What only this study has: the linear system's demonstrator who sees no more than what is shown (`lq-filter/...`), the
Kalman filter's estimate as a condition, acting with what history is worth beside the exact yardsticks (`recovery`), and
the dose of what is hidden (`dose`). What is made of both stands in `dose_worth.py`.

The dose of a data set is what the meter reads (`ablate.data.dose`): by how many nats a timestep the past tells more of
the demonstrator's next action than the present does. Nothing else in the study knows by which knob it was made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field

from ablate.data import dose, exact, kalman, streams
from ablate.data.catalogue import DataSet, DataSpec, Family, spec
from ablate.data.collect import collect
from ablate.data.families import lq
from ablate.data.trajectories import Trajectories
from ablate.data.windows import Visibility
from ablate.envs.lq import HORIZON, LinearQuadratic
from ablate.errors import UserError, unknown
from ablate.measure.base import Measurement, Numbers, Trained
from ablate.measure.episodes import (
    CAP,
    CAPPED,
    LOST,
    MEDIAN,
    SCORE,
    SHARE_LOST,
    SUCCESS,
    capped,
    regret,
)
from ablate.measure.rollout import rollout
from ablate.models.agent import TOKENS, Agent, Around
from ablate.models.conditions import Condition, Moment
from ablate.models.layouts import Fields, Layout
from ablate.registry import Section, register
from ablate.words import Response

# Of what is measured and generated here. Change it whenever either changes: all rows are then measured again.
VERSION = "1"
Floats = np.ndarray
# Deviation of each coordinate in a demonstrator's episodes, as it is in closed form.
DEVIATION = np.sqrt(
    np.diagonal(
        exact.state_covariances(exact.optimal_gain(), exact.EXPLORATION), axis1=1, axis2=2
    ).mean(0)
)
LINEAR = r"lq-(mix/single(-\d+)?|filter/\d+)"  # data sets whose only demonstrator is the regulator
CLOSE = 0.1  # of the demonstrator's spread: actions as close repeat each other


# --- a demonstrator who sees no more than what is shown ---


@register("data", "lq-filter", VERSION, label="LQ, filter")
class Filters(Family):
    """`lq-filter/3000@mask-velocity:masked`: 3,000 episodes of a demonstrator who sees what is shown and acts by its
    Kalman filter. Where all is shown it is the regulator of `lq-mix/single`."""

    words: ClassVar = {r"(\d+)": r"\1 episodes"}

    def resolve(self, member: str, name: str) -> DataSpec:
        found = re.fullmatch(r"[1-9][0-9]{0,4}", member)
        if not found:
            raise unknown("data", name, self.names())
        episodes = int(member)
        linear = lq.LinearMixtures().resolve("single", name)

        def part(number: int, which: str) -> Trajectories:
            steps = number * HORIZON
            return collect(
                f"lq-filter/{member}", which, LinearQuadratic, kalman.Estimating(), steps
            )

        return replace(
            linear,
            name=name.partition("@")[0],
            family="lq-filter",
            recipe={"generator": "lq-filter", "version": 1, "train": episodes},
            generate=lambda: (part(episodes, "train"), part(100, "held_out")),
            yardstick=None,
            behaviour=kalman.Estimating,
        )

    def names(self) -> list[str]:
        return ["lq-filter/3000"]

    def coordinates(self, member: str) -> dict[str, list[int]]:
        return lq.LinearMixtures().coordinates(member)


# --- the state as it can be estimated, in place of memory ---


@register("condition", "estimate", VERSION, label="state estimate")
class Estimate(Condition):
    """Raw: the state (4,) as the Kalman filter has it from all that was shown and done. A model without memory that is
    told it lacks nothing that memory could tell of the state."""

    def width(self, layout: Layout) -> int:
        return 4

    def logged(self, trajectories: Trajectories, layout: Layout) -> Numbers:
        hiding = spec(trajectories.name).hiding
        env = LinearQuadratic(1)
        seen = kalman.Seen.of(env if hiding is None else hiding.wrap(env, DEVIATION))
        episodes = trajectories.num_episodes
        shown, done = (
            each.reshape(episodes, HORIZON, -1)
            for each in (trajectories.observations, trajectories.actions)
        )
        law, found = kalman.Filter(seen), []
        law.start(episodes)
        for t in range(HORIZON):
            found.append(law.observe(shown[:, t]))
            law.acted(done[:, t])
        return np.stack(found, axis=1).reshape(episodes * HORIZON, 4)

    def shown(self, moment: Moment, before: Numbers | None) -> Numbers:
        rows = math.prod(moment.shape)
        if before is None:
            self._law = kalman.Filter(kalman.Seen.of(moment.env))  # type: ignore[arg-type]
            self._law.start(rows)
        else:
            self._law.acted(np.asarray(moment.action).reshape(rows, -1))
        return self._law.observe(np.asarray(moment.observation).reshape(rows, -1)).reshape(
            *moment.shape, 4
        )

    def scaled(self, raw: torch.Tensor, scales: Any, layout: Layout) -> torch.Tensor:
        return raw / torch.as_tensor(DEVIATION, dtype=raw.dtype, device=raw.device)

    def missing(self, spec: DataSpec) -> str:
        linear = re.match(rf"{LINEAR}(@|$)", spec.name)
        return "" if linear else "come from the linear-quadratic system with one demonstrator"


# --- acting, with the past as it was or in random order ---


class Watched(Around[Agent]):
    """S policies as they act, whose actions are kept; their past may be shown to them in random order.

    generators: one a policy, which draw the order anew at each timestep; None to show the past as it was. actions: (S,
    E, M) a timestep.
    """

    def __init__(self, agent: Agent, generators: Sequence[np.random.Generator] | None) -> None:
        super().__init__(agent)
        self.generators = generators
        self.actions: list[Floats] = []
        stays = [kept for _, width, _, kept in agent.layout.columns for _ in range(width)]
        # The action that led to the oldest state is taken away below, wherever that state then stands.
        self.visible = Visibility.of(agent.context, [True] * len(stays), stays, agent.device)

    def start(self, batch: int) -> _Acting:
        """`batch` fresh episodes of each policy."""
        return _Acting(self, batch)


class _Acting:
    def __init__(self, owner: Watched, batch: int) -> None:
        self.owner = owner
        self.plain = owner.agent.start(batch)
        self.past: list[Fields] = []

    def act(self, raw: Fields, noise: torch.Tensor | None) -> torch.Tensor:
        """See `Acting`."""
        owner = self.owner
        if owner.generators is None:
            action = self.plain.act(raw, noise)
        else:
            head, params = owner.agent.stack.head, self._reordered(raw)
            action = head.mode(params) if noise is None else head.sample(params, noise)
        owner.actions.append(action.double().cpu().numpy())
        return action

    def _reordered(self, raw: Fields) -> torch.Tensor:
        """Head parameters (S, E, P) of the last K timesteps, all but the present in random order."""
        owner = self.owner
        agent, context = owner.agent, owner.agent.context
        assert owner.generators is not None
        self.past = [*self.past, raw][-context:]
        length, (size, batch) = len(self.past), raw.observation.shape[:2]
        drawn = np.stack([rng.random((batch, length - 1)) for rng in owner.generators])
        order = np.concatenate([drawn.argsort(-1), np.full((size, batch, 1), length - 1)], axis=-1)
        index = torch.from_numpy(order).to(agent.device)  # (S, E, L)

        def joined(values: Sequence[torch.Tensor]) -> torch.Tensor:
            stacked = torch.stack(list(values), dim=2)  # (S, E, L, ...)
            at = index.view(*index.shape, *[1] * (stacked.ndim - 3)).expand_as(stacked)
            return stacked.gather(2, at)

        first = self.past[0].action
        led = [torch.zeros_like(first), *(each.action for each in self.past[1:])]
        window = Fields(
            observation=joined([each.observation for each in self.past]),
            action=joined(led),
            reward=joined([each.reward for each in self.past]),
            time=joined([each.time for each in self.past]),
            told={name: joined([each.told[name] for each in self.past]) for name in raw.told},
        )
        lengths = torch.full((size, batch), length, dtype=torch.long, device=agent.device)
        rows = F.pad(agent.tokens(window), (0, 0, 0, context - length))
        pieces = zip(
            owner.visible.show(rows, lengths).split(max(1, TOKENS // context), 1),
            lengths.split(max(1, TOKENS // context), 1),
            strict=True,
        )
        return torch.cat([agent.stack(*piece, method="last") for piece in pieces], dim=1)


def consecutive(actions: Floats, lengths: Floats) -> tuple[Floats, Floats]:
    """The pairs (R, M), (R, M) of an action and the one before it, of actions (T, E, M) and lengths (E,)."""
    live = np.arange(1, len(actions))[:, None] < lengths  # (T - 1, E)
    return actions[1:][live], actions[:-1][live]


def repeats(now: Floats, before: Floats, spread: float) -> float:
    """The share of actions (R, M) that repeat those before them (R, M): root mean square apart below CLOSE spreads."""
    return float((np.sqrt(np.square(now - before).mean(-1)) < CLOSE * spread).mean())


def foretold(now: Floats, before: Floats) -> float:
    """R2 of actions (R, M) by linear regression on those before them (R, M), all coordinates together."""
    centred, past = now - now.mean(0), before - before.mean(0)
    rest = centred - past @ np.linalg.lstsq(past, centred, rcond=None)[0]
    return float(1.0 - np.square(rest).sum() / max(np.square(centred).sum(), 1e-12))


def demonstrated(episodes: Trajectories) -> tuple[Floats, Floats, float]:
    """Such pairs of the demonstrator's actions, without exploration noise where that is known, and their spread."""
    done = episodes.actions if episodes.behaviour_action is None else episodes.behaviour_action
    later = np.flatnonzero(episodes.timestep > 0)
    done = done.astype(np.float64)
    return done[later], done[later - 1], float(np.sqrt(done.var(axis=0).mean()))


_known: dict[tuple[Any, ...], Floats] = {}


def yardsticks(data: DataSet, seeds: Floats, who: str) -> Floats:
    """(S, E) scores of one of `kalman.WHO` in the episodes `seeds` (S, E); NaN where they can't be had."""
    name = data.spec.name
    key = (name, data.content_hash, who, seeds.tobytes())
    if key not in _known:
        found = np.full(seeds.shape, np.nan)
        if re.match(rf"{LINEAR}(@|$)", name) and (who == "filter" or not name.endswith(":masked")):
            try:
                each = kalman.returns(data.spec.make_env, seeds.ravel().tolist(), who)
                found = data.anchors.score(each).reshape(seeds.shape)
            except UserError:  # hidden friction; or it isn't known what the present alone tells
                pass
        _known[key] = found
    return _known[key]


SHORTFALL = Response("shortfall", "shortfall", "points", "lower", digits=1, points=True)


@register("measurement", "recovery", VERSION)
class Recovery(Measurement):
    """The models act on what is shown, beside what exact estimation of the state makes of it in the same episodes."""

    responses = (
        SHORTFALL,
        SCORE,
        MEDIAN,
        SHARE_LOST,
        SUCCESS,
        Response("repeats", "repeated actions beyond the demonstrator's", "of the actions", "lower"),
        Response("copycat", "R2 of its actions by the ones before, beyond the demonstrator's", "", "lower"),
        Response("filter", "shortfall of the exact filter", "points", "lower", digits=1, points=True),
        Response("clone", "shortfall of the exact clone", "points", "lower", digits=1, points=True),
        Response("memoryless", "shortfall of the exact clone without memory", "points", "lower", digits=1, points=True),
        *SHORTFALL.ways(*CAPPED),
    )  # fmt: skip
    acts = True

    class Options(Section):
        """shown: the past as it was, or in an order drawn anew at each timestep. episodes, cap, below: as of `rollout`.

        The shortfall is the regret to the optimum that sees the whole state, and to score 100 where none is known; at
        most `cap` in an episode, so that lost ones don't carry it.
        """

        shown: Literal["as-it-was", "shuffled"] = "as-it-was"
        episodes: int = Field(default=200, gt=0)
        cap: float = Field(default=CAP, gt=0)
        below: float = LOST

    def __call__(self, trained: Trained, options: Any) -> Mapping[str, Numbers]:
        """See `Measurement`."""
        data, seeds = trained.system.data, trained.seeds
        agent = trained.system.actor(trained.models, {"context": None, "state": "re-encoded"})
        orders = None
        if options.shown == "shuffled":
            orders = [streams.stream(trained.streams, seed, "orders") for seed in seeds]
        watched = Watched(agent, orders)
        found = rollout(
            watched,
            data.spec.make_env(len(seeds) * options.episodes),
            options.episodes,
            study=trained.streams,
            seeds=seeds,
            target=0.0,
            policy=data.spec.best_policy,
            sample=True,
        )
        best = [data.spec.optimal_returns(each.tolist()) for each in found.env_seeds]
        hundred = np.full(options.episodes, 100.0)
        top = np.array([hundred if x is None else data.anchors.score(x) for x in best])
        scores = data.anchors.score(found.returns)
        now, before, spread = demonstrated(data.held_out)
        shares, ahead = repeats(now, before, spread), foretold(now, before)
        actions = np.stack(watched.actions, axis=1)  # (S, T, E, M)
        pairs = [consecutive(a, n) for a, n in zip(actions, found.lengths, strict=True)]
        return {
            "shortfall": regret(scores, top, options.cap),
            **capped("shortfall", scores, top, options.cap),
            "score": scores.mean(axis=1),
            "score_median": np.median(scores, axis=1),
            "lost": (scores < options.below).mean(axis=1),
            "success": found.success.mean(axis=1),
            "repeats": np.array([repeats(*pair, spread) - shares for pair in pairs]),
            "copycat": np.array([foretold(*pair) - ahead for pair in pairs]),
            **{
                who: regret(yardsticks(data, found.env_seeds, who), top, options.cap)
                for who in kalman.WHO
            },
        }

    @classmethod
    def refusal(cls, config: Mapping[str, Any]) -> str:
        if "return" in str(config["condition"]):
            return f"the measurement 'recovery' doesn't ask for a return; found the condition '{config['condition']}'"
        return ""

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> frozenset[str]:
        fields = frozenset(cls.Options.model_fields)
        return fields - {"shown"} if config["context"] == 1 else fields


# --- the dose ---

_read: dict[tuple[Any, ...], dose.Reading] = {}


@register("measurement", "dose", VERSION)
class Dose(Measurement):
    """What the past tells of the demonstrator's next action beyond the present and the time: a property of the data. It
    is read where models have no memory, of which every data set has some; NaN elsewhere."""

    responses = (
        Response("nats", "dose", "nats a timestep"),
        Response("nats_exact", "dose in closed form", "nats a timestep"),
        Response("gain", "dose in R2"),
    )

    class Options(Section):
        """targets, history: as of the meter, `ablate.data.dose.measure`."""

        targets: int = Field(default=4000, gt=0)
        history: int = Field(default=dose.HISTORY, gt=0)

    def __call__(self, trained: Trained, options: Any) -> Mapping[str, Numbers]:
        """See `Measurement`."""
        data, size = trained.system.data, len(trained.seeds)
        if trained.system.context != 1:
            return {response.name: np.full(size, np.nan) for response in self.responses}
        key = (data.content_hash, options.targets, options.history)
        if key not in _read:
            _read[key] = dose.measure(
                data.train, "behaviour", history=options.history, targets=options.targets
            )
        found = _read[key]
        return {
            "nats": np.full(size, found.nats.estimate),
            "nats_exact": np.full(size, known_dose(data.spec)),
            "gain": np.full(size, found.gain.estimate),
        }

    @classmethod
    def seconds(cls, config: Mapping[str, Any], options: Mapping[str, Any], tokens: Any) -> float:
        """About 10 s a data set of 4,000 targets, which the seeds share."""
        return 2.0 * options.get("targets", 4000) / 4000 if config["context"] == 1 else 0.0


def known_dose(data: DataSpec) -> float:
    """The dose in closed form, read as the meter reads; NaN where it isn't known."""
    if not re.fullmatch(r"lq-mix/single(-\d+)?(@[^:]*)?", data.name):
        return math.nan
    try:
        return kalman.nats(kalman.Seen.of(data.make_env(1)), dose.RESOLUTION)
    except UserError:
        return math.nan
