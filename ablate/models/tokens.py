"""How a timestep becomes tokens: the factor `layout`, apart from head and input.

A row of F numbers (see `ablate.models.layouts`) is cut into n tokens. What came before the timestep,
the action and reward that led to it, goes first; then what the policy is conditioned on; then the
observation, whose last token gives the feature that the head reads. So with return-to-go as
condition the layout `modality` is the Decision Transformer's sequence ... a_{t-1}, R_t, s_t, a_t ...,
read at s_t. The action before a window is not visible: the tokens that would show it are left out.

A joint model reads the same tokens, and predicts each from those before it: ... s_t, a_t, r_t, V_t, s_{t+1} ...

An encoder of images would be such a tokenizer: one whose observation token comes from a network.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ablate.errors import UserError, unknown
from ablate.models.discretise import Discretiser
from ablate.models.dropout import Dropout
from ablate.models.linear import Linear, linear
from ablate.models.spec import BINS, Column, ModelSpec
from ablate.registry import get, names, register

UNFITTED = 3.0  # bins that were fitted to nothing span this many standard deviations
_CHUNK = re.compile(r"chunk-([1-9]\d*)")


@dataclass(frozen=True)
class Token:
    """One token of a timestep: the columns of the row that it shows.

    before: whether they belong to the timestep before.
    """

    name: str
    start: int
    stop: int
    before: bool


class Tokenizer(nn.Module, ABC):
    """Rows (B, L, F) to tokens (B, L n - h, D): n a timestep, without the first h of the window.

    Each token is an affine map of its columns; with discretised input the sum of a learned embedding
    of the bin of each. Where the spec says so, the embedding of the token's timestep is added (an
    action's is that of the timestep at which it was taken), and tokens are normed and dropped.

    Args:
        spec: what to build.
        discretiser: bins of the columns, for discretised input; by default those of standardised
            columns.
        dropout: probability of dropping an entry of a token.

    Attributes:
        tokens: the n tokens of a timestep, in order.
        hidden: h, the tokens of the window's first timestep that would show what came before it.
        still: whether the other tokens of a window's first timestep are what they would be further on.
    """

    stacked: bool = False

    def __init__(
        self, spec: ModelSpec, discretiser: Discretiser | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        columns = list(spec.named_columns)
        if spec.timesteps:
            columns.pop()  # the timestep is looked up, not shown
        self.tokens = self.cut(columns)
        self.hidden = sum(token.before for token in self.tokens)
        self.discretiser = None
        if spec.input == "discretised":
            count = sum(width for _, width, _, _ in columns)
            self.discretiser = unfitted(count, spec.bins) if discretiser is None else discretiser
            if self.discretiser.columns != count:
                raise ValueError(f"{self.discretiser.columns} columns have bins, not {count}.")
        # Of nameless numbers nobody knows which a window's first timestep hides.
        shown = [first for _, width, first, _ in columns for _ in range(width)]
        self.still = bool(spec.columns) and all(
            token.before or all(shown[token.start : token.stop]) for token in self.tokens
        )
        self.make(spec.width)
        self.end: nn.Parameter | None = None  # the bin N of every number: the episode is over
        if self.discretiser is not None and spec.predicts == "all":
            self.end = nn.Parameter(torch.randn(spec.width).mul_(0.02))
        self.timesteps = nn.Embedding(spec.timesteps, spec.width) if spec.timesteps else None
        if self.timesteps is not None and spec.timestep_std is not None:
            nn.init.normal_(self.timesteps.weight, std=spec.timestep_std)
        self.norm = nn.LayerNorm(spec.width) if spec.token_norm else None
        self.drop = Dropout(dropout)

    @abstractmethod
    def cut(self, columns: list[Column]) -> list[Token]:
        """The tokens of a timestep, in order; a policy's head reads at the last one. Knows only the class."""

    @property
    def per_step(self) -> int:
        """n."""
        return len(self.tokens)

    def make(self, width: int) -> None:
        """Make the layers, one a token."""
        layers: dict[str, nn.Module] = {}
        for token in self.tokens:
            size = token.stop - token.start
            if self.discretiser is None:
                layers[token.name] = Linear(size, width)
            else:
                table = nn.Embedding(size * self.discretiser.bins, width)
                nn.init.normal_(table.weight, std=0.02)  # as the GPTs' embeddings
                layers[token.name] = table
        self.layers = nn.ModuleDict(layers)

    def content(self, rows: Tensor) -> Tensor:
        """What the tokens of each timestep show, (..., F) to (..., n, D); rows of numbers, or of their bins."""
        return torch.stack([self.token(rows, number) for number in range(self.per_step)], dim=-2)

    def token(self, rows: Tensor, number: int) -> Tensor:
        """Content (..., D) of one token, from the whole rows (..., F)."""
        token = self.tokens[number]
        shown = rows[..., token.start : token.stop]
        layer = self.layers[token.name]
        if self.discretiser is None:
            return layer(shown)
        bins = self.discretiser.bins
        own = torch.arange(token.stop - token.start, device=rows.device) * bins
        if not rows.is_floating_point():
            each = layer(shown.clamp(max=bins - 1) + own)  # (..., numbers, D)
            if self.end is not None:
                each = torch.where((shown == bins).unsqueeze(-1), self.end, each)
            return each.sum(-2)
        index = self.discretiser.encode(shown, token.start)

        def beside() -> Tensor:
            return torch.where(index < bins - 1, index + 1, index - 1) + own

        return look_up(layer, index + own, beside, shown).sum(-2)

    def group(self, rows: Tensor) -> Tensor:
        """All tokens of each timestep, (..., F) to (..., n, D)."""
        tokens = self.content(rows)
        if self.timesteps is not None:
            now = rows[..., -1:].expand(*rows.shape[:-1], self.per_step)
            time = torch.cat([now[..., : self.hidden] - 1, now[..., self.hidden :]], dim=-1)
            # later timesteps share the last entry, as in the released code (gym/experiment.py)
            last = self.timesteps.num_embeddings - 1
            index = time.long().clamp(0, last)

            def beside() -> Tensor:
                return torch.where(index < last, index + 1, index - (time <= last).long()).clamp(0)

            tokens = tokens + look_up(self.timesteps, index, beside, time)
        return self.drop(tokens if self.norm is None else self.norm(tokens))

    def forward(self, rows: Tensor) -> Tensor:
        """Tokens of windows (B, L, F), in the order in which the mixer reads them."""
        return self.group(rows).flatten(1, 2)[:, self.hidden :]

    def length(self, timesteps: Any) -> Any:
        """How many tokens windows of so many timesteps have."""
        return timesteps * self.per_step - self.hidden

    def mask(self, mask: Tensor) -> Tensor:
        """Which tokens are valid (B, L n - h), from the timesteps that are (B, L)."""
        return mask.repeat_interleave(self.per_step, dim=1)[:, self.hidden :]

    @property
    def read(self) -> tuple[int, int]:
        """The token whose feature is the first timestep's, and how many tokens later the next one's is."""
        return self.per_step - 1 - self.hidden, self.per_step

    def flops(self) -> int:
        """Floating-point operations of the matrix products for one timestep."""
        if self.discretiser is not None:
            return 0
        return 2 * sum(p.numel() for name, p in self.layers.named_parameters() if "weight" in name)


@register("layout", "step")
class Step(Tokenizer):
    """Everything of a timestep in one token."""

    def cut(self, columns: list[Column]) -> list[Token]:
        return [Token("row", 0, sum(width for _, width, _, _ in columns), False)]

    def make(self, width: int) -> None:
        """See `Tokenizer.make`. The only layer's weights are the tokenizer's own."""
        if self.discretiser is not None:
            return super().make(width)
        layer = Linear(self.tokens[0].stop, width)
        self.weight, self.bias = layer.weight, layer.bias

    def token(self, rows: Tensor, number: int) -> Tensor:
        if self.discretiser is not None:
            return super().token(rows, number)
        return linear(rows[..., : self.weight.shape[1]], self.weight, self.bias, self.stacked)

    def flops(self) -> int:
        return 0 if self.discretiser is not None else 2 * self.weight.numel()


class Chunk(Tokenizer):
    """Each column's numbers in chunks of `size`, the last one shorter; no chunk spans two columns."""

    size: int

    def cut(self, columns: list[Column]) -> list[Token]:
        tokens: list[list[Token]] = [[], [], []]  # what came before, conditions, the observation
        start = 0
        for name, width, first, _ in columns:
            place = 0 if not first else 2 if name in ("observation", "row") else 1
            for number, low in enumerate(range(start, start + width, self.size)):
                high = min(low + self.size, start + width)
                several = width > self.size
                label = f"{name}_{number}" if several else name
                tokens[place].append(Token(label, low, high, not first))
            start += width
        return [token for kind in tokens for token in kind]


@register("layout", "modality", version="2")
class Modality(Chunk):
    """A token for each kind of thing, as in the Decision Transformer."""

    size = 1 << 30


@register("layout", "dimension", version="2")
class Dimension(Chunk):
    """A token for each number, as in the Trajectory Transformer."""

    size = 1


def look_up(
    table: nn.Module, index: Tensor, beside: Callable[[], Tensor], values: Tensor
) -> Tensor:
    """Entries (..., D) of an embedding at `index` (...,), which `values` (...,) fall on.

    A lookup has no derivative. Where one is asked for, by the audit, it is that of the line to the
    neighbouring entry `beside`, so that influences show which are too faint for a perturbation.
    """
    found: Tensor = table(index)
    if not (values.requires_grad and torch.is_grad_enabled()):
        return found
    slope = (table(beside()) - found).detach()
    return found + (values - values.detach()).unsqueeze(-1) * slope


def tokenizer(name: str) -> type[Tokenizer]:
    """The layout called `name`. Raises UserError for an unknown one."""
    chunk = _CHUNK.fullmatch(name)
    if chunk is not None:
        return type("Chunks", (Chunk,), {"size": int(chunk[1])})
    if name not in names("layout"):
        raise unknown("layout", name, [*names("layout"), "chunk-G (G = 1, 2, ...)"])
    found: type[Tokenizer] = get("layout", name)
    return found


@lru_cache(maxsize=1024)
def tokens_of(spec: ModelSpec) -> tuple[Token, ...]:
    """The tokens of a timestep, without building anything. Raises UserError for an unknown layout."""
    kind = tokenizer(spec.layout)
    columns = list(spec.named_columns)
    return tuple(kind.cut(kind.__new__(kind), columns[:-1] if spec.timesteps else columns))


@lru_cache(maxsize=1024)
def stream(spec: ModelSpec) -> tuple[tuple[int, ...], ...]:
    """Which slots of a joint model's rows each token of a timestep holds, in the order of the sequence.

    The observation comes first, since a row is told from its beginning. Where one token holds the whole row it
    is the observation with what came before it, and predicts (a, r, V) and the next observation. Raises
    UserError where a layout puts an observation into a token with other things and has further tokens.
    """
    tokens = tokens_of(spec)
    first = spec.observation_dim
    if len(tokens) == 1:
        return ((*range(first, spec.slots), *range(first)),)
    if any(token.start < first < token.stop for token in tokens):
        raise UserError(
            f"layout '{spec.layout}': a joint model needs the observation in tokens of its own."
        )
    ordered = sorted(tokens, key=lambda token: token.before)
    return tuple(tuple(range(token.start, token.stop)) for token in ordered)


@register("input", "continuous", order=1)
def no_bins(rows: Tensor, spec: ModelSpec) -> None:
    """Numbers enter as they are."""


@register("input", "discretised", order=2)
def fit_bins(rows: Tensor, spec: ModelSpec) -> Discretiser:
    """Bins of equal counts for discretised input, of the training data's rows (T, F)."""
    shown = rows[:, :-1] if spec.timesteps else rows
    return Discretiser.fit(shown.cpu().numpy(), spec.bins)


def unfitted(columns: int, bins: int = BINS) -> Discretiser:
    """Bins of equal width for `columns` that are standardised, for models without data."""
    edges = np.tile(np.linspace(-UNFITTED, UNFITTED, bins + 1), (columns, 1))
    return Discretiser(edges[:, :-1], edges[:, 1:], np.full(columns, bins))
