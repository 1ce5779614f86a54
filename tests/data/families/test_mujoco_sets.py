"""Locomotion sets collected from the ladders."""

from functools import cache

import gymnasium
import mujoco as engine
import numpy as np
import pytest

from ablate.data import catalogue, ladders
from ablate.data.families import mujoco
from ablate.data.families.mujoco import KINDS, mixture
from ablate.data.trajectories import Trajectories
from ablate.envs.locomotion import Locomotion
from ablate.errors import UserError


@cache
def hopper(kind: str) -> Trajectories:
    """8,000 timesteps of a kind, collected once for all tests."""
    return mujoco.make("test", "train", "hopper", mixture("hopper", kind), 8000)


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_of_every_kind_is_valid_and_complete(kind: str) -> None:
    mix = mixture("hopper", kind)
    made = hopper(kind).validate()
    # Of each policy its share, or one episode.
    assert 5000 < len(made.rewards) <= 8000 + 1000 * mix.count * ("replay" in kind)
    assert made.behaviour_logp is not None
    assert made.final_observations is not None
    assert set(np.unique(made.behaviour_id)) <= set(range(mix.count))
    assert made.simulator_state.shape[1] == 12
    # Hopper shows qpos without the root's x, then qvel clipped to 10.
    np.testing.assert_allclose(made.observations[:, :5], made.simulator_state[:, 1:6], rtol=1e-6)
    velocity = np.clip(made.simulator_state[:, 6:], -10, 10)
    np.testing.assert_allclose(made.observations[:, 5:], velocity, rtol=1e-6)


def test_the_logged_state_and_action_give_the_next_state() -> None:
    made = hopper("medium")
    env = gymnasium.make("Hopper-v4").unwrapped
    env.reset(seed=0)
    differences = []
    for row in range(0, 300, 10):
        if made.truncations[row] or made.terminations[row]:
            continue
        state = made.simulator_state[row].astype(np.float64)
        engine.mj_resetData(env.model, env.data)
        env.set_state(state[:6], state[6:])
        seen, reward, *_ = env.step(made.actions[row].astype(np.float64))
        differences.append(np.abs(seen - made.observations[row + 1]).max())
        assert reward == pytest.approx(made.rewards[row], abs=2e-2)
    # Logged in float32 and without the solver's memory: near, not equal.
    assert np.median(differences) < 1e-3


def test_who_acts_is_fixed_within_episodes_or_drawn_at_each_step() -> None:
    episode, step = hopper("medium-expert"), hopper("step-mixture")
    for made, constant in ((episode, True), (step, False)):
        first = np.repeat(made.behaviour_id[made.episode_starts[:-1]], made.lengths)
        assert (made.behaviour_id == first).all() == constant
    assert 0.35 < episode.behaviour_id.mean() < 0.65
    assert 0.45 < step.behaviour_id.mean() < 0.55
    inside = np.flatnonzero(~(step.terminations | step.truncations))
    again = step.behaviour_id[inside] == step.behaviour_id[inside + 1]
    assert abs(again.mean() - 0.5) < 0.03


def test_replay_holds_the_snapshots_in_order() -> None:
    mix = mixture("hopper", "medium-replay")
    made = hopper("medium-replay")
    assert (np.diff(made.behaviour_id) >= 0).all()
    assert mix.snapshots == list(range(ladders.load("hopper").medium + 1))
    assert set(np.unique(made.behaviour_id)) == set(range(mix.count))


def test_expert_scores_above_medium_above_random() -> None:
    scores = [hopper(kind).returns.mean() for kind in ("random", "medium", "expert")]
    assert scores[0] < 100 < scores[1] < scores[2]


def test_the_name_says_task_kind_and_size() -> None:
    spec = catalogue.spec("mujoco/hopper/medium-100k-v0")
    assert spec.recipe["steps"] == 100_000
    assert catalogue.spec("mujoco/hopper/medium-v0").recipe["steps"] == 1_000_000
    assert spec.best_policy == 0
    assert spec.anchors().score(3234.3) == pytest.approx(100.0)
    assert catalogue.spec("mujoco/hopper/medium-expert-v0").best_policy == 1
    for wrong in ("mujoco/hopper/medium", "mujoco/hoper/medium-v0", "mujoco/hopper/medum-v0"):
        with pytest.raises(UserError, match="mujoco/hopper/med"):
            catalogue.spec(wrong)


def test_a_hidden_mass_changes_what_happens_and_only_from_the_seed() -> None:
    env, plain = Locomotion(3, "hopper", 0.5), Locomotion(3, "hopper")
    env.reset([5, 6, 5])
    plain.reset([5, 6, 5])
    action = np.full((3, 3), 0.5)
    for _ in range(3):
        seen, unchanged = env.step(action)[0], plain.step(action)[0]
    np.testing.assert_array_equal(seen[0], seen[2])
    assert np.abs(seen - unchanged).max() > 1e-3
    np.testing.assert_array_equal(unchanged, _again(plain, [5, 6, 5], action))
    with pytest.raises(UserError, match="mass_spread is 1"):
        Locomotion(1, "hopper", 1.0)


def _again(env: Locomotion, seeds: list[int], action: np.ndarray) -> np.ndarray:
    env.reset(seeds)
    for _ in range(3):
        seen = env.step(action)[0]
    return seen
