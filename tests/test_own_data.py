"""The page "Your own data", followed by a newcomer: every command and study of it, with small budgets."""

from __future__ import annotations

import gzip
import pickle
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest
from tiny_study import ROOT, Tiny

from ablate.data import catalogue
from ablate.data.formats.minari import write_minari
from ablate.data.trajectories import Trajectories

PAGE = (ROOT / "docs" / "own-data.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
SMALL = (
    "train.updates=4", "train.points=1", "train.warmup=1", "train.targets_per_update=16", "model.tolerance=0.9",
    "model.parameters=1000",
)  # fmt: skip
EPISODES, STEPS = 12, 20


def recorded(seed: int = 0) -> dict[str, np.ndarray]:
    """Twelve episodes of twenty steps in Pendulum's sizes, cut by a time limit, in D4RL's layout."""
    rng = np.random.default_rng(seed)
    rows = EPISODES * STEPS
    ends = np.arange(rows) % STEPS == STEPS - 1
    return {
        "observations": rng.standard_normal((rows, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (rows, 1)).astype(np.float32),
        "rewards": rng.standard_normal(rows).astype(np.float32),
        "terminals": np.zeros(rows, dtype=bool),
        "timeouts": ends,
    }


def written(path: Path, **changes: Any) -> Path:
    """An HDF5 file as a newcomer has one; arrays that are None are left out."""
    with h5py.File(path, "w") as file:
        for name, array in {**recorded(), **changes}.items():
            if array is not None:
                file[name] = array
    return path


def hdf5_in_its_own_units(folder: Path) -> None:
    written(folder / "pendulum.hdf5", actions=2 * recorded()["actions"])


def pickle_with_other_names(folder: Path) -> None:
    rows = recorded()
    rows["actions"][3] = 1.001
    parts = [
        np.split(rows[n], EPISODES) for n in ("observations", "actions", "rewards", "timeouts")
    ]
    names = ("obs", "act", "rew", "done")
    with gzip.open(folder / "demos.pkl", "wb") as file:
        pickle.dump(
            [dict(zip(names, each, strict=True)) for each in zip(*parts, strict=True)], file
        )


def minari_set(folder: Path) -> None:
    rows = recorded()
    data = Trajectories(
        "swings",
        rows["observations"],
        rows["actions"],
        rows["rewards"],
        rows["terminals"],
        rows["timeouts"],
        np.arange(EPISODES + 1) * STEPS,
    )
    write_minari(folder / "sets", "lab/swings-v0", data, "Pendulum-v1")


def log_of_a_thermostat(folder: Path) -> None:
    rows, rng = recorded(), np.random.default_rng(1)
    written(
        folder / "log.hdf5",
        observations=rows["observations"][:, :2],
        actions=rng.integers(3, size=len(rows["actions"])),
    )


def patients(folder: Path) -> None:
    written(folder / "patients.hdf5", observations=np.random.default_rng(2).random((240, 7)))


FILES = {
    "An HDF5 file": hdf5_in_its_own_units,
    "A pickle": pickle_with_other_names,
    "A Minari set": minari_set,
    "A gymnasium environment of your own": log_of_a_thermostat,
    "Data without a simulator": patients,
}
# One report is made of each kind: of a study that acts, and of one without a simulator.
REPORTED = ("An HDF5 file", "Data without a simulator")


@pytest.fixture
def newcomer(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tiny]:
    """Somebody in an empty folder; the environment of the page is forgotten afterwards."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tiny.folder / "sets"))
    yield tiny
    gymnasium.registry.pop("Thermostat-v0", None)


def commands(section: str) -> list[str]:
    """The commands that a section tells to type."""
    return re.findall(r"^    python -m ablate (.*?)(?: +#.*)?$", section, re.MULTILINE)


def typed(line: str) -> list[str]:
    """The command as the page has it, with small budgets."""
    words = shlex.split(line)
    options = [part for each in SMALL for part in ("--set", each)]
    if words[0] == "run":
        words += ["--launcher", "inline"]
    if words[0] in ("run", "report"):
        few = [] if "patients.yaml" in words else ["--set", "measure.rollout.episodes=3"]
        return [*words, "--seeds", "2", *options, *few]
    if words[0] == "train":
        one = ("model.width=16", "measure.rollout.episodes=2")
        return [*words, *options[:8], *(part for each in one for part in ("--set", each))]
    return words


@pytest.mark.parametrize("title", FILES)
def test_from_a_file_to_a_verdict_in_under_ten_lines(title: str, newcomer: Tiny) -> None:
    section = SECTIONS[title]
    FILES[title](newcomer.folder)
    for code in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        (newcomer.folder / "thermostat.py").write_text(code, "utf-8")
    (study,) = re.findall(r"```yaml\n(study: (\w+)\n.*?)```", section, re.DOTALL)
    (newcomer.folder / f"{study[1]}.yaml").write_text(study[0], "utf-8")
    lines = [line for line in commands(section) if line.startswith(("run", "report"))]
    assert len(study[0].splitlines()) + len(lines) < 10
    said = ""
    for line in commands(section):
        if line.startswith("report") and title not in REPORTED:
            continue
        found = newcomer.command(*typed(line))
        assert found.code == 0, found.err
        said += found.out
    assert "4 of 4 trials completed" in said
    if title in REPORTED:
        assert "Verdicts on 1" in said or "inconclusive" in said


def test_sections_are_those_that_are_tried() -> None:
    assert list(SECTIONS) == list(FILES)


def test_the_first_commands(newcomer: Tiny) -> None:
    written(newcomer.folder / "my.hdf5")
    for line in commands(PAGE.split("\n## ")[0]):
        found = newcomer.command(*typed(line), *(["--no-dose"] if "show" in line else []))
        assert found.code == 0, found.err
    # What was said was written down.
    found = newcomer.command("data", "check", "mine.hdf5")
    assert "environment: Pendulum-v1" in found.out


def test_a_model_of_data_without_a_simulator_acts_once_one_is_named(newcomer: Tiny) -> None:
    written(newcomer.folder / "my.hdf5", rewards=np.ones(EPISODES * STEPS, np.float32))
    data = ["--data", "file/my.hdf5"]
    found = newcomer.command(*typed("train --preset bc"), *data)
    assert found.code == 0
    assert "rollout can't be measured on file/my.hdf5: it names no environment" in found.out
    assert "action error" in found.out
    assert "11 episodes trained on, 1 held out" in found.out
    assert "evaluate" not in found.out  # nothing that could be done next
    (model,) = newcomer.results.glob("models/checkpoints/*")
    assert "it names no environment; --env ID" in newcomer.command("evaluate", str(model)).line
    acted = newcomer.command("evaluate", str(model), "--env", "Pendulum-v1", "--episodes", "2")
    assert acted.code == 0, acted.err
    # Nothing held out is said too, and constant returns are no obstacle.
    more = ["--held-out", "0", "--env", "Pendulum-v1"]
    found = newcomer.command(*typed("train --preset bc"), *data, *more)
    assert "all 12 episodes trained on" in found.out
    assert "not normalised: no reference returns are known" in found.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "my.hdf5"], "the name is 'file/my.hdf5'"),
        (["--data", "hopper-medium-v2"], "Did you mean 'd4rl/hopper-medium-v2'"),
        (["--data", "file/your.hdf5"], "there is no such file"),
        (["--data", "file/my.hdf5", "--map", "observations"], "expected OURS=THEIRS"),
        (["--data", "file/my.hdf5", "--map", "observations=obs"], "'obs' is not known"),
        (["--data", "file/my.hdf5", "--map", "obs=observations=x"], "is not known"),
        (["--data", "file/my.hdf5", "--held-out", "1"], "held_out: found '1.0'"),
        (["--data", "file/my.hdf5", "--horizon", "0"], "horizon: found '0'"),
        (["--data", "file/my.hdf5", "--random", "nan", "--expert", "1"], "random: found 'nan'"),
        (["--data", "file/my.hdf5", "--terminals", "maybe"], "terminals: found 'maybe'"),
        (["--data", "file/my.hdf5", "--env", "Pendulam-v1"], "Did you mean 'Pendulum-v1'"),
        (["--data", "file/my.hdf5", "--env", "CartPole-v1"], "none of the choices 0 to 1"),
        (["--data", "file/my.hdf5", "--env", "MountainCarContinuous-v0"], "the data have 3 and 1"),
        (["--data", "lq-mix/single", "--env", "Pendulum-v1"], "is read in one way only"),
    ],
)
def test_refusals_are_one_line_within_a_screen(
    options: list[str], message: str, newcomer: Tiny
) -> None:
    written(newcomer.folder / "my.hdf5")
    line = newcomer.command(*typed("train --preset bc"), *options).line
    assert message in line
    assert len(line) < 24 * 80


def test_an_array_by_another_name(newcomer: Tiny) -> None:
    rows = recorded()
    written(
        newcomer.folder / "my.hdf5",
        observations=None,
        place=rows["observations"][:, :1],
        speed=rows["observations"][:, 1:],
    )
    assert newcomer.command("data", "check", "my.hdf5").code == 1
    found = newcomer.command("data", "check", "my.hdf5", "--map", "observations=place+speed")
    assert found.code == 0, found.out
    assert "observation: 3 numbers" in found.out


def test_sets_of_d4rl_without_an_environment_have_no_simulator() -> None:
    assert catalogue.spec("d4rl/carla-lane-v0").lacks_simulator.endswith("simulator CARLA.")
    assert catalogue.spec("d4rl/hopper-medium-v2").lacks_simulator == ""
