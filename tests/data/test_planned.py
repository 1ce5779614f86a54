"""What plans are worth in the linear system: against simulation, and against other closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from ablate.data import exact
from ablate.data.catalogue import spec
from ablate.data.families.lq import simulate
from ablate.data.planned import LinearLaw, costs
from ablate.envs.lq import ACTION_SCALE, HORIZON, LinearQuadratic


@pytest.mark.parametrize(("mixing", "policies"), [("single", 2), ("step", 2), ("step", 3)])
def test_without_a_plan_it_is_the_expected_return(mixing: str, policies: int) -> None:
    """From x_0 ~ N(0, I) on, no discount: propagation of covariances forwards gives the same."""
    gains = exact.controllers(policies)
    gains = gains[:1] if mixing == "single" else gains
    matrices, constants = costs(gains, 1.0)
    found = -(np.trace(matrices[HORIZON]) + constants[HORIZON]) / 10.0
    assert found == pytest.approx(exact.expected_return(gains, exact.EXPLORATION), rel=1e-9)


@pytest.mark.parametrize(("mixing", "steps"), [("single", 1), ("single", 4), ("episode", 3)])
def test_plans_bring_what_they_are_worth(mixing: str, steps: int) -> None:
    """Against the mean over many runs of the environment in which a controller goes on."""
    rng, runs, start = np.random.default_rng(0), 4000, 60
    states = 0.4 * rng.standard_normal((3, 4))
    actions = rng.uniform(-0.2, 0.2, (3, steps, 2))
    ids, discount = np.array([0, 1, 1]) if mixing == "episode" else np.zeros(3, int), 0.95
    law = LinearLaw(mixing, 2)
    rewards, after = law.plan_value(states, np.full(3, start), ids, actions, discount)
    env = LinearQuadratic(3 * runs)
    env.reset(range(3 * runs))
    seen = env.set_simulator_state(np.repeat(states, runs, axis=0))
    brought, later = np.zeros(3 * runs), np.zeros(3 * runs)
    gain = exact.controllers(2)[np.repeat(ids, runs)]
    for step in range(HORIZON - start):
        if step < steps:
            action = np.repeat(actions[:, step], runs, axis=0)
        else:
            force = -np.einsum("bij,bj->bi", gain, seen.astype(np.float64))
            force += exact.EXPLORATION * rng.standard_normal(force.shape)
            action = force / ACTION_SCALE
        seen, reward, *_ = env.step(action)
        (brought if step < steps else later)[:] += discount**step * reward
    for found, simulated in ((rewards, brought), (after, later)):
        each = simulated.reshape(3, runs)
        error = 4.0 * each.std(1) / np.sqrt(runs) + 1e-3
        assert (np.abs(found - each.mean(1)) < error).all()


def test_densities_are_those_of_the_controllers() -> None:
    data = simulate("lq-mix/test", "single", 3, "held_out", 1)
    mean = exact.controller_actions(data.observations)  # (T, 2, 2)
    each = norm.logpdf(data.actions[:, None], mean, exact.EXPLORATION / ACTION_SCALE).sum(-1)
    single = LinearLaw("single", 2).log_density(data.observations, data.actions)
    assert data.behaviour_logp is not None
    np.testing.assert_allclose(single, each[:, 0], atol=1e-6)
    np.testing.assert_allclose(single, data.behaviour_logp, atol=1e-3)
    both = LinearLaw("episode", 2).log_density(data.observations[None], data.actions[None])
    np.testing.assert_allclose(both[0], np.logaddexp(*each.T) - np.log(2), atol=1e-6)


def test_twins_that_hide_something_have_no_law() -> None:
    assert spec("lq-mix/episode").law == LinearLaw("episode", 2)
    assert spec("lq-mix/single@mask-velocity").law is None
    assert spec("lq-mix/single@physics-0.5").law is None
