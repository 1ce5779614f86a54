"""Causal self-attention: pre-norm blocks as in GPT-2, over all earlier tokens or a sliding window."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ablate.errors import UserError, unknown
from ablate.models import plain
from ablate.models.dropout import Dropout, drop
from ablate.models.linear import Linear, linear
from ablate.models.mixer import Mixer, State
from ablate.models.plain import Plain
from ablate.registry import register

Activation = Literal["gelu", "relu"]
Positions = Literal["learned", "rotary", "none"]
Turn = tuple[Tensor, Tensor]  # cosines and sines, broadcasting to (B, H, L, R) for R rotated pairs

SHORT = (
    512  # up to this many tokens all scores may be held at once; beyond, memory has to be linear
)
QUERIES = (
    256  # queries of a long window that are scored at once where the fused kernel cannot serve
)
ROTARY_BASE = 10_000.0


def band(queries: int, keys: int, window: int, device: torch.device) -> Tensor:
    """(queries, keys), True where the last `queries` of so many positions may look.

    That is at themselves and earlier ones, of which with a window the last window-1.
    """
    position = torch.arange(keys, device=device)
    lag = position[keys - queries :, None] - position
    return (lag >= 0) & (lag < window) if window else lag >= 0


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int = 0,
    dropout: float = 0.0,
    stacked: bool = False,
    read: Tensor | None = None,
) -> Tensor:
    """Causal attention of L positions over themselves: (B, H, L, d) from q, k and v of that shape.

    Position i sees i-window+1 .. i, or everything up to i where `window` is 0, but of those only the
    ones that anybody reads: read, (L,) bool; None for all. dropout: probability of dropping a
    weight. stacked: the call may be inside `torch.func.vmap`. Memory is linear in L, and with a
    window time is too.
    """
    length = q.shape[-2]
    window = 0 if window >= length else window
    on_cpu = q.device.type == "cpu"
    if stacked and (length > SHORT or not on_cpu) and torch._C._functorch.is_batchedtensor(q):
        found: Tensor = _Replicas.apply(q, k, v, window, dropout, read)
        return found
    # On the CPU the fused kernel has no dropout and its fallback draws slow Bernoulli masks, and
    # vmap runs it one replica after another.
    fused = dropout == 0.0 or not on_cpu
    if fused and not window and read is None and not (stacked and length <= SHORT):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)
    if length <= SHORT:
        visible = _among(band(length, length, window, q.device), read)
        if read is not None and fused and not stacked:
            return F.scaled_dot_product_attention(q, k, v, visible, dropout_p=dropout)
        return _score(q, k, v, visible, dropout)
    parts = []
    size = max(QUERIES, window)
    for start in range(0, length, size):
        stop = min(start + size, length)
        first = max(0, start - window + 1) if window else 0
        part = (
            q[..., start:stop, :],
            k[..., first:stop, :],
            v[..., first:stop, :],
            _among(band(stop - start, stop - first, window, q.device), read, first),
        )
        if fused:
            parts.append(F.scaled_dot_product_attention(*part, dropout_p=dropout))
        else:  # the scores are computed again on the way back instead of being kept
            parts.append(checkpoint(_score, *part, dropout, use_reentrant=False))
    return torch.cat(parts, dim=-2)


def scored_pairs(length: int, window: int) -> int:
    """Query-key pairs of which `attend` computes a score, masked ones included."""
    if length <= SHORT or not window or window >= length:
        return length**2
    size = max(QUERIES, window)
    total = 0
    for start in range(0, length, size):
        stop = min(start + size, length)
        total += (stop - start) * (stop - max(0, start - window + 1))
    return total


def _among(visible: Tensor, read: Tensor | None, first: int = 0) -> Tensor:
    """What is visible (Q, L) of the L positions from `first` on, without those that nobody reads."""
    return visible if read is None else visible & read[first : first + visible.shape[1]]


def _score(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, dropout: float) -> Tensor:
    """Attention by explicit scores (B, H, Q, L); `visible` None hides nothing."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if visible is not None:
        scores = scores.masked_fill(~visible, float("-inf"))
    return drop(scores.softmax(-1), dropout) @ v


class _Replicas(torch.autograd.Function):
    """`attend` inside vmap: replicas join the batch, so that one call of the kernel serves all."""

    @staticmethod
    def forward(
        q: Tensor, k: Tensor, v: Tensor, window: int, dropout: float, read: Tensor | None
    ) -> Tensor:
        """Never reached: `attend` comes here from inside vmap only."""
        return attend(q, k, v, window, dropout, read=read)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept: what `vmap` calls differentiates itself."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        q, k, v = (
            (
                value.movedim(axis, 0)
                if axis is not None
                else value.expand(info.batch_size, *value.shape)
            )
            for value, axis in zip(args[:3], in_dims[:3], strict=True)
        )
        window, dropout, read = args[3:]
        q_, k_, v_ = (value.flatten(0, 1) for value in (q, k, v))
        merged = attend(q_, k_, v_, window, dropout, read=read)
        return merged.unflatten(0, q.shape[:2]), 0


def turns(index: Tensor, size: int, dtype: torch.dtype) -> Turn:
    """Cosines and sines (..., size // 2) of rotary positions (Su et al. 2021) at `index` (...,).

    Pair i of a head's numbers turns by index * 10000^(-2i/size): a product of a turned query and a
    turned key depends on the difference of their indices only. An odd last number is not turned.
    """
    pairs = size // 2
    exponent = torch.arange(pairs, device=index.device, dtype=torch.float64) / max(pairs, 1)
    angle = index[..., None].to(torch.float64) * ROTARY_BASE**-exponent
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x: Tensor, turn: Turn | None) -> Tensor:
    """x (..., d) with its pairs (x_i, x_{i+d//2}) turned; unchanged without a turn."""
    if turn is None:
        return x
    cos, sin = turn
    pairs = cos.shape[-1]
    first, second, rest = x[..., :pairs], x[..., pairs : 2 * pairs], x[..., 2 * pairs :]
    turned = (first * cos - second * sin, second * cos + first * sin, rest.to(cos.dtype))
    return torch.cat(turned, dim=-1).to(x.dtype)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); width must be divisible by `heads`.

    Dropout acts, as in GPT-2, on the attention weights and on what each of the two branches adds.
    window: positions that each position sees, itself included; 0 for all earlier ones.
    """

    stacked: bool = False

    def __init__(
        self,
        width: int,
        heads: int = 1,
        dropout: float = 0.0,
        ratio: int = 4,
        activation: Activation = "gelu",
        window: int = 0,
    ) -> None:
        super().__init__()
        if width % heads:
            raise UserError(
                f"model.heads: width {width} is not divisible by {heads} heads; allowed: a divisor."
            )
        self.heads = heads
        self.activation = activation
        self.window = window
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.up = Linear(width, ratio * width)
        self.down = Linear(ratio * width, width)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, turn: Turn | None = None, read: Tensor | None = None) -> Tensor:
        """Every position (B, L, D) of a causal window; `turn` of rotary positions, (L, R) each.

        read: (L,) bool, which positions anybody reads; None for all.
        """
        q, k, v = self.project(x, turn)
        seen = attend(q, k, v, self.window, self._dropping, self.stacked, read)
        return self.finish(x, seen)

    def project(self, x: Tensor, turn: Turn | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, H, L, d) of x (B, L, D)."""
        q, k, v = self._split(self.qkv(self.attention_norm(x)))
        return rotate(q, turn), rotate(k, turn), v

    def finish(self, x: Tensor, seen: Tensor) -> Tensor:
        """What follows attention: x (B, L, D) and what was seen (B, H, L, d) to (B, L, D)."""
        return self._mlp(x + self.drop(self.out(self._merge(seen))))

    def targets(
        self,
        x: Tensor,
        queries: Tensor,
        visible: Tensor,
        turn: Turn | None = None,
        query_turn: Turn | None = None,
    ) -> Tensor:
        """Only some positions of the last block: the rest would be computed and thrown away.

        x (B, L, D) gives keys and values, queries (B, Q, D) are rows of x, visible (B or 1, 1, Q,
        L) is True where a query may look; turns broadcast to (B, H, L or Q, R). Returns (B, Q, D).
        """
        width = x.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        k, v = self._split(self._linear(self.attention_norm(x), weight[width:], bias[width:]))
        (q,) = self._split(self._linear(self.attention_norm(queries), weight[:width], bias[:width]))
        seen = self._look(rotate(q, query_turn), rotate(k, turn), v, visible)
        return self.finish(queries, seen)

    def step(
        self,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        turn: Turn | None = None,
        visible: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One position (B, 1, D) after keys and values (B, H, t, D/H) of the earlier ones.

        visible: (1, t + 1) bool, where some are hidden.
        """
        q, k, v = self.project(x, turn)
        keys, values = torch.cat([keys, k], dim=-2), torch.cat([values, v], dim=-2)
        near = slice(-self.window if self.window else None, None)
        seen = self._look(q, keys[..., near, :], values[..., near, :], visible)
        return self.finish(x, seen), keys, values

    @property
    def _dropping(self) -> float:
        return self.drop.probability if self.training else 0.0

    def _mlp(self, x: Tensor) -> Tensor:
        relu = self.activation == "relu"
        hidden = linear(self.mlp_norm(x), self.up.weight, self.up.bias, self.stacked, relu)
        hidden = hidden if relu else F.gelu(hidden)
        return x + self.drop(self.down(hidden))

    def _look(self, q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None) -> Tensor:
        """(B, H, Q, d) from few queries (B, H, Q, d), keys and values (B, H, L, d)."""
        if self._dropping or self.stacked:
            return _score(q, k, v, visible, self._dropping)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=visible)

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


@register("mixer", "attention", label="attention", order=1)
class Attention(Mixer):
    """A stack of causal blocks over tokens.

    One head by default, so that any width serves. `step` carries keys and values within a window; a
    window that slides has to be re-encoded, since the kept keys have seen the dropped tokens. Only
    a sliding window of `window` tokens a block, without learned positions, steps on.

    Args:
        heads: of each block; they must divide the width.
        activation: of the feed-forward part, "gelu" or "relu".
        positions: "learned", an embedding of the index in the window; "rotary" (Su et al. 2021);
            "none": only causality tells the order.
        window: tokens that a block's position sees, itself included; 0 for all earlier ones. With l
            layers a feature depends on the last l (window - 1) + 1 tokens.
        embedding_dropout: of the tokens with their positions; None for `dropout`.
        unseen: (first, every): tokens first, first + every, ... are read by nobody, not even by themselves.
        spread: standard deviation of the initial learned positions.
    """

    stacks = 80_000

    def __init__(
        self,
        width: int,
        context: int,
        layers: int,
        dropout: float = 0.0,
        heads: int = 1,
        activation: Activation = "gelu",
        positions: Positions = "learned",
        window: int = 0,
        embedding_dropout: float | None = None,
        unseen: tuple[int, int] | None = None,
        spread: float = 0.02,
    ) -> None:
        super().__init__(width, context, layers, dropout)
        if unseen and window:
            raise UserError(
                f"model.window: found {window}; allowed where values are predicted and not read: 0, or "
                "settings.value_mask: false."
            )
        if activation not in get_args(Activation):
            raise unknown("model.activation", activation, get_args(Activation))
        if positions not in get_args(Positions):
            raise unknown("model.positions", positions, get_args(Positions))
        self.order = positions
        self.window = window
        self.unseen = unseen
        self.positions: nn.Parameter | None
        self.register_parameter("positions", None)
        if positions == "learned":
            # In place: where sizes are counted on no memory, a product would import PyTorch's compiler.
            self.positions = nn.Parameter(torch.randn(context, width).mul_(spread))
        self.blocks: Any = nn.ModuleList(
            Block(width, heads, dropout, activation=activation, window=window)
            for _ in range(layers)
        )
        self.drop = Dropout(dropout if embedding_dropout is None else embedding_dropout)
        self.extends = positions != "learned"
        self.carries = self.extends and window > 0
        if window:
            self.reach = min(context, layers * (window - 1) + 1)
            self.slides = self.carries and layers * (window - 1) + 1 <= context

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """See `Mixer.forward`. Padding lies right of the targets, where causality hides it."""
        return self._before(tokens, self.layers)[0]

    def every(self, tokens: Tensor, mask: Tensor, first: int, step: int) -> Tensor:
        """See `Mixer.every`; the final block is computed for what is read only, and draws no masks for the rest."""
        length = tokens.shape[1]
        if step == 1 or length > SHORT:  # all are read; or memory has to be linear
            return super().every(tokens, mask, first, step)
        x, turn = self._before(tokens, self.layers - 1)
        position = torch.arange(length, device=x.device)
        visible = band(length, length, self.window, x.device)[first::step]  # (R, L)
        if self.unseen:
            visible = visible & self.seen(position)
        query_turn = None if turn is None else (turn[0][first::step], turn[1][first::step])
        return self.blocks[-1].targets(x, x[:, first::step], visible, turn, query_turn)

    def seen(self, position: Tensor) -> Tensor:
        """Which of the positions (L,) anybody reads, (L,) bool."""
        if self.unseen is None:
            return torch.ones_like(position, dtype=torch.bool)
        first, every = self.unseen
        return (position < first) | ((position - first) % every != 0)

    def last(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """See `Mixer.last`; the final block is computed for the targets only."""
        x, turn = self._before(tokens, self.layers - 1)
        position = torch.arange(x.shape[1], device=x.device)
        visible = (position < lengths[:, None])[:, None, None]  # (B, 1, 1, L)
        if self.unseen:
            visible = visible & self.seen(position)
        if self.window:
            visible = visible & (position >= lengths[:, None] - self.window)[:, None, None]
        index = (lengths - 1)[:, None, None].expand(-1, 1, x.shape[-1])
        query_turn = self.turn((lengths - 1)[:, None, None], x)  # (B, 1, 1, R)
        found = self.blocks[-1].targets(x, x.gather(1, index), visible, turn, query_turn)
        return found.squeeze(1)

    def newest(self, tokens: Tensor) -> Tensor:
        """See `Mixer.newest`; without padding nothing has to be masked."""
        return (
            plain.advance(self.plain, self._place(tokens))[0]
            if self._bare
            else super().newest(tokens)
        )

    def steps(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """See `Mixer.steps`."""
        first, last = state[0].shape[-2], state[0].shape[-2] + tokens.shape[1]
        if not self._bare or last > self.context:
            return super().steps(tokens, state)
        if self.positions is not None:
            tokens = tokens + self.positions[first:last]
        return plain.advance(self.plain, tokens, state)

    @property
    def _bare(self) -> bool:
        """Whether all that is asked for is what `ablate.models.plain` gives."""
        special = self.unseen or self.window or self.order == "rotary" or self.stacked
        return not (special or self.training or torch.is_grad_enabled())

    @cached_property
    def plain(self) -> list[Plain]:
        """The blocks for inference; they hold the parameters themselves, not copies."""
        return [Plain(block) for block in self.blocks]

    def start(self, batch: int, like: Tensor) -> State:
        """Empty keys and values of every block, (B, H, 0, D/H) each.

        Where a state may be carried on under rotary positions, the number of steps (B,) as well.
        """
        heads = self.blocks[0].heads
        empty = like.new_zeros(batch, heads, 0, self.width // heads)
        state = (empty,) * (2 * self.layers)
        return (*state, like.new_zeros(batch)) if self._counts else state

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """See `Mixer.step`. Raises ValueError after `context` steps: re-encode the window then.

        A sliding window without learned positions steps on, with the keys that it still sees.
        """
        index = state[0].shape[-2]
        if index >= self.context and not self.carries:
            raise ValueError(f"Attention: {self.context} steps fill the window; re-encode it.")
        x = self.drop(token if self.positions is None else token + self.positions[index])[:, None]
        turn, visible = None, None
        if self.unseen:
            visible = self.seen(torch.arange(index + 1, device=x.device))[None]
        if self.order == "rotary":
            count = state[-1] if self._counts else token.new_full((1,), index)
            turn = self.turn(count[:, None, None], x)  # (B or 1, 1, 1, R)
        carried: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            x, keys, values = block.step(x, state[2 * number], state[2 * number + 1], turn, visible)
            if self.carries:
                keep = max(0, keys.shape[-2] - self.window + 1)
                keys, values = keys[..., keep:, :], values[..., keep:, :]
            carried += [keys, values]
        if self._counts:
            carried.append(state[-1] + 1)
        return x.squeeze(1), tuple(carried)

    def flops(self) -> int:
        """12 D^2 a token and block; in the final block 10 D^2 of them for the target alone."""
        width, length = self.width, self.context
        block = 2 * length * 12 * width**2 + 4 * scored_pairs(length, self.window) * width
        final = 2 * (2 * length + 10) * width**2 + 4 * length * width
        return (self.layers - 1) * block + final

    @property
    def _counts(self) -> bool:
        return self.carries and self.order == "rotary"

    def turn(self, index: Tensor, like: Tensor) -> Turn | None:
        """The turn of rotary positions; None with others."""
        if self.order != "rotary":
            return None
        return turns(index, self.width // self.blocks[0].heads, like.dtype)

    def _before(self, tokens: Tensor, blocks: int) -> tuple[Tensor, Turn | None]:
        """What the first so many blocks make of tokens (B, L, D), and the turn of their positions."""
        x = self._place(tokens)
        position = torch.arange(x.shape[1], device=x.device)
        turn = self.turn(position, x)
        read = self.seen(position) if self.unseen else None
        for block in self.blocks[:blocks]:
            x = block(x, turn, read)
        return x, turn

    def _place(self, tokens: Tensor) -> Tensor:
        self.check_window(tokens)
        if self.positions is None:
            return self.drop(tokens)
        return self.drop(tokens + self.positions[: tokens.shape[1]])
