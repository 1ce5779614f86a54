"""Causal self-attention: pre-norm blocks as in GPT-2."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.models.dropout import Dropout
from ablate.models.linear import Linear, linear
from ablate.models.mixer import Mixer, State
from ablate.registry import register

Activation = Literal["gelu", "relu"]


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); width must be divisible by `heads`.

    Dropout acts, as in GPT-2, on the attention weights and on what each of the two branches adds.
    """

    stacked: bool = False

    def __init__(
        self,
        width: int,
        heads: int = 1,
        dropout: float = 0.0,
        ratio: int = 4,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"attention: width {width} is not divisible by {heads} heads.")
        self.heads = heads
        self.activation = activation
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.up = Linear(width, ratio * width)
        self.down = Linear(ratio * width, width)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Every position (B, L, D) of a causal window."""
        q, k, v = self._split(self.qkv(self.attention_norm(x)))
        x = x + self.drop(self.out(self._merge(self._attend(q, k, v, None))))
        return self._mlp(x)

    def targets(self, x: Tensor, queries: Tensor, visible: Tensor) -> Tensor:
        """Only some positions of the last block: the rest would be computed and thrown away.

        x (B, L, D) gives keys and values, queries (B, Q, D) are rows of x, visible (B or 1, 1, Q,
        L) is True where a query may look. Returns (B, Q, D).
        """
        width = x.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        k, v = self._split(self._linear(self.attention_norm(x), weight[width:], bias[width:]))
        (q,) = self._split(self._linear(self.attention_norm(queries), weight[:width], bias[:width]))
        y = queries + self.drop(self.out(self._merge(self._attend(q, k, v, visible))))
        return self._mlp(y)

    def step(self, x: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One position (B, 1, D) after keys and values (B, H, t, D/H) of the earlier ones."""
        q, k, v = self._split(self.qkv(self.attention_norm(x)))
        keys, values = torch.cat([keys, k], dim=-2), torch.cat([values, v], dim=-2)
        everything = torch.ones(1, 1, 1, keys.shape[-2], dtype=torch.bool, device=x.device)
        x = x + self.drop(self.out(self._merge(self._attend(q, keys, values, everything))))
        return self._mlp(x), keys, values

    def _mlp(self, x: Tensor) -> Tensor:
        hidden = self.up(self.mlp_norm(x))
        # not in place: a linear layer's output is a view, whose gradient would then be copied twice
        hidden = F.relu(hidden) if self.activation == "relu" else F.gelu(hidden)
        return x + self.drop(self.down(hidden))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None) -> Tensor:
        """(B, H, Q, d) from q (B, H, Q, d), k and v (B, H, L, d); `visible` None means causal."""
        dropping = self.training and self.drop.probability > 0.0
        if not dropping and not self.stacked:
            return F.scaled_dot_product_attention(
                q, k, v, attn_mask=visible, is_causal=visible is None
            )
        # on the CPU the fused kernel has no dropout, its fallback draws slow Bernoulli masks, and
        # vmap runs it one replica after another
        if visible is None:
            visible = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, H, Q, L)
        return self.drop(scores.masked_fill(~visible, float("-inf")).softmax(-1)) @ v

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return linear(x, weight, bias, self.stacked)

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, L, n D) to n tensors (B, H, L, D/H)."""
        batch, length, _ = x.shape
        size = self.out.in_features // self.heads
        return x.view(batch, length, -1, self.heads, size).permute(2, 0, 3, 1, 4).unbind(0)

    @staticmethod
    def _merge(x: Tensor) -> Tensor:
        """(B, H, L, d) to (B, L, H d)."""
        return x.transpose(1, 2).flatten(2)


@register("mixer", "attention")
class Attention(Mixer):
    """A stack of causal blocks over tokens with a learned embedding of the index in the window.

    One head by default, so that any width serves. `step` carries keys and values within a window; a
    sliding window has to be re-encoded, since the kept keys have seen the dropped timesteps.
    """

    def __init__(
        self, width: int, context: int, layers: int, dropout: float = 0.0, heads: int = 1
    ) -> None:
        super().__init__(width, context, layers, dropout)
        self.positions = nn.Parameter(0.02 * torch.randn(context, width))
        self.blocks: Any = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.drop = Dropout(dropout)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """See `Mixer.forward`. Padding lies right of the targets, where causality hides it."""
        x = self._place(tokens)
        for block in self.blocks:
            x = block(x)
        return x

    def last(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """See `Mixer.last`; the final block is computed for the targets only."""
        x = self._place(tokens)
        for block in self.blocks[:-1]:
            x = block(x)
        position = torch.arange(x.shape[1], device=x.device)
        visible = (position < lengths[:, None])[:, None, None]  # (B, 1, 1, L)
        index = (lengths - 1)[:, None, None].expand(-1, 1, x.shape[-1])
        return self.blocks[-1].targets(x, x.gather(1, index), visible).squeeze(1)

    def start(self, batch: int, like: Tensor) -> State:
        """Empty keys and values of every block, (B, H, 0, D/H) each."""
        heads = self.blocks[0].heads
        empty = like.new_zeros(batch, heads, 0, self.width // heads)
        return (empty,) * (2 * self.layers)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """See `Mixer.step`. Raises ValueError after `context` steps: re-encode the window then."""
        index = state[0].shape[-2]
        if index >= self.context:
            raise ValueError(f"Attention: {self.context} steps fill the window; re-encode it.")
        x = self.drop(token + self.positions[index])[:, None]  # (B, 1, D)
        carried: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            x, keys, values = block.step(x, state[2 * number], state[2 * number + 1])
            carried += [keys, values]
        return x.squeeze(1), tuple(carried)

    def flops(self) -> int:
        """12 D^2 a token and block; in the final block 10 D^2 of them for the target alone."""
        width, length = self.width, self.context
        block = 2 * length * 12 * width**2 + 4 * length**2 * width
        final = 2 * (2 * length + 10) * width**2 + 4 * length * width
        return (self.layers - 1) * block + final

    def _place(self, tokens: Tensor) -> Tensor:
        self.check_window(tokens)
        return self.drop(tokens + self.positions[: tokens.shape[1]])
