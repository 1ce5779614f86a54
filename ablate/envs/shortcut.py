"""A maze with a shortcut that nobody takes, and that ends badly: what a search promises itself where no data are.

    A O O      The ball and its physics are those of `ablate.envs.pointmaze`, five physical steps to a timestep.
    x # O      From A the way leads around the wall to the goal G; the cell x between them is open, and forbidden.
    G O O

- The observation is [x, y, vx, vy].
- Starts are the centre of A, +- U(0.1), with velocity N(0, 0.1^2).
- Reward 1 at each timestep that ends within 0.5 of G, else 0. In the forbidden cell, within 0.3 of its middle line,
  the episode ends with reward -10. Truncated after 60 timesteps.
- `success`: G was reached; `forbidden`: the episode ended in the shortcut.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ablate.envs.base import Info, episode_rng
from ablate.envs.pointmaze import (
    GOAL_RADIUS,
    POSITION_NOISE,
    VELOCITY_NOISE,
    BallEnv,
)

MAP = "##### #OOO# #O#O# #OOO# #####"
START, FORBIDDEN, GOAL = np.array([-1.0, 1.0]), np.array([-1.0, 0.0]), np.array([-1.0, -1.0])
DEEP = 0.3  # how near to the middle line of the forbidden cell the episode ends
FINE = -10.0
HORIZON = 60
SKIP = 5  # physical steps in a timestep
_TAG = 0x5C


class Shortcut(BallEnv):
    """B episodes."""

    per_place: ClassVar[tuple[str, ...]] = (*BallEnv.per_place, "_success")

    def __init__(self, num_envs: int) -> None:
        super().__init__(num_envs, MAP, observation_dim=4, horizon=HORIZON, spread=0.0)

    def _start(self, seeds: list[int]) -> np.ndarray:
        position, velocity = [], []
        for seed in seeds:
            rng = episode_rng(seed, _TAG)
            position.append(START + rng.uniform(-POSITION_NOISE, POSITION_NOISE, size=2))
            velocity.append(VELOCITY_NOISE * rng.standard_normal(2))
        self._place(seeds, np.array(position), np.array(velocity))
        self._success = np.zeros(self.num_envs, dtype=bool)
        return self._observe()

    def _advance(
        self, actions: np.ndarray, alive: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Info]:
        caught = np.zeros(self.num_envs, dtype=bool)
        for _ in range(SKIP):
            self._move(actions)
            caught |= forbidden(self._position)
        reached = np.linalg.norm(self._position - GOAL, axis=1) <= GOAL_RADIUS
        self._success |= reached & ~caught
        reward = np.where(caught, FINE, reached.astype(np.float64))
        return (
            self._observe(),
            reward,
            caught,
            {"success": self._success.copy(), "forbidden": caught},
        )

    def _observe(self) -> np.ndarray:
        return np.concatenate([self._position, self._velocity], axis=1)


def forbidden(positions: np.ndarray) -> np.ndarray:
    """Whether positions (..., 2) lie where the shortcut ends an episode, (...,) bool."""
    apart = np.abs(positions - FORBIDDEN)
    inside: np.ndarray = (apart[..., 0] <= 0.5) & (apart[..., 1] <= DEEP)
    return inside
