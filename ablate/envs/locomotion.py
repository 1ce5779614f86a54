"""gymnasium's MuJoCo locomotion tasks behind the vectorised interface.

Version 4 is the one that D4RL's data were made for (v5 changed Walker2d's friction and Ant's
reward).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium
import mujoco
import numpy as np

from ablate.envs.base import Floats, Info, SimulatedEnv, State, Step, Wrapper, episode_rng
from ablate.envs.gymnasium_env import lay_snapshots, snapshots
from ablate.errors import UserError, unknown

ENVIRONMENTS = {
    "hopper": "Hopper-v4",
    "halfcheetah": "HalfCheetah-v4",
    "walker2d": "Walker2d-v4",
    "ant": "Ant-v4",
}
HORIZON = 1000
# The first coordinates of the observation are positions (qpos without the root's x, and y for the ant),
# the rest velocities.
POSITIONS = {"hopper": 5, "halfcheetah": 8, "walker2d": 8, "ant": 13}
WIDTHS = {"hopper": 11, "halfcheetah": 17, "walker2d": 17, "ant": 27}
_TAG = 0x10C0


def coordinates(task: str) -> dict[str, list[int]]:
    """The coordinates of a task's observation that are positions, and those that are velocities."""
    first = POSITIONS[task]
    return {"position": list(range(first)), "velocity": list(range(first, WIDTHS[task]))}


class Locomotion(SimulatedEnv):
    """B episodes of one of ENVIRONMENTS, each in its own simulator; terminates when the robot falls.

    mass_spread: s in [0, 1); each episode multiplies all masses and inertias by a hidden factor drawn
    uniformly from [1 - s, 1 + s].
    """

    per_place = ()

    def __init__(self, num_envs: int, task: str, mass_spread: float = 0.0) -> None:
        if task not in ENVIRONMENTS:
            raise unknown("Locomotion: task", task, ENVIRONMENTS)
        if not 0.0 <= mass_spread < 1.0:
            raise UserError(
                f"Locomotion: mass_spread is {mass_spread}; allowed: 0 or more, below 1."
            )
        self._spread = mass_spread
        with warnings.catch_warnings():
            # gymnasium advises v5; v4 is what the data were made for.
            warnings.simplefilter("ignore")
            # MuJoCo would log what it deprecates in HalfCheetah's model to a file where we stand.
            mujoco.set_mju_user_warning(lambda _: None)
            try:
                self._envs: list[Any] = [
                    gymnasium.make(ENVIRONMENTS[task]).unwrapped for _ in range(num_envs)
                ]
            finally:
                mujoco.set_mju_user_warning(None)
        observations, actions = self._envs[0].observation_space, self._envs[0].action_space
        assert observations.shape is not None
        assert actions.shape is not None
        super().__init__(num_envs, observations.shape[0], actions.shape[0], HORIZON)

        model = self._envs[0].model
        self._mass, self._inertia = model.body_mass.copy(), model.body_inertia.copy()

    def _start(self, seeds: list[int]) -> np.ndarray:
        if self._spread:
            for env, seed in zip(self._envs, seeds, strict=True):
                factor = 1.0 + self._spread * episode_rng(seed, _TAG).uniform(-1.0, 1.0)
                env.model.body_mass[:] = factor * self._mass
                env.model.body_inertia[:] = factor * self._inertia
                mujoco.mj_setConst(env.model, env.data)
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

    def _more_state(self) -> dict[str, np.ndarray]:
        return {"simulators": snapshots(self._envs)}

    def _lay_more(self, state: State, places: np.ndarray) -> None:
        lay_snapshots(self._envs, state.own["simulators"], places)

    def mujoco_model(self) -> mujoco.MjModel:
        return self._envs[0].model

    def simulator_state(self) -> np.ndarray:
        return np.stack([np.concatenate([e.data.qpos, e.data.qvel]) for e in self._envs])


class D4RLAnt(Wrapper):
    """Ant as D4RL's files show it: 111 numbers, of which the last 84 are 0.

    They are the contact forces of gym's Ant-v2, which MuJoCo 2 no longer computed by itself, so that
    neither the observations nor the rewards of the files have any (Farama-Foundation/D4RL#143,
    openai/gym#1711). Ant-v4 leaves them away: its observation is the first 27.
    """

    FORCES = 84

    def __init__(self, num_envs: int) -> None:
        super().__init__(Locomotion(num_envs, "ant"))
        self.observation_dim += self.FORCES

    def reset(self, seeds: Sequence[int]) -> Floats:
        return self._shown_of(self.env.reset(seeds))

    def step(self, actions: np.ndarray) -> Step:
        observations, *rest = self.env.step(actions)
        return self._shown_of(observations), *rest  # type: ignore[return-value]

    def full_observation(self) -> Floats:
        return self._shown_of(self.env.full_observation())

    def _shown_of(self, observations: Floats) -> Floats:
        return np.pad(observations, ((0, 0), (0, self.FORCES)))
