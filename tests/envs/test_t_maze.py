"""The T-Mazes: observations, walls, rewards and goals as in models.md section 5."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.envs.tmaze import DOWN, LEFT, RIGHT, UP, ActiveTMaze, PassiveTMaze, goals
from ablate.errors import UserError


def play(length, moves, seed=0, maze=PassiveTMaze):
    env = maze(1, length)
    observations, rewards = [env.reset([seed])[0].tolist()], []
    for move in moves:
        one_hot = np.full((1, 4), -1.0)
        one_hot[0, move] = 1.0
        observation, reward, terminations, truncations, info = env.step(one_hot)
        observations.append(observation[0].tolist())
        rewards.append(float(reward[0]))
    return observations, rewards, bool(terminations[0]), bool(truncations[0]), info["success"][0]


@pytest.mark.parametrize("length", [1, 2, 5, 30])
def test_the_expert(length):
    goal = int(goals([0])[0])
    turn = UP if goal > 0 else DOWN
    observations, rewards, done, truncated, success = play(length, [RIGHT] * length + [turn])
    assert observations[0] == [0, goal]
    assert observations[1:length] == [[0, 0]] * (length - 1)
    assert observations[length:] == [[1, 0], [1, goal]]
    assert rewards == [0.0] * length + [1.0]
    assert done
    assert not truncated
    assert success


@pytest.mark.parametrize("length", [1, 2, 5, 30])
def test_the_expert_of_the_active_maze(length):
    goal = int(goals([0])[0])
    turn = UP if goal > 0 else DOWN
    moves = [LEFT, *[RIGHT] * (length + 1), turn]
    observations, rewards, done, truncated, success = play(length, moves, maze=ActiveTMaze)
    assert ActiveTMaze(1, length).horizon == len(moves) == length + 3
    assert observations[:2] == [[0, 0], [0, goal]]
    assert observations[2 : length + 2] == [[0, 0]] * length
    assert observations[length + 2 :] == [[1, 0], [1, goal]]
    assert rewards == [0.0] * (length + 2) + [1.0]
    assert (done, truncated, success) == (True, False, True)


def test_the_wrong_arm_and_standing_still():
    wrong = DOWN if goals([0])[0] > 0 else UP
    _, rewards, done, _, success = play(4, [RIGHT] * 4 + [wrong])
    assert (rewards, done, success) == ([0.0] * 5, True, False)
    observations, rewards, done, _, _ = play(4, [LEFT] * 5)
    assert rewards == [-0.25] * 4 + [0.0]
    assert sum(rewards) == -1.0
    # The goal is shown on the first visit of the oracle cell only.
    assert observations[1:] == [[0, 0]] * 5
    # Active: straight ahead is never late, and tells nothing; standing at the oracle costs 1 + 1/L.
    observations, rewards, *_ = play(4, [RIGHT] * 7, maze=ActiveTMaze)
    assert observations == [[0, 0]] * 4 + [[1, 0]] * 4
    assert rewards == [0.0] * 7
    _, rewards, *_ = play(4, [LEFT] * 7, maze=ActiveTMaze)
    assert rewards == [0.0] + [-0.25] * 5 + [0.0]


def test_walls_and_coming_back():
    # Up in the corridor is a wall; back at the oracle cell nothing is shown.
    observations, rewards, *_ = play(3, [UP, RIGHT, LEFT, RIGHT])
    assert observations[1:] == [[0, 0], [0, 0], [0, 0], [0, 0]]
    np.testing.assert_allclose(rewards, [-1 / 3, -1 / 3, -1 / 3, 0.0])
    # From an arm, only the way back is free.
    observations, *_ = play(1, [RIGHT, UP])
    assert observations == [[0, goals([0])[0]], [1, 0], [1, 1]]
    assert PassiveTMaze(1, 4).horizon == 5
    # Active: the oracle speaks on the first visit, whenever that is.
    observations, *_ = play(3, [RIGHT, LEFT, LEFT, RIGHT, LEFT, LEFT], maze=ActiveTMaze)
    goal = int(goals([0])[0])
    assert [shown for _, shown in observations] == [0, 0, 0, goal, 0, 0, 0]


def test_best_without_memory_is_half():
    seeds = list(range(200))
    env = PassiveTMaze(200, 3)
    env.reset(seeds)
    total = np.zeros(200)
    for move in (RIGHT, RIGHT, RIGHT, UP):
        total += env.step(np.tile(np.eye(4)[move], (200, 1)))[1]
    assert total.mean() == 0.5


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 5), st.integers(0, 1), st.integers(0, 20), st.data())
def test_every_move_is_that_of_the_published_table(length, oracle, seed, data):
    maze = ActiveTMaze if oracle else PassiveTMaze
    horizon = length + 1 + 2 * oracle
    moves = data.draw(st.lists(st.sampled_from([0, 0, 0, 1, 2, 3]), min_size=horizon))[:horizon]
    observations, rewards, done, _, success = play(length, moves, seed, maze)
    state, goal = start(oracle), int(goals([seed])[0])
    assert observations[0] == list(shown(state, goal, length, oracle))
    for t, move in enumerate(moves):
        state, reward = after(state, t, move, goal, length, oracle)
        assert observations[t + 1] == list(shown(state, goal, length, oracle))
        assert rewards[t] == reward
    assert done
    assert success == (rewards[-1] == 1)


# The maze in words of the table, one episode at a time. State: x, y, the oracle is speaking now,
# it has spoken.


def start(oracle):
    return oracle, 0, oracle == 0, oracle == 0


def shown(state, goal, length, oracle):
    x, y, speaking, _ = state
    return (1, y) if x == oracle + length else (0, goal if speaking else 0)


def after(state, t, move, goal, length, oracle):
    x, y, _, spoken = state
    dx, dy = {RIGHT: (1, 0), UP: (0, 1), LEFT: (-1, 0), DOWN: (0, -1)}[move]
    junction = oracle + length
    if (y + dy == 0 and 0 <= x + dx <= junction) or (abs(y + dy) == 1 and x + dx == junction):
        x, y = x + dx, y + dy
    speaking = x == 0 and not spoken
    t += 1
    if t == length + 1 + 2 * oracle:
        reward = float(y == goal)
    else:
        reward = -1 / length if x < t - oracle else 0.0
    return (x, y, speaking, spoken or speaking), reward


def best(length, oracle, remembers):
    """The best mean return over both goals, by dynamic programming over pairs of episodes.

    One policy acts in both: alike as long as it can't tell them apart, by what it sees at a time or,
    with memory, by all that it has seen.
    """
    horizon = length + 1 + 2 * oracle

    @functools.cache
    def value(t, up, down, apart):
        if t == horizon:
            return 0.0
        differ = shown(up, 1, length, oracle) != shown(down, -1, length, oracle)
        apart = differ or (remembers and apart)
        found = []
        for a in range(4):
            for b in range(4) if apart else [a]:
                (one, r1), (two, r2) = (
                    after(up, t, a, 1, length, oracle),
                    after(down, t, b, -1, length, oracle),
                )
                found.append((r1 + r2) / 2 + value(t + 1, one, two, apart))
        return max(found)

    return value(0, start(oracle), start(oracle), False)


@pytest.mark.parametrize("oracle", [0, 1])
@pytest.mark.parametrize("length", [1, 2, 3, 6])
def test_the_best_return_is_one_with_memory_and_half_without(oracle, length):
    assert best(length, oracle, remembers=True) == 1.0
    assert best(length, oracle, remembers=False) == 0.5


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10**12), st.integers(1, 20))
def test_consecutive_seeds_are_balanced(first, pairs):
    seeds = list(range(2 * first, 2 * first + 2 * pairs))
    found = goals(seeds)
    assert found.sum() == 0
    np.testing.assert_array_equal(found[::2], -found[1::2])
    np.testing.assert_array_equal(goals(seeds[::-1]), found[::-1])


def test_goals_do_not_follow_the_parity_of_the_seed():
    assert abs(goals(list(range(0, 2000, 2))).mean()) < 0.1


def test_a_corridor_has_a_length():
    with pytest.raises(UserError, match="ActiveTMaze: the corridor length is 0"):
        ActiveTMaze(1, 0)
