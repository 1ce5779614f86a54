"""The order-free bag, a placebo: it has the same history as the others, but not its order."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.models.dropout import Dropout
from ablate.models.linear import Linear
from ablate.models.mixer import Mixer, State, at_targets, push
from ablate.registry import register


@register("mixer", "bag", label="bag (placebo)", order=9)
class Bag(Mixer):
    """Current token, mean embedding of the past tokens and their number, through dense layers.

    Any permutation of the past leaves the features as they are. Without a past the mean is zero.
    """

    slides = True
    stacks = 300_000

    def __init__(self, width: int, context: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__(width, context, layers, dropout)
        self.past = context - 1
        if self.past:
            self.embed = Linear(width, width)
        self.first = Linear(2 * width + 1 if self.past else width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers - 1))
        self.rest: Any = nn.ModuleList(Linear(width, width) for _ in range(layers - 1))
        self.drop = Dropout(dropout)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        self.check_window(tokens)
        if not self.past:
            return self._finish(self.first(tokens))
        embedded = F.gelu(self.embed(tokens))
        total = F.pad(embedded[:, :-1], (0, 0, 1, 0)).cumsum(1)  # (B, L, D), exclusive of itself
        count = torch.arange(tokens.shape[1], device=tokens.device, dtype=tokens.dtype)
        return self._combine(tokens, total, count[:, None].expand(*total.shape[:2], 1))

    def last(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        self.check_window(tokens)
        current = at_targets(tokens, lengths)
        if not self.past:
            return self._finish(self.first(current))
        position = torch.arange(tokens.shape[1], device=tokens.device)
        before = (position < (lengths - 1)[:, None])[..., None]  # (B, L, 1)
        total = (F.gelu(self.embed(tokens)) * before).sum(1)
        return self._combine(current, total, (lengths - 1).to(tokens.dtype)[:, None])

    def start(self, batch: int, like: Tensor) -> State:
        """Embedded past (B, K-1, D), newest first, and the number of past timesteps (B, 1)."""
        if not self.past:
            return ()
        return like.new_zeros(batch, self.past, self.width), like.new_zeros(batch, 1)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        if not self.past:
            return self._finish(self.first(token)), state
        past, count = state
        features = self._combine(token, past.sum(1), count)
        newest = F.gelu(self.embed(token))
        return features, (push(past, newest), (count + 1).clamp(max=self.past))

    def flops(self) -> int:
        """Every token of the window embedded once, then the dense layers."""
        embed = self.context * self.width**2 if self.past else 0
        dense = self.first.weight.numel() + sum(layer.weight.numel() for layer in self.rest)
        return 2 * (embed + dense)

    def _combine(self, current: Tensor, total: Tensor, count: Tensor) -> Tensor:
        """current and total (..., D), count (..., 1) of past timesteps."""
        inputs = [current, total / count.clamp(min=1), count / self.past]
        return self._finish(self.first(torch.cat(inputs, dim=-1)))

    def _finish(self, hidden: Tensor) -> Tensor:
        hidden = self.drop(F.gelu(hidden))
        for norm, layer in zip(self.norms, self.rest, strict=True):
            hidden = hidden + self.drop(F.gelu(layer(norm(hidden))))
        return hidden
