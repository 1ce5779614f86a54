"""Wrappers that hide what happens: noise, dropped frames, delayed actions (masks: `ablate.envs.base`).

Each wraps any VectorEnv and keeps its promise: row b is a function of `seeds[b]` and of its own
actions. What is random comes from the row's seed and a tag of the wrapper's own, so that it is
independent of the episode itself, and the draws don't depend on the strength: what is dropped at
0.3 is dropped at 0.6 too, and noise of 0.2 is twice the noise of 0.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ablate.envs.base import Floats, Step, VectorEnv, Wrapper, checked_actions, episode_rng
from ablate.errors import UserError

_NOISE, _DROP = 0x401, 0x402  # tags of episode_rng
_BLOCK = 64  # timesteps that are drawn at once


class Disturbed(Wrapper):
    """Shows something made of the observation and of random numbers of the row's own.

    A row that is done goes on showing what it showed last.
    """

    def reset(self, seeds: Sequence[int]) -> Floats:
        observation = self.env.reset(seeds)
        self._done = np.zeros(self.num_envs, dtype=bool)
        self._shown = self._first(observation, [int(seed) for seed in seeds])
        return self._shown.copy()

    def step(self, actions: np.ndarray) -> Step:
        observation, rewards, terminations, truncations, info = self.env.step(actions)
        shown = np.where(self._done[:, None], self._shown, self._next(observation))
        self._shown = shown.astype(np.float32)
        self._done = terminations | truncations
        return self._shown.copy(), rewards, terminations, truncations, info

    def _first(self, observation: Floats, seeds: list[int]) -> Floats:
        """What is shown of the first observation (B, N)."""
        raise NotImplementedError

    def _next(self, observation: Floats) -> Floats:
        """What is shown of a later observation (B, N), `self._shown` being what was shown before."""
        raise NotImplementedError


class NoisyEnv(Disturbed):
    """Adds independent Gaussian noise of standard deviation `std` (N,) to every observation."""

    def __init__(self, env: VectorEnv, std: np.ndarray) -> None:
        std = np.asarray(std, dtype=np.float32)
        if std.shape != (env.observation_dim,) or not (np.isfinite(std) & (std >= 0)).all():
            raise UserError(
                f"NoisyEnv: the noise is {std.tolist()}; one finite number >= 0 for each of the"
                f" {env.observation_dim} coordinates is needed."
            )
        super().__init__(env)
        self.std = std

    def _first(self, observation: Floats, seeds: list[int]) -> Floats:
        width = self.observation_dim
        self._draws = _Draws(
            seeds, _NOISE, lambda rng: rng.standard_normal((_BLOCK, width), dtype=np.float32)
        )
        return self._next(observation)

    def _next(self, observation: Floats) -> Floats:
        noisy: Floats = observation + self.std * self._draws.next()
        return noisy


class DroppedEnv(Disturbed):
    """With probability `probability` what was shown last is shown again; the first is always shown."""

    def __init__(self, env: VectorEnv, probability: float) -> None:
        if not 0 <= probability < 1:
            raise UserError(
                f"DroppedEnv: the probability is {probability}; at least 0 and below 1 is needed."
            )
        super().__init__(env)
        self.probability = probability

    def _first(self, observation: Floats, seeds: list[int]) -> Floats:
        self._draws = _Draws(seeds, _DROP, lambda rng: rng.random((_BLOCK, 1)))
        return observation

    def _next(self, observation: Floats) -> Floats:
        dropped = self._draws.next() < self.probability  # (B, 1)
        return np.where(dropped, self._shown, observation)


class DelayedEnv(Wrapper):
    """An action takes effect `delay` steps after it is chosen; before the first does, zeros do."""

    def __init__(self, env: VectorEnv, delay: int) -> None:
        if delay < 0:
            raise UserError(f"DelayedEnv: the delay is {delay} steps; at least 0 is needed.")
        super().__init__(env)
        self.delay = delay
        self._time: int | None = None

    def reset(self, seeds: Sequence[int]) -> Floats:
        self._time = 0
        # A ring: at time t, entry t mod (delay + 1) is written and the next one is the oldest.
        self._chosen = np.zeros((self.delay + 1, self.num_envs, self.action_dim))
        return self.env.reset(seeds)

    def step(self, actions: np.ndarray) -> Step:
        # Checked when chosen: the environment would notice a wrong one `delay` steps late.
        actions = checked_actions(self, actions, self._time)
        assert self._time is not None
        self._chosen[self._time % (self.delay + 1)] = actions
        self._time += 1
        return self.env.step(self._chosen[self._time % (self.delay + 1)])


class _Draws:
    """The random numbers of every row, one array (B, ...) a timestep, drawn in blocks of timesteps."""

    def __init__(
        self, seeds: list[int], tag: int, draw: Callable[[np.random.Generator], np.ndarray]
    ) -> None:
        self._generators = [episode_rng(seed, tag) for seed in seeds]
        self._draw = draw
        self._at = _BLOCK

    def next(self) -> np.ndarray:
        if self._at == _BLOCK:
            self._block = np.stack([self._draw(rng) for rng in self._generators], axis=1)
            self._at = 0
        self._at += 1
        numbers: np.ndarray = self._block[self._at - 1]
        return numbers
