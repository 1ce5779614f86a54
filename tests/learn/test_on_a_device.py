"""What a GPU asks of an update, shown without one: one graph without a break, and nothing that waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
import torch._dynamo
from device_samples import MIXERS, STEPS, joint, policy
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ablate.learn.objective import Batch, Objective

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_assert_async")
MADE: list[tuple[str, Callable[..., Objective]]] = [
    *((mixer, policy) for mixer in MIXERS),
    ("attention", joint),
    ("gru", joint),
]
NAMES = [f"{make.__name__} {mixer}" for mixer, make in MADE]
# A joint model's is traced through every token and head, which takes its time.
GRAPHS = [
    pytest.param(*each, id=name, marks=[pytest.mark.slow] if each[1] is joint else [])
    for each, name in zip(MADE, NAMES, strict=True)
]


class Device(TorchDispatchMode):
    """Refuses what makes the host wait for a device: reading a value, a shape that depends on one, a copy across.

    On `meta`, PyTorch itself refuses to read values and to copy them away.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if any(name in func.name() for name in WAITS):
            raise RuntimeError(f"{func.name()} waits for the device.")
        if func.name().startswith("aten::_fused_adam"):  # which meta has no kernel for
            out = None
        else:
            out = func(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves((args, kwargs, out)) if isinstance(each, Tensor)]
        devices = {each.device.type for each in tensors}
        if len(devices) > 1:
            raise RuntimeError(f"{func.name()} has tensors on {', '.join(sorted(devices))}.")
        return out


@pytest.mark.parametrize(("mixer", "make"), MADE, ids=NAMES)
def test_no_step_waits_for_the_device(mixer: str, make: Callable[..., Objective]) -> None:
    options: dict[str, Any] = {"loss": "all", "dropout": 0.1} if make is policy else {}
    for seeds, said in ((1, {}), (3, options)):
        made = make(mixer, seeds, "meta", **said)
        made.stack.train()
        targets = torch.zeros(seeds, 5, dtype=torch.int64, device="meta")
        with Device():
            loss = made.update(Batch(0, targets), torch.zeros((), device="meta"))
        assert (loss.shape, loss.device.type) == ((seeds,), "meta")


def test_what_waits_is_refused() -> None:
    values = torch.ones(3, device="meta")
    for wait in (
        lambda: values.sum().item(),
        lambda: bool(values.any()),
        lambda: values.cpu(),
        lambda: values[values > 0],
        lambda: torch.tensor([1.0, 2.0, 3.0]).to("meta"),
    ):
        with pytest.raises((RuntimeError, NotImplementedError)), Device():
            wait()


@pytest.fixture
def tracing() -> Iterator[None]:
    """The compiler's front end, which follows gradients and modules with a fused kernel only where it is told to."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(trace_autograd_ops=True, allow_rnn=True):
        yield
    torch._dynamo.reset()


@pytest.mark.parametrize(("mixer", "make"), GRAPHS)
def test_a_whole_update_is_one_graph_and_gives_the_same_bits(
    mixer: str, make: Callable[..., Objective], tracing: None
) -> None:
    """Cut, forward, backward, clip and step of three seeds, with targets and rate as its inputs."""
    plain, traced = make(mixer, 3), make(mixer, 3)
    generator = torch.Generator().manual_seed(1)
    targets = torch.randint(0, STEPS, (3, 3, 5), generator=generator)
    for made in (plain, traced):
        made.stack.train()
        made.update(Batch(0, targets[0]), 1e-3)  # makes the optimiser's state

    def step(targets: Tensor, rate: Tensor) -> Tensor:
        return traced.update(Batch(0, targets), rate)

    whole = torch.compile(step, fullgraph=True, backend="eager", dynamic=False)
    for number, rate in enumerate((1e-3, 5e-4), 1):
        given = torch.tensor(rate, dtype=torch.float64)
        loss = plain.update(Batch(number, targets[number]), given)
        assert torch.equal(whole(targets[number], given), loss)
    assert all(map(torch.equal, plain.stack.parameters(), traced.stack.parameters()))
