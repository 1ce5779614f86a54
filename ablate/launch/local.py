"""The local launcher: a pool of long-lived worker processes with a cap.

One thread of computation each: on a few cores one process a trial beats one trial on all cores. A worker is a copy
of this process, which has loaded and prepared what all of them need, wherever such a copy can go on (`forkable`);
elsewhere it is a new interpreter.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, Protocol

from ablate.errors import UserError
from ablate.launch.base import Died, Event, Failed, Finished, Job, Progress, Started, Stopped
from ablate.launch.worker import ONE_THREAD, become
from ablate.registry import process, register

GRACE = 10.0  # seconds that workers get to end their runs before they are killed
SIGNALS = (signal.SIGINT, signal.SIGTERM)
TASKS = Path("/proc/self/task")  # a folder for each thread of this process, native ones too
ENDING = 0.5  # seconds that a thread gets which is about to end, as that of a display does
IDLE = ("ablate lock",)  # threads that do nothing but wait and touch a file


class _Process(Protocol):
    def terminate(self) -> None: ...

    def kill(self) -> None: ...

    def wait(self) -> int: ...


def forkable() -> bool:
    """Whether a copy of this process can go on by itself.

    It can't where there are other threads, whose locks nobody would give back, or where the system doesn't list them;
    those named in `IDLE` don't count, for they hold no lock that a copy would ask for. Nor can it where there is an
    accelerator, whose driver can't be used in a copy.
    """
    torch: Any = sys.modules.get("torch")
    if not TASKS.is_dir() or (torch is not None and torch.accelerator.is_available()):
        return False
    deadline = time.monotonic() + ENDING
    while True:
        others = [each for each in threading.enumerate() if each is not threading.current_thread()]
        idle = sum(each.name in IDLE for each in others)
        if (alone := len(os.listdir(TASKS)) == 1 + idle) or time.monotonic() > deadline:
            return alone
        time.sleep(0.01)


class _Forked:
    """A copy of this process that serves one connection; `inherited` are those that are none of its business."""

    def __init__(self, connection: Connection, inherited: Sequence[Connection]) -> None:
        parent = os.getpid()

        def body() -> None:
            for other in inherited:
                other.close()
            become(connection, parent, lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before))

        # A signal that came before the copy has handlers of its own would be taken for one to this process.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self._process = multiprocessing.get_context("fork").Process(target=body)
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.terminate, self.kill = self._process.terminate, self._process.kill

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode


def _started(connection: Connection) -> subprocess.Popen[bytes]:
    """A new interpreter that serves one connection."""
    handle = connection.fileno()
    command, environment = process("ablate.launch.fresh", str(handle), str(os.getpid()))
    return subprocess.Popen(
        command,
        env=environment | ONE_THREAD,  # said before torch is imported
        pass_fds=[handle],
        stdin=subprocess.DEVNULL,
    )


class _Worker:
    """One worker process, a copy of this one if `forked`, and its connection; `others` are those of other workers."""

    def __init__(
        self,
        number: int,
        work: str,
        plugins: Sequence[str],
        others: Sequence[Connection],
        forked: bool,
    ) -> None:
        self.number = number
        self.job: Job | None = None
        ours, theirs = Pipe()
        with theirs:
            self.process: _Process = (
                _Forked(theirs, [ours, *others]) if forked else _started(theirs)
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
        self.forks = True  # until it turns out that it can't

    def start(self, number: int) -> _Worker:
        """A new worker, without a job yet."""
        self.forks = self.forks and forkable()
        others = [each.connection for each in self.workers.values()]
        made = _Worker(number, self.work, self.plugins, others, self.forks)
        self.workers[number] = made
        return made

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
            self.give(self.start(worker.number))

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
    with signals() as (received, bell):
        try:
            # All of them before anybody hears of it: a display would begin a thread.
            for number in range(min(workers, len(jobs))):
                if not received:
                    pool.start(number)
            for each in list(pool.workers.values()):
                pool.give(each)
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
def signals() -> Iterator[tuple[list[int], int]]:
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
        for signum in SIGNALS:
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
