"""Reading tables that somebody else wrote; the Sacred store is written by Sacred itself."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.errors import UserError
from ablate.track import foreign
from ablate.track.foreign import read_foreign
from ablate.track.sacred_import import Experiment, FileStorageObserver


def refused(path: Path) -> str:
    with pytest.raises(UserError) as refusal:
        read_foreign(path)
    line = str(refusal.value)
    assert "\n" not in line
    assert line.startswith(str(path))
    return line


def test_a_csv_is_read_as_text(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_bytes('\ufeffalgo,score\r\n"A, b",1e3\r\n\r\nB,\r\n'.encode())
    found = read_foreign(path)
    assert found.table.to_dict("list") == {"algo": ["A, b", "B"], "score": ["1e3", ""]}
    assert found.names == ("row 1", "row 2")
    assert found.notes == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"a,b\n", "has no rows"),
        (b"a,b\n1,2\n3\n", "line 3: it has 1 cells, the header has 2"),
        (b"a,,c\n1,2,3\n", "column 2 has no name"),
        (b"a,a\n1,2\n", "two columns are called 'a'"),
        (b"\xff\xfea,b\n1", "it begins as utf-16-le and isn't"),
        (b"a,b\n\x001,2\n", "it holds zero bytes"),
        (b'a,b\n"1,2\n', "not a table of text"),
        (b"a;b\n0,5;1.234\n", "'b' holds '1.234' and 'a' decimal commas"),
    ],
)
def test_a_bad_csv_is_refused(tmp_path, content, said):
    path = tmp_path / "runs.csv"
    path.write_bytes(content)
    assert said in refused(path)


WORDS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
CELLS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 4))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    scores=st.lists(CELLS, min_size=2, max_size=6),
    separator=st.sampled_from(list(WORDS)),
    decimal=st.sampled_from([".", ","]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    index=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_what_pandas_exports_is_read_back_and_said(
    tmp_path_factory, scores, separator, decimal, encoding, index, end
):
    path = tmp_path_factory.mktemp("exported") / "runs.csv"
    names = [f"Köln {place}" for place in range(len(scores))]
    table = pd.DataFrame({"algo": names, "score": scores})
    table.to_csv(
        path, sep=separator, decimal=decimal, encoding=encoding, index=index, lineterminator=end
    )
    found = read_foreign(path)
    assert found.table["algo"].tolist() == names
    read = found.table["score"].tolist()
    open_ = decimal == separator == "," and not any("," not in cell for cell in read)
    if not open_:  # else a metric of such cells is refused where it is asked for
        assert [float(cell) for cell in read] == scores
    said = "; ".join(found.notes)
    assert ("separated by " + WORDS[separator] in said) == (separator != ",")
    assert ("numbers the rows" in said) == index
    assert ("read as" in said) == (encoding in ("utf-16", "cp1252"))


@pytest.mark.parametrize(
    ("cells", "separator", "read", "said"),
    [
        (["50,691", "7,5"], ",", ["50.691", "7.5"], "'x' has decimal commas"),
        (["50,691", "7,555"], ";", ["50.691", "7.555"], "'x' has decimal commas"),
        (["50,691", "7,555"], ",", ["50,691", "7,555"], None),  # could be either
        (["1,234.5", "7"], ",", ["1234.5", "7"], "'x' has commas between thousands"),
        (["1.234,5", "7"], ";", ["1234.5", "7"], "'x' has decimal commas"),
        (["1 234.5", "7"], ",", ["1234.5", "7"], "'x' has marks between thousands"),
        (["1'234'567", "nan"], ",", ["1234567", "nan"], "'x' has marks between thousands"),
        (["\u22127.5", ""], ",", ["-7.5", ""], None),
        (["1,2", "a_b"], ";", ["1,2", "a_b"], None),
        (["16,32", "64,64"], "|", ["16.32", "64.64"], "'x' has decimal commas"),
    ],
)
def test_numbers_are_read_as_they_are_written_and_said(tmp_path, cells, separator, read, said):
    path = tmp_path / "runs.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=separator).writerows([("x", "y"), *((c, "z") for c in cells)])
    found = read_foreign(path)
    assert found.table["x"].tolist() == read
    assert [note for note in found.notes if note.startswith("'x'")] == ([said] if said else [])


def test_columns_without_a_name_are_left_out_or_refused(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text('"a" "b"\n'.replace(" ", ",") + '"1","x",2\n"2","y",3\n')  # as R writes it
    assert read_foreign(path).table.to_dict("list") == {"a": ["x", "y"], "b": ["2", "3"]}
    path.write_text("a,b,\n1,2,\n3,4,\n,,\n")
    found = read_foreign(path)
    assert found.table.to_dict("list") == {"a": ["1", "3"], "b": ["2", "4"]}
    assert found.notes == ("column 3, which is empty, was left out",)
    path.write_text(",a\nx,1\ny,2\n")
    assert "column 1 has no name, and doesn't merely number the rows" in refused(path)
    path.write_text("sep=;\na;b\n1;2\n")
    assert read_foreign(path).table.to_dict("list") == {"a": ["1"], "b": ["2"]}


def test_matrices_of_scores_are_read_without_running_code(tmp_path):
    scores = {"A": np.arange(6.0).reshape(3, 2), "B": np.array([[7, 8]])}
    np.savez(tmp_path / "scores.npz", **scores)
    (tmp_path / "scores.json").write_text(
        json.dumps({name: rows.tolist() for name, rows in scores.items()})
    )
    found = [read_foreign(tmp_path / name) for name in ("scores.npz", "scores.json")]
    for one in found:
        assert one.matrices
        assert one.notes == ("2 matrices of 1 to 3 runs x 2 tasks",)
        assert one.table.iloc[3].to_dict() == {"algorithm": "A", "task": 2, "run": 1, "score": 3.0}
        assert len(one.table) == 8
    for name, content, said in [
        ("pickled.npy", scores, "reading them runs code; save the matrices by name"),
        ("one.npy", scores["A"], "nothing says of which algorithm"),
    ]:
        np.save(tmp_path / name, content, allow_pickle=True)
        assert said in refused(tmp_path / name)
    for arrays, said in [
        ({"A": np.zeros(3)}, "'A' holds float64 (3)"),
        ({"A": np.zeros((2, 2)), "B": np.zeros((2, 3))}, "different numbers of tasks: A 2, B 3"),
        ({"A": np.array([["x"]])}, "expected a matrix of runs x tasks"),
        ({"A": np.zeros((0, 2))}, "'A' is empty"),
        ({}, "it holds no array"),
    ]:
        np.savez(tmp_path / "bad.npz", **arrays)
        assert said in refused(tmp_path / "bad.npz")
    whole = (tmp_path / "scores.npz").read_bytes()
    (tmp_path / "bad.npz").write_bytes(whole[: len(whole) // 2])
    assert "not a file of NumPy's arrays" in refused(tmp_path / "bad.npz")
    (tmp_path / "runs.pkl").write_bytes(b"x")
    assert "a pickle runs code when it is read" in refused(tmp_path / "runs.pkl")


@pytest.mark.parametrize(
    "content",
    [
        [{"algo": "A", "score": 1.5}, {"algo": "B", "score": None}],
        {"algo": ["A", "B"], "score": [1.5, None]},
        {"algo": {"0": "A", "1": "B"}, "score": {"0": 1.5, "1": None}},
    ],
)
def test_json_tables_are_read(tmp_path, content):
    path = tmp_path / "runs.json"
    path.write_text(json.dumps(content))
    found = read_foreign(path)
    assert not found.matrices
    assert found.table["algo"].tolist() == ["A", "B"]
    assert found.table["score"].iloc[0] == 1.5
    assert pd.isna(found.table["score"].iloc[1])
    path.write_text("[" * 100_000)
    assert "it is not JSON" in refused(path)
    path.write_text('{"A": [[1, 2], [3]]}')
    assert "'A' isn't a matrix" in refused(path)


def test_other_files_are_refused(tmp_path):
    assert "there is no such file" in refused(tmp_path / "none.csv")
    (tmp_path / "runs.xlsx").write_bytes(b"PK")
    assert "save its sheet as CSV" in refused(tmp_path / "runs.xlsx")
    (tmp_path / "runs.docx").write_bytes(b"PK")
    assert ".csv, .tsv or .txt, .parquet" in refused(tmp_path / "runs.docx")
    (tmp_path / "empty").mkdir()
    assert "it has no folder of a run" in refused(tmp_path / "empty")


def test_parquet_is_read(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed, so no parquet is written")
    path = tmp_path / "runs.parquet"
    pd.DataFrame({"algo": ["A", "B"], "seed": [1, 2], "score": [0.5, np.nan]}).to_parquet(path)
    found = read_foreign(path)
    assert found.table["algo"].tolist() == ["A", "B"]
    assert found.table["seed"].tolist() == [1, 2]
    path.write_bytes(b"not parquet")
    assert "not a parquet table" in refused(path)


def test_parquet_without_its_package_is_refused(tmp_path, monkeypatch):
    def absent(*_: object) -> None:
        raise ImportError("no pyarrow")

    monkeypatch.setattr(pd, "read_parquet", absent)
    path = tmp_path / "runs.parquet"
    path.write_bytes(b"")
    assert "pip install pyarrow" in refused(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of an experiment that knows nothing of us."""
    store = tmp_path_factory.mktemp("sacred") / "store"
    experiment = Experiment("other", save_git_info=False)
    experiment.observers.append(FileStorageObserver(store))
    experiment.add_config(agent={"name": "A", "layers": [1, 2]}, task="hop", seed=1, end="number")

    @experiment.main
    def main(_run, agent, task, seed, end):
        for step in range(3):
            _run.log_scalar("eval/return", np.float32(10 * seed + step), step)
        _run.log_scalar("loss", float("nan"), 0)
        if end == "fail":
            raise ValueError("the loss is NaN")
        return {"score": np.float32(2.5), "of": np.array([4.0])} if end == "mapping" else 7.25

    quiet = {"--loglevel": "CRITICAL", "--capture": "no"}
    experiment.run(options=quiet)
    experiment.run(config_updates={"seed": 2, "end": "mapping"}, options=quiet)
    with pytest.raises(ValueError, match="NaN"):
        experiment.run(config_updates={"seed": 3, "end": "fail"}, options=quiet)
    return store


def test_a_sacred_store_becomes_a_table(made):
    found = read_foreign(made)
    rows = found.table.set_index("trial")
    assert found.names == ("run 1", "run 2", "run 3")
    assert found.notes == ()
    assert rows["status"].tolist() == ["COMPLETED", "COMPLETED", "FAILED"]
    assert rows["agent.name"].tolist() == ["A"] * 3
    assert rows["agent.layers"].iloc[0] == "[1, 2]"
    assert rows["seed"].tolist() == [1, 2, 3]
    assert rows["metrics.eval/return"].tolist() == [12.0, 22.0, 32.0]  # the last of each
    assert rows["metrics.loss"].isna().all()
    assert rows.loc["1", "result"] == 7.25
    assert (rows.loc["2", "result.score"], rows.loc["2", "result.of"]) == (2.5, 4.0)
    assert rows.loc["3", "failure"] == "ValueError: the loss is NaN"


def test_damaged_runs_are_skipped_with_a_count_and_a_reason(made, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(made, store)
    for name in ("4", "5", "6", "7"):
        shutil.copytree(store / "1", store / name)
    whole = (store / "4/run.json").read_text()
    (store / "4/run.json").write_text(whole[: len(whole) // 2])
    (store / "5/config.json").unlink()
    (store / "6/metrics.json").write_text('{"eval/return": {"values": [1.0,')
    (store / "7/run.json").write_text("[1]")
    found = read_foreign(store)
    assert found.table["trial"].tolist() == ["1", "2", "3", "6"]
    assert found.table.set_index("trial")["metrics.eval/return"].isna().tolist() == [
        *(False, False, False, True),
    ]
    assert list(found.notes) == [
        "1 run read without metrics: metrics.json is cut off or not JSON (6)",
        "1 run skipped: run.json holds no mapping (7)",
        "1 run skipped: run.json is cut off or not JSON (4)",
        "1 run skipped: there is no config.json (5)",
    ]
    assert found.hash != read_foreign(made).hash


def test_a_store_without_a_readable_run_is_refused(made, tmp_path):
    (tmp_path / "store/1").mkdir(parents=True)
    (tmp_path / "store/1/run.json").write_text("{")
    assert "1 run skipped: run.json is cut off or not JSON (1)" in refused(tmp_path / "store")


def test_configuration_never_hides_what_the_run_says(tmp_path):
    folder = tmp_path / "store/1"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"status": "COMPLETED", "result": 3.0}))
    (folder / "config.json").write_text(json.dumps({"status": "mine", "metrics": {"of": 1}}))
    row = foreign.read_sacred(tmp_path / "store").table.iloc[0]
    assert (row["status"], row["config.status"], row["config.metrics.of"]) == (
        "COMPLETED",
        "mine",
        1,
    )
