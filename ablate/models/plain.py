"""Causal blocks without what only training needs: no dropout, no modules, no derivative.

For few tokens at once, as one acting episode or one step of a search has, the calls of modules cost as much as the
products. The numbers are those of `ablate.models.attention.Block` in evaluation mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ablate.models.linear import linear

if TYPE_CHECKING:
    from ablate.models.attention import Block

State = tuple[Tensor, ...]


class Plain:
    """The parameters of a block, and what is done with rows (R, W) of any number of sequences."""

    def __init__(self, block: Block) -> None:
        self.heads = block.heads
        self.width = block.out.in_features
        self.relu = block.activation == "relu"
        self.norms = [
            (part.weight, part.bias, part.eps) for part in (block.attention_norm, block.mlp_norm)
        ]
        layers = (block.qkv, block.out, block.up, block.down)
        self.qkv, self.out, self.up, self.down = ((each.weight, each.bias) for each in layers)

    def project(self, x: Tensor) -> Tensor:
        """Queries, keys and values (R, 3 W), side by side, of x (R, W)."""
        return linear(self._norm(x, 0), *self.qkv)

    def query(self, x: Tensor) -> Tensor:
        """Queries (R, W) alone."""
        weight, bias = self.qkv
        return linear(self._norm(x, 0), weight[: self.width], bias[: self.width])

    def remember(self, x: Tensor) -> Tensor:
        """Keys and values (R, 2 W), side by side, alone."""
        weight, bias = self.qkv
        return linear(self._norm(x, 0), weight[self.width :], bias[self.width :])

    def finish(self, x: Tensor, seen: Tensor) -> Tensor:
        """What follows attention: x (R, W) and what was seen (R, W) to (R, W)."""
        x = linear(seen, *self.out).add_(x)
        hidden = linear(self._norm(x, 1), *self.up)
        hidden = hidden.relu_() if self.relu else F.gelu(hidden)
        return linear(hidden, *self.down).add_(x)

    def split(self, x: Tensor, sequences: int) -> Tensor:
        """Numbers (B L, n W) side by side as (n, B, H, L, d)."""
        size = self.width // self.heads
        return x.view(sequences, -1, x.shape[1] // self.width, self.heads, size).permute(
            2, 0, 3, 1, 4
        )

    def _norm(self, x: Tensor, number: int) -> Tensor:
        weight, bias, eps = self.norms[number]
        return torch.layer_norm(x, (self.width,), weight, bias, eps)


def advance(blocks: list[Plain], x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
    """Features (B, W) at the last of the positions (B, n, W), each of which sees those before it, and what to carry on.

    state: keys and values (B, H, t, d) of each block at positions before these, which all see; None for none.
    """
    sequences, count, width = x.shape
    rows = x.reshape(-1, width)
    visible = None
    if state is not None and state[0].shape[-2] and count > 1:
        before = state[0].shape[-2]
        visible = rows.new_ones(count, before + count, dtype=torch.bool).tril_(before)
    carried: list[Tensor] = []
    for number, block in enumerate(blocks):
        final = number == len(blocks) - 1
        if final and count > 1:  # of the last block one position is read
            k, v = block.split(block.remember(rows), sequences)
            rows = rows.view(sequences, count, width)[:, -1]
            (q,) = block.split(block.query(rows), sequences)
        else:
            q, k, v = block.split(block.project(rows), sequences)
        if state is not None:
            k = torch.cat([state[2 * number], k], -2)
            v = torch.cat([state[2 * number + 1], v], -2)
        alone = final or count == 1  # a single query sees everything
        seen = F.scaled_dot_product_attention(
            q, k, v, None if alone else visible, is_causal=not alone and visible is None
        )
        rows = block.finish(rows, seen.transpose(1, 2).reshape(-1, width))
        carried += [k, v]
    return rows, tuple(carried)
