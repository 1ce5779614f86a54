"""Which process does something, said so that a later one can tell whether it still lives."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

PROC = Path("/proc")


def identity() -> dict[str, object]:
    """This process: its number, when it began and the machine on which that number means it.

    The start (in kernel ticks since boot) tells it from a later process with the same number; the
    machine is boot and pid namespace, so that a container isn't taken for its neighbour.
    """
    pid = os.getpid()
    return {"pid": pid, "started": _started(pid), "machine": _machine()}


def gone(who: Mapping[str, object]) -> bool | None:
    """True when that process has ended, False when it lives, None when this machine can't know."""
    pid = who.get("pid")
    if not isinstance(pid, int) or who.get("machine") != _machine():
        return None
    if (PROC / "self" / "stat").exists():
        started = _started(pid)
        return started is None or started != who.get("started")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _started(pid: int) -> int | None:
    """Start time of a living process in ticks; None for one that ended or waits to be reaped."""
    try:
        text = (PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name in parentheses may hold blanks
    return None if fields[0] in "ZX" else int(fields[19])


def _machine() -> str:
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text("utf-8", "replace").strip()
        return f"{boot}/{os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        return platform.node()
