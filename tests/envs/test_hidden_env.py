"""The wrappers that hide: each row is a function of its seed and actions, and what is hidden is as declared."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.envs.base import MaskedEnv, VectorEnv
from ablate.envs.hidden import DelayedEnv, DroppedEnv, NoisyEnv
from ablate.envs.lq import LinearQuadratic
from ablate.envs.tmaze import PassiveTMaze
from ablate.errors import UserError

STD = np.array([0.1, 0.2, 0.0, 0.4])
MAKERS = {
    "noise": lambda n: NoisyEnv(LinearQuadratic(n), STD),
    "drop": lambda n: DroppedEnv(LinearQuadratic(n), 0.4),
    "delay": lambda n: DelayedEnv(LinearQuadratic(n), 3),
    "all": lambda n: MaskedEnv(
        DroppedEnv(NoisyEnv(DelayedEnv(LinearQuadratic(n), 1), STD), 0.3), [3, 0]
    ),
}


def rollout(env: VectorEnv, seeds: list[int], actions: np.ndarray) -> np.ndarray:
    """Observations (T + 1, B, N) under actions (T, B, M)."""
    return np.stack([env.reset(seeds), *(env.step(a)[0] for a in actions)])


def draws(rows: int, steps: int = 90) -> np.ndarray:
    """More timesteps than are drawn at once."""
    return np.random.default_rng(0).uniform(-1, 1, (steps, rows, 2))


@pytest.mark.parametrize("kind", MAKERS)
def test_a_row_depends_on_its_own_seed_and_actions_only(kind: str) -> None:
    seeds, actions = [11, 3, 3, 7, 10_000_000_019], draws(5)
    actions[:, 2] = actions[:, 1]
    env = MAKERS[kind](5)
    together = rollout(env, seeds, actions)
    for b, seed in enumerate(seeds):
        alone = rollout(MAKERS[kind](1), [seed], actions[:, [b]])
        np.testing.assert_array_equal(alone[:, 0], together[:, b])
    np.testing.assert_array_equal(together[:, 1], together[:, 2])
    np.testing.assert_array_equal(rollout(env, seeds, actions), together)  # nothing left over
    assert together.dtype == np.float32


@pytest.mark.parametrize("kind", ["noise", "drop"])
def test_rewards_and_what_really_happens_stay_as_they_are(kind: str) -> None:
    env, plain, actions = MAKERS[kind](6), LinearQuadratic(6), draws(6, 30)
    env.reset(range(6))
    plain.reset(range(6))
    for action in actions:
        shown, bare = env.step(action), plain.step(action)
        np.testing.assert_array_equal(shown[1], bare[1])
        np.testing.assert_array_equal(env.full_observation(), bare[0])
        assert not np.array_equal(shown[0], bare[0])


def test_noise_is_white_and_as_large_as_asked() -> None:
    rows, actions = 400, draws(400, 80)
    truth = rollout(LinearQuadratic(rows), list(range(rows)), actions)
    error = rollout(MAKERS["noise"](rows), list(range(rows)), actions) - truth
    np.testing.assert_allclose(error.std(axis=(0, 1)), STD, rtol=0.02)
    np.testing.assert_array_equal(error[..., 2], 0)
    white = error[..., [0, 1, 3]] / STD[[0, 1, 3]]
    assert abs((white[1:] * white[:-1]).mean()) < 0.02  # from step to step
    assert abs((white[:, 1:] * white[:, :-1]).mean()) < 0.02  # from row to row
    assert abs((white[..., 0] * white[..., 1]).mean()) < 0.02  # from coordinate to coordinate
    twice = rollout(NoisyEnv(LinearQuadratic(rows), 2 * STD), list(range(rows)), actions) - truth
    np.testing.assert_allclose(twice, 2 * error, atol=2e-6)


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 0.95), st.floats(0, 0.95), st.integers(0, 2**40))
def test_dropped_frames_repeat_what_was_shown_and_are_nested(
    one: float, other: float, seed: int
) -> None:
    seeds, actions = [seed, seed + 1, seed + 2], draws(3)
    truth = rollout(LinearQuadratic(3), seeds, actions)
    dropped = []
    for probability in sorted((one, other)):
        shown = rollout(DroppedEnv(LinearQuadratic(3), probability), seeds, actions)
        np.testing.assert_array_equal(shown[0], truth[0])
        fresh = (shown == truth).all(axis=2)
        repeated = (shown[1:] == shown[:-1]).all(axis=2)
        assert (fresh[1:] | repeated).all()
        dropped.append(~fresh)
        assert abs(dropped[-1][1:].mean() - probability) < 0.15
    assert (dropped[0] <= dropped[1]).all()


@pytest.mark.parametrize("delay", [0, 1, 4])
def test_a_delayed_action_is_the_same_one_later(delay: int) -> None:
    actions = draws(3, 40)
    shifted = np.concatenate([np.zeros((delay, 3, 2)), actions])[:40]
    late = rollout(DelayedEnv(LinearQuadratic(3), delay), [1, 2, 3], actions)
    np.testing.assert_array_equal(late, rollout(LinearQuadratic(3), [1, 2, 3], shifted))


@pytest.mark.parametrize("kind", MAKERS)
def test_done_episodes_are_frozen(kind: str) -> None:
    env = MAKERS[kind](2)
    env.reset([0, 1])
    for action in draws(2, env.horizon):
        last = env.step(action)
    assert (last[2] | last[3]).all()
    after = env.step(np.full((2, 2), 0.3))
    np.testing.assert_array_equal(after[0], last[0])
    np.testing.assert_array_equal(after[1], 0)


def test_zeros_before_the_first_delayed_action_are_the_first_of_several_choices() -> None:
    env = DelayedEnv(PassiveTMaze(1, 3), 2)
    env.reset([0])
    left = np.array([[-1.0, -1.0, 1.0, -1.0]])
    rewards = [env.step(left)[1][0] for _ in range(3)]
    assert rewards == [0, 0, -1 / 3]  # right, right, then left


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: NoisyEnv(LinearQuadratic(1), np.ones(3)), "each of the 4 coordinates"),
        (lambda: NoisyEnv(LinearQuadratic(1), -STD), "number >= 0"),
        (lambda: NoisyEnv(LinearQuadratic(1), STD * np.nan), "finite number"),
        (lambda: DroppedEnv(LinearQuadratic(1), 1.0), "probability is 1.0"),
        (lambda: DroppedEnv(LinearQuadratic(1), float("nan")), "probability is nan"),
        (lambda: DelayedEnv(LinearQuadratic(1), -1), "delay is -1"),
        (lambda: DelayedEnv(LinearQuadratic(1), 1).step(np.zeros((1, 2))), "call reset"),
        (lambda: _stepped(np.zeros(2)), r"shape \(2,\)"),
        (lambda: _stepped(np.array([[0.0, np.inf]])), "row 0 is not finite at step 0"),
    ],
)
def test_refusals(act, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)


def _stepped(action: np.ndarray) -> None:
    env = DelayedEnv(LinearQuadratic(1), 5)
    env.reset([0])
    env.step(action)
