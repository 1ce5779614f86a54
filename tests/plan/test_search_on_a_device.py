"""What a GPU asks of planning, shown without one: nothing waits for the device, and the plans are the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from plan_samples import D, M, N, make_model, situation, uniforms
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ablate.models.layouts import Fields, Layout
from ablate.plan.agent import TrajectoryAgent
from ablate.plan.options import PlanOptions
from ablate.plan.search import search

SMALL: dict[str, Any] = {"horizon": 3, "beam": 5, "max_context_transitions": 3}
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_assert_async")
KINDS: dict[str, dict[str, Any]] = {
    "learned positions": {},
    "rotary": {"positions": "rotary"},
    "values are read": {"value_mask": False},
    "modality": {"layout": "modality", "head": "autoregressive"},
    "step": {"layout": "step", "head": "autoregressive"},
    "numbers": {"layout": "modality", "head": "mixture", "input": "continuous"},
    "gru": {"mixer": "gru"},
}


class Device(TorchDispatchMode):
    """Refuses, of tensors on the device `meta`, what makes the host wait: to read one, and to copy one away.

    The host may reckon with tensors of its own, and lay numbers on the device; it doesn't see what is there.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        out = func(*args, **(kwargs or {}))
        found = [each for each in tree_leaves(out) if isinstance(each, Tensor)]
        if any(each.is_meta for each in given):
            waits = any(name in func.name() for name in WAITS)
            # a tensor of no dimension is a number, which is told with the call
            away = any(not each.is_meta and each.dim() for each in (*given, *found))
            if waits or away:
                raise RuntimeError(f"{func.name()} waits for the device.")
        return out


@pytest.mark.parametrize("mode", ["reference", "full"])
@pytest.mark.parametrize("objective", ["return", "likelihood"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_search_waits_for_the_device(kind: str, objective: Any, mode: Any) -> None:
    if objective == "likelihood" and kind == "numbers":
        pytest.skip("a head without bins is not searched by likelihood")
    model = make_model(**({"context": 8} | KINDS[kind])).to("meta")
    options = PlanOptions(objective=objective, mode=mode, **SMALL)
    context, observation = (each.to("meta") for each in situation(3, episodes=2))
    noise = torch.rand(2, options.horizon, options.beam * options.n_expand, D, device="meta")
    with Device():
        plan = search(model, context, observation, options, noise.double())
    assert (plan.rows.shape, plan.rows.device.type) == ((2, options.horizon, D), "meta")


@pytest.mark.parametrize("objective", ["return", "likelihood", "direct"])
def test_no_action_waits_for_the_device(objective: Any) -> None:
    options = PlanOptions(objective=objective, **SMALL)
    model = make_model(layout="modality", head="autoregressive").to("meta")
    agent = TrajectoryAgent([model], Layout(N, M, 0, "states+actions", "none"), options)
    actor = agent.start(2)
    shown = torch.zeros(1, 2, D, dtype=torch.float64, device="meta")
    fields = Fields(shown[..., :N], shown[..., :M], shown[..., 0], shown[..., 0])
    noise = torch.rand(1, 2, 1, device=agent.noise_device)
    for _ in range(5):
        with Device():
            assert actor.act(fields, noise).shape == (1, 2, M)


def test_what_waits_is_refused() -> None:
    values, places = torch.ones(3, device="meta"), torch.arange(2)
    for wait in (
        lambda: values.sum().item(),
        lambda: bool(values.any()),
        lambda: values.cpu(),
        lambda: values[values > 0],
        lambda: values[places],
    ):
        with pytest.raises((RuntimeError, NotImplementedError)), Device():
            wait()


@pytest.mark.parametrize("mode", ["reference", "full"])
@pytest.mark.parametrize("objective", ["return", "likelihood"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "numbers"])
def test_plans_are_the_same_where_the_host_does_not_look(
    kind: str, objective: Any, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(**({"context": 8} | KINDS[kind]))
    options = PlanOptions(objective=objective, mode=mode, **SMALL)
    context, observation = situation(3, episodes=2)
    noise = uniforms((2, options.horizon, options.beam * options.n_expand, D))
    looking = search(model, context, observation, options, noise)
    monkeypatch.setattr("ablate.plan.imagine.looks", lambda device: False)
    plan = search(model, context, observation, options, noise)
    assert torch.equal(plan.symbols, looking.symbols)
    torch.testing.assert_close(plan.score, looking.score)
