"""Small trajectories with something to learn, and everything that a training of them needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ablate.data.normalise import fit_scales
from ablate.data.streams import torch_stream
from ablate.data.trajectories import Trajectories
from ablate.learn.objective import Source
from ablate.learn.transitions import transitions
from ablate.models.agent import Agent, stored
from ablate.models.assembly import Model, ModelSpec, build
from ablate.models.layouts import Layout
from ablate.models.stack import Stack

STUDY = "learn-tests"
OBSERVED, ACTED = 3, 2


def trajectories(lengths: Sequence[int] = (9, 2, 12, 7), seed: int = 0) -> Trajectories:
    """Random walks whose actions depend on the present and the previous observation."""
    rng = np.random.default_rng(seed)
    steps = sum(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ends = np.zeros(steps, dtype=bool)
    ends[starts[1:] - 1] = True
    seen = rng.standard_normal((steps, OBSERVED))
    before = np.roll(seen, 1, axis=0)
    actions = np.tanh(seen[:, :ACTED] - before[:, 1:]) + 0.05 * rng.standard_normal((steps, ACTED))
    return Trajectories(
        name="sample",
        observations=(2.0 + 3.0 * seen).astype(np.float32),
        actions=actions.clip(-1, 1).astype(np.float32),
        rewards=rng.standard_normal(steps).astype(np.float32),
        terminations=np.zeros_like(ends),
        truncations=ends,
        episode_starts=starts,
    ).validate()


def train_config(**changes: Any) -> dict[str, Any]:
    """The `train` part of a configuration, with changes."""
    return {
        "updates": 12,
        "targets_per_update": 16,
        "learning_rate": 1e-2,
        "schedule": "cosine",
        "warmup": 4,
        "weight_decay": 0.1,
        "clip": 0.5,
        "loss": "last",
        "precision": "float32",
    } | changes


def policies(
    mixer: str,
    context: int,
    seeds: Sequence[int],
    *,
    head: str = "mixture",
    history: str = "states+actions",
    condition: str = "none",
    dropout: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> tuple[list[Model], Layout]:
    """One small policy a seed, and the layout of its tokens."""
    layout = Layout(OBSERVED, ACTED, 0, history, condition)
    spec = ModelSpec(mixer, head, context, layout.features, ACTED, 6, 2, dropout)
    actions = trajectories().actions
    made = [build(spec, torch_stream(STUDY, seed, "init"), actions).to(dtype) for seed in seeds]
    return made, layout


def stack_and_source(
    mixer: str = "gru",
    context: int = 4,
    seeds: Sequence[int] = (0,),
    *,
    dtype: torch.dtype = torch.float32,
    made: type[Stack] = Stack,
    data: Trajectories | None = None,
    **options: Any,
) -> tuple[Stack, Source]:
    """What `train_cohort` takes first; of `data`, or of `trajectories()`."""
    some, layout = policies(mixer, context, seeds, dtype=dtype, **options)
    data = trajectories() if data is None else data
    agent = Agent(made(some), layout, fit_scales(data, 12), context)

    def read(some: Trajectories) -> tuple[torch.Tensor, torch.Tensor]:
        raw = stored(some, layout)
        return agent.tokens(raw.fields).to(dtype), raw.timestep

    table, timestep = read(data)
    actions = torch.from_numpy(data.actions).to(dtype)
    source = Source(table, timestep, actions, agent.visible, transitions(data, read))
    return agent.stack, source


def nothing(update: int, loss: torch.Tensor) -> None:
    """A point of the learning curve at which nothing is done."""


def parameters(stack: Stack) -> list[torch.Tensor]:
    """Copies of a stack's parameters."""
    return [parameter.detach().clone() for parameter in stack.parameters()]
