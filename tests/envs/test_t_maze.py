"""The passive T-Maze: observations, walls, rewards and goals as in models.md section 5."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.envs.tmaze import DOWN, LEFT, RIGHT, UP, PassiveTMaze, goals


def play(length, moves, seed=0):
    env = PassiveTMaze(1, length)
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


def test_the_wrong_arm_and_standing_still():
    wrong = DOWN if goals([0])[0] > 0 else UP
    _, rewards, done, _, success = play(4, [RIGHT] * 4 + [wrong])
    assert (rewards, done, success) == ([0.0] * 5, True, False)
    observations, rewards, done, _, _ = play(4, [LEFT] * 5)
    assert rewards == [-0.25] * 4 + [0.0]
    assert sum(rewards) == -1.0
    # The goal is shown on the first visit of the oracle cell only.
    assert observations[1:] == [[0, 0]] * 5


def test_walls_and_coming_back():
    # Up in the corridor is a wall; back at the oracle cell nothing is shown.
    observations, rewards, *_ = play(3, [UP, RIGHT, LEFT, RIGHT])
    assert observations[1:] == [[0, 0], [0, 0], [0, 0], [0, 0]]
    np.testing.assert_allclose(rewards, [-1 / 3, -1 / 3, -1 / 3, 0.0])
    # From an arm, only the way back is free.
    observations, *_ = play(1, [RIGHT, UP])
    assert observations == [[0, goals([0])[0]], [1, 0], [1, 1]]
    assert PassiveTMaze(1, 4).horizon == 5


def test_best_without_memory_is_half():
    seeds = list(range(200))
    env = PassiveTMaze(200, 3)
    env.reset(seeds)
    total = np.zeros(200)
    for move in (RIGHT, RIGHT, RIGHT, UP):
        total += env.step(np.tile(np.eye(4)[move], (200, 1)))[1]
    assert total.mean() == 0.5


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
