"""Contexts of thousands of timesteps, from the windows over training to acting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from ablate.data.normalise import fit_scales
from ablate.data.streams import torch_stream
from ablate.data.trajectories import Trajectories
from ablate.data.windows import Visibility, gather_windows
from ablate.envs.base import Step, VectorEnv
from ablate.learn import heldout
from ablate.learn.heldout import held_out, held_out_metrics
from ablate.learn.objective import Source
from ablate.learn.train import train_cohort
from ablate.measure.rollout import rollout
from ablate.models.agent import Agent, stored
from ablate.models.assembly import build
from ablate.models.layouts import Layout
from ablate.models.spec import ModelSpec
from ablate.models.stack import Stack


class Short(VectorEnv):
    """Some timesteps without consequence."""

    observation_dim, action_dim = 2, 1

    def __init__(self, num_envs: int, horizon: int) -> None:
        self.num_envs, self.horizon = num_envs, horizon

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        return np.zeros((self.num_envs, 2), dtype=np.float32)

    def step(self, actions: np.ndarray) -> Step:
        never = np.zeros(self.num_envs, dtype=bool)
        seen = np.concatenate([actions, actions], axis=1).astype(np.float32)
        return seen, np.abs(actions[:, 0]).astype(np.float64), never, never, {}


def episodes(length: int, count: int = 2) -> Trajectories:
    """The action repeats what was seen at the episode's first timestep."""
    rng = np.random.default_rng(0)
    steps = length * count
    seen = rng.standard_normal((steps, 2)).astype(np.float32)
    starts = np.arange(count + 1) * length
    cue = np.where(np.arange(count) % 2, 1.0, -1.0)
    seen[starts[:-1], 0] = cue
    ends = np.zeros(steps, dtype=bool)
    ends[starts[1:] - 1] = True
    return Trajectories(
        name="long",
        observations=seen,
        actions=(0.5 * np.repeat(cue, length))[:, None].astype(np.float32),
        rewards=np.ones(steps, dtype=np.float32),
        terminations=np.zeros(steps, dtype=bool),
        truncations=ends,
        episode_starts=starts,
    ).validate()


def whole_path(mixer: str, context: int, seeds: Sequence[int], loss: str, **options: Any) -> None:
    data = episodes(context + 40)
    layout = Layout(2, 1, 0, "states+actions", "none")
    spec = ModelSpec(
        mixer, "mse", context, layout.features, 1, 8, 2, columns=tuple(layout.columns), **options
    )
    policies = [build(spec, torch_stream("long", seed, "init")) for seed in seeds]
    agent = Agent(Stack(policies), layout, fit_scales(data, len(data.rewards)), context)
    raw = stored(data, layout)
    actions = torch.from_numpy(data.actions)
    source = Source(agent.tokens(raw.fields), raw.timestep, actions, agent.visible)
    train = {
        "updates": 3, "targets_per_update": 2 * (context if loss == "all" else 1),
        "learning_rate": 1e-2, "schedule": "constant", "warmup": 0, "weight_decay": 0.0,
        "clip": 1.0, "loss": loss, "precision": "float32",
    }  # fmt: skip
    before = [p.detach().clone() for p in agent.stack.parameters()]
    losses: list[torch.Tensor] = []
    trained = train_cohort(
        agent.stack, source, train, "long", seeds, [1, 2, 3], lambda _, mean: losses.append(mean)
    )
    assert not trained.diverged
    assert all(bool(torch.isfinite(mean).all()) for mean in losses)
    after = agent.stack.parameters()
    assert any(not torch.equal(p, q) for p, q in zip(before, after, strict=True))
    metrics = held_out_metrics(agent, held_out(data, agent, layout, "long", 6))
    assert bool(torch.isfinite(metrics["action_error"]).all())
    found = rollout(
        agent, Short(2 * len(seeds), 5), 2,
        study="long", seeds=seeds, target=0.0, policy=None, sample=False,
    )  # fmt: skip
    assert (found.lengths == 5).all()
    assert np.isfinite(found.returns).all()


CASES = [
    ("attention", {"positions": "rotary"}),
    ("attention", {}),
    ("attention", {"positions": "rotary", "window": 64}),
    ("ssm", {}),
    ("convformer", {}),
    ("gru", {}),
]


@pytest.mark.parametrize(("mixer", "options"), CASES, ids=str)
@pytest.mark.parametrize(("seeds", "loss"), [((0,), "all"), ((0, 1), "last")])
def test_a_context_beyond_512_trains_and_acts(
    mixer: str, options: dict[str, Any], seeds: tuple[int, ...], loss: str
) -> None:
    if mixer == "gru" and len(seeds) > 1:
        pytest.skip("explicit cells over 600 timesteps are slow")
    whole_path(mixer, 600, seeds, loss, **options)


@pytest.mark.slow
@pytest.mark.parametrize(("mixer", "options"), CASES, ids=str)
@pytest.mark.parametrize("context", [4096, 16_384])
def test_contexts_up_to_16384_train_and_act(
    mixer: str, options: dict[str, Any], context: int
) -> None:
    whole_path(mixer, context, (0,), "all", **options)


def test_what_windows_show_takes_memory_linear_in_the_context() -> None:
    """A table for every length would hold 16,384 * 16,384 * 4 numbers here: a gigabyte a column."""
    visible = Visibility(16_384, torch.ones(4), torch.tensor([1.0, 1.0, 0.0, 1.0]))
    table = torch.arange(1.0, 20_001.0)[:, None].expand(-1, 4)
    targets = torch.tensor([[19_999, 10]])
    windows, rows, lengths = gather_windows(table, torch.arange(20_000), visible, targets)
    assert lengths.tolist() == [[16_384, 11]]
    assert windows.shape == (1, 2, 16_384, 4)
    assert windows[0, 0, -1].tolist() == [20_000.0] * 4
    assert windows[0, 0, 0].tolist() == [3_617.0, 3_617.0, 0.0, 3_617.0]
    assert windows[0, 1, 11:].abs().sum() == 0
    assert int(rows[0, 0, 0]) == 3_616


def test_what_is_not_shown_is_hidden_at_every_length() -> None:
    """Against the definition, position by position."""
    first, stays = torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    mask = Visibility(4, first, stays).mask(torch.arange(1, 5))
    for length in range(1, 5):
        for position in range(4):
            for column in range(4):
                shown = position < length
                shown &= position > 0 or bool(first[column])
                shown &= position == length - 1 or bool(stays[column])
                assert mask[length - 1, position, column] == float(shown)


def test_held_out_targets_of_long_contexts_are_encoded_in_small_parts() -> None:
    assert heldout._chunk(512) == 2048
    assert heldout._chunk(4096) == 64
    assert heldout._chunk(1 << 20) == 1
