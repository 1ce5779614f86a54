"""A pendulum and a double pendulum of unit masses and lengths, without friction, with a motor at the shoulder.

Angles from hanging, in radians, torque tau, g = 9.81:

    single:  th'' = tau - g sin th
    double:  [2  c] [th1'']   [tau - s w2^2 - 2 g sin th1]
             [c  1] [th2''] = [s w1^2 - g sin th2        ],    c = cos(th1 - th2), s = sin(th1 - th2)

A step is 0.05 s of four Runge-Kutta steps under a constant torque; then each angular velocity gets a kick
N(0, noise^2). What is seen, (cos th, sin th) of every link and then the angular velocities, is the whole state: the
systems are Markov. Without torque and kicks energy is conserved, and the double pendulum is chaotic (T. Shinbrot et
al., American Journal of Physics 60 (1992) 491-499).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from ablate.envs.base import Info, SimulatedEnv, episode_rng, pick
from ablate.errors import UserError

GRAVITY = 9.81
DT, SUBSTEPS = 0.05, 4  # seconds of a step, and how many Runge-Kutta steps it takes
HORIZON = 200
KICK = 0.02  # rad/s, standard deviation of what a step adds to each angular velocity
ON_CIRCLE = 0.1  # by how much cos^2 + sin^2 may miss 1 in an observation that is still an angle
_TAG = 0x9E4D
Floats = np.ndarray


class Pendulum(SimulatedEnv):
    """B episodes of a single pendulum.

    noise: see `KICK`. The reward is how high the last link's end is, from -1 (hanging) to 1, minus a tenth of the
    squared action.

    Class attributes:
        links: how many. torque: of the action 1, in N m. lyapunov: see `VectorEnv`; by `exponent` along the episodes
            of the data `pendulum/...`.
    """

    per_place = ("_angles", "_speeds", "_noise")
    links: ClassVar[int] = 1
    torque: ClassVar[float] = 2.0

    def __init__(self, num_envs: int, noise: float = KICK) -> None:
        if not 0.0 <= noise < 10.0:
            raise UserError(
                f"{type(self).__name__}: noise is {noise}; allowed: 0 or more, below 10."
            )
        super().__init__(num_envs, observation_dim=3 * self.links, action_dim=1, horizon=HORIZON)
        self._scale = noise

    def _start(self, seeds: list[int]) -> Floats:
        shape = (HORIZON + 1, 2, self.links)
        draws = np.stack([episode_rng(seed, _TAG).standard_normal(shape) for seed in seeds])
        self._angles = draws[:, 0, 0].copy()  # (B, links), a radian about hanging
        self._speeds = draws[:, 0, 1].copy()
        self._noise = self._scale * draws[:, 1:, 0]  # (B, T, links)
        return self._observed()

    def _advance(self, actions: Floats, alive: np.ndarray) -> tuple[Floats, Floats, Floats, Info]:
        state = np.concatenate([self._angles, self._speeds], axis=1)
        torque = self.torque * actions[:, 0]
        for _ in range(SUBSTEPS):
            state = runge_kutta(lambda x: self.motion(x, torque), state, DT / SUBSTEPS)
        self._angles, self._speeds = state[:, : self.links], state[:, self.links :]
        self._speeds = self._speeds + pick(self._noise, self._now)
        rewards = self.height(self._angles) - 0.1 * np.square(actions[:, 0])
        return self._observed(), rewards, np.zeros(len(state), dtype=bool), {}

    def simulator_state(self) -> Floats:
        return np.concatenate([self._angles, self._speeds], axis=1)

    def _lay_simulator_state(self, states: Floats, goals: Floats | None) -> Floats:
        self._angles, self._speeds = states[:, : self.links], states[:, self.links :]
        return self._observed()

    def impossible(self, observations: Floats) -> np.ndarray:
        """Where (cos, sin) of a link are those of no angle."""
        pairs = observations[..., : 2 * self.links].astype(np.float64)
        squared = np.square(pairs).reshape(*pairs.shape[:-1], self.links, 2).sum(-1)
        return (np.abs(squared - 1.0) > ON_CIRCLE).any(-1)

    def _observed(self) -> Floats:
        pairs = np.stack([np.cos(self._angles), np.sin(self._angles)], axis=-1)
        return np.concatenate([pairs.reshape(len(pairs), -1), self._speeds], axis=1)

    @classmethod
    def motion(cls, state: Floats, torque: Floats | float) -> Floats:
        """Time derivative (..., 2 links) of states (angles, angular velocities) under a torque (...,)."""
        angle, speed = state[..., 0], state[..., 1]
        return np.stack([speed, torque - GRAVITY * np.sin(angle)], axis=-1)

    @classmethod
    def energy(cls, state: Floats) -> Floats:
        """Kinetic and potential energy (...,) in J, 0 where everything rests at the height of the shoulder."""
        return 0.5 * np.square(state[..., 1]) - GRAVITY * np.cos(state[..., 0])

    @classmethod
    def height(cls, angles: Floats) -> Floats:
        """How high the last link's end is, (...,), as a share of what can be reached."""
        return -np.cos(angles).mean(-1)


class DoublePendulum(Pendulum):
    """B episodes of a double pendulum; see the head of this file."""

    links = 2
    torque = 5.0
    lyapunov = 22.0  # 1.1 s

    @classmethod
    def motion(cls, state: Floats, torque: Floats | float) -> Floats:
        first, second, w1, w2 = (state[..., i] for i in range(4))
        c, s = np.cos(first - second), np.sin(first - second)
        one = torque - s * w2 * w2 - 2.0 * GRAVITY * np.sin(first)
        two = s * w1 * w1 - GRAVITY * np.sin(second)
        determinant = 2.0 - c * c
        return np.stack(
            [w1, w2, (one - c * two) / determinant, (2.0 * two - c * one) / determinant], axis=-1
        )

    @classmethod
    def energy(cls, state: Floats) -> Floats:
        first, second, w1, w2 = (state[..., i] for i in range(4))
        kinetic = w1 * w1 + 0.5 * w2 * w2 + w1 * w2 * np.cos(first - second)
        return kinetic - GRAVITY * (2.0 * np.cos(first) + np.cos(second))


def runge_kutta(motion: Callable[[Floats], Floats], state: Floats, step: float) -> Floats:
    """The state after `step` seconds by the classical method of fourth order."""
    one = motion(state)
    two = motion(state + 0.5 * step * one)
    three = motion(state + 0.5 * step * two)
    four = motion(state + step * three)
    return state + step / 6.0 * (one + 2.0 * two + 2.0 * three + four)


def exponent(
    advance: Callable[[int, Floats], Floats], state: Floats, steps: int, apart: float = 1e-7
) -> Floats:
    """The largest Lyapunov exponent (B,), per step, along `steps` steps of states (B, S).

    advance(t, states): the states after step t, of any number of rows B' that is a multiple of B, in the order of
    the B (the same forcing for each). A neighbour at the distance `apart` is followed and pulled back to it after
    every step; the mean logarithm of how much it went away is the exponent. Source: G. Benettin, L. Galgani and
    J.-M. Strelcyn, Physical Review A 14 (1976) 2338-2345. The first tenth, in which the neighbour finds the fastest
    direction, isn't counted.
    """
    rng = np.random.default_rng(0)
    away = rng.standard_normal(state.shape)
    away *= apart / np.linalg.norm(away, axis=-1, keepdims=True)
    grown, skipped = np.zeros(len(state)), steps // 10
    for t in range(steps):
        both = advance(t, np.concatenate([state, state + away]))
        state, away = both[: len(state)], both[len(state) :] - both[: len(state)]
        size = np.linalg.norm(away, axis=-1, keepdims=True)
        away *= apart / size
        if t >= skipped:
            grown += np.log(size[:, 0] / apart)
    return grown / (steps - skipped)
