"""The local pool: a cap, no job lost, no worker left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ablate import registry
from ablate.errors import UserError
from ablate.launch import local
from ablate.launch.base import Died, Failed, Finished, Job, Progress, Started
from ablate.launch.local import run_pool
from ablate.track.store import attempts

HERE = Path(__file__).parent
WORK = "pool_work.work"


@pytest.fixture(params=["copies", "new"])
def made(request, monkeypatch):
    """How workers are made: as copies of this process, or as new interpreters."""
    if request.param == "copies" and not local.TASKS.is_dir():
        pytest.skip("this system doesn't list the threads of a process")
    monkeypatch.setattr(local, "forkable", lambda: request.param == "copies")
    return request.param


def run(folder, whats, workers=2, **more):
    events = []
    jobs = [Job(str(i), (str(folder), i, what)) for i, what in enumerate(whats)]
    run_pool(jobs, WORK, workers, events.append, **more)
    return events


def ends(events):
    return {e.job.id: e for e in events if isinstance(e, Finished | Failed | Died)}


def alive(folder):
    found = []
    for file in folder.glob("*.pid"):
        with contextlib.suppress(ValueError, OSError):
            state = Path(f"/proc/{int(file.read_text())}/stat").read_text()
            if state.rpartition(")")[2].split()[0] not in "ZX":
                found.append(file.name)
    return found


def until(what, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


@contextlib.contextmanager
def parent(folder, what, size=2):
    paths = [str(HERE.parents[1]), str(HERE)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(HERE / "pool_process.py"), str(folder), what, str(size)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_jobs_go_in_order_to_few_long_lived_workers(tmp_path, made):
    events = run(tmp_path, ["double"] * 6)
    assert [e.job.id for e in events if isinstance(e, Started)] == list("012345")
    assert {i: e.value for i, e in ends(events).items()} == {str(i): 2 * i for i in range(6)}
    assert len({file.read_text() for file in tmp_path.glob("*.pid")}) <= 2
    progress = [e for e in events if isinstance(e, Progress)]
    assert {(e.fraction, e.text) for e in progress} == {(0.5, f"doubling {i}") for i in range(6)}
    assert alive(tmp_path) == []


def test_no_jobs_need_no_workers(tmp_path):
    assert run(tmp_path, []) == []


def test_the_cap_is_kept(tmp_path):
    events = run(tmp_path, ["overlap"] * 6, workers=2)
    assert max(e.value for e in ends(events).values()) == 2
    with pytest.raises(UserError, match="workers: 0; allowed: 1 or more"):
        run(tmp_path, ["overlap"], workers=0)


def test_each_job_fails_alone_and_says_why(tmp_path, made):
    whats = ["raise", "die", "exit", "unpicklable", "refuse", "double", "threads"]
    end = ends(run(tmp_path, whats))
    assert (type(end["0"]), end["0"].error) == (Failed, "ZeroDivisionError: by zero")
    assert "in work" in end["0"].trace
    assert (end["1"].exitcode, type(end["1"])) == (-signal.SIGKILL, Died)
    assert "SIGKILL (often: out of memory)" in end["1"].error
    assert (end["2"].exitcode, end["2"].error) == (3, "its worker ended with exit code 3")
    assert isinstance(end["3"], Failed)
    assert (end["4"].refused, end["4"].error) == (True, "data.h5: it is cut off.")
    assert end["5"].value == 10
    assert end["6"].value == ["1", "1"]
    assert alive(tmp_path) == []


@pytest.mark.parametrize(
    ("work", "message"),
    [
        ("pool_work.missing", "pool_work.missing can't be loaded"),
        ("no_such_module.work", "no_such_module.work can't be loaded"),
        ("pool_work.not_a_function", "is not a function"),
    ],
)
def test_work_that_cannot_be_found_is_refused(tmp_path, work, message):
    with pytest.raises(UserError, match=message):
        run_pool([Job("0", None)], work, 1, lambda event: None)


def test_a_plugin_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"--plugin nowhere\.py: there is no such file"):
        run(tmp_path, ["double"], workers=1, plugins=["nowhere.py"])


def test_what_the_caller_raises_ends_the_workers(tmp_path, made):
    def stop(event):
        if isinstance(event, Finished):
            raise UserError("enough")

    jobs = [Job(str(i), (str(tmp_path), i, what)) for i, what in enumerate(["write", "double"])]
    with pytest.raises(UserError, match="enough"):
        run_pool(jobs, WORK, 2, stop)
    assert alive(tmp_path) == []


def test_kill_9_of_the_parent_leaves_no_writer(tmp_path):
    with parent(tmp_path, "write") as process:
        until(lambda: len(list(tmp_path.glob("*.beat"))) == 2)
        process.kill()
        process.wait()
        until(lambda: not alive(tmp_path), seconds=10)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_runs_interrupted(tmp_path, signum):
    with parent(tmp_path, "record", size=3) as process:
        until(lambda: len(list(tmp_path.glob("*.open"))) == 2)
        process.send_signal(signum)
        assert process.communicate(timeout=60)[0].decode() == f"stopped {int(signum)}\n"
    assert [one.status for one in attempts(tmp_path / "runs")] == ["INTERRUPTED"] * 4
    assert alive(tmp_path) == []


def test_a_second_signal_ends_workers_that_do_not_listen(tmp_path):
    with parent(tmp_path, "deaf") as process:
        until(lambda: len(list(tmp_path.glob("*.beat"))) == 2)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert len(alive(tmp_path)) == 2
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[0] == b"stopped 2\n"
    assert alive(tmp_path) == []


@pytest.mark.skipif(not local.TASKS.is_dir(), reason="this system doesn't list threads")
def test_a_process_with_other_threads_makes_no_copies(monkeypatch):
    monkeypatch.setattr(local, "ENDING", 0.05)
    before = local.forkable()
    end = threading.Event()
    named = threading.Thread(target=end.wait, name=local.IDLE[0])
    other = threading.Thread(target=end.wait)
    named.start()
    assert local.forkable() is before  # it only waits
    other.start()
    assert not local.forkable()
    threading.Timer(0.02, end.set).start()
    named.join()
    other.join()
    assert local.forkable() is before


def test_a_copy_closes_what_belongs_to_its_siblings(tmp_path, made):
    """A worker ends when the parent lets it go, though others were made after it."""
    events = run(tmp_path, ["double", "double", "write-a-little"], workers=3)
    assert {type(end) for end in ends(events).values()} == {Finished}
    assert alive(tmp_path) == []


def test_the_pool_is_found_by_name():
    assert registry.get("launcher", "local") is run_pool
