"""Gated recurrent unit (Cho et al. 2014, in PyTorch's variant)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ablate.models.mixer import State
from ablate.registry import register
from baselines.recurrent import Recurrent


@register("mixer", "gru", label="GRU", order=3)
class GRU(Recurrent):
    """Stacked GRU; its weights are those of `torch.nn.GRU`."""

    parts = 1
    stacks = 100_000

    def __init__(self, width: int, context: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__(width, context, layers, dropout)
        between = dropout if layers > 1 else 0.0
        self.network = nn.GRU(width, width, layers, dropout=between, batch_first=True)

    def cell(self, projected: Tensor, recurrent: Tensor, state: State) -> State:
        """h' = (1-z) n + z h with gates in PyTorch's order r, z, n."""
        width = self.width
        gates = torch.sigmoid(projected[:, : 2 * width] + recurrent[:, : 2 * width])
        reset, update = gates.chunk(2, dim=-1)
        new = torch.tanh(torch.addcmul(projected[:, 2 * width :], reset, recurrent[:, 2 * width :]))
        return (torch.lerp(new, state[0], update),)
