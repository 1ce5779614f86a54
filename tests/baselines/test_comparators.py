"""What is particular to one comparator."""

import pytest
import torch

from ablate.models.mixer import Mixer
from ablate.registry import get


def make(name: str, context: int, width: int = 8, layers: int = 2) -> Mixer:
    torch.manual_seed(0)
    return get("mixer", name)(width, context, layers, 0.0).double()


@torch.no_grad()
def test_the_bag_ignores_the_order_of_the_past_and_others_do_not() -> None:
    x = torch.randn(2, 6, 8, dtype=torch.float64)
    shuffled = x[:, [3, 0, 4, 1, 2, 5]]
    lengths = torch.tensor([6, 6])
    for name, same in [("bag", True), ("mlp", False), ("conv", False), ("gru", False)]:
        mixer = make(name, 6)
        difference = (mixer.last(x, lengths) - mixer.last(shuffled, lengths)).abs().max()
        assert (float(difference) < 1e-12) == same, name


@torch.no_grad()
def test_the_bag_knows_how_much_past_there_is() -> None:
    mixer = make("bag", 6)
    x = torch.randn(1, 1, 8, dtype=torch.float64).expand(1, 6, 8)
    out = mixer(x, torch.ones(1, 6, dtype=torch.bool))[0]
    assert (out[1:] - out[:-1]).abs().amax(1).min() > 1e-6


@pytest.mark.parametrize("name", ["gru", "lstm"])
@pytest.mark.parametrize("layers", [1, 3])
def test_explicit_cells_give_the_fused_kernels_gradients(name: str, layers: int) -> None:
    mixer = make(name, 5, layers=layers)
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    mask = torch.ones(3, 5, dtype=torch.bool)
    grads = []
    for stacked in (False, True):
        mixer.stacked = stacked
        mixer.zero_grad()
        mixer(x, mask).square().sum().backward()
        grads.append([p.grad.clone() for p in mixer.parameters()])
    for fused, explicit in zip(*grads, strict=True):
        torch.testing.assert_close(fused, explicit, rtol=0, atol=1e-11)


@pytest.mark.parametrize("layers", [1, 2, 3, 7])
@pytest.mark.parametrize("context", [1, 2, 5, 20, 21])
def test_the_convolutions_kernels_add_up_to_the_context(layers: int, context: int) -> None:
    mixer = make("conv", context, layers=layers)
    assert 1 + sum(block.kernel - 1 for block in mixer.blocks) == context


@pytest.mark.parametrize(("width", "context"), [(4, 3), (40, 3), (40, 60), (12, 256), (2, 256)])
@torch.no_grad()
def test_the_mlp_keeps_every_lag_however_thin_its_slots(width: int, context: int) -> None:
    mixer = make("mlp", context, width)
    x = torch.randn(1, context, width, dtype=torch.float64)
    window = mixer(x, torch.ones(1, context, dtype=torch.bool))
    last = mixer.last(x, torch.tensor([context]))
    torch.testing.assert_close(window[:, -1], last, rtol=0, atol=1e-11)
    for lag in range(context):
        altered = x.clone()
        altered[0, context - 1 - lag] += 1.0
        assert (mixer.last(altered, torch.tensor([context])) - last).abs().max() > 1e-9


@torch.no_grad()
def test_the_mlp_tells_a_missing_timestep_from_one_that_reads_zero() -> None:
    mixer = make("mlp", 3)
    token = torch.randn(1, 1, 8, dtype=torch.float64)
    zero = torch.zeros_like(token)
    short = mixer.last(token, torch.tensor([1]))
    padded = mixer.last(torch.cat([zero, zero, token], 1), torch.tensor([3]))
    assert (short - padded).abs().max() > 1e-4
