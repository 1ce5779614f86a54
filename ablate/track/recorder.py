"""Record a cohort: one Sacred run per trial attempt, all of them open while the cohort trains.

S trials train in one process, so S runs are nested through Sacred's public interface: the main
function of run k opens run k + 1, the innermost calls the body. All are RUNNING with heartbeats
while the body works, and each ends with its own status:

- COMPLETED with a flat dict of numbers as its result;
- FAILED when its own outcome says so, or (all of them) when the body raised;
- INTERRUPTED on SIGINT, SIGTERM, or when the body was refused (UserError, full disk), since then
  the trial isn't at fault.

Afterwards each run is read back from the disk, since Sacred says COMPLETED also when its observer
failed.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablate.errors import UserError
from ablate.track import observers as places
from ablate.track import process, provenance
from ablate.track.files import FULL, csv_text, refusal
from ablate.track.sacred_import import (
    SETTINGS,
    Experiment,
    HostInfoGetter,
    PackageDependency,
    Source,
)
from ablate.track.signals import Interrupted, Signals
from ablate.track.values import Plain, encode, encode_all

__all__ = ["Entry", "Interrupted", "Log", "NotRecorded", "Outcome", "Recorded", "record"]

# Output capture is global to the process and would mix the cohort's runs; sources, packages and
# hardware are gathered once a process by `provenance` instead of once a run.
SETTINGS.CAPTURE_MODE = "no"
SETTINGS.DISCOVER_SOURCES = "none"
SETTINGS.DISCOVER_DEPENDENCIES = "none"
SETTINGS.HOST_INFO.INCLUDE_GPU_INFO = False
SETTINGS.HOST_INFO.INCLUDE_CPU_INFO = False

POINTS = 500  # points of a metric kept densely; then every 2nd for as many, every 4th, ...
CURVE = "curve.csv"
SERIES = "series.csv"
_logger = logging.getLogger("ablate.track.sacred")
_logger.propagate = False
_logger.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Entry:
    """A trial to record. `config` is plain JSON and holds the whole configuration with its seed."""

    trial_id: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What the body found for one trial.

    metrics: numbers by name (whatever `float()` takes). failure: one line, when the trial failed.
    artifacts: files to keep in the run's folder, copied before `record` returns. curve: rows of
    numbers over the updates, kept as `curve.csv`. series: rows (response, index, value) of what runs
    over an index, kept as `series.csv`.
    """

    metrics: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""
    artifacts: Sequence[Path] = ()
    curve: Sequence[Mapping[str, Any]] = ()
    series: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Recorded:
    """How a run ended, as read back from the disk."""

    trial_id: str
    run_id: str
    path: Path
    status: str
    result: dict[str, Plain]
    failure: str = ""
    trace: str = ""


class NotRecorded(UserError):
    """Runs ended but the store doesn't hold them as they ended (a full disk, a deleted folder)."""


class TrialFailed(Exception):
    """Ends one run as FAILED; never leaves `record`."""


class Log:
    """What the body may say about one trial while it works."""

    def __init__(self, run: Any, storage: places.TrialStorage, signals: Signals) -> None:
        self.trial_id = storage.trial_id
        self.run_id = storage.run_id
        self.path = Path(str(storage.dir))
        self._run = run
        self._signals = signals
        self._kept: dict[str, tuple[int, int, int]] = {}  # name -> seen, kept at stride, stride
        self._held: dict[str, tuple[int, Plain]] = {}  # the latest point, when it was thinned out

    def metric(self, name: str, value: Any, step: int) -> None:
        """Log one point (any one-element number); thinned as it grows, the last is always kept.

        Raises Interrupted when a signal to stop was swallowed by the body.
        """
        self._signals.check()
        plain = encode(value)
        seen, kept, stride = self._kept.get(name, (0, 0, 1))
        if seen % stride == 0:
            self._run.log_scalar(name, plain, int(step))
            self._held.pop(name, None)
            kept += 1
            if kept == POINTS:
                kept, stride = 0, stride * 2
        else:
            self._held[name] = (int(step), plain)
        self._kept[name] = (seen + 1, kept, stride)

    def info(self, **values: Any) -> None:
        """Remember plain JSON values beside the result: times, device, anything not a metric."""
        json.dumps(values, allow_nan=False)  # refuse here what the heartbeat would choke on
        self._run.info = {**self._run.info, **values}  # replaced whole: another thread reads it

    def flush(self) -> None:
        """Log the latest point of each metric where thinning has held it back."""
        for name, (step, plain) in self._held.items():
            self._run.log_scalar(name, plain, step)
        self._held.clear()


class _Tracked(Experiment):
    """An experiment whose sources and git state are gathered once a process (Sacred asks for them once a file)."""

    def get_experiment_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super().get_experiment_info()
        info["sources"] = [_source(file) for file in provenance.sources()]
        info["repositories"] = [dict(state) for state in provenance.repositories()]
        return info


class _Run:
    """One trial's run, from opening to verification."""

    def __init__(self, entry: Entry, store: Path, urls: Sequence[str], name: str) -> None:
        self.entry = entry
        self.storage = places.TrialStorage(store, entry.trial_id)
        self.outcome: Outcome | None = None
        self.result: dict[str, Plain] = {}
        self.log: Log | None = None
        self.error: Exception | None = None
        experiment: Any = _Tracked(
            name,
            base_dir=str(provenance.ROOT),
            save_git_info=False,
            additional_host_info=[
                HostInfoGetter(process.identity, "process"),
                HostInfoGetter(provenance.hardware, "hardware"),
            ],
        )
        experiment.logger = _logger
        experiment.dependencies.update(
            PackageDependency(*package) for package in provenance.packages().items()
        )
        experiment.observers.append(self.storage)
        experiment.observers.extend(places.observer_from_url(url) for url in urls)
        # Through JSON: a list that two keys share would otherwise be stored as a reference.
        try:
            experiment.add_config(json.loads(json.dumps(dict(entry.config), allow_nan=False)))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"trial {entry.trial_id}: its configuration can't be stored: {one_line(error)}"
            ) from error
        self.experiment: Any = experiment

    def close(self, sacred_run: Any) -> dict[str, Plain]:
        """Keep the artifacts and give the result; raises TrialFailed for a failed trial."""
        assert self.outcome is not None
        self.result = encode_all(self.outcome.metrics)
        for name, lines in ((CURVE, self.outcome.curve), (SERIES, self.outcome.series)):
            if lines:
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / name
                    path.write_text(_csv(lines), encoding="utf-8", newline="")
                    self._keep(sacred_run, path)
        for path in self.outcome.artifacts:
            self._keep(sacred_run, Path(path))
        if self.outcome.failure:
            raise TrialFailed(self.outcome.failure)
        return self.result

    def _keep(self, sacred_run: Any, path: Path) -> None:
        """Copy an artifact; raises Refused when it isn't there whole (Sacred only warns)."""
        sacred_run.add_artifact(str(path))
        copy = Path(str(self.storage.dir)) / path.name
        if copy.is_file() and copy.stat().st_size == path.stat().st_size:
            return
        trouble = self.storage.trouble
        if trouble is not None and trouble.errno in FULL:
            raise places.Refused(refusal(copy, trouble)) from trouble
        what = "this artifact could not be kept."
        if not copy.parent.is_dir():
            what = "the run's folder was deleted while it ran."
        raise places.Refused(NotRecorded(f"{copy}: {what}"))

    def recorded(self) -> Recorded:
        """How the run ended."""
        path = self.storage.store / self.storage.run_id
        status, failure, trace = "COMPLETED", "", ""
        if self.error is not None:
            status = "FAILED"
            failure = one_line(self.error)
            trace = "".join(traceback.format_exception(self.error))
        result = {} if self.error else self.result
        name = self.entry.trial_id
        return Recorded(name, self.storage.run_id, path, status, result, failure, trace)

    def problem(self, ended: Recorded) -> str:
        """Why the store doesn't hold the run as it ended; empty when it does."""
        found: dict[str, Any] = {}
        try:
            found = json.loads((ended.path / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            return self._why(ended, f"run.json can't be read back ({one_line(error)})")
        if found.get("status") != ended.status:
            return self._why(ended, f"it ended {ended.status} but is stored {found.get('status')}")
        if ended.status == "COMPLETED" and found.get("result") != ended.result:
            return self._why(ended, "its stored result is not the one it had")
        return ""

    def release(self) -> None:
        """Let go of what the body held (its data, a traceback's tensors) without waiting for gc."""
        self.experiment = self.error = None

    def _why(self, ended: Recorded, what: str) -> str:
        trouble = self.storage.trouble
        if not ended.path.is_dir():
            return f"{ended.path}: the run's folder was deleted while it ran."
        if trouble is not None and trouble.errno in FULL:
            return str(refusal(ended.path, trouble))
        return f"{ended.path}: the run is not recorded: {what}."


def record(
    entries: Sequence[Entry],
    body: Callable[[Sequence[Log]], Sequence[Outcome]],
    store: Path,
    observers: Sequence[str] = (),
    name: str = "ablate",
) -> list[Recorded]:
    """Open one run for each entry, call `body` once with their logs, close each by its outcome.

    `observers` are addresses of further places (`observer_from_url`). An exception of the body ends
    all runs FAILED and is returned, not raised; so is a single outcome's failure.
    Raises Interrupted after SIGINT or SIGTERM, UserError when the body raised one or the disk is
    full, NotRecorded when the store doesn't hold the runs as they ended.
    """
    _check(entries)
    store = Path(store)
    runs = [_Run(entry, store, observers, name) for entry in entries]
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + 30 * len(runs))  # each nested run takes about ten frames
    try:
        with Signals() as signals:
            try:
                _open(runs, 0, body, signals)
            except places.Refused as refused:
                raise refused.error from refused.error.__cause__
            ended = [run.recorded() for run in runs]
            problems = [run.problem(one) for run, one in zip(runs, ended, strict=True)]
    finally:
        sys.setrecursionlimit(limit)
        for run in runs:
            run.release()
    signals.check()
    wrong = [problem for problem in problems if problem]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise NotRecorded(wrong[0] + more)
    return ended


def one_line(error: BaseException) -> str:
    """`Type: message` on one line, as failures are shown everywhere."""
    text = " ".join(str(error).split())
    if isinstance(error, TrialFailed | UserError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _open(
    runs: list[_Run],
    depth: int,
    body: Callable[[Sequence[Log]], Sequence[Outcome]],
    signals: Signals,
) -> None:
    """Open run `depth` and within it the rest; the innermost level calls the body.

    A body's exception passes through every level, so that Sacred ends each run FAILED with its
    trace, and is kept with each run instead of raised.
    """
    if depth == len(runs):
        _work(runs, body, signals)
        return
    run = runs[depth]

    def main(_run: Any) -> dict[str, Plain]:
        run.log = Log(_run, run.storage, signals)
        try:
            _open(runs, depth + 1, body, signals)
        finally:
            run.log.flush()
        return run.close(_run)

    run.experiment.main(main)
    try:
        run.experiment.run()
    except TrialFailed as failed:
        run.error = failed
    except places.Refused:
        raise
    except Exception as error:
        if not run.storage.run_id:  # it never began, so no trial is at fault
            line = f"trial {run.entry.trial_id}: its run can't be started: {one_line(error)}"
            raise places.Refused(UserError(line)) from error
        run.error = error
        if run.outcome is None and depth > 0:
            raise


def _work(
    runs: list[_Run], body: Callable[[Sequence[Log]], Sequence[Outcome]], signals: Signals
) -> None:
    logs = [run.log for run in runs if run.log is not None]
    store = runs[0].storage.store  # where no file is named, a full disk is most likely this one
    try:
        with signals.through():
            outcomes = list(body(logs))
    except UserError as error:
        raise places.Refused(error) from error
    except OSError as error:
        if error.errno in FULL:
            raise places.Refused(refusal(Path(error.filename or store), error)) from error
        raise
    if len(outcomes) != len(runs):
        raise TypeError(f"the body gave {len(outcomes)} outcomes for {len(runs)} trials")
    for run, outcome in zip(runs, outcomes, strict=True):
        run.outcome = outcome


def _check(entries: Sequence[Entry]) -> None:
    ids = [entry.trial_id for entry in entries]
    if not ids or len(set(ids)) != len(ids):
        raise ValueError(f"record: trial ids must be given and differ, found {ids}")
    for entry in entries:
        seed = entry.config.get("seed")
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
            # without it Sacred would make one up; NumPy refuses what is out of range
            raise UserError(
                f"trial {entry.trial_id}: its seed is {seed!r}; allowed: an integer 0 .. 2**32 - 1"
            )


@functools.cache
def _source(file: str) -> tuple[str, str]:
    """A source as a run lists it: its path below the toolkit's folder, and the hash of its content."""
    name, digest = Source.create(file, save_git_info=False).to_json(str(provenance.ROOT))
    return name, digest


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """CSV text of the rows, numbers written so that they read back exactly; NaN is empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return csv_text(columns, [[_cell(row.get(name)) for name in columns] for row in rows])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int | str):
        return str(value)
    number = float(value)
    return "" if math.isnan(number) else repr(number)
