"""D4RL's own two views of a file, row for row what the d4rl package's functions give.

They differ from `read_hdf5`, which gives whole episodes for sequence models, in these habits of
`d4rl.sequence_dataset` and `d4rl.qlearning_dataset` (d4rl 1.1, `d4rl/__init__.py`), kept here:

- A terminal or a timeout ends a piece, whatever either means in the file at hand: door-human-v0's 25
  demonstrations come in 50 pieces. What is behind the last end is left out without a word.
- The transitions are of neighbouring rows: the next observation is the next row's even where the file
  has `next_observations`. The last row of a file is never used, nor (unless `terminate_on_end`) a row
  with a timeout; after a terminal the "next" observation is the next episode's first.
- Files without timeouts (version 0) are cut by counting steps up to the task's limit. The count
  starts at 0, but at 1 behind a cut of `sequence_dataset`, and behind a terminal of
  `qlearning_dataset`: later pieces are one step shorter.

`sequence_dataset` fails on a file that holds arrays which aren't a row a timestep (version 2 keeps the
behaviour policy's weights under `metadata`); here these are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from ablate.data.formats.base import one_line
from ablate.data.formats.hdf5_source import opened, shown
from ablate.errors import UserError

Rows = Mapping[str, np.ndarray]
REQUIRED = ("observations", "actions", "rewards", "terminals")


def sequence_views(
    source: Path | Rows, horizon: int | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """The pieces of `d4rl.sequence_dataset`: dictionaries of arrays (L, ...), by the file's own keys.

    source: a D4RL file, or its arrays as `rows` returns them. horizon: the task's limit in steps,
    needed for files without timeouts. Raises UserError when that is missing, or as `rows` does.
    """
    found = source if isinstance(source, Mapping) else rows(source)
    terminals, timeouts = _flags(found, horizon)
    if timeouts is not None:
        ends = np.flatnonzero(terminals | timeouts)
    else:
        assert horizon is not None
        ends = np.array(_counted(terminals, horizon, behind_cut=1, behind_terminal=1)[0])
    starts = np.concatenate([[0], ends + 1])
    for start, end in zip(starts[:-1], ends, strict=True):
        yield {key: array[start : end + 1].copy() for key, array in found.items()}


def qlearning_view(
    source: Path | Rows, horizon: int | None = None, terminate_on_end: bool = False
) -> dict[str, np.ndarray]:
    """The transitions of `d4rl.qlearning_dataset`.

    `observations`, `next_observations` (K, N), `actions` (K, M) and `rewards` (K,), all float32, and
    `terminals` (K,) bool. terminate_on_end: keep rows with a timeout, too. The other arguments and
    what is raised are those of `sequence_views`.
    """
    found = source if isinstance(source, Mapping) else rows(source)
    terminals, timeouts = _flags(found, horizon)
    if timeouts is None:
        assert horizon is not None
        again = 1 if terminate_on_end else 0
        _, cuts = _counted(terminals[:-1], horizon, behind_cut=again, behind_terminal=1)
        timeouts = np.zeros_like(terminals)
        timeouts[cuts] = True
    kept = np.ones(len(terminals) - 1, dtype=bool) if terminate_on_end else ~timeouts[:-1]
    chosen = np.flatnonzero(kept)
    return {
        "observations": found["observations"][chosen].astype(np.float32),
        "actions": found["actions"][chosen].astype(np.float32),
        "next_observations": found["observations"][chosen + 1].astype(np.float32),
        "rewards": found["rewards"][chosen].astype(np.float32),
        "terminals": terminals[chosen],
    }


def rows(path: Path) -> dict[str, np.ndarray]:
    """Every array of a D4RL file that has a row a timestep, by key (`infos/qpos`), sorted.

    `rewards` and `terminals` of shape (T, 1) become (T,), as in the package's `get_dataset`. Raises
    UserError, one line, when the file can't be read or lacks an array.
    """
    with opened(path) as source:
        keys = _keys(path)
        read = {key: source.read(key) for key in keys if not key.startswith("metadata/")}
    found = {key: array for key, array in read.items() if array is not None}
    for key in REQUIRED:
        if key not in found:
            raise UserError(
                f"{path}: the array '{key}' is missing; found: {shown(keys) or 'nothing'}."
            )
        if key in ("rewards", "terminals") and found[key].shape[1:] == (1,):
            found[key] = found[key][:, 0]
    steps = len(found["observations"])
    for key in REQUIRED:
        expected = 1 if key in ("rewards", "terminals") else 2
        if found[key].ndim != expected or len(found[key]) != steps or steps < 1:
            raise UserError(
                f"{path}: '{key}' has shape {found[key].shape}; observations has {steps} rows."
            )
    return {key: found[key] for key in sorted(found) if found[key].shape[:1] == (steps,)}


def _keys(path: Path) -> list[str]:
    """Every array of the file itself, in groups or not (`infos/qpos`), sorted."""
    keys: list[str] = []

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            keys.append(name)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise UserError(
            f"{path}: can't be read as HDF5, it is damaged or incomplete ({one_line(error)})."
        ) from error
    return sorted(keys)


def _flags(found: Rows, horizon: int | None) -> tuple[np.ndarray, np.ndarray | None]:
    """(T,) bool terminals, and timeouts where the file has them."""
    terminals = found["terminals"].astype(bool)
    if "timeouts" in found:
        return terminals, found["timeouts"].astype(bool).reshape(-1)
    if horizon is None:
        raise UserError(
            "d4rl_views: the file has no 'timeouts'; the task's time limit (horizon) is needed."
        )
    return terminals, None


def _counted(
    terminals: np.ndarray, horizon: int, behind_cut: int, behind_terminal: int
) -> tuple[list[int], list[int]]:
    """Rows that end a piece, and those among them that are cut because the count is full.

    The count is 0 at the first row and `behind_*` at the row after an end of either kind.
    """
    at_terminal = np.flatnonzero(terminals)
    ends, cuts = [], []
    start, count = 0, 0
    while start < len(terminals):
        following = np.searchsorted(at_terminal, start)
        terminal = int(at_terminal[following]) if following < len(at_terminal) else len(terminals)
        full = start + horizon - 1 - count
        full = full if full >= start else len(terminals)  # the count has passed the limit
        end = min(terminal, full)
        if end >= len(terminals):
            break
        ends.append(end)
        if end == full:
            cuts.append(end)
        start, count = end + 1, behind_cut if end == full else behind_terminal
    return ends, cuts
