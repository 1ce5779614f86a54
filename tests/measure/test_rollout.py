"""Rollouts: the same episodes for everybody, all at once, with the books kept right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from agent_samples import MIXERS, Acting, Scripted, agent

from ablate.data.exact import expected_return, optimal_gain
from ablate.envs.base import VectorEnv
from ablate.envs.device import on_device
from ablate.envs.lq import ACTION_SCALE, LinearQuadratic
from ablate.envs.tmaze import PassiveTMaze
from ablate.measure.rollout import (
    Asked,
    Rollouts,
    drawn_ahead,
    evaluation_seeds,
    rollout,
    steps_on_device,
)
from ablate.models.agent import Agent
from ablate.models.stack import Stack

DIMS = {"tmaze": (2, 4), "lq": (4, 2)}


def environment(name: str, num_envs: int) -> VectorEnv:
    if name == "tmaze":
        return PassiveTMaze(num_envs, 3)
    env = LinearQuadratic(num_envs)
    env.horizon = 8
    return env


def run(who: Any, env: VectorEnv, episodes: int, **changes: Any) -> Rollouts:
    options: dict[str, Any] = {
        "study": "s", "seeds": [0], "target": 1.0, "policy": None, "sample": False,
    }  # fmt: skip
    return rollout(who, env, episodes, **options | changes)


def still(size: int = 1, episodes: int = 4, **options: Any) -> Acting:
    return Acting(lambda t, raw: torch.zeros(size, episodes, 1), size, **options)


def test_evaluation_seeds_are_consecutive_begin_at_an_even_one_and_belong_to_the_seed() -> None:
    seeds = evaluation_seeds("s", 3, 6)
    assert seeds == list(range(seeds[0], seeds[0] + 6))
    assert seeds[0] % 2 == 0
    assert evaluation_seeds("s", 3, 4) == seeds[:4]
    assert evaluation_seeds("other", 3, 6) != seeds
    every = {each for seed in range(200) for each in evaluation_seeds("s", seed, 100)}
    assert len(every) == 200 * 100


@pytest.mark.parametrize(
    ("mixer", "context", "condition"),
    [("gru", 3, "none"), ("mlp", 1, "return-to-go+time"), ("attention", 3, "policy-id")],
)
def test_every_cell_meets_the_episodes_of_its_seeds(
    mixer: str, context: int, condition: str
) -> None:
    env = Scripted(8)
    cell = agent(mixer, context, [3, 5], (1, 1), condition=condition)
    found = run(cell, env, 4, seeds=[3, 5], policy=0, sample=True)
    assert env.seeds == [*evaluation_seeds("s", 3, 4), *evaluation_seeds("s", 5, 4)]
    assert found.env_seeds.tolist() == [env.seeds[:4], env.seeds[4:]]


@pytest.mark.parametrize("name", ["tmaze", "lq"])
@pytest.mark.parametrize("context", [1, 3])
@pytest.mark.parametrize("mixer", MIXERS)
def test_policies_together_act_as_they_do_alone(mixer: str, context: int, name: str) -> None:
    seeds, episodes = [0, 1, 4], 6
    options: dict[str, Any] = {"condition": "return-to-go+time"}
    together = run(
        agent(mixer, context, seeds, DIMS[name], **options),
        environment(name, len(seeds) * episodes), episodes, seeds=seeds, sample=True,
    )  # fmt: skip
    for place, seed in enumerate(seeds):
        alone = run(
            agent(mixer, context, [seed], DIMS[name], **options),
            environment(name, episodes), episodes, seeds=[seed], sample=True,
        )  # fmt: skip
        np.testing.assert_allclose(alone.returns[0], together.returns[place], rtol=1e-6)
        np.testing.assert_allclose(alone.jerk[0], together.jerk[place], rtol=1e-5)
        np.testing.assert_array_equal(alone.lengths[0], together.lengths[place])
        np.testing.assert_array_equal(alone.success[0], together.success[place])
    assert np.ptp(together.returns) > 0


def test_the_environment_is_called_once_a_timestep_until_every_episode_has_ended() -> None:
    env = Scripted(12)
    run(still(3), env, 4, seeds=[0, 1, 2])
    assert env.calls == 4  # the longest episode; the horizon is 9


def test_an_episode_that_has_ended_counts_no_more() -> None:
    env = Scripted(4)
    found = run(still(), env, 4)
    seeds = np.array(env.seeds)
    length = 1 + seeds % 4
    np.testing.assert_array_equal(found.lengths[0], length)
    expected = length * (length + 1) / 2 + length * seeds / 1000
    np.testing.assert_allclose(found.returns[0], expected)
    np.testing.assert_array_equal(found.success[0], seeds % 2 == 1)


def test_success_is_unknown_where_the_task_has_none() -> None:
    found = run(Acting(lambda t, raw: torch.zeros(1, 3, 2)), environment("lq", 3), 3)
    assert np.isnan(found.success).all()


def test_what_is_shown_is_what_happened() -> None:
    """The return asked for falls by each reward; previous action, reward and time are the last ones."""
    who = Acting(
        lambda t, raw: torch.full((1, 4, 1), 0.1 * (t + 1)),
        condition="return-to-go+policy-id+time", policies=3,
    )  # fmt: skip
    env = Scripted(4)
    run(who, env, 4, target=10.0, policy=1)
    seeds = np.array(env.seeds)
    rewards = np.array([np.where(t <= seeds % 4, 1 + t + seeds / 1000, 0) for t in range(4)])
    for t, raw in enumerate(who.shown):
        received = rewards[:t].sum(0)
        np.testing.assert_allclose(raw.told["return-to-go"][0, :, 0], 10.0 - received, rtol=1e-6)
        np.testing.assert_allclose(raw.reward[0], rewards[t - 1] if t else 0, rtol=1e-6)
        np.testing.assert_allclose(raw.action[0, :, 0], 0.1 * t, rtol=1e-6)
        assert (raw.observation == t).all()
        assert (raw.time == t).all()
        assert (raw.told["time"] == t).all()
        assert raw.told["policy-id"][0, 0].tolist() == [0, 1, 0]


def test_jerk_is_the_mean_squared_change_over_live_timesteps() -> None:
    who = Acting(
        lambda t, raw: torch.tensor([0.0, 0.5])[:, None, None].expand(2, 4, 1) * (-1) ** t, 2
    )
    np.testing.assert_allclose(run(who, Scripted(8), 4, seeds=[0, 1]).jerk, [0.0, 1.0])
    # each change weighs by the episodes that are still alive: 3 change by 1, 2 by 2, 1 by 3
    who = Acting(lambda t, raw: torch.full((1, 4, 1), t * (t + 1) / 2))
    assert run(who, Scripted(4), 4).jerk[0] == pytest.approx((3 * 1 + 2 * 4 + 1 * 9) / 6)


def test_the_noise_of_sampled_actions_depends_on_the_seed_only() -> None:
    several, one = still(3, noise_dim=2), still(1, noise_dim=2)
    run(several, Scripted(12), 4, seeds=[8, 3, 5], sample=True)
    run(one, Scripted(4), 4, seeds=[3], sample=True, target=7.0)
    assert len(several.noise) == len(one.noise) == 4
    for all_, mine in zip(several.noise, one.noise, strict=True):
        assert mine.shape == (1, 4, 2)
        assert torch.equal(all_[1], mine[0])
        assert not torch.equal(all_[0], mine[0])
    mode = still(1, noise_dim=2)
    run(mode, Scripted(4), 4, sample=False)
    assert mode.noise == []


def test_a_policy_that_answers_nan_does_not_disturb_the_others() -> None:
    def act(t: int, raw: Any) -> torch.Tensor:
        return torch.stack([torch.full((4, 2), float("nan")), -0.2 * raw.observation[1, :, :2]])

    def alone(t: int, raw: Any) -> torch.Tensor:
        return -0.2 * raw.observation[..., :2]

    both = run(Acting(act, 2), environment("lq", 8), 4, seeds=[0, 1])
    np.testing.assert_array_equal(
        both.returns[1], run(Acting(alone), environment("lq", 4), 4, seeds=[1]).returns[0]
    )
    assert np.isfinite(both.returns).all()


def test_the_optimal_controller_gets_the_expected_return() -> None:
    """Within four standard errors of what the propagated covariances say."""
    gain = torch.from_numpy(optimal_gain()).float()
    who = Acting(lambda t, raw: -(raw.observation @ gain.T) / ACTION_SCALE)
    returns = run(who, LinearQuadratic(400), 400).returns[0]
    error = returns.std(ddof=1) / np.sqrt(len(returns))
    assert abs(returns.mean() - expected_return(optimal_gain(), 0.0)) < 4 * error


@pytest.mark.parametrize("name", DIMS)
@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("mixer", ["attention", "gru"])
def test_a_rollout_in_tensors_is_the_same_rollout(name: str, sample: bool, mixer: str) -> None:
    layout = "modality" if mixer == "attention" else "step"
    who = agent(
        mixer, 3, [3, 5], DIMS[name], condition="return-to-go+time",
        history="states+actions+returns", layout=layout,
    )  # fmt: skip
    expected = run(who, environment(name, 8), 4, seeds=[3, 5], sample=sample)
    env = environment(name, 8)
    twin = on_device(env, "cpu")
    assert twin is not None
    noise = drawn_ahead(who, "s", [3, 5], (4, env.horizon)) if sample else None
    found = steps_on_device(who, twin, expected.env_seeds, Asked(1.0), noise)
    np.testing.assert_array_equal(found[0].numpy(), expected.returns)
    np.testing.assert_array_equal(found[1].numpy(), expected.success)
    np.testing.assert_array_equal(found[2].numpy(), expected.lengths)
    np.testing.assert_allclose(found[3].numpy(), expected.jerk, rtol=1e-6)


@pytest.mark.parametrize("name", DIMS)
@pytest.mark.parametrize("mixer", ["attention", "gru"])
def test_a_rollout_on_a_device_copies_nothing_to_the_host(name: str, mixer: str) -> None:
    """On the device `meta`, where there is no number that could be copied."""
    layout = "modality" if mixer == "attention" else "step"
    on_cpu = agent(
        mixer, 3, [3], DIMS[name], condition="return-to-go+time", history="states+actions+returns",
        layout=layout,
    )  # fmt: skip
    model = on_cpu.stack.model.to("meta")
    who = Agent(Stack([model]), on_cpu.layout, on_cpu.scales.to("meta"), 3)
    twin = on_device(environment(name, 4), "meta")
    assert twin is not None
    noise = drawn_ahead(who, "s", [3], (4, twin.horizon))
    books = steps_on_device(who.eval(), twin, np.arange(4)[None], Asked(1.0), noise)
    assert [each.device.type for each in books] == ["meta"] * 4
