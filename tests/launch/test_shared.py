"""What launchers for other machines share: the code that was submitted runs; jobs and results are files."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ablate.errors import UserError
from ablate.launch.base import Failed, Finished, Job, Place
from ablate.launch.shared import Desk, Snapshot, snapshot
from ablate.registry import COMPARATORS
from ablate.track import lock
from ablate.track.process import identity

PLUGIN = """
from pathlib import Path
import os
def work(payload, report):
    return [payload, "as submitted", __file__, os.environ["OMP_NUM_THREADS"]]
"""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path / "runs")
    made.open()
    return made


def job(tmp_path: Path, what: str, name: str = "a") -> Job:
    return Job(name, (str(tmp_path), 7, what))


def test_the_code_that_was_submitted_is_the_code_that_runs(tmp_path: Path, desk: Desk) -> None:
    """Whatever becomes of the plugin meanwhile, and whatever lies in the folder where a worker starts."""
    plugin = tmp_path / "mine" / "plugin_of_mine.py"
    plugin.parent.mkdir()
    plugin.write_text(PLUGIN)
    (tmp_path / "study.yaml").write_text("study: x")
    place = Place("x", tmp_path / "runs", (tmp_path / "study.yaml",))
    copy = snapshot(place, [str(plugin), "fake_slurm"])
    assert copy.root.parent == desk.folder / "code"
    assert snapshot(place, [str(plugin), "fake_slurm"]) == copy
    assert copy.plugins[1] == "fake_slurm"
    assert (copy.root / "fake_slurm.py").is_file()  # a module that is not an installed one
    assert not list(copy.root.rglob("__pycache__"))
    assert sorted(path.name for path in (copy.root / "files").rglob("*.*")) == [
        "plugin_of_mine.py",
        "study.yaml",
    ]
    name = f"ablate_plugin_{plugin.stem}_"
    desk.lay(Job("a", 5), "find.me", copy.plugins)
    plugin.write_text(PLUGIN.replace("as submitted", "as edited"))
    assert snapshot(place, [str(plugin), "fake_slurm"]).root != copy.root
    (tmp_path / "ablate").mkdir()  # a checkout in the current folder, say
    (tmp_path / "ablate" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    code = (
        "import sys; from pathlib import Path; import ablate.launch.shared as shared, ablate.launch.worker as worker\n"
        "from ablate.track import provenance\n"
        "from ablate.registry import load_plugin\n"
        f"path = '{copy.plugins[0]}'\n"
        "load_plugin(path)\n"
        f"module = next(n for n in sys.modules if n.startswith('{name}'))\n"
        "print(shared.__file__); print(provenance.repositories()); print(sys.modules[module].work(5, None))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, **copy.environment},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    file, repositories, found = ran.stdout.strip().splitlines()
    assert Path(file).is_relative_to(copy.root)
    from ablate.track import provenance

    assert repositories == str(provenance.repositories())  # of what was copied
    assert "'as submitted'" in found
    assert found.endswith("'1']")


def test_two_who_lay_the_same_copy_at_once(tmp_path: Path) -> None:
    place, found = Place("x", tmp_path / "runs"), []
    threads = [threading.Thread(target=lambda: found.append(snapshot(place))) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len({one.root for one in found}) == 1
    assert [path.name for path in found[0].root.parent.iterdir()] == [found[0].root.name]
    assert (found[0].root / "baselines" / "published.csv").read_bytes() == (
        COMPARATORS / "published.csv"
    ).read_bytes()


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("double", ("finished", 14)),
        ("raise", ("ZeroDivisionError: by zero", False)),
        ("refuse", ("data.h5: it is cut off.", True)),
    ],
)
def test_a_job_is_laid_done_and_taken_once(
    tmp_path: Path, desk: Desk, what: str, expected: Any
) -> None:
    laid = job(tmp_path, what)
    assert not desk.perform("a")  # there is none
    assert desk.take(3, laid) is None
    desk.lay(laid, "pool_work.work", [])
    assert desk.told() == "jobs elsewhere: 1 wait"
    assert desk.perform("a")
    assert desk.perform("a")  # it has ended, so it isn't done again
    [pid] = [path.read_text() for path in tmp_path.glob("*.pid")]
    assert int(pid) == os.getpid()
    assert desk.ended() == {"a"}
    assert desk.told() == "jobs elsewhere: 1 have ended, for the next `run` to take"
    event = Desk(tmp_path / "runs").take(3, laid)  # another driver
    if isinstance(event, Finished):
        assert ("finished", event.value) == expected
    else:
        assert isinstance(event, Failed)
        assert (event.error, event.refused) == expected
    assert (event.worker, event.job) == (3, laid)
    assert desk.take(3, laid) is None
    assert not any(os.listdir(each) for each in (desk.waiting, desk.said, desk.done, desk.held))
    assert desk.told() == ""


def test_a_plugin_or_a_function_that_is_not_there_is_the_users_to_mend(
    tmp_path: Path, desk: Desk
) -> None:
    for work, plugins in (("pool_work.nothing", []), ("pool_work.work", ["no_such_module"])):
        desk.lay(job(tmp_path, "double"), work, plugins)
        assert desk.perform("a")
        event = desk.take(0, job(tmp_path, "double"))
        assert isinstance(event, Failed)
        assert event.refused


def test_how_far_a_job_is_and_that_its_worker_lives(tmp_path: Path, desk: Desk) -> None:
    desk.lay(job(tmp_path, "write"), "pool_work.work", [])
    code = "import sys; from pathlib import Path; from ablate.launch.shared import Desk"
    code += f"; Desk(Path({str(tmp_path / 'runs')!r})).perform('a')"
    path = os.pathsep.join(sys.path)
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}
    ) as worker:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("*.beat")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not desk.perform("a")  # one does it
        age = desk.age("a")
        assert age is not None
        assert age < lock.STALE
        [sign] = desk.signs({}).values()
        assert sign.text == f"on {os.uname().nodename}"
        assert desk.signs({"a": sign}) == {}
        worker.kill()
    assert desk.age("a") is None
    assert desk.told() == "jobs elsewhere: 1 wait"


def test_a_worker_elsewhere_that_is_gone_is_waited_for(tmp_path: Path, desk: Desk) -> None:
    """It was on another machine, so its last touch has to be old enough."""
    desk.lay(job(tmp_path, "double"), "pool_work.work", [])
    file = desk.held / "a" / "lock.1"
    file.parent.mkdir()
    file.write_text(json.dumps({**identity(), "machine": "another"}))
    then = time.time() - lock.STALE + 0.3
    os.utime(file, (then, then))
    assert not desk.perform("a")
    assert desk.perform("a", patience=0.6)


def test_what_interrupts_a_job_leaves_it_waiting(
    tmp_path: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pool_work

    def interrupted(payload: Any, report: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pool_work, "interrupted", interrupted, raising=False)
    desk.lay(job(tmp_path, ""), "pool_work.interrupted", [])
    with pytest.raises(KeyboardInterrupt):
        desk.perform("a")
    assert (desk.ended(), desk.age("a")) == (set(), None)
    assert pickle.loads((desk.waiting / "a").read_bytes())[0] == "pool_work.interrupted"


def test_a_copy_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match="it cannot be written"):
        snapshot(Place("x", tmp_path / "runs"))


def test_an_environment_has_the_copy_first() -> None:
    made = Snapshot(Path("/copy"), ())
    assert made.environment["PYTHONPATH"].split(os.pathsep)[0] == "/copy"
    assert made.environment["PYTHONSAFEPATH"] == "1"
