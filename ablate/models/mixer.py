"""The interface of a mixer: the part of a policy that carries information across time.

A user's own mixer subclasses `Mixer`, is registered with ``@register("mixer", NAME)`` and needs
`forward`, `start` and `step`; everything else has a default.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

State = tuple[Tensor, ...]


class Mixer(nn.Module, ABC):
    """Tokens (B, L, D) to features (B, L, D); position i sees i-context+1 .. i and no others.

    Windows are left-aligned: position 0 is the oldest visible timestep, the target is the last
    valid position, and what lies right of it is padding, which a causal mixer never sees.

    Args:
        width: D, the size of a token and of a feature.
        context: K, the largest number of visible timesteps.
        layers: depth.
        dropout: probability in [0, 1) of zeroing an activation while training.

    Class attributes:
        slides: True when `step` equals the window path also after more than `context` steps. When
            False the caller re-encodes the window once it begins to slide.
        width_multiple: widths must be multiples of this (e.g. a number of attention heads).
        carries: True when `step` may go on after `context` steps with a state that has seen more
            than the window shows. A mixer that slides can do so too.
        extends: True when no parameter belongs to a context, so that the weights also serve longer
            windows than they were trained on.
        stacks: parameters up to which several seeds train faster as one stack than one by one. It decides how they
            train (`ablate.trial.stacked`): measured once, on a CPU at a context of 20, not on each machine.
        stacked: set to True on the copy that runs under `torch.func.vmap`; a mixer whose fast
            kernel vmap refuses then takes another path with the same weights.

    `slides`, `carries` and `extends` may depend on an instance's options.

    Attributes:
        reach: tokens that a feature depends on, at most `context`; smaller where the kernels of all
            layers together see less.
    """

    slides: bool = False
    width_multiple: ClassVar[int] = 1
    carries: bool = False
    extends: bool = False
    stacks: ClassVar[int] = 60_000
    stacked: bool = False

    def __init__(self, width: int, context: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.width, self.context, self.layers, self.dropout = width, context, layers, dropout
        self.reach = context

    @abstractmethod
    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Features (B, L, D) at every position of windows (B, L, D) with validity mask (B, L).

        Features at padded positions are unspecified. Raises ValueError when L > context.
        """

    def every(self, tokens: Tensor, mask: Tensor, first: int, step: int) -> Tensor:
        """Features (B, R, D) at positions first, first + step, ..., those that are read; see `forward`.

        A mixer may leave uncomputed what no other position depends on.
        """
        return self.forward(tokens, mask)[:, first::step]

    def last(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Features (B, D) at the targets, positions lengths-1; lengths (B,) int64 >= 1."""
        mask = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        return at_targets(self.forward(tokens, mask), lengths)

    def newest(self, tokens: Tensor) -> Tensor:
        """Features (B, D) at the last position of windows (B, L, D) without padding; see `last`."""
        lengths = torch.full(tokens.shape[:1], tokens.shape[1], device=tokens.device)
        return self.last(tokens, lengths)

    @abstractmethod
    def start(self, batch: int, like: Tensor) -> State:
        """The state of `batch` empty histories, with the dtype and device of `like`."""

    @abstractmethod
    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """One timestep: token (B, D) and state to features (B, D) and the next state."""

    def steps(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Several tokens (B, n, D), n >= 1, one after another: features (B, D) at the last, and the next state."""
        for token in tokens.unbind(1):
            features, state = self.step(token, state)
        return features, state

    def flops(self) -> int:
        """Floating-point operations of the matrix products for one target with a full window.

        The default counts them by running `last` once; a mixer that knows its formula overrides it.
        """
        probe = copy.deepcopy(self).eval()
        set_stacked(probe, True)  # not every fused kernel is known to the counter
        like = next(iter(probe.parameters()))
        tokens = torch.zeros(1, self.context, self.width, dtype=like.dtype, device=like.device)
        lengths = torch.full((1,), self.context, device=like.device)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            probe.last(tokens, lengths)
        return counter.get_total_flops()

    def check_window(self, tokens: Tensor) -> None:
        """Raise ValueError when the window is longer than the context."""
        if tokens.shape[1] > self.context:
            raise ValueError(
                f"{type(self).__name__}: a window of {tokens.shape[1]} timesteps exceeds the "
                f"context of {self.context}."
            )


def set_stacked(module: nn.Module, value: bool) -> None:
    """Set `stacked` on a module and on everything inside it that has such an attribute."""
    for part in module.modules():
        if hasattr(part, "stacked"):
            setattr(part, "stacked", value)  # noqa: B010 - nn.Module types no plain attributes


def at_targets(values: Tensor, lengths: Tensor) -> Tensor:
    """values (B, L, D) at position lengths-1 of each row: (B, D)."""
    index = (lengths - 1)[:, None, None].expand(-1, 1, values.shape[-1])
    return values.gather(1, index).squeeze(1)


def before_targets(values: Tensor, lengths: Tensor, first: int, count: int) -> Tensor:
    """values (B, L, D) at lags first .. first+count-1 before each target: (B, count, D).

    Lag 0 is the target itself. Where the window is shorter than the lag the slot is zero.
    """
    lag = torch.arange(first, first + count, device=values.device)
    position = (lengths - 1)[:, None] - lag  # (B, count)
    index = position.clamp(min=0)[:, :, None].expand(-1, -1, values.shape[-1])
    return values.gather(1, index) * (position >= 0)[:, :, None]


def push(history: Tensor, newest: Tensor) -> Tensor:
    """History (B, N, D), newest first, with `newest` (B, D) put in front and the oldest dropped."""
    return torch.cat([newest[:, None], history[:, :-1]], dim=1) if history.shape[1] else history


def delays(weight: Tensor, length: int) -> Tensor:
    """Lag profiles (D, k), lag 0 first, as causal mixing matrices (D, length, length).

    Entry [d, i, j] is weight[d, i-j] for 0 <= i-j < k and zero elsewhere.
    """
    position = torch.arange(length, device=weight.device)
    lag = position[:, None] - position  # (L, L)
    seen = (lag >= 0) & (lag < weight.shape[1])
    return weight[:, lag.clamp(0, weight.shape[1] - 1)] * seen
