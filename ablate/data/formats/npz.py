"""numpy's .npz: an array a name, of all steps one after the other, by the names of D4RL's layout.

Read without unpickling, and without believing a size that is only declared.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from ablate.data.formats.base import Budget, Contents, one_line, printable, valid
from ablate.data.formats.rows import Rows, Several, Task, assemble, missing, named, side_by_side
from ablate.data.reading import AS_IT_IS, Reading
from ablate.errors import UserError

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def inspect_npz(path: Path, name: str | None = None, reading: Reading = AS_IT_IS) -> Contents:
    """Trajectories of an .npz, with the habits that were dealt with.

    Raises UserError, one line, when it is damaged, holds objects instead of numbers, lacks an array,
    leaves open what `reading` doesn't say or breaks a rule of Trajectories.validate.
    """
    notes: list[str] = []
    budget = Budget(path)
    try:
        with zipfile.ZipFile(path) as archive:
            keys = [
                each.removesuffix(".npy") for each in archive.namelist() if each.endswith(".npy")
            ]
            taken = named(path, {key: key for key in keys}, reading, notes)
            for key in ("observations", "actions", "rewards"):
                if key not in taken:
                    raise missing(path, key, keys or archive.namelist())
            if "terminals" not in taken and "timeouts" not in taken:
                raise missing(path, "terminals", keys)
            arrays = {}
            for ours, theirs in taken.items():
                several = theirs if isinstance(theirs, Several) else [theirs]
                read = [_array(path, archive, key, budget) for key in several]
                arrays[ours] = read[0] if len(read) == 1 else side_by_side(path, read)
    except UserError:
        raise
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, NotImplementedError) as error:
        raise _damaged(path, error) from error
    except (zipfile.BadZipFile, zlib.error, SyntaxError, TypeError, MemoryError) as error:
        raise _damaged(path, error) from error
    if len({array.shape[:1] for array in arrays.values()}) != 1 or not arrays["rewards"].ndim:
        shapes = ", ".join(f"{key} {array.shape}" for key, array in arrays.items())
        raise UserError(f"{path}: the arrays differ in length: {shapes}.")
    found = assemble(path, name or path.name, Rows(arrays), reading, Task(reading), notes)
    return Contents(valid(path, found), {"name": path.name}, notes)


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: can't be read as .npz, it is damaged or something else ({one_line(error)})."
    )


def _array(path: Path, archive: zipfile.ZipFile, key: str, budget: Budget) -> np.ndarray:
    info = archive.getinfo(f"{key}.npy")
    budget.take(2 * info.file_size, f"'{printable(key, 40)}'")
    with archive.open(info) as file:
        return _numbers(path, key, file, info.file_size)


def _numbers(path: Path, key: str, file: IO[bytes], size: int) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version}")
    shape, fortran, dtype = _HEADERS[version](file)
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise UserError(
            f"{path}: '{printable(key, 40)}' isn't of numbers ({printable(str(dtype), 40)}); write arrays of"
            " numbers, np.savez(FILE, observations=..., actions=..., rewards=..., terminals=...,"
            " timeouts=...), a row a step."
        )
    content = file.read(size)
    array = np.frombuffer(content, dtype=dtype).reshape(shape, order="F" if fortran else "C")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
