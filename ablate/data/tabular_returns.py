"""Exact distributions of returns in a tabular process, and what conditioning on a return comes to.

A Decision Transformer without memory converges to p(action | shown state, step, return-to-go). Where outcomes are
random it takes luck for skill: given a high return it does what was done when that return came about, whatever else
comes of it (Brandfonbrener et al. 2022, "When does return-conditioned supervised learning work for offline
reinforcement learning?").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablate.data.tabular import Law, clone, staged
from ablate.envs.tabular import Array, TabularMDP
from ablate.errors import UserError


def return_lattice(process: TabularMDP, unit: float = 1.0) -> NDArray[np.int64]:
    """The sums of up to H rewards in a row, 0 included, from the least to the greatest: (G,) int64, in units.

    Raises UserError when a possible reward is no multiple of `unit`.
    """
    possible = process.transitions > 0
    steps = _in_units(process.rewards[possible], unit)
    rewards = np.zeros(process.rewards.shape, dtype=np.int64)
    rewards[possible] = steps
    low = high = np.zeros(process.num_states, dtype=np.int64)
    least = greatest = 0
    big = np.iinfo(np.int64).max // 4
    for _ in range(process.horizon):
        low = np.where(possible, rewards + low, big).min(axis=(1, 2))
        high = np.where(possible, rewards + high, -big).max(axis=(1, 2))
        least, greatest = min(least, int(low.min())), max(greatest, int(high.max()))
    return np.arange(least, greatest + 1)


def _in_units(values: Array, unit: float) -> NDArray[np.int64]:
    """How many units each value is."""
    steps = np.rint(values / unit)
    off = np.abs(steps * unit - values) > 1e-9
    if off.any():
        raise UserError(
            f"returns: {values[off][0]} is no multiple of {unit}; rewards and returns need a common unit."
        )
    return steps.astype(np.int64)


@dataclass(frozen=True, eq=False)
class Returns:
    """Distributions of the return-to-go of one policy on a lattice of G returns.

    Attributes:
        values: (G,), the returns. state: (H + 1, S, G), probabilities from each state at each step.
        action: (H, S, A, G), the same after each action.
    """

    values: Array
    state: Array
    action: Array


def return_distribution(process: TabularMDP, policy: Array, unit: float = 1.0) -> Returns:
    """The exact distribution of the return-to-go; rewards must be multiples of `unit`."""
    policy, lattice = staged(process, policy), return_lattice(process, unit)
    kinds = _reward_kinds(process, unit)
    zero = int(np.flatnonzero(lattice == 0)[0])
    state = np.zeros((process.horizon + 1, process.num_states, len(lattice)))
    action = np.zeros((*policy.shape, len(lattice)))
    state[-1, :, zero] = 1.0
    for t in reversed(range(process.horizon)):
        for reward, moves in kinds:
            action[t] += np.einsum("sat,tg->sag", moves, _shifted(state[t + 1], reward))
        state[t] = np.einsum("sa,sag->sg", policy[t], action[t])
    return Returns((lattice * unit).astype(np.float64), state, action)


def _reward_kinds(process: TabularMDP, unit: float) -> list[tuple[int, Array]]:
    """Each reward in units, with the probabilities (S, A, S) of the moves that pay it."""
    possible = process.transitions > 0
    steps = np.zeros(process.rewards.shape, dtype=np.int64)
    steps[possible] = _in_units(process.rewards[possible], unit)
    return [
        (int(reward), np.where(possible & (steps == reward), process.transitions, 0.0))
        for reward in np.unique(steps[possible])
    ]


def _shifted(array: Array, by: int) -> Array:
    """array (..., G) moved up by so many places along its last axis; what leaves it is dropped."""
    moved = np.zeros_like(array)
    if by >= 0:
        moved[..., by:] = array[..., : array.shape[-1] - by]
    else:
        moved[..., :by] = array[..., -by:]
    return moved


@dataclass(frozen=True)
class Achieved:
    """What asking for a return comes to.

    promised: the return asked for at the start. achieved: the expected return of acting so. unseen: expected share of
    an episode's steps at which the data never have the return that is still wanted.
    """

    promised: float
    achieved: float
    unseen: float


class Conditioned:
    """The policy p(action | shown state, step, return-to-go) of a law's data, one return being asked for at the start.

    The return-to-go is lowered by every reward received, as the Decision Transformer does. Where the data never have
    the return that is still wanted, it acts as at the nearest one that they have there (the higher of two); where they
    never come, it clones. Rewards must be multiples of `unit`.

    Attributes:
        lattice: (G,) int64, possible returns-to-go in units.
        returns: (G,), how the return of an episode of the data is distributed.
        seen: (H, S, G) bool, whether the data have that return-to-go in what is shown there.
    """

    def __init__(self, law: Law, unit: float = 1.0) -> None:
        self.law, self.unit = law, unit
        process = law.process
        policies, weights = law.components
        self.lattice = return_lattice(process, unit)
        self.returns = np.zeros(len(self.lattice))
        mass = np.zeros((process.horizon, process.num_actions, len(self.lattice), len(law.looks)))
        for joint, policy, weight in zip(law.joint, policies, weights, strict=True):
            each = return_distribution(process, policy, unit)
            mass += np.einsum("hs,hsa,hsag->hags", joint, policy, each.action, optimize=True)
            self.returns += weight * (process.start @ each.state[0])
        mass = np.moveaxis(law.pooled(mass), -1, 1)  # (H, S, A, G)
        total = mass.sum(2)
        self.seen = total > 0
        shares = mass / np.where(self.seen, total, 1.0)[:, :, None]
        self._policy = np.ascontiguousarray(np.moveaxis(shares, 2, -1))  # (H, S, G, A)
        self._nearest = _nearest(self.seen)  # (H, S, G)
        self._clone = clone(law)

    def probabilities(self, t: int, wanted: NDArray[np.int64]) -> Array:
        """Action probabilities (S, n, A) at step t with returns-to-go (n,) still wanted, in units."""
        near = self._nearest[t][:, self._place(wanted)]  # (S, n)
        found = self._policy[t][np.arange(len(near))[:, None], np.maximum(near, 0)]  # (S, n, A)
        probabilities: Array = np.where(near[..., None] < 0, self._clone[t][:, None], found)
        return probabilities

    def targets(self) -> Array:
        """The returns (n,) that an episode of the data may have."""
        return (self.lattice[self.returns > 0] * self.unit).astype(np.float64)

    def quantile(self, level: float) -> float:
        """The least return that an episode of the data doesn't exceed with probability `level`."""
        # Rounding of the sum must not push a level that is met exactly to the next return.
        place = int(np.argmax(self.returns.cumsum() >= level - 1e-12))
        return float(self.lattice[place] * self.unit)

    def achieve(self, target: float) -> Achieved:
        """The exact expected return of asking for `target`.

        Raises UserError when it is no multiple of the unit.
        """
        process = self.law.process
        wanted = int(_in_units(np.array([target]), self.unit)[0])
        kinds = _reward_kinds(process, self.unit)
        # All that may still be wanted at any step: what has been received lies in the lattice too.
        span = wanted - self.lattice[::-1]
        inside = (span >= self.lattice[0]) & (span <= self.lattice[-1])
        here = process.start[:, None] * (span == wanted)  # (S, W)
        total = steps = unseen = 0.0
        for t in range(process.horizon):
            here = np.where(process.terminal[:, None], 0.0, here)
            steps += here.sum()
            unseen += here[~(self.seen[t][:, self._place(span)] & inside)].sum()
            chosen = here[..., None] * self.probabilities(t, span)  # (S, W, A)
            total += np.einsum("swa,sa->", chosen, process.expected_rewards)
            here = np.zeros_like(here)
            for reward, moves in kinds:
                here += _shifted(np.tensordot(moves, chosen, ([0, 1], [0, 2])), -reward)
        return Achieved(float(target), float(total), float(unseen / steps))

    def _place(self, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where returns lie in the lattice; those beyond its ends at the ends."""
        return np.clip(wanted - self.lattice[0], 0, len(self.lattice) - 1)


def _nearest(seen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Index of the nearest true entry along the last axis, the higher of two; -1 where there is none."""
    size = seen.shape[-1]
    index = np.arange(size)
    below = np.maximum.accumulate(np.where(seen, index, -size * 2), axis=-1)
    above = np.minimum.accumulate(np.where(seen, index, size * 4)[..., ::-1], axis=-1)[..., ::-1]
    nearest = np.where(above - index <= index - below, above, below)
    return np.where(seen.any(-1, keepdims=True), nearest, -1)
