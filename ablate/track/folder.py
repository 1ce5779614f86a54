"""A study's folder under `results/`: what lies where, whose it is, and who is writing to it."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from ablate.config import STANDARD
from ablate.errors import UserError
from ablate.study.registration import Declared, entered
from ablate.track import seal
from ablate.track.files import write_atomic
from ablate.track.lock import Lock

FORMAT = 2
OTHERS = ("runs", "checkpoints", "paper")  # folders beside those of profiles


class Named(Protocol):
    """A loaded study, as far as it names a folder."""

    @property
    def study(self) -> str: ...

    @property
    def profile(self) -> str: ...

    @property
    def streams(self) -> str: ...

    @property
    def own_streams(self) -> str: ...


class StudyFolder:
    """`results/<study>/`: the run store, the tables and study.json, which says whose they are.

    A profile other than the study's own has a whole folder of the same kind below it, named after the
    profile, so that it never touches the study's results. Opening it touches nothing; raises UserError
    when the folder is another study's, or was written by a version of `ablate` with another format.
    """

    def __init__(self, root: Path, study: str, profile: str = STANDARD) -> None:
        if profile in OTHERS or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", profile):
            raise UserError(
                f"study '{study}': found the profile '{profile}', which can't name a folder beside "
                f"{', '.join(OTHERS)}; allowed: letters, digits, - and _."
            )
        self.root = Path(root) if profile == STANDARD else Path(root, profile)
        self.study = study
        self.runs = self.root / "runs"
        self.checkpoints = self.root / "checkpoints"
        self.table = self.root / "trials.csv"
        self.curves = self.root / "curves.csv"
        self.series = self.root / "series.csv"
        self.tuning = self.root / "tuning.csv"
        self.replications = self.root / "replications.csv"
        self.audit = self.root / "audit.json"
        self.registration = self.root / "study.json"
        self.read()

    def read(self) -> dict[str, Any]:
        """The content of study.json, checked; empty before the first run."""
        try:
            found = json.loads(self.registration.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if self.table.exists():
                raise UserError(
                    f"{self.root}: it holds trials.csv but no study.json, so nobody knows whose "
                    "results these are; put study.json back or move trials.csv away."
                ) from None
            return {}
        except (OSError, ValueError) as error:
            line = " ".join(str(error).split())
            raise UserError(
                f"{self.registration}: it cannot be read ({line}); nothing was changed. Put it back, "
                "for example from git."
            ) from error
        version = found.get("format") if isinstance(found, dict) else None
        if version != FORMAT:
            raise UserError(
                f"{self.registration}: written in format {version!r}; this version of ablate reads format "
                f"{FORMAT}. Nothing was changed: use the version that wrote it, or another folder."
            )
        if found.get("study") != self.study:
            raise UserError(
                f"{self.registration}: these are results of the study '{found.get('study')}', not of "
                f"'{self.study}'. Nothing was changed: use another folder."
            )
        if not isinstance(found.get("data", {}), dict):
            raise UserError(
                f"{self.registration}: 'data' holds no names with hashes; nothing was changed. Put the "
                "file back, for example from git."
            )
        return seal.opened(self.registration, found)

    def register(
        self,
        study_hash: str,
        data: Mapping[str, str],
        declared: Declared | None = None,
        results: int = 0,
    ) -> dict[str, Any]:
        """Write study.json before a run, and give what it holds.

        The time of the first run, and what was declared at each, stays for ever (`ablate.study.registration`).
        The study's hash is the latest run's; data sets are added, or renewed, by name. results: how many there are.
        """
        before = self.read()
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        content = {
            "format": FORMAT,
            "study": self.study,
            "study_hash": study_hash,
            "registered": before.get("registered", now),
            **({} if declared is None else entered(before, declared, results, now)),
            "data": dict(sorted({**before.get("data", {}), **data}.items())),
        }
        if content != before:
            write_atomic(self.registration, json.dumps(seal.sign(content), indent=1) + "\n")
        return content

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Held while a process schedules this study; raises UserError when another one does, here or elsewhere.

        A process that has ended, however it ended, holds it no longer (`ablate.track.lock`).
        """
        lock = Lock(self.runs / ".lock")
        if not lock.acquire():
            who = lock.holder() or {}
            raise UserError(
                f"{self.root}: the study is being run by process {who.get('pid', '?')} on {who.get('host', '?')}; "
                "wait for it, stop it, or look at it with: ablate status."
            )
        try:
            yield
        finally:
            lock.release()


def folder_of(results: Path, study: Named) -> StudyFolder:
    """The folder of a loaded study at its profile; a replication under other streams has one of its own."""
    made = StudyFolder(results / study.study, study.study, study.profile)
    if study.streams == study.own_streams:
        return made
    return StudyFolder(made.root, study.study, f"streams-{study.streams}")
