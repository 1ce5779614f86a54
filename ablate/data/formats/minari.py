"""Minari's layout on disk, read and written through h5py alone.

A set is a folder `<root>/<namespace>/<name-vN>` with `data/main_data.hdf5`: a group `episode_<i>` each,
whose observations have one row more than its actions. What describes the set lies in
`data/metadata.json` (0.5), before that in the HDF5 file's attributes (0.4), and before that the spaces
were only in the environment (0.3).

Our own sets have float32 observations and actions in [-1, 1] (or Discrete and MultiDiscrete ones, where the
environment has them), the optional arrays under `infos`, and what Minari has no place for under the key "ablate"
of metadata.json.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np

from ablate import registry
from ablate.data.formats import minari_spaces
from ablate.data.formats.base import (
    ENVIRONMENT_ID,
    Contents,
    one_line,
    printable,
    refuse_changes,
    valid,
    whole,
)
from ablate.data.formats.hdf5_source import Source, opened
from ablate.data.formats.minari_spaces import Space
from ablate.data.formats.rows import PER_STEP, Rows, Task, assemble
from ablate.data.reading import AS_IT_IS, Reading
from ablate.data.trajectories import Trajectories
from ablate.errors import UserError

DATA = Path("data", "main_data.hdf5")
METADATA = "metadata.json"
LARGEST_METADATA = 1 << 26  # bytes; a set's description takes some kB
# Minari's names: (namespace/)name-vN, the namespace of at least two characters.
DATASET_ID = re.compile(r"(?:[-\w][-\w/]*[-\w]/)?[-\w]+-v\d+", re.ASCII)
# The oldest version with this layout: every 0.5 opens what says so.
MINARI_VERSION = "0.5.0"
OURS = "ablate"


@dataclass(frozen=True)
class Environment:
    """What `env_spec` names: `gymnasium.make(id, **kwargs)`, at most `horizon` steps long."""

    id: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    horizon: int | None = None


def read_minari(folder: Path, name: str | None = None) -> Trajectories:
    """Trajectories of a local Minari set (0.3 to 0.5, stored as HDF5).

    Observations are flattened in gymnasium's order, which is what `ablate.envs.gymnasium_env` shows;
    of a goal environment that is achieved_goal, desired_goal, observation, and `goal` is the
    desired goal. Box actions are rescaled from their bounds to [-1, 1]; discrete ones become one-hot,
    as +-1. `infos/qpos` and `infos/qvel`, where every episode has them from its reset on, are the
    simulator's state.

    Raises UserError, one line, when the set is missing, damaged or inconsistent, has spaces that
    can't become flat numbers (text, images) or breaks a rule of Trajectories.validate.
    """
    return inspect_minari(folder, name).trajectories


def inspect_minari(folder: Path, name: str | None = None, reading: Reading = AS_IT_IS) -> Contents:
    """As read_minari, with what the set says of itself and the habits that were dealt with."""
    path = _data_file(folder)
    notes: list[str] = []
    with opened(path) as source:
        metadata = _metadata(path, source)
        about = describe(path, metadata)
        label = name or about["name"]
        rows = _read(source, metadata, notes)
    ours = metadata.get(OURS)
    expected = ours.get("content_hash") if isinstance(ours, dict) else None
    if reading.map:
        raise UserError(f"{path}: a Minari set has its own names; there is nothing to map.")
    if expected is not None:
        refuse_changes(path, reading)
        reading = Reading(terminals="as-is")
    found = assemble(path, label, rows, reading, Task(reading), notes)
    if expected not in (None, found.content_hash):
        raise UserError(
            f"{path}: its content has changed since it was written (hash {found.content_hash},"
            f" expected {printable(str(expected))}); take 'content_hash' out of metadata.json if"
            " that is meant."
        )
    return Contents(valid(path, found), about, notes)


def read_metadata(folder: Path) -> dict[str, Any]:
    """What a local set says of itself (metadata.json, or the attributes of older sets)."""
    path = _data_file(folder)
    if (path.parent / METADATA).is_file():
        return _metadata(path, None)
    with opened(path) as source:
        return _metadata(path, source)


def describe(where: object, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """`Contents.about` of a set: its name, environment and the returns that score 0 and 100."""
    about: dict[str, Any] = {"name": printable(str(metadata.get("dataset_id", where)))}
    kept = metadata.get(OURS, {}).get("about")
    if isinstance(kept, dict):
        about.update({k: v for k, v in kept.items() if isinstance(v, str | int | float)})
        about["name"] = printable(str(about["name"]))
    if "environment" not in about:
        with contextlib.suppress(UserError):  # said where it is needed: when it is to be made
            about["environment"] = environment(where, metadata).id
    bounds = (metadata.get("ref_min_score"), metadata.get("ref_max_score"))
    if all(isinstance(each, int | float) and math.isfinite(each) for each in bounds):
        low, high = (float(each) for each in bounds)  # type: ignore[arg-type]
        if low < high:
            about |= {"anchor_low": low, "anchor_high": high}
            about["anchor_source"] = "Minari's reference scores (ref_min_score, ref_max_score)"
    return about


def environment(where: object, metadata: Mapping[str, Any]) -> Environment:
    """The environment that the set is evaluated in: `eval_env_spec`, else `env_spec`.

    Only its id, plain arguments and time limit are taken, never the class that a specification
    may name: whoever wrote the file would choose what is run. Raises UserError when there is none
    or it asks for more.
    """
    text = metadata.get("eval_env_spec") or metadata.get("env_spec")
    if text is None:
        raise UserError(f"{where}: no environment is recorded (no 'env_spec').")
    try:
        spec = json.loads(text) if isinstance(text, str) else text
        found, kwargs, horizon = spec["id"], spec.get("kwargs") or {}, spec.get("max_episode_steps")
        wrappers = [each["name"] for each in spec.get("additional_wrappers") or ()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{where}: 'env_spec' can't be understood ({type(error).__name__})."
        ) from error
    if not isinstance(found, str) or not ENVIRONMENT_ID.fullmatch(found):
        raise _no_id(where, found)
    # The adapter flattens observations and rescales actions itself.
    strange = [each for each in wrappers if each not in ("FlattenObservation", "RescaleAction")]
    if strange or not isinstance(kwargs, dict):
        what = f"the wrapper {printable(str(strange[0]), 60)}" if strange else "arguments"
        raise UserError(f"{where}: 'env_spec' asks for {what} that can't be given.")
    limited = isinstance(horizon, int) and horizon > 0
    kwargs = {str(key): value for key, value in kwargs.items() if key != "render_mode"}
    return Environment(found, kwargs, horizon if limited else None)


def write_minari(
    root: Path,
    dataset_id: str,
    trajectories: Trajectories,
    environment: str | None = None,
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a set that the `minari` package opens; returns its folder, `root`/`dataset_id`.

    Minari wants the observation after the last action. Where that isn't known the last observation is
    written once more, and metadata.json says so.

    Args:
        root: the folder that $MINARI_DATASETS_PATH names.
        dataset_id: `(namespace/)name-vN`.
        environment: a gymnasium id, whose specification is recorded so that Minari can make it again
            (with actions in [-1, 1] and flat observations, as in the data), or the name of one of our
            data sets, which is recorded for ourselves only.
        about: numbers and texts to keep, such as `anchor_low`.
        overwrite: replace a set that is already there.

    The set appears whole or not at all. Raises UserError when the id isn't one of Minari's, the set
    is there already, the environment doesn't fit the data or it can't be written.
    """
    if not DATASET_ID.fullmatch(dataset_id) or "//" in dataset_id:
        raise UserError(
            f"Minari: '{dataset_id}' is no dataset id; allowed: (namespace/)name-vN of letters,"
            " digits, '-' and '_'."
        )
    folder = root / dataset_id
    if folder.exists() and not overwrite:
        raise UserError(f"{folder}: is there already; say that it may be overwritten.")
    known = {"environment": environment} if environment else {}
    last = trajectories.final_observations
    metadata: dict[str, Any] = {
        "total_episodes": trajectories.num_episodes,
        "total_steps": len(trajectories.rewards),
        "data_format": "hdf5",
        **_spaces_and_spec(trajectories, environment),
        "dataset_id": dataset_id,
        "minari_version": MINARI_VERSION,
        OURS: {
            "about": {**(about or {}), "name": trajectories.name, **known},
            "content_hash": trajectories.content_hash,
            "final_observations": "recorded"
            if last is not None
            else "not known; last row repeated",
        },
    }
    actions, space = trajectories.actions, json.loads(metadata["action_space"])
    if space["type"] == "Discrete":
        actions = actions.argmax(axis=1)
    elif space["type"] == "MultiDiscrete":
        actions = np.stack([each.argmax(axis=1) for each in _groups(actions, space["nvec"])], 1)
    with whole(folder) as temporary:
        data = temporary / DATA
        data.parent.mkdir(parents=True)
        with h5py.File(data, "w", libver="v108") as file:
            for episode in range(trajectories.num_episodes):
                _write_episode(file, trajectories, episode, actions)
        metadata["dataset_size"] = round(data.stat().st_size / 1e6, 1)  # MB
        (data.parent / METADATA).write_text(json.dumps(metadata), encoding="utf-8")
    return folder


def datasets_root() -> Path:
    """Where Minari keeps its sets: $MINARI_DATASETS_PATH, by default ~/.minari/datasets."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def misfit(trajectories: Trajectories, environment: str) -> UserError | None:
    """Why write_minari would refuse this environment; None when it wouldn't."""
    try:
        _spaces_and_spec(trajectories, environment)
    except UserError as error:
        return error
    return None


def local_sets(root: Path) -> list[str]:
    """The ids of the sets below a folder, sorted; hidden folders are left out, as Minari does."""
    found = []

    def search(folder: Path, depth: int) -> None:
        try:
            inside = sorted(each for each in folder.iterdir() if each.is_dir())
        except OSError:
            return
        for each in inside:
            if (each / DATA).is_file():
                found.append(each.relative_to(root).as_posix())
            elif depth and not each.name.startswith("."):
                search(each, depth - 1)

    search(root, 8)
    return sorted(each for each in found if DATASET_ID.fullmatch(each))


def _data_file(folder: Path) -> Path:
    """The HDF5 file of a set's folder, of its `data` folder, or given itself."""
    for path in (folder / DATA, folder / DATA.name, folder):
        if path.is_file() and path.name == DATA.name:
            return path
    others = [
        each.name for each in (folder / "data").glob("*") if each.suffix in (".arrow", ".parquet")
    ]
    if (folder / "data" / METADATA).is_file() or others:
        raise UserError(f"{folder}: this Minari set isn't stored as HDF5, the only format allowed.")
    raise UserError(f"{folder}: there is no Minari set here (no {DATA.as_posix()}).")


def _metadata(path: Path, source: Source | None) -> dict[str, Any]:
    beside = path.parent / METADATA
    if not beside.is_file():
        return source.attributes() if source is not None else {}
    try:
        if beside.stat().st_size > LARGEST_METADATA:
            raise ValueError("too large")
        found = json.loads(beside.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("not a mapping")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{beside}: can't be understood ({one_line(error)}).") from error
    if not isinstance(found.get(OURS, {}), dict):
        raise UserError(f"{beside}: '{OURS}' must be a mapping.")
    if found.get("data_format", "hdf5") != "hdf5":
        raise UserError(
            f"{beside}: the format {printable(str(found['data_format']), 40)}; allowed: hdf5."
        )
    return found


def _read(source: Source, metadata: Mapping[str, Any], notes: list[str]) -> Rows:
    path = source.path
    names = {each for each in source.keys() if each.startswith("episode_")}  # noqa: SIM118
    count = len(names)
    said = metadata.get("total_episodes", count)
    if not count or said != count or names != {f"episode_{e}" for e in range(count)}:
        raise UserError(
            f"{path}: {count} episodes are there and {printable(str(said), 20)} are said to be;"
            " they must be numbered from 0."
        )
    seen, done, stored = _spaces(path, metadata, notes)
    parts: dict[str, list[np.ndarray]] = {}

    def keep(key: str, array: np.ndarray) -> None:
        parts.setdefault(key, []).append(array)

    for episode in range(count):
        group = f"episode_{episode}"
        where = f"{path}: {group}"
        read = _reader(source, group)
        rewards = read("rewards")
        steps = len(rewards) if rewards.ndim else 0
        if not steps or rewards.ndim != 1:
            raise UserError(
                f"{where}: 'rewards' has shape {rewards.shape}; a row a step is needed."
            )
        source.take((steps + 1) * (seen.width + done.width) * 8, where)
        flat = minari_spaces.observations(where, stored, "observations", read, steps + 1)
        keep("observations", flat[:-1])
        keep("final_observations", flat[-1:])
        keep("actions", minari_spaces.actions(where, done, "actions", read, steps))
        with np.errstate(over="ignore"):  # becomes infinite, which validate() refuses
            keep("rewards", rewards.astype(np.float32))
        for flags in ("terminations", "truncations"):
            keep(flags, _flags(where, flags, read(flags), steps))
        for extra, array in _extras(source, group, steps, OURS in metadata).items():
            keep(extra, array)
    lengths = [len(each) for each in parts["rewards"]]
    total = metadata.get("total_steps", sum(lengths))
    if total != sum(lengths):
        raise UserError(
            f"{path}: {sum(lengths)} steps are there and {printable(str(total), 20)} are said to be"
            " ('total_steps'): the set is incomplete, or its description is another's."
        )
    for key in [key for key in parts if len(parts[key]) != count]:
        notes.append(f"'{key}' was left out: not every episode has it")
        del parts[key]
    if metadata.get(OURS, {}).get("final_observations", "recorded") != "recorded":
        del parts["final_observations"]
    try:
        arrays = {key: np.concatenate(each) for key, each in parts.items()}
    except ValueError as error:
        raise UserError(f"{path}: episodes differ in shape ({one_line(error)}).") from error
    goal = _goal(seen)
    if goal is not None:
        arrays["goal"] = np.ascontiguousarray(arrays["observations"][:, goal])
    arrays["terminals"], arrays["timeouts"] = arrays.pop("terminations"), arrays.pop("truncations")
    final = arrays.pop("final_observations", None)
    return Rows(arrays, lengths, final=final, scaled=True, told=True)


def _reader(source: Source, group: str) -> Callable[[str], np.ndarray]:
    def read(key: str) -> np.ndarray:
        array = source.read(f"{group}/{key}")
        if array is None:
            raise UserError(f"{source.path}: the array '{group}/{key}' is missing.")
        return array

    return read


def _flags(where: str, key: str, array: np.ndarray, steps: int) -> np.ndarray:
    if array.shape != (steps,) or not ((array == 0) | (array == 1)).all():
        raise UserError(f"{where}: '{key}' must be {steps} truth values.")
    return array.astype(bool)


def _extras(source: Source, group: str, steps: int, ours: bool) -> dict[str, np.ndarray]:
    """Optional arrays under `infos`: in our sets by name, else the simulator's state."""
    if ours:
        found = {key: source.read(f"{group}/infos/{key}") for key in PER_STEP}
        return {key: array for key, array in found.items() if array is not None}
    both = [source.read(f"{group}/infos/{key}") for key in ("qpos", "qvel")]
    # One row more than actions: from the reset on, so that row t is before action t.
    if any(array is None or array.shape[:1] != (steps + 1,) for array in both):
        return {}
    flat = [array[:steps].reshape(steps, -1) for array in both if array is not None]
    return {"simulator_state": np.concatenate(flat, axis=1).astype(np.float32)}


def _goal(space: Space) -> slice | None:
    """Columns of the desired goal in the flattened observation of a goal environment."""
    start = 0
    for key, part in space.parts:
        if key == "desired_goal":
            return slice(start, start + part.width)
        start += part.width
    return None


def _spaces(
    path: Path, metadata: Mapping[str, Any], notes: list[str]
) -> tuple[Space, Space, Space]:
    """Of observations and actions, and of the observations as they are stored."""
    if "observation_space" in metadata and "action_space" in metadata:
        seen = minari_spaces.parse(f"{path}: observation_space", metadata["observation_space"])
        done = minari_spaces.parse(f"{path}: action_space", metadata["action_space"])
        stored = seen
    else:
        made = _make(f"{path}: it records no spaces (Minari 0.3)", environment(path, metadata).id)
        notes.append(f"the spaces are those of {environment(path, metadata).id} (Minari 0.3)")
        seen = _of_gymnasium(f"{path}: observation_space", made.observation_space)
        done = _of_gymnasium(f"{path}: action_space", made.action_space)
        made.close()
        flat = metadata.get("flatten_observation", False)
        stored = Space("Box", (seen.width,)) if flat and seen.parts else seen
    minari_spaces.check_actions(f"{path}: action_space", done)
    return seen, done, stored


def _of_gymnasium(where: str, space: gymnasium.Space[Any]) -> Space:
    return minari_spaces.parse(where, _as_json(space))


def _as_json(space: gymnasium.Space[Any]) -> dict[str, Any]:
    """A gymnasium space in Minari's words; other kinds by name, which parse() refuses."""
    spaces = gymnasium.spaces
    kind = type(space).__name__
    if isinstance(space, spaces.Box):
        bounds = {"low": space.low.tolist(), "high": space.high.tolist()}
        return {"type": "Box", "dtype": str(space.dtype), "shape": list(space.shape), **bounds}
    if isinstance(space, spaces.Discrete):
        start, n = int(space.start), int(space.n)
        return {"type": "Discrete", "dtype": "int64", "start": start, "n": n}
    if isinstance(space, spaces.MultiDiscrete):
        counts = {"nvec": space.nvec.tolist(), "start": space.start.tolist()}
        return {"type": kind, "dtype": str(space.dtype), **counts}
    if isinstance(space, spaces.MultiBinary):
        return {"type": kind, "n": np.asarray(space.n).tolist()}
    if isinstance(space, spaces.Dict):
        return {"type": kind, "subspaces": {k: _as_json(s) for k, s in space.spaces.items()}}
    if isinstance(space, spaces.Tuple):
        return {"type": kind, "subspaces": [_as_json(each) for each in space.spaces]}
    return {"type": kind}


def _make(why: str, env_id: str) -> gymnasium.Env[Any, Any]:
    """An environment out of gymnasium's registry, or gymnasium-robotics'."""
    from ablate.envs.gymnasium_env import quiet_mujoco  # imports the simulator

    if not ENVIRONMENT_ID.fullmatch(env_id):
        raise _no_id(why, env_id)
    try:
        with warnings.catch_warnings(), quiet_mujoco():
            warnings.simplefilter("ignore")  # of newer versions of the same task
            if env_id not in gymnasium.registry:
                importlib.import_module("gymnasium_robotics")  # registers its environments
            return gymnasium.make(env_id)
    except Exception as error:  # anybody's constructor
        raise UserError(
            f"{why}, and the environment '{printable(env_id, 60)}' can't be made here"
            f" ({one_line(error)})."
        ) from error


def _no_id(where: object, found: object) -> UserError:
    return UserError(
        f"{where}: the environment {printable(repr(found), 60)} is not allowed; allowed: an id in"
        " gymnasium's registry."
    )


def _spaces_and_spec(trajectories: Trajectories, environment: str | None) -> dict[str, str]:
    """`observation_space`, `action_space` and, of a gymnasium environment, `env_spec`, as JSON."""
    seen, done = trajectories.observations.shape[1], trajectories.actions.shape[1]
    spaces = gymnasium.spaces
    space: gymnasium.Space[Any] = spaces.Box(-1.0, 1.0, (done,), np.float32)
    found: dict[str, str] = {}
    if environment and environment.partition("/")[0] not in registry.names("data"):
        env = _make(f"Minari: actions and observations must fit '{environment}'", environment)
        wide = spaces.utils.flatdim(env.observation_space)
        own = spaces.utils.flatdim(env.action_space)
        if (wide, own) != (seen, done):
            raise UserError(
                f"Minari: '{environment}' observes {wide} numbers and acts with {own}; the data have"
                f" {seen} and {done}."
            )
        if isinstance(env.action_space, spaces.Discrete) and _one_hot(trajectories.actions):
            space = spaces.Discrete(own)
        if isinstance(env.action_space, spaces.MultiDiscrete):
            counts = env.action_space.nvec.ravel().tolist()
            if all(map(_one_hot, _groups(trajectories.actions, counts))):
                space = spaces.MultiDiscrete(counts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bounds that are rounded to float32
            if isinstance(env.action_space, spaces.Box) and env.action_space != space:
                env = gymnasium.wrappers.RescaleAction(env, -1.0, 1.0)  # type: ignore[arg-type]
            if env.observation_space.shape != (seen,):
                env = gymnasium.wrappers.FlattenObservation(env)
        assert env.spec is not None
        with contextlib.suppress(
            ValueError, TypeError
        ):  # made by a class or a function, not by a name
            found["env_spec"] = env.spec.to_json()
        env.close()
    box = spaces.Box(-np.inf, np.inf, (seen,), np.float32)
    return {
        "observation_space": json.dumps(_as_json(box)),
        "action_space": json.dumps(_as_json(space)),
        **found,
    }


def _groups(actions: np.ndarray, counts: Sequence[int]) -> list[np.ndarray]:
    """Actions (T, M) by the groups of choices that they are one-hot in."""
    return np.split(actions, np.cumsum(counts)[:-1], axis=1)


def _one_hot(actions: np.ndarray) -> bool:
    """Whether every action is one choice out of M, as +-1."""
    return bool((np.abs(actions) == 1).all() and ((actions == 1).sum(axis=1) == 1).all())


def _write_episode(
    file: h5py.File, trajectories: Trajectories, episode: int, actions: np.ndarray
) -> None:
    start, stop = (int(each) for each in trajectories.episode_starts[episode : episode + 2])
    rows = slice(start, stop)
    known = trajectories.final_observations
    last = trajectories.observations[stop - 1] if known is None else known[episode]
    rewards = trajectories.rewards[rows].astype(np.float64)
    group = file.create_group(f"episode_{episode}")
    group.attrs["id"] = episode
    group.attrs["total_steps"] = stop - start
    for key in ("sum", "mean", "std", "min", "max"):
        group.attrs[f"rewards_{key}"] = getattr(rewards, key)()
    group["observations"] = np.concatenate([trajectories.observations[rows], last[None]])
    group["actions"] = actions[rows]
    group["rewards"] = rewards
    group["terminations"] = trajectories.terminations[rows]
    group["truncations"] = trajectories.truncations[rows]
    infos = group.create_group("infos")
    for key in PER_STEP:
        array = getattr(trajectories, key)
        if array is not None:
            infos[key] = array[rows]
