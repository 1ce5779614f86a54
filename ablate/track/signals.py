"""SIGINT and SIGTERM while runs are open.

Both end a run as INTERRUPTED. They are held back while runs are being opened and closed, so that
none is left half written, and come through at once while the work itself is going on.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to stop. Like Ctrl-C it passes `except Exception`."""

    STATUS = "INTERRUPTED"  # Sacred stores this word as the run's status

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.signum = signum


_noticed = threading.Event()
_notices: set[int] = set()


def give_notice(signum: int, frame: FrameType | None = None) -> None:
    """This process has to end soon, not at once: what trains saves its state and ends as INTERRUPTED.

    A handler of signals, which `Signals` leaves in place.
    """
    _notices.add(signum)
    _noticed.set()


def on_notice() -> bool:
    """Whether this process was given notice."""
    return _noticed.is_set()


def notices(seconds: float | None = None) -> frozenset[int]:
    """The signals that have given notice; waits for the first one (for ever when None)."""
    _noticed.wait(seconds)
    return frozenset(_notices)


class Signals:
    """Context in which SIGINT and SIGTERM are held back except inside `through`.

    Does nothing outside the main thread (Python delivers signals only there), and leaves a signal
    alone that the process ignores.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._open = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(signum)
                if before not in (None, signal.SIG_IGN, give_notice):
                    self._before[signum] = before
                    signal.signal(signum, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for signum, before in self._before.items():
            signal.signal(signum, before)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        if self._open:
            self._open = False  # a second signal must not interrupt the closing of the runs
            raise Interrupted(signum)

    def check(self) -> None:
        """Raise Interrupted when a signal came that was held back, or was swallowed on its way."""
        if self.received is not None:
            raise Interrupted(self.received)

    @contextlib.contextmanager
    def through(self) -> Iterator[None]:
        """Within it a signal raises Interrupted at once."""
        self._open = True  # before the check: a signal between the two must not be lost
        try:
            self.check()
            yield
        finally:
            self._open = False
        self.check()
