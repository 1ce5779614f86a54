"""A study that is cut short, at any moment and in any way, goes on by the same command."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_study import TEXT, Tiny

from ablate import registry
from ablate.launch.base import Finished, Started
from ablate.launch.worker import find
from ablate.track.store import attempts
from ablate.track.table import read_table

SABOTEUR = Path(__file__).with_name("saboteur.py")
TABLES = ("trials.csv", "curves.csv", "audit.json")


@pytest.fixture
def whole(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same study, run without an interruption; made once."""
    kept = tmp_path_factory.getbasetemp() / "uninterrupted"
    if not kept.exists():
        there = Tiny(kept, tiny.capture)
        kept.mkdir()
        there.write()
        assert there.run().code == 0
        shutil.rmtree(there.root / "checkpoints", ignore_errors=True)
    return kept / "results" / "tiny"


@contextlib.contextmanager
def held(tiny: Tiny, place: str) -> Iterator[subprocess.Popen[str]]:
    """The study in a process group of its own, which waits at `place`."""
    flag = tiny.folder / "flag"
    command = tiny.arguments("run", "--workers", "1", "--plugin", str(SABOTEUR))
    process = tiny.process(*command, SABOTAGE=place, FLAG=str(flag))
    try:
        deadline = time.monotonic() + 600  # on a machine that is very busy
        while not flag.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "it took too long"
            time.sleep(0.05)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def statuses(tiny: Tiny) -> Counter[str]:
    return Counter(one.status for one in attempts(tiny.root / "runs"))


def same(tiny: Tiny, whole: Path) -> bool:
    return all((tiny.root / name).read_bytes() == (whole / name).read_bytes() for name in TABLES)


@pytest.mark.parametrize(
    ("place", "left", "fits"),
    [
        ("training", {"COMPLETED": 6, "DEAD": 2}, 4),
        ("recording", {"COMPLETED": 7, "DEAD": 1}, 3),
    ],
)
def test_kill_9_and_the_same_command(
    tiny: Tiny, whole: Path, place: str, left: dict[str, int], fits: int
) -> None:
    with held(tiny, place) as process:
        assert len(read_table(tiny.root / "trials.csv")) == 2
        assert statuses(tiny)["RUNNING"] == left["DEAD"]
        # A saved state of the training, which is then taken up from there.
        assert list((tiny.root / "checkpoints").glob("*/training-*.safetensors"))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 30  # until the kernel has ended the worker too
        while statuses(tiny)["RUNNING"] and time.monotonic() < deadline:
            time.sleep(0.05)
    assert statuses(tiny) == left
    ended = tiny.command(*tiny.arguments("run", "--workers", "1"))  # with a real worker
    assert ended.code == 0, ended.err
    assert "2 are done, 4 to run" in ended.out
    assert f"{fits} fits to train and 8 measurements in 2 cohorts" in ended.out
    assert same(tiny, whole)
    assert statuses(tiny) == {"COMPLETED": 18, "DEAD": left["DEAD"]}
    again = {one.run_id for one in attempts(tiny.root / "runs") if one.number == 2}
    assert again == {f"{o.trial_id}.2" for o in attempts(tiny.root / "runs") if o.status == "DEAD"}
    assert not list((tiny.root / "checkpoints").glob("training-*"))
    assert len(list((tiny.root / "checkpoints").glob("*/6.safetensors"))) == 6


def test_a_signal_ends_in_interrupted_and_the_same_command_goes_on(tiny: Tiny, whole: Path) -> None:
    with held(tiny, "training") as process:
        # Meanwhile nobody else may run the same study.
        assert f"being run by process {process.pid} on" in tiny.run().line
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 130
    assert err == (
        "ablate: stopped; what is finished is kept. The same command goes on from here.\n"
    )
    assert "Traceback" not in out
    assert statuses(tiny) == {"COMPLETED": 6, "INTERRUPTED": 2}
    assert tiny.run().code == 0
    assert same(tiny, whole)
    assert statuses(tiny) == {"COMPLETED": 18, "INTERRUPTED": 2}


def test_a_killed_worker_leaves_its_trials_without_a_result(tiny: Tiny, whole: Path) -> None:
    """The line of progress and the summary say the same."""
    with held(tiny, "training") as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        if not children.exists():
            pytest.skip("this system doesn't tell the children of a process")
        for worker in children.read_text().split():
            os.kill(int(worker), signal.SIGKILL)
        # The next worker is held too, at its first cohort's end or not at all.
        out, _ = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "no result from tmaze/passive-3" in out
    assert "its worker was ended by SIGKILL (often: out of memory)" in out
    last = [line for line in out.splitlines() if "trials done" in line][-1]
    assert "4/6 trials done, 0 failed, 2 without a result, 0 running" in last
    assert "4 of 6 trials completed, 0 failed, 2 without a result" in out
    assert tiny.run().code == 0
    assert same(tiny, whole)


@pytest.mark.parametrize("what", ["runs", ""])
def test_a_results_folder_that_is_deleted_while_the_study_runs(tiny: Tiny, what: str) -> None:
    with held(tiny, "recording") as process:
        os.rename(tiny.root / what, tiny.folder / "away")
        (tiny.folder / "go on").touch()
        _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "deleted" in err
    assert len(err.splitlines()) == 1, err
    assert not (tiny.root / "trials.csv").exists() or what == "runs"


def test_seeds_that_are_added_leave_what_is_there(tiny: Tiny) -> None:
    """Also a training that was interrupted among fewer seeds; names of files don't grow with them."""
    with held(tiny, "training") as process:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = read_table(tiny.root / "trials.csv")
    ended = tiny.run("--seeds", "3", "--set", "train.updates=6")
    assert ended.code == 0, ended.err
    after = read_table(tiny.root / "trials.csv")
    assert len(after) == 9
    assert after[after["trial"].isin(before["trial"])].reset_index(drop=True).equals(before)
    assert not list((tiny.root / "checkpoints").glob("training-*"))


@pytest.mark.parametrize("kind", ["a file", "read-only"])
def test_results_that_cannot_be_written(tiny: Tiny, kind: str) -> None:
    if kind == "a file":
        tiny.results.write_text("mine")
    else:
        tiny.results.mkdir(mode=0o500)
        if os.access(tiny.results, os.W_OK):
            pytest.skip("this user may write everywhere")
    for command in ("run", "status", "report"):
        ended = tiny.command(*tiny.arguments(command))
        assert ended.err.count("\n") <= 1
        assert command == "status" or ended.code == 2
    assert kind != "a file" or tiny.results.read_text() == "mine"


def test_a_cohort_whose_worker_was_lost_does_what_is_left(tiny: Tiny, whole: Path) -> None:
    """Where a launcher has it done once more, by the same job: nothing that was recorded is trained or measured."""

    def again(jobs, work, workers, on_event, plugins=()):  # type: ignore[no-untyped-def]
        for job in jobs:
            on_event(Started(0, job))
            first = find(work)(job.payload, lambda fraction, text: None)
            lost = max(first, key=lambda one: len(one.result)).path
            shutil.rmtree(lost)
            value = find(work)(job.payload, lambda fraction, text: None)
            assert {one.trial_id for one in value} == {one.trial_id for one in first}
            on_event(Finished(0, job, value))

    registry.register("launcher", "again")(again)
    ended = tiny.command(*tiny.arguments("run", "--launcher", "again"))
    assert ended.code == 0, ended.err
    assert same(tiny, whole)
    assert statuses(tiny) == {"COMPLETED": 18}


def test_sigterm_before_any_trial_is_heard_too(tiny: Tiny) -> None:
    plugin = tiny.folder / "slow.py"
    plugin.write_text("import pathlib, time\npathlib.Path('flag').touch()\ntime.sleep(100)\n")
    process = tiny.process(*tiny.arguments("run", "--plugin", str(plugin)))
    deadline = time.monotonic() + 600
    while not (tiny.folder / "flag").exists():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)
    process.terminate()
    _, err = process.communicate(timeout=300)
    assert (process.returncode, err.count("\n")) == (130, 1)


def test_the_committed_table_says_what_is_finished(tiny: Tiny) -> None:
    first = tiny.run()
    assert "0 are done, 6 to run" in first.out
    before = {name: (tiny.root / name).read_bytes() for name in TABLES}
    shutil.rmtree(tiny.root / "runs")  # as in a fresh clone
    again = tiny.run()
    assert again.code == 0
    assert "6 are done, 0 to run" in again.out
    assert before == {name: (tiny.root / name).read_bytes() for name in TABLES}
    assert statuses(tiny) == {}


def test_a_trial_that_diverges_fails_alone(tiny: Tiny) -> None:
    tiny.file.write_text(
        TEXT.replace("  mixer: [mlp, gru]", "  mixer: [mlp]")
        .replace("factors:", "factors:\n  train.learning_rate: [0.001, 100.0]")
        .replace("  context: [1, 2]", "  context: [1]")
        .replace("core: {data: tmaze/passive-3, context", "core: {data: tmaze/passive-3, train.learning_rate")
        .replace("train: {", "train: {weight_decay: 100.0, ")
        .replace("  other: {data: tmaze/passive-3, mixer: gru, context: 2}\n", "")
    )  # fmt: skip
    ended = tiny.run()
    assert ended.code == 0, ended.err
    assert "failed mlp K=1" in ended.out.replace("tmaze/passive-3 ", "")
    assert "2 of 4 trials completed, 2 failed, 0 without a result" in ended.out
    table = read_table(tiny.root / "trials.csv")
    bad = table[table["status"] == "FAILED"]
    assert list(bad["train.learning_rate"]) == [100.0, 100.0]
    assert bad["rollout.score"].isna().all()
    assert all(text.startswith("diverged: loss nan at update") for text in bad["failure"])
    listed = tiny.command(*tiny.arguments("status"))
    assert listed.out.startswith(
        "2 of 4 fits trained, 2 of 4 trials completed, 2 failed, 0 without"
    )
    assert listed.out.count("  FAILED  diverged: loss nan") == 2
    assert "4 are done, 0 to run" in tiny.run().out
    assert "2 are done, 2 to run" in tiny.run("--retry-failed").out
    assert statuses(tiny) == {"COMPLETED": 6, "FAILED": 4}
    assert read_table(tiny.root / "trials.csv").equals(table)
    # Its last good parameters are kept.
    assert all((tiny.root / "checkpoints" / fit / "6.safetensors").exists() for fit in bad["fit"])


def test_results_of_other_settings_are_replaced_when_they_are_run_again(tiny: Tiny) -> None:
    assert tiny.run().code == 0
    before = read_table(tiny.root / "trials.csv")
    changed = tiny.run("--set", "train.clip=0.5", "--only", "mixer=gru")
    assert "note: 2 results in" in changed.out
    after = read_table(tiny.root / "trials.csv")
    assert len(set(before["trial"]) & set(after["trial"])) == 4
    assert len(after) == 6
    curves = (tiny.root / "curves.csv").read_text()
    assert all(name in curves for name in after["fit"])
    assert not any(name in curves for name in set(before["fit"]) - set(after["fit"]))
