"""POPGym behind the vectorised interface: the package's own episodes, and what it hides."""

import importlib.util

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces.utils import flatten

from ablate.envs.popgym import CARDS, CONTROL, DIFFICULTIES, TASKS, PopGym
from ablate.errors import UserError

needs_popgym = pytest.mark.skipif(
    importlib.util.find_spec("popgym") is None,
    reason="the optional package popgym is not installed",
)


def direct(task):
    return gymnasium.make(f"popgym:popgym-{task}-v0", disable_env_checker=True)


@needs_popgym
@pytest.mark.parametrize("game", [*CARDS, *CONTROL])
def test_episodes_are_the_packages_own(game):
    task, seeds = f"{game}Medium", [3, 8]
    env, rng = PopGym(2, task), np.random.default_rng(0)
    observation = env.reset(seeds)
    theirs = [direct(task) for _ in seeds]
    assert env.horizon == theirs[0].unwrapped.max_episode_length
    for row, (one, seed) in enumerate(zip(theirs, seeds, strict=True)):
        seen, _ = one.reset(seed=seed)
        np.testing.assert_array_equal(
            observation[row], flatten(one.observation_space, seen).astype(np.float32)
        )
    over = np.zeros(2, dtype=bool)
    for _ in range(120):
        actions = rng.uniform(-1, 1, (2, env.action_dim))
        observation, rewards, terminations, truncations, _ = env.step(actions)
        for row in np.flatnonzero(~over):
            space = theirs[row].action_space
            action = (
                int(actions[row].argmax())
                if isinstance(space, gymnasium.spaces.Discrete)
                else np.float32(2.0) * actions[row].astype(np.float32)
            )
            seen, reward, terminated, truncated, _ = theirs[row].step(action)
            np.testing.assert_allclose(
                observation[row], flatten(theirs[row].observation_space, seen), atol=1e-6
            )
            assert rewards[row] == pytest.approx(reward, abs=1e-7)
            assert terminations[row] == terminated
            assert truncations[row] == (truncated and not terminated)
        over |= terminations | truncations
        if over.all():
            break


@needs_popgym
@pytest.mark.parametrize("game", [*CARDS, *CONTROL])
def test_what_is_hidden_follows_what_is_shown(game):
    env = PopGym(3, f"{game}Easy")
    shown = env.reset([0, 1, 2])
    for _ in range(12):
        full = env.full_observation()
        assert full.dtype == np.float32
        np.testing.assert_array_equal(full[:, : env.observation_dim], shown)
        hidden, state = full[:, env.observation_dim :], env.simulator_state()
        if game.endswith("CartPole"):
            np.testing.assert_allclose(hidden, state, atol=1e-6)
            if game == "PositionOnlyCartPole":
                np.testing.assert_allclose(shown, state[:, [0, 2]], atol=1e-6)
        elif game.endswith("Pendulum"):
            angle, velocity = state.T
            np.testing.assert_allclose(
                hidden.T, [np.cos(angle), np.sin(angle), velocity], atol=1e-6
            )
        else:
            assert state is None
            assert hidden.shape[1] > 4
        shown = env.step(np.zeros((3, env.action_dim)))[0]


@needs_popgym
def test_only_the_noise_tells_the_noisy_tasks_apart():
    """Anchors are measured in the easy task without noise, for all of them."""
    for game in ("CartPole", "Pendulum"):
        plain = PopGym(1, f"PositionOnly{game}Easy")
        for difficulty in DIFFICULTIES:
            noisy = PopGym(1, f"NoisyPositionOnly{game}{difficulty}")
            assert noisy.horizon == plain.horizon == 200
            plain.reset([5])
            noisy.reset([5])
            for _ in range(8):
                action = np.full((1, plain.action_dim), 0.3)
                seen, other = plain.step(action), noisy.step(action)
                np.testing.assert_array_equal(plain.simulator_state(), noisy.simulator_state())
                assert seen[1] == other[1]
                assert not np.array_equal(seen[0], other[0])


def test_unknown_tasks_and_a_missing_package(monkeypatch):
    assert len(TASKS) == 24
    with pytest.raises(UserError, match="Did you mean 'RepeatFirstEasy'"):
        PopGym(1, "RepeatFristEasy")
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "popgym" else real(name)
    )
    with pytest.raises(UserError, match=r"needs the package popgym.*pip install") as caught:
        PopGym(1, "AutoencodeHard")
    assert "\n" not in str(caught.value)
