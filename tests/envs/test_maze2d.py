"""D4RL's maze2d against steps of D4RL's own model (d4rl_expected.json says how they were made)."""

import json
from pathlib import Path

import numpy as np
import pytest

from ablate.data.d4rl_index import entry
from ablate.envs.maze2d import MAZES, Maze2D, free_cells, goal_of
from ablate.errors import UserError

EXPECTED = json.loads((Path(__file__).parents[1] / "data" / "d4rl_expected.json").read_text())[
    "maze2d"
]


@pytest.mark.parametrize("maze", MAZES)
def test_steps_are_those_of_d4rls_model(maze):
    known = EXPECTED[maze]
    assert len(free_cells(maze)) == known["free"] + 1
    assert goal_of(maze).tolist() == known["goal"]
    before, actions, after = (np.array(each) for each in zip(*known["steps"], strict=True))
    env = Maze2D(len(before), maze, horizon=10)
    np.testing.assert_allclose(env.physics(before, actions), after, atol=1e-8)
    backwards = env.physics(before[::-1], actions[::-1])  # a row doesn't depend on the others
    np.testing.assert_array_equal(backwards[::-1], env.physics(before, actions))


def test_episodes_start_near_free_cells_and_depend_on_their_seed_only():
    env = Maze2D(400, "umaze", 300)
    first = env.reset(range(400))
    distance = np.abs(first[:, None, :2] - free_cells("umaze")).max(axis=2)  # (400, 7)
    assert distance.min(axis=1).max() <= 0.1
    assert len(set(distance.argmin(axis=1))) == 7  # the goal's cell, too
    assert first[:, 2:].std() == pytest.approx(0.1, rel=0.1)
    actions = np.random.default_rng(0).uniform(-1.5, 1.5, (30, 3, 2))
    together, alone = Maze2D(3, "umaze", 300), Maze2D(1, "umaze", 300)
    together.reset([5, 6, 7])
    alone.reset([6])
    for each in actions:
        a, b = together.step(each), alone.step(each[1:2])
        np.testing.assert_array_equal(a[0][1:2], b[0])
        assert a[1][1] == b[1][0]
    np.testing.assert_allclose(together.simulator_state(), together.full_observation(), atol=1e-6)


@pytest.mark.parametrize("dense", [False, True])
def test_rewards_and_success(dense):
    """A controller that goes straight to the goal of the open maze, and stays."""
    env = Maze2D(20, "open", 150, dense)
    seen = env.reset(range(20))
    success = np.zeros(20, dtype=bool)
    for step in range(150):
        action = 10 * (env.goal - seen[:, :2]) - seen[:, 2:]
        seen, rewards, terminated, truncated, info = env.step(action)
        distance = np.linalg.norm(env.simulator_state()[:, :2] - env.goal, axis=1)
        np.testing.assert_allclose(rewards, np.exp(-distance) if dense else distance <= 0.5)
        success |= distance <= 0.5
        np.testing.assert_array_equal(info["success"], success)
        assert not terminated.any()
        assert truncated.all() == (step == 149)
    assert success.all()


def test_a_ball_stays_in_the_maze():
    env = Maze2D(50, "large", 800)
    env.reset(range(50))
    rng = np.random.default_rng(1)
    for step in range(300):
        if step % 30 == 0:
            actions = rng.uniform(-1, 1, (50, 2))
        seen = env.step(actions)[0]
        assert (np.abs(seen[:, 2:]) < 6).all()
        cell = np.round(seen[:, :2] + 0.2).astype(int)  # cell (i, j) is centred at (i, j) - 0.2
        rows = MAZES["large"].split()
        assert all(rows[i][j] != "#" for i, j in cell)


def test_an_unknown_maze_is_refused():
    with pytest.raises(UserError, match="Did you mean 'medium'"):
        Maze2D(1, "medum", 300)


@pytest.mark.parametrize("name", ["maze2d-umaze-v1", "maze2d-medium-v1", "maze2d-large-dense-v1"])
def test_random_returns_are_d4rls_reference(name):
    """D4RL's score 0 is the mean return of 100 random episodes."""
    known = entry(name)
    maze = known.task.removesuffix("-dense")
    env = Maze2D(300, maze, known.horizon, dense=maze != known.task)
    env.reset(range(300))
    rng, total = np.random.default_rng(0), np.zeros(300)
    for _ in range(known.horizon):
        total += env.step(rng.uniform(-1, 1, (300, 2)))[1]
    assert abs(total.mean() - known.low) < 3 * total.std() * np.sqrt(1 / 100 + 1 / 300)
