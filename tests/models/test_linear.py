"""The fast linear layer is the plain one."""

import pytest
import torch
import torch.nn.functional as F

from ablate.models import linear as module
from ablate.models.linear import AVAILABLE, WORTHWHILE, Linear, linear


@pytest.mark.skipif(not AVAILABLE, reason="this PyTorch has no oneDNN for x86")
@pytest.mark.parametrize(("inputs", "outputs"), [(16, 96), (96, 16), (32, 32)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_the_plain_product(
    inputs: int, outputs: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = Linear(inputs, outputs, bias=bias)
    x = torch.randn(40, 25, inputs).transpose(0, 1).requires_grad_()  # not contiguous
    upstream = torch.randn(1, 1, outputs).expand(25, 40, outputs)  # without strides
    calls: list[int] = []
    original = module._product
    monkeypatch.setattr(module, "_product", lambda *a: calls.append(1) or original(*a))
    out = layer(x)
    grads = torch.autograd.grad(out, [x, *layer.parameters()], upstream)
    assert len(calls) == (3 if x.numel() * outputs >= WORTHWHILE else 0)
    plain = F.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(out, plain, rtol=1e-5, atol=1e-5)
    expected = torch.autograd.grad(plain, [x, *layer.parameters()], upstream)
    for one, two in zip(grads, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_columns_cut_from_a_larger_weight_serve_too() -> None:
    x, weight = torch.randn(1000, 40), torch.randn(30, 64)[:, 10:50]
    torch.testing.assert_close(linear(x, weight, None), F.linear(x, weight), rtol=1e-5, atol=1e-4)


def test_small_double_stacked_and_autocast_products_take_the_plain_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the fast path was taken")

    monkeypatch.setattr(module, "_product", refuse)
    x, weight = torch.randn(1000, 32), torch.randn(32, 32)
    linear(x[:2], weight, None)
    linear(x.double(), weight.double(), None)
    linear(x, weight, None, stacked=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, None).dtype == torch.bfloat16
