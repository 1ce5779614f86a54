"""HDF5 files: D4RL's layout, which ours is too, d3rlpy's and robomimic's.

D4RL's are flat arrays `observations`, `actions`, `rewards`, `terminals`, `timeouts`.

What D4RL's files hold beyond these is taken where Trajectories has a place for it: the last
`next_observations` of each episode as `final_observations`, `infos/qpos` and `infos/qvel` side by side
as `simulator_state`, `infos/action_log_probs` as `behaviour_logp`, `infos/goal` as `goal`.

Our own files carry the optional arrays under `infos/`, and as attributes what isn't a row a timestep
(the episodes' offsets, what is seen last): D4RL's loaders expect T rows of every array. The content
hash is an attribute too and is checked when the file is read.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ablate.data.formats.base import Contents, printable, refuse_changes, valid, whole
from ablate.data.formats.hdf5_source import Source, opened, shown
from ablate.data.formats.rows import (
    PER_STEP,
    Rows,
    Several,
    Task,
    Timeouts,
    assemble,
    cast,
    column,
    flags,
    joined,
    missing,
    named,
    side_by_side,
)
from ablate.data.reading import AS_IT_IS, Reading
from ablate.data.trajectories import OPTIONAL, PER_EPISODE, Trajectories
from ablate.errors import UserError

HASH = "content_hash"
_OURS = {"terminations": "terminals", "truncations": "timeouts"}
_REQUIRED = ("observations", "actions", "rewards", "terminals")
_GROUPS = ("obs", "next_obs", "observations", "next_observations")  # of parts of an observation


def write_hdf5(
    path: Path, trajectories: Trajectories, attributes: Mapping[str, Any] | None = None
) -> None:
    """Write trajectories so that D4RL's own loaders can read them, with the extra fields we know.

    `attributes` are numbers and texts. The file appears whole or not at all. Raises UserError when
    it can't be written (disk full, no permission).
    """
    # Version 1.8 of the format allows attributes of any size.
    with whole(path) as temporary, h5py.File(temporary, "w", libver="v108") as file:
        for name, array in trajectories.arrays.items():
            if name in PER_EPISODE:
                file.attrs[name] = array
            else:
                key = f"infos/{name}" if name in OPTIONAL else _OURS.get(name, name)
                file.create_dataset(key, data=array)
        about = {**(attributes or {}), "name": trajectories.name, HASH: trajectories.content_hash}
        for key, value in about.items():
            # Texts of fixed length lie in place; those of free length lie in a heap of their own.
            file.attrs[key] = np.bytes_(value.encode()) if isinstance(value, str) else value


def read_hdf5(
    path: Path,
    name: str | None = None,
    reading: Reading = AS_IT_IS,
    *,
    timeouts: Timeouts = "auto",
    published: bool = False,
) -> Trajectories:
    """Trajectories of one of our files, of D4RL's layout, of d3rlpy's (v1, v2) or of robomimic's.

    In our files the episodes are as they were written. In flat files (D4RL, d3rlpy v1) an episode ends
    at each terminal, at each timeout (d3rlpy: `episode_terminals`) and at the time limit; what is behind
    the last end is left out, as D4RL's `sequence_dataset` does, since its returns-to-go aren't known. At
    step 1,000 of a locomotion task D4RL writes a timeout and no terminal even where the robot also fell.
    The parts of an observation that lie in a group of their own (robomimic's `obs`) are put side by side
    in the order of their names, or in that of `reading.map`.

    Args:
        name: of the trajectories; by default the file's.
        reading: what the file leaves open.
        timeouts: "ends": every timeout ends an episode. "ignore": none does. "auto": as "ends",
            except where they evidently don't: Adroit's human demonstrations (v0) flag a time limit
            at step 200 of each demonstration, which goes on until its terminal. Where every episode
            that `terminals` marks has exactly one timeout inside, across which the observation moves
            less than across any terminal, timeouts are dropped.
        published: it is a file of D4RL's own: `reading.horizon` only ends episodes where it has no
            `timeouts` (version 0).

    Raises UserError, one line, when the file is missing, isn't HDF5, is damaged, holds less than it
    declares, lacks an array, leads out of itself, isn't what our writer wrote, leaves open what
    `reading` doesn't say or breaks a rule of Trajectories.validate.
    """
    return inspect_hdf5(path, name, reading, timeouts=timeouts, published=published).trajectories


def inspect_hdf5(
    path: Path,
    name: str | None = None,
    reading: Reading = AS_IT_IS,
    *,
    timeouts: Timeouts = "auto",
    published: bool = False,
) -> Contents:
    """As read_hdf5, with the file's attributes and the habits that were dealt with."""
    notes: list[str] = []
    with opened(path) as source:
        about = source.attributes()
        label = name or _name(about, path)
        if HASH in about:
            refuse_changes(path, reading)
            found = valid(path, _ours(path, label, _arrays(source), about))
            _check_hash(path, found, about)
        else:
            rows = _layout(source, reading, about, notes)
            task = Task(reading, about.get("environment"))
            how: dict[str, Any] = {"timeouts": timeouts, "published": published}
            found = valid(path, assemble(path, label, rows, reading, task, notes, **how))
    return Contents(found, {k: v for k, v in _plain(about).items() if k != HASH}, notes)


def read_own(path: Path) -> tuple[Trajectories, dict[str, Any]]:
    """One of our files with its attributes, its content checked against the stored hash.

    Raises UserError as read_hdf5 does, and when the content isn't what was written.
    """
    with opened(path) as source:
        about = source.attributes()
        arrays = _arrays(source)
    found = _ours(path, _name(about, path), arrays, about)
    _check_hash(path, found, about)
    return found, _plain(about)


def _arrays(source: Source) -> dict[str, np.ndarray]:
    """Every array of a file of ours, a row a timestep each."""
    found = {}
    for key in [*_REQUIRED, "timeouts", *(f"infos/{key}" for key in PER_STEP)]:
        array = source.read(key)
        if array is not None:
            found[key] = array
    for key in _REQUIRED:
        if key not in found:
            raise missing(source.path, key, source.keys())
    return found


def _ours(
    path: Path, name: str, arrays: dict[str, np.ndarray], about: dict[str, Any]
) -> Trajectories:
    terminations = flags(path, "terminals", arrays["terminals"])
    timeouts = arrays.get("timeouts")
    truncations = (
        np.zeros_like(terminations) if timeouts is None else flags(path, "timeouts", timeouts)
    )
    starts = about.get("episode_starts")
    if starts is None:
        starts = np.concatenate([[0], np.flatnonzero(terminations | truncations) + 1])
    extras = {key: arrays[f"infos/{key}"] for key in PER_STEP if f"infos/{key}" in arrays}
    last = about.get("final_observations")
    if last is not None:
        extras["final_observations"] = np.asarray(last)
    return Trajectories(
        name=name,
        observations=cast(path, "observations", arrays["observations"], np.float32),
        actions=cast(path, "actions", arrays["actions"], np.float32),
        rewards=cast(path, "rewards", arrays["rewards"], np.float32),
        terminations=terminations,
        truncations=truncations,
        episode_starts=cast(path, "episode_starts", np.asarray(starts), np.int64),
        **{key: cast(path, key, array, OPTIONAL[key][0]) for key, array in extras.items()},
    )


def _layout(source: Source, reading: Reading, about: dict[str, Any], notes: list[str]) -> Rows:
    """The arrays of a file of others', by what it holds."""
    demos = [key for key in source.keys("data") if re.fullmatch(r"demo_\d+", key)]
    if demos:
        return _robomimic(source, demos, reading, about, notes)
    if any(re.fullmatch(r"rewards_\d+", key) for key in source.keys()):  # noqa: SIM118
        return _d3rlpy(source, reading, notes)
    return _flat(source, reading, notes)


def _flat(source: Source, reading: Reading, notes: list[str]) -> Rows:
    """D4RL's layout, and d3rlpy's of version 1."""
    path, found = source.path, _take(source, "", reading, notes)
    whole = source.read("episode_terminals") if "timeouts" not in found else None
    if whole is not None and "terminals" in found and whole.shape[:1] == found["rewards"].shape[:1]:
        ends, terminals = (
            flags(path, key, each)
            for key, each in (("episode_terminals", whole), ("terminals", found["terminals"]))
        )
        found["timeouts"] = ends & ~terminals
    for key in PER_STEP:
        array = source.read(f"infos/{key}") if key not in found else None
        if array is not None:
            found[key] = array
    both = [source.read(f"infos/{key}") for key in ("qpos", "qvel")]
    density = source.read("infos/action_log_probs")
    others = {"infos/qpos": both[0], "infos/qvel": both[1], "infos/action_log_probs": density}
    every = {**found, **{key: each for key, each in others.items() if each is not None}}
    if len({array.shape[:1] for array in every.values()}) != 1 or not found["rewards"].ndim:
        shapes = ", ".join(f"{key} {array.shape}" for key, array in every.items())
        raise UserError(f"{path}: the arrays differ in length: {shapes}.")
    state = [each for each in both if each is not None]
    if len(state) == 2 and "simulator_state" not in found:
        found["simulator_state"] = side_by_side(path, state)
    if density is not None and "behaviour_logp" not in found:
        found["behaviour_logp"] = column(path, "infos/action_log_probs", density)
    discrete = source.read("discrete_action") if source.shape("discrete_action") == () else None
    return Rows(found, discrete=bool(discrete))


def _d3rlpy(source: Source, reading: Reading, notes: list[str]) -> Rows:
    """d3rlpy 2's ReplayBuffer.dump: `observations_0`, ..., of tuples `observations_0_0`, ...; an episode each."""
    path, keys = source.path, set(source.keys())
    count = sum(bool(re.fullmatch(r"rewards_\d+", key)) for key in keys)
    parts: dict[str, list[np.ndarray]] = {}
    for episode in range(count):
        columns: dict[str, Any] = {}
        for first in sorted(keys):
            match = re.fullmatch(r"(.+?)_0(_0)?", first)
            if match is None:
                continue
            one = f"{match[1]}_{episode}"
            several = [f"{one}_{part}" for part in range(len(keys)) if f"{one}_{part}" in keys]
            columns[match[1]] = Several(several) if match[2] else one
        if "terminated" in columns:
            columns["terminals"] = columns.pop("terminated")
        found = _read(source, f"{path}: episode {episode}", columns, reading, notes, apart=True)
        steps = len(found["rewards"]) if found["rewards"].ndim else 0
        if "terminals" in found and found["terminals"].ndim == 0:  # of the episode
            ended = found["terminals"]
            found["terminals"] = np.zeros(steps, dtype=ended.dtype)
            found["terminals"][-1:] = ended
        _keep(f"{path}: episode {episode}", parts, found)
    return joined(path, parts)


def _robomimic(
    source: Source, demos: list[str], reading: Reading, about: dict[str, Any], notes: list[str]
) -> Rows:
    """robomimic's: a group `data/demo_<i>` a demonstration, with a group `obs` of observations."""
    path = source.path
    parts: dict[str, list[np.ndarray]] = {}
    dropped = 0
    for demo in sorted(demos, key=lambda each: int(each.removeprefix("demo_"))):
        found = _take(source, f"data/{demo}", reading, notes)
        if "terminals" in found:
            ended = flags(path, "dones", found["terminals"])
            dropped += int(ended[:-1].sum())
            found["terminals"] = np.append(np.zeros_like(ended[:-1]), ended[-1:])
        _keep(f"{path}: {demo}", parts, found)
    if dropped:
        notes.append(f"{dropped} terminals inside demonstrations that go on were dropped")
    told = source.attributes("data").get("env_args")
    if isinstance(told, str):
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            made_in = json.loads(told)["env_name"]
            about["env_name"] = printable(str(made_in), 60)
            notes.append(f"recorded in robomimic's '{about['env_name']}'")
    return joined(path, parts)


def _take(source: Source, group: str, reading: Reading, notes: list[str]) -> dict[str, np.ndarray]:
    """Arrays of a group by our names."""
    found: dict[str, Any] = {}
    for key in source.keys(group):
        full = f"{group}/{key}" if group else key
        if source.is_link(full) or source.shape(full) is not None:
            found[key] = full
            continue
        inside = [f"{full}/{each}" for each in source.keys(full)]
        arrays = [each for each in inside if source.is_link(each) or source.shape(each) is not None]
        found.update({each.removeprefix(f"{group}/"): each for each in arrays})
        if key in _GROUPS:
            narrow = [
                each for each in arrays if source.is_link(each) or len(source.shape(each) or ()) < 3
            ]
            if narrow:
                found[key] = Several(narrow)
            if len(narrow) < len(arrays):
                note = f"images in '{key}' were left out"
                notes += [] if note in notes else [note]
    if group and "states" not in (*reading.map, *reading.map.values()):
        found.pop("states", None)  # robomimic's name for the simulator's
    where = f"{source.path}: {group}" if group else source.path
    return _read(source, where, found, reading, notes, apart=bool(group))


def _read(
    source: Source,
    where: object,
    found: dict[str, Any],
    reading: Reading,
    notes: list[str],
    apart: bool,
) -> dict[str, np.ndarray]:
    """The arrays that entries name by our names; `apart` where episodes are, whose ends need no flag."""
    taken = named(where, found, reading, notes)
    for key in _REQUIRED:
        ends = key == "terminals" and (apart or "timeouts" in taken)
        if key not in taken and not ends:
            raise missing(where, key, list(found))
    seen, after = taken["observations"], taken.get("next_observations")
    if isinstance(seen, Several):
        names = [each.rpartition("/")[2] for each in seen]
        note = f"observations are {shown(names)}, side by side"
        notes += [] if note in notes else [note]
        if isinstance(after, Several) and "next_observations" not in reading.map:
            same = {each.rpartition("/")[2]: each for each in after}
            if set(names) <= set(same):
                taken["next_observations"] = Several(same[each] for each in names)
            else:
                del taken["next_observations"]
    arrays = {}
    for ours, keys in taken.items():
        several = keys if isinstance(keys, Several) else [keys]
        read = [source.read(key) for key in several]
        present = [array for array in read if array is not None]
        if len(present) < len(several):
            raise missing(where, ours, list(found))
        arrays[ours] = present[0] if len(present) == 1 else side_by_side(where, present)
        if isinstance(keys, Several) and len(present) == 1:
            arrays[ours] = present[0].reshape(len(present[0]), -1)
    return arrays


def _keep(where: str, parts: dict[str, list[np.ndarray]], found: dict[str, np.ndarray]) -> None:
    """Put an episode's arrays behind those of the others."""
    if len({array.shape[:1] for array in found.values()}) != 1 or not found["rewards"].size:
        shapes = ", ".join(f"{key} {array.shape}" for key, array in found.items())
        raise UserError(f"{where}: the arrays differ in length or are empty: {shapes}.")
    if parts and set(parts) != set(found):
        raise UserError(f"{where} has other arrays than the episodes before.")
    for key, array in found.items():
        parts.setdefault(key, []).append(array)


def _check_hash(path: Path, found: Trajectories, about: dict[str, Any]) -> None:
    if about.get(HASH) != found.content_hash:
        raise UserError(
            f"{path}: its content has changed since it was written (hash {found.content_hash},"
            f" expected {printable(str(about.get(HASH)))})."
        )


def _name(about: dict[str, Any], path: Path) -> str:
    name = about.get("name")
    return printable(name) if isinstance(name, str) and name else path.name


def _plain(about: dict[str, Any]) -> dict[str, Any]:
    """The attributes that aren't arrays of ours."""
    return {key: value for key, value in about.items() if key not in PER_EPISODE}
