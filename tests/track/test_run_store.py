"""Reading the store: dead runs are told from living ones, corrupt records are refused."""

import datetime
import json
import os
import threading
import time

import pytest

from ablate.errors import UserError
from ablate.track import process, seal
from ablate.track.recorder import Entry, Outcome, record
from ablate.track.store import Attempt, attempts, deciding


def write(store, name, **changes):
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    run = {"status": "RUNNING", "start_time": now.isoformat(), "heartbeat": None, "host": {}}
    (store / name).mkdir(parents=True)
    run |= changes
    run["hash"] = seal.of_run(name.partition(".")[0], run)
    (store / name / "run.json").write_text(json.dumps(run))


def ago(seconds):
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    return (now - datetime.timedelta(seconds=seconds)).isoformat()


def test_an_absent_store_is_empty(tmp_path):
    assert attempts(tmp_path / "runs") == []


def test_a_run_of_another_machine_lives_by_its_heartbeat(tmp_path):
    elsewhere = {"process": {"pid": 1, "started": 1, "machine": "elsewhere"}}
    write(tmp_path, "fresh", heartbeat=ago(20), start_time=ago(900), host=elsewhere)
    write(tmp_path, "stale", heartbeat=ago(90), start_time=ago(900), host=elsewhere)
    write(tmp_path, "skewed", heartbeat=ago(90), start_time=ago(900), host=elsewhere)
    then = time.time() - 90
    os.utime(tmp_path / "stale" / "run.json", (then, then))
    found = {one.trial_id: one for one in attempts(tmp_path)}
    assert found["fresh"].status == "RUNNING"
    assert found["stale"].status == "DEAD"
    assert found["skewed"].status == "RUNNING"  # its clock is behind: the file was written just now
    assert found["stale"].heartbeat_age == pytest.approx(90, abs=5)


def test_a_reused_process_number_is_not_the_old_process(tmp_path):
    me = process.identity()
    write(tmp_path, "mine", host={"process": me})
    write(tmp_path, "older", host={"process": {**me, "started": 1}})
    assert {one.trial_id: one.status for one in attempts(tmp_path)} == {
        "mine": "RUNNING",
        "older": "DEAD",
    }


def test_a_living_process_is_running_whatever_the_clock_says(tmp_path):
    write(tmp_path, "mine", heartbeat=ago(7200), host={"process": process.identity()})
    write(tmp_path, "ahead", heartbeat=ago(-7200), host={"process": process.identity()})
    for name in ("mine", "ahead"):
        for hours in (-2, 2):
            then = time.time() + 3600 * hours
            os.utime(tmp_path / name / "run.json", (then, then))
            assert {one.status for one in attempts(tmp_path)} == {"RUNNING"}


def test_a_claim_without_a_record_is_running_while_it_is_young(tmp_path, monkeypatch):
    (tmp_path / "claimed").mkdir()
    assert attempts(tmp_path)[0].status == "RUNNING"
    monkeypatch.setattr("ablate.track.store.time.time", lambda: time.monotonic() + 1e10)
    assert attempts(tmp_path)[0].status == "DEAD"


@pytest.mark.parametrize(
    "text",
    [
        '{"status": "COMPLE',
        "",
        "[]",
        "{}",
        '{"status": "COMPLETED"}',
        '{"status": "COMPLETED", "start_time": "2026-01-01T00:00:00", "result": {"score": 1.0}}',
        '{"status": "COMPLETED", "start_time": "yesterday"}',
        '{"status": "COMPLETED", "start_time": "2026-01-01T00:00:00", "result": {"score": "high"}}',
        '{"status": "COMPLETED", "start_time": "2026-01-01T00:00:00", "result": [1]}',
    ],
)
def test_a_corrupt_record_is_refused_and_kept(tmp_path, text):
    write(tmp_path, "good", status="FAILED", stop_time=ago(0))
    (tmp_path / "bad").mkdir()
    file = tmp_path / "bad" / "run.json"
    file.write_text(text)
    with pytest.raises(
        UserError, match=r"bad/run\.json: .* corrupt .* Move the folder bad"
    ) as caught:
        attempts(tmp_path)
    assert "\n" not in str(caught.value)
    assert file.read_text() == text


def test_a_record_that_is_just_being_written_is_waited_for(tmp_path):
    write(tmp_path, "slow", status="FAILED", stop_time=ago(0))
    file = tmp_path / "slow" / "run.json"
    whole = file.read_text()
    file.write_text(whole[:20])
    timer = threading.Timer(0.1, lambda: file.write_text(whole))
    timer.start()
    assert attempts(tmp_path)[0].status == "FAILED"
    timer.join()


def test_other_things_in_the_store_are_left_alone(tmp_path):
    record([Entry("t", {"seed": 0})], lambda logs: [Outcome()], tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".lock").write_text("")
    assert [one.run_id for one in attempts(tmp_path)] == ["t"]


def test_only_the_trials_that_are_asked_for_are_read(tmp_path):
    for name in ("a", "a.2", "b", "ab"):
        write(tmp_path, name, status="FAILED", stop_time=ago(0))
    (tmp_path / "b" / "run.json").write_text("cut off")
    assert [one.run_id for one in attempts(tmp_path, ["a"])] == ["a", "a.2"]
    assert attempts(tmp_path, []) == []


def test_the_deciding_attempt(tmp_path):
    def attempt(number, status):
        return Attempt("t", number, tmp_path / f"t.{number}", status, {})

    assert deciding([attempt(2, "FAILED"), attempt(1, "DEAD")])["t"].number == 2
    assert deciding([attempt(3, "FAILED"), attempt(2, "COMPLETED")])["t"].number == 2
    assert deciding([attempt(3, "COMPLETED"), attempt(2, "COMPLETED")])["t"].number == 2
