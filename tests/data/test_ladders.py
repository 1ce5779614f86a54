"""Ladders of behaviour policies: what is shipped, and that it is what was trained."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from scipy import stats

from ablate.data import ladders
from ablate.data.behaviour import UniformBehaviour
from ablate.data.ladders import LadderBehaviour
from ablate.data.ladders.choose import choose, measure, nearest, score
from ablate.errors import UserError


@pytest.mark.parametrize("task", ladders.tasks())
def test_a_ladder_has_about_twenty_policies_with_their_recipe_and_scores(task: str) -> None:
    ladder = ladders.load(task)
    about = ladder.about
    assert 15 <= ladder.size <= 21
    assert about["steps"][0] == 0
    assert about["steps"] == sorted(about["steps"])
    assert {len(about[key]) for key in ("steps", "returns", "return_std", "scores")} == {
        ladder.size
    }
    assert about["recipe"]["algorithm"] == "PPO"
    expected = [score(task, value) for value in about["returns"]]
    np.testing.assert_allclose(ladder.scores, expected, atol=0.01)
    assert ladders.path(task).stat().st_size < 700_000


@pytest.mark.parametrize("task", ladders.tasks())
def test_medium_is_medium_and_expert_is_good(task: str) -> None:
    ladder = ladders.load(task)
    assert 30 <= ladder.scores[ladder.medium] <= 50
    if task in ("hopper", "walker2d"):
        assert ladder.scores[ladder.expert] >= 90
    assert ladder.medium < ladder.expert


def test_a_stored_score_is_what_the_policy_gets() -> None:
    ladder = ladders.load("hopper")
    again = measure(ladder, ladder.medium, 12, "test")
    spread = ladder.about["return_std"][ladder.medium]
    standard_error = spread * np.sqrt(1 / 12 + 1 / ladder.about["episodes"])
    assert abs(again.mean() - ladder.about["returns"][ladder.medium]) < 4 * max(standard_error, 1)


def test_the_file_is_plain_tensors_and_json() -> None:
    with safe_open(ladders.path("hopper"), "numpy") as file:
        assert json.loads(file.metadata()["about"])["noise"] == ladders.NOISE


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(UserError, match="hopper"):
        ladders.load("hoper")


def test_logged_likelihoods_are_those_of_a_clipped_gaussian() -> None:
    ladder = ladders.load("hopper")
    place = ladder.medium
    behaviour = LadderBehaviour(ladder, [place], lambda rows, rng: np.zeros(rows, dtype=int))
    observation = np.random.default_rng(0).standard_normal((500, 11)).astype(np.float32)
    behaviour.start(observation, np.random.default_rng(1))
    acted = behaviour.act(observation)
    mean, std = ladder.mean(place, observation).astype(np.float64), ladder.std(place)
    actions = acted.actions.astype(np.float64)
    inside = stats.norm.logpdf(actions, mean, std)
    expected = np.where(
        actions <= -1,
        stats.norm.logcdf(-1, mean, std),
        np.where(actions >= 1, stats.norm.logsf(1, mean, std), inside),
    ).sum(axis=1)
    np.testing.assert_allclose(acted.logp, expected, rtol=1e-9)
    assert (np.abs(actions) == 1).any()
    assert (np.abs(actions) < 1).any()


def test_policies_take_turns_by_step_or_by_episode() -> None:
    ladder = ladders.load("hopper")
    observation = np.zeros((400, 11), dtype=np.float32)

    def draw(rows: int, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(2, size=rows)

    for each_step in (False, True):
        behaviour = LadderBehaviour(ladder, [0, ladder.expert], draw, each_step)
        behaviour.start(observation, np.random.default_rng(0))
        first, second = behaviour.act(observation), behaviour.act(observation)
        assert (first.ids == second.ids).all() != each_step
        expert = first.ids == 1
        mean = np.clip(ladder.mean(ladder.expert, observation), -1, 1)
        np.testing.assert_allclose(first.mean[expert], mean[expert], rtol=1e-6)


def test_uniform_actions_have_the_density_of_the_cube() -> None:
    behaviour = UniformBehaviour(3)
    behaviour.start(np.zeros((1000, 5)), np.random.default_rng(0))
    acted = behaviour.act(np.zeros((1000, 5)))
    assert stats.kstest(acted.actions.ravel(), stats.uniform(-1, 2).cdf).pvalue > 1e-3
    np.testing.assert_allclose(acted.logp, 3 * np.log(0.5))


def test_shipped_are_the_untrained_the_medium_and_the_best() -> None:
    first = np.concatenate([np.linspace(0, 60, 11), np.linspace(60, 95, 30)])
    first[35] = 99
    kept = choose(first)
    assert nearest(first, 35) == 7
    assert kept[0] == 0
    assert {7, 35} <= set(kept)
    assert len(kept) <= 20
    assert kept == sorted(set(kept))


def test_scores_are_d4rls() -> None:
    assert score("hopper", 3000.0) == pytest.approx(92.8009, abs=1e-4)


def test_packed_weights_act_as_stable_baselines_does() -> None:
    sb3 = pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    from ablate.data.ladders.train import actor_weights

    normaliser = VecNormalize(make_vec_env("Pendulum-v1", n_envs=2, seed=0))
    model = sb3.PPO("MlpPolicy", normaliser, n_steps=64, batch_size=32, seed=0, device="cpu")
    model.learn(256)
    weights = actor_weights(model.policy.state_dict(), normaliser)
    ladder = ladders.Ladder("hopper", {name: w[None] for name, w in weights.items()}, {})
    raw = np.random.default_rng(0).uniform(-3, 3, (50, 3)).astype(np.float32)
    normal = normaliser.normalize_obs(raw)
    tensor = model.policy.obs_to_tensor(normal)[0]
    expected = model.policy.get_distribution(tensor).distribution
    np.testing.assert_allclose(
        ladder.mean(0, raw), expected.mean.detach().numpy(), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        ladder.std(0), ladders.NOISE * expected.stddev.detach().numpy()[0], rtol=1e-6
    )
