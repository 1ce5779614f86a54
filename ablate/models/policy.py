"""Assembly: features of a timestep -> embedding -> mixer -> norm -> head."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ablate.models.heads import Head
from ablate.models.linear import Linear
from ablate.models.mixer import Mixer, State
from ablate.registry import get

METHODS = ("last", "everywhere", "step")


@dataclass(frozen=True)
class ModelSpec:
    """Everything that determines a policy's shape.

    Attributes:
        mixer, head: registered names.
        context: K, visible timesteps.
        features: F, numbers that describe a timestep.
        action_dim: M.
        width: D; 0 where it is still to be solved for (see `ablate.models.match`).
        layers: depth of the mixer.
        dropout: probability.
    """

    mixer: str
    head: str
    context: int
    features: int
    action_dim: int
    width: int = 0
    layers: int = 2
    dropout: float = 0.0

    def at(self, width: int) -> ModelSpec:
        """The same shape at another width."""
        return dataclasses.replace(self, width=width)


class Policy(nn.Module):
    """A sequence policy. `forward` is the one entry, so that `torch.func` reaches every path."""

    def __init__(self, spec: ModelSpec, actions: np.ndarray | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.embed = Linear(spec.features, spec.width)
        mixer = get("mixer", spec.mixer)
        self.mixer: Mixer = mixer(spec.width, spec.context, spec.layers, spec.dropout)
        self.norm = nn.LayerNorm(spec.width)
        self.head: Head = get("head", spec.head)(spec.width, spec.action_dim, actions)

    def forward(self, *args: Any, method: str = "last") -> Any:
        """Run the path `method`, one of `METHODS`, with that method's arguments."""
        if method not in METHODS:
            raise ValueError(f"Policy: unknown method '{method}'; allowed: {', '.join(METHODS)}.")
        return getattr(self, method)(*args)

    def last(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Head parameters (B, P) at the targets of windows (B, L, F) with lengths (B,)."""
        return self.head(self.norm(self.mixer.last(self.embed(features), lengths)))

    def everywhere(self, features: Tensor, mask: Tensor) -> Tensor:
        """Head parameters (B, L, P) at every position of windows (B, L, F) with mask (B, L)."""
        return self.head(self.norm(self.mixer(self.embed(features), mask)))

    def start(self, batch: int, like: Tensor) -> State:
        """The state of `batch` empty histories."""
        return self.mixer.start(batch, like)

    def step(self, row: Tensor, state: State) -> tuple[Tensor, State]:
        """One timestep: features (B, F) and state to head parameters (B, P) and the next state."""
        mixed, state = self.mixer.step(self.embed(row), state)
        return self.head(self.norm(mixed)), state


def build(spec: ModelSpec, generator: torch.Generator, actions: np.ndarray | None = None) -> Policy:
    """A policy on the CPU whose initial weights come from `generator` alone.

    PyTorch's global generator, which modules initialise themselves from, is left as it was.
    """
    seed = int(torch.randint(0, 1 << 62, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Policy(spec, actions)


def count_parameters(policy: nn.Module) -> int:
    """Number of trained numbers."""
    return sum(p.numel() for p in policy.parameters() if p.requires_grad)


def flops_per_target(spec: ModelSpec) -> int:
    """Floating-point operations of the matrix products for one target with a full window."""
    with torch.device("meta"):
        policy = Policy(spec)
    ends = spec.context * policy.embed.weight.numel() + policy.head.linear.weight.numel()
    return 2 * ends + policy.mixer.flops()
