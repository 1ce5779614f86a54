"""A head of one's own: Laplace distributions, whose likelihood is the absolute error.

A head turns features into a distribution over numbers. In a policy these are an action's; in a joint model, which
predicts whole trajectories, also those of states, rewards and values.

    python -m ablate run examples/laplace.yaml
"""

import math

import torch
from torch import nn

from ablate.models.heads import Head
from ablate.registry import register


@register("head", "laplace", label="Laplace")
class Laplace(Head):
    """Means (M) and log scales (M), the latter learned and the same everywhere."""

    density = True

    def __init__(self, width, action_dim, actions=None, bounded=True):
        super().__init__(width, action_dim, action_dim)  # `linear`: (..., D) to (..., M)
        self.bounded, self.noise_dim = bounded, action_dim  # actions lie in [-1, 1]
        self.scales = nn.Parameter(torch.full((action_dim,), -1.0))

    def forward(self, features):
        """Parameters (..., 2 M) of features (..., D)."""
        means = self.linear(features)
        means = torch.tanh(means) if self.bounded else means
        return torch.cat([means, self.scales.clamp(-5, 1).expand_as(means)], dim=-1)

    def log_prob(self, params, actions):
        """Log-density (...,) of actions (..., M); the loss is its negative."""
        means, scales = params.chunk(2, dim=-1)
        return (-(actions - means).abs() / scales.exp() - scales - math.log(2.0)).sum(-1)

    def mean(self, params):
        """(..., M)."""
        return params.chunk(2, dim=-1)[0]

    mode = mean

    def sample(self, params, noise):
        """The quantile at noise (..., M) in [0, 1)."""
        means, scales = params.chunk(2, dim=-1)
        side = noise - 0.5
        drawn = means - scales.exp() * side.sign() * torch.log1p(-2 * side.abs().clamp(max=0.4999))
        return drawn.clamp(-1, 1) if self.bounded else drawn
