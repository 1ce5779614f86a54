"""The passive T-Maze of Ni et al. (2023), "When do Transformers shine in RL?", for any length L.

    oracle cell -> corridor of L moves -> junction with an arm up (+1) and an arm down (-1)

The oracle cell, where the episode starts, shows the goal on the first visit only; the right choice
at the junction needs it L steps later. Moves into walls stay. Observations: [0, goal] at the first
step, [0, 0] in the corridor, [1, 0] at the junction, [1, y] in the arm y. The horizon is L + 1.
Reward: -1/L at each step t < L+1 after which x < t; at the last step 1 if the agent stands in the
goal's arm. Best return 1, best without memory 0.5 (chance at the junction), worst -1.
"""

from __future__ import annotations

import numpy as np

from ablate.envs.base import Info, SimulatedEnv
from ablate.errors import UserError

MOVES = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])  # right, up, left, down
RIGHT, UP, LEFT, DOWN = range(4)
_TAG = 0x7A


class PassiveTMaze(SimulatedEnv):
    """B episodes. An action is (B, 4), one number a move; the largest is executed."""

    def __init__(self, num_envs: int, length: int) -> None:
        if length < 1:
            raise UserError(f"PassiveTMaze: the corridor length is {length}; at least 1 is needed.")
        super().__init__(num_envs, observation_dim=2, action_dim=4, horizon=length + 1)
        self.length = length

    def _start(self, seeds: list[int]) -> np.ndarray:
        self._goal = goals(seeds)  # (B,) in {-1, +1}
        self._x = np.zeros(self.num_envs, dtype=np.int64)
        self._y = np.zeros(self.num_envs, dtype=np.int64)
        return np.stack([np.zeros(self.num_envs), self._goal], axis=1)

    def _advance(
        self, actions: np.ndarray, alive: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Info]:
        assert self._time is not None
        time = self._time + 1
        move = MOVES[actions.argmax(axis=1)]  # (B, 2)
        x, y = self._x + move[:, 0], self._y + move[:, 1]
        corridor = (y == 0) & (x >= 0) & (x <= self.length)
        arm = (np.abs(y) == 1) & (x == self.length)
        free = corridor | arm
        self._x, self._y = np.where(free, x, self._x), np.where(free, y, self._y)
        done = np.full(self.num_envs, time >= self.horizon)
        success = done & (self._y == self._goal)
        late = np.where(self._x < time, -1.0 / self.length, 0.0)
        rewards = np.where(done, success.astype(np.float64), late)
        at_junction = self._x == self.length
        observations = np.stack([at_junction, np.where(at_junction, self._y, 0)], axis=1)
        return observations.astype(np.float64), rewards, done, {"success": success}


def goals(seeds: list[int]) -> np.ndarray:
    """The goal arm (+1 up, -1 down) of each seed, (B,) int64.

    Seeds 2k and 2k+1 have opposite goals and which of them is up is a hash of k: a list of an even
    number of consecutive seeds that starts at an even one is balanced exactly.
    """
    signs = []
    for seed in seeds:
        coin = int(np.random.SeedSequence([seed // 2, _TAG]).generate_state(1)[0] & 1)
        signs.append(1 if coin ^ (seed % 2) else -1)
    return np.array(signs, dtype=np.int64)
