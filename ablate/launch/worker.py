"""A worker process of the local pool: a copy of the process that runs the study, or a new one (`ablate.launch.fresh`).

Takes jobs over an inherited connection until that closes. It must not outlive its parent: an orphan
that goes on writing would meet the study's next run.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from ablate.errors import UserError

PAUSE = 0.2  # seconds between two progress messages, so that a busy loop doesn't flood the parent
WATCH = 1.0  # seconds between two looks at whether the parent lives, where the kernel can't tell
PR_SET_PDEATHSIG = 1
# Every library that computes reads one of them when it is first loaded.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)


def die_with(parent: int) -> None:
    """End this process at once when `parent` ends, however it ends.

    Linux does it in the kernel, also while the interpreter is busy elsewhere; a thread does it on
    every system.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH)
        os.kill(os.getpid(), signal.SIGKILL)

    if os.getppid() != parent:  # it ended before prctl
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Thread(target=watch, daemon=True).start()


def find(path: str) -> Callable[..., Any]:
    """The function at a dotted path; raises UserError when there is none."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"worker: {path} can't be loaded ({error}).") from error
    if not callable(found):
        raise UserError(f"worker: {path} is not a function.")
    return found


def serve(connection: Connection) -> None:
    """Answer jobs until the parent closes the connection.

    First comes (work path, plugins); then payloads. Each is answered by ("progress", fraction,
    text) any number of times, and ("finished", value) or ("failed", error, trace, refused) once.
    """
    try:
        path, plugins = connection.recv()
        if plugins:
            from ablate.registry import load_plugin  # brings torch along: only when needed

            for plugin in plugins:
                load_plugin(plugin)
        work = find(path)
    except UserError as error:
        connection.send(("refused", str(error)))
        return
    except Exception as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())
        connection.send(("refused", f"worker: it can't start ({line})."))
        return
    while True:
        try:
            payload = connection.recv()
        except EOFError:
            return
        connection.send(answer(work, payload, connection.send))


def answer(
    work: Callable[..., Any], payload: Any, send: Callable[[tuple[Any, ...]], None]
) -> tuple[Any, ...]:
    """Do a job; what is sent at its end, see `serve`. `send` takes what is sent meanwhile."""
    last = float("-inf")

    def report(fraction: float, text: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PAUSE:
            last = now
            send(("progress", float(fraction), str(text)))

    try:
        value = work(payload, report)
        # Pickled here, so that a value which can't be is this job's failure, not the worker's.
        return ("finished", _pickled(value))
    except Exception as error:
        refused = isinstance(error, UserError)
        text = " ".join(str(error).split())
        line = text if refused else f"{type(error).__name__}: {text}".rstrip(": ")
        return ("failed", line, traceback.format_exc(), refused)


def _pickled(value: Any) -> bytes:
    from multiprocessing.reduction import ForkingPickler

    return bytes(ForkingPickler.dumps(value))


def become(connection: Connection, parent: int, ready: Callable[[], Any] = lambda: None) -> None:
    """Make a worker of this process: serve the connection until it closes. ready: called once signals may come."""
    # Ctrl-C reaches the whole process group; the parent decides and says so by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ready()
    die_with(parent)
    os.environ.update(ONE_THREAD)
    gc.freeze()  # what a copy shares with its parent would be copied as soon as it is looked through
    try:
        with connection, contextlib.suppress(BrokenPipeError):
            serve(connection)
    except KeyboardInterrupt:  # SIGTERM in the middle of a job, whose runs have been closed by now
        sys.exit(128 + signal.SIGTERM)
