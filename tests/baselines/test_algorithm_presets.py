"""Presets of algorithms: complete, and with every hyper-parameter on the page."""

from __future__ import annotations

import math
from importlib import resources
from typing import Any

import pytest
import torch
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


@pytest.mark.parametrize(
    ("preset", "named"),
    [
        ("bc", ["that plus 1e-3", "are of the training episodes, nine tenths of the set"]),
        ("td3-bc", ["that plus 1e-3", "are of the training episodes, nine tenths of the set"]),
        ("cql", ["that plus 1e-3", "the range of returns, where it is used, are of the training episodes"]),
        ("iql", ["that plus 1e-3", "the range of returns are of the training episodes",
                 "standard deviations start at 0.5 (CORL: 1, log_std at 0)"]),
        ("tt", ["at the time limit one stop token a window", "a tenth of the episodes is held out"]),
    ],
)  # fmt: skip
def test_a_preset_names_where_it_departs_from_its_source(preset: str, named: list[str]) -> None:
    text = (resources.files("ablate.study.presets") / f"{preset}.yaml").read_text()
    said = " ".join(text.replace("#", " ").split())
    assert [words for words in named if words not in said] == []


def test_iql_s_policy_starts_where_its_preset_says() -> None:
    head = get("head", configuration("iql", "mujoco/hopper/medium-v0")["head"])(4, 2)
    params = head(torch.zeros(1, 4))
    density = head.log_prob(params, head.mean(params)).detach() / 2  # of one action at its mean
    assert math.isclose(float(torch.exp(-density)) / math.sqrt(2 * math.pi), 0.5, rel_tol=1e-5)


def test_changes_for_a_data_set_are_those_of_the_source() -> None:
    antmaze = configuration("iql", "d4rl/antmaze-umaze-v2")["settings"]
    assert (antmaze["expectile"], antmaze["beta"], antmaze["reward_shift"]) == (0.9, 10.0, -1.0)
    assert configuration("rvs-r", "d4rl/hopper-medium-v2")["measure"]["rollout"]["target"] == 3234.3
    for data, wanted in (("d4rl/hopper-medium-v2", 1000.0), ("d4rl/hopper-medium-expert-v2", None)):
        assert configuration("cql", data)["settings"]["return_range"] == wanted
