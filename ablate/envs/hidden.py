"""Wrappers that hide what happens: noise, dropped frames, delayed actions (masks: `ablate.envs.base`).

Each wraps any VectorEnv and keeps its promise: row b is a function of `seeds[b]` and of its own
actions. What is random comes from the row's seed and a tag of the wrapper's own, so that it is
independent of the episode itself, and the draws don't depend on the strength: what is dropped at
0.3 is dropped at 0.6 too, and noise of 0.2 is twice the noise of 0.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ablate.envs.base import (
    Floats,
    State,
    Step,
    VectorEnv,
    Wrapper,
    checked_actions,
    episode_rng,
    pick,
)
from ablate.errors import UserError

_NOISE, _DROP = 0x401, 0x402  # tags of episode_rng
_BLOCK = 64  # timesteps that are drawn at once


class Disturbed(Wrapper):
    """Shows something made of the observation and of random numbers of the row's own.

    A row that is done goes on showing what it showed last.
    """

    per_place = ("_done", "_shown")
    _draws: _Draws

    def reset(self, seeds: Sequence[int]) -> Floats:
        observation = self.env.reset(seeds)
        self._done = np.zeros(self.num_envs, dtype=bool)
        self._draws.start([int(seed) for seed in seeds])
        self._shown = self._first(observation)
        return self._shown.copy()

    def step(self, actions: np.ndarray) -> Step:
        observation, rewards, terminations, truncations, info = self.env.step(actions)
        shown = np.where(self._done[:, None], self._shown, self._next(observation))
        self._shown = shown.astype(np.float32)
        self._done = terminations | truncations
        return self._shown.copy(), rewards, terminations, truncations, info

    def _shown_of(self, observations: Floats) -> Floats:
        return self._shown.copy()

    def _more_state(self) -> dict[str, np.ndarray]:
        return self._draws.state()

    def _lay_more(self, state: State, places: np.ndarray) -> None:
        self._draws.lay(self, state, places)

    def _first(self, observation: Floats) -> Floats:
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
        shape = (_BLOCK, self.observation_dim)
        self._draws = _Draws(_NOISE, lambda rng: rng.standard_normal(shape, dtype=np.float32))

    def _first(self, observation: Floats) -> Floats:
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
        self._draws = _Draws(_DROP, lambda rng: rng.random((_BLOCK, 1)))

    def _first(self, observation: Floats) -> Floats:
        return observation

    def _next(self, observation: Floats) -> Floats:
        dropped = self._draws.next() < self.probability  # (B, 1)
        return np.where(dropped, self._shown, observation)


class DelayedEnv(Wrapper):
    """An action takes effect `delay` steps after it is chosen; before the first does, zeros do."""

    per_place = ("_time",)

    def __init__(self, env: VectorEnv, delay: int) -> None:
        if delay < 0:
            raise UserError(f"DelayedEnv: the delay is {delay} steps; at least 0 is needed.")
        super().__init__(env)
        self.delay = delay
        # A ring: entry _at is written, and the next one is the oldest.
        self._at = 0
        self._chosen = np.zeros((self.delay + 1, self.num_envs, self.action_dim))
        self._time: np.ndarray | None = None

    def reset(self, seeds: Sequence[int]) -> Floats:
        self._time = np.zeros(self.num_envs, dtype=np.int64)
        self._chosen[:] = 0.0
        return self.env.reset(seeds)

    def step(self, actions: np.ndarray) -> Step:
        # Checked when chosen: the environment would notice a wrong one `delay` steps late.
        self._chosen[self._at] = checked_actions(self, actions, self._time)
        assert self._time is not None
        self._time = self._time + 1
        self._at = (self._at + 1) % (self.delay + 1)
        return self.env.step(self._chosen[self._at])

    def _more_state(self) -> dict[str, np.ndarray]:
        """The actions chosen last, the oldest first."""
        order = (self._at + np.arange(self.delay + 1)) % (self.delay + 1)
        return {"chosen": self._chosen[order].swapaxes(0, 1)}

    def _lay_more(self, state: State, places: np.ndarray) -> None:
        order = (self._at + np.arange(self.delay + 1)) % (self.delay + 1)
        self._chosen[order[:, None], places] = state.own["chosen"].swapaxes(0, 1)


class _Draws:
    """The random numbers of every row, one array (B, ...) a timestep, drawn in blocks of timesteps."""

    def __init__(self, tag: int, draw: Callable[[np.random.Generator], np.ndarray]) -> None:
        """draw: the numbers (_BLOCK, ...) of as many timesteps of one row."""
        self._tag, self._draw = tag, draw
        self._generators: list[np.random.Generator] = []

    def start(self, seeds: list[int]) -> None:
        """Begin anew with one row a seed."""
        self._generators = [episode_rng(seed, self._tag) for seed in seeds]
        # (_BLOCK, B, ...), and how many of its block a row has had: one number, or (B,).
        self._block = np.stack([self._draw(rng) for rng in self._generators], axis=1)
        self._at: int | np.ndarray = 0

    def next(self) -> np.ndarray:
        used = self._at == _BLOCK
        if used if isinstance(used, bool) else used.any():
            for row in np.flatnonzero(np.broadcast_to(used, len(self._generators))):
                self._block[:, row] = self._draw(self._generators[row])
            self._at = self._at % _BLOCK
        numbers = pick(self._block.swapaxes(0, 1), self._at)
        self._at = self._at + 1
        return numbers

    def state(self) -> dict[str, np.ndarray]:
        """What `lay` needs, (B, ...) each: the numbers drawn already, and where the generators stand."""
        generators = np.empty(len(self._generators), dtype=object)
        generators[:] = [rng.bit_generator.state for rng in self._generators]
        at = np.full(len(generators), self._at)
        return {"block": self._block.swapaxes(0, 1).copy(), "at": at, "generator": generators}

    def lay(self, env: VectorEnv, state: State, places: np.ndarray) -> None:
        """Lay such arrays (n, ...) into the rows `places` of those of `env`."""
        if not self._generators:
            self.start([0] * env.num_envs)
        self._block[:, places] = state.own["block"].swapaxes(0, 1)
        at = np.full(env.num_envs, self._at)
        at[places] = state.own["at"]
        self._at = int(at[0]) if (at == at[0]).all() else at
        for place, stands in zip(places, state.own["generator"], strict=True):
            self._generators[place].bit_generator.state = stands
