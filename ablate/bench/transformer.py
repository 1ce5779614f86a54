"""The presets of the two transformers at hopper's sizes, on made-up data, trained as `train --preset` trains them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ablate.data.catalogue import PLAIN, DataSet, DataSpec, Recorded
from ablate.data.trajectories import Trajectories
from ablate.learn.objective import Objective
from ablate.registry import get
from ablate.study import presets

OBSERVATIONS, ACTIONS = 11, 3
LONGEST = 1000  # timesteps of an episode
# Of the Decision Transformer; the bench of acting builds policies of the same sizes.
TIMESTEPS, LAYERS, WIDTH = 20, 3, 128


def training(preset: str, *overrides: str) -> Objective:
    """What an update of the preset is done by, with overrides such as "train.precision=bfloat16"."""
    config = presets.configuration(preset, "mujoco/hopper/medium-v0", overrides)
    algorithm = get("algorithm", config["algorithm"])
    system: Any = get("system", algorithm.system).prepare(config, hopper(), "cpu")
    program = system.program([system.model("bench", 0)])
    made: Objective = algorithm(
        program.stack, system.source(program), config["train"], config["settings"], "bench", [0]
    )
    return made


def hopper(episodes: int = 10) -> DataSet:
    """Episodes of full length in hopper's shapes, of numbers that mean nothing."""
    rng = np.random.default_rng(0)
    total = episodes * LONGEST
    ends = np.arange(1, total + 1) % LONGEST == 0
    made = Trajectories(
        name="made up",
        observations=rng.normal(size=(total, OBSERVATIONS)).astype(np.float32),
        actions=np.tanh(rng.normal(size=(total, ACTIONS))).astype(np.float32),
        rewards=rng.uniform(0, 6, total).astype(np.float32),
        terminations=np.zeros(total, dtype=bool),
        truncations=ends,
        episode_starts=np.arange(episodes + 1) * LONGEST,
    )

    def nothing(*_: Any) -> Any:
        raise NotImplementedError("made-up data have no environment.")

    spec = DataSpec(
        name="made up",
        family="made up",
        recipe={},
        generate=nothing,
        make_env=nothing,
        anchors=lambda: PLAIN,
        recorded=lambda: Recorded(OBSERVATIONS, ACTIONS, LONGEST),
        lacking=lambda: "They are made up.",
    )
    return DataSet(spec, made, made, PLAIN)
