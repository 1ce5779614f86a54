"""What every launcher shares whose jobs run on other machines: a copy of the code, and a folder of messages.

The code that was submitted is the code that runs: `snapshot` copies it, with the user's plugins, under the hash of
what it holds, and a worker finds the copy first on its path.

A `Desk` is a folder in the study's run store, which every node sees. The driver lays jobs on it; a worker takes one
under a lock with signs of life, says how far it is, and leaves what it would have sent to its parent. All are small
files, each replaced whole. So the driver may end at any time: what was done meanwhile lies there for the next one.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import pickle
import shutil
import sys
import sysconfig
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.errors import UserError
from ablate.launch.base import Event, Failed, Finished, Job, Place, Progress
from ablate.launch.local import ONE_THREAD
from ablate.launch.worker import answer, find
from ablate.registry import COMPARATORS, load_plugin
from ablate.track import provenance
from ablate.track.files import refusal, replace, write_atomic
from ablate.track.lock import Lock, held

FOLDER = ".jobs"  # of a run store
SAID = 5.0  # seconds between two words of a job on how far it is
REPOSITORIES = provenance.KEPT


@dataclass(frozen=True)
class Snapshot:
    """A copy of the code. root: what comes first on a worker's path. plugins: what a worker loads: paths of copies,
    and names of modules."""

    root: Path
    plugins: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        """What a worker's process needs beside its own: the copy comes first, the current folder isn't looked into,
        and one thread computes."""
        path = [str(self.root), *(each or os.getcwd() for each in sys.path)]
        return {
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONSAFEPATH": "1",
            **ONE_THREAD,
        }


def snapshot(place: Place, plugins: Sequence[str] = ()) -> Snapshot:
    """Copy `ablate`, `baselines`, the plugins and the study's files beside the run store, once for the same content.

    A plugin that is a module, and not an installed one, is copied with its whole package.
    """
    ours = COMPARATORS.parent
    files = {
        path.relative_to(ours): path
        for package in (ours / "ablate", COMPARATORS)
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    own: dict[Path, int] = {}  # files of one folder lie in one folder of the copy
    loaded: list[Path | str] = []

    def beside(path: Path) -> Path:
        number = own.setdefault(path.resolve().parent, len(own))
        copy = Path("files", str(number), path.name)
        files[copy] = path.resolve()
        return copy

    for plugin in plugins:
        if plugin.endswith(".py"):
            loaded.append(beside(Path(plugin)))
        else:
            files |= _module(plugin)
            loaded.append(plugin)
    for path in place.files:
        beside(path)
    contents = {str(name): path.read_bytes() for name, path in sorted(files.items())}
    contents[REPOSITORIES] = json.dumps(provenance.repositories()).encode()
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    root = (place.runs / FOLDER / "code" / digest.hexdigest()[:16]).resolve()
    if not root.exists():
        _lay(root, contents)
    return Snapshot(
        root, tuple(str(root / one) if isinstance(one, Path) else one for one in loaded)
    )


def _lay(root: Path, contents: dict[str, bytes]) -> None:
    """Write a folder whole or not at all."""
    temporary = root.with_name(f".{root.name}.{uuid.uuid4().hex}")
    try:
        for name, content in contents.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_bytes(content)
        temporary.rename(root)
    except OSError as error:
        if not root.exists():  # else somebody else has just laid the same
            raise refusal(root, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _module(name: str) -> dict[Path, Path]:
    """The files of the module's top package by where they lie below its parent; none for an installed one."""
    top = name.partition(".")[0]
    spec = importlib.util.find_spec(top)
    origin = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
    installed = [
        Path(sysconfig.get_path(key)).resolve() for key in ("purelib", "platlib", "stdlib")
    ]
    if origin is None or any(origin.is_relative_to(each) for each in installed):
        return {}
    if not (spec and spec.submodule_search_locations):
        return {Path(origin.name): origin}
    return {
        path.relative_to(origin.parents[1]): path
        for path in origin.parent.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@dataclass(frozen=True)
class Sign:
    """A job's last word: when it was written (seconds, the file system's clock), how far it is, what it does."""

    written: float
    fraction: float
    text: str


class Desk:
    """The folder of messages of a study's run store; jobs are named by their ids, which are file names.

    waiting/ID: a job as it was laid. said/ID: how far it is. ended/ID: what it gave. held/ID/: who does it.
    """

    def __init__(self, runs: Path) -> None:
        self.folder = Path(runs).resolve() / FOLDER
        self.waiting = self.folder / "waiting"
        self.said = self.folder / "said"
        self.done = self.folder / "ended"
        self.held = self.folder / "held"
        self.token = self.folder / "token"

    # What the driver does.

    def open(self) -> str:
        """Make the folder; returns the word that a worker has to find in it (`seen`)."""
        word = uuid.uuid4().hex
        if self.token.exists():
            word = self.token.read_text(encoding="utf-8")
        else:
            write_atomic(self.token, word)
        for each in (self.waiting, self.said, self.done, self.held):
            each.mkdir(parents=True, exist_ok=True)
        return word

    def lay(self, job: Job, work: str, plugins: Sequence[str]) -> None:
        """Lay a job for a worker: the dotted path of a function, plugins to load before, the function's payload."""
        self.forget(job.id)
        _write(self.waiting / job.id, pickle.dumps((work, tuple(plugins), job.payload)))

    def ended(self) -> set[str]:
        """Ids of the jobs that have ended and were not taken yet."""
        return _names(self.done)

    def take(self, worker: int, job: Job) -> Event | None:
        """What a job gave, once: its files are then gone. None when it hasn't ended."""
        try:
            kind, *rest = pickle.loads((self.done / job.id).read_bytes())
        except FileNotFoundError:
            return None
        self.forget(job.id)
        if kind == "finished":
            return Finished(worker, job, pickle.loads(rest[0]))
        return Failed(worker, job, *rest)

    def forget(self, name: str) -> None:
        """Take away the files of a job."""
        for each in (self.waiting, self.said, self.done):
            (each / name).unlink(missing_ok=True)
        if self.age(name) is None:
            shutil.rmtree(self.held / name, ignore_errors=True)

    def signs(self, known: Mapping[str, Sign]) -> dict[str, Sign]:
        """The last word of the jobs that a worker has begun, where it is newer than the one that is known."""
        found = {}
        for name in _names(self.said):
            with contextlib.suppress(FileNotFoundError):
                path = self.said / name
                written = path.stat().st_mtime
                if name not in known or known[name].written != written:
                    fraction, text = json.loads(path.read_text(encoding="utf-8"))
                    found[name] = Sign(written, fraction, text)
        return found

    def age(self, name: str) -> float | None:
        """Seconds since the last sign of life of the worker that does a job; None when none does."""
        return Lock(self.held / name / "lock").age()

    def told(self) -> str:
        """How many jobs wait, are being done, and have ended without being taken; empty where there is none."""
        waiting, ended = _names(self.waiting), _names(self.done)
        ages = [age for name in _names(self.said) - ended if (age := self.age(name)) is not None]
        left = len(waiting - ended) - len(ages)
        run = f"{len(ages)} run (oldest sign of life {max(ages, default=0):.0f} s ago)"
        parts = [run] if ages else []
        parts += [f"{left} wait"] if left > 0 else []
        parts += [f"{len(ended)} have ended, for the next `run` to take"] if ended else []
        return f"jobs elsewhere: {', '.join(parts)}" if parts else ""

    # What a worker does.

    def seen(self, word: str) -> None:
        """Raise UserError unless this machine sees what the driver wrote."""
        try:
            found = self.token.read_text(encoding="utf-8")
        except OSError:
            found = ""
        if found != word:
            raise UserError(
                f"{self.folder}: {os.uname().nodename} doesn't see there what the driver wrote; keep results on a "
                "file system that all nodes share, under the same path."
            )

    def perform(self, name: str, patience: float = 0.0) -> bool:
        """Do a job, unless it has ended, was taken back or is done by another worker; whether it has ended now.

        patience: seconds for which another worker, who may be gone without a word, is waited for. What interrupts it
        (KeyboardInterrupt) is passed on; the job then waits as before.
        """
        end = time.monotonic() + patience
        while (self.waiting / name).exists() and not (self.done / name).exists():
            with held(self.held / name / "lock") as mine:
                if mine:
                    return self._perform(name)
            if time.monotonic() >= end:
                return False
            time.sleep(min(SAID, patience))
        return (self.done / name).exists()

    def _perform(self, name: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            if (self.done / name).exists():
                return True
            work, plugins, payload = pickle.loads((self.waiting / name).read_bytes())
            say = self._teller(name)
            say(("progress", 0.0, f"on {os.uname().nodename}"))
            message = _performed(work, plugins, payload, say)
            _write(self.done / name, pickle.dumps(message))
            return True
        return False

    def _teller(self, name: str) -> Callable[[tuple[Any, ...]], None]:
        """Writes how far a job is, at most every few seconds."""
        last = float("-inf")

        def say(message: tuple[Any, ...]) -> None:
            nonlocal last
            if time.monotonic() - last >= SAID:
                last = time.monotonic()
                with contextlib.suppress(OSError):  # no job fails for it
                    replace(self.said / name, json.dumps(message[1:]))

        return say


def _performed(
    work: str, plugins: Sequence[str], payload: Any, say: Callable[[tuple[Any, ...]], None]
) -> tuple[Any, ...]:
    try:
        for plugin in plugins:
            load_plugin(plugin)
        function = find(work)
    except UserError as error:
        return ("failed", str(error), "", True)
    return answer(function, payload, say)


def heard(sign: Sign, worker: int, job: Job) -> Progress:
    """A job's last word as an event."""
    return Progress(worker, job, sign.fraction, sign.text)


def _write(path: Path, content: bytes) -> None:
    """Replace a file; raises UserError in one line. It needs no place on the disk yet: what a machine loses that goes
    down is found missing, and done again unless it was recorded, for which the run store waits."""
    try:
        replace(path, content)
    except OSError as error:
        raise refusal(path, error) from error


def _names(folder: Path) -> set[str]:
    """Names of the files in a folder, apart from those that are being written."""
    try:
        return {name for name in os.listdir(folder) if not name.startswith(".")}
    except FileNotFoundError:
        return set()
