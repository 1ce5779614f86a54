"""The linear-quadratic environment follows its equations."""

import numpy as np

from ablate.envs import lq


def test_one_step_by_hand():
    env = lq.LinearQuadratic(1)
    state = env.reset([5])[0].astype(np.float64)
    action = np.array([[0.25, -2.0]])  # the second is clipped to -1
    force = lq.ACTION_SCALE * np.array([0.25, -1.0])
    after, reward, terminations, truncations, _ = env.step(action)
    cost = state @ state + 0.1 * force @ force
    np.testing.assert_allclose(reward, -cost / 10, rtol=1e-6)
    p, v = state[:2], state[2:]
    spring = np.array([0.5 * p[0] + 0.2 * p[1], 0.2 * p[0] + 0.5 * p[1]])
    expected = np.concatenate([p + 0.1 * v, v + 0.1 * (spring + force)])
    assert np.abs(after[0] - expected).max() < 6 * lq.PROCESS_NOISE
    assert not terminations.any()
    assert not truncations.any()


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
