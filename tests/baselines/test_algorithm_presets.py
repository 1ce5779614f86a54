"""Presets of algorithms: complete, and with every hyper-parameter on the page."""

from __future__ import annotations

from importlib import resources
from typing import Any

import pytest
import yaml

from ablate.config import plain
from ablate.registry import get
from ablate.study.presets import configuration

PRESETS = {
    "bc": "bc", "ten-percent-bc": "bc", "rvs-r": "bc", "rvs-g": "bc",
    "td3-bc": "td3+bc", "iql": "iql", "cql": "cql",
}  # fmt: skip


def page(name: str) -> dict[str, Any]:
    return yaml.safe_load((resources.files("ablate.study.presets") / f"{name}.yaml").read_text())


@pytest.mark.parametrize(("preset", "algorithm"), PRESETS.items())
def test_a_preset_names_every_hyper_parameter_of_its_algorithm(preset: str, algorithm: str) -> None:
    made = configuration(preset, "mujoco/walker2d/medium-v0")
    assert made["algorithm"] == algorithm
    assert page(preset).get("settings", {}) == plain(
        get("algorithm", algorithm).Settings, made["settings"], "settings"
    )
    needed = {"updates", "targets_per_update", "loss", "optimiser", "learning_rate", "betas"}
    needed |= {"weight_decay", "schedule", "warmup", "clip", "precision"}
    assert needed <= page(preset)["train"].keys()


@pytest.mark.parametrize(("preset", "algorithm"), PRESETS.items())
def test_its_head_and_loss_are_ones_that_the_algorithm_trains(preset: str, algorithm: str) -> None:
    made, kind = configuration(preset, "mujoco/hopper/medium-v0"), get("algorithm", algorithm)
    assert not kind.heads or made["head"] in kind.heads
    assert made["train"]["loss"] in kind.losses


def test_changes_for_a_data_set_are_those_of_the_source() -> None:
    antmaze = configuration("iql", "d4rl/antmaze-umaze-v2")["settings"]
    assert (antmaze["expectile"], antmaze["beta"], antmaze["reward_shift"]) == (0.9, 10.0, -1.0)
    assert configuration("rvs-r", "d4rl/hopper-medium-v2")["measure"]["rollout"]["target"] == 3234.3
    for data, wanted in (("d4rl/hopper-medium-v2", 1000.0), ("d4rl/hopper-medium-expert-v2", None)):
        assert configuration("cql", data)["settings"]["return_range"] == wanted
