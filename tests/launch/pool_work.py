"""What the workers of the pool's tests do."""

import os
import signal
import time
from pathlib import Path

from ablate.errors import UserError


def work(payload, report):
    """Do what the payload says, after noting in its folder who did it."""
    folder, name, what = Path(payload[0]), payload[1], payload[2]
    (folder / f"{name}.pid").write_text(str(os.getpid()))
    if what == "double":
        report(0.5, f"doubling {name}")
        return 2 * name
    if what == "threads":
        return [os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]]
    if what == "raise":
        raise ZeroDivisionError("by\nzero")
    if what == "refuse":
        raise UserError("data.h5: it is cut off.")
    if what == "unpicklable":
        return lambda: None
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(3)
    if what == "overlap":
        return overlap(folder, name)
    if what.startswith("meet"):
        return meet(folder, name, int(what.removeprefix("meet ")))
    if what == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if what in ("write", "deaf"):
        return write(folder, name)
    if what == "write-a-little":
        return write(folder, name, 50)
    if what == "record":
        return cohort(folder, name)
    raise AssertionError(what)


def overlap(folder, name):
    """How many jobs were going on at once, this one included."""
    mine = folder / f"{name}.busy"
    mine.write_text("")
    time.sleep(0.15)
    count = len(list(folder.glob("*.busy")))
    mine.unlink()
    return count


def meet(folder, name, size):
    """Wait for as many jobs to be going on at once; how many there were."""
    (folder / f"{name}.busy").write_text("")
    deadline = time.monotonic() + 60
    while (count := len(list(folder.glob("*.busy")))) < size and time.monotonic() < deadline:
        time.sleep(0.02)
    return count


def write(folder, name, times=3000):
    """Go on writing, for longer than any test, until somebody ends this process."""
    for i in range(times):
        (folder / f"{name}.beat").write_text(str(i))
        time.sleep(0.01)


def cohort(folder, name):
    """Two Sacred runs that work until they are stopped."""
    from ablate.track.recorder import Entry, Outcome, record  # only this job needs Sacred

    def body(logs):
        (folder / f"{name}.open").write_text("")
        for _ in range(600):  # a cluster's worker hears of its end between two instructions
            time.sleep(0.05)
        return [Outcome() for _ in logs]

    return record([Entry(f"{name}x{i}", {"seed": i}) for i in range(2)], body, folder / "runs")


not_a_function = 3
