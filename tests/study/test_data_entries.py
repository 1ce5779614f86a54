"""What a study's `data` says of files of the user's: how they are read, where they lie, what they lack."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ablate.data import catalogue
from ablate.data.catalogue import PLAIN
from ablate.errors import UserError
from ablate.study import expand, identity
from ablate.study.load import load
from ablate.study.schema import Study

TEXT = """\
study: own
question: Does memory help?
factors:
  mixer: [mlp]
  context: [1, 2]
data:
  - {name: file/my.hdf5}
designs:
  all: {data: all, context: all}
model: {parameters: 2000, tolerance: 0.5}
train: {updates: 4}
"""
ENTRY = "{name: file/my.hdf5}"
HYPOTHESIS = """\
hypotheses:
  - {id: memory, says: It helps., contrast: "context[2] - context[1]", metric: METRIC, test: superiority}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file of ten episodes in Pendulum's sizes, which names no environment."""
    rng, rows = np.random.default_rng(0), 100
    with h5py.File(tmp_path / "my.hdf5", "w") as file:
        file["observations"] = rng.standard_normal((rows, 3)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (rows, 1)).astype(np.float32)
        file["rewards"] = np.ones(rows, np.float32)
        file["terminals"] = np.zeros(rows, bool)
        file["timeouts"] = np.arange(rows) % 10 == 9
    return tmp_path


def study(folder: Path, entry: str = ENTRY, more: str = "") -> Study:
    path = folder / "own.yaml"
    path.write_text(TEXT.replace(ENTRY, entry) + more, "utf-8")
    return load(path)


def refused(folder: Path, entry: str = ENTRY, more: str = "") -> str:
    with pytest.raises(UserError) as caught:
        study(folder, entry, more)
    return str(caught.value).replace(f"{folder}/", "")


def first(made: Study) -> dict[str, Any]:
    return expand.cells(made)[0].config


def test_a_file_is_looked_for_beside_the_study(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    here = first(study(folder))
    assert catalogue.load(here["data"], folder, here["reading"]).train.num_episodes == 9
    # Where it lies is no part of what was trained on.
    other = folder / "elsewhere"
    other.mkdir()
    os.rename(folder / "my.hdf5", other / "my.hdf5")
    there = study(other)
    assert here["reading"] != first(there)["reading"]
    assert identity.fit_id("own", 0, here, "x") == identity.fit_id("own", 0, first(there), "x")
    assert identity.study_hash(study(other)) == identity.study_hash(study(other, "file/my.hdf5"))
    assert "there is no such file" in refused(folder)
    assert refused(folder).startswith("own.yaml:7: ")


@pytest.mark.parametrize(
    "said",
    ["environment: Pendulum-v1", "horizon: 5", "held_out: 0", "clip_actions: true", "random: 0, expert: 9"],
)  # fmt: skip
def test_how_it_is_read_belongs_to_the_fit(folder: Path, said: str) -> None:
    plain, made = study(folder), study(folder, f"{{name: file/my.hdf5, {said}}}")
    ids = {identity.fit_id("own", 0, first(each), "x") for each in (plain, made)}
    assert len(ids) == 2
    assert identity.study_hash(plain) != identity.study_hash(made)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{name: file/my.hdf5, horison: 5}", "Did you mean 'horizon'"),
        ("{name: file/my.hdf5, horizon: soon}", "horizon: found 'soon'"),
        ("{name: file/my.hdf5, held_out: 1}", "held_out: found '1'"),
        ("{name: file/my.hdf5, random: 3}", "the first below the second"),
        ("{environment: Pendulum-v1}", "a mapping with its 'name'"),
        ("{name: [1]}", "'name' is the name of a data set"),
        ("{name: lq-mix/single, horizon: 5}", "is read in one way only"),
        ("my.hdf5", "my.hdf5' is not known"),
    ],
)
def test_entries_are_refused_with_file_and_line(folder: Path, entry: str, message: str) -> None:
    found = refused(folder, entry)
    assert found.startswith("own.yaml:7: ")
    assert message in found


def test_a_path_in_place_of_a_name_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert "the name is 'file/my.hdf5'" in refused(folder, "my.hdf5")


def test_without_a_simulator_only_prediction_is_measured(folder: Path) -> None:
    made = study(folder, more=HYPOTHESIS.replace("METRIC", "action_error"))
    assert made.measured == ("held-out",)
    assert all(list(cell.config["measure"]) == ["held-out"] for cell in expand.cells(made))
    (said,) = made.remarks
    assert said.startswith("No policy can act on file/my.hdf5")
    assert said in made.notes
    assert not any(name.startswith("rollout.") for name in made.responses)
    spec = catalogue.spec("file/my.hdf5", made.readings["file/my.hdf5"])
    assert (spec.dimensions, spec.horizon, spec.plain) == ((3, 1), 10, True)
    with pytest.raises(UserError, match="no policy can act on it, since it names no environment"):
        spec.make_env(1)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ("measure: {rollout: {}}\n", 12),
        ("measure:\n  held-out: {}\n  plan: {}\n", 14),
        (HYPOTHESIS.replace("METRIC", "score"), 13),
        (HYPOTHESIS.replace("METRIC", "rollout.return_mean"), 13),
    ],
)
def test_what_needs_a_simulator_is_refused_where_it_is_named(
    folder: Path, more: str, line: int
) -> None:
    found = refused(folder, more=more)
    assert found.startswith(f"own.yaml:{line}: ")
    assert "can't be had. No policy can act on file/my.hdf5" in found
    # With an environment it is what was asked for.
    acting = "{name: file/my.hdf5, environment: Pendulum-v1}"
    if "plan" not in more:
        made = study(folder, acting, more)
        assert "rollout" in made.measured
        assert made.remarks == (
            "Scores on file/my.hdf5 are plain returns, as no reference returns are known.",
        )


def test_a_factor_of_acting_is_refused_where_nothing_acts(folder: Path) -> None:
    path = folder / "own.yaml"
    text = TEXT.replace(
        "context: [1, 2]\n", "context: [1, 2]\n  measure.rollout.target: [p10, p90]\n"
    )
    path.write_text(text, "utf-8")
    with pytest.raises(UserError, match=r"own.yaml:6: the measurement 'rollout' can't be had"):
        load(path)


def test_an_environment_that_is_not_here_can_be_said_to_be_none(folder: Path) -> None:
    with h5py.File(folder / "my.hdf5", "r+") as file:
        file.attrs["environment"] = "Robot-v0"
    made = study(folder)
    with pytest.raises(UserError, match=r"'Robot-v0' is not registered.*--env none"):
        catalogue.spec("file/my.hdf5", made.readings["file/my.hdf5"]).make_env(1)
    assert study(folder, "{name: file/my.hdf5, environment: none}").measured == ("held-out",)


def test_reference_returns_that_are_said_normalise(folder: Path) -> None:
    made = study(folder, "{name: file/my.hdf5, environment: Pendulum-v1, random: -10, expert: 10}")
    anchors = catalogue.spec("file/my.hdf5", made.readings["file/my.hdf5"]).anchors()
    assert anchors.score(0.0) == 50.0
    assert made.remarks == ()
    assert PLAIN.score(7.0) == 7.0


def test_the_same_twin_hides_of_a_file(folder: Path) -> None:
    made = study(folder, "{name: file/my.hdf5@drop-0.2, environment: Pendulum-v1}")
    config = first(made)
    data = catalogue.load(config["data"], folder, config["reading"])
    assert (
        data.train.observations.shape[1]
        == catalogue.dimensions(config["data"], config["reading"])[0]
    )
