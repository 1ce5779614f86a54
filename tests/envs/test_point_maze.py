"""The batched point maze does what gymnasium-robotics' environment does."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from ablate.envs.pointmaze import GOAL_RADIUS, MAZES, Ball, PointMaze, free_cells


@pytest.fixture(scope="module")
def reference():
    """gymnasium-robotics' PointMaze in D4RL's U maze, its temporary model file removed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv
    rows = MAZES["umaze"].split()
    env = PointMazeEnv(maze_map=[[int(kind == "#") for kind in row] for row in rows])
    yield env
    env.close()
    Path(env.tmp_xml_file_path).unlink(missing_ok=True)


def test_a_step_equals_gymnasium_robotics(reference):
    reference.reset(seed=0)
    assert reference.point_env.frame_skip == 1
    assert reference.point_env.model.opt.timestep == 0.01
    rng, ball = np.random.default_rng(0), Ball("umaze")
    contacts, worst = 0, 0.0
    for t in range(1200):
        if t % 25 == 0:  # long pushes, so that the ball runs into walls and at the speed limit
            action = rng.uniform(-1.5, 1.5, size=2)
        data = reference.point_env.data
        position, velocity = data.qpos.copy(), data.qvel.copy()
        after, *_ = reference.step(action)
        mine = np.concatenate(ball.step(position[None], velocity[None], action[None]), axis=1)
        worst = max(worst, np.abs(mine[0] - after["observation"]).max())
        contacts += data.ncon > 1
    assert contacts > 50
    assert worst < 1e-6


def test_an_episode_stays_with_gymnasium_robotics(reference):
    env = PointMaze(3)
    start = env.reset([4, 5, 6])
    position, velocity = env._position.copy(), env._velocity.copy()  # before rounding to float32
    actions = np.repeat(np.random.default_rng(1).uniform(-1, 1, (15, 3, 2)), 10, axis=0)
    mine = np.stack([env.step(a)[0] for a in actions])  # (T, B, 6)
    for b in range(3):
        reference.reset(seed=0)
        reference.point_env.set_state(position[b], velocity[b])
        for t, action in enumerate(actions[:, b]):
            observation = reference.step(action)[0]["observation"]
            np.testing.assert_allclose(mine[t, b, :4], observation, atol=2e-5)
        np.testing.assert_allclose(mine[:, b, 4:], np.tile(start[b, 4:], (150, 1)), atol=1e-6)


@pytest.mark.parametrize(
    ("maze", "cells"), [("umaze", 7), ("medium", 26), ("large", 46), ("open", 15)]
)
def test_starts_and_goals_lie_in_different_free_cells(maze, cells):
    centres = free_cells(maze)
    assert len(centres) == cells
    assert len({len(row) for row in MAZES[maze].split()}) == 1
    env = PointMaze(500, maze)
    observation = env.reset(range(500))

    def cell(points):
        gap = np.abs(points[:, None] - centres).max(axis=-1)  # (B, C)
        assert gap.min(axis=1).max() <= 0.1 + 1e-6
        return gap.argmin(axis=1)

    start, goal = cell(observation[:, :2]), cell(observation[:, 4:])
    assert (start != goal).all()
    assert len(set(start)) == len(set(goal)) == cells
    assert 0.05 < observation[:, 2:4].std() < 0.15


def test_reward_and_success():
    env = PointMaze(300)
    env.reset(range(300))
    reached = np.zeros(300, dtype=bool)
    rng = np.random.default_rng(0)
    for t in range(env.horizon):
        observation, rewards, terminations, truncations, info = env.step(
            rng.uniform(-1, 1, (300, 2))
        )
        distance = np.linalg.norm(observation[:, :2] - observation[:, 4:], axis=1)
        clear = np.abs(distance - GOAL_RADIUS) > 1e-5  # observations are rounded
        np.testing.assert_array_equal(rewards[clear], (distance <= GOAL_RADIUS)[clear])
        reached |= rewards > 0
        np.testing.assert_array_equal(info["success"], reached)
        assert not terminations.any()
        assert truncations.all() == (t == env.horizon - 1)
    assert 0 < reached.mean() < 0.6
