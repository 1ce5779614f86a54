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


# --- several forks, and the Markov ones ---


def followed(env, policy, seeds):
    """Observations (B, T, 4) at which it acted, rewards (B, T), NaN once an episode is over, and the last info."""
    observation = env.reset(seeds)
    seen, paid = [], []
    done = np.zeros(len(seeds), dtype=bool)
    while not done.all():
        seen.append(np.where(done[:, None], np.nan, observation))
        observation, rewards, terminations, truncations, info = env.step(
            policy(observation)[:, None]
        )
        paid.append(np.where(done, np.nan, rewards))
        done = terminations | truncations
    return np.stack(seen, 1), np.stack(paid, 1), info


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 12), st.integers(2, 5), st.integers(0, 10**9))
def test_forks_follow_each_other_and_each_is_one_of_its_own(delay, forks, first):
    """An agent that remembers the last route shown is right everywhere; its forks last D + 4 timesteps."""
    env, memory = ForkCommit(6, delay, forks), np.zeros(6)

    def policy(observation):
        shown = observation[:, ROUTE]
        memory[:] = np.where(shown != 0, shown, memory)
        return memory.copy()

    seeds = list(range(2 * first, 2 * first + 6))
    seen, paid, info = followed(env, policy, seeds)
    each = delay + 4
    assert seen.shape == (6, forks * each, 4)
    np.testing.assert_array_equal(np.nansum(paid, 1), forks)
    np.testing.assert_array_equal(info["success"], 1.0)
    routes = seen[:, ::each, ROUTE]
    np.testing.assert_array_equal(np.abs(routes), 1.0)
    np.testing.assert_array_equal(routes.sum(0), 0.0)  # balanced in each fork
    assert not np.delete(seen[..., ROUTE], np.s_[::each], axis=1).any()
    alone = ForkCommit(6, delay)
    first_alone = alone.reset(seeds)
    np.testing.assert_array_equal(seen[:, 0], first_alone)
    for fork in range(forks):  # all but the route is the same in every one, up to the arm
        part = seen[:, fork * each : (fork + 1) * each]
        np.testing.assert_allclose(
            part[..., PROGRESS],
            np.minimum(np.arange(each), delay) / delay * np.ones((6, 1)),
            rtol=1e-6,
        )
        np.testing.assert_allclose(
            part[:, delay:, ACROSS] * routes[:, fork, None], [np.arange(4) / 4] * 6
        )


def test_a_fork_that_is_missed_costs_one_and_the_next_begins():
    env = ForkCommit(2, 3, forks=2)
    seen, paid, info = followed(env, lambda o: np.zeros(2), [0, 1])
    assert seen.shape[1] == env.horizon == 2 * (3 + 12)
    np.testing.assert_array_equal(np.nonzero(paid[0])[0], [14, 29])
    np.testing.assert_array_equal(paid[:, [14, 29]], -1.0)
    np.testing.assert_array_equal(info["success"], 0.0)


def test_where_the_route_is_shown_or_either_is_good_a_timestep_is_enough():
    seen, paid, _ = followed(ForkCommit(8, 4, 3, "shown"), lambda o: o[:, ROUTE], range(8))
    assert (np.abs(seen[..., ROUTE]) == 1).all()
    np.testing.assert_array_equal(np.nansum(paid, 1), 3.0)

    def keeps_to_its_arm(o):
        return np.where(o[:, ACROSS] == 0, [1, -1, 1, -1], np.sign(o[:, ACROSS]))

    seen, paid, _ = followed(ForkCommit(4, 4, 3, "either"), keeps_to_its_arm, range(4))
    assert not seen[..., ROUTE].any()
    np.testing.assert_array_equal(np.nansum(paid, 1), 3.0)


def test_states_are_placed_where_observations_say():
    """From what is seen, the simulator goes on as it did, up to the end of the fork."""
    env, again = ForkCommit(4, 5, 2), ForkCommit(4, 5, 2)
    observation = env.reset(range(4))
    again.reset([9, 9, 9, 9])
    rng = np.random.default_rng(0)
    for _ in range(8):
        states, goals = again.placed(observation)
        np.testing.assert_array_equal(
            again.set_simulator_state(states, goals)[:, :ROUTE], observation[:, :ROUTE]
        )
        action = rng.uniform(-1, 1, (4, 1)).astype(np.float32)
        observation = env.step(action)[0]
        seen = again.step(action)[0]
        np.testing.assert_allclose(seen[:, :ROUTE], observation[:, :ROUTE], atol=1e-6)


def test_the_way_of_a_trajectory_is_the_arm_that_it_ends_in():
    def trajectory(*across, corridor=2, after=2):
        made = np.zeros((corridor + len(across) + after, 4))
        made[corridor : corridor + len(across), JUNCTION] = 1
        made[corridor : corridor + len(across), ACROSS] = across
        return np.concatenate([made, np.tile(made[:1], (20 - len(made), 1))])

    env = ForkCommit(1, 2, 2)
    plans = [
        trajectory(0, 0.25, 0.5, 0.75),
        trajectory(0, -0.2, -0.5, -0.7, corridor=0),
        trajectory(0, 0.25, 0, -0.25, -0.5),  # both
        trajectory(0, 0.1, -0.1, 0),  # none
        trajectory(),
    ]
    way, mixed = env.ways(np.stack(plans))
    np.testing.assert_array_equal(way, [1, -1, -1, 0, 0])
    np.testing.assert_array_equal(mixed, [False, False, True, False, False])


def test_it_is_decisive_around_the_junction():
    env = ForkCommit(1, 6)
    env.reset([0])
    told = []
    for _ in range(6 + 4):
        told.append(bool(env.decisive()[0]))
        env.step(np.array([[0.2]]))
    assert told == [False] * 4 + [True] * 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((3, 0), "there are 0 forks"), ((3, 1, "never"), "never")],
)
def test_forks_that_cannot_be(arguments, said):
    with pytest.raises(UserError, match=said):
        ForkCommit(1, *arguments)
