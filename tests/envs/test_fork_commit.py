"""The fork-commit maze: what is shown when, and that a context above D is all that separates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.envs.forkcommit import ACROSS, JUNCTION, PROGRESS, ROUTE, ForkCommit
from ablate.errors import UserError

EVEN = list(range(20))  # as many routes up as down


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 30), st.integers(0, 10**9), st.integers(0, 10**6))
def test_only_the_first_observation_tells_the_route(delay, first, noise):
    """Whatever is done in the corridor: every later observation up to the junction is the same."""
    env = ForkCommit(4, delay)
    observation = env.reset(range(2 * first, 2 * first + 4))
    assert observation[:, ROUTE].sum() == 0
    np.testing.assert_array_equal(np.abs(observation[:, ROUTE]), 1.0)
    np.testing.assert_array_equal(observation[:, :ROUTE], 0.0)
    rng = np.random.default_rng(noise)
    for t in range(1, delay + 1):
        observation, rewards, terminations, truncations, info = env.step(rng.uniform(-1, 1, (4, 1)))
        expected = np.zeros(4)
        expected[[PROGRESS, JUNCTION]] = t / delay, t == delay
        np.testing.assert_allclose(observation, np.tile(expected, (4, 1)), rtol=1e-6)
        assert not np.concatenate([rewards, terminations, truncations]).any()
        assert not info["switches"].any()
    # The first action that matters is this one.
    observation = env.step(np.array([[1.0], [0.5], [-0.2], [0.0]]))[0]
    np.testing.assert_allclose(observation[:, ACROSS], [0.25, 0.125, -0.05, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(observation[:, [PROGRESS, JUNCTION, ROUTE]], [[1, 1, 0]] * 4)


def play(delay, policy, seeds=EVEN):
    """Returns (B,), info and lengths (B,) of policy(observations (B, t + 1, 4)) -> (B,)."""
    env = ForkCommit(len(seeds), delay)
    seen = [env.reset(seeds)]
    total, length = np.zeros(len(seeds)), np.zeros(len(seeds), dtype=int)
    done = np.zeros(len(seeds), dtype=bool)
    while not done.all():
        action = policy(np.stack(seen, axis=1))
        length += ~done
        observation, rewards, terminations, truncations, info = env.step(action[:, None])
        seen.append(observation)
        total += rewards
        done = terminations | truncations
        assert not truncations.any()
    return total, info, length


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 25), st.integers(1, 30), st.sampled_from([-1.0, 1.0]))
def test_the_best_policy_of_k_timesteps_scores_1_above_d_and_a_half_below(delay, context, guess):
    def policy(seen):
        window = seen[:, -context:]
        known = np.sign(window[:, :, ROUTE].sum(axis=1) + window[:, -1, ACROSS])
        return np.where(known == 0, guess, known)

    total, info, length = play(delay, policy)
    assert total.mean() == (1.0 if context > delay else 0.5)
    assert info["reached"].all()
    np.testing.assert_array_equal(info["success"], total == 1.0)
    np.testing.assert_array_equal(length, delay + 4)
    assert not info["switches"].any()


def test_who_stays_in_the_middle_loses():
    total, info, length = play(7, lambda seen: np.zeros(len(seen)))
    np.testing.assert_array_equal(total, -1.0)
    np.testing.assert_array_equal(length, 7 + 12)
    assert not (info["reached"] | info["success"]).any()


def test_switches_are_counted_at_the_junction_only():
    plan = np.zeros(3 + 12)
    plan[:3] = [1, -1, 1]  # in the corridor: no effect
    plan[3:] = [0.5, 0.5, -0.5, 0.0, -0.5, 1, 1, 1, 1, 1, 1, 1]
    total, info, length = play(3, lambda seen: np.full(len(seen), plan[seen.shape[1] - 1]))
    np.testing.assert_array_equal(info["switches"], 2)
    np.testing.assert_array_equal(length, 3 + 9)
    assert total.mean() == 0.5


def test_fork_commit_refuses():
    with pytest.raises(UserError, match="the delay is 0; at least 1 step"):
        ForkCommit(1, 0)


def test_state_of_the_simulator():
    env = ForkCommit(2, 3)
    route = env.reset([0, 1])[:, ROUTE]
    for _ in range(4):
        env.step(np.full((2, 1), 0.5))
    np.testing.assert_allclose(env.simulator_state(), [[4, 0.125, route[0]], [4, 0.125, route[1]]])
