"""What Q-learning sees: every episode's last row, what follows it, and whether that has a value."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from data_samples import make
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.data.normalise import fit_scales
from ablate.data.streams import torch_stream
from ablate.data.trajectories import Trajectories
from ablate.data.windows import gather_windows
from ablate.learn.transitions import Transitions, transitions, with_final_rows
from ablate.models.agent import Agent, stored
from ablate.models.assembly import build
from ablate.models.layouts import Layout
from ablate.models.spec import ModelSpec
from ablate.models.stack import Stack


def sample(lengths: list[int], final: bool = True) -> Trajectories:
    data = make(lengths)
    if not final:
        return data
    seen = np.random.default_rng(7).standard_normal((len(lengths), 3)).astype(np.float32)
    return dataclasses.replace(data, final_observations=seen)


def read_by(
    data: Trajectories, context: int, condition: str = "return-to-go+time"
) -> tuple[Transitions, Agent]:
    layout = Layout(3, 2, 0, "states+actions+rewards", condition)
    spec = ModelSpec("mlp", "mse", context, layout.features, 2, 4, 1)
    policy = build(spec, torch_stream("t", 0, "init"))
    agent = Agent(Stack([policy]), layout, fit_scales(data, 20), context)

    def read(some: Trajectories) -> tuple[torch.Tensor, torch.Tensor]:
        raw = stored(some, layout)
        return agent.tokens(raw.fields), raw.timestep

    return transitions(data, read), agent


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_a_final_row_is_added_and_nothing_else_changes(lengths: list[int]) -> None:
    data = sample(lengths)
    longer = with_final_rows(data).validate()
    assert longer.lengths.tolist() == [length + 1 for length in lengths]
    final = longer.episode_starts[1:] - 1
    kept = np.delete(np.arange(len(longer.rewards)), final)
    assert data.final_observations is not None
    np.testing.assert_array_equal(longer.observations[final], data.final_observations)
    for name in ("observations", "actions", "rewards"):
        np.testing.assert_array_equal(getattr(longer, name)[kept], getattr(data, name))
    np.testing.assert_allclose(longer.returns_to_go[kept], data.returns_to_go, atol=1e-5)
    assert not longer.returns_to_go[final].any()
    assert not longer.rewards[final].any()
    assert not longer.actions[final].any()


@pytest.mark.parametrize("context", [1, 3])
def test_the_window_one_later_is_the_one_that_a_loop_builds(context: int) -> None:
    data = sample([4, 1, 6])
    seen, agent = read_by(data, context)
    rows = seen.row + 1
    features, _, lengths = gather_windows(seen.table, seen.timestep, agent.visible, rows[None])
    scales = agent.scales
    assert data.final_observations is not None
    for target in range(len(data.rewards)):
        episode = int(np.searchsorted(data.episode_starts, target, side="right")) - 1
        start, end = data.episode_starts[episode : episode + 2]
        last = target + 1  # the window's last timestep, which may lie behind the episode's end
        first = max(start, last - context + 1)
        assert int(lengths[0, target]) == last - first + 1
        for place, row in enumerate(range(first, last + 1)):
            now = data.final_observations[episode] if row == end else data.observations[row]
            wanted = [scales.observation(torch.from_numpy(now))]
            led = row > first
            wanted.append(torch.from_numpy(data.actions[row - 1]) * led)
            wanted.append(torch.tensor([data.rewards[row - 1] / scales.reward * led]))
            to_go = float(data.returns_to_go[row]) if row < end else 0.0
            wanted.append(torch.tensor([to_go / scales.return_to_go]))
            wanted.append(torch.tensor([(row - start) / scales.horizon]))
            torch.testing.assert_close(
                features[0, target, place], torch.cat(wanted).float(), rtol=0, atol=1e-5
            )


def test_the_value_of_what_follows_counts_unless_the_episode_truly_ended() -> None:
    data = sample([3, 2])
    ended = np.array([False, False, True, False, False])
    data = dataclasses.replace(data, terminations=ended, truncations=np.array([False] * 4 + [True]))
    seen, _ = read_by(data, 2)
    assert seen.going_on.tolist() == [1, 1, 0, 1, 1]
    assert seen.row.tolist() == [0, 1, 2, 4, 5]
    assert seen.counted is None
    np.testing.assert_allclose(seen.returns.numpy(), data.returns, rtol=1e-6)
    seen, _ = read_by(dataclasses.replace(data, final_observations=None), 2)
    assert seen.counted is not None
    assert seen.counted.tolist() == [1, 1, 1, 1, 0]  # D4RL's qlearning_dataset drops that one too


def test_where_every_episode_truly_ends_no_final_observation_is_needed() -> None:
    data = sample([3, 2], final=False)
    ends = data.terminations | data.truncations
    data = dataclasses.replace(data, terminations=ends, truncations=np.zeros_like(ends))
    seen, _ = read_by(data, 2)
    assert seen.counted is None
