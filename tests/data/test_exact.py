"""The yardsticks of the linear-quadratic system against simulation and brute force."""

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from ablate.data import exact
from ablate.data.families.lq import simulate
from ablate.envs import lq
from ablate.envs.lq import LinearQuadratic
from ablate.errors import UserError


@pytest.fixture(scope="module")
def episodes():
    return simulate("sample", "episode", 300, "train")


def simulated_returns(gains, exploration, episodes=20_000, seed=0):
    """Returns of a linear controller, or of a mixture redrawn at every step, simulated plainly."""
    rng = np.random.default_rng(seed)
    gains = np.atleast_3d(gains).reshape(-1, 2, 4)
    state, total = rng.standard_normal((episodes, 4)), np.zeros(episodes)
    for _ in range(lq.HORIZON):
        gain = gains[rng.integers(len(gains), size=episodes)]
        force = -np.einsum("bij,bj->bi", gain, state)
        force += exploration * rng.standard_normal(force.shape)
        total += lq.reward(state, force)
        noise = lq.PROCESS_NOISE * rng.standard_normal(state.shape)
        state = state @ lq.A.T + force @ lq.B.T + noise
    return total


@pytest.mark.parametrize("which", ["better", "worse", "optimum", "step"])
def test_expected_returns_match_simulation(which):
    gains, exploration = {
        "better": (exact.controllers()[0], exact.EXPLORATION),
        "worse": (exact.controllers()[1], exact.EXPLORATION),
        "optimum": (exact.optimal_gain(), 0.0),
        "step": (exact.controllers(), exact.EXPLORATION),
    }[which]
    returns = simulated_returns(gains, exploration)
    error = returns.std() / np.sqrt(len(returns))
    assert abs(returns.mean() - exact.expected_return(gains, exploration)) < 4 * error


def test_the_two_controllers_are_as_far_apart_as_wanted():
    better, worse = (exact.expected_return(g, exact.EXPLORATION) for g in exact.controllers())
    assert better == pytest.approx(-7.85, abs=0.05)
    assert 3.5 < worse / better < 4.5
    step = exact.expected_return(exact.controllers(), exact.EXPLORATION)
    assert 100 * (step - worse) / (better - worse) > 90  # the average controller is a good one


def test_controllers_in_between_are_ever_worse():
    for policies in (2, 4, 8):
        gains = exact.controllers(policies)
        returns = [exact.expected_return(gain, exact.EXPLORATION) for gain in gains]
        assert len(returns) == policies
        assert all(a > b for a, b in pairwise(returns))
        np.testing.assert_array_equal(gains[[0, -1]], exact.controllers())


def test_no_linear_controller_beats_the_optimum():
    best = exact.optimal_return()
    rng = np.random.default_rng(0)
    for _ in range(20):
        near = exact.optimal_gain() + 0.2 * rng.standard_normal((2, 4))
        assert exact.expected_return(near, 0.0) < best
    # The stationary regulator loses only what it spends in vain towards the end.
    assert 0 < best - exact.expected_return(exact.optimal_gain(), 0.0) < 0.05


def test_the_regulator_equals_value_iteration():
    value = np.zeros((4, 4))
    for _ in range(500):
        gain = np.linalg.solve(lq.ACTION_COST + lq.B.T @ value @ lq.B, lq.B.T @ value @ lq.A)
        closed = lq.A - lq.B @ gain
        value = lq.STATE_COST + gain.T @ lq.ACTION_COST @ gain + closed.T @ value @ closed
    np.testing.assert_allclose(gain, exact.optimal_gain(), atol=1e-8)


def test_state_covariances_match_the_data(episodes):
    acting = episodes.behaviour_id[episodes.episode_starts[:-1]]
    for z in (0, 1):
        states = episodes.observations.reshape(300, 100, 4)[acting == z]
        expected = exact.state_covariances(exact.controllers()[z], exact.EXPLORATION)
        for t in (0, 3, 20, 99):
            spread = np.sqrt(np.diag(expected[t]))
            found = np.cov(states[:, t].T) / np.outer(spread, spread)
            np.testing.assert_allclose(found, expected[t] / np.outer(spread, spread), atol=0.45)


def log_joint(states, actions, first, z, initial):
    """log p(window | controller) with every factor written out, the dynamics' included."""
    gain = exact.controllers(len(initial))[z]
    total = multivariate_normal.logpdf(states[0], np.zeros(4), initial[z][first])
    for j, action in enumerate(actions):
        force = -gain @ states[j]
        total += norm.logpdf(lq.ACTION_SCALE * action, force, exact.EXPLORATION).sum()
        mean = lq.A @ states[j] + lq.B @ (lq.ACTION_SCALE * action)
        total += norm.logpdf(states[j + 1], mean, lq.PROCESS_NOISE).sum()
    return total


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize(("context", "policies"), [(1, 2), (2, 2), (3, 2), (7, 2), (3, 5)])
def test_the_posterior_equals_brute_force(episodes, context, policies, timed):
    part = episodes.select([0, 1, 2])
    found = exact.posterior(part, context, timed=timed, policies=policies)
    initial = [exact.state_covariances(g, exact.EXPLORATION) for g in exact.controllers(policies)]
    for e, t in product(range(3), (0, 1, 2, 5, 6, 40, 99)):
        first = max(0, t - context + 1)
        rows = 100 * e + np.arange(first, t + 1)
        states = part.observations[rows].astype(np.float64)
        actions = part.actions[rows[:-1]].astype(np.float64)
        if timed or t < context - 1:
            starts = [first]
        else:
            starts = list(range(100 - context + 1))
        joint = np.zeros(policies)
        for z in range(policies):
            logs = [log_joint(states, actions, s, z, initial) for s in starts]
            joint[z] = np.logaddexp.reduce(logs)
        expected = np.exp(joint - np.logaddexp.reduce(joint))
        np.testing.assert_allclose(found[100 * e + t], expected, atol=1e-6)


def test_the_posterior_is_calibrated(episodes):
    """Among rows where it says p, a fraction p is the better controller's."""
    episodes = episodes.select(np.arange(150))
    for timed in (True, False):
        p = exact.posterior(episodes, 1, timed=timed)[:, 0]
        better = episodes.behaviour_id == 0
        for low in (0.1, 0.4, 0.7):
            inside = (p > low) & (p < low + 0.2)
            # Rows of an episode aren't independent: 150 episodes give about +- 0.06.
            assert abs(better[inside].mean() - p[inside].mean()) < 0.12


def test_more_context_and_the_time_never_hurt(episodes):
    episodes = episodes.select(np.arange(100))
    for timed in (True, False):
        errors = [exact.posterior_action_error(episodes, k, timed=timed) for k in (1, 2, 5, 20)]
        assert all(a.all >= b.all * 0.99 for a, b in pairwise(errors))
        assert all(a.early >= b.early * 0.99 for a, b in pairwise(errors))
    with_time = exact.posterior_action_error(episodes, 1)
    without = exact.posterior_action_error(episodes, 1, timed=False)
    assert with_time.early < without.early
    assert with_time.all < without.all


def test_the_first_step_is_undecidable(episodes):
    episodes = episodes.select(np.arange(50))
    first = episodes.timestep == 0
    for timed, context in product((True, False), (2, 20)):
        p = exact.posterior(episodes, context, timed=timed)
        np.testing.assert_allclose(p[first], 0.5, atol=1e-9)


def test_no_other_prediction_is_better_than_the_posterior_mean(episodes):
    best = exact.posterior_action_error(episodes, 1).all
    actions = exact.controller_actions(episodes.observations)
    for other in (actions[:, 0], actions[:, 1], actions.mean(axis=1)):
        assert np.square(other - episodes.behaviour_action).mean() > best


def test_step_mixtures_and_single_controllers():
    step = simulate("sample", "step", 50, "train")
    weights = exact.posterior(step, 20, "step")
    assert (weights == 0.5).all()
    errors = {exact.posterior_action_error(step, k, "step").all for k in (1, 5, 20)}
    assert len(errors) == 1
    single = simulate("sample", "single", 20, "train")
    assert exact.posterior_action_error(single, 1, "single").all < 1e-12


def test_the_posterior_policy_in_closed_loop():
    seeds = list(range(400))
    single = exact.posterior_returns(1, seeds, "single")
    assert abs(single.mean() - exact.optimal_return()) < 4 * single.std() / 20
    short, long = exact.posterior_returns(1, seeds), exact.posterior_returns(20, seeds)
    assert long.mean() > short.mean()  # memory pays: it finds out which controller it is
    np.testing.assert_allclose(
        exact.posterior_returns(5, [3, 9])[1:], exact.posterior_returns(5, [9])
    )
    untimed = exact.posterior_returns(1, seeds, timed=False)
    assert not np.allclose(untimed, short)


def test_the_closed_loop_is_the_policy_of_the_posterior():
    """Its actions are those that `posterior_actions` gives for the trajectory that it made."""
    env, context = LinearQuadratic(2), 3
    total = exact.posterior_returns(context, [1, 2], timed=False)
    data = simulate("sample", "episode", 2, "train")
    observation, rewards = env.reset([1, 2]), np.zeros(2)
    observations, actions = np.zeros((2, 100, 4), np.float32), np.zeros((2, 100, 2), np.float32)
    for t in range(100):
        observations[:, t] = observation
        shown = replace(
            data, observations=observations.reshape(-1, 4), actions=actions.reshape(-1, 2)
        )
        every = exact.posterior_actions(shown, context, timed=False).reshape(2, 100, 2)
        actions[:, t] = every[:, t]
        observation, reward, *_ = env.step(every[:, t])
        rewards += reward
    np.testing.assert_allclose(rewards, total, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixing": "episodes"}, "Did you mean 'episode'"),
        ({"context": 0}, "context: 0 timesteps; allowed: 1 to 100"),
        ({"context": 101}, "allowed: 1 to 100"),
    ],
)
def test_refusals(episodes, change, message):
    arguments = {"context": 1, "mixing": "episode", **change}
    with pytest.raises(UserError, match=message):
        exact.posterior(episodes, **arguments)
    with pytest.raises(UserError, match=message):
        exact.posterior_returns(seeds=[0], **arguments)


def test_hidden_velocities_are_refused(episodes):
    with pytest.raises(UserError, match="needs the full state"):
        exact.posterior(episodes.observe([0, 1], "twin"), 1)


@pytest.mark.parametrize("which", ["better", "worse", "step", "optimum"])
def test_values_of_the_start_are_expected_returns(which):
    """Backwards over values against forwards over covariances."""
    better, worse = exact.controllers()
    gains = {"better": better, "worse": worse, "step": exact.controllers(), "optimum": None}[which]
    value, rest = exact.cost_to_go(gains, 1.0)
    found = -(np.trace(value[0]) + rest[0]) / lq.COST_DIVISOR
    known = (
        exact.optimal_return() if gains is None else exact.expected_return(gains, exact.EXPLORATION)
    )
    assert found == pytest.approx(known, rel=1e-9)


@pytest.mark.parametrize("which", ["worse", "step", "optimum"])
def test_what_an_action_is_worth_matches_simulation(episodes, which):
    row, discount = 70, 0.95
    one = replace(
        episodes.select([0]),
        observations=episodes.observations[:100],
        actions=episodes.actions[:100],
    )
    gains = {"worse": exact.controllers()[1], "step": exact.controllers(), "optimum": None}[which]
    exploration = 0.0 if gains is None else exact.EXPLORATION
    rng = np.random.default_rng(0)
    state = np.tile(one.observations[row].astype(float), (20_000, 1))
    force = np.tile(lq.ACTION_SCALE * one.actions[row].astype(float), (20_000, 1))
    total = np.zeros(len(state))
    for t in range(row, lq.HORIZON):
        total += discount ** (t - row) * lq.reward(state, force)
        state = state @ lq.A.T + force @ lq.B.T
        state += lq.PROCESS_NOISE * rng.standard_normal(state.shape)
        if gains is None:
            value, _ = exact.cost_to_go(None, discount)
            after = value[min(t + 2, lq.HORIZON)]
            acting = np.linalg.solve(
                lq.ACTION_COST + discount * lq.B.T @ after @ lq.B, discount * lq.B.T @ after @ lq.A
            )[None]
        else:
            acting = np.atleast_3d(gains).reshape(-1, 2, 4)
        chosen = acting[rng.integers(len(acting), size=len(state))]
        force = -np.einsum("bij,bj->bi", chosen, state)
        force += exploration * rng.standard_normal(force.shape)
    expected = exact.worth(one, gains, discount)[row]
    assert total.mean() == pytest.approx(expected, abs=4 * total.std() / len(total) ** 0.5)


@pytest.mark.parametrize("context", [1, 20])
def test_what_follows_is_on_average_what_a_window_is_worth(episodes, context):
    found = exact.window_worth(episodes, context, "episode", 1.0)
    followed = episodes.returns_to_go.astype(float)
    early = episodes.timestep == 25  # a row an episode
    slope = np.polyfit(found[early], followed[early], 1)[0]
    apart = (followed - found)[early]
    assert abs(apart.mean()) < 4 * apart.std() / early.sum() ** 0.5
    assert slope == pytest.approx(1.0, abs=0.25)
    # Who acts is told better by more of the past.
    longer = exact.window_worth(episodes, 20, "episode", 1.0)
    assert np.square(followed - longer).mean() <= np.square(followed - found).mean() + 1e-9
