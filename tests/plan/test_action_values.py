"""What an action is worth: by the model, token by token; and by an exact Q* that a search asks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from plan_samples import BINS, DATA, D, M, N, make_model

from ablate.data.trajectories import Trajectories
from ablate.errors import UserError
from ablate.measure.acting import no_value
from ablate.measure.values import action_values
from ablate.models.layouts import Fields, Layout
from ablate.plan.agent import TrajectoryAgent
from ablate.plan.imagine import Imagination
from ablate.plan.options import PlanOptions


@torch.no_grad()
def test_an_action_is_worth_its_reward_and_what_follows() -> None:
    """Against the same told reward by reward, each in a sequence of its own."""
    model = make_model(positions="rotary", context=4)
    episodes = np.arange(0, 61, 10)
    rows = DATA[:60].astype(np.float32)
    zeros = np.zeros(60, dtype=bool)
    ends = np.isin(np.arange(60), episodes[1:] - 1)
    data = Trajectories("d", rows[:, :N], rows[:, N : N + M], rows[:, -2], zeros, ends, episodes)
    layout = Layout(N, M, 0, "states+actions", "none")
    table = torch.from_numpy(DATA[:60])
    system: Any = SimpleNamespace(
        rows=lambda _: (table, None), layout=layout, device=torch.device("cpu"), context=4,
        settings=SimpleNamespace(discount=0.9),
    )  # fmt: skip
    asked = np.array([0, 33])
    found = action_values(system, model, data, asked)
    for row, value in zip(asked, found, strict=True):
        before = min(3, int(data.timestep[row]))
        expected = 0.0
        for symbol in range(BINS):
            one = Imagination(model, table[None, row - before : row], table[None, row, :N], None)
            one.tell(table[None, None, row, N : N + M])
            chance = float(one.log_probabilities()[0, 0, symbol].exp())
            reward = float(model.head.bins.centres[D - 2, symbol])
            one.push(torch.tensor([[symbol]]))
            after = float(one.heads.expected(one.parameters(), D - 1))
            expected += chance * (reward + 0.9 * after)
        assert value == pytest.approx(expected, abs=1e-6)


def test_a_search_is_told_the_time() -> None:
    asked = []

    def optimal(states: Any, actions: Any, timestep: int, discount: float) -> np.ndarray:
        asked.append((states.shape, actions.shape, timestep, discount))
        return actions[:, 0].astype(np.float64)

    options = PlanOptions(horizon=2, beam=3, max_context_transitions=2, value="exact", discount=0.8)
    layout = Layout(N, M, 0, "states+actions", "none")
    model = make_model(torch.float32)
    actor = TrajectoryAgent([model], layout, options, optimal).start(4)
    fields = nothing(4)
    for _ in range(2):
        actor.act(fields, None)
    assert [(t, shape[0]) for shape, _, t, _ in asked] == [(0, 24), (1, 24), (1, 24), (2, 24)]
    assert {(a[0][1], a[1][1], a[3]) for a in asked} == {(N, M, 0.8)}
    assert len(actor.agent.first) == 1
    with pytest.raises(UserError, match=r"plan\.value: exact needs data"):
        TrajectoryAgent([model], layout, options)
    config = {"data": "lq-mix/step", "reading": {}, "settings": {}}
    assert "chain/gamble" in no_value(config, "plan", "exact")
    assert not no_value(config | {"data": "grid/calm-step-v0"}, "plan", "exact")


def nothing(episodes: int) -> Any:
    """What a rollout shows a search, all zeros."""

    def zeros(*more: int) -> torch.Tensor:
        return torch.zeros(1, episodes, *more)

    return Fields(observation=zeros(N), action=zeros(M), reward=zeros(), time=zeros(), told={})


def test_the_end_is_read_as_it_was_learnt() -> None:
    """With numbers for input, the token that ends an episode is told as zeros, which training has in its place."""
    model = make_model(torch.float32, input="continuous")
    rows = torch.from_numpy(DATA[None, :2]).float()
    rows[:, 1] = torch.nan
    wanted = model.encode(rows)[0, 1, :N]
    running = Imagination(model, rows[:, :0], rows[:, 0, :N], None)
    running.tell(rows[:, :1, N:])
    for _ in range(N):
        running.push(torch.tensor([[BINS]]))
    assert torch.equal(running.entries[0, 0, -N:], wanted)
