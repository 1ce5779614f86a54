"""The tidy table: exact round trips, a fixed order, atomic writing, refusals."""

import errno
import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.errors import UserError
from ablate.track.recorder import Entry, Outcome, record
from ablate.track.store import attempts
from ablate.track.table import (
    frame_of,
    merge,
    merge_curves,
    read_csv,
    read_table,
    rows,
    to_csv,
    write_table,
)

LEVEL = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
ROW = st.fixed_dictionaries(
    {
        "trial": st.uuids().map(str),
        "status": st.sampled_from(["COMPLETED", "FAILED"]),
        "data": st.sampled_from(["lq-mix/episode", "1e5", "nan", "NULL", "tmaze, long"]),
        "mixer": LEVEL,
        "seed": st.integers(0, 2**32 - 1),
        "score": st.floats(),
        "parameters": st.integers(-(10**17), 10**17),
        "failure": LEVEL,
    }
)


def equal(a, b):
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(ROW, min_size=1, max_size=5, unique_by=lambda row: row["trial"]))
def test_what_is_written_reads_back_exactly(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "round.csv"
    frame = frame_of(lines, list(lines[0]))
    path.write_text(to_csv(frame), encoding="utf-8", newline="")
    back = read_table(path)
    pd.testing.assert_frame_equal(back, frame)
    for line, row in zip(lines, rows(back), strict=True):
        assert all(equal(line[name], row[name]) for name in line)
    assert to_csv(back) == path.read_bytes().decode()


def trial(number, **changes):
    factors = {"data": "lq", "mixer": "gru", "context": 20, "train.updates": 800, "seed": number}
    return {"trial": f"t{number}", **factors, **changes}


def run(store, number, outcome):
    record([Entry(f"t{number}", {"seed": number})], lambda logs: [outcome], store)


def test_the_table_does_not_depend_on_the_way_there(tmp_path):
    trials = [trial(2), trial(0), trial(1, context=5)]
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    results = {i: Outcome({"score": i / 3, "extra": 1, "jerk": math.nan}) for i in range(3)}
    for i in range(3):
        run(straight, i, results[i])
    table = merge(None, attempts(straight), trials)

    run(broken, 2, Outcome(failure="NaN loss"))
    part = merge(None, attempts(broken), trials)
    assert rows(part)[0]["failure"] == "NaN loss"
    for i in (2, 0, 1):
        run(broken, i, results[i])
    path = tmp_path / "trials.csv"
    write_table(part, path)
    again = merge(read_table(path), attempts(broken), list(reversed(trials)))
    assert to_csv(again) == to_csv(table)
    assert list(again["trial"]) == ["t1", "t0", "t2"]
    columns = [name for name in table.columns if name not in ("condition", "history", "head")]
    assert columns == [
        *("trial", "status", "data", "mixer", "context", "seed", "train.updates"),
        *("score", "jerk", "extra", "failure"),
    ]


def test_results_of_another_machine_and_other_profiles_stay(tmp_path):
    store = tmp_path / "runs"
    run(store, 0, Outcome({"score": 1.0}))
    first = merge(None, attempts(store), [trial(0)])
    assert to_csv(merge(first, [], [trial(0), trial(1)])) == to_csv(first)
    run(store, 1, Outcome({"score": 2.0}))
    both = merge(first, attempts(store), [trial(1)])
    assert list(both["trial"]) == ["t0", "t1"]


def test_a_later_failure_does_not_undo_a_result(tmp_path):
    run(tmp_path / "here", 0, Outcome({"score": 1.0}))
    table = merge(None, attempts(tmp_path / "here"), [trial(0)])
    run(tmp_path / "there", 0, Outcome(failure="out of memory"))
    after = merge(table, attempts(tmp_path / "there"), [trial(0)])
    assert to_csv(after) == to_csv(table)


def test_curves_are_gathered_and_kept(tmp_path):
    curve = [{"update": 0, "train_loss": 1 / 3}, {"update": 5, "train_loss": 0.1}]
    run(tmp_path, 0, Outcome({"score": 1.0}, curve=curve))
    curves = merge_curves(None, attempts(tmp_path))
    assert rows(curves) == [{"trial": "t0", **point} for point in curve]
    write_table(curves, tmp_path / "curves.csv")
    again = merge_curves(read_csv(tmp_path / "curves.csv"), [])
    pd.testing.assert_frame_equal(again, curves)


def test_a_full_disk_leaves_the_previous_table(tmp_path, monkeypatch):
    path = tmp_path / "trials.csv"
    write_table(frame_of([trial(0)], list(trial(0))), path)
    before = path.read_text()

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ablate.track.files.os.fsync", full)
    with pytest.raises(UserError, match=r"trials\.csv: the disk is full") as caught:
        write_table(frame_of([trial(1)], list(trial(1))), path)
    assert "\n" not in str(caught.value)
    assert path.read_text() == before
    assert [one.name for one in tmp_path.iterdir()] == ["trials.csv"]


def test_what_a_killed_writer_left_is_taken_away(tmp_path):
    (tmp_path / ".trials.csv.999999999.tmp").write_text("tri")
    (tmp_path / ".trials.csv.1.tmp").write_text("another process, which lives")
    write_table(frame_of([trial(0)], list(trial(0))), tmp_path / "trials.csv")
    assert sorted(one.name for one in tmp_path.iterdir()) == [".trials.csv.1.tmp", "trials.csv"]


HEADER = "trial,status,data,seed,score\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trial,status,data\na,COMPLETED,lq\n", "column 'seed' is missing; found: trial, status"),
        (HEADER + "a,COMPLETED,lq,0,1\na,FAILED,lq,1,\n", "row 2: trial 'a' stands there twice"),
        (HEADER + "a,COMPLETED,lq,0,1\nb,COMPLETED,lq,1,high\n", "row 2: score is 'high'"),
        (HEADER + "a,COMPLETED,lq,zero,1\n", "row 1: seed is 'zero'"),
        (HEADER + "a,COMPLETED,lq,,1\n", "column 'seed' must hold an integer"),
        (HEADER + "a,COMPLETED,lq,0\n", "line 2: it has 4 cells, the header has 5"),
        ("trial,trial\n", "column names must be given and differ"),
        ("", "column 'trial' is missing"),
        (HEADER + 'a,COMPLETED,"lq,0,1\n', "not a CSV table"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_table(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_table_and_a_missing_metric(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_table(tmp_path / "no.csv")
    (tmp_path / "t.csv").write_text(HEADER)
    with pytest.raises(UserError, match="column 'regret' is missing"):
        read_table(tmp_path / "t.csv", metrics=["regret"])
