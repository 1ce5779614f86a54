"""What the user sees while cohorts run: a live display on a terminal, plain lines elsewhere; and the same in a file,
for who looks on."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ablate.launch.base import Died, Event, Failed, Finished, Job, Progress, Started
from ablate.track import process
from ablate.track.files import replace
from ablate.track.store import STALE

Ended = Finished | Failed | Died
LEFT = ".progress.json"  # beside the runs: the time left, and what each worker does


POST = 2.0  # seconds between two writings of it


def told_by(post: Path) -> dict[str, Any] | None:
    """What the process that runs a study now last said, seconds `left` (None while nobody can know) and `workers` with
    their labels, fractions and texts; None where none runs it."""
    try:
        found = json.loads(post.read_text(encoding="utf-8"))
        over = process.gone(found["process"])
        if over is None:  # on another machine
            over = time.time() - post.stat().st_mtime > STALE
        return None if over else {"left": found["left"], "workers": found["workers"]}
    except (KeyError, OSError, TypeError, ValueError):
        return None


def by_value(event: Ended) -> tuple[int, int]:
    """How many trials of a job that has ended completed and failed, when its value is a list of `Recorded`."""
    if not isinstance(event, Finished):
        return 0, 0
    value = event.value if isinstance(event.value, list | tuple) else []
    failed = sum(getattr(one, "status", "") == "FAILED" for one in value)
    return event.job.trials - failed, failed


class Display:
    """Trials done, failed, without a result, running, time left, and what each worker does.

    Context manager; `handle` takes the launcher's events. `done` and `failed` are the trials that
    were already there, `settled` tells how many trials of a job that has ended completed and how many
    failed (the others have no result), `every` is the number of seconds between plain lines, `post` the file that
    `told_by` reads; it is written every two seconds while events come, and taken away at the end.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        done: int = 0,
        failed: int = 0,
        settled: Callable[[Ended], tuple[int, int]] = by_value,
        console: Console | None = None,
        every: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
        post: Path | None = None,
    ) -> None:
        self.total = done + failed + sum(job.trials for job in jobs)
        self.done = done
        self.failed = failed
        self.lost = 0  # trials that have ended without a result
        self.console = console or Console()
        self._settled = settled
        self._cost = sum(job.cost for job in jobs)
        self._spent = 0.0  # cost of the jobs that have ended
        self._busy: dict[int, tuple[Job, float, str]] = {}  # worker -> job, fraction, what it does
        self._every = every
        self._clock = clock
        self._begun = clock()
        self._told = self._begun
        self._post, self._posted = post, self._begun - POST
        self._live: Live | None = None

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=self._render, console=self.console, refresh_per_second=4
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._busy.clear()
        if self._post is not None:
            with contextlib.suppress(OSError):
                self._post.unlink(missing_ok=True)
        if self._live is not None:
            self._live.stop()
        else:
            self.console.print(self.line(), soft_wrap=True, highlight=False, markup=False)

    @property
    def running(self) -> int:
        """Trials in the hands of a worker."""
        return sum(job.trials for job, _, _ in self._busy.values())

    def handle(self, event: Event) -> None:
        """Take one event of the launcher."""
        if self._live is not None and not self._live.is_started:
            self._live.start()  # not before: its thread would keep workers from being copies of this process
        if isinstance(event, Started):
            self._busy[event.worker] = (event.job, 0.0, "")
        elif isinstance(event, Progress):
            self._busy[event.worker] = (event.job, event.fraction, event.text)
        else:
            self._end(event)
        if self._post is not None and self._clock() - self._posted >= POST:
            self._posted = self._clock()
            with contextlib.suppress(OSError):  # who looks on is not worth stopping for
                replace(self._post, json.dumps(self._record()))
        if self._live is None and self._clock() - self._told >= self._every:
            self._told = self._clock()
            self.console.print(self.line(), soft_wrap=True, highlight=False, markup=False)

    def _end(self, event: Ended) -> None:
        job = event.job
        self._busy.pop(event.worker, None)
        self._spent += job.cost
        done, failed = self._settled(event)
        lost = job.trials - done - failed
        self.done, self.failed, self.lost = self.done + done, self.failed + failed, self.lost + lost
        if isinstance(event, Finished):
            parts = ((failed, "trials failed"), (lost, "have no result"))
            why = ", ".join(f"{n} of {job.trials} {what}" for n, what in parts if n)
        else:
            why = event.error
        if why:
            word = "failed" if failed else "no result from"
            self.console.print(
                f"[red]{word}[/red] {escape(job.label or job.id)}: {escape(why)}",
                markup=True,
                soft_wrap=True,
                highlight=False,
            )

    def left(self) -> float | None:
        """Seconds left at the speed so far; None while nobody can know."""
        partial = sum(fraction * job.cost for job, fraction, _ in self._busy.values())
        spent = self._spent + partial
        elapsed = self._clock() - self._begun
        if spent <= 0 or elapsed <= 0:
            return None
        return max(self._cost - spent, 0.0) * elapsed / spent

    def _record(self) -> dict[str, Any]:
        return {
            "process": process.identity(),
            "left": self.left(),
            "workers": [
                {"label": job.label or job.id, "fraction": fraction, "text": text}
                for _, (job, fraction, text) in sorted(self._busy.items())
            ],
        }

    def line(self) -> str:
        """The state in one line."""
        left = self.left()
        parts = [f"{self.done}/{self.total} trials done", f"{self.failed} failed"]
        if self.lost:
            parts.append(f"{self.lost} without a result")
        parts.append(f"{self.running} running")
        if left is not None and self._ended < self.total:
            parts.append(f"{_time(left)} left")
        parts.append(f"{_time(self._clock() - self._begun)} so far")
        return ", ".join(parts)

    @property
    def _ended(self) -> int:
        return self.done + self.failed + self.lost

    def _render(self) -> RenderableType:
        bar = ProgressBar(total=max(self.total, 1), completed=self._ended, width=40)
        table = Table.grid(padding=(0, 2))
        for number, (job, fraction, text) in sorted(self._busy.items()):
            table.add_row(
                Text(f"worker {number + 1}", style="dim"),
                Text(job.label or job.id),
                Text(f"{fraction:4.0%}"),
                Text(text, style="dim", overflow="ellipsis", no_wrap=True),
            )
        return Group(bar, Text(self.line()), table)


def _time(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
