"""The MLP over the stacked window: what is history worth without any machinery for sequences?"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.models.dropout import Dropout
from ablate.models.linear import Linear, linear
from ablate.models.mixer import Mixer, State, at_targets, before_targets, push
from ablate.registry import register

CHANNELS = 32  # a past timestep never needs more: observations, actions and conditions are fewer
SLOTS = 12  # the past is given at most SLOTS * width numbers, so that the width stays useful


@register("mixer", "mlp", label="MLP", order=5)
class MLP(Mixer):
    """A dense layer over K stacked timesteps, right-aligned to the target; then residual ones.

    The current token enters whole. Past tokens pass through a shared linear map to a few channels
    first: tokens are linear images of the few inputs of a timestep, so stacking all of their D
    numbers would spend parameters on redundant weights. Timesteps that do not exist give zeros,
    where existing ones carry the map's bias, and one more input says what fraction of the window is
    filled.

    Where (K-1) full slots would not fit in SLOTS * D numbers, slots are cut to fewer channels, the
    last of which only the more recent timesteps keep; so the number of parameters grows smoothly
    with the width.
    """

    slides = True
    stacks = 300_000

    def __init__(self, width: int, context: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__(width, context, layers, dropout)
        self.past = context - 1
        stacked = 0
        if self.past:
            slots = self.past * min(width, CHANNELS)
            self.stacked_past = max(self.past, min(slots, SLOTS * width))
            self.channels = -(-self.stacked_past // self.past)
            self.compress = Linear(width, self.channels)
            stacked = self.stacked_past + 1
        self.first = Linear(width + stacked, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers - 1))
        self.rest: Any = nn.ModuleList(Linear(width, width) for _ in range(layers - 1))
        self.drop = Dropout(dropout)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """See `Mixer.forward`: every position's stack at once is a convolution over the past."""
        self.check_window(tokens)
        lags = min(self.past, tokens.shape[1] - 1)
        now = self.first.weight[:, : self.width]
        hidden = linear(tokens, now, self.first.bias, self.stacked)
        if self.past:
            weight = self.first.weight[:, self.width : -1]  # (D, stacked), channel-major
            index = torch.arange(tokens.shape[1], device=tokens.device, dtype=tokens.dtype)
            hidden = hidden + (index / self.past)[:, None] * self.first.weight[:, -1]
            if lags:
                full = F.pad(weight, (0, self.channels * self.past - self.stacked_past))
                kernel = full.unflatten(1, (self.channels, self.past))[..., :lags].flip(-1)
                before = F.pad(
                    self.compress(tokens).transpose(1, 2), (lags, -1)
                )  # (B, C, lags+L-1)
                hidden = hidden + F.conv1d(before, kernel).transpose(1, 2)
        return self._finish(hidden)

    def last(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        self.check_window(tokens)
        current = at_targets(tokens, lengths)
        if not self.past:
            return self._finish(self.first(current))
        past = before_targets(self.compress(tokens), lengths, 1, self.past)
        return self._stack(current, past, (lengths - 1).to(tokens.dtype))

    def start(self, batch: int, like: Tensor) -> State:
        """Compressed past (B, K-1, C), newest first, and the number of past timesteps (B,)."""
        if not self.past:
            return ()
        return like.new_zeros(batch, self.past, self.channels), like.new_zeros(batch)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        if not self.past:
            return self._finish(self.first(token)), state
        past, count = state
        features = self._stack(token, past, count)
        return features, (push(past, self.compress(token)), (count + 1).clamp(max=self.past))

    def flops(self) -> int:
        """Every token of the window compressed once, then the dense layers."""
        compress = self.context * self.compress.weight.numel() if self.past else 0
        dense = self.first.weight.numel() + sum(layer.weight.numel() for layer in self.rest)
        return 2 * (compress + dense)

    def _stack(self, current: Tensor, past: Tensor, count: Tensor) -> Tensor:
        """current (B, D), past (B, K-1, C) newest first, count (B,) of existing past timesteps."""
        slots = past.transpose(1, 2).flatten(1)[:, : self.stacked_past]
        filled = (count / self.past)[:, None]
        return self._finish(self.first(torch.cat([current, slots, filled], dim=1)))

    def _finish(self, hidden: Tensor) -> Tensor:
        hidden = self.drop(F.gelu(hidden))
        for norm, layer in zip(self.norms, self.rest, strict=True):
            hidden = hidden + self.drop(F.gelu(layer(norm(hidden))))
        return hidden
