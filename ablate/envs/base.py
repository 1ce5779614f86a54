"""The interface of an environment that runs a batch of episodes, one call a step.

Row b of every array depends on `seeds[b]` and on the actions of row b only, never on the batch it
stands in, so that any batching of the same seeds gives the same episodes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ablate.errors import UserError

Floats = NDArray[np.float32]
Info = dict[str, np.ndarray]
Step = tuple[Floats, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Info]


@dataclass(frozen=True, eq=False)
class State:
    """Where n episodes stand and what is still to come of their noise: a copy, which nothing changes.

    Attributes:
        kind: the class of the environment that it was taken from.
        own: (n, ...) arrays by name.
        inner: for a wrapper, the state of the environment that it wraps.
    """

    kind: str
    own: dict[str, np.ndarray]
    inner: State | None = None

    def __len__(self) -> int:
        """n."""
        return len(next(iter(self.own.values()))) if self.inner is None else len(self.inner)

    @classmethod
    def joined(cls, states: Sequence[State]) -> State:
        """The places of several states of one environment, in order."""
        own = {name: np.concatenate([each.own[name] for each in states]) for name in states[0].own}
        inner = [each.inner for each in states if each.inner is not None]
        return cls(states[0].kind, own, cls.joined(inner) if inner else None)

    def take(self, places: Sequence[int] | np.ndarray) -> State:
        """The states at `places`, in that order; a place that is named twice is there twice."""
        at = np.asarray(places, dtype=np.int64)
        inner = None if self.inner is None else self.inner.take(at)
        return State(self.kind, {name: array[at] for name, array in self.own.items()}, inner)


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
    # Steps in which a small difference of two states grows e-fold where the same actions are done; None if unknown.
    lyapunov: float | None = None
    # Coordinates of the observation that chance draws anew, whatever was before and is done.
    chance: ClassVar[tuple[int, ...]] = ()

    @abstractmethod
    def reset(self, seeds: Sequence[int]) -> Floats:
        """Start one episode a seed; returns observations (B, N)."""

    @abstractmethod
    def step(self, actions: np.ndarray) -> Step:
        """Advance every episode that isn't done by one step.

        Returns observations (B, N) float32, rewards (B,) float64, terminations (B,) bool,
        truncations (B,) bool and `info`, a dict of (B,) arrays (e.g. `success`, so far).
        """

    def state(self) -> State:
        """Where every episode stands, its noise to come included.

        Raises UserError where an environment can't tell, and before the first reset.
        """
        raise UserError(f"{type(self).__name__}: its state can't be taken or set.")

    def set_state(self, state: State, places: Sequence[int] | np.ndarray | None = None) -> Floats:
        """Lay states into `places`, one each (None: into all); returns what is seen now, (B, N).

        From there on the same actions give the same observations, rewards and endings, to the last bit.
        `state.take` says which states are laid: to go on sixteen times from where the third episode stands,
        `env.set_state(state.take([2] * 16))`. States of different timesteps may stand side by side.

        Raises UserError when places and states don't match, or the state isn't this environment's.
        """
        raise UserError(f"{type(self).__name__}: its state can't be taken or set.")

    def full_observation(self) -> Floats:
        """What would be seen now if nothing were hidden, (B, N_full); rows as `step` returns them.

        Raises UserError where an environment doesn't say; only privileged behaviour asks.
        """
        raise UserError(f"{type(self).__name__}: what it hides isn't known.")

    def simulator_state(self) -> NDArray[np.float64] | None:
        """(B, S), enough to put the simulator back here (MuJoCo: qpos, then qvel); None if unknown."""
        return None

    def set_simulator_state(self, states: np.ndarray, goals: np.ndarray | None = None) -> Floats:
        """Put every episode, begun by `reset`, into states (B, S) as `simulator_state` gives them; what is seen there.

        goals: (B, G), of a task that has some. The timestep and the noise to come stay as they are. Raises UserError
        where an environment can't, and for another shape.
        """
        raise UserError(f"{type(self).__name__}: a simulator state can't be set.")

    def placed(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray | None] | None:
        """What `set_simulator_state` takes, states (..., S) and goals, so that observations (..., N) would be seen;
        None where they don't tell."""
        return None

    def ways(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Which of several ways trajectories of observations (..., H, N) take, a number (...,), 0 for none, and which
        of them mix ways (...,) bool; None where no such ways are known."""
        return None

    def decisive(self) -> np.ndarray | None:
        """(B,) bool, whether what is done about now decides which way is taken; None where that isn't known."""
        return None

    def impossible(self, observations: np.ndarray) -> NDArray[np.bool_]:
        """Which observations (..., N) no state can give, (...,), as far as that is known here."""
        return np.zeros(np.shape(observations)[:-1], dtype=bool)

    def mujoco_model(self) -> Any:
        """The first episode's `mujoco.MjModel`, by which `simulator_state` can be drawn; else None."""
        return None

    def goals(self) -> Floats | None:
        """(B, G), what the task wants a part of the observation to become; None without goals."""
        return None


_BOOKS = ("_time", "_terminated", "_truncated", "_last")
_INFO = "info "  # what the names of what `step` tells begin with in a state


class SimulatedEnv(VectorEnv):
    """A VectorEnv that keeps the books (time, done rows) around `_start` and `_advance`.

    Attributes:
        per_place: names of the attributes (B, ...) that, with the books, make up where an episode stands;
            None where the state can't be taken. Random numbers still to come are among them.
    """

    per_place: ClassVar[tuple[str, ...] | None] = None
    # Steps taken: one number where all episodes that go on stand at one timestep, else (B,), which runs on
    # in places that are over (`_time` doesn't).
    _now: int | NDArray[np.int64]

    def __init__(self, num_envs: int, observation_dim: int, action_dim: int, horizon: int) -> None:
        if num_envs < 1:
            raise UserError(f"{type(self).__name__}: num_envs is {num_envs}; at least 1 is needed.")
        self.num_envs = num_envs
        self.observation_dim = observation_dim
        self.action_dim = action_dim
        self.horizon = horizon
        self._time: NDArray[np.int64] | None = None  # (B,), steps taken

    def reset(self, seeds: Sequence[int]) -> Floats:
        if len(seeds) != self.num_envs:
            raise UserError(
                f"{type(self).__name__}.reset: {len(seeds)} seeds for {self.num_envs} episodes;"
                " one seed an episode is needed."
            )
        self._time = np.zeros(self.num_envs, dtype=np.int64)
        self._now = 0
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
            self._time = self._time + alive
            self._now = self._now + 1
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

    def state(self) -> State:
        if self.per_place is None:
            return super().state()
        if self._time is None:
            raise UserError(f"{type(self).__name__}.state: call reset(seeds) first.")
        own = {name: getattr(self, name).copy() for name in (*_BOOKS, *self.per_place)}
        told = {_INFO + key: value.copy() for key, value in self._info.items()}
        return State(type(self).__name__, own | told | self._more_state())

    def set_state(self, state: State, places: Sequence[int] | np.ndarray | None = None) -> Floats:
        if self.per_place is None:
            return super().set_state(state, places)
        at = checked_places(self, state, places, started=self._time is not None)
        _lay(self, (*_BOOKS, *self.per_place), state, at)
        assert self._time is not None
        going = self._time[~(self._terminated | self._truncated)]
        # All at one timestep, as is usual, is faster than each at its own.
        alike = not len(going) or bool((going == going[0]).all())
        self._now = int(going[0] if len(going) else self._time.max()) if alike else self._time
        self._lay_more(state, at)
        old: Info = getattr(self, "_info", {})
        told = {
            name.removeprefix(_INFO): value
            for name, value in state.own.items()
            if name.startswith(_INFO)
        }
        # What isn't told there belongs to places that go on: their next step tells it.
        self._info = old | {key: laid(self, key, told[key], at, old.get(key)) for key in told}
        return self._last.copy()

    def set_simulator_state(self, states: np.ndarray, goals: np.ndarray | None = None) -> Floats:
        now = self.simulator_state()
        if now is not None and np.shape(states) != now.shape:
            raise UserError(
                f"{type(self).__name__}.set_simulator_state: found shape {np.shape(states)}; {now.shape} is needed."
            )
        seen = self._lay_simulator_state(np.array(states, dtype=np.float64), goals)
        self._last = seen.astype(np.float32)
        return self._last.copy()

    def _lay_simulator_state(self, states: np.ndarray, goals: np.ndarray | None) -> np.ndarray:
        """Put the episodes into states (B, S); returns observations (B, N). Raises UserError where that can't be."""
        return super().set_simulator_state(states, goals)

    def _more_state(self) -> dict[str, np.ndarray]:
        """What belongs to the state and isn't an attribute (B, ...), as such arrays by name."""
        return {}

    def _lay_more(self, state: State, places: np.ndarray) -> None:
        """Lay what `_more_state` gave into the places (n,)."""

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
    """Another environment, passed through; a subclass changes what is seen or done.

    per_place: names of the wrapper's own attributes (B, ...) that its episodes depend on.
    """

    per_place: ClassVar[tuple[str, ...]] = ()

    def __init__(self, env: VectorEnv) -> None:
        self.env = env
        self.num_envs = env.num_envs
        self.observation_dim = env.observation_dim
        self.action_dim = env.action_dim
        self.horizon = env.horizon
        self.lyapunov = env.lyapunov

    def reset(self, seeds: Sequence[int]) -> Floats:
        return self.env.reset(seeds)

    def step(self, actions: np.ndarray) -> Step:
        return self.env.step(actions)

    def state(self) -> State:
        inner = self.env.state()
        own = {name: getattr(self, name).copy() for name in self.per_place}
        return State(type(self).__name__, own | self._more_state(), inner)

    def set_state(self, state: State, places: Sequence[int] | np.ndarray | None = None) -> Floats:
        started = all(getattr(self, name, None) is not None for name in self.per_place)
        at = checked_places(self, state, places, started)
        if state.inner is None:
            raise _foreign(self, state)
        seen = self.env.set_state(state.inner, places)
        _lay(self, self.per_place, state, at)
        self._lay_more(state, at)
        return self._shown_of(seen)

    def _more_state(self) -> dict[str, np.ndarray]:
        """As `SimulatedEnv._more_state`."""
        return {}

    def _lay_more(self, state: State, places: np.ndarray) -> None:
        """As `SimulatedEnv._lay_more`."""

    def _shown_of(self, observations: Floats) -> Floats:
        """What this wrapper shows of the environment's observations (B, N)."""
        return observations

    def full_observation(self) -> Floats:
        return self.env.full_observation()

    def simulator_state(self) -> NDArray[np.float64] | None:
        return self.env.simulator_state()

    def set_simulator_state(self, states: np.ndarray, goals: np.ndarray | None = None) -> Floats:
        return self._shown_of(self.env.set_simulator_state(states, goals))

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
        return self._shown_of(self.env.reset(seeds))

    def step(self, actions: np.ndarray) -> Step:
        observations, *rest = self.env.step(actions)
        return self._shown_of(observations), *rest  # type: ignore[return-value]

    def _shown_of(self, observations: Floats) -> Floats:
        return observations[:, self.observable]


def pick(array: np.ndarray, index: int | np.ndarray) -> np.ndarray:
    """array[b, index[b]] of every place b, or array[:, index] for one number: (B, T, ...) -> (B, ...).

    A place whose index is beyond T is over, and gets the last.
    """
    if isinstance(index, int):
        same: np.ndarray = array[:, index]
        return same
    found: np.ndarray = array[np.arange(len(array)), np.minimum(index, array.shape[1] - 1)]
    return found


def checked_places(
    env: VectorEnv, state: State, places: Sequence[int] | np.ndarray | None, started: bool
) -> NDArray[np.int64]:
    """The places (n,) into which the n states are laid.

    started: whether every place of `env` has a state already. Raises UserError as `set_state` does.
    """
    where = f"{type(env).__name__}.set_state"
    if state.kind != type(env).__name__:
        raise _foreign(env, state)
    at = np.arange(env.num_envs) if places is None else np.asarray(places, dtype=np.int64)
    if at.shape != (len(state),):
        raise UserError(
            f"{where}: {len(state)} states for {at.size} places; one state a place is needed."
        )
    if len(np.unique(at)) != len(at) or (len(at) and not 0 <= at.min() <= at.max() < env.num_envs):
        raise UserError(
            f"{where}: places are {at.tolist()}; allowed: different ones from 0 to {env.num_envs - 1}."
        )
    if not started and len(at) < env.num_envs:
        raise UserError(f"{where}: call reset(seeds) first, or lay a state into every place.")
    return at


def laid(
    env: VectorEnv, name: str, new: np.ndarray, places: np.ndarray, old: np.ndarray | None
) -> np.ndarray:
    """`old` (B, ...) with `new` (n, ...) at `places`; zeros elsewhere where there is no old."""
    shape = (env.num_envs, *new.shape[1:])
    if old is not None and old.shape != shape:
        raise UserError(
            f"{type(env).__name__}.set_state: {name} has shape {new.shape[1:]} in the state and"
            f" {old.shape[1:]} here; the state must be that of such an environment."
        )
    whole = np.zeros(shape, new.dtype) if old is None else old.copy()
    whole[places] = new
    return whole


def _lay(env: VectorEnv, names: Sequence[str], state: State, places: np.ndarray) -> None:
    """Lay the arrays of those names into the attributes of `env`: all of them, or none on an error."""
    whole = {
        name: laid(env, name, state.own[name], places, getattr(env, name, None)) for name in names
    }
    for name, array in whole.items():
        setattr(env, name, array)


def _foreign(env: VectorEnv, state: State) -> UserError:
    return UserError(
        f"{type(env).__name__}.set_state: the state is that of {state.kind}; allowed: one of"
        f" {type(env).__name__}."
    )


def checked_actions(
    env: VectorEnv, actions: np.ndarray, time: NDArray[np.int64] | None
) -> np.ndarray:
    """The actions (B, M) given to `env` at steps `time` (B,) (None before the first reset), as an array.

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
        raise UserError(f"{where}: the action of row {row} is not finite at step {time[row]}.")
    return actions


def episode_rng(seed: int, tag: int) -> np.random.Generator:
    """The random numbers of one episode: a function of its own seed and the environment's tag."""
    return np.random.default_rng(np.random.SeedSequence([seed, tag]))
