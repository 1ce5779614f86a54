"""Tables of runs that somebody else made: CSV and its kin, parquet, matrices of scores as rliable takes them, or
a Sacred file store of another program.

Nothing is interpreted here: what a column means is the study's to say (`ablate.study.foreign`).
What cannot be read is skipped with a count and a reason, or refused; never dropped in silence.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ablate.errors import UserError
from ablate.track import delimited, matrices

KINDS = (
    ".csv, .tsv or .txt, .parquet, .npz or .json (also of matrices {algorithm: runs x tasks}), or the folder of a "
    "Sacred file store"
)
_REMEDIES = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "a spreadsheet isn't read; save its sheet as CSV"),
    **dict.fromkeys(
        (".pkl", ".pickle", ".p"),
        "a pickle runs code when it is read; save a table by DataFrame.to_csv, matrices by "
        "numpy.savez(FILE, **scores)",
    ),
    **dict.fromkeys((".gz", ".zip", ".xz", ".bz2", ".zst"), "it is compressed; unpack it first"),
}
# columns, and beginnings of columns, that a store's runs have beside their configuration
_OWN = ("trial", "status", "failure", "result", "metrics")


@dataclass(frozen=True)
class Found:
    """A table as it was found.

    table: text in every cell of a CSV, values of any type otherwise. file: what it was read from.
    names: what to call each row in a refusal. notes: how it was read and what was skipped, in words. hash:
    SHA-256 of what was read. matrices: its columns are those of `ablate.track.matrices`.
    """

    table: pd.DataFrame
    file: str
    names: tuple[str, ...]
    notes: tuple[str, ...]
    hash: str
    matrices: bool = False


def read_foreign(path: Path | str) -> Found:
    """Read a table from anywhere; see `KINDS`. Raises UserError, in one line, for anything else."""
    path = Path(path)
    if path.is_dir():
        return read_sacred(path)
    if not path.exists():
        raise UserError(f"{path}: there is no such file.")
    kind = path.suffix.lower()
    notes: list[str] = []
    of_matrices = False
    if kind in (".csv", ".tsv", ".txt"):
        table, notes = delimited.read(path)
    elif kind in (".parquet", ".pq"):
        table = _parquet(path)
    elif kind in (".npz", ".npy", ".json", ".jsonl"):
        table, notes, of_matrices = matrices.read(path)
    else:
        remedy = _REMEDIES.get(kind)
        raise UserError(f"{path}: {remedy}." if remedy else f"{path}: expected {KINDS}.")
    if table.empty:
        raise UserError(f"{path}: the table has no rows.")
    names = tuple(f"row {index + 1}" for index in range(len(table)))
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    return Found(table, str(path), names, tuple(notes), content, of_matrices)


def _parquet(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except ImportError as error:
        raise UserError(
            f"{path}: reading parquet needs a package that is not installed: pip install pyarrow."
        ) from error
    except Exception as error:  # pyarrow's own errors share no base class with anything else
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path}: it is not a parquet table ({first[0]}).") from error
    table = table.reset_index(drop=isinstance(table.index, pd.RangeIndex))
    table.columns = pd.Index([str(name) for name in table.columns])
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise UserError(f"{path}: two columns are called '{twice[0]}'; each name may stand once.")
    return table.astype(object)


def read_sacred(store: Path) -> Found:
    """The runs of a Sacred file store, one row each.

    Columns: `trial` (the run's folder), `status` and `failure` (the trace's last line); the
    configuration flat, with dots (`agent.lr`; a key that is one of the former becomes
    `config.KEY`); `result`, or `result.NAME` where it is a mapping; and `metrics.NAME`, the last
    value of what was logged. A run whose record can't be read is skipped; metrics that can't be
    read are left empty. Both are counted in the notes. Raises UserError when no run can be read.
    """
    rows: list[dict[str, Any]] = []
    skipped: dict[str, list[str]] = {}
    content = hashlib.sha256()
    folders = [p for p in store.iterdir() if p.is_dir() and not p.name.startswith(("_", "."))]
    for folder in sorted(folders, key=lambda p: (len(p.name), p.name)):
        try:
            run = _record(folder / "run.json", content)
            config = _record(folder / "config.json", content)
        except _Unreadable as error:
            skipped.setdefault(f"skipped: {error}", []).append(folder.name)
            continue
        row: dict[str, Any] = {
            "trial": folder.name,
            "status": str(run.get("status", "")),
            "failure": _failure(run.get("fail_trace")),
        }
        for name, value in _flat(config):
            row[f"config.{name}" if name.split(".")[0] in _OWN else name] = value
        result = _value(run.get("result"))
        if isinstance(result, Mapping):
            row |= {f"result.{name}": value for name, value in _flat(result)}
        elif result is not None:
            row["result"] = result
        try:
            row |= _metrics(folder / "metrics.json", content)
        except _Unreadable as error:
            skipped.setdefault(f"read without metrics: {error}", []).append(folder.name)
        rows.append(row)
    notes = []
    for reason, lost in sorted(skipped.items()):
        shown = ", ".join(lost[:8]) + (f" and {len(lost) - 8} more" if len(lost) > 8 else "")
        notes.append(f"{len(lost)} run{'' if len(lost) == 1 else 's'} {reason} ({shown})")
    if not rows:
        said = "; ".join(notes) or "it has no folder of a run"
        raise UserError(f"{store}: no run of a Sacred file store can be read here: {said}.")
    table = pd.DataFrame(rows).astype(object)
    names = tuple(f"run {row['trial']}" for row in rows)
    return Found(table, str(store), names, tuple(notes), content.hexdigest())


class _Unreadable(Exception):
    """Why one file of a run can't be used."""


def _record(file: Path, content: Any) -> dict[str, Any]:
    """A JSON object; `content` takes up its bytes."""
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        raise _Unreadable(f"there is no {file.name}") from None
    except OSError as error:
        raise _Unreadable(f"{file.name} cannot be read ({error.strerror})") from None
    try:
        found = json.loads(raw)
    except ValueError:
        raise _Unreadable(f"{file.name} is cut off or not JSON") from None
    if not isinstance(found, dict):
        raise _Unreadable(f"{file.name} holds no mapping")
    content.update(file.parent.name.encode() + b"/" + file.name.encode() + b"\0" + raw)
    return found


def _metrics(file: Path, content: Any) -> dict[str, Any]:
    """The last value of each metric; none where none was logged."""
    if not file.exists():
        return {}
    out = {}
    for name, series in _record(file, content).items():
        values = series.get("values") if isinstance(series, dict) else None
        if not isinstance(values, list):
            raise _Unreadable(f"{file.name} doesn't hold series of values")
        if values:
            out[f"metrics.{name}"] = _value(values[-1])
    return out


def _flat(tree: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, Any]]:
    """(`a.b`, value) of every leaf; a list is a leaf, written as JSON."""
    for name, value in tree.items():
        value = _value(value)
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{under}{name}.")
        elif isinstance(value, list | Mapping):
            yield f"{under}{name}", json.dumps(value)
        else:
            yield f"{under}{name}", value


def _value(value: Any) -> Any:
    """A plain value; NumPy scalars and arrays of one value, which Sacred writes as mappings, too."""
    if isinstance(value, Mapping) and str(value.get("py/object", "")).startswith("numpy."):
        inner = value.get("value", value.get("values"))
        while isinstance(inner, list) and len(inner) == 1:
            inner = inner[0]
        return inner
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def _failure(trace: Any) -> str:
    """The last line of a stored trace."""
    lines = "".join(map(str, trace)).strip().splitlines() if isinstance(trace, list) else []
    return lines[-1].strip() if lines else ""
