"""D4RL's HDF5 layout: flat arrays `observations`, `actions`, `rewards`, `terminals`, `timeouts`.

What D4RL's files hold beyond these is taken where Trajectories has a place for it: the last
`next_observations` of each episode as `final_observations`, `infos/qpos` and `infos/qvel` side by side
as `simulator_state`, `infos/action_log_probs` as `behaviour_logp`, `infos/goal` as `goal`.

Our own files carry the optional arrays under `infos/`, and as attributes what isn't a row a timestep
(the episodes' offsets, what is seen last): D4RL's loaders expect T rows of every array. The content
hash is an attribute too and is checked when the file is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from ablate.data.formats.base import Contents, printable, valid, whole
from ablate.data.formats.hdf5_source import Source, opened, shown
from ablate.data.reading import AS_IT_IS, Reading
from ablate.data.trajectories import OPTIONAL, PER_EPISODE, Trajectories
from ablate.errors import UserError

HASH = "content_hash"
_OURS = {"terminations": "terminals", "truncations": "timeouts"}
_PER_STEP = [name for name in OPTIONAL if name not in PER_EPISODE]

Timeouts = Literal["auto", "ends", "ignore"]


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
    *,
    timeouts: Timeouts = "auto",
    horizon: int | None = None,
) -> Trajectories:
    """Trajectories of a D4RL file, or of one of ours.

    In our files the episodes are as they were written and the options don't matter. In D4RL's an
    episode ends at each terminal and at each timeout; what is behind the last end is left out, as
    D4RL's `sequence_dataset` does, since its returns-to-go aren't known. At step 1,000 of a
    locomotion task D4RL writes a timeout and no terminal even where the robot also fell.

    Args:
        name: of the trajectories; by default the file's.
        timeouts: "ends": every timeout ends an episode. "ignore": none does. "auto": as "ends",
            except where they evidently don't: Adroit's human demonstrations (v0) flag a time limit
            at step 200 of each demonstration, which goes on until its terminal. Where every episode
            that `terminals` marks has exactly one timeout inside, across which the observation moves
            less than across any terminal, timeouts are dropped.
        horizon: steps after which an episode is cut where the file has no `timeouts` (version 0);
            None for no such limit.

    Raises UserError, one line, when the file is missing, isn't HDF5, is damaged, holds less than it
    declares, lacks an array, leads out of itself, isn't what our writer wrote or breaks a rule of
    Trajectories.validate.
    """
    return inspect_hdf5(path, name, timeouts=timeouts, horizon=horizon).trajectories


def inspect_hdf5(
    path: Path,
    name: str | None = None,
    reading: Reading = AS_IT_IS,
    *,
    timeouts: Timeouts = "auto",
    horizon: int | None = None,
) -> Contents:
    """As read_hdf5, with the file's attributes and the habits that were dealt with."""
    with opened(path) as source:
        about = source.attributes()
        arrays = _arrays(source)
    notes: list[str] = []
    label = name or _name(about, path)
    if HASH in about:
        found = valid(path, _ours(path, label, arrays, about))
        _check_hash(path, found, about)
    else:
        found = _d4rl(path, label, arrays, notes, timeouts, horizon)
        found = valid(path, found)
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
    """Every array of the file that we know what to do with, a row a timestep each."""
    path = source.path
    required = ["observations", "actions", "rewards", "terminals"]
    extras = ["qpos", "qvel", "action_log_probs", *_PER_STEP]
    found = {}
    for key in [*required, "timeouts", "next_observations", *(f"infos/{key}" for key in extras)]:
        array = source.read(key)
        if array is not None:
            found[key] = array
    for key in required:
        if key not in found:
            raise UserError(
                f"{path}: the array '{key}' is missing; found: {shown(source.keys()) or 'nothing'}."
            )
    if len({array.shape[:1] for array in found.values()}) != 1 or not found["rewards"].ndim:
        shapes = ", ".join(f"{key} {array.shape}" for key, array in found.items())
        raise UserError(f"{path}: the arrays differ in length: {shapes}.")
    return found


def _ours(
    path: Path, name: str, arrays: dict[str, np.ndarray], about: dict[str, Any]
) -> Trajectories:
    terminations = _flags(path, "terminals", arrays)
    truncations = _flags(path, "timeouts", arrays)
    starts = about.get("episode_starts")
    if starts is None:
        starts = np.concatenate([[0], np.flatnonzero(terminations | truncations) + 1])
    extras = {key: arrays[f"infos/{key}"] for key in _PER_STEP if f"infos/{key}" in arrays}
    last = about.get("final_observations")
    if last is not None:
        extras["final_observations"] = np.asarray(last)
    return Trajectories(
        name=name,
        observations=_cast(path, "observations", arrays["observations"], np.float32),
        actions=_cast(path, "actions", arrays["actions"], np.float32),
        rewards=_cast(path, "rewards", arrays["rewards"], np.float32),
        terminations=terminations,
        truncations=truncations,
        episode_starts=_cast(path, "episode_starts", np.asarray(starts), np.int64),
        **{key: _cast(path, key, array, OPTIONAL[key][0]) for key, array in extras.items()},
    )


def _d4rl(
    path: Path,
    name: str,
    arrays: dict[str, np.ndarray],
    notes: list[str],
    timeouts: Timeouts,
    horizon: int | None,
) -> Trajectories:
    terminations = _flags(path, "terminals", arrays)
    truncations = _flags(path, "timeouts", arrays)
    if timeouts == "ignore":
        truncations = np.zeros_like(truncations)
    elif timeouts == "auto" and _demonstrations(arrays["observations"], terminations, truncations):
        notes.append(
            f"{truncations.sum()} timeouts inside demonstrations that go on until their terminal"
            " were dropped"
        )
        truncations = np.zeros_like(truncations)
    if "timeouts" not in arrays:
        if horizon is not None:
            truncations = _cuts(terminations, horizon)
            notes.append(f"no timeouts (version 0): episodes were cut after {horizon} steps")
        else:
            notes.append("no timeouts (version 0): episodes end at terminals only")
    truncations &= ~terminations
    ends = np.flatnonzero(terminations | truncations)
    if not len(ends):
        raise UserError(f"{path}: neither 'terminals' nor 'timeouts' marks the end of an episode.")
    steps = int(ends[-1]) + 1
    if steps < len(terminations):
        notes.append(f"an unfinished episode of {len(terminations) - steps} steps was left out")
    if arrays["observations"].dtype == np.float64:
        notes.append("float64 numbers were rounded to float32")
    extras: dict[str, np.ndarray] = {}
    if "next_observations" in arrays:
        extras["final_observations"] = arrays["next_observations"][ends]
    for key in _PER_STEP:
        if f"infos/{key}" in arrays:
            extras[key] = arrays[f"infos/{key}"][:steps]
    if "infos/qpos" in arrays and "infos/qvel" in arrays and "simulator_state" not in extras:
        both = [arrays[key][:steps].reshape(steps, -1) for key in ("infos/qpos", "infos/qvel")]
        extras["simulator_state"] = np.concatenate(both, axis=1)
    if "infos/action_log_probs" in arrays and "behaviour_logp" not in extras:
        extras["behaviour_logp"] = _column(path, "infos/action_log_probs", arrays)[:steps]
    return Trajectories(
        name=name,
        observations=_cast(path, "observations", arrays["observations"][:steps], np.float32),
        actions=_cast(path, "actions", arrays["actions"][:steps], np.float32),
        rewards=_cast(path, "rewards", _column(path, "rewards", arrays)[:steps], np.float32),
        terminations=terminations[:steps],
        truncations=truncations[:steps],
        episode_starts=np.concatenate([[0], ends + 1]),
        **{key: _cast(path, key, array, OPTIONAL[key][0]) for key, array in extras.items()},
    )


def _demonstrations(
    observations: np.ndarray, terminations: np.ndarray, truncations: np.ndarray
) -> bool:
    """Whether timeouts lie inside demonstrations that go on behind them, one in each."""
    ends, limits = np.flatnonzero(terminations), np.flatnonzero(truncations & ~terminations)
    inside = len(ends) >= 2 and np.array_equal(np.searchsorted(ends, limits), np.arange(len(ends)))
    if not inside:
        return False
    rows = observations.reshape(len(observations), -1).astype(np.float64)
    jump = np.linalg.norm(np.diff(rows, axis=0), axis=1)  # (T - 1,)
    return bool(jump[limits].max() < jump[ends[:-1]].min())


def _cuts(terminations: np.ndarray, horizon: int) -> np.ndarray:
    """(T,) bool, true `horizon` steps after each start where no terminal came before."""
    ends = np.flatnonzero(terminations)
    starts = np.concatenate([[0], ends + 1])  # of the pieces between terminals
    piece = np.searchsorted(ends, np.arange(len(terminations)))
    return (np.arange(len(terminations)) - starts[piece]) % horizon == horizon - 1


def _flags(path: Path, key: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """(T,) bool; a column of zeros and ones of any type. All false when the file has none."""
    if key not in arrays:
        return np.zeros(len(arrays["rewards"]), dtype=bool)
    column = np.ascontiguousarray(_column(path, key, arrays))
    if column.dtype == np.bool_:
        return column
    strange = np.flatnonzero((column != 0) & (column != 1))
    if len(strange):
        row = int(strange[0])
        raise UserError(f"{path}: {key} row {row} is {column[row]}; only 0 and 1 are allowed.")
    return column.astype(bool)


def _column(path: Path, key: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """(T,) of an array that may have been written as (T, 1)."""
    array = arrays[key]
    if array.ndim == 2 and array.shape[1] == 1:
        return array[:, 0]
    if array.ndim != 1:
        raise UserError(f"{path}: '{key}' has shape {array.shape}; one number a row is needed.")
    return array


def _cast(path: Path, key: str, array: np.ndarray, dtype: type) -> np.ndarray:
    """Contiguous, of the type that Trajectories holds; validate() finds what doesn't fit into it."""
    if dtype is np.int64 and array.dtype.kind not in "iub":
        raise UserError(f"{path}: '{key}' has type {array.dtype}; whole numbers are needed.")
    with np.errstate(over="ignore"):  # becomes infinite, which validate() refuses
        return np.ascontiguousarray(array, dtype=dtype)


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
