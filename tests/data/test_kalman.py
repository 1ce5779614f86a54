"""The Kalman filter of the linear system against the Riccati equation, joint Gaussians and closed-form costs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import solve_discrete_are

from ablate.data import exact, kalman
from ablate.data.behaviour import Filled
from ablate.data.catalogue import spec
from ablate.data.exact import EXPLORATION
from ablate.data.families.lq import Controllers
from ablate.data.kalman import Filter, Seen
from ablate.envs.base import MaskedEnv, VectorEnv
from ablate.envs.hidden import DelayedEnv, DroppedEnv, NoisyEnv
from ablate.envs.lq import (
    ACTION_COST,
    ACTION_SCALE,
    COST_DIVISOR,
    HORIZON,
    PROCESS_NOISE,
    STATE_COST,
    A,
    B,
    LinearQuadratic,
)  # fmt: skip
from ablate.errors import UserError

NOISY = Seen((0, 1, 3), (0.3, 0.2, 0.4))
Q = PROCESS_NOISE**2 * np.eye(4)


def noisy(count: int) -> VectorEnv:
    return NoisyEnv(MaskedEnv(LinearQuadratic(count), [0, 1, 3]), np.array(NOISY.noise))


def test_it_settles_where_the_riccati_equation_says() -> None:
    law = Filter(NOISY)
    law.start(1)
    for _ in range(400):
        law.observe(np.zeros((1, 3)))
        law.acted(np.zeros((1, 2)))
    c, r = NOISY.matrix, NOISY.covariance
    np.testing.assert_allclose(law.covariance[0], solve_discrete_are(A.T, c.T, Q, r), rtol=1e-9)


@pytest.mark.parametrize("told", [False, True])
def test_it_is_the_conditional_law_of_the_joint_gaussian(told: bool) -> None:
    """All of x_0 .. x_4, y_0 .. y_4 (and of a demonstrator's forces) as one Gaussian, conditioned at once."""
    rng, steps, gain = np.random.default_rng(0), 5, exact.optimal_gain()
    c, r = NOISY.matrix, NOISY.covariance
    forces = rng.standard_normal((steps, 2))
    shown = rng.standard_normal((steps, 3))
    # x_t is linear in x_0 and the process noise, given the forces.
    maps, offsets = [np.hstack([np.eye(4), np.zeros((4, 4 * (steps - 1)))])], [np.zeros(4)]
    for t in range(steps - 1):
        step = A @ maps[-1]
        step[:, 4 + 4 * t : 8 + 4 * t] = np.eye(4)
        maps.append(step)
        offsets.append(A @ offsets[-1] + B @ forces[t])
    sources = np.diag([1.0] * 4 + [PROCESS_NOISE**2] * 4 * (steps - 1))
    seen, values, noises = [], [], []
    for t in range(steps):
        seen.append(c @ maps[t])
        values.append(shown[t] - c @ offsets[t])
        noises.append(r)
        if told and t < steps - 1:
            seen.append(-gain @ maps[t])
            values.append(forces[t] + gain @ offsets[t])
            noises.append(EXPLORATION**2 * np.eye(2))
    matrix, value = np.vstack(seen), np.concatenate(values)
    noise = np.zeros((len(value), len(value)))
    at = 0
    for one in noises:
        noise[at : at + len(one), at : at + len(one)] = one
        at += len(one)
    weight = sources @ matrix.T @ np.linalg.inv(matrix @ sources @ matrix.T + noise)
    mean = offsets[-1] + maps[-1] @ weight @ value
    covariance = maps[-1] @ (sources - weight @ matrix @ sources) @ maps[-1].T
    law = Filter(NOISY, told)
    law.start(1)
    for t in range(steps):
        law.observe(shown[t : t + 1])
        if t < steps - 1:
            law.acted(forces[t : t + 1] / ACTION_SCALE)
    np.testing.assert_allclose(law.mean[0], mean, atol=1e-10)
    np.testing.assert_allclose(law.covariance[0], covariance, atol=1e-10)


def test_with_the_regulator_it_costs_what_propagated_covariances_say() -> None:
    """Mean returns of episodes against the law of (state, error of the estimate), propagated exactly."""
    gain, c, r = exact.optimal_gain(), NOISY.matrix, NOISY.covariance
    law = Filter(NOISY)
    law.start(1)
    joint, cost = np.kron(np.ones((2, 2)), np.eye(4)), 0.0  # of (x, x - estimate before y)
    for _ in range(HORIZON):
        before = law.covariance[0]
        weight = before @ c.T @ np.linalg.inv(c @ before @ c.T + r)
        update = np.block(
            [[np.eye(4), np.zeros((4, 4))], [np.zeros((4, 4)), np.eye(4) - weight @ c]]
        )
        fresh = np.vstack([np.zeros((4, 3)), -weight])
        joint = update @ joint @ update.T + fresh @ r @ fresh.T
        acts = np.hstack([-gain, gain])  # u = -G (x - error)
        cost += np.trace(STATE_COST @ joint[:4, :4]) + np.trace(ACTION_COST @ acts @ joint @ acts.T)
        move = np.block([[A - B @ gain, B @ gain], [np.zeros((4, 4)), A]])
        joint = move @ joint @ move.T + np.kron(np.ones((2, 2)), Q)
        law.observe(np.zeros((1, 3)))
        law.acted(np.zeros((1, 2)))
    found = kalman.returns(noisy, range(1500), "filter")
    error = found.std() / np.sqrt(len(found))
    assert found.mean() == pytest.approx(-cost / COST_DIVISOR, abs=4 * error)


def test_where_all_is_shown_everybody_is_the_regulator() -> None:
    each = [kalman.returns(LinearQuadratic, range(20), who) for who in kalman.WHO]
    np.testing.assert_allclose(each[1], each[0])
    np.testing.assert_allclose(each[2], each[0])
    assert kalman.nats(Seen()) == pytest.approx(0.0, abs=1e-12)


def test_more_hidden_is_a_higher_dose_and_memory_is_worth_something() -> None:
    doses = [
        kalman.nats(Seen(noise=(0.4 * s, 0.4 * s, 0.27 * s, 0.27 * s))) for s in (0.1, 0.3, 1, 3)
    ]
    assert doses == sorted(doses)
    scores = [kalman.returns(noisy, range(200), who).mean() for who in kalman.WHO]
    assert scores[0] > scores[1] > scores[2]


def test_a_dropped_frame_tells_nothing_and_late_actions_are_awaited() -> None:
    law = Filter(Seen(drops=True))
    law.start(2)
    law.observe(np.array([[1.0, 0, 0, 0], [2.0, 0, 0, 0]]))
    law.acted(np.zeros((2, 2)))
    predicted = law.mean.copy()
    law.observe(np.array([[1.0, 0, 0, 0], [2.5, 0, 0, 0]]))  # the first is the last frame again
    np.testing.assert_array_equal(law.mean[0], predicted[0])
    np.testing.assert_allclose(law.mean[1], [2.5, 0, 0, 0], atol=1e-12)
    late = kalman.returns(lambda n: DelayedEnv(LinearQuadratic(n), 4), range(100), "filter")
    blind = kalman.returns(lambda n: DelayedEnv(LinearQuadratic(n), 4), range(100), "clone")
    assert late.mean() > blind.mean()  # the clone acts as if its actions were on time


def test_what_wrappers_hide_is_read_from_them() -> None:
    env = DelayedEnv(DroppedEnv(noisy(2), 0.5), 3)
    found = Seen.of(env)
    assert found == Seen((0, 1, 3), tuple(np.float32(NOISY.noise).tolist()), True, 3)
    with pytest.raises(UserError, match="its own friction"):
        Seen.of(LinearQuadratic(1, friction_spread=0.5))


def test_a_demonstrator_sees_what_is_shown() -> None:
    """By default the mean in place of what is hidden; a filter is one of what the environment shows."""
    single = spec("lq-mix/single")
    assert single.behaviour is not None
    assert isinstance(Controllers("single", 2).shown_only(noisy(1), [0, 1, 3], np.zeros(4)), Filled)
    made = kalman.Estimating().shown_only(noisy(1), [0, 1, 3], np.zeros(4))
    shown = noisy(4).reset(range(4))
    made.start(shown, np.random.default_rng(0))
    mean = made.act(shown).mean
    assert mean is not None
    prior = NOISY.matrix.T @ np.linalg.inv(NOISY.matrix @ NOISY.matrix.T + NOISY.covariance)
    expected = -(shown @ prior.T) @ exact.optimal_gain().T / ACTION_SCALE
    np.testing.assert_allclose(mean, np.clip(expected, -1, 1), atol=1e-5)
