"""Behaviour policies: who acts while data are collected, what they did and how likely it was."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr

from ablate.envs.base import VectorEnv


def explore(mean: np.ndarray, std: float, rng: np.random.Generator) -> np.ndarray:
    """clip(mean + N(0, std^2), -1, 1) of means (..., M) in [-1, 1], rounded to float32."""
    noise = std * rng.standard_normal(mean.shape)
    return np.clip(mean + noise, -1.0, 1.0).astype(np.float32)


def censored_logp(action: np.ndarray, mean: np.ndarray, std: float | np.ndarray) -> np.ndarray:
    """Log-likelihood of clip(N(mean, std^2), -1, 1), summed over the last axis: (..., M) -> (...).

    A censored Gaussian: the normal density inside (-1, 1), the probability of the whole tail at -1
    and 1. At the bounds it is therefore a probability, not a density.
    """
    action, mean = action.astype(np.float64), np.asarray(mean, dtype=np.float64)
    inside = -0.5 * np.square((action - mean) / std) - np.log(std) - 0.5 * np.log(2 * np.pi)
    low, high = log_ndtr((-1.0 - mean) / std), log_ndtr((mean - 1.0) / std)
    each = np.where(action <= -1.0, low, np.where(action >= 1.0, high, inside))
    return each.sum(axis=-1)


@dataclass(frozen=True)
class Acted:
    """What B controllers did at one timestep.

    Attributes:
        actions: (B, M) float32 in [-1, 1], as executed and logged.
        ids: (B,) int64, which policy acted.
        logp: (B,) log density of the logged action under that policy (log probability where actions
            are discrete), None where it isn't known.
        mean: (B, M) float32, the action without exploration noise, None where there is no such thing.
    """

    actions: np.ndarray
    ids: np.ndarray
    logp: np.ndarray | None = None
    mean: np.ndarray | None = None


class Behaviour(ABC):
    """Who acts while data are collected: B episodes at once, with a memory where it has one.

    All randomness comes from the generator given to `start`.
    """

    @abstractmethod
    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        """Begin B episodes whose first observations are (B, N)."""

    @abstractmethod
    def act(self, observation: np.ndarray) -> Acted:
        """The actions at observations (B, N); called once a timestep, rows of finished episodes included."""

    def shown_only(self, env: VectorEnv, shown: list[int], mean: np.ndarray) -> Behaviour:
        """The same behaviour where it sees no more than what `env` shows: the coordinates `shown`, maybe disturbed.

        By default the others are replaced by their mean, of `mean` (N,).
        """
        return Filled(self, shown, mean)


class Filled(Behaviour):
    """Another behaviour that sees only the coordinates `shown`, and the mean (N,) in place of the rest."""

    def __init__(self, behaviour: Behaviour, shown: list[int], mean: np.ndarray) -> None:
        self._behaviour, self._shown = behaviour, shown
        self._mean = mean.astype(np.float32)

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        self._behaviour.start(self._fill(observation), rng)

    def act(self, observation: np.ndarray) -> Acted:
        return self._behaviour.act(self._fill(observation))

    def _fill(self, observation: np.ndarray) -> np.ndarray:
        whole = np.repeat(self._mean[None], len(observation), axis=0)  # (B, N)
        whole[:, self._shown] = observation
        return whole


class UniformBehaviour(Behaviour):
    """Actions (B, M) drawn uniformly from [-1, 1]."""

    def __init__(self, action_dim: int) -> None:
        self._dim = action_dim

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        self._rng = rng

    def act(self, observation: np.ndarray) -> Acted:
        rows = len(observation)
        actions = self._rng.uniform(-1.0, 1.0, size=(rows, self._dim)).astype(np.float32)
        return Acted(
            actions=actions,
            ids=np.zeros(rows, dtype=np.int64),
            logp=np.full(rows, -self._dim * np.log(2.0)),
        )


def one_hot(choices: np.ndarray, count: int) -> np.ndarray:
    """Choices (B,) of `count` ones as actions (B, count) float32: +1 for the chosen, -1 else."""
    return np.where(np.arange(count) == choices[:, None], 1.0, -1.0).astype(np.float32)


def decided(choices: np.ndarray, count: int) -> Acted:
    """What a deterministic policy, number 0, did: choices (B,) of `count` ones."""
    actions = one_hot(choices, count)
    return Acted(actions, np.zeros(len(actions), dtype=np.int64), np.zeros(len(actions)), actions)


class UniformChoice(Behaviour):
    """One of `count` choices, all equally likely, at every timestep: all noise, without a mean."""

    def __init__(self, count: int) -> None:
        self.count = count

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        self._rng = rng

    def act(self, observation: np.ndarray) -> Acted:
        size = len(observation)
        return Acted(
            actions=one_hot(self._rng.integers(self.count, size=size), self.count),
            ids=np.zeros(size, dtype=np.int64),
            logp=np.full(size, -np.log(self.count)),
        )
