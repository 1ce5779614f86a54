"""The tidy table: one row a trial, with factors, seed, metrics, status.

It is all that the analysis reads. It holds no time and no host, so that an interrupted study ends
with the same table as an uninterrupted one, row for row. Numbers are written so that they read back
exactly; a metric that is not a number for this trial is an empty cell.
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
from ablate.track.files import csv_text, write_atomic
from ablate.track.store import COMPLETED, FAILED, Attempt, deciding

FACTORS = ("data", *config.FACTORS, *config.OPTIONAL)  # the optional ones where a study varies them
TEXT = (
    *("trial", "status", "data", "mixer", "condition", "history", "head", "failure", "content"),
    *config.OPTIONAL,
)
REQUIRED = ("trial", "status", "data", "seed")
# Known metrics come in this order, others after them by name; each must be numeric wherever it is.
METRICS = (
    *("score", "return_mean", "return_std", "success", "action_error", "action_error_early"),
    *("action_nll", "jerk", "parameters", "parameter_mismatch", "targets"),
)
STATUSES = (COMPLETED, FAILED)
CURVE = "curve.csv"
_INTEGER = re.compile(r"[+-]?\d{1,18}")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf|nan)", re.IGNORECASE)


def read_table(
    path: Path, required: Sequence[str] = REQUIRED, metrics: Sequence[str] = ()
) -> pd.DataFrame:
    """The table at `path`, checked: required columns, unique trials, numeric metrics.

    Raises UserError naming file, line and column.
    """
    path = Path(path)
    frame = read_csv(path)
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
    for name in dict.fromkeys(("seed", *METRICS, *metrics)):
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


def merge(
    table: pd.DataFrame | None, attempts: Iterable[Attempt], trials: Sequence[Mapping[str, Any]]
) -> pd.DataFrame:
    """The table brought up to date.

    `trials` gives, for each trial of the study, its factor columns (`trial`, `data`, ..., `seed`,
    and whatever else varies, dotted). A trial has a row once it is COMPLETED or FAILED, in the
    store or in the table (from another machine): COMPLETED wins, the store's FAILED is the later.
    Rows of trials that are not in `trials` (another profile's) are kept as they are; one that is
    `superseded` leaves when its successor's row comes.
    """
    best = deciding(attempts)
    old = {} if table is None else {row["trial"]: row for row in rows(table)}
    merged: dict[str, dict[str, Any]] = dict(old)
    factors = list(dict.fromkeys(name for trial in trials for name in trial))
    names: dict[str, None] = {}
    for trial in trials:
        attempt = best.get(trial["trial"])
        before = old.get(trial["trial"])
        if attempt is None or attempt.status not in STATUSES:
            continue
        if attempt.status == FAILED and before is not None and before["status"] == COMPLETED:
            continue
        result = attempt.result
        names.update(dict.fromkeys(result))
        merged[trial["trial"]] = {
            **trial,
            "status": attempt.status,
            **result,
            "failure": " ".join(attempt.failure.split()),
        }
    for name, successor in superseded(table, trials).items():
        if successor in merged:
            del merged[name]
    there = {*factors, *([] if table is None else table.columns)}
    varied = [name for name in config.OPTIONAL if name in there]
    leading = ("trial", "status", "data", *config.FACTORS, *varied, "seed")
    if table is not None:
        known = {*leading, *factors, "failure"}
        factors += [name for name in table.columns if name not in known and "." in name]
        known.update(factors)
        names.update(dict.fromkeys(name for name in table.columns if name not in known))
    others = [name for name in factors if name not in leading]
    measured = [name for name in METRICS if name in names]
    measured += sorted(name for name in names if name not in METRICS)
    columns = [*leading, *sorted(others), *measured, "failure"]
    return order(frame_of(merged.values(), columns))


def superseded(table: pd.DataFrame | None, trials: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Trials of the table that are not in `trials`, each with the one there that looks the same.

    Factors and seed agree and the ids don't: that is the result of other code, data or settings,
    and a table that held both couldn't tell them apart.
    """
    if table is None:
        return {}
    dotted = [name for name in table.columns if "." in name]
    shown = list(dict.fromkeys([*(name for trial in trials for name in trial), *dotted]))
    shown.remove("trial")

    def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(_cell(row.get(name)) for name in shown)

    ours = {trial["trial"] for trial in trials}
    new = {cells(trial): trial["trial"] for trial in trials}
    found = {row["trial"]: new.get(cells(row)) for row in rows(table) if row["trial"] not in ours}
    return {old: successor for old, successor in found.items() if successor is not None}


def order(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows by factors, then seed, then trial: the same whatever order they came in."""
    listed = list(frame.columns)
    after = listed.index("seed") if "seed" in listed else len(listed)
    dotted = [name for name in listed[after + 1 :] if "." in name]
    factors = [name for name in FACTORS if name in listed]
    keys = [*factors, *dotted, *(name for name in ("seed", "trial") if name in listed)]
    lines = rows(frame)
    ranks = sorted(range(len(lines)), key=lambda i: [_rank(lines[i][name]) for name in keys])
    return frame.iloc[ranks].reset_index(drop=True)


def merge_curves(curves: pd.DataFrame | None, attempts: Iterable[Attempt]) -> pd.DataFrame:
    """The curves of all COMPLETED and FAILED attempts that count, and those known before.

    One row a trial and update; columns trial, update, then the metrics by name.
    """
    lines: dict[str, list[dict[str, Any]]] = {}
    for row in [] if curves is None else rows(curves):
        lines.setdefault(row["trial"], []).append(row)
    for trial_id, attempt in deciding(attempts).items():
        path = attempt.path / CURVE
        if attempt.status == COMPLETED or (attempt.status == FAILED and trial_id not in lines):
            if not path.exists():
                continue
            points = read_csv(path)
            if "update" not in points.columns:
                raise UserError(f"{path}: column 'update' is missing.")
            lines[trial_id] = [{**row, "trial": trial_id} for row in rows(points)]
    flat = [row for trial_id in sorted(lines) for row in lines[trial_id]]
    names = {name for row in flat for name in row} - {"trial", "update"}
    return frame_of(flat, ["trial", "update", *sorted(names)])


def read_curves(path: Path) -> pd.DataFrame:
    """The curves at `path`; raises UserError as `read_csv` does, and when a column is missing."""
    found = read_csv(path)
    for name in ("trial", "update"):
        if name not in found.columns:
            raise UserError(f"{path}: column '{name}' is missing.")
    return found


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV file with its columns typed by what they hold: int64, float64, or text (object).

    Empty cells are NaN in a numeric column and '' in a text column. The columns of `TEXT` are text
    whatever they look like. Raises UserError for a missing or ragged file.
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
    return pd.DataFrame(
        {name: _typed(name, [line[i] for line in lines]) for i, name in enumerate(header)},
        columns=header,
    )


def to_csv(frame: pd.DataFrame) -> str:
    """CSV text; floats by `repr`, NaN empty, lines ended by a line feed."""
    cells = [[_cell(value) for value in row.values()] for row in rows(frame)]
    return csv_text(list(frame.columns), cells)


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dicts of Python values (int, float, str, bool)."""
    columns = {str(name): frame[name].tolist() for name in frame.columns}
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def frame_of(lines: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """A frame whose column types are those that `read_csv` would give the same table."""
    cells: dict[str, list[str]] = {name: [] for name in columns}
    for line in lines:
        for name in columns:
            cells[name].append(_cell(line.get(name)))
    return pd.DataFrame({name: _typed(name, cells[name]) for name in columns})


def _typed(name: str, cells: list[str]) -> pd.Series:
    """One column: int64 when each cell is an integer, float64 when each is a number, else text."""
    if name not in TEXT and any(cells):
        if all(_INTEGER.fullmatch(cell) for cell in cells):
            return pd.Series([int(cell) for cell in cells], dtype=np.int64)
        if all(not cell or _FLOAT.fullmatch(cell) for cell in cells):
            values = [float(cell) if cell else math.nan for cell in cells]
            return pd.Series(values, dtype=np.float64)
    elif name not in TEXT and cells:
        return pd.Series([math.nan] * len(cells), dtype=np.float64)
    return pd.Series(cells, dtype=object)


def _cell(value: Any) -> str:
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
