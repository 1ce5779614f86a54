"""The pendulums against textbooks, an integrator that isn't ours, conserved energy and known Lyapunov exponents."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from ablate.data.collect import collect
from ablate.data.families.pendulum import Pump
from ablate.envs.pendulum import (
    DT,
    GRAVITY,
    HORIZON,
    SUBSTEPS,
    DoublePendulum,
    Pendulum,
    exponent,
    runge_kutta,
)
from ablate.errors import UserError

KINDS = [Pendulum, DoublePendulum]


def textbook(state: np.ndarray) -> np.ndarray:
    """The double pendulum's angular accelerations as they are usually written, for unit masses and lengths."""
    a, b, u, v = state
    d, below = a - b, 3.0 - np.cos(2.0 * (a - b))
    first = -3.0 * GRAVITY * np.sin(a) - GRAVITY * np.sin(a - 2.0 * b)
    first -= 2.0 * np.sin(d) * (v * v + u * u * np.cos(d))
    second = 2.0 * np.sin(d) * (2.0 * u * u + 2.0 * GRAVITY * np.cos(a) + v * v * np.cos(d))
    return np.array([u, v, first / below, second / below])


def test_the_motion_is_the_textbooks():
    states = np.random.default_rng(0).normal(size=(20, 4)) * 3.0
    expected = np.stack([textbook(state) for state in states])
    np.testing.assert_allclose(DoublePendulum.motion(states, 0.0), expected, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_that_of_another_integrator(kind):
    env = kind(3, noise=0.0)
    env.reset([0, 1, 2])
    before = env.simulator_state()
    action = np.array([[0.7], [-1.5], [0.0]])  # the second is clipped to -1
    env.step(action)
    for row, torque in enumerate(kind.torque * np.clip(action[:, 0], -1, 1)):
        there = solve_ivp(
            lambda _, x, torque=torque: kind.motion(x, torque), (0, DT), before[row],
            method="DOP853", rtol=1e-10, atol=1e-10,
        )  # fmt: skip
        np.testing.assert_allclose(env.simulator_state()[row], there.y[:, -1], atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_energy_is_conserved_without_torque_and_kicks(kind):
    env = kind(8, noise=0.0)
    env.reset(range(8))
    start = kind.energy(env.simulator_state())
    for _ in range(HORIZON):
        env.step(np.zeros((8, 1)))
    np.testing.assert_allclose(kind.energy(env.simulator_state()), start, atol=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_seen_is_the_whole_state_and_can_be_put_back(kind):
    env = kind(4)
    seen = env.reset(range(4))
    states = np.random.default_rng(1).normal(size=(4, 2 * kind.links))
    seen = env.set_simulator_state(states).astype(np.float64)
    angles = np.arctan2(seen[:, 1 : 2 * kind.links : 2], seen[:, 0 : 2 * kind.links : 2])
    again = np.concatenate([angles, seen[:, 2 * kind.links :]], axis=1)
    np.testing.assert_allclose(again, states, atol=1e-6)
    np.testing.assert_array_equal(env.impossible(seen), False)
    seen[:, 0] *= 0.5
    seen[:, 1] = 0.1
    assert env.impossible(seen).all()
    with pytest.raises(UserError, match=r"found shape \(4, 3\)"):
        env.set_simulator_state(np.zeros((4, 3)))
    with pytest.raises(UserError, match="noise is -1"):
        kind(1, noise=-1)


# --- Lyapunov exponents ---


def steps(motion, dt):
    return lambda _, states: runge_kutta(motion, states, dt)


def test_the_method_finds_the_published_exponent_of_the_lorenz_system():
    def lorenz(x):
        a, b, c = np.moveaxis(x, -1, 0)
        return np.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], axis=-1)

    state = np.random.default_rng(0).normal(size=(40, 3)) + np.array([0, 0, 25])
    for _ in range(500):
        state = runge_kutta(lorenz, state, 0.02)
    found = exponent(steps(lorenz, 0.02), state, 3000) / 0.02
    # J. C. Sprott, Chaos and Time-Series Analysis, 2003: 0.9056
    assert found.mean() == pytest.approx(0.9056, abs=0.03)


@pytest.mark.parametrize(
    ("kind", "rest", "rate", "number"),
    [
        # Upright, th'' = g th; so few steps that what is rounded off stays small.
        (Pendulum, [np.pi, 0.0], np.sqrt(GRAVITY), 500),
        (DoublePendulum, [np.pi, np.pi, 0.0, 0.0], np.sqrt((2 + np.sqrt(2)) * GRAVITY), 250),
        (Pendulum, [0.5, 0.0], 0.0, 6000),  # it swings, and can't be chaotic
    ],
)
def test_exponents_that_are_known_in_closed_form(kind, rest, rate, number):
    found = exponent(steps(lambda x: kind.motion(x, 0.0), 0.01), np.array([rest]), number) / 0.01
    assert found[0] == pytest.approx(rate, rel=0.01, abs=0.1)


def test_the_lyapunov_time_of_the_double_pendulum_is_that_along_its_data():
    made = collect("pendulum/test", "train", DoublePendulum, Pump("double"), 60 * HORIZON)
    states = made.simulator_state.reshape(60, HORIZON, 4).astype(np.float64)
    torque = DoublePendulum.torque * made.actions.reshape(60, HORIZON)

    def advance(t, both):
        force = np.tile(torque[:, 20 + t], len(both) // 60)
        for _ in range(SUBSTEPS):
            both = runge_kutta(lambda x: DoublePendulum.motion(x, force), both, DT / SUBSTEPS)
        return both

    found = 1.0 / exponent(advance, states[:, 20], 170).mean()
    assert found == pytest.approx(DoublePendulum.lyapunov, rel=0.1)
