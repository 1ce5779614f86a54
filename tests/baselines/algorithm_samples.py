"""Small problems for algorithms with value networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ablate.data.normalise import Scales
from ablate.data.streams import torch_stream
from ablate.data.trajectories import Trajectories
from ablate.learn.objective import Batch, Objective, Source
from ablate.learn.transitions import transitions
from ablate.learn.values import Perceptrons
from ablate.models.agent import Agent, stored
from ablate.models.assembly import Model, build
from ablate.models.layouts import Layout
from ablate.models.spec import ModelSpec
from ablate.models.stack import Stack
from ablate.registry import get

STUDY = "algorithm-tests"
HEADS = {"bc": "mse", "td3+bc": "mse", "iql": "gaussian", "cql": "tanh-gaussian"}


def episodes(
    parts: Sequence[tuple[Sequence[Any], Sequence[Any], Sequence[float], Any]],
    ended: Sequence[bool],
    final: bool = True,
) -> Trajectories:
    """Trajectories of (observations, actions, rewards, final observation), truly ended or timed out."""
    starts = np.cumsum([0, *(len(rewards) for _, _, rewards, _ in parts)])
    last, over = np.zeros(starts[-1], dtype=bool), np.zeros(starts[-1], dtype=bool)
    last[starts[1:] - 1] = True
    over[starts[1:] - 1] = list(ended)

    def joined(place: int) -> np.ndarray:
        return np.concatenate([np.asarray(part[place], dtype=np.float32) for part in parts])

    return Trajectories(
        name="problem",
        observations=joined(0),
        actions=joined(1),
        rewards=joined(2),
        terminations=over,
        truncations=last & ~over,
        episode_starts=starts.astype(np.int64),
        final_observations=np.stack([np.asarray(part[3], np.float32) for part in parts])
        if final
        else None,
    ).validate()


def random_walks(seed: int = 0, final: bool = True) -> Trajectories:
    """Five short episodes of noise, two of which truly end."""
    rng = np.random.default_rng(seed)
    parts = [
        (
            rng.standard_normal((length, 3)),
            np.tanh(rng.standard_normal((length, 2))),
            rng.standard_normal(length),
            rng.standard_normal(3),
        )
        for length in (6, 2, 9, 1, 5)
    ]
    return episodes(parts, [False, True, False, True, False], final)


def train_config(**changes: Any) -> dict[str, Any]:
    """As published: Adam at a constant rate, unclipped."""
    return {
        "updates": 5,
        "targets_per_update": 8,
        "learning_rate": 1e-3,
        "schedule": "constant",
        "warmup": 0,
        "weight_decay": 0.0,
        "clip": None,
        "loss": "last",
        "precision": "float32",
        "optimiser": "adam",
    } | changes


def policies(data: Trajectories, seeds: Sequence[int], spec: ModelSpec) -> list[Model]:
    """A fresh policy a seed, in double precision."""
    return [build(spec, torch_stream(STUDY, seed, "init"), data.actions).double() for seed in seeds]


def problem(
    data: Trajectories,
    algorithm: str,
    seeds: Sequence[int] = (0,),
    *,
    mixer: str = "mlp",
    context: int = 1,
    width: int = 8,
    **changes: Any,
) -> tuple[Stack, Source, ModelSpec]:
    """Stack and source in double precision; observations are shown as they are."""
    observed, acted = data.observations.shape[1], data.actions.shape[1]
    layout = Layout(observed, acted, 0, "states" if context == 1 else "states+actions", "none")
    head = changes.pop("head", HEADS[algorithm])
    spec = ModelSpec(mixer, head, context, layout.features, acted, width, 2)
    scales = Scales(torch.zeros(observed), torch.ones(observed), 1.0, 1.0, 20)
    agent = Agent(Stack(policies(data, seeds, spec)), layout, scales, context)

    def read(some: Trajectories) -> tuple[torch.Tensor, torch.Tensor]:
        raw = stored(some, layout)
        return agent.tokens(raw.fields).double(), raw.timestep

    table, timestep = read(data)
    actions = torch.from_numpy(data.actions).double()
    seen = transitions(data, read)
    return agent.stack, Source(table, timestep, actions, agent.visible, seen), spec


def objective(
    data: Trajectories,
    algorithm: str,
    settings: dict[str, Any],
    seeds: Sequence[int] = (0,),
    train: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """The algorithm, ready to be updated."""
    stack, source, _ = problem(data, algorithm, seeds, **options)
    made: type[Objective] = get("algorithm", algorithm)
    return made(stack, source, train or train_config(), settings, STUDY, seeds)


def update(made: Any, updates: int, rate: float, size: int = 64) -> None:
    """So many updates on targets drawn uniformly."""
    rng = np.random.default_rng(1)
    for number in range(updates):
        targets = torch.from_numpy(
            rng.integers(0, len(made.source.actions), (made.stack.size, size))
        )
        made.update(Batch(number, targets), rate)


def as_module(made: Perceptrons, index: int) -> nn.Sequential:
    """A perceptron with an action, as PyTorch's own parts."""
    assert made.of_action is not None or made.weights
    parts: list[nn.Module] = []
    for layer, (weight, bias) in enumerate(zip(made.weights, made.biases, strict=True)):
        whole = weight[index].detach()
        if layer == 0 and made.of_action is not None:
            whole = torch.cat([whole, made.of_action[index].detach()], dim=-1)
        linear = nn.Linear(whole.shape[1], whole.shape[0]).double()
        linear.weight.data.copy_(whole)
        linear.bias.data.copy_(bias[index].detach())
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def same_module(made: Perceptrons, index: int, plain: nn.Sequential) -> None:
    """Asserts that both have the same weights to rounding."""
    for one, two in zip(as_module(made, index).parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-9)
