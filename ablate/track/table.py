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
from typing import TYPE_CHECKING, Any

from ablate import config
from ablate.errors import UserError
from ablate.track import seal
from ablate.track.files import csv_text, write_atomic

if TYPE_CHECKING:  # what needs no frame is read without pandas, which takes longer to import than most tables to read
    import pandas as pd

Column = list[Any]  # the cells of a column: all int, all float (NaN where empty), or all text

TEXT = (
    *("trial", "fit", "status", "data", "failure", "content", "response"),
    *(name for name in config.FACTORS if name != "context"),
    *config.OPTIONAL,
)
REQUIRED = ("trial", "status", "data", "seed")
SERIES = ("trial", "response", "index", "value")
CURVES = ("fit", "update")
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
    return framed(read_trials(path, required, metrics, sealed))


def read_trials(
    path: Path,
    required: Sequence[str] = REQUIRED,
    metrics: Sequence[str] = (),
    sealed: bool = True,
) -> dict[str, Column]:
    """The columns of `read_table`, by name."""
    path = Path(path)
    found = read_columns(path, sealed)
    for name in (*required, *metrics):
        if name not in found:
            raise UserError(f"{path}: column '{name}' is missing; found: {', '.join(found)}.")
    seen: set[Any] = set()
    for row, trial in enumerate(found.get("trial", ()), start=1):
        if trial in seen:
            raise UserError(f"{path}, row {row}: trial '{trial}' stands there twice.")
        seen.add(trial)
    for name in dict.fromkeys(("seed", *metrics)):
        for row, value in enumerate(found.get(name, ()), start=1):
            if isinstance(value, str) and not _FLOAT.fullmatch(value):
                raise UserError(
                    f"{path}, row {row}: {name} is '{value}'; allowed: a number or nothing."
                )
    seeds = found.get("seed", [])
    if "seed" in required and not (seeds and isinstance(seeds[0], int)):
        raise UserError(f"{path}: column 'seed' must hold an integer in every row.")
    return found


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write atomically; raises UserError (a full disk) with the previous file intact."""
    write_atomic(Path(path), to_csv(frame))


def order(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows by factors, then budget and seed, then trial: the same whatever order they came in."""
    listed = list(frame.columns)
    factors = [name for name in LEADING if name in listed]
    factors += [name for name in listed if config.is_factor(name) and name not in factors]
    keys = [*factors, *(name for name in ("budget", "seed", "trial") if name in listed)]
    ranks = [_ranks(frame[name].tolist()) for name in keys]
    places = sorted(range(len(frame)), key=list(zip(*ranks, strict=True)).__getitem__)
    return frame.iloc[places].reset_index(drop=True)


def read_curves(path: Path) -> pd.DataFrame:
    """The curves at `path`, columns fit, update and what was recorded; raises UserError as `read_columns` does."""
    return framed(read_columns(path, required=CURVES))


def read_series(path: Path) -> pd.DataFrame:
    """Responses over an index, columns trial, response, index, value; raises UserError as `read_columns` does."""
    return framed(read_columns(path, required=SERIES))


def read_csv(path: Path, sealed: bool = True) -> pd.DataFrame:
    """`read_columns` as a frame of int64, float64 and text (object)."""
    return framed(read_columns(path, sealed))


def read_columns(
    path: Path, sealed: bool = True, required: Sequence[str] = ()
) -> dict[str, Column]:
    """A CSV file with its columns typed by what they hold: whole numbers, numbers, or text.

    Empty cells are NaN in a numeric column and '' in a text column. The columns of `TEXT` are text
    whatever they look like. sealed: whether it must carry the hashes of its rows; those it carries must fit.
    Raises UserError for a missing, ragged or changed file, and when a required column is missing.
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
    for name in required:
        if name not in header:
            raise UserError(f"{path}: column '{name}' is missing.")
    return {name: _typed(name, [line[i] for line in lines]) for i, name in enumerate(header)}


def framed(columns: Mapping[str, Column]) -> pd.DataFrame:
    """Columns as a frame."""
    import pandas as pd

    def series(cells: Column) -> pd.Series:
        kinds = {int: "int64", float: "float64"}
        return pd.Series(cells, dtype=kinds.get(type(cells[0]), "object") if cells else "object")

    return pd.DataFrame(
        {name: series(cells) for name, cells in columns.items()}, columns=list(columns)
    )


def to_csv(frame: pd.DataFrame) -> str:
    """CSV text with the hashes of its rows; floats by `repr`, NaN empty, lines ended by a line feed."""
    header = list(frame.columns)
    cells = [[cell(value) for value in row.values()] for row in rows(frame)]
    hashes = seal.of_rows(header, cells)
    lines = [[*line, hashed] for line, hashed in zip(cells, hashes, strict=True)]
    return csv_text([*header, seal.COLUMN], lines)


def rows(table: pd.DataFrame | Mapping[str, Column]) -> list[dict[str, Any]]:
    """The rows as dicts of Python values (int, float, str, bool)."""
    columns = {
        str(name): cells if isinstance(cells, list) else cells.tolist()
        for name, cells in table.items()
    }
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def frame_of(lines: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """A frame whose column types are those that `read_csv` would give the same table."""
    cells: dict[str, list[str]] = {name: [] for name in columns}
    for line in lines:
        for name in columns:
            cells[name].append(cell(line.get(name)))
    return framed({name: _typed(name, cells[name]) for name in columns})


def _typed(name: str, cells: list[str]) -> Column:
    """One column: int when each cell is an integer, float when each is a number, else text."""
    text = name in TEXT or name.endswith(".row")
    if not text and any(cells):
        if all(_INTEGER.fullmatch(cell) for cell in cells):
            return [int(cell) for cell in cells]
        if all(not cell or _FLOAT.fullmatch(cell) for cell in cells):
            return [float(cell) if cell else math.nan for cell in cells]
    elif not text and cells:
        return [math.nan] * len(cells)
    return cells


def cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(float(value))
    return str(value)


def _ranks(column: Sequence[Any]) -> list[int]:
    """The place of each cell among the different ones of its column: what is missing, numbers by size, text."""
    shown = ["" if value is None or value != value else value for value in column]
    places = {value: place for place, value in enumerate(sorted(set(shown), key=_rank))}
    return [places[value] for value in shown]


def _rank(value: Any) -> tuple[int, float, str]:
    """A key that orders numbers by size before text, and what is missing first."""
    if value == "":
        return (0, 0.0, "")
    if isinstance(value, int | float):
        return (1, float(value), "")
    return (2, 0.0, str(value))
