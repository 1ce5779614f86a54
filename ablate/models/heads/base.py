"""The interface of a head; see the package."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn


class Head(nn.Module, ABC):
    """Features (..., D) to parameters (..., P) of a distribution over actions (..., M).

    Args:
        width: D.
        action_dim: M.
        actions: training actions (T, M), for heads that adapt to them; None where none are known.

    Attributes:
        density: whether `log_prob` is defined.
        weighted: whether a distribution needs the head's weights besides the parameters P.
        chained: whether one number may depend on another, given the feature, and `each_log_prob`, `pick`, `told`
            and `expected` say how; only asked in a joint model.
        joint: whether a joint model can use the head.
        choices: whether an action is one choice among several, +1 in one place and -1 elsewhere.
        noise_dim: how many uniform numbers in [0, 1) `sample` takes.
    """

    density: ClassVar[bool]
    weighted: ClassVar[bool] = False
    chained: ClassVar[bool] = False
    joint: ClassVar[bool] = True
    choices: ClassVar[bool] = False
    noise_dim: int

    def __init__(self, width: int, action_dim: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.linear = nn.Linear(width, outputs, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        """Parameters (..., P)."""
        return self.linear(features)

    @classmethod
    def refusal(cls, actions: np.ndarray) -> str:
        """Why training actions (T, M) would mean nothing to the head, in a sentence; "" where they mean something."""
        return ""

    def flops(self) -> int:
        """Floating-point operations of the matrix products for one timestep's distribution."""
        return 2 * self.linear.weight.numel()

    def loss(self, params: Tensor, actions: Tensor) -> Tensor:
        """What training minimises, (...,): by default the negative log-density."""
        return -self.log_prob(params, actions)

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """Log-density (...,) of actions (..., M). Raises TypeError for a head without a density."""
        raise TypeError(f"{type(self).__name__} has no density.")

    @abstractmethod
    def mean(self, params: Tensor) -> Tensor:
        """Expected action (..., M)."""

    @abstractmethod
    def mode(self, params: Tensor) -> Tensor:
        """The action (..., M) to take when nothing is left to chance."""

    @abstractmethod
    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Action (..., M) in [-1, 1] from uniform noise (..., noise_dim) in [0, 1)."""

    # Number by number, as a joint model is trained, searched and sampled. What stands here serves a head of one
    # number; a `chained` one says more.

    def each_loss(self, params: Tensor, numbers: Tensor) -> Tensor:
        """What training minimises for each of the numbers (..., M), given those before it: (..., M)."""
        return self.loss(params, numbers).unsqueeze(-1)

    def each_log_prob(self, params: Tensor, numbers: Tensor) -> Tensor:
        """Log-density (..., M) of each of the numbers (..., M), given those before it."""
        return self.log_prob(params, numbers).unsqueeze(-1)

    def number(self, params: Tensor, m: int) -> Tensor:
        """What of the parameters is about number m, given those that were told: (..., Q)."""
        return params

    def told(self, params: Tensor, m: int, number: Tensor) -> Tensor:
        """Parameters (..., P) for the later numbers, where number m is known to be `number` (...,)."""
        return params

    def pick(self, params: Tensor, m: int, noise: Tensor, likeliest: bool) -> Tensor:
        """Number m (...,), drawn with uniform noise (...,) or the likeliest, given those that were told."""
        if likeliest:
            return self.mode(params)[..., m]
        # further uniform numbers from the later digits of the one
        digits = noise.unsqueeze(-1) * 97.0 ** torch.arange(self.noise_dim, device=noise.device)
        return self.sample(params, digits % 1.0)[..., m]

    def expected(self, params: Tensor, m: int) -> Tensor:
        """Expectation (...,) of number m, given those that were told."""
        return self.mean(params)[..., m]
