"""What every launcher takes and tells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Job:
    """A piece of work for one worker: a cohort.

    payload: anything that can be pickled. trials: how many trials it holds. cost: its expected
    size in any unit, used for the time left.
    """

    id: str
    payload: Any
    label: str = ""
    trials: int = 1
    cost: float = 1.0


@dataclass(frozen=True)
class Started:
    """A worker has taken a job."""

    worker: int
    job: Job


@dataclass(frozen=True)
class Progress:
    """A job's own word on how far it is (fraction 0 .. 1) and what it does."""

    worker: int
    job: Job
    fraction: float
    text: str


@dataclass(frozen=True)
class Finished:
    """A job has ended and gave `value`."""

    worker: int
    job: Job
    value: Any


@dataclass(frozen=True)
class Failed:
    """A job raised. `refused` says that it was a UserError: the user's to mend, not the trial's."""

    worker: int
    job: Job
    error: str
    trace: str
    refused: bool = False


@dataclass(frozen=True)
class Died:
    """A worker ended in the middle of a job, which counts as failed; a new worker takes over."""

    worker: int
    job: Job
    exitcode: int
    error: str


Event = Started | Progress | Finished | Failed | Died
Report = Callable[[float, str], None]


class Stopped(KeyboardInterrupt):
    """SIGINT or SIGTERM came; the workers have ended, their runs say INTERRUPTED."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by signal {signum}")
        self.signum = signum


class Launcher(Protocol):
    """Runs `work(payload, report)` for each job and tells `on_event` what happens, in this process.

    `work` is the dotted path of a function. Raises Stopped after a signal, UserError when no worker
    can start, and what `on_event` raises; in each case no worker is left running.
    """

    def __call__(
        self,
        jobs: Sequence[Job],
        work: str,
        workers: int,
        on_event: Callable[[Event], None],
        plugins: Sequence[str] = (),
    ) -> None: ...
