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
    products = 3 if module.WIDE else 2  # a weight's gradient is MKL's then
    assert len(calls) == (products if x.numel() * outputs >= WORTHWHILE else 0)
    plain = F.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(out, plain, rtol=1e-5, atol=1e-5)
    expected = torch.autograd.grad(plain, [x, *layer.parameters()], upstream)
    for one, two in zip(grads, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [3, 1000])
def test_the_positive_part_is_relu_of_the_product(rows: int) -> None:
    x, weight, bias = torch.randn(rows, 40), torch.randn(30, 40), torch.randn(30)
    inputs = [values.requires_grad_() for values in (x, weight, bias)]
    found, plain = linear(*inputs, relu=True), F.relu(F.linear(*inputs))
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-4)
    upstream = torch.randn_like(plain)
    grads = [torch.autograd.grad(out, inputs, upstream) for out in (found, plain)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-3)


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
