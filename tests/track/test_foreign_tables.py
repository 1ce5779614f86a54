"""Reading tables that somebody else wrote; the Sacred store is written by Sacred itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

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
        (b"a,b\n\xff\xfe,2\n", "not a CSV table in UTF-8"),
    ],
)
def test_a_bad_csv_is_refused(tmp_path, content, said):
    path = tmp_path / "runs.csv"
    path.write_bytes(content)
    assert said in refused(path)


def test_other_files_are_refused(tmp_path):
    assert "there is no such file" in refused(tmp_path / "none.csv")
    (tmp_path / "runs.xlsx").write_bytes(b"PK")
    assert ".csv, .parquet, or the folder" in refused(tmp_path / "runs.xlsx")
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
