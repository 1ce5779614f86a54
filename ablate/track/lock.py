"""One holder at a time, on file systems that several machines share.

`flock` is emulated on NFS, and lost on some others; making a file that must not exist yet (`O_EXCL`) is atomic on
NFS version 3 and later. A lock is a row of numbered files, `NAME.1`, `NAME.2`, ...: the highest one is the holder's.
Whoever finds it given back, or its process gone, makes the next number, which only one of many can. The highest is
never taken away, so that a slow contender can't begin the row anew behind a quicker one.

A process of this machine is known to be gone by its number and start. One elsewhere counts as gone when it has not
touched its file for `STALE` seconds, by the clock of the file system, whatever the clocks of the machines say.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ablate.track.files import refusal, replace
from ablate.track.process import gone, identity

STALE = 60.0  # seconds
BEAT = 10.0  # seconds between two touches of the holder
FREE = "{}"


class Lock:
    """A lock at `path`; its files lie beside each other as `path.1`, `path.2`, ..."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mine: Path | None = None
        self._ended = threading.Event()

    def acquire(self) -> bool:
        """Take it; False when somebody holds it. Raises UserError where it can't be written.

        While it is held, a thread touches its file. A holder that was stopped for so long that another has taken its
        place is ended by SIGTERM when it wakes up.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            number = self._latest()
            if number and not self._left(number):
                return False
            mine = self._file(number + 1)
            try:
                made = os.open(mine, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                return False
            try:
                with open(made, "w", encoding="utf-8") as file:
                    json.dump({**identity(), "host": os.uname().nodename}, file)
            except OSError:  # a full disk: nobody holds what nobody could sign
                mine.unlink(missing_ok=True)
                raise
            if self._latest() != number + 1:  # what was seen above was of the past
                mine.unlink(missing_ok=True)
                return False
            for old in self._numbers():
                if old <= number:
                    self._file(old).unlink(missing_ok=True)
        except OSError as error:
            raise refusal(self.path, error) from error
        self._mine = mine
        self._ended.clear()
        threading.Thread(target=self._beat, args=(mine,), name="ablate lock", daemon=True).start()
        return True

    def release(self) -> None:
        """Give it back; nothing where it isn't held, or where its folder is gone."""
        self._ended.set()
        mine, self._mine = self._mine, None
        if mine is not None and mine.exists():
            with contextlib.suppress(OSError):
                try:
                    replace(mine, FREE)
                except OSError:  # a full disk has room for less than there is
                    with open(mine, "r+", encoding="utf-8") as file:
                        file.write(FREE)
                        file.truncate()

    def holder(self) -> Mapping[str, Any] | None:
        """Who holds it (pid, host, ...), empty while its file is being written; None when nobody does."""
        number = self._latest()
        return None if not number or self._left(number) else self._read(number)

    def age(self) -> float | None:
        """Seconds since the holder's last touch; None when nobody holds it."""
        number = self._latest()
        return None if not number or self._left(number) else self._untouched(number)

    def _left(self, number: int) -> bool:
        """Whether the holder of a file has given it back, or is gone."""
        found = self._read(number)
        if found is None:
            return self._latest() != number
        if found == {} and self._file(number).exists():
            return self._text(number) == FREE or self._untouched(number) > STALE
        over = gone(found)
        return self._untouched(number) > STALE if over is None else over

    def _read(self, number: int) -> Mapping[str, Any] | None:
        """What a file holds; empty while it is being written, or given back; None when there is none."""
        text = self._text(number)
        try:
            found = None if text is None else json.loads(text)
        except ValueError:
            return {}
        return found if found is None or isinstance(found, dict) else {}

    def _text(self, number: int) -> str | None:
        try:
            return self._file(number).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None

    def _untouched(self, number: int) -> float:
        """Seconds since a file was touched, by its file system's clock; infinite when it is gone."""
        now = time.time()  # a reader that may not write here has its own clock only
        made = tempfile.NamedTemporaryFile
        with contextlib.suppress(OSError), made(dir=self.path.parent, prefix=".clock-") as clock:
            now = os.fstat(clock.fileno()).st_mtime
        try:
            return now - self._file(number).stat().st_mtime
        except FileNotFoundError:
            return float("inf")

    def _file(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _numbers(self) -> list[int]:
        start = f"{self.path.name}."
        names = (name for name in os.listdir(self.path.parent) if name.startswith(start))
        return [int(rest) for name in names if (rest := name.removeprefix(start)).isdigit()]

    def _latest(self) -> int:
        try:
            return max(self._numbers(), default=0)
        except FileNotFoundError:
            return 0

    def _beat(self, mine: Path) -> None:
        while not self._ended.wait(BEAT):
            with contextlib.suppress(OSError):  # a server that doesn't answer for a while
                os.utime(mine)
                if self._file(self._latest()) != mine and not self._ended.is_set():
                    os.kill(os.getpid(), signal.SIGTERM)
                    return


@contextlib.contextmanager
def held(path: Path) -> Iterator[bool]:
    """Whether the lock at `path` could be taken; given back at the end."""
    lock = Lock(path)
    taken = lock.acquire()
    try:
        yield taken
    finally:
        lock.release()
