"""The local launcher: a pool of long-lived worker processes with a cap.

One thread of computation each: on a few cores one process a trial beats one trial on all cores.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from ablate.errors import UserError
from ablate.launch.base import Died, Event, Failed, Finished, Job, Progress, Started, Stopped
from ablate.registry import process, register

GRACE = 10.0  # seconds that workers get to end their runs before they are killed
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class _Worker:
    """One worker process and its connection."""

    def __init__(self, number: int, work: str, plugins: Sequence[str]) -> None:
        self.number = number
        self.job: Job | None = None
        ours, theirs = Pipe()
        command, environment = process(
            "ablate.launch.worker", str(theirs.fileno()), str(os.getpid())
        )
        with theirs:
            self.process = subprocess.Popen(
                command,
                env=environment | dict.fromkeys(THREADS, "1"),  # said before torch is imported
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self.connection: Connection = ours
        self.send((work, tuple(plugins)))

    def send(self, message: Any) -> None:
        """Send; a worker that has died is noticed when its connection is read."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(message)

    def close(self) -> None:
        """Let it go: it ends when its connection closes."""
        self.connection.close()


class _Pool:
    def __init__(
        self,
        jobs: Sequence[Job],
        work: str,
        on_event: Callable[[Event], None],
        plugins: Sequence[str],
    ) -> None:
        self.waiting = deque(jobs)
        self.work = work
        self.on_event = on_event
        self.plugins = plugins
        self.workers: dict[int, _Worker] = {}

    def start(self, number: int) -> None:
        worker = self.workers[number] = _Worker(number, self.work, self.plugins)
        self.give(worker)

    def give(self, worker: _Worker) -> None:
        """The next job to a worker; without one it is let go."""
        worker.job = None
        if not self.waiting:
            del self.workers[worker.number]
            worker.close()
            worker.process.wait()
            return
        worker.job = self.waiting.popleft()
        worker.send(worker.job.payload)
        self.on_event(Started(worker.number, worker.job))

    def hear(self, worker: _Worker, stopping: bool = False) -> None:
        """Take one message of a worker, or its end."""
        job = worker.job
        assert job is not None
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            self._end(worker, job, stopping)
            return
        kind, *rest = message
        if kind == "refused":
            raise UserError(rest[0])
        if kind == "progress":
            self.on_event(Progress(worker.number, job, *rest))
            return
        if kind == "finished":
            event: Event = Finished(worker.number, job, pickle.loads(rest[0]))
        else:
            event = Failed(worker.number, job, *rest)
        worker.job = None
        self.on_event(event)
        if not stopping:
            self.give(worker)

    def _end(self, worker: _Worker, job: Job, stopping: bool) -> None:
        code = worker.process.wait()
        worker.close()
        del self.workers[worker.number]
        if stopping:
            return
        self.on_event(Died(worker.number, job, code, _cause(code)))
        if self.waiting:
            self.start(worker.number)

    def stop(self, hurry: Callable[[], bool]) -> None:
        """SIGTERM to all, a bounded wait in which what they still finish is heard, then SIGKILL."""
        for worker in self.workers.values():
            worker.process.terminate()
        deadline = time.monotonic() + GRACE
        while self.workers and time.monotonic() < deadline and not hurry():
            for worker in list(self.workers.values()):
                if worker.job is None:
                    worker.close()
                    worker.process.wait()
                    del self.workers[worker.number]
            self._listen(min(0.2, max(deadline - time.monotonic(), 0)))
        self.kill()

    def _listen(self, seconds: float) -> None:
        by_connection = {worker.connection: worker for worker in self.workers.values()}
        for ready in wait(list(by_connection), seconds):
            self.hear(by_connection[ready], stopping=True)  # type: ignore[index]

    def kill(self) -> None:
        """Leave no worker behind."""
        for worker in self.workers.values():
            worker.process.kill()
            worker.process.wait()
            worker.close()
        self.workers.clear()


@register("launcher", "local")
def run_pool(
    jobs: Sequence[Job],
    work: str,
    workers: int,
    on_event: Callable[[Event], None],
    plugins: Sequence[str] = (),
) -> None:
    """Run all jobs, in this order, on at most `workers` processes; see `base.Launcher`.

    A worker that dies fails its job only; a new one takes its place. SIGINT or SIGTERM end the
    workers by SIGTERM, after 10 seconds (or a second signal) by SIGKILL, and raise Stopped.
    """
    if workers < 1:
        raise UserError(f"workers: {workers}; allowed: 1 or more.")
    pool = _Pool(jobs, work, on_event, plugins)
    with _signals() as (received, bell):
        try:
            for number in range(min(workers, len(jobs))):
                if not received:
                    pool.start(number)
            while pool.workers and not received:
                by_connection = {worker.connection: worker for worker in pool.workers.values()}
                for ready in wait([*by_connection, bell]):
                    if ready in by_connection and not received:
                        pool.hear(by_connection[ready])
            if received:
                first = len(received)
                pool.stop(lambda: len(received) > first)
                raise Stopped(received[0])
        except BaseException:
            pool.on_event = lambda event: None  # it may be what raised
            first = len(received)
            pool.stop(lambda: len(received) > first)
            raise


@contextlib.contextmanager
def _signals() -> Iterator[tuple[list[int], int]]:
    """SIGINT and SIGTERM collected in a list; each also makes the second value readable.

    Outside the main thread, where Python delivers no signals, nothing is collected.
    """
    received: list[int] = []
    reading, writing = os.pipe()

    def handle(signum: int, frame: Any) -> None:
        received.append(signum)
        os.write(writing, b"!")

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for signum in (signal.SIGINT, signal.SIGTERM):
            before[signum] = signal.signal(signum, handle)
    try:
        yield received, reading
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


def _cause(code: int) -> str:
    if code >= 0:
        return f"its worker ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (often: out of memory)" if -code == signal.SIGKILL else ""
    return f"its worker was ended by {name}{hint}"
