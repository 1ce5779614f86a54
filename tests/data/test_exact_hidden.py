"""The exact posterior of masked mixtures, against the one that sees all and against conditional Gaussians."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from ablate.data import catalogue, exact, exact_hidden
from ablate.data.exact import EXPLORATION
from ablate.data.families import lq
from ablate.data.kalman import Seen
from ablate.data.kalman import returns as filtered
from ablate.envs.base import MaskedEnv
from ablate.envs.lq import ACTION_SCALE, HORIZON, PROCESS_NOISE, A, B, LinearQuadratic

POSITIONS = Seen((0, 1), (0.0, 0.0))


def masked(episodes: int) -> MaskedEnv:
    return MaskedEnv(LinearQuadratic(episodes), [0, 1])


@pytest.mark.parametrize("context", [1, 4])
@pytest.mark.parametrize("policies", [2, 4])
def test_with_everything_shown_it_is_the_posterior_that_sees_all(
    context: int, policies: int
) -> None:
    part = lq.simulate("name", "episode", 20, "held_out", policies)
    gains = exact.controllers(policies)
    found = exact_hidden.actions(part, Seen(), context, gains)
    known = exact.posterior_actions(part, context, policies=policies)
    # The other one reads an action at its bound as anything beyond it, this one as the bound.
    at_bound = np.abs(part.actions).max(axis=1).reshape(-1, HORIZON) >= 1.0
    free = ~np.maximum.accumulate(at_bound, axis=1).ravel()
    assert free.mean() > 0.95
    np.testing.assert_allclose(found[free], known[free], atol=1e-7)
    seeds = range(50)
    acted = exact_hidden.returns(LinearQuadratic, seeds, context, gains)
    np.testing.assert_allclose(
        acted, exact.posterior_returns(context, seeds, policies=policies), rtol=1e-4, atol=1e-4
    )


def law(gain: np.ndarray, first: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Covariance of all positions and forces of a window but the last force, and that with the last state (4)."""
    size = (
        4 + 6 * length
    )  # the first state, then for each timestep the noise of its action and of the process
    root = np.zeros((4, size))
    root[:, :4] = np.linalg.cholesky(exact.state_covariances(gain, EXPLORATION)[first])
    state, rows = root, []
    for t in range(length):
        rows.append(state[:2])
        if t == length - 1:
            break
        force = -gain @ state
        force[:, 4 + 6 * t : 6 + 6 * t] += EXPLORATION * np.eye(2)
        rows.append(force)
        state = A @ state + B @ force
        state[:, 6 + 6 * t : 10 + 6 * t] += PROCESS_NOISE * np.eye(4)
    seen = np.concatenate(rows)
    return seen @ seen.T, state @ seen.T


@pytest.mark.parametrize(("context", "time"), [(1, 0), (1, 30), (3, 1), (3, 2), (3, 40), (5, 60)])
def test_it_conditions_the_gaussians_of_the_controllers(context: int, time: int) -> None:
    part = lq.simulate("name", "episode", 30, "held_out", 2)
    shown = part.observations.reshape(-1, HORIZON, 4)[:, :, :2]
    actions = part.actions.reshape(-1, HORIZON, 2)
    gains = exact.controllers(2)
    first = max(0, time + 1 - context)
    window = []
    for t in range(first, time):
        window += [shown[:, t], ACTION_SCALE * actions[:, t]]
    seen = np.concatenate([*window, shown[:, time]], axis=1).astype(np.float64)
    weights, means = [], []
    for gain in gains:
        covariance, cross = law(gain, first, time - first + 1)
        weights.append(multivariate_normal(cov=covariance).pdf(seen))
        means.append(-seen @ np.linalg.solve(covariance, cross.T) @ gain.T / ACTION_SCALE)
    share = np.array(weights) / np.sum(weights, axis=0)
    by_hand = np.einsum("zb,zbi->bi", share, np.clip(means, -1.0, 1.0))
    found = exact_hidden.Posterior(POSITIONS, gains, context).action(shown, actions, time)
    np.testing.assert_allclose(found, by_hand, atol=1e-6)


def test_of_one_controller_over_a_whole_episode_it_is_the_clone_that_filters() -> None:
    gains = exact.controllers(2)[:1]
    found = exact_hidden.returns(masked, range(20), HORIZON, gains)
    np.testing.assert_allclose(found, filtered(masked, range(20), "clone"), rtol=1e-4, atol=1e-3)


def test_more_of_the_past_tells_more_of_the_action(tmp_path: Path) -> None:
    data = catalogue.load("lq-mix/episode-20@mask-velocity", tmp_path)
    known = [data.yardstick(context) for context in (1, 2, 20)]
    errors = [each["action_error"] for each in known if each]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 2 * errors[-1]
    assert data.yardstick(HORIZON + 1) is None
    # It errs more than with everything in sight.
    whole = catalogue.load("lq-mix/episode-20", tmp_path).yardstick(20)
    assert whole is not None
    assert whole["action_error"] < errors[-1]


@pytest.mark.parametrize("name", ["step-20@mask-velocity", "episode-20@noise-1"])
def test_where_the_law_is_no_mixture_of_gaussians_nothing_is_said(
    name: str, tmp_path: Path
) -> None:
    assert catalogue.load(f"lq-mix/{name}", tmp_path).yardstick(2) is None
