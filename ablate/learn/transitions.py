"""What Q-learning sees of trajectories: each timestep's reward, what follows it and whether that has a value.

An episode of L timesteps has L + 1 observations. The last is the episode's final observation: a time-out cuts an
episode that would have gone on, so the value there counts; after a true end there is none. Where a data set
doesn't hold final observations, the last timestep of a timed-out episode has no successor and is left out of
every loss, as D4RL's `qlearning_dataset` leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablate.data.trajectories import PER_EPISODE, Trajectories

# A row of tokens and its index in the episode, for every timestep of some trajectories.
Reader = Callable[[Trajectories], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Transitions:
    """E episodes of T timesteps in all, with one more row at the end of each.

    table: (T + E, F) tokens; timestep: (T + E,) int64, index within the episode.
    row: (T,) int64, where timestep t of the training set stands in `table`; its successor is the row after.
    rewards: (T,). going_on: (T,) floats, 0 after a true end, else 1.
    counted: (T,) floats, 0 where the successor is not known, or None where all are known.
    returns: (E,) float64, undiscounted return of each episode.
    """

    table: Tensor
    timestep: Tensor
    row: Tensor
    rewards: Tensor
    going_on: Tensor
    counted: Tensor | None
    returns: Tensor


def transitions(
    trajectories: Trajectories, read: Reader, device: torch.device | str = "cpu"
) -> Transitions:
    """`read` gives tokens and timesteps of trajectories, as the policy reads them."""
    table, timestep = read(with_final_rows(trajectories))
    steps = np.arange(len(trajectories.rewards))
    episode = np.repeat(np.arange(trajectories.num_episodes), trajectories.lengths)
    ended = trajectories.terminations
    unknown = np.zeros_like(ended)
    if trajectories.final_observations is None:
        unknown[trajectories.episode_starts[1:] - 1] = True
        unknown &= ~ended

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(device)

    return Transitions(
        table=table,
        timestep=timestep,
        row=tensor(steps + episode),
        rewards=tensor(trajectories.rewards),
        going_on=tensor((~ended).astype(np.float32)),
        counted=tensor((~unknown).astype(np.float32)) if unknown.any() else None,
        returns=tensor(trajectories.returns),
    )


def with_final_rows(trajectories: Trajectories) -> Trajectories:
    """Every episode with one more timestep: its final observation, no action and no reward.

    Other arrays repeat their last row; so do observations where final ones are not known.
    """
    last = trajectories.episode_starts[1:] - 1
    starts = trajectories.episode_starts + np.arange(trajectories.num_episodes + 1)
    order = np.insert(np.arange(len(trajectories.rewards)), last + 1, last)  # (T + E,)
    added = starts[1:] - 1  # (E,)
    taken: dict[str, Any] = {
        name: array[order] for name, array in trajectories.arrays.items() if name not in PER_EPISODE
    }
    taken["actions"][added] = 0.0
    taken["rewards"][added] = 0.0
    for name in ("terminations", "truncations"):
        taken[name][added - 1] = False
    if trajectories.final_observations is not None:
        taken["observations"][added] = trajectories.final_observations
    return replace(trajectories, **taken, episode_starts=starts)
