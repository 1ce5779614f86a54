"""Adam, and AdamW, as nothing but calls of PyTorch's fused kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

EPSILON = 1e-8


class Adam:
    """Adam (Kingma & Ba 2015); `decoupled`, AdamW (Loshchilov & Hutter 2019). Gives the bits of PyTorch's own, fused.

    The rate and the numbers of steps are tensors where the parameters are and nothing is read back, so that an update
    can be traced as one graph and captured on a GPU, which PyTorch's optimisers prevent in part.

    Args:
        groups: leaf tensors, and how strongly they decay.
        rate: learning rate, until `set_rate` changes it.

    Attributes:
        state: of each tensor that has moved its `step` (), `exp_avg` and `exp_avg_sq`.
    """

    def __init__(
        self,
        groups: Sequence[tuple[Sequence[Tensor], float]],
        rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        decoupled: bool = True,
    ) -> None:
        self.groups = [(list(tensors), decay) for tensors, decay in groups]
        self.betas, self.decoupled = betas, decoupled
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        device = self.groups[0][0][0].device
        precise = torch.float64 if device.type == "cpu" else torch.float32  # as the kernels read it
        self.rate = torch.tensor(rate, dtype=precise, device=device)

    def set_rate(self, rate: float | Tensor) -> None:
        """Change the learning rate."""
        self.rate.copy_(rate) if isinstance(rate, Tensor) else self.rate.fill_(rate)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for tensors, _ in self.groups:
            for tensor in tensors:
                tensor.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every tensor that has a gradient."""
        kernel = torch._fused_adamw_ if self.decoupled else torch._fused_adam_
        for tensors, decay in self.groups:
            moved = [tensor for tensor in tensors if tensor.grad is not None]
            if not moved:
                continue
            grads = [tensor.grad for tensor in moved if tensor.grad is not None]
            states = [self._state(tensor) for tensor in moved]
            steps = [state["step"] for state in states]
            torch._foreach_add_(steps, 1)
            kernel(
                moved,
                grads,
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                steps,
                lr=self.rate,
                beta1=self.betas[0],
                beta2=self.betas[1],
                weight_decay=decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )

    def _state(self, tensor: Tensor) -> dict[str, Tensor]:
        if tensor not in self.state:
            self.state[tensor] = {
                "step": torch.zeros((), dtype=torch.float32, device=tensor.device),
                "exp_avg": torch.zeros_like(tensor, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(tensor, memory_format=torch.preserve_format),
            }
        return self.state[tensor]
