"""The interface of an environment that runs a batch of episodes, one call a step.

Row b of every array depends on `seeds[b]` and on the actions of row b only, never on the batch it
stands in, so that any batching of the same seeds gives the same episodes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablate.errors import UserError

Floats = NDArray[np.float32]
Info = dict[str, np.ndarray]
Step = tuple[Floats, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Info]


class VectorEnv(ABC):
    """A batch of `num_envs` episodes. No automatic reset: a row that is done is frozen.

    A frozen row repeats its last observation and flags and gives reward 0.

    Attributes:
        num_envs: rows B of every array.
        observation_dim: N; observations are (B, N) float32.
        action_dim: M; actions are (B, M) in [-1, 1] (clipped to it).
        horizon: the step at which an episode is truncated at the latest.
    """

    num_envs: int
    observation_dim: int
    action_dim: int
    horizon: int

    @abstractmethod
    def reset(self, seeds: Sequence[int]) -> Floats:
        """Start one episode a seed; returns observations (B, N)."""

    @abstractmethod
    def step(self, actions: np.ndarray) -> Step:
        """Advance every episode that isn't done by one step.

        Returns observations (B, N) float32, rewards (B,) float64, terminations (B,) bool,
        truncations (B,) bool and `info`, a dict of (B,) arrays (e.g. `success`, so far).
        """

    def full_observation(self) -> Floats:
        """What would be seen now if nothing were hidden, (B, N_full); rows as `step` returns them.

        Raises UserError where an environment doesn't say; only privileged behaviour asks.
        """
        raise UserError(f"{type(self).__name__}: what it hides isn't known.")

    def simulator_state(self) -> NDArray[np.float64] | None:
        """(B, S), enough to put the simulator back here (MuJoCo: qpos, then qvel); None if unknown."""
        return None

    def mujoco_model(self) -> Any:
        """The first episode's `mujoco.MjModel`, by which `simulator_state` can be drawn; else None."""
        return None

    def goals(self) -> Floats | None:
        """(B, G), what the task wants a part of the observation to become; None without goals."""
        return None


class SimulatedEnv(VectorEnv):
    """A VectorEnv that keeps the books (time, done rows) around `_start` and `_advance`."""

    def __init__(self, num_envs: int, observation_dim: int, action_dim: int, horizon: int) -> None:
        if num_envs < 1:
            raise UserError(f"{type(self).__name__}: num_envs is {num_envs}; at least 1 is needed.")
        self.num_envs = num_envs
        self.observation_dim = observation_dim
        self.action_dim = action_dim
        self.horizon = horizon
        self._time: int | None = None

    def reset(self, seeds: Sequence[int]) -> Floats:
        if len(seeds) != self.num_envs:
            raise UserError(
                f"{type(self).__name__}.reset: {len(seeds)} seeds for {self.num_envs} episodes;"
                " one seed an episode is needed."
            )
        self._time = 0
        self._terminated = np.zeros(self.num_envs, dtype=bool)
        self._truncated = np.zeros(self.num_envs, dtype=bool)
        self._last = self._start([int(seed) for seed in seeds]).astype(np.float32)
        self._info: Info = {}
        return self._last.copy()

    def step(self, actions: np.ndarray) -> Step:
        actions = checked_actions(self, actions, self._time)
        assert self._time is not None
        alive = ~(self._terminated | self._truncated)
        if alive.any():
            clipped = np.clip(actions.astype(np.float64), -1.0, 1.0)
            observations, rewards, terminations, info = self._advance(clipped, alive)
            self._time += 1
            self._last = np.where(alive[:, None], observations, self._last).astype(np.float32)
            self._terminated |= alive & terminations
            self._truncated |= alive & ~terminations & (self._time >= self.horizon)
            old = self._info
            self._info = {
                key: np.where(alive, value, old.get(key, value)) for key, value in info.items()
            }
            rewards = np.where(alive, rewards, 0.0).astype(np.float64)
        else:
            rewards = np.zeros(self.num_envs)
        info = {key: value.copy() for key, value in self._info.items()}
        return (
            self._last.copy(),
            rewards,
            self._terminated.copy(),
            self._truncated.copy(),
            info,
        )

    def full_observation(self) -> Floats:
        return self._last.copy()

    @abstractmethod
    def _start(self, seeds: list[int]) -> np.ndarray:
        """Begin the episodes; returns observations (B, N)."""

    @abstractmethod
    def _advance(
        self, actions: np.ndarray, alive: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Info]:
        """One step of actions (B, M) in [-1, 1]: observations, rewards, terminations, info.

        What it returns for rows that aren't `alive` is ignored.
        """


class Wrapper(VectorEnv):
    """Another environment, passed through; a subclass changes what is seen or done."""

    def __init__(self, env: VectorEnv) -> None:
        self.env = env
        self.num_envs = env.num_envs
        self.observation_dim = env.observation_dim
        self.action_dim = env.action_dim
        self.horizon = env.horizon

    def reset(self, seeds: Sequence[int]) -> Floats:
        return self.env.reset(seeds)

    def step(self, actions: np.ndarray) -> Step:
        return self.env.step(actions)

    def full_observation(self) -> Floats:
        return self.env.full_observation()

    def simulator_state(self) -> NDArray[np.float64] | None:
        return self.env.simulator_state()

    def mujoco_model(self) -> Any:
        return self.env.mujoco_model()

    def goals(self) -> Floats | None:
        return self.env.goals()


class MaskedEnv(Wrapper):
    """Shows only the coordinates `observable` of the observation, in the given order."""

    def __init__(self, env: VectorEnv, observable: Sequence[int]) -> None:
        kept = [int(i) for i in observable]
        if not kept or min(kept) < 0 or max(kept) >= env.observation_dim:
            raise UserError(
                f"MaskedEnv: coordinates {kept} are wanted of an observation with"
                f" {env.observation_dim}; allowed: 0 to {env.observation_dim - 1}, at least one."
            )
        super().__init__(env)
        self.observable = kept
        self.observation_dim = len(kept)

    def reset(self, seeds: Sequence[int]) -> Floats:
        return self.env.reset(seeds)[:, self.observable]

    def step(self, actions: np.ndarray) -> Step:
        observations, *rest = self.env.step(actions)
        return observations[:, self.observable], *rest  # type: ignore[return-value]


def checked_actions(env: VectorEnv, actions: np.ndarray, time: int | None) -> np.ndarray:
    """The actions (B, M) given to `env` at step `time` (None before the first reset), as an array.

    Raises UserError when it wasn't reset, for another shape, and for a value that isn't finite.
    """
    where = f"{type(env).__name__}.step"
    if time is None:
        raise UserError(f"{where}: call reset(seeds) first.")
    actions = np.asarray(actions)
    if actions.shape != (env.num_envs, env.action_dim):
        raise UserError(
            f"{where}: actions have shape {actions.shape}; {(env.num_envs, env.action_dim)} is needed."
        )
    if not np.isfinite(actions).all():
        row = int(np.argwhere(~np.isfinite(actions))[0, 0])
        raise UserError(f"{where}: the action of row {row} is not finite at step {time}.")
    return actions


def episode_rng(seed: int, tag: int) -> np.random.Generator:
    """The random numbers of one episode: a function of its own seed and the environment's tag."""
    return np.random.default_rng(np.random.SeedSequence([seed, tag]))
