"""Locomotion against gymnasium itself, and Ant as D4RL's files show it."""

import gymnasium
import numpy as np
import pytest
import torch

from ablate.envs.locomotion import ENVIRONMENTS, D4RLAnt, Locomotion


@pytest.mark.filterwarnings("ignore:.*out of date.*")
@pytest.mark.parametrize("task", [*ENVIRONMENTS, "D4RL's ant"])
def test_steps_are_those_of_gymnasium(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # gymnasium's own lets MuJoCo log there
    extra = 84 if task == "D4RL's ant" else 0
    env = D4RLAnt(2) if extra else Locomotion(2, task)
    assert not list(tmp_path.iterdir())
    plain = gymnasium.make(ENVIRONMENTS["ant" if extra else task])
    seen = env.reset([1, 9])
    expected, _ = plain.reset(seed=9)
    rng = np.random.default_rng(0)
    for _ in range(60):
        np.testing.assert_array_equal(seen[1, : len(expected)], expected.astype(np.float32))
        assert seen.shape == (2, len(expected) + extra)
        assert not seen[:, len(expected) :].any()
        np.testing.assert_array_equal(env.full_observation(), seen)
        inner = plain.unwrapped.data
        state = np.concatenate([inner.qpos, inner.qvel])
        np.testing.assert_array_equal(env.simulator_state()[1], state)
        action = rng.uniform(-1, 1, (2, env.action_dim)).astype(np.float32)
        seen, rewards, terminated, _, _ = env.step(action)
        expected, reward, fell, _, _ = plain.step(action[1].astype(np.float64))
        assert rewards[1] == reward
        assert terminated[1] == fell
        if fell:
            break
    assert env.horizon == 1000


@pytest.mark.parametrize("spread", [0.0, 0.4])
def test_threads_share_the_episodes_and_change_nothing(spread):
    rng = np.random.default_rng(1)
    actions = rng.uniform(-1, 1, (40, 12, 3))

    def episodes():
        env = Locomotion(12, "hopper", spread)
        seen = [env.reset(range(12))]
        for action in actions:
            observed, rewards, terminated, *_ = env.step(action)
            seen += [observed, rewards, terminated, env.simulator_state()]
        return seen

    alone, before = episodes(), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        shared = episodes()
    finally:
        torch.set_num_threads(before)
    for ours, theirs in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(ours, theirs)
