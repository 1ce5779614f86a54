"""The tidy table: one row a trial, with factors, budget, seed, responses, status.

A trial is one fit after so many updates under one setting of its measurements. Columns, in this order:

    trial, fit, status, data, the factors       see `ablate.config.is_factor`
    budget, seed                                updates; training seed
    MEASUREMENT.row, MEASUREMENT.RESPONSE       the id of what was measured, and what it gave
    parameters, targets, ...                    sizes of the fit; `converged`
    failure                                     why, where the status is FAILED

    row_hash                                    of the row, see `ablate.track.seal`; readers compare it and leave it out

It is all that the analysis reads. It holds no time and no host, so that an interrupted study ends
with the same table as an uninterrupted one, row for row. Numbers are written so that they read back
exactly; a response that is not a number for this trial is an empty cell. Responses over an index
(`series.csv`) and learning curves of fits (`curves.csv`) lie beside it.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablate import config
from ablate.errors import UserError
from ablate.track import seal
from ablate.track.files import csv_text, write_atomic

TEXT = (
    *("trial", "fit", "status", "data", "failure", "content", "response"),
    *(name for name in config.FACTORS if name != "context"),
    *config.OPTIONAL,
)
REQUIRED = ("trial", "status", "data", "seed")
SERIES = ("trial", "response", "index", "value")
LEADING = ("data", *config.FACTORS, *config.OPTIONAL)  # factors that come first, in this order
_INTEGER = re.compile(r"[+-]?\d{1,18}")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf|nan)", re.IGNORECASE)


def read_table(
    path: Path,
    required: Sequence[str] = REQUIRED,
    metrics: Sequence[str] = (),
    sealed: bool = True,
) -> pd.DataFrame:
    """The table at `path`, checked: required columns, unique trials, numeric metrics, hashes.

    Raises UserError naming file, line and column.
    """
    path = Path(path)
    frame = read_csv(path, sealed)
    for name in (*required, *metrics):
        if name not in frame.columns:
            raise UserError(
                f"{path}: column '{name}' is missing; found: {', '.join(frame.columns)}."
            )
    if "trial" in frame.columns:
        twice = np.flatnonzero(frame["trial"].duplicated())
        if len(twice):
            name = frame["trial"].iloc[twice[0]]
            raise UserError(f"{path}, row {twice[0] + 1}: trial '{name}' stands there twice.")
    for name in dict.fromkeys(("seed", *metrics)):
        if name in frame.columns and frame[name].dtype == object:
            for row, value in enumerate(frame[name]):
                if isinstance(value, str) and not _FLOAT.fullmatch(value):
                    raise UserError(
                        f"{path}, row {row + 1}: {name} is '{value}'; allowed: a number or nothing."
                    )
    if "seed" in frame.columns and "seed" in required and frame["seed"].dtype != np.int64:
        raise UserError(f"{path}: column 'seed' must hold an integer in every row.")
    return frame


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write atomically; raises UserError (a full disk) with the previous file intact."""
    write_atomic(Path(path), to_csv(frame))


def order(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows by factors, then budget and seed, then trial: the same whatever order they came in."""
    listed = list(frame.columns)
    factors = [name for name in LEADING if name in listed]
    factors += [name for name in listed if config.is_factor(name) and name not in factors]
    keys = [*factors, *(name for name in ("budget", "seed", "trial") if name in listed)]
    lines = rows(frame)
    ranks = sorted(range(len(lines)), key=lambda i: [_rank(lines[i][name]) for name in keys])
    return frame.iloc[ranks].reset_index(drop=True)


def read_curves(path: Path) -> pd.DataFrame:
    """The curves at `path`; raises UserError as `read_csv` does, and when a column is missing."""
    found = read_csv(path)
    for name in ("fit", "update"):
        if name not in found.columns:
            raise UserError(f"{path}: column '{name}' is missing.")
    return found


def read_series(path: Path) -> pd.DataFrame:
    """Responses over an index: columns trial, response, index, value; raises UserError as `read_csv` does."""
    found = read_csv(path)
    for name in SERIES:
        if name not in found.columns:
            raise UserError(f"{path}: column '{name}' is missing.")
    return found


def read_csv(path: Path, sealed: bool = True) -> pd.DataFrame:
    """A CSV file with its columns typed by what they hold: int64, float64, or text (object).

    Empty cells are NaN in a numeric column and '' in a text column. The columns of `TEXT` are text
    whatever they look like. sealed: whether it must carry the hashes of its rows; those it carries must fit.
    Raises UserError for a missing, ragged or changed file.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            lines = []
            for line in reader:
                if len(line) != len(header):
                    raise UserError(
                        f"{path}, line {reader.line_num}: it has {len(line)} cells, "
                        f"the header has {len(header)}; the file is cut off or was edited."
                    )
                lines.append(line)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file.") from error
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror}).") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: it is not a CSV table in UTF-8 ({error}).") from error
    if len(set(header)) != len(header) or not all(header):
        raise UserError(f"{path}: column names must be given and differ, found {header}.")
    if seal.COLUMN in header:
        place = header.index(seal.COLUMN)
        hashes = [line.pop(place) for line in lines]
        header.pop(place)
        seal.check_rows(path, header, lines, hashes)
    elif sealed:
        raise UserError(
            f"{path}: the column '{seal.COLUMN}' is missing, so nobody can tell whether the table is whole. "
            f"{seal.REMEDY}"
        )
    return pd.DataFrame(
        {name: _typed(name, [line[i] for line in lines]) for i, name in enumerate(header)},
        columns=header,
    )


def to_csv(frame: pd.DataFrame) -> str:
    """CSV text with the hashes of its rows; floats by `repr`, NaN empty, lines ended by a line feed."""
    header = list(frame.columns)
    cells = [[cell(value) for value in row.values()] for row in rows(frame)]
    hashes = seal.of_rows(header, cells)
    lines = [[*line, hashed] for line, hashed in zip(cells, hashes, strict=True)]
    return csv_text([*header, seal.COLUMN], lines)


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dicts of Python values (int, float, str, bool)."""
    columns = {str(name): frame[name].tolist() for name in frame.columns}
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def frame_of(lines: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """A frame whose column types are those that `read_csv` would give the same table."""
    cells: dict[str, list[str]] = {name: [] for name in columns}
    for line in lines:
        for name in columns:
            cells[name].append(cell(line.get(name)))
    return pd.DataFrame({name: _typed(name, cells[name]) for name in columns})


def _typed(name: str, cells: list[str]) -> pd.Series:
    """One column: int64 when each cell is an integer, float64 when each is a number, else text."""
    text = name in TEXT or name.endswith(".row")
    if not text and any(cells):
        if all(_INTEGER.fullmatch(cell) for cell in cells):
            return pd.Series([int(cell) for cell in cells], dtype=np.int64)
        if all(not cell or _FLOAT.fullmatch(cell) for cell in cells):
            values = [float(cell) if cell else math.nan for cell in cells]
            return pd.Series(values, dtype=np.float64)
    elif not text and cells:
        return pd.Series([math.nan] * len(cells), dtype=np.float64)
    return pd.Series(cells, dtype=object)


def cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(float(value))
    return str(value)


def _rank(value: Any) -> tuple[int, float, str]:
    """A key that orders numbers by size before text, and what is missing first."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return (0, 0.0, "")
    if isinstance(value, int | float):
        return (1, float(value), "")
    return (2, 0.0, str(value))
