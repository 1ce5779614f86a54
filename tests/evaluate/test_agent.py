"""Acting gives what training gives on the same history, for every mixer, history and condition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evaluate_samples import MIXERS, agent

from ablate.data.trajectories import Trajectories
from ablate.evaluate.agent import Stored, stored
from ablate.models.layouts import CONDITIONS, HISTORIES, Fields

EPISODES, LENGTH = 3, 7


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

    def pick(values: torch.Tensor) -> torch.Tensor:
        return values[rows].expand(size, *values[rows].shape)

    names = ("observation", "action", "reward", "return_to_go", "time", "policy")
    return Fields(**{name: pick(getattr(data.fields, name)) for name in names})


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


def test_stored_fields_are_those_of_the_timestep() -> None:
    data = trajectories()
    some = agent("mlp", 1, [0], (3, 2), condition="policy-id")
    fields = stored(data, some.layout).fields
    assert (fields.action[::LENGTH] == 0).all()
    assert (fields.reward[::LENGTH] == 0).all()
    assert torch.equal(fields.action[1:LENGTH], torch.from_numpy(data.actions[: LENGTH - 1]))
    assert torch.equal(fields.reward[1:LENGTH], torch.from_numpy(data.rewards[: LENGTH - 1]))
    assert torch.equal(fields.return_to_go, torch.from_numpy(data.returns_to_go))
    assert fields.time.tolist() == list(range(LENGTH)) * EPISODES
    assert fields.policy.argmax(1).tolist() == [0] * LENGTH + [1] * 2 * LENGTH


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
    torch.testing.assert_close(parts[3][:, 0], fields.return_to_go / 3.0, check_dtype=False)
    torch.testing.assert_close(parts[4][:, 0], fields.time / 20, check_dtype=False)
