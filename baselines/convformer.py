"""Decision ConvFormer's token mixer: a causal depthwise convolution over a few tokens."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.models.dropout import Dropout
from ablate.models.linear import Linear
from ablate.models.mixer import Mixer, State, at_targets, before_targets, push
from ablate.registry import register


class ConvFormerBlock(nn.Module):
    """x + convolution(norm(x)), then x + mlp(norm(x)): a MetaFormer block (Yu et al. 2022).

    Each of `kinds` kinds of token has its own filters over the last `window` tokens; tokens that do
    not exist are zero.
    """

    def __init__(self, width: int, window: int, kinds: int, dropout: float, ratio: int = 4) -> None:
        super().__init__()
        self.window = window
        self.convolution_norm = nn.LayerNorm(width)
        bound = window**-0.5  # as torch.nn.Conv1d
        self.lags = nn.Parameter(torch.empty(kinds, window, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(kinds, width).uniform_(-bound, bound))
        self.mlp_norm = nn.LayerNorm(width)
        self.up = Linear(width, ratio * width)
        self.down = Linear(ratio * width, width)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, kind: Tensor) -> Tensor:
        """Every position (B, L, D), of kinds (L,)."""
        length = x.shape[1]
        before = F.pad(self.convolution_norm(x), (0, 0, self.window - 1, 0))
        lags = self.lags[kind]  # (L, window, D)
        mixed = self.bias[kind].expand_as(x)
        for lag in range(min(self.window, length)):
            start = self.window - 1 - lag
            mixed = mixed + before[:, start : start + length] * lags[:, lag]
        return self._mlp(x + mixed)

    def at(self, current: Tensor, inputs: Tensor, kind: Tensor) -> Tensor:
        """One position: current (B, D), normed inputs (B, window, D), newest first, kind (B,)."""
        return self._mlp(current + (inputs * self.lags[kind]).sum(1) + self.bias[kind])

    def _mlp(self, x: Tensor) -> Tensor:
        return x + self.drop(self.down(F.gelu(self.up(self.mlp_norm(x)))))


@register("mixer", "convformer", label="ConvFormer", order=7)
class ConvFormer(Mixer):
    """Decision ConvFormer (Kim et al. 2024): blocks of a small causal convolution and an MLP.

    With l layers a feature depends on the last l (window - 1) + 1 tokens, whatever the context.

    Args:
        window: tokens that a convolution spans; 6, two timesteps of three tokens, as released.
        kinds: kinds of token, which alternate and have filters of their own (return, state and
            action in the release); first: the kind of a window's first token.
    """

    carries = True
    extends = True

    def __init__(
        self,
        width: int,
        context: int,
        layers: int,
        dropout: float = 0.0,
        window: int = 6,
        kinds: int = 1,
        first: int = 0,
    ) -> None:
        super().__init__(width, context, layers, dropout)
        self.kinds, self.first = kinds, first
        self.blocks: Any = nn.ModuleList(
            ConvFormerBlock(width, window, kinds, dropout) for _ in range(layers)
        )
        span = layers * (window - 1) + 1
        self.reach = min(context, span)
        # Kinds are counted from the window's first token, so that a sliding window would shift them.
        self.slides = span <= context and kinds == 1
        # tokens that `last` needs to read; whole groups of kinds, so that they keep their order
        self.needed = min(context, span + kinds - 1)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        self.check_window(tokens)
        kind = self._kinds(tokens)
        for block in self.blocks:
            tokens = block(tokens, kind)
        return tokens

    def last(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """See `Mixer.last`; from the tokens within reach, the final block for the targets only."""
        self.check_window(tokens)
        if tokens.shape[1] > self.needed:
            start = (lengths - self.reach).clamp(min=0) // self.kinds * self.kinds  # (B,)
            rows = start[:, None] + torch.arange(self.needed, device=tokens.device)
            rows = rows.clamp(max=tokens.shape[1] - 1)[..., None].expand(-1, -1, self.width)
            tokens, lengths = tokens.gather(1, rows), lengths - start
        kind = self._kinds(tokens)
        for block in self.blocks[:-1]:
            tokens = block(tokens, kind)
        final = self.blocks[-1]
        inputs = before_targets(final.convolution_norm(tokens), lengths, 0, final.window)
        return final.at(at_targets(tokens, lengths), inputs, kind[lengths - 1])

    def start(self, batch: int, like: Tensor) -> State:
        """Each block's earlier normed inputs (B, window-1, D), newest first; the steps taken (B,)."""
        past = tuple(like.new_zeros(batch, block.window - 1, self.width) for block in self.blocks)
        return (*past, like.new_zeros(batch))

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        *past, count = state
        kind = ((count + self.first) % self.kinds).long()
        carried: list[Tensor] = []
        for block, history in zip(self.blocks, past, strict=True):
            normed = block.convolution_norm(token)
            token = block.at(token, torch.cat([normed[:, None], history], dim=1), kind)
            carried.append(push(history, normed))
        return token, (*carried, count + 1)

    def flops(self) -> int:
        """The MLP's 8 D^2 a token within reach; in the final block for the target alone."""
        return 2 * 8 * self.width**2 * ((self.layers - 1) * self.needed + 1)

    def _kinds(self, tokens: Tensor) -> Tensor:
        position = torch.arange(tokens.shape[1], device=tokens.device)
        return (position + self.first) % self.kinds
