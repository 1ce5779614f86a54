"""Read the run store: which attempts of which trials there are and how each ended.

Reads while other processes write. A run that says RUNNING is DEAD when its process is gone or, where that
was on another machine, its heartbeat has stopped. What can't be read is refused, never repaired and never deleted.
"""

from __future__ import annotations

import datetime
import itertools
import json
import re
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablate.errors import UserError
from ablate.track import seal
from ablate.track.process import gone
from ablate.track.values import decode

STALE = 60.0  # seconds without a heartbeat (one comes every 10) after which a run counts as dead
PATIENCE = 0.3  # seconds in which a file that is being written may become whole
COMPLETED, FAILED, RUNNING, DEAD = "COMPLETED", "FAILED", "RUNNING", "DEAD"
_NAME = re.compile(r"(?P<trial>[^.]+)(?:\.(?P<number>[1-9]\d*))?")


@dataclass(frozen=True)
class Attempt:
    """One attempt of a trial.

    status: COMPLETED, FAILED, INTERRUPTED, RUNNING, or DEAD (it says RUNNING and isn't). result:
    numbers by name, empty unless COMPLETED. failure: one line, empty unless FAILED. heartbeat_age:
    seconds since the last sign of life while RUNNING or DEAD, else None. seconds: how long it ran,
    where it ended. files: name -> hash of each file that it has kept.
    """

    trial_id: str
    number: int
    path: Path
    status: str
    result: dict[str, float]
    failure: str = ""
    heartbeat_age: float | None = None
    seconds: float | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def run_id(self) -> str:
        """The name of the run's folder."""
        return self.path.name

    def config(self) -> dict[str, Any]:
        """The configuration that the run was started with."""
        return dict(_read(self.path / "config.json"))

    def info(self) -> dict[str, Any]:
        """What the body noted beside the result; empty when it noted nothing."""
        path = self.path / "info.json"
        return dict(_read(path)) if path.exists() else {}

    def kept(self, name: str) -> Path:
        """Where a file that it has kept lies; raises UserError when it isn't as it was kept."""
        path = self.path / name
        try:
            same = seal.of_file(path) == self.files[name]
        except OSError as error:
            raise _corrupt(path, f"it cannot be read: {error.strerror}", "file") from error
        if not same:
            raise _corrupt(path, "it is not as it was written, as its hash says", "file")
        return path


def attempts(store: Path, trials: Collection[str] | None = None) -> list[Attempt]:
    """All attempts in the store, by trial and number; an absent store holds none.

    `trials` limits it to the attempts of these. It reads one small file an attempt.

    Raises UserError naming the first file that is corrupt.
    """
    store = Path(store)
    if not store.is_dir():
        return []
    wanted = None if trials is None else set(trials)
    found = []
    for path in sorted(store.iterdir()):
        name = _NAME.fullmatch(path.name)
        if path.name.startswith(("_", ".")) or name is None:
            continue
        if (wanted is not None and name["trial"] not in wanted) or not path.is_dir():
            continue
        attempt = _attempt(path, name["trial"], int(name["number"] or 1))
        if attempt is not None:
            found.append(attempt)
    return sorted(found, key=lambda attempt: (attempt.trial_id, attempt.number))


def told(store: Path, trials: Iterable[str]) -> list[Attempt]:
    """The attempts of a few trials whose latest has just begun or ended, without listing the store: it has taken the
    first number that was free, so that all up to it are there."""
    found = []
    for trial in trials:
        for number in itertools.count(1):
            path = Path(store, trial if number == 1 else f"{trial}.{number}")
            if not path.is_dir():
                break
            attempt = _attempt(path, trial, number)
            found += [] if attempt is None else [attempt]
    return found


def deciding(found: Iterable[Attempt]) -> dict[str, Attempt]:
    """By trial, the attempt that counts: the first COMPLETED one, else the latest."""
    best: dict[str, Attempt] = {}
    for attempt in sorted(found, key=lambda attempt: (attempt.trial_id, attempt.number)):
        before = best.get(attempt.trial_id)
        if before is None or before.status != COMPLETED:
            best[attempt.trial_id] = attempt
    return best


def _attempt(path: Path, trial_id: str, number: int) -> Attempt | None:
    """One run's folder; None when it vanished meanwhile."""
    file = path / "run.json"
    try:
        if not file.exists():
            # The folder is made just before the file: either it is being written, or never will.
            age = time.time() - path.stat().st_mtime
            state = RUNNING if age < STALE else DEAD
            return Attempt(trial_id, number, path, state, {}, heartbeat_age=age)
    except FileNotFoundError:
        return None
    run = _read(file)
    status = run.get("status")
    if not isinstance(status, str):
        raise _corrupt(file, "it has no status")
    if run.get(seal.KEY) != seal.of_run(trial_id, run):
        found = (
            "it is not as it was written, as its hash says" if seal.KEY in run else "it has no hash"
        )
        raise _corrupt(file, found)
    try:
        result = {name: decode(value) for name, value in (run.get("result") or {}).items()}
        age = _since(run.get("heartbeat") or run["start_time"])
        ended = run.get("stop_time")
        seconds = None if ended is None else _since(run["start_time"]) - _since(ended)
        files = {str(name): str(value) for name, value in (run.get("files") or {}).items()}
        # A heartbeat tells of processes elsewhere only, and only where both clocks say that it stopped: that of
        # who wrote it and that of the disk. One of them may have been set.
        over = status == RUNNING and gone(run.get("host", {}).get("process", {}))
        if over is None:
            over = min(age, _untouched(file)) > STALE
    except FileNotFoundError:
        return None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _corrupt(file, f"{type(error).__name__}: {error}") from error
    if status == RUNNING:
        return Attempt(trial_id, number, path, DEAD if over else RUNNING, {}, heartbeat_age=age)
    if status != COMPLETED:
        result = {}
    failure = _failure(run.get("fail_trace")) if status == FAILED else ""
    return Attempt(trial_id, number, path, status, result, failure, None, seconds, files)


def _read(file: Path) -> dict[str, Any]:
    """A JSON object; waits a moment for one that another program is writing in place."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            break
        except ValueError as error:
            if time.monotonic() > deadline:
                raise _corrupt(file, str(error)) from error
            time.sleep(PATIENCE / 10)
        except OSError as error:
            raise UserError(f"{file}: it cannot be read ({error.strerror}).") from error
    if not isinstance(found, dict):
        raise _corrupt(file, "it is not a JSON object")
    return found


def _corrupt(file: Path, what: str, kind: str = "record") -> UserError:
    what = " ".join(what.split())
    return UserError(
        f"{file}: this {kind} of a run is corrupt ({what}); nothing was changed. Move the folder "
        f"{file.parent.name} out of {file.parent.parent} and run again: that trial is then rerun."
    )


def _untouched(file: Path) -> float:
    """Seconds since a file was written, by the clock of its disk."""
    return time.time() - file.stat().st_mtime


def _since(text: str) -> float:
    """Seconds since a moment that Sacred wrote (UTC without saying so)."""
    moment = datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)
    return (datetime.datetime.now(datetime.UTC) - moment).total_seconds()


def _failure(trace: object) -> str:
    """The last line of a stored traceback, without our wrapper's own name."""
    lines = "".join(trace).strip().splitlines() if isinstance(trace, list) else []
    return lines[-1].removeprefix("ablate.track.recorder.TrialFailed: ") if lines else "unknown"
