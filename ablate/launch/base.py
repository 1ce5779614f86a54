"""What every launcher takes and tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ablate import registry
from ablate.errors import UserError


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
    """SIGINT or SIGTERM came; the workers have ended, their runs say INTERRUPTED.

    left: a sentence on what goes on nevertheless, and how to end it; empty where nothing does.
    """

    def __init__(self, signum: int, left: str = "") -> None:
        super().__init__(f"stopped by signal {signum}")
        self.signum = signum
        self.left = left


@dataclass(frozen=True)
class Place:
    """Where a study is run from: what a launcher that leaves this machine brings along.

    study: its name. runs: the run store, on a file system that every node sees. files: the study's file and others
    of the user's that are kept beside the code, though no worker imports them. device: where cohorts train and act.
    """

    study: str
    runs: Path
    files: tuple[Path, ...] = ()
    device: str = "cpu"


class Launcher(Protocol):
    """Runs `work(payload, report)` for each job and tells `on_event` what happens, in this process.

    `work` is the dotted path of a function. Raises Stopped after a signal, UserError when no worker
    can start, and what `on_event` raises; in each case no worker of this machine is left running.
    """

    def __call__(
        self,
        jobs: Sequence[Job],
        work: str,
        workers: int,
        on_event: Callable[[Event], None],
        plugins: Sequence[str] = (),
    ) -> None: ...


class Elsewhere(Launcher, Protocol):
    """A launcher whose jobs run on other machines: a registered class, made from its options and a place.

    Its class attribute `Options`, a `registry.Section`, declares the options, given as `--cap 200` or
    `--option cap=200`.
    """

    def __init__(self, options: Any, place: Place) -> None: ...

    def check(self) -> None:
        """Raise UserError for what can't be had there, before anything is computed or submitted."""

    def foretell(self, costs: Sequence[float], fits: int) -> str:
        """A sentence: into how many jobs cohorts of these seconds go, how long they take, and what a fit costs."""


def made(name: str, options: Mapping[str, Any], place: Place) -> Launcher:
    """The launcher registered under a name, with its options.

    Raises UserError for an unknown name, an option that it doesn't have, or a value that is out of range.
    """
    found = registry.get("launcher", name, "--launcher")
    if hasattr(found, "Options"):
        launcher: Launcher = found(
            registry.checked(found.Options, options, f"--launcher {name}"), place
        )
        return launcher
    if options:
        raise UserError(
            f"--launcher {name}: found {', '.join(options)}; it has no options (--workers is how many work at once)."
        )
    plain: Launcher = found
    return plain


def elsewhere(launcher: Launcher) -> Elsewhere | None:
    """The launcher, if its jobs run on other machines."""
    return launcher if hasattr(launcher, "foretell") else None  # type: ignore[return-value]
