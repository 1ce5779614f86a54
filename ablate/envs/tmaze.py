"""The T-Mazes of Ni et al. (2023), "When do Transformers shine in RL?", for any corridor length L.

                                            arm up (+1)
    oracle -- start -- corridor of L moves -- junction
                                            arm down (-1)

The goal is one of the arms, and the oracle cell tells which on the first visit, only. Passive: the
episode starts on the oracle cell. Active: it starts one cell to the right of it, so that the agent
must go and ask, at the cost of the credit for it coming L steps later. Moves into walls stay.
Observations: [0, goal] at the oracle's first visit, [0, 0] in the corridor, [1, 0] at the junction,
[1, y] in the arm y.

With o the distance from oracle to start (0 passive, 1 active), the horizon is L + 1 + 2 o (as in
the authors' code), which leaves no step to spare for who visits the oracle. x counts cells from the
oracle. Reward: -1/L at each step t before the last after which x < t - o; at the last step 1 if the
agent stands in the goal's arm.

Best return 1. Best without memory 0.5 (chance at the junction), even for who knows the time: with
no step to spare, the time of arrival can't carry what the oracle said. Worst -1 (passive) and
-(1 + 1/L) (active).
"""

from __future__ import annotations

import numpy as np

from ablate.envs.base import Info, SimulatedEnv
from ablate.errors import UserError

MOVES = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])  # right, up, left, down
RIGHT, UP, LEFT, DOWN = range(4)
_TAG = 0x7A


class TMaze(SimulatedEnv):
    """B episodes. An action is (B, 4), one number a move; the largest is executed.

    length: moves L from the start to the junction. oracle_distance: moves o from the start to the
    oracle cell.
    """

    per_place = ("_goal", "_x", "_y", "_told")

    def __init__(self, num_envs: int, length: int, oracle_distance: int) -> None:
        if length < 1:
            raise UserError(
                f"{type(self).__name__}: the corridor length is {length}; at least 1 is needed."
            )
        super().__init__(
            num_envs, observation_dim=2, action_dim=4, horizon=length + 1 + 2 * oracle_distance
        )
        self.length = length
        self.oracle_distance = oracle_distance

    def _start(self, seeds: list[int]) -> np.ndarray:
        self._goal = goals(seeds)  # (B,) in {-1, +1}
        self._x = np.full(self.num_envs, self.oracle_distance)
        self._y = np.zeros(self.num_envs, dtype=np.int64)
        self._told = np.zeros(self.num_envs, dtype=bool)  # the oracle speaks once
        return self._observe()

    def _advance(
        self, actions: np.ndarray, alive: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Info]:
        time, junction = self._now + 1, self.oracle_distance + self.length
        move = MOVES[actions.argmax(axis=1)]  # (B, 2)
        x, y = self._x + move[:, 0], self._y + move[:, 1]
        corridor = (y == 0) & (x >= 0) & (x <= junction)
        arm = (np.abs(y) == 1) & (x == junction)
        free = corridor | arm
        self._x, self._y = np.where(free, x, self._x), np.where(free, y, self._y)
        done = np.full(self.num_envs, time >= self.horizon)
        success = done & (self._y == self._goal)
        late = np.where(self._x < time - self.oracle_distance, -1.0 / self.length, 0.0)
        rewards = np.where(done, success.astype(np.float64), late)
        return self._observe(), rewards, done, {"success": success}

    def _observe(self) -> np.ndarray:
        """Observations (B, 2); notes who has been told."""
        at_junction = self._x == self.oracle_distance + self.length
        told_now = (self._x == 0) & ~self._told
        self._told |= told_now
        second = np.where(at_junction, self._y, np.where(told_now, self._goal, 0))
        return np.stack([at_junction, second], axis=1).astype(np.float64)


class PassiveTMaze(TMaze):
    """The episode starts on the oracle cell: memory alone."""

    def __init__(self, num_envs: int, length: int) -> None:
        super().__init__(num_envs, length, oracle_distance=0)


class ActiveTMaze(TMaze):
    """The episode starts one cell to the right of the oracle: memory, and credit for asking."""

    def __init__(self, num_envs: int, length: int) -> None:
        super().__init__(num_envs, length, oracle_distance=1)


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
