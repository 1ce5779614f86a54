"""Data files of any format: HDF5 (D4RL, d3rlpy, robomimic), Minari's folders, pickles, .npz.

Three of them are written: D4RL's HDF5, Minari's folders, the Decision Transformer's pickles. Each holds
everything that Trajectories does, so that a set goes from any of them to any other and back unchanged.
What else a file holds (weights of the policy, other `infos`) isn't carried over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ablate.data.formats.base import Contents, one_line
from ablate.data.formats.hdf5 import inspect_hdf5, write_hdf5
from ablate.data.formats.hdf5_source import SIGNATURE
from ablate.data.formats.minari import (
    DATA,
    DATASET_ID,
    datasets_root,
    inspect_minari,
    misfit,
    write_minari,
)
from ablate.data.formats.npz import inspect_npz
from ablate.data.formats.pickles import GZIP, inspect_pickle, write_pickle
from ablate.data.reading import AS_IT_IS, Reading
from ablate.data.trajectories import OPTIONAL, Trajectories
from ablate.errors import UserError, unknown

FORMATS = ("hdf5", "minari", "pickle")  # that can be written
_READERS: dict[str, Callable[[Path, str | None, Reading], Contents]] = {
    "hdf5": inspect_hdf5,
    "minari": inspect_minari,
    "pickle": inspect_pickle,
    "npz": inspect_npz,
}


def detect(path: Path) -> str:
    """`hdf5`, `minari`, `pickle` (gzipped ones too) or `npz`, by what is at `path`, not by its name.

    Raises UserError when nothing is there or it is none of them.
    """
    if path.is_dir() or path.name == DATA.name:
        return "minari"
    if not path.is_file():  # a pipe would be waited for
        there = "is no file" if path.exists() else "there is no such file or folder"
        raise UserError(f"{path}: {there}.")
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError as error:
        raise UserError(f"{path}: can't be opened ({one_line(error)}).") from error
    if head == SIGNATURE:
        return "hdf5"
    # Protocols 2 to 5 begin with their number; before that, a list with "(l" or "]".
    if head[:2] == GZIP or head[:1] == b"\x80" or head[:1] == b"]" or head[:2] == b"(l":
        return "pickle"
    if head[:4] == b"PK\x03\x04":
        return "npz"
    raise UserError(
        f"{path}: it is none of the formats that can be read (HDF5 of D4RL, d3rlpy or robomimic, a Minari"
        " folder, a pickle of arrays, .npz); in Python, np.savez(FILE, observations=..., actions=...,"
        " rewards=..., terminals=..., timeouts=...), a row a step, makes one."
    )


def inspect(path: Path, name: str | None = None, reading: Reading = AS_IT_IS) -> Contents:
    """Trajectories with what the file says of itself, and `reading` of it.

    Raises UserError as the format's reader does.
    """
    found = _READERS[detect(path)](path, name, reading.of_file)
    about = dict(found.about)
    if reading.simulated is not None:
        about["environment"] = reading.environment if reading.simulated else ""
    if reading.random is not None and reading.expert is not None:
        about |= {"anchor_low": reading.random, "anchor_high": reading.expert}
        about["anchor_source"] = "random and expert returns, as given"
    return replace(found, about={key: value for key, value in about.items() if value != ""})


def read(path: Path, name: str | None = None, reading: Reading = AS_IT_IS) -> Trajectories:
    """Trajectories of a file or folder in any of FORMATS, which is told from its content.

    reading: what the file leaves open. Raises UserError, one line, as the format's reader does.
    """
    return inspect(path, name, reading).trajectories


def write(
    path: Path,
    trajectories: Trajectories,
    format: str,
    *,
    environment: str | None = None,
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a file (hdf5, pickle) or a folder (minari), whole or not at all.

    A Minari folder's name must be `name-vN`; below $MINARI_DATASETS_PATH the folders above it are the
    namespace. `environment` is a gymnasium id or the name of one of our data sets: where a policy
    trained on it is evaluated. `about` are numbers and texts to keep with it.

    Raises UserError when the format isn't known, `path` is there and isn't to be overwritten, the
    environment doesn't fit (minari) or it can't be written.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if path.exists() and not overwrite:
        raise UserError(f"{path}: is there already; say that it may be overwritten.")
    if format == "minari":
        root, dataset_id = _place(path)
        write_minari(root, dataset_id, trajectories, environment, about, overwrite)
        return
    kept = {**(about or {}), **({"environment": environment} if environment else {})}
    writer = write_hdf5 if format == "hdf5" else write_pickle
    writer(path, trajectories, kept)


def convert(
    source: Path,
    target: Path,
    format: str,
    *,
    reading: Reading = AS_IT_IS,
    overwrite: bool = False,
) -> list[str]:
    """Write what is at `source` to `target` in another format; returns remarks, a sentence each.

    Raises UserError as `read` and `write` do.
    """
    found = inspect(source, reading=reading)
    remarks = list(found.notes)
    about = {key: value for key, value in found.about.items() if _plain(value)}
    environment = about.get("environment")
    if format == "minari" and environment is not None:
        problem = misfit(found.trajectories, str(environment))
        if problem is not None:  # its name is kept, without a specification for Minari
            remarks.append(f"Minari can't make the environment again: {problem}")
            environment = None
    write(
        target,
        found.trajectories,
        format,
        environment=None if environment is None else str(environment),
        about=about,
        overwrite=overwrite,
    )
    return remarks


def check(path: Path, reading: Reading = AS_IT_IS) -> list[str]:
    """What is at `path`, in lines for people; the last one says what is wrong, or that nothing is."""
    lines = [f"{path}"]
    try:
        lines.append(f"format: {detect(path)}")
        found = inspect(path, reading=reading)
    except UserError as error:
        return [*lines, f"problem: {error}"]
    data = found.trajectories
    returns, lengths = data.returns, data.lengths
    named = [key for key in OPTIONAL if getattr(data, key) is not None]
    lines += [
        f"name: {data.name}",
        f"environment: {found.about.get('environment', 'not recorded')}",
        f"episodes: {data.num_episodes}, of {lengths.min()} to {lengths.max()} steps",
        f"steps: {len(data.rewards)}",
        f"ends: {data.terminations.sum()} terminations, {data.truncations.sum()} truncations",
        f"observation: {data.observations.shape[1]} numbers",
        f"action: {data.actions.shape[1]} numbers in [-1, 1]",
        "returns: min {:.3g}, median {:.3g}, max {:.3g}".format(
            *np.percentile(returns, [0, 50, 100])
        ),
        f"also known: {', '.join(named) or 'nothing'}",
        f"content: {data.content_hash}",
    ]
    lines += [f"note: {note}" for note in found.notes]
    return [*lines, "no problem found"]


def _place(path: Path) -> tuple[Path, str]:
    """The root and the dataset id of a Minari folder."""
    root = datasets_root().absolute()
    if path.absolute().is_relative_to(root):
        dataset_id = path.absolute().relative_to(root).as_posix()
        if DATASET_ID.fullmatch(dataset_id):
            return root, dataset_id
    return path.parent, path.name


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float)
