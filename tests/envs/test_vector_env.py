"""What every environment promises: rows depend on their own seed, done rows are frozen."""

import numpy as np
import pytest

from ablate.envs.base import MaskedEnv, VectorEnv
from ablate.envs.forkcommit import ForkCommit
from ablate.envs.fourrooms import FourRooms
from ablate.envs.locomotion import Locomotion
from ablate.envs.lq import LinearQuadratic
from ablate.envs.pendulum import DoublePendulum
from ablate.envs.pointmaze import PointMaze
from ablate.envs.stitch import Stitch
from ablate.envs.tmaze import PassiveTMaze
from ablate.errors import UserError

MAKERS = {
    "lq": LinearQuadratic,
    "tmaze": lambda n: PassiveTMaze(n, 6),
    "pointmaze": PointMaze,
    "hopper": lambda n: Locomotion(n, "hopper"),
    "masked": lambda n: MaskedEnv(LinearQuadratic(n), [0, 1]),
    "fourrooms": FourRooms,
    "stitch": lambda n: Stitch(n, 1, "AB"),
    "forkcommit": lambda n: ForkCommit(n, 6),
    "pendulum": DoublePendulum,
}


def episodes(env: VectorEnv, seeds: list[int], actions: np.ndarray) -> dict[str, np.ndarray]:
    """Everything that happens under actions (T, B, M), stacked over time."""
    first = env.reset(seeds)
    steps = [env.step(a) for a in actions]
    out = {"observations": np.stack([first, *(s[0] for s in steps)])}
    for i, key in enumerate(("rewards", "terminations", "truncations"), start=1):
        out[key] = np.stack([s[i] for s in steps])
    for key in steps[0][4]:
        out[key] = np.stack([s[4][key] for s in steps])
    return out


@pytest.mark.parametrize("kind", MAKERS)
def test_a_row_depends_on_its_own_seed_only(kind):
    seeds = [11, 3, 3, 7, 10_000_000_019]
    env = MAKERS[kind](len(seeds))
    actions = np.random.default_rng(0).uniform(-1, 1, (40, len(seeds), env.action_dim))
    actions[:, 2] = actions[:, 1]
    together = episodes(env, seeds, actions)
    for b in range(len(seeds)):
        alone = episodes(MAKERS[kind](1), [seeds[b]], actions[:, [b]])
        for key, value in alone.items():
            np.testing.assert_array_equal(value[:, 0], together[key][:, b], err_msg=key)
    for value in together.values():
        np.testing.assert_array_equal(value[:, 1], value[:, 2])
    again = episodes(env, seeds, actions)  # a reset leaves nothing of the episodes before
    for key, value in again.items():
        np.testing.assert_array_equal(value, together[key])


@pytest.mark.parametrize("kind", MAKERS)
def test_types_and_shapes(kind):
    env = MAKERS[kind](3)
    assert env.reset([0, 1, 2]).dtype == np.float32
    observations, rewards, terminations, truncations, info = env.step(np.zeros((3, env.action_dim)))
    assert observations.shape == (3, env.observation_dim)
    assert observations.dtype == np.float32
    assert (rewards.dtype, terminations.dtype, truncations.dtype) == (np.float64, bool, bool)
    assert rewards.shape == terminations.shape == truncations.shape == (3,)
    assert all(value.shape == (3,) for value in info.values())


@pytest.mark.parametrize(
    "kind", ["lq", "tmaze", "pointmaze", "masked", "fourrooms", "stitch", "forkcommit"]
)
def test_done_episodes_are_frozen(kind):
    env = MAKERS[kind](2)
    env.reset([0, 1])
    action = np.full((2, env.action_dim), 0.1)
    for _ in range(env.horizon):
        last = env.step(action)
    assert (last[2] | last[3]).all()
    assert not (last[2] & last[3]).any()
    after = env.step(-action)
    np.testing.assert_array_equal(after[0], last[0])
    np.testing.assert_array_equal(after[1], 0)
    np.testing.assert_array_equal(after[2], last[2])
    np.testing.assert_array_equal(after[3], last[3])
    for key in last[4]:
        np.testing.assert_array_equal(after[4][key], last[4][key])


def test_one_fallen_robot_is_frozen_while_the_other_goes_on():
    env = Locomotion(2, "hopper")
    env.reset([0, 1])
    fall, stand = np.array([1.0, -1.0, 1.0]), np.zeros(3)
    for _ in range(200):
        observations, _, terminations, _, _ = env.step(np.stack([fall, stand]))
        if terminations[0] and not terminations[1]:
            break
    frozen = observations[0].copy()
    after = env.step(np.stack([fall, stand]))
    np.testing.assert_array_equal(after[0][0], frozen)
    assert after[1][0] == 0
    assert after[2][0]
    assert not np.array_equal(after[0][1], observations[1])


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: LinearQuadratic(0), "num_envs is 0"),
        (lambda: LinearQuadratic(2).reset([1]), "1 seeds for 2 episodes"),
        (lambda: LinearQuadratic(1).step(np.zeros((1, 2))), "call reset"),
        (lambda: _stepped(np.zeros((1, 3))), r"shape \(1, 3\)"),
        (lambda: _stepped(np.array([[0.0, np.nan]])), "row 0 is not finite at step 0"),
        (lambda: MaskedEnv(LinearQuadratic(1), [4]), "allowed: 0 to 3"),
        (lambda: MaskedEnv(LinearQuadratic(1), []), "at least one"),
        (lambda: PointMaze(1, "umase"), "Did you mean 'umaze'"),
        (lambda: PassiveTMaze(1, 0), "corridor length is 0"),
        (lambda: Locomotion(1, "hoper"), "Did you mean 'hopper'"),
    ],
)
def test_refusals(act, message):
    with pytest.raises(UserError, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)


def _stepped(action):
    env = LinearQuadratic(1)
    env.reset([0])
    return env.step(action)


def test_a_mask_keeps_the_coordinates_and_nothing_else():
    full, masked = LinearQuadratic(4), MaskedEnv(LinearQuadratic(4), [2, 0])
    np.testing.assert_array_equal(full.reset(range(4))[:, [2, 0]], masked.reset(range(4)))
    action = np.full((4, 2), 0.3)
    for _ in range(5):
        a, b = full.step(action), masked.step(action)
        np.testing.assert_array_equal(a[0][:, [2, 0]], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    assert (masked.observation_dim, masked.action_dim, masked.horizon) == (2, 2, full.horizon)


@pytest.mark.parametrize("kind", ["lq", "pointmaze", "hopper", "masked", "fourrooms", "stitch"])
def test_a_simulator_state_is_put_back(kind):
    env, other = MAKERS[kind](2), MAKERS[kind](2)
    env.reset([0, 1])
    other.reset([2, 3])
    for _ in range(5):
        seen = env.step(np.full((2, env.action_dim), 0.2))[0]
    again = other.set_simulator_state(env.simulator_state(), env.goals())
    np.testing.assert_allclose(again, seen, atol=1e-6)
    after = other.step(np.full((2, env.action_dim), 0.1))[0]
    assert np.isfinite(after).all()
    if kind not in ("lq", "masked"):  # these have noise
        expected = env.step(np.full((2, env.action_dim), 0.1))[0]
        np.testing.assert_allclose(after, expected, atol=1e-4)


def test_a_simulator_state_that_cannot_be_put():
    env = PassiveTMaze(1, 6)
    env.reset([0])
    with pytest.raises(UserError, match="a simulator state can't be set"):
        env.set_simulator_state(np.zeros((1, 1)))
