"""The plan of memory against what PyTorch's allocator is asked for on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from device_samples import MIXERS, joint, policy
from torch.profiler import ProfilerActivity, profile

from ablate.learn.memory import measured, plan
from ablate.learn.objective import Batch, Objective


def allocated(objective: Objective) -> int:
    """The most bytes that an update holds at once beyond what was there, as the profiler hears of each allocation."""
    targets = torch.zeros(objective.stack.size, 24, dtype=torch.int64)
    objective.stack.train()
    objective.update(Batch(0, targets), 0.0)
    for tensor in objective.stack.parameters():
        tensor.grad = None
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        objective.update(Batch(1, targets), 0.0)
    results: Any = found.profiler
    events = [e for e in results.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@pytest.mark.parametrize("mixer", MIXERS)
def test_the_plan_of_a_stack_is_near_what_is_allocated(mixer: str) -> None:
    options: dict[str, Any] = {"targets": 24, "width": 16, "dropout": 0.1}
    found = plan(policy(mixer, 1, **options), 3)
    made = policy(mixer, 3, **options)
    parameters = sum(p.numel() * p.element_size() for p in made.stack.parameters())
    assert found.parameters >= parameters
    assert found.parameters + found.optimiser == pytest.approx(3 * parameters, rel=0.2)
    assert found.working == pytest.approx(allocated(made), rel=0.15)
    assert found.total == found.data + found.parameters + found.optimiser + found.working


def test_what_is_counted_on_no_memory_is_what_is_counted_on_some() -> None:
    for make in (policy, joint):
        planned, real = plan(make("gru", 1), 2), measured(make("gru", 2))
        assert planned.parameters == real.parameters
        assert planned.optimiser == real.optimiser
        assert planned.working == pytest.approx(real.working, rel=0.05)


def test_memory_grows_with_the_seeds_but_for_the_data() -> None:
    few, many = plan(policy("mlp", 1), 2), plan(policy("mlp", 1), 8)
    assert many.data == few.data
    assert many.parameters == 4 * few.parameters
    assert many.working == pytest.approx(4 * few.working, rel=0.05)
