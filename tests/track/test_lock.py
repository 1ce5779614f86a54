"""The lock that is kept on file systems of several machines: one holder at a time, whoever dies or sleeps."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ablate.errors import UserError
from ablate.track import lock
from ablate.track.lock import Lock, held

ROOT = Path(__file__).parents[2]
# Adds one to a number in a file, as careless as can be: reads it, waits, writes it.
CODE = """
import os, signal, sys, time
from pathlib import Path
from ablate.track.lock import Lock
folder, fate = Path(sys.argv[1]), sys.argv[2]
mine, end = Lock(folder / ".lock"), time.monotonic() + 60
while not mine.acquire():
    assert time.monotonic() < end, "it took too long"
    time.sleep(0.03)
if fate == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
count = int((folder / "count").read_text())
time.sleep(0.001)
(folder / "count").write_text(str(count + 1))
mine.release()
"""


def test_fifty_processes_at_once_lose_nothing(tmp_path):
    """Four of them are killed while they hold it."""
    (tmp_path / "count").write_text("0")
    fates = ["dies" if i % 12 == 5 else "lives" for i in range(50)]
    command = [sys.executable, "-c", CODE, str(tmp_path)]
    processes = [subprocess.Popen([*command, fate], cwd=ROOT) for fate in fates]
    codes = [one.wait(timeout=90) for one in processes]
    assert codes == [-9 if fate == "dies" else 0 for fate in fates]
    assert (tmp_path / "count").read_text() == "46"
    assert len(list(tmp_path.glob(".lock.*"))) == 1  # the row doesn't grow


def test_of_two_one_holds_it(tmp_path):
    one, other = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert one.holder() is None
    assert (one.acquire(), other.acquire()) == (True, False)
    assert (other.holder() or {})["pid"] == os.getpid()
    one.release()
    assert other.age() is None
    assert (other.acquire(), one.acquire()) == (True, False)
    other.release()
    other.release()
    with held(tmp_path / "lock") as taken, held(tmp_path / "lock") as again:
        assert (taken, again) == (True, False)


@pytest.mark.parametrize(("seconds", "free"), [(10, False), (100, True)])
def test_a_holder_elsewhere_is_known_by_its_touch(tmp_path, monkeypatch, seconds, free):
    """By the clock of the file system: this machine's own is a day wrong."""
    file = tmp_path / "lock.7"
    file.write_text(json.dumps({"pid": 1, "machine": "another", "host": "node7"}))
    then = time.time() - seconds
    os.utime(file, (then, then))
    monkeypatch.setattr(time, "time", lambda: then + 86_400)
    mine = Lock(tmp_path / "lock")
    assert (mine.holder() is None) == free
    assert mine.acquire() == free
    mine.release()


def test_one_that_is_just_being_made_is_held(tmp_path):
    (tmp_path / "lock.1").write_text("")
    assert not Lock(tmp_path / "lock").acquire()
    assert Lock(tmp_path / "lock").holder() == {}


def test_a_slow_contender_does_not_begin_the_row_anew(tmp_path, monkeypatch):
    """It has seen number 1; meanwhile 1 was followed by 2, and 2 by 3, which is held."""
    slow, quick = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    (tmp_path / "lock.1").write_text(lock.FREE)
    look, seen = Lock._latest, []

    def latest(self):
        number = look(self)
        if self is slow and not seen:
            seen.append(number)
            for _ in range(2):
                assert quick.acquire()
                quick.release()
            assert quick.acquire()
        return number

    monkeypatch.setattr(Lock, "_latest", latest)
    monkeypatch.setattr(Lock, "_left", lambda self, number: True)
    assert not slow.acquire()
    assert [path.name for path in tmp_path.glob("lock.*")] == ["lock.4"]
    quick.release()


def test_a_holder_whose_place_was_taken_while_it_slept_ends(tmp_path):
    code = CODE.replace("count = int", "print('held', flush=True); time.sleep(30); count = int")
    code = code.replace("mine, end", "from ablate.track import lock; lock.BEAT = 0.05; mine, end")
    command = [sys.executable, "-c", code, str(tmp_path), "lives"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        (tmp_path / ".lock.2").write_text(json.dumps({"pid": 1, "machine": "another"}))
        assert other.wait(timeout=20) == -15


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "a file").write_text("")
    with pytest.raises(UserError, match="it cannot be written"):
        Lock(tmp_path / "a file" / "lock").acquire()
