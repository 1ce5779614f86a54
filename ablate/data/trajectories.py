"""Trajectories in memory: flat, contiguous arrays plus episode offsets, validated once on entry."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablate.errors import UserError

# Actions may leave [-1, 1] by a rounding error of float32, not by more.
ACTION_TOLERANCE = 1e-6

# name -> (dtype, number of axes); the first axis is time, except for those of PER_EPISODE.
REQUIRED: dict[str, tuple[type, int]] = {
    "observations": (np.float32, 2),
    "actions": (np.float32, 2),
    "rewards": (np.float32, 1),
    "terminations": (np.bool_, 1),
    "truncations": (np.bool_, 1),
    "episode_starts": (np.int64, 1),
}
OPTIONAL: dict[str, tuple[type, int]] = {
    "behaviour_id": (np.int64, 1),
    "behaviour_logp": (np.float32, 1),
    "behaviour_action": (np.float32, 2),
    "goal": (np.float32, 2),
    "simulator_state": (np.float32, 2),
    "final_observations": (np.float32, 2),
}
# Arrays whose rows are not timesteps.
PER_EPISODE = ("episode_starts", "final_observations")


@dataclass(frozen=True, eq=False)
class Trajectories:
    """E episodes, one after the other, T timesteps in all.

    Row t holds what was seen, done and got at that timestep; `rewards[t]` follows `actions[t]`.

    Attributes:
        observations: (T, N) float32. actions: (T, M) float32 in [-1, 1]. rewards: (T,) float32.
        terminations, truncations: (T,) bool, true at an episode's last row only.
        episode_starts: (E + 1,) int64; episode e is rows [episode_starts[e], episode_starts[e +
        1]).
        behaviour_id: (T,) int64, which policy acted. behaviour_logp: (T,) float32, its log density
            (log probability where actions are discrete) of the logged action.
        behaviour_action: (T, M) float32, the action it would have taken without exploration noise.
        goal: (T, G) float32. simulator_state: (T, S) float32, enough to put the simulator back
            there.
        final_observations: (E, N) float32, what was seen after each episode's last action.
    """

    name: str
    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    episode_starts: NDArray[np.int64]
    behaviour_id: NDArray[np.int64] | None = None
    behaviour_logp: NDArray[np.float32] | None = None
    behaviour_action: NDArray[np.float32] | None = None
    goal: NDArray[np.float32] | None = None
    simulator_state: NDArray[np.float32] | None = None
    final_observations: NDArray[np.float32] | None = None

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Every array that is present, by name, in a fixed order."""
        every = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "name"}
        return {name: array for name, array in every.items() if array is not None}

    @property
    def num_episodes(self) -> int:
        return len(self.episode_starts) - 1

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Timesteps of each episode, (E,)."""
        return np.diff(self.episode_starts)

    @cached_property
    def timestep(self) -> NDArray[np.int64]:
        """Each row's index within its episode, (T,)."""
        return np.arange(len(self.rewards)) - np.repeat(self.episode_starts[:-1], self.lengths)

    @cached_property
    def returns(self) -> NDArray[np.float64]:
        """Undiscounted return of each episode, (E,)."""
        return np.add.reduceat(self.rewards.astype(np.float64), self.episode_starts[:-1])

    @cached_property
    def returns_to_go(self) -> NDArray[np.float32]:
        """Undiscounted sum of this row's and later rewards of its episode, (T,).

        Summed within each episode: a difference of sums over all rows would lose the digits of a small
        one behind a large total.
        """
        found = self.rewards.astype(np.float64)
        ends = self.episode_starts[1:]
        if self.num_episodes < self.lengths.max():
            for start, end in zip(self.episode_starts[:-1], ends, strict=True):
                found[start:end] = np.cumsum(found[start:end][::-1])[::-1]
        else:
            for back in range(2, int(self.lengths.max()) + 1):  # from the end, all episodes at once
                rows = (ends - back)[self.lengths >= back]
                found[rows] += found[rows + 1]
        return found.astype(np.float32)

    @cached_property
    def content_hash(self) -> str:
        """16 hex digits over the names, types, shapes and bytes of all arrays."""
        digest = hashlib.sha256()
        for name, array in self.arrays.items():
            digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    def select(self, episodes: np.ndarray | list[int]) -> Trajectories:
        """The given episodes, in the given order.

        Raises UserError when an index is out of range or none is given.
        """
        chosen = np.asarray(episodes, dtype=np.int64)
        bad = chosen[(chosen < 0) | (chosen >= self.num_episodes)]
        if len(bad) or not len(chosen):
            found = f"episode {bad[0]}" if len(bad) else "no episode"
            raise UserError(
                f"{self.name}: {found} was selected; allowed: one or more of 0 to"
                f" {self.num_episodes - 1}."
            )
        lengths = self.lengths[chosen]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.arange(starts[-1]) + np.repeat(self.episode_starts[chosen] - starts[:-1], lengths)
        taken: dict[str, Any] = {
            name: array[chosen if name in PER_EPISODE else rows]
            for name, array in self.arrays.items()
            if name != "episode_starts"
        }
        return replace(self, **taken, episode_starts=starts)

    def observe(self, coordinates: list[int], name: str) -> Trajectories:
        """The same trajectories with only some coordinates of the observation shown."""
        last = self.final_observations
        return replace(
            self,
            name=name,
            observations=np.ascontiguousarray(self.observations[:, coordinates]),
            final_observations=None if last is None else np.ascontiguousarray(last[:, coordinates]),
        )

    def validate(self) -> Trajectories:
        """Returns itself; raises UserError naming the array, the row and the broken rule."""
        for name, (dtype, axes) in {**REQUIRED, **OPTIONAL}.items():
            array = getattr(self, name)
            if array is not None:
                self._check_type(name, array, dtype, axes)
        steps = len(self.observations)
        for name, array in self.arrays.items():
            if name not in PER_EPISODE and len(array) != steps:
                self._refuse(name, f"has {len(array)} rows; observations has {steps}")
            if array.dtype.kind == "f":
                self._check_rows(name, ~np.isfinite(array), "every value must be finite")
        self._check_offsets(steps)
        for name in ("actions", "behaviour_action"):
            array = getattr(self, name)
            if array is not None:
                outside = np.abs(array) > 1 + ACTION_TOLERANCE
                self._check_rows(name, outside, "actions must lie in [-1, 1]")
        inside = np.ones(steps, dtype=bool)
        inside[self.episode_starts[1:] - 1] = False
        for name in ("terminations", "truncations"):
            early = getattr(self, name) & inside
            self._check_rows(name, early, "only an episode's last row may be true")
        if self.behaviour_id is not None:
            self._check_rows("behaviour_id", self.behaviour_id < 0, "policy ids must be >= 0")
        if self.behaviour_action is not None and self.behaviour_action.shape != self.actions.shape:
            self._refuse(
                "behaviour_action",
                f"has shape {self.behaviour_action.shape}; actions has {self.actions.shape}",
            )
        if self.final_observations is not None:
            wanted = (self.num_episodes, self.observations.shape[1])
            if self.final_observations.shape != wanted:
                self._refuse(
                    "final_observations",
                    f"has shape {self.final_observations.shape}; {wanted} is needed",
                )
        return self

    def _check_type(self, name: str, array: object, dtype: type, axes: int) -> None:
        if not isinstance(array, np.ndarray) or array.dtype != np.dtype(dtype):
            found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            self._refuse(name, f"has type {found}; {np.dtype(dtype)} is needed")
        elif array.ndim != axes:
            self._refuse(name, f"has shape {array.shape}; {axes} axes are needed")
        elif axes == 2 and array.shape[1] == 0:
            self._refuse(name, f"has shape {array.shape}; at least one column is needed")

    def _check_offsets(self, steps: int) -> None:
        starts = self.episode_starts
        if len(starts) < 2:
            self._refuse("episode_starts", f"has {len(starts)} entries; at least 2 are needed")
        if starts[0] != 0:
            self._refuse("episode_starts", f"row 0 is {starts[0]}; it must be 0")
        if starts[-1] != steps:
            row = len(starts) - 1
            self._refuse("episode_starts", f"row {row} is {starts[-1]}; it must be {steps}")
        falling = np.flatnonzero(np.diff(starts) <= 0)
        if len(falling):
            row = int(falling[0]) + 1
            self._refuse(
                "episode_starts",
                f"row {row} is {starts[row]} after {starts[row - 1]}; offsets must increase",
            )

    def _check_rows(self, name: str, broken: np.ndarray, rule: str) -> None:
        if broken.any():
            where = np.argwhere(broken)[0]
            row, value = int(where[0]), getattr(self, name)[tuple(where)]
            column = f", column {int(where[1])}" if len(where) > 1 else ""
            self._refuse(name, f"row {row}{column} is {value}; {rule}")

    def _refuse(self, array: str, problem: str) -> None:
        raise UserError(f"{self.name}: {array} {problem}.")


def wanted_actions(trajectories: Trajectories) -> np.ndarray:
    """(T, M) noise-free actions of the acting controller where they are known, else the logged ones."""
    known = trajectories.behaviour_action
    return trajectories.actions if known is None else known


def action_variance(trajectories: Trajectories) -> float:
    """Variance of `wanted_actions`, averaged over dimensions; the unit of action errors."""
    return float(wanted_actions(trajectories).var(axis=0, dtype=np.float64).mean())
