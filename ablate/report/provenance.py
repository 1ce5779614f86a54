"""Where each figure, table and number comes from: sidecars, the manifest, and comparing files."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

import ablate

PACKAGES = ("matplotlib", "numpy", "pandas", "scipy", "seaborn", "tueplots", "jinja2")


def sha(content: bytes) -> str:
    """SHA-256 as hex."""
    return hashlib.sha256(content).hexdigest()


def row_hashes(table: pd.DataFrame) -> dict[str, str]:
    """For each trial the first 16 hex digits of the hash of its row: every column's name and
    value."""
    columns = list(table.columns)
    out = {}
    for row in table.itertuples(index=False, name=None):
        line = json.dumps([[name, _plain(value)] for name, value in zip(columns, row, strict=True)])
        out[str(row[columns.index("trial")])] = sha(line.encode())[:16]
    return out


def _plain(value: Any) -> Any:
    """A cell of the table without the type that reading it happened to give it."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def packages() -> dict[str, str]:
    """Versions of everything that could change what is drawn."""
    out = {"ablate": ablate.__version__, "python": ".".join(platform.python_version_tuple()[:2])}
    for name in PACKAGES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "absent"
    return out


def script_hash(script: str) -> str:
    """Hash of the module that made something, named as `ablate/report/...`."""
    path = Path(ablate.__file__).parents[1] / script
    return sha(path.read_bytes())[:16]


def sidecar(
    study_hash: str,
    profile: str,
    script: str,
    trials: Iterable[str],
    rows: dict[str, str],
    **further: Any,
) -> bytes:
    """The JSON that lies beside a figure, a table or the macros."""
    return dump(
        {
            "study_hash": study_hash,
            "profile": profile,
            "script": script,
            "script_hash": script_hash(script),
            "packages": packages(),
            **further,
            "trials": {trial: rows[trial] for trial in sorted(set(trials)) if trial in rows},
        }
    )


def dump(content: Any) -> bytes:
    """JSON with sorted keys, two spaces and a final newline."""
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def frame_hash(table: pd.DataFrame) -> str:
    """Hash of a table's columns and values, in its order."""
    lines = [json.dumps([str(name) for name in table.columns])]
    lines += [
        json.dumps([_plain(value) for value in row])
        for row in table.itertuples(index=False, name=None)
    ]
    return sha("\n".join(lines).encode())


def manifest(
    study: str,
    study_hash: str,
    profile: str,
    venue: str,
    inputs: dict[str, str],
    files: Mapping[str, bytes],
    page: bytes,
    pdf: bytes | None,
) -> bytes:
    """`manifest.json`: the hash of every input and of every file written.

    main.pdf is recorded beside the hash of what it was compiled from, since another LaTeX gives
    other bytes.
    """
    return dump(
        {
            "format": 1,
            "study": study,
            "study_hash": study_hash,
            "profile": profile,
            "venue": venue,
            "packages": packages(),
            "inputs": inputs,
            "page": sha(page),
            "files": {name: sha(content) for name, content in files.items()},
            "pdf": None if pdf is None else {"sha256": sha(pdf), "source": source_hash(files)},
        }
    )


def source_hash(files: Mapping[str, bytes]) -> str:
    """Hash of all that main.pdf is compiled from."""
    used = {
        name: sha(content) for name, content in files.items() if name.endswith((".tex", ".pdf"))
    }
    return sha(dump(used))
