"""Writing files so that a reader sees the old content or the new one, never half of it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from ablate.errors import UserError

_SPECIAL = re.compile(r'["\r\n]')
FULL = (errno.ENOSPC, errno.EDQUOT)
FORGOTTEN = 3600.0  # seconds after which a temporary file of another machine counts as left behind


def refusal(path: Path, error: OSError) -> UserError:
    """The one line that says why `path` could not be written and what to do."""
    if error.errno in FULL:
        return UserError(
            f"{path}: the disk is full ({error.strerror}); what was recorded before is kept. "
            "Free some space and give the same command again."
        )
    return UserError(f"{path}: it cannot be written ({error.strerror or error}).")


def replace(path: Path, content: str | bytes, durable: bool = False) -> None:
    """Put `content` at `path` through a temporary file beside it.

    `durable` also waits until it is on the disk. Raises OSError; the previous file is then intact.
    Takes away what a killed process has left of the same attempt. The temporary file is named after machine and
    process, so that nobody who shares the folder takes it for his own.
    """
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        if not _writing(left):
            left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_atomic(path: Path, content: str | bytes) -> None:
    """`replace`, durably, making the folder where it is missing; raises UserError in one line."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, content, durable=True)
    except OSError as error:
        raise refusal(path, error) from error


def csv_text(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """CSV that reads back exactly, lines ended by a line feed.

    Python's own writer leaves a lone carriage return unquoted, which its reader takes for a new
    line.
    """
    return "".join(_line(line) + "\n" for line in (columns, *lines))


def _line(cells: Sequence[str]) -> str:
    plain = ",".join(cells)
    if plain.count(",") == len(cells) - 1 and not _SPECIAL.search(plain):  # as most lines
        return plain
    return ",".join(map(_quoted, cells))


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if any(c in cell for c in ',"\r\n') else cell


def _writing(temporary: Path) -> bool:
    """Whether the process that the temporary file is named after lives; elsewhere, whether it was just written."""
    try:
        if f".{os.uname().nodename}." not in temporary.name:
            return time.time() - temporary.stat().st_mtime < FORGOTTEN
        os.kill(int(temporary.name.split(".")[-2]), 0)
    except (ProcessLookupError, FileNotFoundError, ValueError):
        return False
    except PermissionError:
        pass
    return True
