"""The tidy table: exact round trips, a fixed order, atomic writing, refusals."""

import errno
import math
import os

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.errors import UserError
from ablate.track.table import (
    frame_of,
    order,
    read_series,
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
        "rollout.score": st.floats(),
        "rollout.row": st.sampled_from(["012345678901", "abc", ""]),
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


def test_rows_come_by_factors_budget_and_seed_whatever_their_order():
    lines = [
        trial(1, budget=9), trial(0, budget=9), trial(1, budget=5, **{"trial": "a"}),
        trial(0, context=5, budget=9, **{"trial": "b"}), trial(2, mixer="", budget=9),
    ]  # fmt: skip
    for some in (lines, lines[::-1]):
        assert list(order(frame_of(some, list(lines[0])))["trial"]) == ["t2", "b", "a", "t0", "t1"]


def test_series_need_their_columns(tmp_path):
    frame = pd.DataFrame({"trial": ["t"], "response": ["r"], "value": [1.0]})
    write_table(frame, tmp_path / "series.csv")
    with pytest.raises(UserError, match="column 'index' is missing"):
        read_series(tmp_path / "series.csv")


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
    (tmp_path / f".trials.csv.{os.uname().nodename}.999999999.tmp").write_text("tri")
    (tmp_path / ".trials.csv.1.tmp").write_text("of another machine, and just written")
    write_table(frame_of([trial(0)], list(trial(0))), tmp_path / "trials.csv")
    assert sorted(one.name for one in tmp_path.iterdir()) == [".trials.csv.1.tmp", "trials.csv"]


def test_what_was_done_to_a_table_is_said(tmp_path):
    path = tmp_path / "trials.csv"
    frame = frame_of(
        [trial(i, status="COMPLETED", score=i / 3) for i in range(4)],
        [*trial(0), "status", "score"],
    )
    write_table(frame, path)
    head, *rows_ = path.read_text().splitlines(keepends=True)
    changed = {
        "row 2 (trial t1): a cell is not as it was written, as its hash says": [
            head, rows_[0], rows_[1].replace("0.33", "0.34"), *rows_[2:],
        ],
        "it holds 3 rows where 4 were written": [head, *rows_[1:]],
        "its last rows are missing; 2 are left": [head, *rows_[:2]],
        "its rows or columns are not in the order": [head, rows_[1], rows_[0], *rows_[2:]],
        "row 5: rows stand after the last one": [head, *rows_, rows_[0].replace("t0", "t4")],
        "the names of its columns, or all rows": [head.replace("score", "return"), *rows_],
        "its rows are gone": [head],
        "the column 'row_hash' is missing": [line.rpartition(",")[0] + "\n" for line in (head, *rows_)],
    }  # fmt: skip
    for message, lines in changed.items():
        path.write_text("".join(lines))
        with pytest.raises(UserError) as caught:
            read_table(path)
        found = str(caught.value)
        assert found.startswith(str(path))
        assert message in found or "row 5 (trial t4)" in found
        assert found.count("\n") == 0
    # A table from elsewhere needs no hashes; a column of ours that it carries must fit.
    assert read_table(path, sealed=False).equals(frame)
    path.write_text("".join([head, *rows_[1:]]))
    with pytest.raises(UserError, match="it holds 3 rows"):
        read_table(path, sealed=False)
    # A further column, empty in old rows, leaves their hashes as they are.
    write_table(frame.assign(regret=math.nan), path)
    assert [line[-17:] for line in path.read_text().splitlines()[1:4]] == [
        line.strip()[-17:] for line in rows_[:3]
    ]


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
        read_table(path, metrics=["score"], sealed=False)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_table_and_a_missing_metric(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_table(tmp_path / "no.csv")
    (tmp_path / "t.csv").write_text(HEADER)
    with pytest.raises(UserError, match="column 'regret' is missing"):
        read_table(tmp_path / "t.csv", metrics=["regret"], sealed=False)
