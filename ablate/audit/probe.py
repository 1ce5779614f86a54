"""Synthetic episodes for the audit, and the two shapes in which an agent reads them.

Inputs are altered where they are logged, before anything is shifted, scaled or hidden, so that a
fault of the reading shows like a fault of the model. What a condition says may come from later timesteps
on purpose (a return, a goal in hindsight), so it is drawn by itself and put where the condition would say it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ablate.data import streams
from ablate.data.trajectories import Trajectories
from ablate.models.agent import Agent, Stored
from ablate.models.layouts import Fields, Layout
from ablate.models.stack import Stack

LOGGED = ("observation", "action", "reward")  # what every layout reads, whatever it shows
TABLE = "timestep"  # the index that is looked up in a table, where the model has one
AHEAD, BEYOND = 2, 3  # lags looked at before the present and after the context
EVERY = 32  # contexts up to this size have every lag perturbed; of longer ones only a selection
TRIES = 64  # draws until two episodes differ everywhere
Reader = Callable[..., Stored]


@dataclass(frozen=True)
class Episodes:
    """E synthetic episodes of T timesteps: an array (E, T, ...) for each field, in the environment's units.

    action and reward are those of the timestep itself; a condition's field is what it says; `timestep` is what the
    model is told minus the timestep: zero unless altered.
    """

    values: dict[str, np.ndarray]

    @property
    def steps(self) -> int:
        """T."""
        return self.values["reward"].shape[1]

    @property
    def count(self) -> int:
        """E."""
        return len(self.values["reward"])

    def only(self, episode: int) -> Episodes:
        """One of the episodes."""
        return Episodes({name: v[episode : episode + 1] for name, v in self.values.items()})

    def with_episode(self, episode: int, other: Episodes) -> Episodes:
        """`other`'s episodes, except that `episode` is this one's."""
        mixed = {name: values.copy() for name, values in other.values.items()}
        for name, values in mixed.items():
            values[episode] = self.values[name][episode]
        return Episodes(mixed)


@dataclass(frozen=True)
class Planted(Layout):
    """A layout whose conditions say what is given, raw numbers (T, w) by name."""

    planted: dict[str, np.ndarray] = field(default_factory=dict)

    def told(self, trajectories: Trajectories) -> dict[str, np.ndarray]:
        return self.planted


def named(fields: Fields) -> dict[str, Tensor]:
    """Fields by the names that the audit gives them."""
    own = {name: getattr(fields, name) for name in LOGGED}
    return {**own, TABLE: fields.time, **fields.told}


def unnamed(values: Mapping[str, Tensor]) -> Fields:
    """The inverse of `named`."""
    told = {name: v for name, v in values.items() if name not in (*LOGGED, TABLE)}
    return Fields(**{name: values[name] for name in LOGGED}, time=values[TABLE], told=told)


class Lab:
    """An agent, episodes to show it, and the two ways of running it.

    Attributes:
        times: timesteps at which outputs are taken: in a short, a just filled and a sliding window.
        lags: -2 ... K+3; negative ones lie in the future.
        base, other: two draws of one episode; a perturbation puts a value of `other` into `base`.
        fields: what is looked at: `LOGGED`, each condition, and the timestep where a table is read by it.
        silent: the fields that say the same whatever happens, such as the only id of a single policy.
        reach: timesteps on which the output depends, K unless the mixer says that it sees less.
        tolerance: relative change below which nothing has changed.
    """

    def __init__(self, agent: Agent, context: int, read: Reader) -> None:
        self.agent, self.context, self.read = agent, context, read
        self.size = agent.stack.size
        self.reach = min(context, agent.stack.reach)
        mean = agent.scales.mean
        self.dtype, self.device = mean.dtype, mean.device
        self.tolerance = 1e-9 if self.dtype == torch.float64 else 1e-5
        last = context + BEYOND + 1
        self.times = sorted({context // 2, context - 1, last})
        self.lags = tuple(range(-AHEAD, context + BEYOND + 1))
        layout = agent.layout
        self.fields = (*LOGGED, *layout.conditions, *([TABLE] if layout.timesteps else []))
        self.base, self.other = (self.draw(1, last + AHEAD + 1, name) for name in ("base", "other"))
        self.silent = self._part()
        self.rows = self._rows_to_perturb()
        self._steady: bool | None = None

    def mode(self, shape: str) -> Stack:
        """The stack, in training mode for "training" and in evaluation mode for "acting".

        Batch statistics and the like show only in training mode. A model that drops something at
        random has to be looked at in evaluation mode, since no two of its outputs are the same.
        """
        stack = self.agent.stack
        if shape == "training" and self._steady is None:
            self._steady = True
            pairs = [(0, t) for t in self.times]
            first, second = (self.train(self.base, pairs) for _ in range(2))
            self._steady = torch.equal(first, second)
        return stack.train(shape == "training" and bool(self._steady))

    def draw(self, episodes: int, steps: int, name: str) -> Episodes:
        """Random episodes with the spread of the agent's own data; `timestep` differs in "other"."""
        generator = streams.stream("audit", 0, f"{name}/{episodes}/{steps}")
        layout, scales = self.agent.layout, self.agent.scales
        shape = (episodes, steps)
        kind = np.float64 if self.dtype == torch.float64 else np.float32
        mean, std = (values.cpu().numpy() for values in (scales.mean, scales.std))
        time = np.zeros(shape)
        if name == "other":
            time = scales.horizon * generator.uniform(0.3, 0.9, shape)
        drawn = {
            "observation": mean + std * generator.normal(size=(*shape, len(mean))),
            "action": generator.uniform(-1, 1, (*shape, layout.action_dim)),
            "reward": scales.reward * generator.normal(size=shape),
            TABLE: time,
        }
        for told, condition in layout.conditions.items():
            drawn[told] = condition.drawn(generator, shape, scales, layout)
        return Episodes({field: values.astype(kind) for field, values in drawn.items()})

    def _part(self) -> set[str]:
        """Draw `other` again wherever a condition says there what it says in `base`; which never differ."""
        layout, scales = self.agent.layout, self.agent.scales
        generator = streams.stream("audit", 0, "parted")
        for name, condition in layout.conditions.items():
            mine, others = self.base.values[name], self.other.values[name]
            for _ in range(TRIES):
                same = (mine == others).all(-1)
                if not same.any():
                    break
                others[same] = condition.drawn(generator, same.shape, scales, layout)[same]
        return {
            name
            for name in layout.conditions
            if np.array_equal(self.base.values[name], self.other.values[name])
        }

    def stored(self, episodes: Episodes) -> Stored:
        """The episodes, one after the other, through the reader that training uses."""
        rows = episodes.count * episodes.steps
        flat = {name: v.reshape(rows, *v.shape[2:]) for name, v in episodes.values.items()}
        ends = np.zeros(rows, dtype=bool)
        trajectories = Trajectories(
            name="audit",
            observations=flat["observation"],
            actions=flat["action"],
            rewards=flat["reward"],
            terminations=ends,
            truncations=ends,
            episode_starts=np.arange(0, rows + 1, episodes.steps),
        )
        layout = self.agent.layout
        own = {each.name: getattr(layout, each.name) for each in dataclasses.fields(Layout)}
        planted = Planted(**own, planted={name: flat[name] for name in layout.conditions})
        data = self.read(trajectories, planted, self.device)
        shift = torch.from_numpy(flat[TABLE]).to(self.device)
        return replace(data, fields=replace(data.fields, time=data.fields.time + shift))

    def raw(self, episodes: Episodes) -> Fields:
        """The episodes as tensors (S, E, T, ...), the same for every replica, as logged."""
        values = {n: torch.from_numpy(v).to(self.device) for n, v in episodes.values.items()}
        values[TABLE] = values[TABLE] + torch.arange(episodes.steps, device=self.device)
        return unnamed(values).map(lambda v: v.expand(self.size, *v.shape))

    def train(
        self, episodes: Episodes, at: Sequence[tuple[int, int]], alone: bool = False
    ) -> Tensor:
        """Training shape: head parameters (S, B, P) at B pairs (episode, timestep).

        alone: one call for each pair instead of one for all. Raises ValueError for a wrong shape.
        """
        self.mode("training")
        data = self.stored(episodes)
        rows = [episode * episodes.steps + t for episode, t in at]
        targets = torch.tensor(rows, device=self.device).expand(self.size, -1)
        parts = targets.split(1, dim=1) if alone else (targets,)
        with torch.no_grad():
            return torch.cat(
                [self.checked(self.agent.predict(data, p), p.shape[1]) for p in parts], 1
            )

    def act(self, episodes: Episodes, steps: int, alone: bool = False) -> Tensor:
        """Acting shape: head parameters (S, E, steps, P).

        alone: a fresh actor for each episode instead of one for all. Raises ValueError for a wrong
        shape.
        """
        count = episodes.count
        parts = [episodes.only(e) for e in range(count)] if alone else [episodes]
        with torch.no_grad():
            return torch.cat([self.act_on(self.raw(part), steps) for part in parts], 1)

    def act_on(self, raw: Fields, steps: int) -> Tensor:
        """As `act`, from tensors (S, E, T, ...) of which each replica has its own."""
        self.mode("acting")
        actor = self.agent.start(raw.reward.shape[1])
        outputs = []
        # each timestep is led to by the action and reward of the one before, the first by none
        led = replace(raw, action=_after(raw.action), reward=_after(raw.reward))
        for t in range(steps):
            now = led.map(functools.partial(torch.select, dim=2, index=t))
            outputs.append(self.checked(actor.step(now), raw.reward.shape[1]))
        return torch.stack(outputs, dim=2)

    def checked(self, params: Tensor, batch: int) -> Tensor:
        """`params`; raises ValueError unless it is (S, batch, P)."""
        if params.ndim != 3 or tuple(params.shape[:2]) != (self.size, batch):
            raise ValueError(
                f"found an output of shape {tuple(params.shape)}; "
                f"allowed: ({self.size}, {batch}, P)"
            )
        return params

    def change(self, first: Tensor, second: Tensor) -> float:
        """Largest difference, relative to the spread of `first`."""
        spread = first.square().mean().sqrt().clamp(min=1e-6)
        return float(((first - second).abs().max() / spread).nan_to_num(nan=float("inf")))

    def perturbed(self, shape: str, alone: bool) -> np.ndarray:
        """Largest change of the first replica's output by altered input, (fields, times, lags).

        NaN where the input does not exist or was not altered.
        """
        episodes = self._vary()
        count = episodes.count
        if shape == "training":
            pairs = [(episode, t) for episode in range(count) for t in self.times]
            outputs = self.train(episodes, pairs, alone)[0].view(count, len(self.times), -1)
        else:
            outputs = self.act(episodes, self.times[-1] + 1, alone)[0][:, self.times]
        spread = outputs[0].square().mean().sqrt().clamp(min=1e-6)
        change = ((outputs[1:] - outputs[:1]).abs().amax(-1) / spread).cpu().numpy()
        return self._by_lag(change.reshape(len(self.fields), len(self.rows), -1), self.rows)

    def gradient(self, shape: str) -> np.ndarray:
        """Absolute derivatives of a random projection of the output, summed: (fields, times, lags).

        Shows what is too faint for a perturbation: a recurrence forgets geometrically.
        Zero where nothing can be differentiated.
        """
        copies = Episodes(
            {f: np.repeat(v, len(self.times), axis=0) for f, v in self.base.values.items()}
        )
        steps = copies.steps
        if shape == "training":
            self.mode("training")
            data = self.stored(copies)
            leaves = {
                f: values.to(self.dtype).requires_grad_()
                for f, values in named(data.fields).items()
            }
            rows = [place * steps + t for place, t in enumerate(self.times)]
            targets = torch.tensor(rows, device=self.device).expand(self.size, -1)
            outputs = self.agent.predict(replace(data, fields=unnamed(leaves)), targets)[0]
        else:
            raw = self.raw(copies)
            leaves = {f: values.clone().requires_grad_() for f, values in named(raw).items()}
            every = self.act_on(unnamed(leaves), self.times[-1] + 1)[0]
            outputs = every[range(len(self.times)), self.times]
        if not outputs.requires_grad:
            return np.zeros((len(self.fields), len(self.times), len(self.lags)))
        weights = streams.stream("audit", 0, "projection").normal(size=outputs.shape)
        total = (outputs * torch.from_numpy(weights).to(outputs)).sum()
        found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        table = np.zeros((len(self.fields), steps, len(self.times)))
        for name, grad in zip(leaves, found, strict=True):
            if name in self.fields and grad is not None and grad.numel():
                place = self.fields.index(name)
                grad = grad if shape == "training" else grad[0]
                size = grad.reshape(len(self.times), steps, -1).abs().sum(-1).T.cpu().numpy()
                if shape == "training" and name in ("action", "reward"):
                    # Stored rows hold what led to the timestep: row r is the action of r - 1.
                    size = np.roll(size, -1, axis=0)
                    size[-1] = 0.0
                table[place] = size
        return self._by_lag(table, np.arange(steps))

    def _by_lag(self, table: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(fields, rows, times) to (fields, times, lags)."""
        out = np.full((len(self.fields), len(self.times), len(self.lags)), np.nan)
        for place, t in enumerate(self.times):
            lag = t - rows
            kept = (lag >= self.lags[0]) & (lag <= self.lags[-1])
            out[:, place, lag[kept] - self.lags[0]] = table[:, kept, place]
        return out

    def _rows_to_perturb(self) -> np.ndarray:
        lags = np.array(self.lags)
        if self.context > EVERY:
            inner = np.linspace(4, self.context - 4, 12).astype(int)
            lags = np.concatenate([lags[: AHEAD + 4], inner, lags[-BEYOND - 4 :]])
        rows = (np.array(self.times)[:, None] - lags).ravel()
        return np.unique(rows[(rows >= 0) & (rows < self.base.steps)])

    def _vary(self) -> Episodes:
        """The base episode, then a copy for each field and row with `other`'s value put there."""
        count = len(self.rows)
        varied = {}
        for name, mine in self.base.values.items():
            values = np.repeat(mine, 1 + len(self.fields) * count, axis=0)
            if name in self.fields:
                copies = 1 + self.fields.index(name) * count + np.arange(count)
                values[copies, self.rows] = self.other.values[name][0, self.rows]
            varied[name] = values
        return Episodes(varied)


def _after(values: Tensor) -> Tensor:
    """(S, E, T, ...) put one timestep later, zero at the first."""
    return torch.cat([torch.zeros_like(values[:, :, :1]), values[:, :, :-1]], dim=2)
