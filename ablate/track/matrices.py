"""Scores as rliable takes them, {algorithm: runs x tasks}, and tables as JSON; nothing here runs code from a file.

A matrix (runs, tasks), or (runs, tasks, steps) with a score at every step, becomes rows with the columns
`ALGORITHM`, `TASK` (the place in the matrix, from 1), `RUN` and `SCORE`, and `STEP` (from 1). What these are called
in a study is the study's to say (`ablate.study.foreign`).
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablate.errors import UserError

ALGORITHM, TASK, RUN, SCORE, STEP = "algorithm", "task", "run", "score", "step"
_MOST = 1 << 30  # bytes of the arrays of a file
_SHAPE = "a matrix of runs x tasks (or runs x tasks x steps) of numbers"


def read(path: Path) -> tuple[pd.DataFrame, list[str], bool]:
    """The rows of a .npz, .npy, .json or .jsonl file, notes, and whether they were matrices.

    Raises UserError, in one line, for what is neither a table nor matrices."""
    if path.suffix.lower() in (".npz", ".npy"):
        return _rows(path, _arrays(path))
    content = _json(path)
    if isinstance(content, list) and all(isinstance(row, dict) for row in content):
        table = pd.DataFrame(content).astype(object)
        return table.where(table.notna(), None), [], False
    if not isinstance(content, dict) or not content:
        raise UserError(
            f"{path}: expected a list of rows, or a mapping from algorithm to {_SHAPE}."
        )
    if all(
        isinstance(column, dict) for column in content.values()
    ):  # as pandas writes it by default
        return pd.DataFrame(content).reset_index(drop=True).astype(object), [], False
    if all(isinstance(column, list) and not _nested(column) for column in content.values()):
        lengths = {len(column) for column in content.values()}
        if len(lengths) > 1:
            raise UserError(f"{path}: its columns have {min(lengths)} to {max(lengths)} rows.")
        return pd.DataFrame(content).astype(object), [], False
    found = {}
    for name, values in content.items():
        try:
            found[str(name)] = np.array(values, dtype=float)
        except (TypeError, ValueError):
            raise UserError(f"{path}: '{name}' isn't {_SHAPE}.") from None
    return _rows(path, found)


def _nested(column: list[Any]) -> bool:
    return any(isinstance(value, list) for value in column)


def _json(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        return json.loads(text)
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: it is not JSON ({first}).") from None


def _arrays(path: Path) -> dict[str, Any]:
    """The arrays of a file of NumPy's, by name."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(member.file_size for member in archive.infolist())
            if size > _MOST:
                raise UserError(f"{path}: its arrays take {size:,} bytes; allowed: {_MOST:,}.")
        loaded = np.load(path, allow_pickle=False, mmap_mode=None)
        if isinstance(loaded, np.ndarray):
            raise UserError(
                f"{path}: it holds a single array, and nothing says of which algorithm; save all of them by name: "
                "numpy.savez(FILE, **scores)."
            )
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except UserError:
        raise
    except Exception as error:  # zlib, zipfile and NumPy raise what they like on a damaged file
        first = (str(error).splitlines() or [type(error).__name__])[0]
        if "allow_pickle" in first or "Object arrays" in first:
            raise UserError(
                f"{path}: it holds Python objects, and reading them runs code; save the matrices by name: "
                "numpy.savez(FILE, **scores)."
            ) from None
        raise UserError(f"{path}: it is not a file of NumPy's arrays ({first}).") from None


def _rows(path: Path, arrays: Mapping[str, Any]) -> tuple[pd.DataFrame, list[str], bool]:
    """One row a number of the matrices."""
    parts = []
    tasks = {}
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu" or array.ndim not in (2, 3):
            shape = " x ".join(map(str, array.shape)) or "a single value"
            raise UserError(f"{path}: '{name}' holds {array.dtype} ({shape}); expected {_SHAPE}.")
        if array.size == 0:
            raise UserError(f"{path}: '{name}' is empty.")
        tasks[name] = array.shape[1]
        places = np.indices(array.shape).reshape(array.ndim, -1) + 1
        part = {
            ALGORITHM: name,
            TASK: places[1],
            RUN: places[0] - 1,
            SCORE: array.astype(float).ravel(),
        }
        parts.append(pd.DataFrame(part | ({STEP: places[2]} if array.ndim == 3 else {})))
    if not parts:
        raise UserError(f"{path}: it holds no array.")
    if len(set(tasks.values())) > 1:
        shown = ", ".join(f"{name} {count}" for name, count in list(tasks.items())[:4])
        raise UserError(f"{path}: the matrices have different numbers of tasks: {shown}.")
    if len({part.shape[1] for part in parts}) > 1:
        raise UserError(f"{path}: some matrices have steps and others don't.")
    runs = sorted({array.shape[0] for array in arrays.values()})
    shown = str(runs[0]) if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    note = f"{len(parts)} matrices of {shown} runs x {max(tasks.values())} tasks"
    return pd.concat(parts, ignore_index=True).astype(object), [note], True
