"""The head of one choice among several."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ablate.models.heads.base import Head
from ablate.registry import register


@register("head", "softmax", order=6)
class Softmax(Head):
    """One choice among M, for environments of discrete actions: a softmax trained by cross-entropy.

    An action is a vector in [-1, 1]^M of which the largest number is executed (data: +1 for the choice, -1
    elsewhere); parameters are M logits. The log-probability is that of the choice, a probability and no
    density. Heads that treat the M numbers apart can't act greedily here: where the most likely number of
    each is -1, so is that of all.
    """

    density: ClassVar[bool] = True
    joint: ClassVar[bool] = False
    choices: ClassVar[bool] = True

    def __init__(self, width: int, action_dim: int, actions: np.ndarray | None = None) -> None:
        super().__init__(width, action_dim, action_dim)
        self.noise_dim = 1

    @classmethod
    def refusal(cls, actions: np.ndarray) -> str:
        if (np.abs(actions) == 1).all() and ((actions == 1).sum(axis=1) == 1).all():
            return ""
        return (
            "head: softmax draws one choice among several, and the actions aren't: they are numbers between"
            f" {actions.min():.3g} and {actions.max():.3g}; allowed: mse, gaussian, mixture, categorical,"
            " autoregressive."
        )

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """Log-probability (...,) of the choice that actions (..., M) stand for."""
        chosen = actions.argmax(-1, keepdim=True)
        log_probs = params.log_softmax(-1)
        lead = torch.broadcast_shapes(log_probs.shape[:-1], chosen.shape[:-1])
        picked = log_probs.expand(*lead, -1).gather(-1, chosen.expand(*lead, -1))
        return picked.squeeze(-1)

    def mean(self, params: Tensor) -> Tensor:
        """Expectation of the +-1 vector."""
        return 2.0 * params.softmax(-1) - 1.0

    def mode(self, params: Tensor) -> Tensor:
        """The most likely choice as a +-1 vector."""
        return self._vector(params.argmax(-1))

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """A choice by the inverse CDF at noise (..., 1)."""
        below = noise >= params.softmax(-1).cumsum(-1)  # (..., M)
        return self._vector(below.sum(-1).clamp(max=self.action_dim - 1))

    def _vector(self, chosen: Tensor) -> Tensor:
        every = torch.arange(self.action_dim, device=chosen.device)
        return 2.0 * (every == chosen[..., None]).to(self.linear.weight.dtype) - 1.0
