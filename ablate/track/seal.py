"""Hashes of what is kept, so that a changed digit, a cut line or a missing row is noticed when it is read.

A table carries them in its last column: each row the hash of its own cells, the last row also the number of
rows and the hash of all. A JSON object carries its own under `hash`. They find damage and edits by hand;
they are no signatures, since who rewrites a row can rewrite its hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.errors import UserError

COLUMN = "row_hash"
KEY = "hash"


def digest(*parts: str) -> str:
    """16 hexadecimal digits of the SHA-256 of some texts."""
    return hashlib.sha256("\x1e".join(parts).encode()).hexdigest()[:16]


def of_file(path: Path) -> str:
    """The same of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def of_rows(header: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """The cells of `COLUMN` for a table's rows, given as text; empty cells don't count in a row's own hash, so
    that a further column leaves it as it is."""
    cells = [
        digest(*(f"{name}\x1f{cell}" for name, cell in zip(header, line, strict=True) if cell))
        for line in lines
    ]
    if cells:
        cells[-1] = f"{cells[-1]}/{len(cells)}/{digest(*header, *cells)}"
    return cells


def check_rows(
    path: Path, header: Sequence[str], lines: Sequence[Sequence[str]], found: Sequence[str]
) -> None:
    """Raise UserError, naming what is wrong first, when `found` is not what `of_rows` gives."""
    made = of_rows(header, lines)
    if not lines:
        raise _changed(f"{path}: its rows are gone")
    own = [cell.partition("/")[0] for cell in found]
    wrong = [i for i, cell in enumerate(made) if cell.partition("/")[0] != own[i]]
    if wrong and len(wrong) == len(lines) > 1:
        raise _changed(
            f"{path}: the names of its columns, or all rows, are not as they were written"
        )
    if wrong:
        first = " ".join(lines[wrong[0]][:1])[:40]
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise _changed(
            f"{path}, row {wrong[0] + 1} ({header[0]} {first}): a cell is not as it was written{more}"
        )
    early = [i for i, cell in enumerate(found[:-1]) if "/" in cell]
    if early:
        raise _changed(
            f"{path}, row {early[0] + 2}: rows stand after the last one that was written"
        )
    if "/" not in found[-1]:
        raise _changed(f"{path}: its last rows are missing; {len(lines)} are left")
    if found[-1] != made[-1]:
        said = found[-1].split("/")[1]
        what = f"it holds {len(lines)} rows where {said} were written"
        if said == str(len(lines)):
            what = (
                "its rows or columns are not in the order, or not those, that were written together"
            )
        raise _changed(f"{path}: {what}")


def sign(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its hash."""
    plain = {name: value for name, value in content.items() if name != KEY}
    return {**plain, KEY: _object(plain)}


def opened(path: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """The object without its hash; raises UserError when that is missing or another."""
    plain = {name: value for name, value in found.items() if name != KEY}
    if KEY not in found:
        raise UserError(
            f"{path}: it carries no hash, so nobody can tell whether it is whole. {REMEDY}"
        )
    if found[KEY] != _object(plain):
        raise _changed(f"{path}: a value is not as it was written")
    return plain


def of_run(trial: str, run: Mapping[str, Any]) -> str:
    """The hash of a run's record: whose it is, how it ended, what it gave, and the files it kept."""
    told = [run.get(name) for name in ("status", "result", "fail_trace", "files")]
    return digest(trial, json.dumps(told, sort_keys=True, separators=(",", ":")))


def _object(content: Mapping[str, Any]) -> str:
    return digest(json.dumps(content, sort_keys=True, separators=(",", ":")))


REMEDY = "Nothing was changed. Put it back, for example from git, or move it away."


def _changed(what: str) -> UserError:
    return UserError(f"{what}, as its hash says. {REMEDY}")
