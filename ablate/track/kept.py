"""What `run` keeps in a study's folder beside its tables, read back with care.

Each of these files can be made again, so a refusal says what deleting it costs.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.errors import UserError
from ablate.track import seal
from ablate.track.folder import StudyFolder
from ablate.track.table import Column, framed, read_columns

if TYPE_CHECKING:
    import pandas as pd

LAST = "last.json"
ASKED = ("study", "profile", "set", "seeds", "plugins")  # how a command named its study
AUDITED = ("key", "mixer", "context", "history", "condition", "head", "passed", "findings")


def cache_folder(results: Path) -> Path:
    """`$ABLATE_CACHE`, or `.cache` beside the studies' folders."""
    return Path(os.environ.get("ABLATE_CACHE", results / ".cache"))


def audits(folder: StudyFolder) -> list[dict[str, Any]]:
    """The audit's records; none before the first run. Raises UserError for a damaged file."""
    records = _json(folder.audit, [], "it is made again by the next run")
    for one in records:
        if not isinstance(one, dict) or any(name not in one for name in AUDITED):
            raise _damaged(folder.audit, "a record is incomplete", "it is made again by run")
    return [seal.opened(folder.audit, one) for one in records]


def paces_file(folder: StudyFolder) -> Path:
    """Where the measured speeds lie."""
    return folder.runs / ".paces.json"


def paces(folder: StudyFolder) -> dict[str, float]:
    """Measured seconds an update by shape of cohort; raises UserError for a damaged file."""
    path, cost = paces_file(folder), "this machine is measured again"
    found = _json(path, {}, cost)
    if not all(isinstance(one, float) for one in found.values()):
        raise _damaged(path, "a measurement is not a number", cost)
    return dict(found)


def newest(results: Path) -> Path | None:
    """The folder that a study was run into last, its own or a profile's; None before any run."""
    paths = [path for depth in ("*", "*/*", "*/*/*") for path in results.glob(f"{depth}/{LAST}")]
    return max(paths, key=lambda path: path.stat().st_mtime).parent if paths else None


def asked(folder: Path) -> dict[str, Any] | None:
    """How the command named the study that was run last into `folder`; None where no command was."""
    path = folder / LAST
    if not path.exists():
        return None
    found = _json(path, {}, "then name the study file")
    if any(name not in found for name in ASKED):
        raise _damaged(path, "an entry is missing", "then name the study file")
    return seal.opened(path, found)


def plugins(results: Path, study: str) -> list[str]:
    """The plugins with which a study was run last, at any profile; none where no note of a run says any."""
    there = [results / study / LAST, *(results / study).glob(f"*/{LAST}")]
    for path in sorted(
        filter(Path.exists, there), key=lambda path: path.stat().st_mtime, reverse=True
    ):
        with contextlib.suppress(UserError):  # of a damaged note, which costs a plugin's name only
            return list((asked(path.parent) or {}).get("plugins") or ())
    return []


def yardsticks_file(folder: StudyFolder) -> Path:
    """Where the exact optima lie."""
    return folder.root / "yardsticks.csv"


def yardsticks(folder: StudyFolder) -> pd.DataFrame | None:
    """Exact optima by data set and context, where known; raises UserError for a damaged file."""
    found = optima(folder)
    return None if found is None else framed(found)


def optima(folder: StudyFolder) -> dict[str, Column] | None:
    """The columns of `yardsticks`."""
    path = yardsticks_file(folder)
    if not path.exists():
        return None
    cost = "it is computed again by run"
    try:
        found = read_columns(path)
    except UserError as error:
        raise UserError(f"{error} Delete it: {cost}.") from error
    for name in ("data", "content", "context"):
        if name not in found:
            raise _damaged(path, f"the column '{name}' is missing", cost)
    return found


def _json(path: Path, empty: Any, cost: str) -> Any:
    """JSON of the same kind as `empty`, which is what a missing file holds."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return empty
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise _damaged(path, f"not JSON: {' '.join(str(error).split())}", cost) from error
    if type(found) is not type(empty):
        raise _damaged(path, f"found a {type(found).__name__}", cost)
    return found


def _damaged(path: Path, what: str, cost: str) -> UserError:
    return UserError(f"{path}: it is damaged ({what}); nothing was changed. Delete it: {cost}.")
