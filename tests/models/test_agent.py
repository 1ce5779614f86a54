"""Acting gives what training gives on the same history, for every mixer, history and condition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from agent_samples import MIXERS, agent

from ablate.data.trajectories import Trajectories
from ablate.errors import UserError
from ablate.models import agent as acting_module
from ablate.models.agent import Agent, Stored, at_context, stored
from ablate.models.layouts import Fields
from ablate.models.stack import Stack
from ablate.registry import names

EPISODES, LENGTH = 3, 7
CONDITIONS = [
    *names("condition"),
    *(f"{name}+time" for name in ("return-to-go", "average-return", "goal", "policy-id")),
]
HISTORIES = (
    *("states+actions", "states", "actions", "states+actions+rewards"),
    "states+actions+returns",
)


def trajectories() -> Trajectories:
    rng = np.random.default_rng(1)
    steps = EPISODES * LENGTH
    ends = np.arange(steps) % LENGTH == LENGTH - 1
    return Trajectories(
        name="sample",
        observations=rng.standard_normal((steps, 3)).astype(np.float32),
        actions=rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        rewards=rng.standard_normal(steps).astype(np.float32),
        terminations=ends,
        truncations=np.zeros_like(ends),
        episode_starts=np.arange(EPISODES + 1) * LENGTH,
        behaviour_id=np.repeat([0, 1, 1], LENGTH),
    ).validate()


def at(data: Stored, rows: torch.Tensor, size: int) -> Fields:
    """The raw fields of rows (E,), for each of `size` policies."""
    return data.fields.map(lambda values: values[rows].expand(size, *values[rows].shape))


# Every history with a condition that it meets in a study, and every condition.
PAIRS = [*[(history, "return-to-go+time") for history in HISTORIES]] + [
    ("states+actions", condition) for condition in CONDITIONS
]


@pytest.mark.parametrize(("history", "condition"), PAIRS)
@pytest.mark.parametrize("mixer", MIXERS)
@torch.no_grad()
def test_acting_equals_predicting(mixer: str, history: str, condition: str) -> None:
    """Before the window is full (t < K) and while it slides (t >= K); and at K = 1."""
    seeds = [0, 1]
    for context in (1, 4):
        some = agent(mixer, context, seeds, (3, 2), history=history, condition=condition)
        some.stack.eval()
        data = stored(trajectories(), some.layout)
        actor = some.start(EPISODES)
        for t in range(LENGTH):
            rows = torch.arange(EPISODES) * LENGTH + t
            acted = actor.step(at(data, rows, len(seeds)))
            predicted = some.predict(data, rows.expand(len(seeds), -1))
            torch.testing.assert_close(acted, predicted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("positions", ["learned", "rotary", "none"])
@pytest.mark.parametrize("layout", ["modality", "step", "dimension"])
@pytest.mark.parametrize("context", [1, 3])
@torch.no_grad()
def test_one_policy_acts_as_it_predicts(context: int, layout: str, positions: str) -> None:
    """Alone it keeps its tokens and leaves out what only training needs; predicting does neither."""
    some = agent(
        "attention", context, [0], (3, 2), history="states+actions+returns", layout=layout,
        condition="return-to-go+time", positions=positions, heads=2,
    )  # fmt: skip
    some.stack.eval()
    data, actor = stored(trajectories(), some.layout), some.start(EPISODES)
    for t in range(LENGTH):
        rows = torch.arange(EPISODES) * LENGTH + t
        predicted = some.predict(data, rows[None])
        acted = actor.step(at(data, rows, 1))
        torch.testing.assert_close(acted, predicted, rtol=0, atol=1e-10)
    assert (actor.tokens is None) == (layout == "step")


@pytest.mark.parametrize("mixer", MIXERS)
@torch.no_grad()
def test_an_untrained_agent_already_reads_its_history(mixer: str) -> None:
    """So that the test above compares something."""
    some = agent(mixer, 4, [0], (3, 2))
    data = stored(trajectories(), some.layout)
    changed = trajectories()
    changed.observations[2] += 1.0
    other = stored(changed, some.layout)
    rows = torch.tensor([[5, 6]])  # row 6 no longer sees row 2
    before, after = some.predict(data, rows)[0], some.predict(other, rows)[0]
    assert (before[0] - after[0]).abs().max() > 1e-4
    assert torch.equal(before[1], after[1])


@pytest.mark.parametrize("mixer", [m for m in MIXERS if m != "attention"])
@torch.no_grad()
def test_a_carried_state_steps_on_beyond_the_context(mixer: str) -> None:
    """It gives what a longer context's state gives, and within the context what training gives."""
    context = 3
    some = agent(mixer, context, [0, 1], (3, 2), state="carried", condition="time")
    some.eval()
    data = stored(trajectories(), some.layout)
    actor, again = some.start(EPISODES), some.stack.start(EPISODES, some.scales.mean)
    table = some.tokens(data.fields)
    for t in range(LENGTH):
        rows = torch.arange(EPISODES) * LENGTH + t
        acted = actor.step(at(data, rows, 2))
        seen = some.visible.newest(table[rows].expand(2, -1, -1), t + 1)
        expected, again = some.stack(seen, again, method="step")
        torch.testing.assert_close(acted, expected, rtol=0, atol=0)
        predicted = some.predict(data, rows.expand(2, -1))
        differs = float((acted - predicted).abs().max()) > 1e-9
        assert differs == (t >= context), t


@torch.no_grad()
def test_a_mixer_that_slides_sees_only_one_action_more_when_carried() -> None:
    """The action before the window is hidden in a window that is encoded anew; nothing else differs."""
    some = agent("conv", 3, [0], (3, 2), condition="time", state="carried")
    some.eval()
    data = stored(trajectories(), some.layout)
    without = replace(data.fields, action=torch.zeros_like(data.fields.action))
    actor = some.start(EPISODES)
    table = some.tokens(without)
    for t in range(LENGTH):
        rows = torch.arange(EPISODES) * LENGTH + t
        acted = actor.step(at(Stored(without, data.timestep), rows, 1))
        features, lengths = some.windows(table, data.timestep, rows[None])
        torch.testing.assert_close(acted, some.stack(features, lengths), rtol=0, atol=1e-12)


def test_a_state_that_cannot_be_carried_is_refused() -> None:
    with pytest.raises(UserError, match=r"mixer 'attention' cannot carry its state"):
        agent("attention", 3, [0], (3, 2), state="carried")
    with pytest.raises(UserError, match=r"evaluate.state: carried needs timesteps that stay"):
        agent("gru", 3, [0], (3, 2), state="carried", history="actions")
    with pytest.raises(UserError, match=r"evaluate.state: 'carry' is not known.*carried"):
        agent("gru", 3, [0], (3, 2), state="carry")


@pytest.mark.parametrize(
    ("mixer", "options"),
    [
        ("gru", {}),
        ("ssm", {}),
        ("convformer", {}),
        ("attention", {"positions": "rotary"}),
        ("attention", {"positions": "none", "window": 2}),
        ("gru", {"layout": "modality"}),
        ("convformer", {"layout": "modality", "window": 1}),
        ("ssm", {"input": "discretised"}),
    ],
)
@pytest.mark.parametrize("context", [2, 6])
@torch.no_grad()
def test_acting_in_another_context_than_that_of_training(
    mixer: str, options: dict[str, Any], context: int
) -> None:
    """A shorter one shows less; a longer one gives what a model of that context and weights gives."""
    some = agent(mixer, 4, [0], (3, 2), head="categorical", **options)
    policy = some.stack._base.eval()
    other = at_context(policy, context)
    assert (other is policy) == (context <= 4)
    acting = Agent(Stack([other]), some.layout, some.scales, context)
    data = stored(trajectories(), some.layout)
    actor = acting.start(EPISODES)
    for t in range(LENGTH):
        rows = torch.arange(EPISODES) * LENGTH + t
        acted = actor.step(at(data, rows, 1))
        torch.testing.assert_close(acted, acting.predict(data, rows[None]), rtol=0, atol=1e-10)
    for name, value in policy.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    altered = trajectories()
    altered.observations[LENGTH - 5] += 1.0  # five timesteps back from the last
    changed = stored(altered, some.layout)
    last = torch.tensor([[LENGTH - 1]])
    same = torch.equal(acting.predict(data, last), acting.predict(changed, last))
    narrow = "window" in options  # two layers of two timesteps see three at most
    assert same == (context == 2 or narrow)


@pytest.mark.parametrize("mixer", ["attention", "mlp", "bag", "conv"])
def test_a_longer_context_than_the_parameters_belong_to_is_refused(mixer: str) -> None:
    policy = agent(mixer, 4, [0], (3, 2)).stack._base
    with pytest.raises(UserError, match=r"evaluate.context: 5 exceeds the trained context of 4"):
        at_context(policy, 5)


@torch.no_grad()
def test_actions_are_the_heads_mode_or_drawn_with_the_noise() -> None:
    some = agent("gru", 3, [0, 1], (3, 2))
    some.eval()
    fields = at(stored(trajectories(), some.layout), torch.tensor([0, 7]), 2)
    params = some.start(2).step(fields)
    head = some.stack.head
    assert torch.equal(some.start(2).act(fields, None), head.mode(params))
    noise = torch.rand(2, 2, some.noise_dim)
    assert torch.equal(some.start(2).act(fields, noise), head.sample(params, noise))


@pytest.mark.parametrize("tokens", [1, 7, 11])
@torch.no_grad()
def test_episodes_are_encoded_in_pieces(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One or more windows at a time, of two policies at once; what is predicted stays the same."""
    some = agent("attention", 5, [0, 1], (3, 2), condition="return-to-go").eval()
    data = stored(trajectories(), some.layout)
    monkeypatch.setattr(acting_module, "TOKENS", tokens)
    calls = []
    plain = Stack.__call__

    def counted(self: Stack, *args: Any, **options: Any) -> Any:
        calls.append(args[0].shape[1])
        return plain(self, *args, **options)

    actor = some.start(EPISODES)
    for t in range(LENGTH):
        rows = torch.arange(EPISODES) * LENGTH + t
        wanted = some.predict(data, rows.expand(2, -1))
        monkeypatch.setattr(Stack, "__call__", counted)
        found = actor.step(at(data, rows, 2))
        monkeypatch.setattr(Stack, "__call__", plain)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    assert sum(calls) == EPISODES * LENGTH
    assert max(calls) == max(1, min(EPISODES, tokens // 5))


@torch.no_grad()
def test_long_windows_fill_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room grows, windows are cut to multiples of a part, and what is predicted stays the same."""
    monkeypatch.setattr(acting_module, "PADDED", 2)
    monkeypatch.setattr(acting_module, "ROOM", 1)
    some = agent(
        "attention", 5, [0], (3, 2), condition="return-to-go"
    )  # encoded anew at every step
    some.eval()
    data = stored(trajectories(), some.layout)
    actor = some.start(EPISODES)
    shapes = []
    for t in range(LENGTH):
        rows = torch.arange(EPISODES) * LENGTH + t
        torch.testing.assert_close(
            actor.step(at(data, rows, 1)), some.predict(data, rows[None]), rtol=0, atol=1e-10
        )
        shapes.append((actor._window(min(t + 1, 5)).shape[2], actor.past.shape[2]))
    assert [rows for rows, _ in shapes] == [2, 2, 4, 4, 5, 5, 5]
    assert max(room for _, room in shapes) <= 10


def test_stored_fields_are_those_of_the_timestep() -> None:
    data = trajectories()
    some = agent("mlp", 1, [0], (3, 2), condition="return-to-go+policy-id")
    fields = stored(data, some.layout).fields
    told = fields.told
    assert (fields.action[::LENGTH] == 0).all()
    assert (fields.reward[::LENGTH] == 0).all()
    assert torch.equal(fields.action[1:LENGTH], torch.from_numpy(data.actions[: LENGTH - 1]))
    assert torch.equal(fields.reward[1:LENGTH], torch.from_numpy(data.rewards[: LENGTH - 1]))
    assert torch.equal(told["return-to-go"][:, 0], torch.from_numpy(data.returns_to_go))
    assert fields.time.tolist() == list(range(LENGTH)) * EPISODES
    assert told["policy-id"].argmax(1).tolist() == [0] * LENGTH + [1] * 2 * LENGTH


def test_tokens_are_scaled() -> None:
    some = agent(
        "mlp", 1, [0], (3, 2), history="states+actions+rewards", condition="return-to-go+time"
    )
    fields = stored(trajectories(), some.layout).fields
    tokens = some.tokens(fields)
    parts = tokens.split([3, 2, 1, 1, 1], dim=1)
    torch.testing.assert_close(parts[0], (fields.observation - 0.1) / 1.5, check_dtype=False)
    torch.testing.assert_close(parts[1], fields.action, check_dtype=False)
    torch.testing.assert_close(parts[2][:, 0], fields.reward / 0.7, check_dtype=False)
    torch.testing.assert_close(
        parts[3][:, 0], torch.from_numpy(trajectories().returns_to_go) / 3.0, check_dtype=False
    )
    torch.testing.assert_close(parts[4][:, 0], fields.time / 20, check_dtype=False)
