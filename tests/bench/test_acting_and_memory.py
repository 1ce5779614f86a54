"""The benchmarks of acting and of memory measure what they say; how fast or small, no test asks."""

from __future__ import annotations

import math

import pytest
import torch

from ablate.bench import acting, memory
from ablate.bench.acting import MODELS, Idle, acting_agent, acting_rows, steps_per_second


def test_the_models_have_the_stated_sizes() -> None:
    for name, mixer, layout, state, *_ in MODELS:
        agent = acting_agent(mixer, layout, state)
        assert agent.context == 20, name
        assert agent.stack.spec.width == 128
        assert agent.state == state
    tokens = acting_agent("attention", "modality", "re-encoded").stack._base.mixer.context
    assert tokens in (59, 60)  # three a timestep, without the action before the window


def test_an_idle_environment_does_nothing() -> None:
    env = Idle(2)
    first = env.reset([0, 1])
    observed, rewards, ended, cut, info = env.step(torch.zeros(2, 3).numpy())
    assert first.shape == observed.shape == (2, 11)
    assert not rewards.any()
    assert not ended.any()
    assert not cut.any()
    assert info == {}


def test_rows_of_acting_are_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "STEPS", 2)
    monkeypatch.setattr(Idle, "horizon", 2)
    monkeypatch.setattr(acting, "MODELS", MODELS[1:2])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (row,) = acting_rows(chunks=1, episodes=3)
    assert row["ratio"] == row["3 at once"] / row["one after another"] > 0
    assert row["goal"] == 20.0
    assert steps_per_second(acting_agent("gru", "step", "carried"), 1, 1) > 0


def test_rows_of_memory_are_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the processes left out: 0.5 GB before, then a tenth of a MB a timestep and window."""

    def measured(mixer: str, dropout: float, length: int, batch: int) -> dict[str, float]:
        return {"before": 0.5, "peak": 0.5 + 1e-4 * length * batch}

    monkeypatch.setattr(memory, "measured", measured)
    rows = memory.memory_rows(cases=(("attention", 0.0),))
    assert [row["timesteps"] for row in rows] == [1024, 2048, 4096, 16384]
    assert [row["growth"] for row in rows[1:3]] == pytest.approx([2.0, 2.0])
    assert [row["longer by"] for row in rows[1:3]] == [2.0, 2.0]
    assert math.isnan(rows[0]["growth"])
    assert math.isnan(rows[3]["growth"])  # another batch
    assert [row["goal GB"] for row in rows if row["goal GB"] == row["goal GB"]] == [4.0]


def test_an_update_holds_memory_in_its_own_process() -> None:
    found = memory.measured("gru", 0.0, 64, 2)
    assert 0.05 < found["before"] <= found["peak"] < 4.0
