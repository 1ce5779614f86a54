"""The launcher `slurm` with commands that only act like SLURM's: what is submitted, followed, taken over, refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_study import Tiny

from ablate.errors import UserError
from ablate.launch import base, shared, slurm
from ablate.launch.base import Died, Event, Failed, Finished, Job, Place, Started, Stopped

pytest.importorskip("submitit", reason="submitit is not installed: pip install '.[slurm]'")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the fake SLURM keeps its jobs; whatever still runs is ended."""
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path / "slurm"))
    (tmp_path / "slurm").mkdir()
    import fake_slurm

    monkeypatch.setattr(fake_slurm, "HOME", tmp_path / "slurm")
    fake_slurm.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    for name, seconds in (("POLL", 0.05), ("ASK", 0.2)):
        monkeypatch.setattr(slurm, name, seconds)
    monkeypatch.setattr(shared, "SAID", 0.05)
    yield tmp_path / "slurm"
    fake_slurm.scancel(*(path.stem for path in (tmp_path / "slurm").glob("*.sh")))


Run = Callable[..., list[Event]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Jobs of `pool_work` through the launcher; their events."""

    def run(
        whats: Sequence[str], then: Callable[[Event], None] = lambda event: None, **options: Any
    ) -> list[Event]:
        jobs = [Job(f"job{i}", (str(tmp_path), i, what)) for i, what in enumerate(whats)]
        events: list[Event] = []

        def on_event(event: Event) -> None:
            events.append(event)
            then(event)

        launcher(tmp_path, **options)(jobs, "pool_work.work", 1, on_event)
        return events

    return run


def launcher(folder: Path, **options: Any) -> slurm.Slurm:
    made = base.made("slurm", options, Place("tiny", folder / "runs"))
    assert isinstance(made, slurm.Slurm)
    return made


def submissions(home: Path) -> list[str]:
    return [line for line in (home / "calls").read_text().splitlines() if line.startswith("sbatch")]


def test_an_array_with_a_cap_and_several_cohorts_a_job(run: Run, home: Path) -> None:
    events = run(
        ["double"] * 4 + ["raise"], cap=2, cohorts_per_job=2, minutes=30, gpus=1, account="me"
    )
    found = {e.job.id: e.value for e in events if isinstance(e, Finished)}
    assert found == {f"job{i}": 2 * i for i in range(4)}
    [failed] = [e for e in events if isinstance(e, Failed)]
    assert (failed.job.id, failed.error) == ("job4", "ZeroDivisionError: by zero")
    for job in {e.job.id for e in events}:
        assert next(type(e) for e in events if e.job.id == job) is Started
    [script] = home.glob("*.sh")
    flags = set(re.findall(r"^#SBATCH --(.*)$", script.read_text(), re.MULTILINE))
    assert {"array=0-2%2", "time=30", "gpus-per-node=1", "account=me", "cpus-per-task=1"} <= flags
    assert "signal=USR2@90" in flags
    desk = shared.Desk(script.parents[1] / "runs")
    assert not any(os.listdir(each) for each in (desk.waiting, desk.said, desk.done, desk.held))


def test_a_job_that_dies_is_tried_again_and_then_told_of(run: Run, home: Path) -> None:
    events = run(["die", "double"], cap=2)
    [died] = [e for e in events if isinstance(e, Died)]
    assert died.job.id == "job0"
    assert "its job 101 ended without a result (FAILED; its log ends: " in died.error
    assert len(submissions(home)) == 2  # only the one that died, the second time
    assert [e.value for e in events if isinstance(e, Finished)] == [2]


def test_a_driver_that_is_stopped_says_what_runs_and_the_next_one_takes_over(
    run: Run, home: Path
) -> None:
    """What ended meanwhile is taken, what runs is waited for, nothing is submitted twice."""

    def stop(event: Event) -> None:
        if isinstance(event, Finished):
            raise KeyboardInterrupt

    with pytest.raises(Stopped, match="stopped by signal 2") as stopped:
        run(["double"] * 4, stop, cap=1, cohorts_per_job=1)
    assert stopped.value.left == (
        "3 cohorts run or wait on without it in SLURM's jobs 100, which it takes over; to end them: scancel 100"
    )
    (home / "away").touch()  # the controller doesn't answer
    with pytest.raises(UserError, match="squeue: slurm_load_jobs error: Unable to contact"):
        run(["double"] * 4)
    (home / "away").unlink()
    events = run(["double"] * 4)  # the first was taken by nobody's next command: it runs anew
    assert sorted(e.value for e in events if isinstance(e, Finished)) == [0, 2, 4, 6]
    assert len(submissions(home)) == 2
    again = re.search(r"--array", (home / "101.sh").read_text())
    assert again is None  # one job only


def test_a_driver_that_died_before_it_could_note_the_number(
    run: Run, home: Path, tmp_path: Path
) -> None:
    """SLURM is asked by the name, which was noted before."""
    (home / "hold").touch()

    driver = launcher(tmp_path)
    note, noted = driver._note, []

    def dying(made: slurm.Submission) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(made)
        note(made)

    driver._note = dying  # type: ignore[method-assign]
    jobs = [Job(f"job{i}", (str(tmp_path), i, "double")) for i in range(2)]
    with pytest.raises(Stopped):
        driver(jobs, "pool_work.work", 1, lambda event: None)
    [path] = (tmp_path / "runs" / ".jobs" / "slurm").glob("*.json")
    assert json.loads(path.read_text())["number"] == ""
    [found] = launcher(tmp_path)._submissions()
    assert (found.number, json.loads(path.read_text())["number"]) == ("100", "100")


def test_what_the_user_has_to_mend_ends_the_others(run: Run, home: Path) -> None:
    def refuse(event: Event) -> None:
        if isinstance(event, Failed) and event.refused:
            raise UserError(event.error)

    with pytest.raises(UserError, match=r"^data\.h5: it is cut off\.$"):
        run(["refuse", "write"], refuse, cap=1, cohorts_per_job=1)
    states = {path.stem: json.loads(path.read_text())["state"] for path in home.glob("*.task")}
    assert states["100_1"] == "CANCELLED"


def test_a_cancelled_job_is_not_tried_again(run: Run, home: Path) -> None:
    import fake_slurm

    def cancel(event: Event) -> None:
        if isinstance(event, Started):
            fake_slurm.scancel("100")

    events = run(["write"], cancel)
    [died] = [e for e in events if isinstance(e, Died)]
    assert "its job 100 ended without a result (CANCELLED" in died.error
    assert len(submissions(home)) == 1


def test_it_never_waits_for_ever(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "hold").touch()  # jobs stay in the queue
    with pytest.raises(
        UserError, match=r"it waited for 0\.0001 hours .* to end them: scancel 100$"
    ):
        run(["double"], hours=0.0001)
    monkeypatch.setattr(slurm, "SILENT", 0.3)
    look = slurm.Slurm._submissions

    def then_away(self: slurm.Slurm) -> list[slurm.Submission]:
        found = look(self)
        (home / "away").touch()  # from now on the controller doesn't answer
        return found

    monkeypatch.setattr(slurm.Slurm, "_submissions", then_away)
    with pytest.raises(UserError, match="neither SLURM nor a job has said a word"):
        run(["double"])
    assert len(submissions(home)) == 1


REFUSED = [
    ({"partition": "wrok"}, "--partition: 'wrok' is not known; allowed: work, night. Did you mean 'work'?"),
    ({"partition": "night"}, "--launcher slurm: partition night is DOWN; allowed: one that is UP."),
    ({"minutes": 121}, "--launcher slurm: --minutes: found 121; partition work allows 120."),
    ({"gpus": 5}, "it has nodes with: 8 processors, 16000 MB, 0 GPUs; 64 processors, 256000 MB, 4 GPUs."),
    ({"cpus": 16, "gpus": 4, "memory": 300}, "no node of partition work has 16 processors, 307200 MB and 4"),
    ({"minutes": 0}, "--launcher slurm.minutes: found '0'; input should be greater than or equal to 2."),
    ({"minuets": 5}, "--launcher slurm: 'minuets' is not known; allowed: cap, partition, minutes,"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_cannot_be_had_is_refused_before_anything_is_submitted(
    home: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        launcher(tmp_path, **options).check()
    launcher(tmp_path, cpus=16, gpus=4, memory=200).check()
    launcher(tmp_path).check()


def test_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="found no sbatch; start it where jobs are submitted from"):
        launcher(tmp_path).check()
    with pytest.raises(UserError, match="--launcher local: found cap; it has no options"):
        base.made("local", {"cap": 3}, Place("tiny", tmp_path))


def test_how_cohorts_are_packed(home: Path, tmp_path: Path) -> None:
    """Long ones are spread; an array has at most four tasks here."""
    made = launcher(tmp_path, cap=4, minutes=10)
    assert made._packed([]) == []
    assert made._packed([9.0, 100.0, 50.0]) == [[1], [2], [0]]
    assert made._packed([5.0, 1.0, 4.0, 3.0, 2.0, 0.5]) == [[0, 1], [2, 5], [3], [4]]
    # Three in a task, though each takes longer than a job may: what is unfinished goes on.
    assert list(map(len, made._packed([1e9] * 9))) == [3, 2, 2, 2]
    long = launcher(tmp_path, cap=1, minutes=2, cohorts_per_job=2)
    assert list(map(len, long._packed([1.0] * 5))) == [2, 2, 1]
    assert list(map(len, launcher(tmp_path, cap=1, minutes=2)._packed([20.0] * 4))) == [2, 2]
    assert made.foretell([600.0] * 4, 20).startswith(
        "SLURM: 4 cohorts in 4 jobs of up to 1, 4 at once"
    )
    assert made.foretell([600.0] * 4, 20).endswith("0.68 job hours in all, 2 min a fit.")


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("UNLIMITED", float("inf")), ("90:00", 90), ("02:00:00", 120), ("1-12:00:00", 2160), ("2-03", 3060), ("5", 5)],
)  # fmt: skip
def test_slurms_times(text: str, minutes: float) -> None:
    assert slurm._minutes(text) == minutes


def test_a_node_that_does_not_see_the_folder(tmp_path: Path) -> None:
    desk = shared.Desk(tmp_path / "runs")
    word = desk.open()
    assert desk.open() == word
    desk.seen(word)
    shutil.rmtree(desk.folder)
    with pytest.raises(
        SystemExit, match="doesn't see there what the driver wrote; keep results on a"
    ):
        slurm.Task(str(tmp_path / "runs"), [], word)()


def test_a_study_gives_the_same_table_as_here(tiny: Tiny, home: Path) -> None:
    planned = tiny.command(
        *tiny.arguments("plan", "--launcher", "slurm", "--cap", "200", "--option", "memory=8")
    )
    assert planned.code == 0, planned.err
    assert (
        "SLURM: 3 cohorts in 3 jobs of up to 1, 3 at once, each with 1 CPU for at most 60 min: about "
        in planned.out
    )
    assert not (home / "calls").exists() or not submissions(home)
    assert tiny.run().code == 0
    names = ("trials.csv", "curves.csv", "audit.json")
    before = {name: (tiny.root / name).read_bytes() for name in names}
    shutil.rmtree(tiny.results)
    ended = tiny.command(
        *tiny.arguments("run", "--launcher", "slurm", "--cap", "1", "--cohorts-per-job", "3")
    )
    assert ended.code == 0, ended.err
    assert (
        "6 fits to train and 12 measurements in 3 cohorts. SLURM: 3 cohorts in 1 jobs of up to 3, 1 at once"
        in ended.out
    )
    assert before == {name: (tiny.root / name).read_bytes() for name in names}
    for wrong, line in (
        ("cap=0", "--launcher slurm.cap: found '0'"),
        ("cap", "--option cap: found no '='"),
    ):
        assert (
            line
            in tiny.command(*tiny.arguments("run", "--launcher", "slurm", "--option", wrong)).line
        )
