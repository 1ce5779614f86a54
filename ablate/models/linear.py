"""Linear layers that use the faster of PyTorch's two matrix libraries on the CPU.

PyTorch sends float32 products to MKL, which keeps to 256-bit instructions on processors of other
makers; its second library, oneDNN, does not, and is more than twice as fast there (`python -m
ablate bench`). Both compute in float32 and agree to rounding.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

WORTHWHILE = 700_000  # multiply-adds below which the library's own overhead outweighs its speed
# The same where nothing is to be differentiated: what its backward products gain then doesn't count.
WORTHWHILE_ALONE = 20_000_000
AVAILABLE = (
    platform.machine() in ("x86_64", "AMD64")
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
# For a weight's gradient oneDNN rearranges both operands. Where there is nothing wider than MKL uses, MKL is faster at
# it by a half.
WIDE = "AVX512" in torch.backends.cpu.get_cpu_capability()


def _product(
    left: Tensor, right: Tensor, bias: Tensor | None = None, after: str = "none"
) -> Tensor:
    """left (m, k) times the transpose of right (n, k), plus bias (n,); after: "relu", or "none"."""
    return torch.ops.mkldnn._linear_pointwise(left, right, bias, after, [], "")


class _Linear(torch.autograd.Function):
    """x (m, k), weight (n, k), bias (n,) to x weight^T + bias, or its positive part, with products in oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, after: str) -> Tensor:
        weight = weight.contiguous()  # columns cut from a larger weight find only slow kernels
        found = _product(x, weight, bias, after)
        ctx.save_for_backward(x, weight, found if after == "relu" else None)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, positive = ctx.saved_tensors
        grad = grad.contiguous()
        if positive is not None:
            grad = torch.ops.aten.threshold_backward(grad, positive, 0)
        for_x, for_weight, for_bias, _ = ctx.needs_input_grad
        grad_weight = None
        if (
            for_weight and WIDE
        ):  # the library rearranges its right operand: let that be the smaller one
            wide = weight.shape[0] >= weight.shape[1]
            grad_weight = _product(x.t(), grad.t()).t() if wide else _product(grad.t(), x.t())
        elif for_weight:
            grad_weight = grad.t() @ x
        return (
            _product(grad, weight.t()) if for_x else None,
            grad_weight,
            grad.sum(0) if for_bias else None,
            None,
        )


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, stacked: bool = False, relu: bool = False
) -> Tensor:
    """`torch.nn.functional.linear`, or its positive part, through oneDNN where that is faster.

    `stacked` says that the call may be inside `torch.func.vmap`, which only the plain path
    supports.
    """
    rows = x.numel() // max(x.shape[-1], 1)
    least = WORTHWHILE if torch.is_grad_enabled() else WORTHWHILE_ALONE
    fast = (
        AVAILABLE
        and not stacked
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and rows * weight.numel() >= least
        and not torch.is_autocast_enabled("cpu")
    )
    if not fast:
        found = F.linear(x, weight, bias)
        return F.relu(found) if relu else found
    after = "relu" if relu else "none"
    flat = x.reshape(rows, x.shape[-1])
    if torch.is_grad_enabled():
        out = _Linear.apply(flat, weight, bias, after)
    else:
        out = _product(flat, weight.contiguous(), bias, after)
    return out.view(*x.shape[:-1], weight.shape[0])


class Linear(nn.Linear):
    """`torch.nn.Linear` through `linear`; same parameters, same initialisation."""

    stacked: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return linear(x, self.weight, self.bias, self.stacked)
