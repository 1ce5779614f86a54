"""Adam and AdamW by PyTorch's fused kernels.

`torch.optim` gives the same numbers, but its optimisers load PyTorch's compiler when the first one is made, which
costs each process more than a small fit does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

KERNELS: dict[str, Any] = {"adamw": torch._fused_adamw_, "adam": torch._fused_adam_}
EPSILON = 1e-8


class Adam:
    """Adam (Kingma & Ba 2015), or with its decay decoupled AdamW (Loshchilov & Hutter 2019); no amsgrad.

    Args:
        kind: "adam" or "adamw".
        groups: each `params`, floating-point tensors of one type on one device, and what of `lr`, `betas` and
            `weight_decay` differs from the arguments of these names.

    Attributes:
        param_groups: the groups, complete; `lr` may be changed between steps.
        state: tensor -> `step` (), `exp_avg` and `exp_avg_sq` shaped as the tensor; none before its first step.
    """

    def __init__(
        self,
        kind: str,
        groups: Sequence[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ) -> None:
        shared: dict[str, Any] = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
        self.kind = kind
        self.param_groups = [shared | group for group in groups]
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for group in self.param_groups:
            for tensor in group["params"]:
                tensor.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Descend along the gradients; tensors without one stay as they are."""
        for group in self.param_groups:
            tensors = [tensor for tensor in group["params"] if tensor.grad is not None]
            states = [self.state.get(tensor) or self._begin(tensor) for tensor in tensors]
            steps = [state["step"] for state in states]
            if not tensors:
                continue
            torch._foreach_add_(steps, 1)
            KERNELS[self.kind](
                tensors,
                [tensor.grad for tensor in tensors],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                steps,
                amsgrad=False,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=EPSILON,
                maximize=False,
            )

    def _begin(self, tensor: Tensor) -> dict[str, Tensor]:
        """The state before a tensor's first step."""
        made = self.state[tensor] = {
            "step": torch.zeros((), dtype=torch.float32, device=tensor.device),
            "exp_avg": torch.zeros_like(tensor, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(tensor, memory_format=torch.preserve_format),
        }
        return made
