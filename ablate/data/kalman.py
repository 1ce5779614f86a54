"""The Kalman filter of the linear-quadratic system when a part of it is hidden, and what can be done by it.

    x' = A x + B u + w, w ~ N(0, Q);  shown: y = C x + n, n ~ N(0, R), or where a frame is dropped the last y again

Noise and process are Gaussian and a dropped frame shows itself (it repeats the last one to the bit), so that the law of
the state given all that was shown is Gaussian, and the filter has it exactly. Three policies by it:

- `filter`: the filter with the linear-quadratic regulator, u = -G E[x | shown so far]. By the separation principle no
  policy that sees as much does better (but for the horizon's end, which the regulator ignores).
- `clone`: the mean of the action of a demonstrator who saw the state, u = -G x + e, e ~ N(0, sigma^2 I), given all
  that was shown and done. A demonstrator's actions tell of the state, so the clone reads actions as evidence (`told`),
  its own too, which tell nothing.
- `memoryless`: the same mean given the present alone, u = -G E[x_t | y_t, t] under the law of the demonstrations.

Source: R. E. Kalman, J. Basic Engineering 82 (1960) 35-45; P. Whittle, Optimal Control (1996) for the separation
principle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablate.data import exact
from ablate.data.behaviour import Acted, Behaviour, censored_logp, explore
from ablate.data.exact import EXPLORATION
from ablate.envs.base import MaskedEnv, VectorEnv, Wrapper
from ablate.envs.hidden import DelayedEnv, DroppedEnv, NoisyEnv
from ablate.envs.lq import ACTION_SCALE, HORIZON, PROCESS_NOISE, A, B, LinearQuadratic
from ablate.errors import UserError, unknown

Array = NDArray[np.float64]
WHO = ("filter", "clone", "memoryless")


@dataclass(frozen=True)
class Seen:
    """What is shown of the state: its coordinates `shown` (n,), each with noise of deviation `noise` (n,); whether
    frames are dropped; and by how many timesteps actions are late."""

    shown: tuple[int, ...] = (0, 1, 2, 3)
    noise: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    drops: bool = False
    delay: int = 0

    @classmethod
    def of(cls, env: VectorEnv) -> Seen:
        """What the wrappers around a `LinearQuadratic` show.

        Raises UserError for another environment, or another friction than the filter knows.
        """
        around: list[VectorEnv] = []
        while isinstance(env, Wrapper):
            around.append(env)
            env = env.env
        if not isinstance(env, LinearQuadratic) or env.hides_friction:
            raise UserError(
                f"the Kalman filter: found {type(env).__name__}; it knows the linear-quadratic system with its own"
                " friction only."
            )
        found = cls()
        for one in reversed(around):
            if isinstance(one, MaskedEnv):
                found = cls(
                    tuple(found.shown[i] for i in one.observable),
                    tuple(found.noise[i] for i in one.observable),
                    found.drops,
                    found.delay,
                )
            elif isinstance(one, NoisyEnv):
                noise = tuple(
                    float(np.hypot(a, b)) for a, b in zip(found.noise, one.std, strict=True)
                )
                found = cls(found.shown, noise, found.drops, found.delay)
            elif isinstance(one, DroppedEnv):
                found = cls(found.shown, found.noise, one.probability > 0, found.delay)
            elif isinstance(one, DelayedEnv):
                found = cls(found.shown, found.noise, found.drops, one.delay)
        return found

    @property
    def matrix(self) -> Array:
        """C (n, 4)."""
        return np.eye(4)[list(self.shown)]

    @property
    def covariance(self) -> Array:
        """R (n, n)."""
        return np.diag(np.square(self.noise))


class Filter:
    """The law N(mean (B, 4), covariance (B or 1, 4, 4)) of the state of B episodes, a timestep after the other.

    told: whether actions are read as those of a demonstrator who saw the state, of this `gain` (2, 4) or the optimal
    one. bounded: whether they are read as what is left of its forces within the bounds: an action that is expected to
    lie beyond them tells nothing of the state (an extended Kalman filter; its covariance doesn't know of it).
    evidence: log-density (B,) of all that was measured; bounded, about the bound where more was expected.
    """

    def __init__(
        self, seen: Seen, told: bool = False, gain: Array | None = None, bounded: bool = False
    ) -> None:
        self.seen, self.told = seen, told
        self.bound = ACTION_SCALE if bounded else np.inf
        self.gain = exact.optimal_gain() if gain is None else gain

    def start(self, batch: int, covariance: Array | None = None) -> None:
        """Begin `batch` episodes: x_0 ~ N(0, I), or windows whose first state has another covariance (4, 4)."""
        self.mean = np.zeros((batch, 4))
        self.covariance = np.eye(4)[None] if covariance is None else covariance[None]
        self.evidence = np.zeros(batch)
        self._last: np.ndarray | None = None
        self._late = [
            np.zeros((batch, 2))
        ] * self.seen.delay  # forces on their way, the oldest first

    def observe(self, shown: np.ndarray) -> Array:
        """Take what is shown (B, n) at this timestep; the mean (B, 4)."""
        new = None
        if self.seen.drops:
            if self._last is not None:
                new = (shown != self._last).any(axis=1)
            self._last = shown.copy()
        self._measure(shown.astype(np.float64), self.seen.matrix, self.seen.covariance, new)
        return self.mean

    def act(self) -> Array:
        """The controller's stored action (B, 2): at the state that will be there when it takes effect."""
        mean = self.mean
        for force in self._late:
            mean = mean @ A.T + force @ B.T
        return np.clip(-mean @ self.gain.T / ACTION_SCALE, -1.0, 1.0)

    def acted(self, action: np.ndarray) -> None:
        """Go on to the next timestep after a stored action (B, 2)."""
        force = ACTION_SCALE * action.astype(np.float64)
        if self.told:
            self._measure(-force, self.gain, EXPLORATION**2 * np.eye(2), None, self.bound)
        self._late.append(force)
        self.mean = self.mean @ A.T + self._late.pop(0) @ B.T
        self.covariance = A @ self.covariance @ A.T + PROCESS_NOISE**2 * np.eye(4)

    def _measure(
        self,
        value: Array,
        matrix: Array,
        noise: Array,
        new: np.ndarray | None,
        bound: float = np.inf,
    ) -> None:
        """Condition on value (B, n) = matrix x + N(0, noise), cut at +-bound. `new` (B,): where there is one."""
        cross = self.covariance @ matrix.T  # (., 4, n)
        spread = matrix @ cross + noise  # (., n, n)
        inverse = np.linalg.inv(spread)
        gain = cross @ inverse
        expected = self.mean @ matrix.T
        apart = value - np.clip(expected, -bound, bound)
        squares = np.einsum("...i,...ij,...j->...", apart, inverse, apart)
        density = -0.5 * (squares + np.linalg.slogdet(2.0 * np.pi * spread)[1])
        if new is not None:
            gain, density = gain * new[:, None, None], density * new
        self.evidence = self.evidence + density
        told = np.where(np.abs(expected) < bound, apart, 0.0)
        self.mean = self.mean + np.einsum("...ij,...j->...i", gain, told)
        # Joseph's form: it stays a covariance where a measurement is exact.
        left = np.eye(4) - gain @ matrix
        kept = left @ self.covariance @ np.swapaxes(left, 1, 2)
        self.covariance = kept + gain @ noise @ np.swapaxes(gain, 1, 2)


def _at_once(seen: Seen) -> Array:
    """Gains (T, 4, n) of E[x_t | y_t] = K_t y_t and covariances (T, 4, 4) given y_t under the demonstrations' law.

    Raises UserError where the law of the present alone is no Gaussian, or isn't that of the undisturbed system.
    """
    if seen.drops or seen.delay:
        raise UserError(
            "what the present alone tells isn't known where frames are dropped or actions late."
        )
    prior = exact.state_covariances(exact.optimal_gain(), EXPLORATION)  # (T, 4, 4)
    cross = prior @ seen.matrix.T
    gain: Array = cross @ np.linalg.inv(seen.matrix @ cross + seen.covariance)
    return gain


def returns(make_env: Callable[[int], VectorEnv], seeds: Sequence[int], who: str) -> Array:
    """Returns (B,) of one of `WHO` in the environment, one episode a seed. Raises UserError for somebody else."""
    if who not in WHO:
        raise unknown("who acts", who, WHO)
    env = make_env(len(seeds))
    seen = Seen.of(env)
    gains = _at_once(seen) if who == "memoryless" else None
    law = Filter(seen, told=who == "clone")
    law.start(len(seeds))
    shown, total = env.reset(seeds), np.zeros(len(seeds))
    for t in range(HORIZON):
        if gains is not None:
            law.mean = shown.astype(np.float64) @ gains[t].T
        else:
            law.observe(shown)
        # The demonstrator doesn't know that its actions are late, and its clone doesn't either.
        mean = -law.mean @ exact.optimal_gain().T / ACTION_SCALE
        action = law.act() if who == "filter" else np.clip(mean, -1.0, 1.0)
        if gains is None:
            law.acted(action)
        shown, rewards, *_ = env.step(action)
        total += rewards
    return total


def nats(seen: Seen, blur: float = 0.0) -> float:
    """What the past tells of a demonstrator's action beyond the present and the time, in nats a timestep, as the dose
    meter counts: of Gaussians with the errors' covariance over all timesteps. The demonstrator saw the state.

    blur: every coordinate of the action is read with an error of so many of its own standard deviations. Raises
    UserError where the law of the present alone isn't known: dropped frames, late actions.
    """
    gain, noise = exact.optimal_gain(), EXPLORATION**2 * np.eye(2)
    prior = exact.state_covariances(gain, EXPLORATION)  # (T, 4, 4)
    alone = prior - _at_once(seen) @ seen.matrix @ prior
    law = Filter(seen, told=True)
    law.start(1)
    after = []
    for _ in range(HORIZON):
        law.observe(np.zeros((1, len(seen.shown))))
        after.append(law.covariance[0])
        law.acted(np.zeros((1, 2)))
    read = np.diag(blur**2 * np.diag(gain @ prior.mean(0) @ gain.T + noise))
    errors = [gain @ each.mean(0) @ gain.T + noise + read for each in (alone, np.stack(after))]
    without, beside = (float(np.linalg.slogdet(each)[1]) for each in errors)
    return 0.5 * (without - beside)


class Estimating(Behaviour):
    """The filter with the regulator and exploration noise: a demonstrator who sees no more than what is shown, and
    remembers it."""

    def __init__(self, seen: Seen | None = None) -> None:
        self._law = Filter(seen or Seen())

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        self._rng = rng
        self._law.start(len(observation))

    def act(self, observation: np.ndarray) -> Acted:
        std = EXPLORATION / ACTION_SCALE
        self._law.observe(observation)
        mean = self._law.act().astype(np.float32)
        action = explore(mean, std, self._rng)
        self._law.acted(action)
        ids = np.zeros(len(action), dtype=np.int64)
        return Acted(action, ids, censored_logp(action, mean, std), mean)

    def shown_only(self, env: VectorEnv, shown: list[int], mean: np.ndarray) -> Behaviour:
        return Estimating(Seen.of(env))
