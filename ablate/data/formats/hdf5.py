"""D4RL's HDF5 layout: flat arrays `observations`, `actions`, `rewards`, `terminals`, `timeouts`.

Our own files carry more, where D4RL keeps such things: `infos/qpos`-like extras under `infos/`, the
episode offsets as `infos/episode_starts`, and the content hash and the anchors as attributes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ablate.data.trajectories import OPTIONAL, PER_EPISODE, Trajectories
from ablate.errors import UserError

_D4RL = {"terminations": "terminals", "truncations": "timeouts"}
HASH = "content_hash"


def write_hdf5(
    path: Path, trajectories: Trajectories, attributes: Mapping[str, Any] | None = None
) -> None:
    """Write trajectories so that D4RL's own loaders can read them, with the extra fields we know.

    The file appears whole or not at all. Raises UserError when it can't be written (disk full, no
    permission).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(temporary, "w") as file:
            for name, array in trajectories.arrays.items():
                extra = name in OPTIONAL or name == "episode_starts"
                key = f"infos/{name}" if extra else _D4RL.get(name, name)
                file.create_dataset(key, data=array)
            file.attrs["name"] = trajectories.name
            file.attrs[HASH] = trajectories.content_hash
            for key, value in (attributes or {}).items():
                file.attrs[key] = value
        os.replace(temporary, path)
    except OSError as error:
        full = error.errno == errno.ENOSPC or "No space left" in str(error)
        reason = "no space left on device" if full else _one_line(error)
        raise UserError(f"{path}: can't be written ({reason}).") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_hdf5(path: Path, name: str | None = None) -> Trajectories:
    """Trajectories of a D4RL file, or of one of ours.

    Episodes are taken from `infos/episode_starts` where present (our files), else they end at
    `terminals` or `timeouts`. Two habits of D4RL's files are dealt with:

    - An unfinished piece at the end is left out, as D4RL's `sequence_dataset` does: its
      returns-to-go aren't known.
    - Adroit's human demonstrations (v0) flag a time limit at step 200 of each demonstration, which
      goes on until its terminal. Where every episode that `terminals` marks has exactly one timeout
      inside, across which the observation moves less than across any terminal, timeouts end no
      episode, and they are dropped.

    Raises UserError, one line, when the file is missing, isn't HDF5, is truncated, lacks an array
    or breaks a rule of Trajectories.validate.
    """
    label = name or path.name
    return _read(path, label)[0].validate()


def read_own(path: Path) -> tuple[Trajectories, dict[str, Any]]:
    """One of our files with its attributes, its content checked against the stored hash.

    Raises UserError as read_hdf5 does, and when the content isn't what was written.
    """
    trajectories, attributes = _read(path, None)
    if attributes.get(HASH) != trajectories.content_hash:
        raise UserError(
            f"{path}: its content has changed since it was written (hash"
            f" {trajectories.content_hash}, expected {attributes.get(HASH)})."
        )
    return trajectories, attributes


def _read(path: Path, label: str | None) -> tuple[Trajectories, dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"{path}: there is no such file.")
    try:
        with h5py.File(path, "r") as file:
            attributes = dict(file.attrs)
            wanted = ["observations", "actions", "rewards", "terminals", "timeouts"]
            wanted += [f"infos/{extra}" for extra in ("episode_starts", *OPTIONAL)]
            found = {
                key: file[key][()] for key in wanted if isinstance(file.get(key), h5py.Dataset)
            }
            keys = ", ".join(sorted(file))
    except (OSError, RuntimeError, KeyError) as error:
        raise UserError(
            f"{path}: can't be read as HDF5, it is damaged or incomplete ({_one_line(error)})."
        ) from error
    for key in ("observations", "actions", "rewards", "terminals"):
        if key not in found:
            raise UserError(f"{path}: the array '{key}' is missing; found: {keys}.")
    rows = {
        np.shape(found[key])[:1] for key in found if key.removeprefix("infos/") not in PER_EPISODE
    }
    if len(rows) != 1 or () in rows:
        shapes = ", ".join(f"{key} {np.shape(found[key])}" for key in found)
        raise UserError(f"{path}: the arrays differ in length: {shapes}.")
    try:
        return _assemble(path, label or str(attributes.get("name", path.name)), found), attributes
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: an array isn't of numbers ({_one_line(error)}).") from error


def _assemble(path: Path, name: str, found: dict[str, np.ndarray]) -> Trajectories:
    terminals = found["terminals"].astype(bool).reshape(-1)
    timeouts = found.get("timeouts", np.zeros_like(terminals)).astype(bool).reshape(-1)
    steps = len(terminals)
    if "infos/episode_starts" in found:
        starts = found["infos/episode_starts"].astype(np.int64)
    else:
        starts, timeouts = _split(path, found["observations"], terminals, timeouts)
        steps = int(starts[-1])

    def take(key: str, dtype: type) -> np.ndarray:
        rows = len(starts) - 1 if key.removeprefix("infos/") in PER_EPISODE else steps
        return np.ascontiguousarray(found[key][:rows], dtype=dtype)

    extras = {
        extra: take(f"infos/{extra}", dtype)
        for extra, (dtype, _) in OPTIONAL.items()
        if f"infos/{extra}" in found
    }
    return Trajectories(
        name=name,
        observations=take("observations", np.float32),
        actions=take("actions", np.float32),
        rewards=take("rewards", np.float32).reshape(-1),
        terminations=terminals[:steps],
        truncations=(timeouts & ~terminals)[:steps],
        episode_starts=starts,
        **extras,
    )


def _split(
    path: Path, observations: np.ndarray, terminals: np.ndarray, timeouts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Episode offsets (E + 1,) and the timeouts (T,) that do end an episode."""
    if not (terminals | timeouts).any():
        raise UserError(f"{path}: neither 'terminals' nor 'timeouts' marks the end of an episode.")
    ends, limits = np.flatnonzero(terminals), np.flatnonzero(timeouts & ~terminals)
    if len(ends) >= 2 and np.array_equal(np.searchsorted(ends, limits), np.arange(len(ends))):
        # Exactly one timeout inside each episode; does the recording go on behind it?
        jump = np.linalg.norm(np.diff(observations, axis=0), axis=1)  # (T - 1,)
        if jump[limits].max() < jump[ends[:-1]].min():
            timeouts = np.zeros_like(timeouts)
    last = np.flatnonzero(terminals | timeouts)
    return np.concatenate([[0], last + 1]), timeouts


def _one_line(error: BaseException) -> str:
    text = str(error).splitlines()
    return text[0] if text else type(error).__name__
