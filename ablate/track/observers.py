"""Where Sacred runs are stored: files always, a Mongo or SQL database by option.

Sacred's own observers are wrapped against their traps: ids that race, files written in place,
events from two threads, results that a database column can't hold, sources stored with every run.
"""

from __future__ import annotations

import datetime
import functools
import importlib.util
import itertools
import json
import mimetypes
import os
import random
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ablate.errors import UserError, public
from ablate.track import seal
from ablate.track.files import refusal, replace
from ablate.track.sacred_import import (
    FileStorageObserver,
    MongoObserver,
    RunObserver,
    SacredInterrupt,
    SqlObserver,
)

RECORD = "run.json"
PATIENCE = 5  # seconds, not pymongo's half minute, until a database that doesn't answer is given up
FIRST = 1000  # priority: the file store names the run, the other observers take that name
SQL = ("sqlite", "postgresql", "mysql", "mariadb", "mssql", "oracle")


class Refused(SacredInterrupt):
    """Carries a UserError through Sacred: the trial isn't at fault, so its run isn't FAILED."""

    STATUS = "INTERRUPTED"

    def __init__(self, error: UserError) -> None:
        super().__init__(str(error))
        self.error = error


def _locked(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: TrialStorage, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return method(self, *args, **kwargs)

    return call


_kept: dict[
    tuple[str, str, str], str
] = {}  # store, source file and its hash -> the name of its copy there


class TrialStorage(FileStorageObserver):
    """File storage whose runs are named `<trial id>`, `<trial id>.2`, `<trial id>.3`, ...

    Making the folder is the claim, so two processes never share one. Files are replaced whole, so
    that neither a reader nor `kill -9` ever meets half a file; strict JSON. The heartbeat thread
    and the main thread take turns.
    """

    def __init__(self, store: Path, trial_id: str) -> None:
        super().__init__(store, priority=FIRST)
        self.store = Path(store)
        self.trial_id = trial_id
        self.run_id = ""
        self.trouble: OSError | None = None  # why the latest write failed
        self.kept: dict[str, str] = {}  # artifact -> its hash
        self._lock = threading.RLock()

    def started_event(
        self,
        ex_info: dict,
        command: str,
        host_info: dict,
        start_time: datetime.datetime,
        config: dict,
        meta_info: dict,
        _id: str | None,
    ) -> str:
        """Claim the next free attempt of the trial; raises Refused when it can't be written."""
        attempt = 1
        while True:
            name = self.trial_id if attempt == 1 else f"{self.trial_id}.{attempt}"
            # A copy of ex_info: Sacred's file observer alters it under the eyes of the next one.
            info = dict(ex_info)
            try:
                super().started_event(info, command, host_info, start_time, config, meta_info, name)
            except FileExistsError:
                attempt += 1
                continue
            except OSError as error:
                raise Refused(refusal(self.store / name, error)) from error
            self.run_id = name
            return name

    def save_json(self, obj: dict[str, Any], filename: str) -> None:
        """Replace one JSON file of the run, the record with its hash; remembers why it failed."""
        if filename == RECORD:
            obj = {**obj, "files": self.kept}
            obj[seal.KEY] = seal.of_run(self.trial_id, obj)
        # Without an indent: with one Python's own encoder would take longer than all else that a small run does.
        text = json.dumps(obj, sort_keys=True, allow_nan=False, default=_plain)
        try:
            replace(Path(str(self.dir)) / filename, text)
        except OSError as error:
            self.trouble = error
            raise

    def save_sources(self, ex_info: dict[str, Any]) -> list[list[str]]:
        """Where each source is kept; a process that records many runs copies and hashes it once a store."""
        folder = Path(self.source_dir)
        there = set(os.listdir(folder)) if folder.is_dir() else set()
        found = []
        for name, digest in ex_info["sources"]:
            key = (str(folder), name, digest)
            if _kept.get(key) not in there:
                path = os.path.join(ex_info["base_dir"], name)
                _kept[key] = Path(self.find_or_save(path, folder)).name
            found.append([name, f"{folder.name}/{_kept[key]}"])
        return found

    def save_file(self, filename: str, target_name: str | None = None) -> None:
        """Copy an artifact; takes half a copy away again and remembers why it failed."""
        name = target_name or os.path.basename(filename)
        copy = Path(str(self.dir)) / name
        try:
            super().save_file(filename, target_name)
            self.kept[name] = seal.of_file(copy)
        except OSError as error:
            self.trouble = error
            copy.unlink(missing_ok=True)
            raise

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    heartbeat_event = _locked(FileStorageObserver.heartbeat_event)
    completed_event = _locked(FileStorageObserver.completed_event)
    interrupted_event = _locked(FileStorageObserver.interrupted_event)
    failed_event = _locked(FileStorageObserver.failed_event)
    artifact_event = _locked(FileStorageObserver.artifact_event)
    log_metrics = _locked(FileStorageObserver.log_metrics)


_stored: dict[tuple[str, str, str], Any] = {}  # database, source file and its hash -> its id there


class MongoRuns(MongoObserver):
    """Sacred's Mongo observer, which takes a name once, stores each source anew for each run (it looks for a hash that
    GridFS no longer keeps), prints to standard output, and waits a minute at the end for a server that is gone."""

    run_entry: Any

    def __init__(self, url: str, name: str) -> None:
        super().__init__(url=url, db_name=name, serverSelectionTimeoutMS=1000 * PATIENCE)
        self.place = f"{url} {name}"

    def insert(self) -> None:
        """Store the run under its name; where another folder's run has that name, as `NAME@2`, `NAME@3`, ..."""
        from pymongo.errors import DuplicateKeyError

        name = self.run_entry["_id"]
        for number in itertools.count(2):
            try:
                self.runs.insert_one(self.run_entry)
            except DuplicateKeyError:
                self.run_entry["_id"] = f"{name}@{number}"
            else:
                return

    def save(self) -> None:
        """Store the run as it is now; raises what the library raises."""
        self.runs.update_one({"_id": self.run_entry["_id"]}, {"$set": self.run_entry}, upsert=True)

    def final_save(self, attempts: int) -> None:
        """As `save`: who calls it says that the server is gone."""
        self.save()

    def save_sources(self, ex_info: dict[str, Any]) -> list[list[Any]]:
        """Name and id of each source file, which the database keeps once."""
        found = []
        for name, digest in ex_info["sources"]:
            path = os.path.join(ex_info["base_dir"], name)
            key = (self.place, path, digest)
            if key not in _stored:
                there = self.fs.find_one({"filename": path, "metadata.md5": digest})
                if there is None:
                    content = Path(path).read_bytes()
                    _stored[key] = self.fs.put(content, filename=path, metadata={"md5": digest})
                else:
                    _stored[key] = there._id
            found.append([name, _stored[key]])
        return found

    def artifact_event(
        self, name: str, filename: str, metadata: Any = None, content_type: str | None = None
    ) -> None:
        """Store a file, of the type that its name tells."""
        known = content_type or mimetypes.guess_type(filename)[0] or "application/octet-stream"
        super().artifact_event(name, filename, metadata, known)


class Database(RunObserver):
    """A database observer: a failure to start is the user's to mend, not the trial's fault. One that stops answering
    later is told of once and left alone: the run goes on, and its files are complete."""

    def __init__(self, inner: RunObserver, url: str, scalar: bool, tries: int = 1) -> None:
        self.inner: Any = inner
        self.url = public(url)
        self.scalar = scalar  # the SQL schema's result is one number: there the score is kept
        self.tries = tries  # several processes that make the tables at once get in each other's way
        self.priority = inner.priority
        self.started = False  # and answering since
        self._lock = threading.RLock()  # the heartbeat's thread tells it too

    def started_event(self, *args: Any, **kwargs: Any) -> Any:
        """Pass on; raises Refused with one line when the database doesn't answer."""
        for number in range(self.tries):
            try:
                name = self.inner.started_event(*args, **kwargs)
            except Exception as error:
                trouble = error
                if number + 1 < self.tries:
                    self.inner.session.rollback()
                    time.sleep(random.uniform(0.05, 0.3))
            else:
                self.started = True
                return name
        line = public((str(trouble).splitlines() or [""])[0])[:200]
        refused = UserError(f"observer {self.url}: {type(trouble).__name__}: {line}")
        raise Refused(refused) from trouble

    def answers(self) -> None:
        """Raise what the library raises when the database doesn't."""
        if self.scalar:
            self.inner.engine.connect().close()
        else:
            self.inner.runs.database.client.server_info()

    def heartbeat_event(self, info: dict, captured_out: str, beat_time: Any, result: Any) -> None:
        """Pass on, with what the schema can hold."""
        self._pass("heartbeat_event", info, captured_out, beat_time, self._fit(result))

    def completed_event(self, stop_time: Any, result: Any) -> None:
        """Pass on, with what the schema can hold."""
        self._pass("completed_event", stop_time, self._fit(result))

    def interrupted_event(self, *args: Any, **kwargs: Any) -> None:
        """Pass on."""
        self._pass("interrupted_event", *args, **kwargs)

    def failed_event(self, *args: Any, **kwargs: Any) -> None:
        """Pass on."""
        self._pass("failed_event", *args, **kwargs)

    def artifact_event(self, *args: Any, **kwargs: Any) -> None:
        """Pass on."""
        self._pass("artifact_event", *args, **kwargs)

    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        """Pass on."""
        self._pass("log_metrics", *args, **kwargs)

    def join(self) -> None:
        """Pass on."""
        self._pass("join")

    def _pass(self, event: str, *args: Any, **kwargs: Any) -> None:
        """Tell the library's observer, unless the database never answered or no longer does."""
        with self._lock:
            if not self.started:
                return
            try:
                getattr(self.inner, event)(*args, **kwargs)
            except Exception as error:
                self.started = False
                warnings.warn(
                    f"observer {self.url}: it no longer takes what a run tells ({type(error).__name__}); the run "
                    "goes on, and is complete in the files under runs/.",
                    stacklevel=2,
                )

    def _fit(self, result: Any) -> Any:
        if self.scalar and isinstance(result, dict):
            score = result.get("score")
            return score if isinstance(score, float) else None
        return result


def observer_from_url(url: str) -> RunObserver:
    """A second place for runs: `mongo://host:port/database` or an SQLAlchemy address.

    Raises UserError for an unknown scheme or a missing library. Warns for sqlite, which loses runs
    when many start at once.
    """
    scheme = urlsplit(url).scheme.partition("+")[0]
    if scheme in ("mongo", "mongodb"):
        _need("pymongo", url)
        address = "mongodb" + url.removeprefix(urlsplit(url).scheme)
        name = urlsplit(url).path.strip("/") or "sacred"
        return Database(MongoRuns(address, name), url, scalar=False)
    if scheme in SQL:
        _need("sqlalchemy", url)
        if scheme == "sqlite":
            warnings.warn(
                f"observer {public(url)}: sqlite loses runs when many start at once; the files "
                "under runs/ stay complete. Use one worker, or a database server.",
                stacklevel=2,
            )
        return Database(SqlObserver(url), url, scalar=True, tries=8)
    raise UserError(
        f"observer {public(url)}: '{scheme or public(url)}' is not known; allowed: "
        f"mongo://HOST:PORT/DATABASE, {', '.join(name + '://...' for name in SQL)}."
    )


def check(url: str) -> None:
    """Raise UserError unless runs can be stored there: before anything runs, not when the first one ends.

    The library and the driver must be installed, and the database must answer.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of every run
            made = observer_from_url(url)
        if isinstance(made, Database):
            made.answers()
    except UserError:
        raise
    except ImportError as error:
        raise UserError(
            f"observer {public(url)}: it needs {error.name}, which is missing: pip install {error.name}"
        ) from error
    except Exception as error:
        raise UserError(
            f"observer {public(url)}: it can't be used ({type(error).__name__}); allowed: the address of a "
            "database that answers."
        ) from error


def _need(library: str, url: str) -> None:
    if importlib.util.find_spec(library) is None:
        raise UserError(
            f"observer {public(url)}: it needs {library}, which is missing: pip install {library}"
        )


def _plain(value: object) -> object:
    """What Sacred hands over beside plain JSON: dates, paths, NumPy scalars."""
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    item = getattr(value, "item", None)
    return item() if callable(item) else repr(value)
