"""The forbidden shortcut: open, fined, and in no data."""

import numpy as np

from ablate.data.families.shortcut import ACTION_NOISE, around
from ablate.envs.pointmaze import Ball, free_cells
from ablate.envs.shortcut import FINE, FORBIDDEN, GOAL, MAP, START, Shortcut, forbidden


def test_the_shortcut_is_open_and_fined() -> None:
    """A ball that is pushed straight from the start to the goal ends in between."""
    env = Shortcut(3)
    seen = env.reset(range(3))
    assert (np.abs(seen[:, :2] - START) <= 0.1).all()
    rewards, ended = [], np.zeros(3, dtype=bool)
    for _ in range(30):
        seen, reward, ended, _, info = env.step(np.tile([0.0, -1.0], (3, 1)))
        rewards.append(reward)
    assert ended.all()
    assert info["forbidden"].all()
    assert not info["success"].any()
    np.testing.assert_array_equal(np.sum(rewards, axis=0), FINE)
    assert (np.abs(seen[:, 1] - FORBIDDEN[1]) < 0.55).all()


def test_a_timestep_is_five_of_the_balls() -> None:
    env = Shortcut(2)
    seen = env.reset([4, 5]).astype(np.float64)
    action = np.array([[0.3, 0.2], [1.0, -0.1]])
    ball, position, velocity = Ball(MAP), *np.split(env.simulator_state(), 2, axis=1)
    for _ in range(5):
        position, velocity = ball.step(position, velocity, action)
    after = env.step(action)[0]
    np.testing.assert_allclose(after, np.hstack([position, velocity]), atol=1e-6)
    assert not np.allclose(after, seen)


def test_walkers_never_see_it() -> None:
    env, walker = Shortcut(100), around(ACTION_NOISE)
    seen = env.reset(range(100))
    walker.start(seen, np.random.default_rng(0))
    total = np.zeros(100)
    for _ in range(env.horizon):
        assert not forbidden(seen[:, :2]).any()
        seen, reward, ended, _, info = env.step(walker.act(seen).actions)
        total += reward
    assert not ended.any()
    assert info["success"].all()
    assert total.min() > 0
    assert total.mean() > 15
    assert (np.linalg.norm(seen[:, :2] - GOAL, axis=1) < 0.5).mean() > 0.95
    assert any((cell == FORBIDDEN).all() for cell in free_cells(MAP))
