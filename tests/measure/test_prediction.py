"""The measurement `held-out`: how many timesteps it predicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ablate.measure.base import Trained
from ablate.registry import get
from ablate.study import identity
from ablate.systems import prepare

SEEDS = (3, 4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    config = {
        **{"data": "lq-mix/episode-20", "mixer": "mlp", "context": 1},
        **{"condition": "none", "history": "states+actions", "head": "mse"},
        "model": {"width": 8, "layers": 1},
    }
    system = prepare(config, tmp_path_factory.mktemp("data"))
    return Trained(system, [system.model("name", seed) for seed in SEEDS], "name", SEEDS, 0)


def options(**given: Any) -> Any:
    return get("measurement", "held-out").Options(**given)


def test_of_all_timesteps_the_error_is_that_of_all(trained: Trained) -> None:
    """The mean over every held-out timestep, of models called on the states themselves."""
    system = trained.system
    held = system.data.held_out
    found = get("measurement", "held-out")()(trained, options(timesteps=16_384))["action_error"]
    agent = system.program(trained.models)
    rows = torch.arange(len(held.timestep)).expand(2, -1)
    everything = system.held("name", trained.models, 16_384)
    with torch.no_grad():
        features, lengths = agent.windows(everything.table, everything.timestep, rows)
        made = agent.stack.head.mean(agent.stack(features, lengths)).numpy()
    by_hand = np.square(made - everything.wanted.numpy()).mean((1, 2)) / everything.variance
    np.testing.assert_allclose(found, by_hand, rtol=1e-5)
    assert len(everything.targets) == len(held.timestep)


@pytest.mark.parametrize(("asked", "there"), [(50, 50), (None, 4096)])
def test_otherwise_of_as_many_as_are_asked_for(trained: Trained, asked: int, there: int) -> None:
    assert len(trained.system.held("name", trained.models, asked).targets) == there


def test_none_are_not_asked_for() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        options(timesteps=0)


def test_what_was_measured_before_it_could_be_said_is_what_the_default_measures() -> None:
    """An option that came later keeps its default out of the ids of committed results."""
    before = identity.row_id("fit", 600, "held-out", {})
    assert identity.row_id("fit", 600, "held-out", options().model_dump()) == before
    assert identity.row_id("fit", 600, "held-out", options(timesteps=9).model_dump()) != before
