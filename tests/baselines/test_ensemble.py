"""The ensemble on a linear system whose law is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from data_samples import make

from ablate.config import complete
from ablate.data.catalogue import PLAIN, DataSet, spec
from ablate.data.trajectories import Trajectories
from ablate.errors import UserError
from ablate.launch.audits import audit_model
from ablate.models.assembly import count_parameters
from ablate.trial import fit, prepare, trained
from baselines.ensemble import EnsembleDynamics, GaussianEnsemble, OneStepSystem

NOISE = 0.05


def linear(episodes: int = 40, steps: int = 40) -> Trajectories:
    """x' = 0.9 x + 0.2 a + noise, random actions."""
    rng = np.random.default_rng(0)
    base = make([steps] * episodes, extras=False)
    actions = rng.uniform(-1, 1, (episodes, steps, 1)).astype(np.float32)
    x = np.zeros((episodes, steps, 1), dtype=np.float32)
    x[:, 0] = rng.standard_normal((episodes, 1))
    for t in range(1, steps):
        x[:, t] = 0.9 * x[:, t - 1] + 0.2 * actions[:, t - 1]
        x[:, t] += NOISE * rng.standard_normal((episodes, 1))
    return replace(
        base, observations=x.reshape(-1, 1), actions=actions.reshape(-1, 1), final_observations=None
    )


def config(settings: dict[str, Any], updates: int) -> dict[str, Any]:
    return complete(
        {
            "data": "lq-mix/single",
            "mixer": "mlp",
            "context": 2,
            "condition": "none",
            "history": "states+actions+rewards",
            "head": "gaussian",
            "algorithm": "one-step",
            "settings": settings,
            "model": {"width": 32},
            "train": {
                "updates": updates,
                "targets_per_update": 64,
                "least_visible": 2,
                "loss": "all",
                "learning_rate": 3e-3,
                "points": 4,
            },
            "measure": {"held-out": {}},
        }
    )


def made(
    tmp_path: Any, updates: int = 5, data: Trajectories | None = None, **settings: Any
) -> GaussianEnsemble:
    both = data or linear(6, 12)
    found = DataSet(spec("lq-mix/single"), both, both, PLAIN)
    system = OneStepSystem.prepare(config(settings, updates), found, "cpu")
    (result,) = fit(system, "test", {0: "fit"}, tmp_path, stacked=False)
    assert not result.failure
    return trained(system, "test", {0: "fit"}, tmp_path, updates).models[0]


@pytest.mark.parametrize("unroll", [1, 3])
def test_it_learns_mean_and_noise_of_a_linear_system(unroll: int, tmp_path: Any) -> None:
    # One member: the members' disagreement is no noise.
    model = made(tmp_path, 500, linear(), members=1, unroll=unroll)
    now = torch.tensor([[0.5], [-0.5]])
    acted = torch.ones(2, 10, 1)
    futures = EnsembleDynamics(model).imagine(torch.zeros(2, 0, 4), now, 10, 300, acted, seed=0)
    mean, variance = now.clone(), torch.zeros(1)
    for h in range(10 if unroll == 1 else unroll):  # what it was trained to follow
        mean, variance = 0.9 * mean + 0.2, 0.81 * variance + NOISE**2
        assert torch.allclose(futures[:, :, h].mean(1), mean, atol=0.08)
    if unroll == 1:  # over what it imagined itself, a member's error counts as noise
        spread = futures[:, :, 0].std(1)
        assert torch.allclose(spread, torch.full_like(spread, NOISE), rtol=0.3)


def test_how_an_ensembles_futures_are_taken(tmp_path: Any) -> None:
    model = made(tmp_path, members=3)
    now = torch.zeros(2, 1)

    def futures(*how: Any) -> torch.Tensor:
        return EnsembleDynamics(model, *how).imagine(
            torch.zeros(2, 0, 4), now, 4, 6, lambda x: torch.zeros(len(x), 1), 0
        )

    assert futures("mean").shape == (2, 6, 4, 1)
    assert float(futures("mean").std(1).max()) == 0.0
    # One member for each sample: as many different futures as members; drawn anew: more.
    kept, anew = futures("greedy", "ts-inf")[0, :, :, 0], futures("greedy", "ts1")[0, :, :, 0]
    assert len(kept.unique(dim=0)) == 3 < len(anew.unique(dim=0))
    assert torch.equal(kept[:3], kept[3:])


def test_every_size_has_the_parameters_that_are_asked_for(tmp_path: Any) -> None:
    for members in (1, 5):
        asked = config({"members": members}, 1)
        asked["model"] |= {"width": None, "parameters": 16_000}
        system = prepare(asked, tmp_path)
        assert count_parameters(system.model("test", 0)) == system.sizes()["parameters"]
        assert system.sizes()["parameters"] == pytest.approx(16_000, rel=0.05)


def test_members_learn_from_samples_of_their_own_and_unrolls_stay_inside_episodes(
    tmp_path: Any,
) -> None:
    data = linear(4, 9)
    system = OneStepSystem.prepare(
        config({"members": 3, "unroll": 4}, 1),
        DataSet(spec("lq-mix/single"), data, data, PLAIN),
        "cpu",
    )
    source = system.source(system.program([system.model("test", 0)]))
    assert (data.timestep[source.starts.numpy()] <= 4).all()
    assert source.context == 5
    model = system.model("test", 0)
    assert len({tuple(w.flatten().tolist()[:3]) for w in model.weights[0]}) == 3


def test_its_audit_sees_the_present_and_nothing_else() -> None:
    found = audit_model(config({}, 1))
    assert found.passed
    assert found.lags == (0,)


def test_refusals(tmp_path: Any) -> None:
    with pytest.raises(UserError, match="no actions of its own"):
        EnsembleDynamics(made(tmp_path)).imagine(
            torch.zeros(1, 0, 4), torch.zeros(1, 1), 2, 1, None, 0
        )
    with pytest.raises(UserError, match="no episode has 50 steps"):
        made(tmp_path, data=linear(2, 10), unroll=50)
