"""One Sacred run per trial attempt: nothing lost, no run left RUNNING, each verified."""

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ablate.errors import UserError
from ablate.track import recorder as room
from ablate.track.recorder import Entry, NotRecorded, Outcome, record
from ablate.track.signals import Interrupted
from ablate.track.store import attempts

HELPER = Path(__file__).with_name("cohort_process.py")


def strict(path):
    def refuse(word):
        raise AssertionError(f"{path} holds {word}, which is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def cohort(size):
    return [Entry(f"trial{i}", {"seed": i, "model": {"layers": 2}}) for i in range(size)]


def start(mode, store, *more):
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HELPER), mode, str(store), *more]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_cohort_is_recorded_whole(tmp_path):
    checkpoint = tmp_path / "last.safetensors"
    checkpoint.write_bytes(b"weights")

    def body(logs):
        assert [strict(log.path / "run.json")["status"] for log in logs] == ["RUNNING"] * 3
        for log in logs:
            log.metric("loss", 0.5, 1)
            log.info(device="cpu")
        curve = [{"update": 0, "loss": 1 / 3}, {"update": 10, "loss": math.nan}]
        return [Outcome({"score": 1 / 3 + i}, "", [checkpoint], curve) for i in range(3)]

    ended = record(cohort(3), body, tmp_path / "runs")
    assert [(one.run_id, one.status) for one in ended] == [
        (f"trial{i}", "COMPLETED") for i in range(3)
    ]
    run = strict(tmp_path / "runs/trial1/run.json")
    assert run["result"] == {"score": 1 / 3 + 1}
    assert run["host"]["process"]["pid"] == os.getpid()
    assert any(name.endswith("recorder.py") for name, _ in run["experiment"]["sources"])
    folder = tmp_path / "runs/trial1"
    assert strict(folder / "config.json") == {"seed": 1, "model": {"layers": 2}}
    assert strict(folder / "metrics.json")["loss"]["values"] == [0.5]
    assert strict(folder / "info.json") == {"device": "cpu"}
    assert (folder / "last.safetensors").read_bytes() == b"weights"
    assert (folder / "curve.csv").read_text() == f"update,loss\n0,{1 / 3!r}\n10,\n"


def test_the_same_trial_again_is_a_new_attempt(tmp_path):
    names = [
        record([Entry("t", {"seed": 0})], lambda logs: [Outcome()], tmp_path)[0].run_id
        for _ in range(3)
    ]
    assert names == ["t", "t.2", "t.3"]


def test_one_failing_trial_leaves_the_others(tmp_path):
    def body(logs):
        return [Outcome({"score": 1.0}), Outcome(failure="the loss is NaN"), Outcome({"score": 3})]

    ended = record(cohort(3), body, tmp_path)
    assert [one.status for one in ended] == ["COMPLETED", "FAILED", "COMPLETED"]
    assert ended[1].failure == "the loss is NaN"
    found = attempts(tmp_path)
    assert [one.status for one in found] == ["COMPLETED", "FAILED", "COMPLETED"]
    assert found[1].failure == "the loss is NaN"
    assert found[2].result == {"score": 3.0}


def test_an_exception_fails_the_whole_cohort_with_its_trace(tmp_path):
    def body(logs):
        raise ZeroDivisionError("no such\nmixer")

    ended = record(cohort(3), body, tmp_path)
    assert {(one.status, one.failure) for one in ended} == {
        ("FAILED", "ZeroDivisionError: no such mixer")
    }
    assert "in body" in ended[0].trace
    assert {one.status for one in attempts(tmp_path)} == {"FAILED"}
    assert "ZeroDivisionError" in "".join(strict(tmp_path / "trial2/run.json")["fail_trace"])


@pytest.mark.parametrize(
    "error", [UserError("data.h5: it is cut off."), OSError(errno.ENOSPC, "No space", "x.bin")]
)
def test_what_is_not_the_trials_fault_interrupts(tmp_path, error):
    def body(logs):
        raise error

    with pytest.raises(UserError, match=r"cut off|x\.bin: the disk is full"):
        record(cohort(2), body, tmp_path)
    assert {one.status for one in attempts(tmp_path)} == {"INTERRUPTED"}


def test_values_that_json_does_not_know(tmp_path):
    def body(logs):
        for value in (math.nan, math.inf, 1.0):
            logs[0].metric("loss", value, 0)
        return [Outcome({"a": math.nan, "b": -math.inf, "c": 1e-300})]

    record([Entry("t", {"seed": 0})], body, tmp_path)
    assert strict(tmp_path / "t/metrics.json")["loss"]["values"] == [None, "inf", 1.0]
    result = attempts(tmp_path)[0].result
    assert math.isnan(result["a"])
    assert result["b"] == -math.inf
    assert result["c"] == 1e-300


def test_metrics_are_thinned_and_keep_the_last(tmp_path):
    def body(logs):
        for i in range(10_001):
            logs[0].metric("loss", i, i)
        return [Outcome()]

    record([Entry("t", {"seed": 0})], body, tmp_path)
    steps = strict(tmp_path / "t/metrics.json")["loss"]["steps"]
    assert len(steps) < 3000
    assert steps[:3] == [0, 1, 2]
    assert steps[-1] == 10_000
    assert steps == sorted(set(steps))


def test_a_metric_that_is_no_number_fails_its_trial(tmp_path):
    ended = record(
        cohort(2), lambda logs: [Outcome({"score": "high"}), Outcome({"score": 1})], tmp_path
    )
    assert [one.status for one in ended] == ["FAILED", "COMPLETED"]
    assert ended[0].failure == "TypeError: metric 'score' is not a number: 'high'"


def test_a_deleted_run_is_noticed(tmp_path):
    def body(logs):
        shutil.rmtree(logs[1].path)
        return [Outcome({"score": 1.0}) for _ in logs]

    with pytest.raises(NotRecorded, match=r"trial1: the run's folder was deleted"):
        record(cohort(2), body, tmp_path)
    assert [(one.trial_id, one.status) for one in attempts(tmp_path)] == [("trial0", "COMPLETED")]


def test_a_full_disk_at_the_end_is_noticed(tmp_path, monkeypatch):
    def body(logs):
        monkeypatch.setattr("ablate.track.files.os.replace", full)
        return [Outcome({"score": 1.0})]

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", target)

    with pytest.raises(NotRecorded, match=r"trial0: the disk is full .* Free some space") as caught:
        record(cohort(1), body, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_full_disk_at_the_start_runs_nothing(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", target)

    monkeypatch.setattr("ablate.track.files.os.replace", full)
    with pytest.raises(UserError, match="the disk is full"):
        record(cohort(2), lambda logs: pytest.fail("the body ran"), tmp_path)


def test_an_artifact_that_cannot_be_kept_is_noticed(tmp_path, monkeypatch):
    store = tmp_path / "runs"
    with pytest.raises(NotRecorded, match=r"gone\.bin: this artifact could not be kept"):
        record(cohort(1), lambda logs: [Outcome({}, "", [tmp_path / "gone.bin"])], store)

    def full(source, target):
        Path(target).write_bytes(b"ha")
        raise OSError(errno.ENOSPC, "No space left on device", target)

    monkeypatch.setattr("sacred.observers.file_storage.copyfile", full)
    monkeypatch.setattr(room.places.TrialStorage, "save_sources", lambda self, info: [])
    (tmp_path / "last.bin").write_bytes(b"half")
    with pytest.raises(UserError, match=r"last\.bin: the disk is full"):
        record(cohort(1), lambda logs: [Outcome({}, "", [tmp_path / "last.bin"])], store)
    assert [one.status for one in attempts(store)] == ["INTERRUPTED", "INTERRUPTED"]
    assert not list(store.glob("*/last.bin"))


@pytest.mark.parametrize("seed", [None, -1, 2**32, True, "1"])
def test_a_seed_that_sacred_would_replace_is_refused(tmp_path, seed):
    with pytest.raises(UserError, match="its seed is"):
        record([Entry("t", {"seed": seed})], lambda logs: [Outcome()], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("extra", [{"a.b": 1}, {"a": math.nan}, {"a": object()}])
def test_a_configuration_that_cannot_be_stored_is_refused_in_one_line(tmp_path, extra):
    with pytest.raises(UserError, match="trial t: its configuration can't be stored") as caught:
        record([Entry("t", {"seed": 0, **extra})], lambda logs: [Outcome()], tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_wide_cohort(tmp_path):
    ended = record(cohort(64), lambda logs: [Outcome({"score": 1}) for _ in logs], tmp_path)
    assert {one.status for one in ended} == {"COMPLETED"}
    assert len(attempts(tmp_path)) == 64


def test_no_stream_of_the_trial_comes_from_sacred(tmp_path, monkeypatch):
    seen = []

    def body(logs):
        seen.append(room.SETTINGS.CAPTURE_MODE)
        return [Outcome()]

    record([Entry("t", {"seed": 3})], body, tmp_path)
    assert seen == ["no"]
    assert "_seed" not in Path(room.__file__).read_text()


def test_fifty_starts_at_once_lose_nothing(tmp_path):
    process = start("crowd", tmp_path, "50")
    assert process.wait(timeout=60) == 0, process.stderr.read().decode()
    found = attempts(tmp_path)
    assert len({one.run_id for one in found}) == 50
    assert {one.status for one in found} == {"COMPLETED"}
    assert sorted(one.result["seed"] for one in found) == list(range(50))
    assert all(one.config()["seed"] == one.result["seed"] for one in found)
    assert sum(one.number == 2 for one in found) == 10
    process.stdout.close()
    process.stderr.close()


@pytest.mark.parametrize(
    ("signum", "mode"),
    [(signal.SIGTERM, "patient"), (signal.SIGINT, "patient"), (signal.SIGTERM, "swallow")],
)
def test_a_signal_ends_all_runs_interrupted(tmp_path, signum, mode):
    with start(mode, tmp_path) as process:
        assert process.stdout.readline() == b"working\n"
        process.send_signal(signum)
        _, trace = process.communicate(timeout=20)
    assert b"Interrupted" in trace
    found = attempts(tmp_path)
    # a body that swallows the signal has finished its work: the process stops none the less
    assert [one.status for one in found] == ["INTERRUPTED"] * 3
    assert strict(tmp_path / "trial0/metrics.json")["loss"]["values"] == [1.0]


def test_killed_runs_are_dead_at_once_and_the_next_attempt_is_the_second(tmp_path):
    with start("patient", tmp_path) as process:
        assert process.stdout.readline() == b"working\n"
        assert [one.status for one in attempts(tmp_path)] == ["RUNNING"] * 3
        process.kill()
        process.communicate(timeout=20)
    assert [one.status for one in attempts(tmp_path)] == ["DEAD"] * 3
    ended = record(cohort(3), lambda logs: [Outcome({"score": 1.0}) for _ in logs], tmp_path)
    assert [one.run_id for one in ended] == ["trial0.2", "trial1.2", "trial2.2"]


def test_a_signal_while_runs_open_is_held_back(tmp_path, monkeypatch):
    opened = room.places.TrialStorage.started_event

    def started(self, *args, **kwargs):
        name = opened(self, *args, **kwargs)
        if name == "trial0":
            os.kill(os.getpid(), signal.SIGTERM)
        return name

    monkeypatch.setattr(room.places.TrialStorage, "started_event", started)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted):
        record(cohort(2), lambda logs: pytest.fail("the body ran"), tmp_path)
    assert [one.status for one in attempts(tmp_path)] == ["INTERRUPTED"] * 2
    assert signal.getsignal(signal.SIGTERM) is before
