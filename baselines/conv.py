"""Causal convolution: local, order-aware mixing with weights shared across time."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.models.dropout import Dropout
from ablate.models.linear import Linear
from ablate.models.mixer import Mixer, State, at_targets, before_targets, delays, push
from ablate.registry import register


class ConvBlock(nn.Module):
    """x + mlp(depthwise convolution of norm(x)), as in ConvNeXt; the mlp widens by `ratio`."""

    def __init__(self, width: int, kernel: int, dropout: float, ratio: int = 4) -> None:
        super().__init__()
        self.kernel = kernel
        self.norm = nn.LayerNorm(width)
        bound = kernel**-0.5
        self.lags = nn.Parameter(torch.empty(width, kernel).uniform_(-bound, bound))  # lag 0 first
        self.up = Linear(width, ratio * width)
        self.down = Linear(ratio * width, width)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Every position (B, L, D); delay matrices are twice as fast as a grouped convolution."""
        length = x.shape[1]
        mixing = delays(self.lags, length)  # (D, L, L)
        mixed = (mixing @ self.norm(x).permute(2, 1, 0)).permute(2, 1, 0)  # (B, L, D)
        return x + self._mlp(mixed)

    def at(self, current: Tensor, inputs: Tensor) -> Tensor:
        """One position: current (B, D), normed inputs (B, kernel, D), newest first."""
        return current + self._mlp((inputs * self.lags.t()).sum(1))

    def _mlp(self, mixed: Tensor) -> Tensor:
        return self.drop(self.down(F.gelu(self.up(mixed))))


@register("mixer", "conv", label="convolution", order=4)
class Conv(Mixer):
    """Depthwise-separable blocks whose kernels add up to a receptive field of exactly K."""

    slides = True
    stacks = 30_000

    def __init__(self, width: int, context: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__(width, context, layers, dropout)
        # kernels k_l with sum of (k_l - 1) = K - 1 see lag K-1 and nothing beyond it
        reach = [
            (context - 1) // layers + (number < (context - 1) % layers) for number in range(layers)
        ]
        self.blocks: Any = nn.ModuleList(ConvBlock(width, 1 + r, dropout) for r in reach)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        self.check_window(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens

    def last(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """See `Mixer.last`; the final block is computed for the targets only."""
        self.check_window(tokens)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        final = self.blocks[-1]
        inputs = before_targets(final.norm(tokens), lengths, 0, final.kernel)
        return final.at(at_targets(tokens, lengths), inputs)

    def start(self, batch: int, like: Tensor) -> State:
        """Each block's earlier normed inputs (B, kernel-1, D), newest first."""
        return tuple(like.new_zeros(batch, block.kernel - 1, self.width) for block in self.blocks)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        carried: list[Tensor] = []
        for block, history in zip(self.blocks, state, strict=True):
            normed = block.norm(token)
            token = block.at(token, torch.cat([normed[:, None], history], dim=1))
            carried.append(push(history, normed))
        return token, tuple(carried)

    def flops(self) -> int:
        """Pointwise layers 8 D^2 a token, the final block's only once, and delay matrices."""
        width, length = self.width, self.context
        block = 2 * length * 8 * width**2 + 2 * length**2 * width
        return (self.layers - 1) * block + 2 * 8 * width**2
