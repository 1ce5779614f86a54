"""Synthetic episodes for the audit, and the two shapes in which an agent reads them.

Inputs are altered where they are logged, before anything is shifted, scaled or hidden, so that a
fault of the reading shows like a fault of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ablate import streams
from ablate.data.trajectories import Trajectories
from ablate.measure.agent import Agent, Stored
from ablate.models.layouts import Fields
from ablate.models.stack import Stack

FIELDS = ("observation", "action", "reward", "return_to_go", "time", "policy", "goal")
AHEAD, BEYOND = 2, 3  # lags looked at before the present and after the context
EVERY = 32  # contexts up to this size have every lag perturbed; of longer ones only a selection
Reader = Callable[..., Stored]


@dataclass(frozen=True)
class Episodes:
    """E synthetic episodes of T timesteps, each array (E, T, ...), in the environment's units.

    action and reward are those of the timestep itself; policy is an id. `time` is what the policy
    is told, minus the timestep: zero unless altered. goal has no numbers where nothing shows it.
    """

    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    return_to_go: np.ndarray
    time: np.ndarray
    policy: np.ndarray
    goal: np.ndarray

    @property
    def steps(self) -> int:
        """T."""
        return self.reward.shape[1]

    def only(self, episode: int) -> Episodes:
        """One of the episodes."""
        return Episodes(*(getattr(self, name)[episode : episode + 1] for name in FIELDS))

    def with_episode(self, episode: int, other: Episodes) -> Episodes:
        """`other`'s episodes, except that `episode` is this one's."""
        mixed = {name: getattr(other, name).copy() for name in FIELDS}
        for name in FIELDS:
            mixed[name][episode] = getattr(self, name)[episode]
        return Episodes(**mixed)


class Lab:
    """An agent, episodes to show it, and the two ways of running it.

    Attributes:
        times: timesteps at which outputs are taken: in a short, a just filled and a sliding window.
        lags: -2 ... K+3; negative ones lie in the future.
        base, other: two draws of one episode; a perturbation puts a value of `other` into `base`.
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
        self.base, self.other = (self.draw(1, last + AHEAD + 1, name) for name in ("base", "other"))
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
        """Random episodes with the spread of the agent's own data; `time` differs in "other"."""
        generator = streams.stream("audit", 0, f"{name}/{episodes}/{steps}")
        layout, scales = self.agent.layout, self.agent.scales
        shape = (episodes, steps)
        kind = np.float64 if self.dtype == torch.float64 else np.float32
        mean, std = (values.cpu().numpy() for values in (scales.mean, scales.std))
        time = np.zeros(shape)
        if name == "other":
            time = scales.horizon * generator.uniform(0.3, 0.9, shape)
        # Ids of the two draws of one episode must differ wherever a perturbation swaps them.
        policy = np.arange(episodes * steps).reshape(shape) + (name == "other")
        return Episodes(
            observation=(mean + std * generator.normal(size=(*shape, len(mean)))).astype(kind),
            action=generator.uniform(-1, 1, (*shape, layout.action_dim)).astype(kind),
            reward=(scales.reward * generator.normal(size=shape)).astype(kind),
            return_to_go=(scales.return_to_go * generator.normal(size=shape)).astype(kind),
            time=time.astype(kind),
            policy=policy % max(1, layout.policies),
            goal=generator.normal(size=(*shape, len(layout.goal))).astype(kind),
        )

    def stored(self, episodes: Episodes) -> Stored:
        """The episodes, one after the other, through the reader that training uses."""
        count, steps = episodes.reward.shape
        flat = {
            name: (values := getattr(episodes, name)).reshape(
                count * steps, *values.shape[2:] or (1,)
            )
            for name in FIELDS
        }
        ends = np.zeros(count * steps, dtype=bool)
        trajectories = Trajectories(
            name="audit",
            observations=flat["observation"],
            actions=flat["action"],
            rewards=flat["reward"][:, 0],
            terminations=ends,
            truncations=ends,
            episode_starts=np.arange(0, (count + 1) * steps, steps),
            behaviour_id=flat["policy"][:, 0],
        )
        # A cached property, filled in here, so that rewards and returns-to-go vary independently.
        vars(trajectories)["returns_to_go"] = flat["return_to_go"][:, 0]
        data = self.read(trajectories, self.agent.layout, self.device)
        shift = torch.from_numpy(flat["time"][:, 0]).to(self.device)
        fields = replace(data.fields, time=data.fields.time + shift)
        if self.agent.layout.goal:
            # In hindsight a goal is what comes later, on purpose; here it varies by itself.
            fields = replace(fields, goal=torch.from_numpy(flat["goal"]).to(self.device))
        return replace(data, fields=fields)

    def raw(self, episodes: Episodes) -> Fields:
        """The episodes as tensors (S, E, T, ...), the same for every replica, as logged."""
        policies = self.agent.layout.policies
        values = {
            name: torch.from_numpy(getattr(episodes, name)).to(self.device) for name in FIELDS
        }
        if policies:
            values["policy"] = torch.nn.functional.one_hot(values["policy"], policies).to(
                self.dtype
            )
        else:
            values["policy"] = torch.zeros(
                *episodes.reward.shape, 0, dtype=self.dtype, device=self.device
            )
        values["time"] = values["time"] + torch.arange(episodes.steps, device=self.device)
        return Fields(**{name: v.expand(self.size, *v.shape) for name, v in values.items()})

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
        count = len(episodes.reward)
        parts = [episodes.only(e) for e in range(count)] if alone else [episodes]
        with torch.no_grad():
            return torch.cat([self.act_on(self.raw(part), steps) for part in parts], 1)

    def act_on(self, raw: Fields, steps: int) -> Tensor:
        """As `act`, from tensors (S, E, T, ...) of which each replica has its own."""
        self.mode("acting")
        actor = self.agent.start(raw.reward.shape[1])
        outputs = []
        for t in range(steps):
            led = {name: getattr(raw, name)[:, :, max(0, t - 1)] for name in ("action", "reward")}
            if t == 0:
                led = {name: torch.zeros_like(values) for name, values in led.items()}
            now = {name: getattr(raw, name)[:, :, t] for name in FIELDS if name not in led}
            outputs.append(self.checked(actor.step(Fields(**led, **now)), raw.reward.shape[1]))
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
        count = len(episodes.reward)
        if shape == "training":
            pairs = [(episode, t) for episode in range(count) for t in self.times]
            outputs = self.train(episodes, pairs, alone)[0].view(count, len(self.times), -1)
        else:
            outputs = self.act(episodes, self.times[-1] + 1, alone)[0][:, self.times]
        spread = outputs[0].square().mean().sqrt().clamp(min=1e-6)
        change = ((outputs[1:] - outputs[:1]).abs().amax(-1) / spread).cpu().numpy()
        return self._by_lag(change.reshape(len(FIELDS), len(self.rows), -1), self.rows)

    def gradient(self, shape: str) -> np.ndarray:
        """Absolute derivatives of a random projection of the output, summed: (fields, times, lags).

        Shows what is too faint for a perturbation: a recurrence forgets geometrically.
        Zero where nothing can be differentiated.
        """
        copies = Episodes(
            *(np.repeat(getattr(self.base, f), len(self.times), axis=0) for f in FIELDS)
        )
        steps = copies.steps
        if shape == "training":
            self.mode("training")
            data = self.stored(copies)
            leaves = {
                f: values.to(self.dtype).requires_grad_()
                for f in FIELDS
                if (values := getattr(data.fields, f)) is not None
            }
            rows = [place * steps + t for place, t in enumerate(self.times)]
            targets = torch.tensor(rows, device=self.device).expand(self.size, -1)
            outputs = self.agent.predict(replace(data, fields=Fields(**leaves)), targets)[0]
        else:
            raw = self.raw(copies)
            leaves = {f: getattr(raw, f).clone().requires_grad_() for f in FIELDS}
            every = self.act_on(Fields(**leaves), self.times[-1] + 1)[0]
            outputs = every[range(len(self.times)), self.times]
        if not outputs.requires_grad:
            return np.zeros((len(FIELDS), len(self.times), len(self.lags)))
        weights = streams.stream("audit", 0, "projection").normal(size=outputs.shape)
        total = (outputs * torch.from_numpy(weights).to(outputs)).sum()
        found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        table = np.zeros((len(FIELDS), steps, len(self.times)))
        for name, grad in zip(leaves, found, strict=True):
            place = FIELDS.index(name)
            if grad is not None and grad.numel():
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
        out = np.full((len(FIELDS), len(self.times), len(self.lags)), np.nan)
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
        for place, name in enumerate(FIELDS):
            values = np.repeat(getattr(self.base, name), 1 + len(FIELDS) * count, axis=0)
            copies = 1 + place * count + np.arange(count)
            values[copies, self.rows] = getattr(self.other, name)[0, self.rows]
            varied[name] = values
        return Episodes(**varied)
