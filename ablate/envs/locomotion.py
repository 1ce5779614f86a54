"""gymnasium's MuJoCo locomotion tasks behind the vectorised interface.

Version 4 is the one that D4RL's data were made for (v5 changed Walker2d's friction and Ant's
reward).
"""

from __future__ import annotations

import warnings

import gymnasium
import mujoco
import numpy as np

from ablate.envs.base import Info, SimulatedEnv
from ablate.errors import unknown

TASKS = {"hopper": "Hopper-v4", "halfcheetah": "HalfCheetah-v4", "walker2d": "Walker2d-v4"}
HORIZON = 1000


class Locomotion(SimulatedEnv):
    """B episodes of one of TASKS, each in its own simulator; terminates when the robot falls."""

    def __init__(self, num_envs: int, task: str) -> None:
        if task not in TASKS:
            raise unknown("Locomotion: task", task, TASKS)
        with warnings.catch_warnings():
            # gymnasium advises v5; v4 is what the data were made for.
            warnings.simplefilter("ignore")
            # MuJoCo would log what it deprecates in HalfCheetah's model to a file where we stand.
            mujoco.set_mju_user_warning(lambda _: None)
            try:
                self._envs = [gymnasium.make(TASKS[task]).unwrapped for _ in range(num_envs)]
            finally:
                mujoco.set_mju_user_warning(None)
        observations, actions = self._envs[0].observation_space, self._envs[0].action_space
        assert observations.shape is not None
        assert actions.shape is not None
        super().__init__(num_envs, observations.shape[0], actions.shape[0], HORIZON)

    def _start(self, seeds: list[int]) -> np.ndarray:
        return np.stack([env.reset(seed=s)[0] for env, s in zip(self._envs, seeds, strict=True)])

    def _advance(
        self, actions: np.ndarray, alive: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Info]:
        observations = self._last.astype(np.float64)
        rewards = np.zeros(self.num_envs)
        terminations = np.zeros(self.num_envs, dtype=bool)
        for row in np.flatnonzero(alive):
            observations[row], reward, terminations[row], *_ = self._envs[row].step(actions[row])
            rewards[row] = float(reward)
        return observations, rewards, terminations, {}
