"""Held-out prediction: the metrics mean what they say."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from agent_samples import agent
from torch import Tensor

from ablate.data.trajectories import Trajectories, action_variance
from ablate.learn.heldout import EARLY, HeldOut, held_out, held_out_metrics
from ablate.models.heads.continuous import COMPONENTS, STD_RANGE, Mixture, SquaredError

STEPS, LENGTH = 120, 12


def trajectories() -> Trajectories:
    rng = np.random.default_rng(2)
    ends = np.arange(STEPS) % LENGTH == LENGTH - 1
    wanted = rng.uniform(-0.8, 0.8, (STEPS, 2)).astype(np.float32)
    return Trajectories(
        name="sample",
        observations=rng.standard_normal((STEPS, 3)).astype(np.float32),
        actions=(wanted + rng.uniform(-0.2, 0.2, (STEPS, 2))).astype(np.float32),
        rewards=np.zeros(STEPS, dtype=np.float32),
        terminations=ends,
        truncations=np.zeros_like(ends),
        episode_starts=np.arange(STEPS // LENGTH + 1) * LENGTH,
        behaviour_action=wanted,
    ).validate()


def sample(data: Trajectories, targets: int = STEPS, study: str = "s", **options: Any) -> HeldOut:
    some = agent("mlp", 1, [0], (3, 2), **options)
    return held_out(data, some, some.layout, study, targets)


class Answering:
    """Stands for an agent of S policies that answers rows (S, B) with `answer(rows)`."""

    context = 1

    def __init__(self, answer: Callable[[Tensor], Tensor], size: int = 1, head: Any = None) -> None:
        self.answer, self.size = answer, size
        self.head = head or SquaredError(4, 2)
        self.stack = self
        self.rows: list[Tensor] = []

    def eval(self) -> None:
        """As a stack's."""

    def windows(self, table: Tensor, timestep: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """As an agent's; the windows are the rows themselves."""
        self.rows.append(targets)
        return targets, timestep[targets]

    def __call__(self, rows: Tensor, lengths: Tensor) -> Tensor:
        return self.answer(rows)


def metrics(who: Any, data: HeldOut, limit: int | None = None) -> dict[str, Tensor]:
    return held_out_metrics(who, data, limit)


def test_the_error_is_0_for_the_controllers_action_and_1_for_the_mean_action() -> None:
    data = trajectories()
    wanted = torch.from_numpy(data.behaviour_action)
    mean = wanted.mean(0)

    def answer(rows: Tensor) -> Tensor:
        return torch.stack([wanted[rows[0]], mean.expand(rows.shape[1], 2)])

    found = metrics(Answering(answer, 2), sample(data))
    torch.testing.assert_close(found["action_error"], torch.tensor([0.0, 1.0]))
    early = data.behaviour_action[data.timestep < EARLY]
    expected = ((early - mean.numpy()) ** 2).mean() / action_variance(data)
    torch.testing.assert_close(
        found["action_error_early"], torch.tensor([0.0, expected], dtype=torch.float32)
    )
    noise = ((data.actions - data.behaviour_action) ** 2).mean()
    assert float(found["heldout_loss"][0]) == pytest.approx(noise, rel=1e-5)  # of the logged action
    assert found["action_nll"].isnan().all()
    assert all(value.shape == (2,) for value in found.values())


def test_without_a_noise_free_action_the_logged_one_is_wanted() -> None:
    data = dataclasses.replace(trajectories(), behaviour_action=None)
    logged = torch.from_numpy(data.actions)
    assert float(metrics(Answering(lambda rows: logged[rows]), sample(data))["action_error"]) == 0.0


def test_the_log_likelihood_is_that_of_a_known_gaussian() -> None:
    data, std = trajectories(), 0.3
    low, high = map(math.log, STD_RANGE)
    squashed = torch.tensor((math.log(std) - low) / (high - low)).logit()
    logits = torch.tensor([50.0] + [-50.0] * (COMPONENTS - 1))
    wanted = torch.from_numpy(data.behaviour_action)

    def answer(rows: Tensor) -> Tensor:
        means = wanted[rows].repeat(1, 1, COMPONENTS)
        scales = squashed.expand(*rows.shape, 2 * COMPONENTS)
        return torch.cat([logits.expand(*rows.shape, COMPONENTS), means, scales], dim=-1)

    found = metrics(Answering(answer, head=Mixture(4, 2)), sample(data))
    density = torch.distributions.Normal(wanted, std).log_prob(torch.from_numpy(data.actions))
    expected = float(-density.sum(1).mean())
    assert float(found["action_nll"]) == pytest.approx(expected, rel=1e-5)
    assert float(found["heldout_loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(found["action_error"]) == pytest.approx(0.0, abs=1e-9)


def test_every_cell_is_asked_about_the_same_targets() -> None:
    data = trajectories()
    here = sample(data, 50)
    assert len(here.targets) == len(here.targets.unique()) == 50
    for other in (
        sample(data, 50, condition="return-to-go+time"),
        sample(data, 50, history="states", head="mse"),
    ):
        assert torch.equal(here.targets, other.targets)
    assert not torch.equal(here.targets, sample(data, 50, study="other").targets)
    assert torch.equal(here.early, torch.from_numpy(data.timestep)[here.targets] < EARLY)
    assert len(sample(data, 10_000).targets) == STEPS


def test_a_short_sample_is_spread_over_the_targets() -> None:
    who = Answering(lambda rows: torch.zeros(*rows.shape, 2))
    data = sample(trajectories())
    metrics(who, data, limit=30)
    assert torch.equal(who.rows[0][0], data.targets[::4])


def test_no_early_target_no_early_error() -> None:
    data = sample(trajectories())
    late = dataclasses.replace(data, early=torch.zeros_like(data.early))
    found = metrics(Answering(lambda rows: torch.zeros(*rows.shape, 2)), late)
    assert found["action_error_early"].isnan().all()
    assert found["action_error"].isfinite().all()


@pytest.mark.parametrize("mixer", ["gru", "attention"])
def test_policies_together_predict_as_they_do_alone(mixer: str) -> None:
    seeds = [0, 1, 4]
    data = trajectories()
    together = agent(mixer, 3, seeds, (3, 2))
    found = metrics(together, held_out(data, together, together.layout, "s", 70))
    for place, seed in enumerate(seeds):
        alone = agent(mixer, 3, [seed], (3, 2))
        own = metrics(alone, held_out(data, alone, alone.layout, "s", 70))
        for name, value in own.items():
            torch.testing.assert_close(found[name][place], value[0], rtol=1e-8, atol=0)
