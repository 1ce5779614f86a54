"""The linear-quadratic environment follows its equations."""

import numpy as np

from ablate.envs import lq


def test_one_step_by_hand():
    env = lq.LinearQuadratic(1)
    state = env.reset([5])[0].astype(np.float64)
    action = np.array([[0.25, -2.0]])  # the second is clipped to -1
    force = lq.ACTION_SCALE * np.array([0.25, -1.0])
    after, reward, terminations, truncations, _ = env.step(action)
    cost = state @ state + 0.5 * force @ force
    np.testing.assert_allclose(reward, -cost / 10, rtol=1e-6)
    p, v = state[:2], state[2:]
    spring = 0.1 * np.array([p[0] + p[1], p[0] + p[1]])
    expected = np.concatenate([p + 0.1 * v, v + 0.1 * (spring - 0.5 * v + force)])
    assert np.abs(after[0] - expected).max() < 6 * lq.PROCESS_NOISE
    assert not terminations.any()
    assert not truncations.any()


def test_the_cost_is_capped_so_that_a_lost_plant_does_not_weigh_without_bound():
    state = np.array([[1.0, 0.0, 0.0, 0.0], [100.0, 0.0, 0.0, 0.0]])
    rewards = lq.reward(state, np.array([[2.0, 0.0], [0.0, 0.0]]))
    np.testing.assert_allclose(rewards, [-(1.0 + 0.5 * 4.0) / 10, -lq.COST_CAP / 10])


def test_feedback_of_the_positions_alone_can_hold_the_plant():
    gain = np.hstack([np.eye(2), np.zeros((2, 2))])
    assert np.abs(np.linalg.eigvals(lq.A - lq.B @ gain)).max() < 1.0


def test_it_is_mildly_unstable_and_noise_is_as_stated():
    assert 1.0 < np.abs(np.linalg.eigvals(lq.A)).max() < 1.1
    env = lq.LinearQuadratic(2000)
    start = env.reset(range(2000)).astype(np.float64)
    np.testing.assert_allclose(start.std(axis=0), 1.0, atol=0.06)
    after = env.step(np.zeros((2000, 2)))[0]
    noise = after - start @ lq.A.T
    np.testing.assert_allclose(noise.std(axis=0), lq.PROCESS_NOISE, rtol=0.06)
    assert np.abs(np.corrcoef(noise.T) - np.eye(4)).max() < 0.08


def test_it_is_truncated_after_the_horizon():
    env = lq.LinearQuadratic(1)
    env.reset([0])
    flags = [bool(env.step(np.zeros((1, 2)))[3][0]) for _ in range(lq.HORIZON)]
    assert flags == [False] * (lq.HORIZON - 1) + [True]
