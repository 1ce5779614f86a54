"""Studies of somebody else's runs: the file, and the table that the analysis is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.analyse.tidy import check, factor_columns, finished, metric_columns
from ablate.errors import UserError
from ablate.study.foreign import ForeignStudy, arranged, is_foreign, load_foreign, tidy

STUDY = """\
study: theirs
question: Does A beat B?
table:
  columns: {data: task, algo: Algorithm, score: return}
  metrics: [score, steps]
factors:
  algo: [A, B]
  width: [16, 64]
data: [hop, run]
margin: 3
hypotheses:
  - id: ab
    says: A beats B.
    contrast: algo[A] - algo[B]
    test: superiority
    primary: true
"""


def write(folder: Path, text: str = STUDY) -> Path:
    path = folder / "theirs.yaml"
    path.write_text(text)
    return path


def rows(**changes: object) -> pd.DataFrame:
    """A whole table, as text."""
    lines = [
        {
            "task": task,
            "Algorithm": algo,
            "width": width,
            "seed": seed,
            "return": 10 * seed,
            "steps": 5,
        }
        for task in ("hop", "run")
        for algo in ("A", "B")
        for width in ("16", "64.0")
        for seed in (1, 2)
    ]
    return pd.DataFrame(lines).assign(**changes).astype(str)


@pytest.fixture
def study(tmp_path: Path) -> ForeignStudy:
    return load_foreign(write(tmp_path))


def made(study: ForeignStudy, table: pd.DataFrame):
    return tidy(study, table, "runs.csv", [f"row {i + 1}" for i in range(len(table))])


def refusal(study: ForeignStudy, table: pd.DataFrame) -> str:
    with pytest.raises(UserError) as found:
        made(study, table)
    line = str(found.value)
    assert "\n" not in line
    assert line.startswith("runs.csv")
    return line


def test_the_table_is_what_the_analysis_reads(study):
    found = made(study, rows())
    table = found.table
    assert factor_columns(table) == ["data", "algo", "width"]
    assert metric_columns(table) == ["score", "steps"]
    assert table["width"].tolist()[:4] == [16, 16, 64, 64]
    assert table["seed"].tolist()[:2] == [1, 2]
    assert table["score"].dtype == np.float64
    assert finished(table).all()
    assert found.notes == ("runs.csv: 16 rows",)
    check(table, ["score", "steps"])


def test_what_is_left_out_is_counted(study, tmp_path):
    table = rows()
    table.loc[0, "Algorithm"] = "C"
    table.loc[1, "Algorithm"] = ""
    table.loc[2, "return"] = ""
    table.loc[3, "task"] = "swim"
    found = made(study, table)
    assert len(found.table) == 13
    text = "; ".join(found.notes)
    assert (
        "2 rows left out, as the study doesn't declare their Algorithm: (empty) (1), C (1)" in text
    )
    assert "1 row left out, as the study doesn't declare their task: swim (1)" in text
    assert "1 row finished without a value of 'score'" in text
    with_filter = load_foreign(
        write(tmp_path, STUDY.replace("  metrics:", "  rows: {suite: x}\n  metrics:"))
    )
    table["suite"] = ["x"] * 8 + ["y"] * 8
    assert "8 rows left out: another suite" in made(with_filter, table).notes


def test_status_and_attempts(study, tmp_path):
    table = rows(status="done")
    table.loc[3, "status"] = "Crashed"
    table.loc[3, "return"] = "inf"
    table.loc[4, "status"] = "running"
    again = table.iloc[[3]].assign(status="done", **{"return": "5"})
    both = pd.concat([again, table], ignore_index=True)
    text = STUDY.replace("  metrics:", "  finished: [done]\n  failed: [crashed]\n  metrics:")
    study = load_foreign(write(tmp_path, text))
    found = made(study, both)
    assert found.table["status"].value_counts().to_dict() == {"COMPLETED": 15, "running": 1}
    assert "1 row left out: another attempt at the same trial counts" in found.notes
    assert "1 row with status 'running': counted as not finished" in found.notes
    alone = made(study, table)
    assert alone.table["status"].tolist()[3] == "FAILED"
    assert np.isnan(alone.table["score"].iloc[3])


def test_anchors_normalise(tmp_path):
    text = STUDY.replace("  metrics:", "  anchors: {hop: [0, 20], r*: [10, 110]}\n  metrics:")
    found = made(load_foreign(write(tmp_path, text)), rows())
    scores = found.table.groupby(["data", "seed"], observed=True)["score"].first()
    assert scores.tolist() == [50.0, 100.0, 0.0, 10.0]
    assert any("0 and 100: hop 0 to 20; r* 10 to 110" in note for note in found.notes)


def test_one_data_set_needs_no_column(tmp_path):
    text = STUDY.replace("data: task, ", "").replace("data: [hop, run]", "data: [hop]")
    table = rows().iloc[:8].drop(columns="task")
    assert set(made(load_foreign(write(tmp_path, text)), table).table["data"]) == {"hop"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda t: t.drop(columns="return"),
            "the column (the study's 'score'): 'return' is not known",
        ),
        (lambda t: t.drop(columns="seed"), "there is no column 'seed'; say under table.columns"),
        (lambda t: t.rename(columns={"task": "Task"}), "Did you mean 'Task'?"),
        (
            lambda t: t.assign(**{"return": "good"}),
            "row 1: 'return' is 'good'; a metric is a number",
        ),
        (
            lambda t: t.assign(**{"return": "inf"}),
            "row 1: 'return' is infinite in a finished trial",
        ),
        (lambda t: t.assign(seed=""), "row 1: the seed ('seed') is empty"),
        (lambda t: pd.concat([t, t.iloc[[2]]]), "algo=A, width=64, seed=1): row 3 and row 17"),
        (lambda t: t.assign(Algorithm="C"), "no row has a declared level of 'algo'"),
        (lambda t: t.iloc[:0], "no row has a declared level of 'data'"),
        (lambda t: t.assign(trial="x"), "two rows have the trial 'x': row 1 and row 2"),
        (lambda t: t.assign(**{"return": "1,234"}), "that may be 1.234 or 1234"),
    ],
)
def test_a_bad_table_is_refused_in_one_line(study, change, said):
    assert said in refusal(study, change(rows()))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("question: Does A beat B?", "", ":1: 'question' is missing"),
        ("  metrics: [score, steps]", "  metrics: []", "there is no metric"),
        ("  metrics: [score, steps]", "  metrics: [a.b]", "a metric can't be called 'a.b'"),
        ("  metrics: [score, steps]", "  metric: [score]", "Did you mean 'metrics'?"),
        ("  algo: [A, B]", "  seed: [A, B]", "'seed' is not a factor"),
        ("  algo: [A, B]", "  algo: [A, A]", "'A' stands twice"),
        ("  algo: [A, B]", "  algo: []", "the factor 'algo' has no levels"),
        ("  algo: [A, B]", '  "al go": [A, B]', "can't stand in a contrast"),
        ("algo: Algorithm", "alog: Algorithm", "Did you mean 'algo'?"),
        ("algo[A] - algo[B]", "algo[A] - algo[X]", "'X' is not known"),
        ("test: superiority", "test: superiority\n    metric: loss", "'loss' is not known"),
        ("  metrics:", "  finished: [ok]\n  failed: [OK]\n  metrics:", "both finished and failed"),
        (
            "  metrics:",
            "  anchors: {hop: [1, 1], run: [0, 1]}\n  metrics:",
            "two different numbers",
        ),
        ("  metrics:", "  anchors: {hop: [0, 1]}\n  metrics:", "'run' needs one pair of anchors"),
        ("margin: 3", "margin: none", "margin: found 'none'"),
        ("margin: 3", "designs: {}", "has no such part: 'designs' is not known"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path, old, new, said):
    assert old in STUDY
    path = write(tmp_path, STUDY.replace(old, new))
    with pytest.raises(UserError) as found:
        load_foreign(path)
    line = str(found.value)
    assert said in line
    assert line.startswith(f"{path}:")
    assert "\n" not in line


def test_the_kinds_of_study_are_told_apart(tmp_path):
    assert is_foreign(write(tmp_path))
    assert not is_foreign(Path(__file__).parents[2] / "studies/memory_vs_arch.yaml")


def test_the_hash_is_of_what_is_read_and_not_of_words(tmp_path, study):
    other = load_foreign(write(tmp_path, STUDY.replace("Does A beat B?", "Which is better?")))
    assert other.hash == study.hash
    changed = load_foreign(write(tmp_path, STUDY.replace("[16, 64]", "[16]")))
    assert changed.hash != study.hash


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.dictionaries(
        st.sampled_from(
            ["task", "Algorithm", "width", "seed", "return", "steps", "status", "trial"]
        ),
        st.lists(
            st.text(max_size=6) | st.sampled_from(["A", "hop", "1", "16"]), min_size=3, max_size=3
        ),
        max_size=8,
    )
)
def test_any_table_is_read_or_refused_in_one_line(tmp_path_factory, columns):
    study = load_foreign(write(tmp_path_factory.mktemp("any")))
    table = pd.DataFrame(columns, index=range(3)).astype(object)
    problem = ""
    try:
        check(made(study, table).table, ["score"])
    except UserError as error:
        problem = str(error)
    assert "\n" not in problem


def test_pairing_is_declared_never_guessed(tmp_path):
    assert not load_foreign(write(tmp_path)).paired
    assert load_foreign(write(tmp_path, STUDY + "paired: true\n")).paired


@pytest.mark.parametrize("written", [("True", "False"), ("TRUE", "FALSE"), (True, False)])
def test_true_and_false_are_levels(tmp_path, written):
    text = STUDY.replace("algo: [A, B]", "algo: [true, false]").replace(
        "algo[A] - algo[B]", "algo[true] - algo[false]"
    )
    table = rows()
    table["Algorithm"] = pd.Series(
        [written[0] if algo == "A" else written[1] for algo in table["Algorithm"]], dtype=object
    )
    found = made(load_foreign(write(tmp_path, text)), table).table
    assert found["algo"].tolist() == [True] * 4 + [False] * 4 + [True] * 4 + [False] * 4


def stepped(column: str, steps: tuple[int, ...] = (0, 10, 20)) -> pd.DataFrame:
    """The whole table with a row a step, the return growing by it."""
    parts = [rows().assign(**{column: str(step)}) for step in steps]
    for step, part in zip(steps, parts, strict=True):
        part["return"] = (part["return"].astype(float) + step).astype(str)
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("column", ["step", "Global step", "epoch", "updates"])
def test_of_rows_by_step_the_last_counts_and_the_others_are_curves(study, column):
    found = made(study, stepped(column).sample(frac=1.0, random_state=0))
    whole = made(study, rows()).table
    keys = ["data", "algo", "width", "seed"]
    both = found.table.merge(whole, on=keys, suffixes=("", "_alone"))
    assert len(both) == 16
    assert (both["score"] == both["score_alone"] + 20).all()
    assert f"by '{column}', as its name says: the last step (20) counts" in "; ".join(found.notes)
    assert len(found.curves) == 48
    first = found.curves[found.curves["trial"] == found.table["trial"].iloc[0]]
    assert sorted(first["update"]) == [0, 10, 20]


def test_a_run_that_ends_early_is_not_finished(study):
    table = stepped("step")
    cut = table[~((table["step"] == "20") & (table["seed"] == "1") & (table["task"] == "hop"))]
    found = made(study, cut)
    assert found.table["status"].value_counts().to_dict() == {"COMPLETED": 12, "RUNNING": 4}
    assert "4 rows end before the last step of their cell" in found.notes


def test_a_column_of_steps_can_be_named_and_another_cannot_make_trials_of_attempts(tmp_path, study):
    named = load_foreign(write(tmp_path, STUDY.replace("algo: Alg", "step: frames, algo: Alg")))
    assert made(named, stepped("frames")).table["score"].min() == 30.0
    assert "two finished rows for the same trial" in refusal(study, stepped("frames"))
    assert "the step ('frames') is empty" in refusal(named, stepped("frames").assign(frames=""))


def test_matrices_are_rows_of_the_one_factor(tmp_path, study):
    matrices = pd.DataFrame(
        {"algorithm": ["A"] * 4, "task": [1, 2, 1, 2], "run": [0, 0, 1, 1], "score": [1.0, 2, 3, 4]}
    )
    text = STUDY.replace("  width: [16, 64]\n", "").replace("[score, steps]", "[score]")
    one = load_foreign(write(tmp_path, text))
    table, said = arranged(one, matrices, "scores.npz")
    assert said == "its columns, in their order, are hop, run"
    assert made(one, table).table["score"].tolist() == [1, 2, 3, 4]
    assert made(one, table).table["data"].tolist() == ["hop", "run", "hop", "run"]
    with pytest.raises(UserError, match="one factor, the study has 2: algo, width"):
        arranged(study, matrices, "scores.npz")
    with pytest.raises(UserError, match="have 3 tasks, and the study names 2 data sets"):
        arranged(one, matrices.assign(task=3), "scores.npz")


def test_fractions_under_a_margin_in_points_are_remarked(tmp_path, study):
    table = rows()
    table["return"] = (table["return"].astype(float) / 100).astype(str)
    assert "closer together than the margin of 3" in "; ".join(made(study, table).notes)
    anchored = STUDY.replace("  metrics:", "  anchors: {'*': [0, 1]}\n  metrics:")
    assert "margin" not in "; ".join(made(load_foreign(write(tmp_path, anchored)), table).notes)
