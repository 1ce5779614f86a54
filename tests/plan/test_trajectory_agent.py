"""Acting with trajectory models: reproducible, batched, carried within windows, goals shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from plan_samples import DATA, D, M, N, make_model

from ablate.models.layouts import Fields, Layout
from ablate.plan.agent import TrajectoryAgent
from ablate.plan.imagine import Imagination
from ablate.plan.options import PlanOptions, window_cap
from ablate.plan.search import search

LAYOUT = Layout(N, M, 0, "states+actions", "none")
SMALL: dict[str, Any] = {"horizon": 3, "beam": 4, "max_context_transitions": 3}


def fields(step: int, episodes: int = 2, size: int = 1) -> Fields:
    rng = np.random.default_rng(step)
    rows = torch.from_numpy(DATA[rng.integers(len(DATA), size=(size, episodes))])
    shape = (size, episodes)
    return Fields(
        observation=rows[..., :N],
        action=rows[..., N : N + M].clamp(-1, 1),
        reward=rows[..., D - 2],
        time=torch.full(shape, float(step)),
    )


def noise(step: int, episodes: int = 2) -> torch.Tensor:
    return torch.rand(1, episodes, 1, generator=torch.Generator().manual_seed(step))


@pytest.mark.parametrize("objective", ["return", "direct"])
@pytest.mark.parametrize("head", ["categorical", "mixture"])
def test_episodes_act_alone_as_they_act_together(objective: Any, head: str) -> None:
    options = PlanOptions(**SMALL, objective=objective)
    agent = TrajectoryAgent([make_model(head=head)], LAYOUT, options)
    together, alone = agent.start(2), agent.start(1)
    for step in range(6):
        both = together.act(fields(step), noise(step))
        assert both.shape == (1, 2, M)
        assert (both.abs() <= 1).all()
        second = fields(step).map(lambda values: values[:, 1:])
        torch.testing.assert_close(alone.act(second, noise(step)[:, 1:]), both[:, 1:])


@pytest.mark.parametrize("layout", ["dimension", "modality", "step"])
@pytest.mark.parametrize("given", ["discretised", "continuous"])
def test_what_is_carried_equals_the_window_encoded_anew(layout: str, given: str) -> None:
    model = make_model(layout=layout, input=given)
    options = PlanOptions(**SMALL, objective="direct")
    agent = TrajectoryAgent([model], LAYOUT, options)
    actor = agent.start(2)
    cap = window_cap(model.spec, options)
    acted = torch.zeros(1, 2, M, dtype=torch.float64)
    for step in range(7):
        raw = replace(fields(step), action=acted)
        acted = actor.act(raw, None)
        running = actor.running[0]
        assert running is not None
        fresh = Imagination(model, actor.context[0], raw.observation[0], cap)
        with torch.no_grad():
            for number in range(M):
                params = fresh.parameters()
                told = running.imagined[..., number - M]
                assert torch.equal(
                    model.head.draw(params, N + number, params[..., 0], 1, None, ends=False), told
                )
                fresh.push(told)
            torch.testing.assert_close(running.parameters(), fresh.parameters())


def test_plans_are_executed_for_plan_freq_steps() -> None:
    agent = TrajectoryAgent([make_model()], LAYOUT, PlanOptions(**SMALL, plan_freq=2))
    actor = agent.start(2)
    actor.act(fields(0), noise(0))
    spent, planned = actor.positions, actor.planned
    assert torch.equal(actor.act(fields(1), noise(1)), planned[:, :, 1].clamp(-1, 1))
    assert actor.positions == spent
    actor.act(fields(2), noise(2))
    assert actor.positions > spent


@pytest.mark.parametrize("objective", ["likelihood", "direct"])
def test_a_goal_is_shown_to_the_model(objective: Any) -> None:
    model = make_model(prefix=(("goal", 2),))
    layout = Layout(N, M, 0, "states+actions", "goal", goal=(0, 1))
    options = PlanOptions(objective=objective, **SMALL)
    told = []
    for goal in (-3.0, 5.0):
        actor = TrajectoryAgent([model], layout, options).start(2)
        raw = replace(fields(0), told={"goal": torch.full((1, 2, 2), goal, dtype=torch.float64)})
        actor.act(raw, None)
        running = actor.running[0]
        if objective == "likelihood":
            aim = raw.told["goal"]
            assert aim is not None
            found = search(
                model, actor.context[0], raw.observation[0], options, prefix=aim[0]
            ).score
            told.append(found)
        else:
            assert running is not None
            told.append(running.parameters())
    assert (told[0] - told[1]).abs().min() > 1e-9
