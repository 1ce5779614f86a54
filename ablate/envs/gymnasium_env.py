"""Any environment registered with gymnasium behind the vectorised interface.

Every row is a simulator of its own. What it is told and what it shows is turned into flat arrays:

- Actions: a bounded Box is rescaled from [-1, 1] to its bounds; Discrete and MultiDiscrete take one
  number a choice and do the largest of each group (data hold them one-hot, as +-1).
- Observations: flattened in gymnasium's own order (`gymnasium.spaces.utils.flatten`): Box as it is,
  discrete ones one-hot, Dict by key (goal environments: achieved_goal, desired_goal, observation).
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import importlib
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces

from ablate.envs.base import Info, SimulatedEnv, State
from ablate.errors import UserError

# Where environments report success in `info`: gymnasium-robotics, Fetch, D4RL's Adroit.
SUCCESS = ("success", "is_success", "goal_achieved")

ToAction = Callable[[np.ndarray], Any]


class Gymnasium(SimulatedEnv):
    """B episodes of the environment `env_id`, as `gymnasium.make(env_id, **kwargs)` makes it.

    horizon: the step at which an episode is truncated at the latest; None for the environment's own
    (`max_episode_steps`). An environment that truncates earlier by itself is heeded.
    `info["success"]` is "so far", where the environment reports it.

    Raises UserError when the id isn't known, the environment can't be made here, its spaces can't
    be flattened or no horizon is known; `state` does where a simulator can't be copied.
    """

    per_place: ClassVar[tuple[str, ...]] = ("_success", "_reports_success")

    def __init__(
        self, num_envs: int, env_id: str, horizon: int | None = None, **kwargs: Any
    ) -> None:
        limit = _spec(env_id).max_episode_steps
        horizon = limit if horizon is None else horizon
        if horizon is None:
            raise UserError(
                f"Gymnasium: '{env_id}' has no time limit of its own; give a horizon, in steps."
            )
        if horizon < 1:
            raise UserError(f"Gymnasium: the horizon of '{env_id}' is {horizon}; 1 or more.")
        self.env_id = env_id
        self._envs = [_make(env_id, kwargs) for _ in range(max(num_envs, 1))]
        self._space = self._envs[0].observation_space
        action_dim, self._to_action = _actions(env_id, self._envs[0].action_space)
        super().__init__(num_envs, _width(env_id, self._space), action_dim, horizon)
        self._mujoco = _in_mujoco(self._envs[0])

    def _start(self, seeds: list[int]) -> np.ndarray:
        self._success = np.zeros(self.num_envs, dtype=bool)
        self._reports_success = np.zeros(self.num_envs, dtype=bool)
        with quiet_mujoco():
            return np.stack(
                [self._flat(env.reset(seed=s)[0]) for env, s in zip(self._envs, seeds, strict=True)]
            )

    def _advance(
        self, actions: np.ndarray, alive: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Info]:
        observations = self._last.astype(np.float64)
        rewards = np.zeros(self.num_envs)
        terminations = np.zeros(self.num_envs, dtype=bool)
        with quiet_mujoco():
            for row in np.flatnonzero(alive):
                action = self._to_action(actions[row])
                seen, reward, terminated, truncated, info = self._envs[row].step(action)
                observations[row] = self._flat(seen)
                rewards[row] = float(reward)
                terminations[row] = terminated
                self._truncated[row] = truncated and not terminated
                for key in SUCCESS:
                    if key in info:
                        self._reports_success[row] = True
                        self._success[row] |= bool(info[key])
        return (
            observations,
            rewards,
            terminations,
            {"success": self._success.copy()} if self._reports_success.any() else {},
        )

    def mujoco_model(self) -> Any:
        return getattr(self._envs[0].unwrapped, "model") if self._mujoco else None  # noqa: B009

    def simulator_state(self) -> np.ndarray | None:
        """(B, S) qpos, then qvel, of a MuJoCo environment, else None.

        What an environment draws into its model at reset (the place of Adroit's door, a goal) is
        not in it.
        """
        if not self._mujoco:
            return None
        data: list[Any] = [getattr(env.unwrapped, "data") for env in self._envs]  # noqa: B009
        return np.stack([np.concatenate([each.qpos, each.qvel]) for each in data])

    def _more_state(self) -> dict[str, np.ndarray]:
        return {"simulators": snapshots(self._envs)}

    def _lay_more(self, state: State, places: np.ndarray) -> None:
        lay_snapshots(self._envs, state.own["simulators"], places)

    def _flat(self, observation: Any) -> np.ndarray:
        return np.asarray(spaces.utils.flatten(self._space, observation), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A gymnasium environment as it stands, ready to be laid into another one of its kind.

    A MuJoCo model is large and stays where it is; its numbers, some of which an environment may draw at
    reset, are kept, but for meshes and textures. The simulation is copied whole: the warm start of the solver
    belongs to it, and positions of bodies that are older than qpos by a substep.

    Attributes:
        env: the copy. numbers: (part of the model, name) -> value.
    """

    env: Any
    numbers: dict[tuple[str, str], Any]

    @classmethod
    def of(cls, env: Any) -> Snapshot:
        """Raises UserError when something in the environment can't be copied."""
        try:
            memo = {id(one): one for one in _common(env)}
            if _in_mujoco(env):
                data = mujoco.MjData(env.unwrapped.model)
                memo[id(env.unwrapped.data)] = data
                mujoco.mj_copyData(data, env.unwrapped.model, env.unwrapped.data)
            return cls(_copied(env, memo), _numbers(env))
        except Exception as error:  # anybody's objects
            raise UserError(
                f"{type(env.unwrapped).__name__}: its state can't be taken, for it can't be copied"
                f" ({_one_line(error)})."
            ) from error

    def laid_into(self, env: Any) -> Any:
        """The environment to take the place of `env`, whose model it goes on with."""
        pairs = zip(_common(self.env), _common(env), strict=True)
        memo = {id(theirs): ours for theirs, ours in pairs}
        if _in_mujoco(env):
            data = env.unwrapped.data
            memo[id(self.env.unwrapped.data)] = data
            mujoco.mj_copyData(data, env.unwrapped.model, self.env.unwrapped.data)
        made = _copied(self.env, memo)
        for (part, name), value in self.numbers.items():
            holder = _part(made, part)
            if isinstance(value, np.ndarray):
                getattr(holder, name)[...] = value
            else:
                setattr(holder, name, value)
        return made


def snapshots(envs: list[Any]) -> np.ndarray:
    """(B,) Snapshot, one of each environment."""
    found = np.empty(len(envs), dtype=object)
    found[:] = [Snapshot.of(env) for env in envs]
    return found


def lay_snapshots(envs: list[Any], found: np.ndarray, places: np.ndarray) -> None:
    """Put copies of the snapshots (n,) into the places (n,) of `envs`."""
    for place, snapshot in zip(places, found, strict=True):
        envs[place] = snapshot.laid_into(envs[place])


def _copied(env: Any, memo: dict[int, Any]) -> Any:
    """A deep copy, with what `memo` has in the place of what it names.

    Not `copy.deepcopy`: gymnasium's EzPickle would make a new environment, which forgets where it was.
    """
    made = memo[id(env)] = object.__new__(type(env))
    for value in vars(env).values():
        if isinstance(value, gymnasium.Env) and id(value) not in memo:
            _copied(value, memo)
    made.__dict__.update(copy.deepcopy(vars(env), memo))
    return made


def _common(env: Any) -> list[Any]:
    """What all environments of an id may share, or each keeps for itself: it isn't copied."""
    found = [env.observation_space, env.action_space, env.unwrapped.spec]
    return [*found, env.unwrapped.model] if _in_mujoco(env) else found


def _in_mujoco(env: Any) -> bool:
    inner = env.unwrapped
    return isinstance(getattr(inner, "model", None), mujoco.MjModel) and isinstance(
        getattr(inner, "data", None), mujoco.MjData
    )


# The parts of a model that hold numbers, and what the names of large ones begin with.
_PARTS = ("", "opt", "stat")
_LARGE = ("mesh_", "tex_", "hfield_", "skin_", "bvh_", "oct_", "flex_")


def _part(env: Any, part: str) -> Any:
    model = env.unwrapped.model
    return getattr(model, part) if part else model


def _numbers(env: Any) -> dict[tuple[str, str], Any]:
    """Copies of the real numbers of a MuJoCo environment's model; nothing of another's."""
    found: dict[tuple[str, str], Any] = {}
    if not _in_mujoco(env):
        return found
    for part in _PARTS:
        holder = _part(env, part)
        for name in dir(holder):
            if name.startswith(("_", *_LARGE)):
                continue
            value = getattr(holder, name)
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                found[part, name] = value.copy()
            elif isinstance(value, float):
                found[part, name] = value
    return found


@contextlib.contextmanager
def quiet_mujoco() -> Iterator[None]:
    """MuJoCo's warnings go nowhere; by default it writes MUJOCO_LOG.TXT into the current folder."""
    mujoco.set_mju_user_warning(lambda _: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(None)


def time_limit(env_id: str) -> int | None:
    """The step at which the environment ends an episode by itself; None where it doesn't.

    Raises UserError when the id isn't known.
    """
    found: int | None = _spec(env_id).max_episode_steps
    return found


def action_space(env_id: str) -> spaces.Space[Any]:
    """What the environment takes; raises UserError when it isn't known or can't be made here."""
    _spec(env_id)
    env = _make(env_id, {})
    try:
        return env.action_space
    finally:
        env.close()


def _spec(env_id: str) -> Any:
    """The registered specification; a package that registers it (package:id) is imported first.

    gymnasium-robotics is, too, when the id isn't known yet.
    """
    package, _, bare = env_id.rpartition(":")
    _import(package, env_id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of newer versions
        try:
            return gymnasium.spec(bare)
        except gymnasium.error.Error:
            _import("gymnasium_robotics", env_id)
        try:
            return gymnasium.spec(bare)
        except gymnasium.error.Error as error:
            near = difflib.get_close_matches(bare, list(gymnasium.registry), n=1, cutoff=0.4)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise UserError(
                f"Gymnasium: '{env_id}' is not registered ({_one_line(error)}); allowed: an id that"
                f" `gymnasium.make` knows, or package:id.{hint}"
            ) from error


def _import(package: str, env_id: str) -> None:
    if not package:
        return
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # gymnasium-robotics prints news of its own
            importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"Gymnasium: '{env_id}': the package {package} can't be imported"
            f" ({_one_line(error)}); install it."
        ) from error


def _make(env_id: str, kwargs: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    try:
        with warnings.catch_warnings(), quiet_mujoco():
            warnings.simplefilter("ignore")  # of newer versions, which changed the tasks
            # The time limit is ours: a horizon may be longer than the environment's own.
            return gymnasium.make(env_id, max_episode_steps=-1, disable_env_checker=True, **kwargs)
    except Exception as error:  # anybody's constructor
        silent = (
            "" if error.args else " without a message; perhaps its simulator's version is another"
        )
        raise UserError(
            f"Gymnasium: '{env_id}' can't be made here: {_one_line(error)}{silent}."
        ) from error


def _width(env_id: str, space: spaces.Space[Any]) -> int:
    """Numbers in a flattened observation."""
    try:
        return spaces.utils.flatdim(space)
    except (NotImplementedError, ValueError) as error:
        raise UserError(
            f"Gymnasium: '{env_id}' observes {space}, which has no fixed number of numbers; allowed:"
            " Box, Discrete, MultiDiscrete, MultiBinary, and Dict or Tuple of them."
        ) from error


def _actions(env_id: str, space: spaces.Space[Any]) -> tuple[int, ToAction]:
    """Numbers (M,) in an action, and what makes the environment's action of them."""
    if isinstance(space, spaces.Box) and space.dtype.kind == "f":
        low, high = (bound.astype(np.float64) for bound in (space.low, space.high))
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise UserError(
                f"Gymnasium: '{env_id}' takes actions without bounds ({space}); finite bounds are"
                " needed, since actions are given in [-1, 1]."
            )
        middle, half = (low + high) / 2, (high - low) / 2  # 0 and 1 leave actions untouched

        def box(action: np.ndarray) -> np.ndarray:
            scaled = middle + half * action.reshape(middle.shape)
            return np.clip(scaled, low, high).astype(space.dtype)

        return middle.size, box
    if isinstance(space, spaces.Discrete):
        first = int(space.start)
        return int(space.n), lambda action: first + int(action.argmax())
    if isinstance(space, spaces.MultiDiscrete):
        counts = space.nvec.ravel()
        ends = np.cumsum(counts)[:-1]

        def choices(action: np.ndarray) -> np.ndarray:
            best = np.array([group.argmax() for group in np.split(action, ends)])
            return (best.reshape(space.nvec.shape) + space.start).astype(space.dtype)

        return int(counts.sum()), choices
    raise UserError(
        f"Gymnasium: '{env_id}' takes actions of {space}; allowed: a Box of real numbers, Discrete"
        " or MultiDiscrete."
    )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(each) for each in error.args) if error.args else ""
    return f"{type(error).__name__}: {' '.join(text.split())}" if text else type(error).__name__
