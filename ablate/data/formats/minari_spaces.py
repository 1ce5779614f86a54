"""Minari's spaces: what its JSON says of observations and actions, and how they become flat numbers.

Observations are flattened in gymnasium's own order (`gymnasium.spaces.utils.flatten`), which is what
the environment adapter shows: discrete ones one-hot, Dict and Tuple part after part. Actions are
rescaled from their bounds to [-1, 1]; discrete ones are one-hot as +-1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablate.data.formats.base import printable
from ablate.errors import UserError

Leaf = Callable[[str], np.ndarray]  # reads the array at a key below a group, (rows, ...)
MOST_CHOICES = 1 << 16  # of a discrete space; one-hot columns of more are a mistake


@dataclass(frozen=True, eq=False)
class Space:
    """One space; `parts` are the named subspaces of a Dict (in its order) or of a Tuple.

    Attributes:
        kind: Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple.
        shape: of a Box or MultiBinary.
        low, high: bounds of a Box, flat, float64.
        counts, first: choices of each discrete coordinate, and the number of the first choice.
    """

    kind: str
    shape: tuple[int, ...] = ()
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    counts: np.ndarray | None = None
    first: np.ndarray | None = None
    parts: tuple[tuple[str, Space], ...] = ()

    @property
    def width(self) -> int:
        """Numbers in a flattened sample."""
        if self.parts:
            return sum(part.width for _, part in self.parts)
        return math.prod(self.shape) if self.counts is None else int(self.counts.sum())


def parse(where: str, text: object) -> Space:
    """The space that Minari's JSON describes; raises UserError for what can't become flat numbers."""
    try:
        return _parse(where, json.loads(text) if isinstance(text, str) else text)
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise UserError(
            f"{where}: can't be understood ({type(error).__name__}: {printable(str(error))})."
        ) from error


def observations(where: str, space: Space, key: str, read: Leaf, rows: int) -> np.ndarray:
    """(rows, width) float32, flattened; `read` gives the array at a key below the episode."""
    if space.parts:
        columns = [
            observations(where, part, f"{key}/{name}", read, rows) for name, part in space.parts
        ]
        return np.concatenate(columns, axis=1)
    array = _rows(where, key, read(key), rows)
    if space.counts is not None:
        return _one_hot(where, key, space, array)
    if array.shape[1] != space.width:
        raise UserError(
            f"{where}: '{key}' has {array.shape[1]} numbers a row; its space has {space.width}."
        )
    with np.errstate(over="ignore"):  # becomes infinite, which validate() refuses
        return array.astype(np.float32)


def actions(where: str, space: Space, key: str, read: Leaf, rows: int) -> np.ndarray:
    """(rows, M) float32 in [-1, 1]."""
    array = _rows(where, key, read(key), rows)
    if space.counts is not None:
        return 2 * _one_hot(where, key, space, array) - 1
    assert space.low is not None
    assert space.high is not None
    if array.shape[1] != space.width:
        raise UserError(
            f"{where}: '{key}' has {array.shape[1]} numbers a row; its space has {space.width}."
        )
    if (space.low == -1).all() and (space.high == 1).all():
        return array.astype(np.float32)
    middle, half = (space.low + space.high) / 2, (space.high - space.low) / 2
    with np.errstate(over="ignore", invalid="ignore"):
        return ((array - middle) / half).astype(np.float32)


def check_actions(where: str, space: Space) -> None:
    """Raises UserError unless the actions of this space can be given in [-1, 1]."""
    if space.counts is not None:
        return
    if space.kind != "Box" or space.low is None or space.high is None:
        raise UserError(f"{where}: actions of {space.kind}; allowed: Box, Discrete, MultiDiscrete.")
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise UserError(f"{where}: actions without bounds; finite bounds are needed.")
    if not (space.low < space.high).all():
        raise UserError(f"{where}: a lower bound of the actions isn't below the upper one.")


def _parse(where: str, found: Any) -> Space:
    kind = found["type"]
    if kind == "Box":
        shape = _shape(found["shape"])
        bounds = [np.asarray(found[side], dtype=np.float64) for side in ("low", "high")]
        if any(bound.shape != shape for bound in bounds):
            raise ValueError("the bounds differ in shape from the space")
        return Space(kind, shape, bounds[0].ravel(), bounds[1].ravel())
    if kind == "Discrete":
        return _discrete(kind, [found["n"]], [found.get("start", 0)])
    if kind == "MultiDiscrete":
        counts = np.asarray(found["nvec"]).ravel().tolist()
        first = np.asarray(found.get("start", [0] * len(counts))).ravel().tolist()
        return _discrete(kind, counts, first)
    if kind == "MultiBinary":
        return Space(kind, _shape(found["n"] if isinstance(found["n"], list) else [found["n"]]))
    if kind in ("Dict", "Tuple"):
        parts = found["subspaces"]
        if kind == "Tuple":
            parts = {f"_index_{index}": part for index, part in enumerate(parts)}
        if not parts or not all(name and "/" not in name for name in parts):
            raise ValueError(f"a {kind} without parts or with a part without a name")
        return Space(kind, parts=tuple((name, _parse(where, part)) for name, part in parts.items()))
    raise UserError(
        f"{where}: a space of type {printable(str(kind), 40)} has no fixed number of numbers;"
        " allowed: Box, Discrete, MultiDiscrete, MultiBinary, and Dict or Tuple of them."
    )


def _shape(found: Any) -> tuple[int, ...]:
    shape = tuple(int(size) for size in found)
    if any(size < 1 for size in shape):
        raise ValueError(f"shape {shape}")
    return shape


def _discrete(kind: str, counts: list[Any], first: list[Any]) -> Space:
    if len(counts) != len(first) or not counts:
        raise ValueError("choices and their first numbers differ in length")
    if not all(isinstance(each, int) for each in (*counts, *first)):
        raise ValueError("choices must be whole numbers")
    if min(counts) < 1 or sum(counts) > MOST_CHOICES:
        raise ValueError(f"{sum(counts)} choices; 1 to {MOST_CHOICES} are allowed")
    return Space(kind, counts=np.array(counts), first=np.array(first))


def _rows(where: str, key: str, array: np.ndarray, rows: int) -> np.ndarray:
    """(rows, ...) as (rows, columns)."""
    if array.shape[:1] != (rows,):
        raise UserError(f"{where}: '{key}' has shape {array.shape}; {rows} rows are needed.")
    return array.reshape(rows, -1)


def _one_hot(where: str, key: str, space: Space, array: np.ndarray) -> np.ndarray:
    """(rows, width) float32 of zeros and ones."""
    assert space.counts is not None
    assert space.first is not None
    if array.dtype.kind not in "iu" or array.shape[1] != len(space.counts):
        raise UserError(
            f"{where}: '{key}' has type {array.dtype} and {array.shape[1]} numbers a row; the space"
            f" has {len(space.counts)} whole numbers."
        )
    chosen = array.astype(np.int64) - space.first
    outside = (chosen < 0) | (chosen >= space.counts)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise UserError(
            f"{where}: '{key}' row {row} is {array[row, column]}, which is none of the"
            f" {space.counts[column]} choices."
        )
    offsets = np.concatenate([[0], np.cumsum(space.counts)[:-1]])
    hot = np.zeros((len(array), space.width), dtype=np.float32)
    hot[np.arange(len(array))[:, None], chosen + offsets] = 1
    return hot
