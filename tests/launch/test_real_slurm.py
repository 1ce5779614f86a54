"""A study on a real SLURM: whatever is done to jobs, controller and driver, the table is that of an undisturbed run.

`.ci/slurm start FOLDER` brings one up on this machine; SLURM_CONF names its configuration.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_study import TEXT, Tiny

pytestmark = pytest.mark.cluster

SLOWLY = Path(__file__).with_name("slowly.py")
TABLES = ("trials.csv", "curves.csv", "audit.json")
UPDATES = 40


def asked(*command: str) -> str:
    """What a command of SLURM says; empty where it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


@pytest.fixture(autouse=True)
def _needs_slurm() -> None:
    pytest.importorskip("submitit", reason="submitit is not installed: pip install '.[slurm]'")
    if shutil.which("sinfo") is None:
        pytest.skip("SLURM is not installed; .ci/slurm does it")
    if not re.search("idle|mix|alloc", asked("sinfo", "-h", "-o", "%T")):
        pytest.skip("no SLURM answers; .ci/slurm start FOLDER, then SLURM_CONF=FOLDER/slurm.conf")


@pytest.fixture
def study(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    """Three cohorts of two seeds and forty updates, three points each; its jobs are cancelled in the end."""
    text = TEXT.replace("updates: 6", f"updates: {UPDATES}")
    tiny.file.write_text(text)
    yield tiny
    for number in {one.partition("_")[0] for one in queue(tiny)}:
        asked("scancel", "--signal=KILL", number)
        asked("scancel", number)


@pytest.fixture
def whole(study: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same study, run here without an interruption; made once."""
    kept = tmp_path_factory.getbasetemp() / "undisturbed"
    if not kept.exists():
        kept.mkdir()
        shutil.copy(study.file, kept)
        assert Tiny(kept, study.capture).run().code == 0
    return kept / "results" / "tiny"


def driver(study: Tiny, *more: str, pause: float = 0.1) -> subprocess.Popen[str]:
    """The command, in a process of its own."""
    words = study.arguments(
        "run", "--launcher", "slurm", "--minutes", "10", "--plugin", str(SLOWLY), *more
    )
    return study.process(
        *words, UPDATES=str(study.folder / "updates"), PAUSE=str(pause), PYTHONPATH=os.environ.get("PYTHONPATH", "")
    )  # fmt: skip


def until(
    found: Callable[[], object], process: subprocess.Popen[str] | None = None, seconds: float = 300
) -> None:
    """Wait until something is so; the process must live."""
    deadline = time.monotonic() + seconds
    while not found():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.1)


def workers(study: Tiny) -> list[int]:
    """Who computed each update, in order."""
    path = study.folder / "updates"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def queue(study: Tiny) -> dict[str, str]:
    """The study's tasks in SLURM's queue: name -> state."""
    names = [path.stem for path in (study.root / "runs" / ".jobs" / "slurm").glob("*.json")]
    lines = (
        asked("squeue", "-h", "-r", "-n", ",".join(names), "-o", "%i %T").splitlines()
        if names
        else []
    )
    return dict(line.split() for line in lines)


def ended(process: subprocess.Popen[str], seconds: float = 500) -> tuple[int, str]:
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out + err


def assert_same(study: Tiny, whole: Path) -> None:
    for name in TABLES:
        assert (study.root / name).read_bytes() == (whole / name).read_bytes()


def restart_controller() -> None:
    """Where the controller is that of `.ci/slurm`."""
    folder = Path(os.environ.get("SLURM_CONF", "/etc/slurm/slurm.conf")).parent
    pid = folder / "slurmctld.pid"
    if pid.exists():
        os.kill(int(pid.read_text()), signal.SIGTERM)
        until(lambda: not asked("sinfo", "-h"))
        subprocess.run(["slurmctld"], check=True)


def test_a_driver_a_controller_and_a_job_that_end(study: Tiny, whole: Path) -> None:
    """One task at a time; nothing is submitted twice, and only what was lost again."""
    first = driver(study, "--cap", "1", "--cohorts-per-job", "1")
    until(lambda: workers(study), first)
    states = Counter(queue(study).values())
    assert states == {"RUNNING": 1, "PENDING": 2}  # the cap
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    restart_controller()
    second = driver(study, "--cap", "1", "--cohorts-per-job", "1")
    until(lambda: len(set(workers(study))) == 2, second)  # the first task went on, and has ended
    assert len(list((study.root / "runs" / ".jobs" / "slurm").glob("*.json"))) == 1
    assert len(workers(study)) > UPDATES
    until(lambda: len(workers(study)) > UPDATES + 5, second)
    os.kill(workers(study)[-1], signal.SIGKILL)
    code, text = ended(second)
    assert code == 0, text
    assert "6 of 6 trials completed, 0 failed" in text
    counts = Counter(workers(study))
    assert len(counts) == 4  # three cohorts, and the one that was killed again
    assert sorted(counts.values())[1:] == [UPDATES] * 3
    assert_same(study, whole)


def test_scancel_and_the_same_command(study: Tiny, whole: Path) -> None:
    first = driver(study, "--cap", "2", pause=8.0)
    until(lambda: workers(study), first)
    os.kill(first.pid, signal.SIGINT)
    code, text = ended(first)
    found = re.search(r"3 cohorts run or wait on .* to end them: scancel (\d+)", text)
    assert code == 130, text
    assert found is not None, text
    said = study.command(*study.arguments("status"))
    assert re.search(r"jobs elsewhere: [12] run \(oldest sign of life \d+ s ago\)", said.out), (
        said.out
    )
    second = driver(study, "--cap", "2", pause=8.0)
    until(lambda: "cohorts" in (second.stdout.readline() if second.stdout else ""), second)
    time.sleep(2)
    asked("scancel", found[1])
    code, text = ended(second)
    assert code == 1, text
    assert f"its job {found[1]}" in text
    assert "CANCELLED" in text
    code, text = ended(driver(study, pause=0))
    assert code == 0, text
    assert_same(study, whole)


def test_a_job_that_is_preempted_saves_its_training_and_goes_on(study: Tiny, whole: Path) -> None:
    """No update is computed twice."""
    process = driver(study, "--cap", "1", "--cohorts-per-job", "3")
    until(lambda: len(workers(study)) > UPDATES // 2, process)
    [number] = queue(study)
    asked("scancel", "--signal=USR2", number)
    code, text = ended(process)
    assert code == 0, text
    counts = Counter(workers(study))
    assert (len(counts), sum(counts.values())) == (2, 3 * UPDATES)
    assert len(list((study.root / "runs" / ".jobs" / "slurm").glob("*.json"))) == 1
    assert_same(study, whole)
