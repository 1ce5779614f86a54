"""The ensemble on a linear system whose law is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from data_samples import make

from ablate.data.trajectories import Trajectories
from ablate.errors import UserError
from baselines.ensemble import EnsembleSettings, fit_ensemble

NOISE = 0.05
SMALL = EnsembleSettings(members=3, width=32, layers=2, updates=400, batch=64)


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


@pytest.mark.parametrize("unroll", [1, 3])
def test_it_learns_mean_and_noise_of_a_linear_system(unroll: int) -> None:
    # One member: the members' disagreement is no noise.
    settings = replace(SMALL, members=1, unroll=unroll, updates=500, learning_rate=3e-3)
    model = fit_ensemble(linear(), settings, seed=0)
    now = torch.tensor([[0.5], [-0.5]])
    acted = torch.ones(2, 10, 1)
    futures = model.imagine(torch.zeros(2, 0, 4), now, 10, 300, acted, seed=0)  # (2, 300, 10, 1)
    mean, variance = now.clone(), torch.zeros(1)
    for h in range(10 if unroll == 1 else unroll):  # what it was trained to follow
        mean, variance = 0.9 * mean + 0.2, 0.81 * variance + NOISE**2
        assert torch.allclose(futures[:, :, h].mean(1), mean, atol=0.08)
    if unroll == 1:  # over what it imagined itself, a member's error counts as noise
        spread = futures[:, :, 0].std(1)
        assert torch.allclose(spread, torch.full_like(spread, NOISE), rtol=0.3)


def test_the_mean_of_the_means_has_no_spread_and_external_policies_act() -> None:
    settings = replace(SMALL, updates=5, propagation="mean")
    model = fit_ensemble(linear(4, 10), settings, seed=0)
    now = torch.zeros(2, 1)
    futures = model.imagine(torch.zeros(2, 0, 4), now, 4, 3, lambda x: torch.zeros(len(x), 1), 0)
    assert futures.shape == (2, 3, 4, 1)
    assert float(futures.std(1).max()) == 0.0


def test_refusals() -> None:
    model = fit_ensemble(linear(4, 10), replace(SMALL, updates=1), seed=0)
    with pytest.raises(UserError, match="no actions of its own"):
        model.imagine(torch.zeros(1, 0, 4), torch.zeros(1, 1), 2, 1, None, 0)
    with pytest.raises(UserError, match="no episode has 50 steps"):
        fit_ensemble(linear(2, 10), replace(SMALL, unroll=50), seed=0)
