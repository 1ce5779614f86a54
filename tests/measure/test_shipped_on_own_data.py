"""Studies that imagine and plan, on a file of the user's: what can be measured there is, and what can't is said."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from tiny_study import ROOT, Tiny

DATA = {"name": "file/pendulum.hdf5", "environment": "Brief-v0"}
# What of each study is kept: a design, what is asked, and what has values there and what has none.
STUDIES: dict[str, dict[str, Any]] = {
    "coherency": {
        "design": {"layout": "step", "context": [3, 5]},
        "factors": {
            "context": [3, 5],
            "train.updates": [2],
            "train.points": [1],
            "measure.plans.objective": ["return"],
            "measure.plans.between": ["model"],
            "measure.plans.episodes": [2],
        },
        "measure": {"plans": {"horizon": 4, "samples": 2, "beam": 2}},
        "contrast": "context[5] - context[3]",
        "there": ["plans.divergence_mean", "plans.telescoping", "plans.return_mean"],
        "not": ["plans.success", "plans.violation"],
    },
    "foresight": {
        "design": {"context": [5, 2]},
        "factors": {"context": [5, 2]},
        "measure": {"open-loop": {"horizon": 5, "samples": 2, "beginnings": 4}},
        "contrast": "context[2] - context[5]",
        "there": ["open-loop.distance", "open-loop.valid_steps"],
        "not": ["open-loop.area", "open-loop.floor_area"],
    },
    "constraint": {
        "design": {"settings.sharing": ["joint", "separate"]},
        "factors": {},
        "measure": {"support": {"beginnings": 4, "samples": 2, "candidates": [1, 4]}},
        "contrast": "settings.sharing[joint] - settings.sharing[separate]",
        "there": ["support.percentile_5", "support.top"],
        "not": ["support.slope"],
    },
}


def pendulum(path: Path) -> None:
    """A dozen episodes in D4RL's arrays, of which none says where the simulator stood."""
    rng = np.random.default_rng(0)
    angle, speed = rng.uniform(-3, 3, 360), rng.uniform(-8, 8, 360)
    with h5py.File(path, "w") as file:
        seen = np.stack([np.cos(angle), np.sin(angle), speed], 1)
        file["observations"] = seen.astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (360, 1)).astype(np.float32)
        file["rewards"] = -np.square(angle).astype(np.float32)
        file["terminals"] = np.zeros(360, dtype=bool)
        file["timeouts"] = np.arange(360) % 30 == 29


@pytest.fixture
def brief() -> Iterator[None]:
    """A pendulum of few timesteps, so that planning at each of them takes no time."""
    made = "gymnasium.envs.classic_control:PendulumEnv"
    gymnasium.register("Brief-v0", made, max_episode_steps=12)
    yield
    gymnasium.registry.pop("Brief-v0")


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("name", STUDIES)
def test_what_can_be_measured_is_and_what_cannot_is_said(name: str, tiny: Tiny) -> None:
    cut = STUDIES[name]
    pendulum(tiny.folder / "pendulum.hdf5")
    shutil.copy(ROOT / "studies" / f"{name}.py", tiny.folder)
    study = yaml.safe_load((ROOT / "studies" / f"{name}.yaml").read_text("utf-8"))
    study |= {
        "study": "own",
        "data": [DATA],
        "designs": {"all": {"data": "all", **cut["design"]}},
        "measure": cut["measure"],
        "profiles": {},
        "seeds": 2,
        "hypotheses": [
            {
                "id": "asked",
                "says": "It differs.",
                "contrast": cut["contrast"],
                "metric": cut["not"][0],
                "test": "difference",
                "margin": 0.1,
            }
        ],
    }
    study["factors"] |= cut["factors"]
    small = {"updates": 2, "points": 1, "targets_per_update": 16, "warmup": 1}
    kept = {key: value for key, value in small.items() if f"train.{key}" not in study["factors"]}
    study["train"] |= kept
    study["train"].pop("checkpoints", None)
    study["model"] |= {"parameters": 9000, "tolerance": 0.9}
    if "model.parameters" in study["factors"]:
        study["model"].pop("parameters")
    (tiny.folder / "own.yaml").write_text(yaml.safe_dump(study, sort_keys=False), "utf-8")
    found = tiny.command("run", "own.yaml", "--launcher", "inline")
    assert found.code == 0, found.err
    for metric in cut["not"]:
        assert metric in found.out.split("No value can be had on file/pendulum.hdf5 of ")[1]
    table = pd.read_csv(tiny.folder / "results/own/trials.csv")
    series = pd.read_csv(tiny.folder / "results/own/series.csv")
    known = series.dropna(subset="value")["response"].unique()
    for metric in cut["there"]:
        assert metric in known or table[metric].notna().all()
    assert table[cut["not"]].isna().all().all()
    found = tiny.command("report", "own.yaml")
    assert found.code == 0, found.err
    assert "not tested" in found.out
    page = (tiny.folder / "results/own/report.html").read_text("utf-8")
    assert "has no value in any of its 4 finished trials" in page.replace("&#39;", "'")
