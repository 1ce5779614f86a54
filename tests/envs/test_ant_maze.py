"""D4RL's antmaze against steps of D4RL's own model (d4rl_expected.json says how they were made)."""

import json
from pathlib import Path

import numpy as np
import pytest

from ablate.envs.antmaze import MAZES, AntMaze
from ablate.errors import UserError

EXPECTED = json.loads((Path(__file__).parents[1] / "data" / "d4rl_expected.json").read_text())[
    "antmaze"
]


@pytest.mark.parametrize("maze", MAZES)
def test_steps_are_those_of_d4rls_model(maze):
    known = EXPECTED[maze]
    assert MAZES[maze].count("#") == known["walls"]
    before, actions, after = (np.array(each) for each in zip(*known["steps"], strict=True))
    env = AntMaze(len(before), maze, horizon=10)
    np.testing.assert_allclose(env.physics(before, actions), after, atol=1e-6)
    backwards = env.physics(before[::-1], actions[::-1])  # a row doesn't depend on the others
    np.testing.assert_array_equal(backwards[::-1], env.physics(before, actions))


def test_starts_and_goals():
    env = AntMaze(300, "umaze", 700)
    first = env.reset(range(300))
    assert first.shape == (300, 29)
    assert np.abs(first[:, :2]).max() <= 0.1
    np.testing.assert_allclose(np.linalg.norm(first[:, 3:7], axis=1), 1, atol=1e-6)
    assert first[:, 15:].std() == pytest.approx(0.1, rel=0.05)
    offset = env.goal - EXPECTED["umaze"]["goals"][0]
    assert offset.min() >= 0
    assert offset.max() <= 1.5
    assert offset.mean() == pytest.approx(0.75, abs=0.05)
    np.testing.assert_array_equal(AntMaze(1, "umaze", 700).reset([7])[0], first[7])


def test_the_goal_is_rewarded_once():
    env = AntMaze(2, "medium", 1000)
    env.reset([0, 1])
    still = np.zeros((2, 8))
    assert env.step(still)[1].tolist() == [0, 0]
    env._state[0, :2] = env.goal[0] + 0.3  # 0.42 away
    seen, rewards, terminated, truncated, info = env.step(still)
    assert rewards.tolist() == [1, 0]
    assert terminated.tolist() == [True, False]
    assert not truncated.any()
    assert info["success"].tolist() == [True, False]
    later, rewards, terminated, _, info = env.step(still)
    assert rewards.tolist() == [0, 0]
    np.testing.assert_array_equal(later[0], seen[0])
    np.testing.assert_allclose(env.simulator_state(), later, atol=1e-6)
    assert info["success"].tolist() == [True, False]
    with pytest.raises(UserError, match="Did you mean 'large'"):
        AntMaze(1, "larg", 1000)
