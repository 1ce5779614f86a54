"""The ids of a study's trials as they were last listed, so that who only counts needs neither models nor data.

To list them, every part that a study may name has to be imported. A roll is kept in the cache under all that the ids
depend on: our own code, the study's file and what lies beside it, and what the command says of it; what the study's
folder adds (content hashes of data sets, the tuning's table) stands in the roll and is compared. None is kept where
something else could change an id: a plugin, a preset by its path, a data set read in a way of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from pathlib import Path

from ablate.errors import UserError
from ablate.registry import COMPARATORS, GROUP, OURS
from ablate.track import seal
from ablate.track.files import write_atomic

SOURCES = (".py", ".yaml", ".csv")


@dataclass(frozen=True)
class Roll:
    """trials: of each the id of its fit, then of its measurements' rows; tries: the same of a tuning's. data: content
    hash of each data set; tuning: hash of tuning.csv, empty where there is none."""

    study: str
    profile: str
    streams: str
    own_streams: str
    data: Mapping[str, str]
    tuning: str
    trials: Sequence[Sequence[str]]
    tries: Sequence[Sequence[str]] | None = None


def place(
    cache: Path, study: Path, profile: str | None, overrides: Sequence[str], plugins: Sequence[str]
) -> Path | None:
    """Where the roll of a study lies, as a command names it; None where none may be kept."""
    installed = [one for one in entry_points(group=GROUP) if one.module.split(".")[0] not in OURS]
    if plugins or installed or not study.is_file():
        return None
    beside = sorted(path for path in study.parent.iterdir() if path.suffix in (*SOURCES, ".yml"))
    said = [study.name, profile or "", *overrides, code()]
    said += [f"{path.name} {seal.of_file(path)}" for path in beside if path.is_file()]
    return cache / "rolls" / f"{seal.digest(*said)}.json"


def code() -> str:
    """Hash of all of our sources."""
    found = hashlib.sha256()
    for root in (Path(__file__).parents[1], COMPARATORS):
        for path in sorted(path for path in root.rglob("*") if path.suffix in SOURCES):
            found.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return found.hexdigest()


def read(path: Path | None) -> Roll | None:
    """The roll at `path`; None where there is none, or it isn't as it was written."""
    if path is None:
        return None
    with contextlib.suppress(AttributeError, OSError, TypeError, UserError, ValueError):
        return Roll(**seal.opened(path, json.loads(path.read_text(encoding="utf-8"))))
    return None


def keep(path: Path, roll: Roll) -> None:
    """Write a roll; where that can't be done, the next one who asks lists the trials again."""
    with contextlib.suppress(UserError):
        write_atomic(path, json.dumps(seal.sign(asdict(roll))))
