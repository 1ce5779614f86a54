"""Agents, environments and stand-ins that the tests of the evaluation share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablate.data.normalise import Scales
from ablate.data.streams import torch_stream
from ablate.envs.base import Step, VectorEnv
from ablate.models.agent import Agent
from ablate.models.assembly import ModelSpec, build
from ablate.models.layouts import Fields, Layout
from ablate.models.stack import Stack

MIXERS = ("attention", "bag", "conv", "convformer", "gru", "lstm", "mlp", "ssm")


def agent(
    mixer: str,
    context: int,
    seeds: Sequence[int],
    dims: tuple[int, int],
    *,
    head: str = "mixture",
    history: str = "states+actions",
    condition: str = "none",
    policies: int = 2,
    state: str = "re-encoded",
    **options: Any,
) -> Agent:
    """An untrained agent in double precision for (observations, actions) of `dims`."""
    layout = Layout(dims[0], dims[1], policies, history, condition, (0, 2))
    columns = tuple(layout.columns)
    spec = ModelSpec(
        mixer, head, context, layout.features, dims[1], 6, 2, 0.0, columns=columns, **options
    )
    made = [build(spec, torch_stream("evaluate", seed, "init")).double() for seed in seeds]
    # larger weights, so that actions differ between policies and with the history
    for policy in made:
        for parameter in policy.parameters():
            parameter.data.mul_(2.0)
    mean, std = torch.full((dims[0],), 0.1).double(), torch.full((dims[0],), 1.5).double()
    return Agent(Stack(made), layout, Scales(mean, std, 0.7, 3.0, 20), context, state)


class Acting:
    """Stands for an agent: `say(t, raw)` gives the actions (S, E, M); remembers what it was shown."""

    def __init__(
        self,
        say: Callable[[int, Fields], Tensor],
        size: int = 1,
        noise_dim: int = 0,
        condition: str = "none",
        policies: int = 0,
    ) -> None:
        self.say, self.size, self.noise_dim = say, size, noise_dim
        self.device = torch.device("cpu")
        self.layout = Layout(1, 1, policies, "states+actions", condition)
        self.shown: list[Fields] = []
        self.noise: list[Tensor] = []
        self.started = 0

    def eval(self) -> None:
        """As an agent's."""

    def start(self, batch: int) -> Acting:
        """As an agent's."""
        self.started = batch
        return self

    def act(self, raw: Fields, noise: Tensor | None) -> Tensor:
        """As an actor's, without any effect of the noise."""
        self.shown.append(raw)
        if noise is not None:
            self.noise.append(noise)
        return self.say(len(self.shown) - 1, raw)


class Scripted(VectorEnv):
    """Episode b lasts 1 + seed % 4 timesteps, then gives rewards, flags and successes that don't count.

    The reward of step t is 1 + t + seed / 1000. Odd seeds succeed, at their last timestep.
    """

    observation_dim, action_dim, horizon = 1, 1, 9

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.calls = 0
        self.seeds: list[int] = []

    def reset(self, seeds: Sequence[int]) -> Any:
        self.seeds = list(seeds)
        return np.zeros((self.num_envs, 1), dtype=np.float32)

    def step(self, actions: np.ndarray) -> Step:
        seeds, t = np.array(self.seeds), self.calls
        self.calls += 1
        last = seeds % 4
        over = t > last
        rewards = np.where(over, 99.0, 1.0 + t + seeds / 1000)
        ends = t >= last
        success = np.where(over, seeds % 2 == 0, (seeds % 2 == 1) & ends)
        truncated = ends & (seeds % 2 == 0)
        observed = np.full((self.num_envs, 1), t + 1.0, dtype=np.float32)
        return observed, rewards, ends & ~truncated, truncated, {"success": success}
