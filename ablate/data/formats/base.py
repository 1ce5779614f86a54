"""What the formats share: what a reader returns, whole-or-nothing writing, how much may be loaded."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ablate.data.reading import Reading
from ablate.data.trajectories import Trajectories
from ablate.errors import UserError

# Only names from the registry: "module:name" would import a module that the file chooses.
ENVIRONMENT_ID = re.compile(r"(?:[\w-]+/)*[\w.-]+", re.ASCII)
# Deflate can't shrink by more than 1,032 to 1 (zlib's technical details): a file that declares more
# doesn't hold it.
DENSEST = 1100
DENSE, ROOM = (
    64,
    1 << 27,
)  # of all that is loaded: times the file's size, and bytes that any file may take


@dataclass(frozen=True, eq=False)
class Contents:
    """What a reader found.

    Attributes:
        trajectories: valid trajectories.
        about: what the file says of itself: `name`, `environment` (where a policy trained on it is
            evaluated), `anchor_low`, `anchor_high` and others, as plain numbers and text.
        notes: habits of the file that were dealt with, a sentence each.
    """

    trajectories: Trajectories
    about: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def valid(path: Path, trajectories: Trajectories) -> Trajectories:
    """Returns them; raises UserError naming the file, the array, the row and the broken rule."""
    replace(trajectories, name=str(path)).validate()
    return trajectories


def refuse_changes(path: Path, reading: Reading) -> None:
    """Raises UserError when a file that our writer made is to be read otherwise than it was written."""
    kept = {"environment", "horizon", "held_out"}  # where it is evaluated, what is trained on
    changes = [key for key in reading.said if key not in kept]
    if changes:
        raise UserError(
            f"{path}: {', '.join(changes)} can't be said of a file that was written here, whose episodes and"
            " actions are as they were read then; say it of the file that it was made from."
        )


class Budget:
    """Counts the bytes that loading would take, so that no declared size exhausts the memory.

    Half of the machine's memory, and no more than DENSE times the file and ROOM: what packs more densely
    than any data do, and isn't small, is there to fill the memory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._most = memory() // 2
        self._dense = ROOM + DENSE * path.stat().st_size
        self._taken = 0

    @property
    def left(self) -> int:
        """Bytes that may still be taken."""
        return min(self._most, self._dense) - self._taken

    def take(self, size: int, what: str) -> None:
        """Raises UserError when `what`, `size` bytes, and all before it exceed what is allowed."""
        self._taken += size
        if self._taken > self._most:
            raise UserError(
                f"{self._path}: {what} takes {size:,} bytes, and all of it more than half of this"
                f" machine's memory ({memory():,} bytes)."
            )
        if self._taken > self._dense:
            raise UserError(
                f"{self._path}: {what} takes {size:,} bytes, and all of it more than {DENSE} times the"
                " file's size, which no data do; write it with less compression or smaller chunks."
            )


def memory() -> int:
    """Bytes of this machine's memory; 16 GiB where the system doesn't say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 34


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write a file or a folder at; it becomes `path` at the end.

    What was at `path` is replaced. If the body raises, `path` is as it was before. Raises UserError
    when it can't be written (disk full, no permission).
    """
    mark = f"{os.getpid()}.{uuid.uuid4().hex}.tmp"
    temporary = path.with_name(f".{path.name}.{mark}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.is_dir() and path.exists():
            _swap(temporary, path, path.with_name(f".{path.name}.old.{mark}"))
        else:
            os.replace(temporary, path)
    except OSError as error:
        full = error.errno == errno.ENOSPC or "No space left" in str(error)
        reason = "no space left on device" if full else one_line(error)
        raise UserError(f"{path}: can't be written ({reason}).") from error
    finally:
        _remove(temporary)


def _swap(temporary: Path, path: Path, aside: Path) -> None:
    """Put a folder where something is already: one can't replace the other in a single step."""
    os.replace(path, aside)
    try:
        os.replace(temporary, path)
    except BaseException:  # Ctrl-C too
        os.replace(aside, path)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def one_line(error: BaseException) -> str:
    """The first line of an error's message, else its type."""
    text = str(error).splitlines()
    return printable(text[0]) if text else type(error).__name__


def printable(text: str, limit: int = 200) -> str:
    """Text from a file as it may stand in a message: one line, no control characters, not too long."""
    shown = "".join(each if each.isprintable() else "?" for each in text)
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."
