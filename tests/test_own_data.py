"""The page "Your own data", followed by a newcomer: every command and study of it, with small budgets."""

from __future__ import annotations

import gzip
import pickle
import re
import shlex
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest
from tiny_study import ROOT, Tiny

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
def newcomer(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """Somebody in an empty folder."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tiny.folder / "sets"))
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    return tiny


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
