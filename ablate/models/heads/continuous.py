"""Heads of real numbers: their mean alone, one Gaussian, or several."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.models.heads.base import Head
from ablate.registry import register

COMPONENTS = 5
STD_RANGE = (0.01, 2.0)  # standard deviations of a mixture component, in action units
STD_START = 0.5
FREE_RANGE = (math.exp(-5.0), math.exp(2.0))  # the same of standardised numbers
FREE_START = 1.0


class Continuous(Head):
    """Numbers in [-1, 1], or any where they aren't `bounded`."""

    def __init__(
        self,
        width: int,
        action_dim: int,
        actions: np.ndarray | None = None,
        bounded: bool = True,
    ) -> None:
        super().__init__(width, action_dim, self.outputs(action_dim))
        self.bounded = bounded
        self.begin()

    @staticmethod
    def outputs(action_dim: int) -> int:
        """How many numbers are a linear map of the feature."""
        return action_dim

    def begin(self) -> None:
        """Set up what there is beside the linear map: nothing."""

    def centre(self, features: Tensor) -> Tensor:
        """The linear map, through a tanh where numbers are bounded."""
        return torch.tanh(self.linear(features)) if self.bounded else self.linear(features)

    def clipped(self, numbers: Tensor) -> Tensor:
        """The numbers within their bounds."""
        return numbers.clamp(-1.0, 1.0) if self.bounded else numbers


@register("head", "mse", order=1)
class SquaredError(Continuous):
    """The Decision Transformer's: tanh of a linear map, mean squared error; no distribution."""

    density: ClassVar[bool] = False
    noise_dim = 0

    def forward(self, features: Tensor) -> Tensor:
        """The predicted action (..., M)."""
        return self.centre(features)

    def loss(self, params: Tensor, actions: Tensor) -> Tensor:
        """Squared error averaged over the action's dimensions, (...,)."""
        return (params - actions).square().mean(-1)

    def mean(self, params: Tensor) -> Tensor:
        """The prediction."""
        return params

    def mode(self, params: Tensor) -> Tensor:
        """The prediction."""
        return params

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """The prediction; noise (..., 0) is unused."""
        return params


@register("head", "gaussian", order=2)
class Gaussian(Continuous):
    """A diagonal Gaussian whose standard deviations are learned and the same in every state.

    As the policies of RvS (Emmons et al. 2022) and IQL (Kostrikov et al. 2022), with IQL's tanh on the
    mean; the deviations stay within `STD_RANGE`, as the mixture's do, so that their densities compare.
    Parameters are means (M) and squashed log standard deviations (M).
    """

    density: ClassVar[bool] = True

    def begin(self) -> None:
        self.noise_dim = self.action_dim
        self.scales = nn.Parameter(torch.full((self.action_dim,), _squashed(self.bounded)))

    def forward(self, features: Tensor) -> Tensor:
        """Means and squashed log standard deviations (..., 2 M)."""
        means = self.centre(features)
        return torch.cat([means, self.scales.expand_as(means)], dim=-1)

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """sum_m log N(a_m; mu_m, sigma_m), (...,)."""
        means, scales = params.chunk(2, dim=-1)
        return _normal(actions, means, _log_std(scales, self.bounded)).sum(-1)

    def mean(self, params: Tensor) -> Tensor:
        """The means."""
        return params.chunk(2, dim=-1)[0]

    def mode(self, params: Tensor) -> Tensor:
        """The means."""
        return self.mean(params)

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Normal quantiles of noise (..., M), clipped to [-1, 1]."""
        means, scales = params.chunk(2, dim=-1)
        return self.clipped(means + _log_std(scales, self.bounded).exp() * _quantile(noise))


def _log_std(squashed: Tensor, bounded: bool) -> Tensor:
    """Log standard deviation within `STD_RANGE`, or `FREE_RANGE`, of any number."""
    low, high = map(math.log, STD_RANGE if bounded else FREE_RANGE)
    return low + (high - low) * torch.sigmoid(squashed)


def _squashed(bounded: bool) -> float:
    """The number that `_log_std` makes the logarithm of the first standard deviation of."""
    low, high = map(math.log, STD_RANGE if bounded else FREE_RANGE)
    share = (math.log(STD_START if bounded else FREE_START) - low) / (high - low)
    return math.log(share / (1.0 - share))


def _normal(values: Tensor, means: Tensor, log_std: Tensor) -> Tensor:
    """Log-density of a normal distribution, elementwise."""
    z = (values - means) * torch.exp(-log_std)
    return -0.5 * z.square() - log_std - 0.5 * math.log(2.0 * math.pi)


def _quantile(noise: Tensor) -> Tensor:
    """Quantiles of the standard normal at noise in [0, 1), within five standard deviations."""
    return math.sqrt(2.0) * torch.erfinv((2.0 * noise - 1.0).clamp(-0.999999, 0.999999))


@register("head", "mixture", order=3)
class Mixture(Continuous):
    """Five Gaussians with diagonal covariance, standard deviations bounded by `STD_RANGE`.

    Parameters are component logits (C), means (C, M) and squashed log standard deviations (C, M).
    """

    density: ClassVar[bool] = True
    chained: ClassVar[bool] = True

    @staticmethod
    def outputs(action_dim: int) -> int:
        return COMPONENTS * (1 + 2 * action_dim)

    def begin(self) -> None:
        self.noise_dim = 1 + self.action_dim
        with torch.no_grad():
            _, means, scales = self._split_raw(self.linear.bias)
            # apart from the start, since equal components receive equal gradients
            means.uniform_(-1.0, 1.0)
            scales.fill_(_squashed(self.bounded))

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """log sum_c w_c prod_m N(a_m; mu_cm, sigma_cm), (...,)."""
        log_weights, means, log_std = self._split(params)
        each = _normal(actions[..., None, :], means, log_std)  # (..., C, M)
        return torch.logsumexp(log_weights + each.sum(-1), dim=-1)

    def each_log_prob(self, params: Tensor, numbers: Tensor) -> Tensor:
        """See `Head.each_log_prob`: what a number adds to the density of those before it."""
        log_weights, means, log_std = self._split(params)
        so_far = log_weights[..., None] + _normal(numbers[..., None, :], means, log_std).cumsum(-1)
        total = torch.logsumexp(so_far, dim=-2)  # (..., M)
        return total - F.pad(total[..., :-1], (1, 0))

    def each_loss(self, params: Tensor, numbers: Tensor) -> Tensor:
        return -self.each_log_prob(params, numbers)

    def number(self, params: Tensor, m: int) -> Tensor:
        """See `Head.number`: log-weights, means and log standard deviations (3 C)."""
        log_weights, means, log_std = self._split(params)
        return torch.cat([log_weights, means[..., m], log_std[..., m]], dim=-1)

    def expected(self, params: Tensor, m: int) -> Tensor:
        log_weights, means, _ = self._split(params)
        return self.clipped((log_weights.exp() * means[..., m]).sum(-1))

    def told(self, params: Tensor, m: int, number: Tensor) -> Tensor:
        """See `Head.told`: components that say the number was likely become heavier."""
        _, means, log_std = self._split(params)
        each = _normal(number.unsqueeze(-1), means[..., m], log_std[..., m])  # (..., C)
        return torch.cat([params[..., :COMPONENTS] + each, params[..., COMPONENTS:]], dim=-1)

    def pick(self, params: Tensor, m: int, noise: Tensor, likeliest: bool) -> Tensor:
        """See `Head.pick`: the component from the noise, the number from where it fell in the component's share."""
        log_weights, means, log_std = self._split(params)
        chosen = log_weights.argmax(-1, keepdim=True)
        if likeliest:
            return self.clipped(means[..., m].gather(-1, chosen).squeeze(-1))
        weights = log_weights.exp()
        above = weights.cumsum(-1)
        chosen = (noise.unsqueeze(-1) >= above).sum(-1, keepdim=True).clamp(max=COMPONENTS - 1)
        share = weights.gather(-1, chosen)
        rest = ((noise.unsqueeze(-1) - above.gather(-1, chosen) + share) / share).squeeze(-1)
        mean, std = (part[..., m].gather(-1, chosen).squeeze(-1) for part in (means, log_std.exp()))
        return self.clipped(mean + std * _quantile(rest))

    def mean(self, params: Tensor) -> Tensor:
        """Weighted mean of the components, clipped to [-1, 1]."""
        log_weights, means, _ = self._split(params)
        return self.clipped((log_weights.exp()[..., None] * means).sum(-2))

    def mode(self, params: Tensor) -> Tensor:
        """Mean of the heaviest component, clipped; the highest peak may be a weightless needle."""
        log_weights, means, _ = self._split(params)
        return self.clipped(self._pick(means, log_weights.argmax(-1)))

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Component by inverse CDF from noise[..., 0], then dimensions by normal quantiles."""
        log_weights, means, log_std = self._split(params)
        below = noise[..., :1] >= log_weights.exp().cumsum(-1)  # (..., C)
        chosen = below.sum(-1).clamp(max=COMPONENTS - 1)
        z = _quantile(noise[..., 1:])
        return self.clipped(self._pick(means, chosen) + self._pick(log_std, chosen).exp() * z)

    def _split_raw(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shape = (COMPONENTS, self.action_dim)
        size = COMPONENTS * self.action_dim
        logits, means, scales = params.split([COMPONENTS, size, size], dim=-1)
        return logits, means.unflatten(-1, shape), scales.unflatten(-1, shape)

    def _split(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights (..., C), means (..., C, M) and log standard deviations (..., C, M)."""
        logits, means, scales = self._split_raw(params)
        return logits.log_softmax(-1), means, _log_std(scales, self.bounded)

    def _pick(self, values: Tensor, component: Tensor) -> Tensor:
        """values (..., C, M) at component (...,): (..., M)."""
        index = component[..., None, None].expand(*component.shape, 1, self.action_dim)
        return values.gather(-2, index).squeeze(-2)
