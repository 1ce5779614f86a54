"""Heads: what turns features into a distribution over one timestep's action in [-1, 1]^M.

Every method broadcasts over leading dimensions and runs under `torch.func.vmap`. Densities are in
action units and for the whole timestep (all M dimensions together), so that heads with a density
can be compared.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ablate.registry import register

COMPONENTS = 5
STD_RANGE = (0.01, 2.0)  # standard deviations of a mixture component, in action units
STD_START = 0.5
BINS = 21
NARROWEST = 0.02  # a value the data repeats gets a bin this wide: a point mass has no density


class Head(nn.Module, ABC):
    """Features (..., D) to parameters (..., P) of a distribution over actions (..., M).

    Args:
        width: D.
        action_dim: M.
        actions: training actions (T, M), for heads that adapt to them; None where none are known.

    Attributes:
        density: whether `log_prob` is defined.
        noise_dim: how many uniform numbers in [0, 1) `sample` takes.
    """

    density: ClassVar[bool]
    noise_dim: int

    def __init__(self, width: int, action_dim: int, outputs: int) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.linear = nn.Linear(width, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Parameters (..., P)."""
        return self.linear(features)

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


@register("head", "mse")
class SquaredError(Head):
    """The Decision Transformer's: tanh of a linear map, mean squared error; no distribution."""

    density: ClassVar[bool] = False
    noise_dim = 0

    def __init__(self, width: int, action_dim: int, actions: np.ndarray | None = None) -> None:
        super().__init__(width, action_dim, action_dim)

    def forward(self, features: Tensor) -> Tensor:
        """The predicted action (..., M)."""
        return torch.tanh(self.linear(features))

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


@register("head", "mixture")
class Mixture(Head):
    """Five Gaussians with diagonal covariance, standard deviations bounded by `STD_RANGE`.

    Parameters are component logits (C), means (C, M) and squashed log standard deviations (C, M).
    """

    density: ClassVar[bool] = True

    def __init__(self, width: int, action_dim: int, actions: np.ndarray | None = None) -> None:
        super().__init__(width, action_dim, COMPONENTS * (1 + 2 * action_dim))
        self.noise_dim = 1 + action_dim
        low, high = map(math.log, STD_RANGE)
        start = (math.log(STD_START) - low) / (high - low)
        with torch.no_grad():
            _, means, scales = self._split_raw(self.linear.bias)
            # apart from the start, since equal components receive equal gradients
            means.uniform_(-1.0, 1.0)
            scales.fill_(math.log(start / (1.0 - start)))

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """log sum_c w_c prod_m N(a_m; mu_cm, sigma_cm), (...,)."""
        log_weights, means, log_std = self._split(params)
        z = (actions[..., None, :] - means) * torch.exp(-log_std)  # (..., C, M)
        each = -0.5 * z.square() - log_std - 0.5 * math.log(2.0 * math.pi)
        return torch.logsumexp(log_weights + each.sum(-1), dim=-1)

    def mean(self, params: Tensor) -> Tensor:
        """Weighted mean of the components, clipped to [-1, 1]."""
        log_weights, means, _ = self._split(params)
        return (log_weights.exp()[..., None] * means).sum(-2).clamp(-1.0, 1.0)

    def mode(self, params: Tensor) -> Tensor:
        """Mean of the heaviest component, clipped; the highest peak may be a weightless needle."""
        log_weights, means, _ = self._split(params)
        return self._pick(means, log_weights.argmax(-1)).clamp(-1.0, 1.0)

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Component by inverse CDF from noise[..., 0], then dimensions by normal quantiles."""
        log_weights, means, log_std = self._split(params)
        below = noise[..., :1] >= log_weights.exp().cumsum(-1)  # (..., C)
        chosen = below.sum(-1).clamp(max=COMPONENTS - 1)
        z = math.sqrt(2.0) * torch.erfinv((2.0 * noise[..., 1:] - 1.0).clamp(-0.999999, 0.999999))
        picked = self._pick(means, chosen) + self._pick(log_std, chosen).exp() * z
        return picked.clamp(-1.0, 1.0)

    def _split_raw(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shape = (COMPONENTS, self.action_dim)
        size = COMPONENTS * self.action_dim
        logits, means, scales = params.split([COMPONENTS, size, size], dim=-1)
        return logits, means.unflatten(-1, shape), scales.unflatten(-1, shape)

    def _split(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights (..., C), means (..., C, M) and log standard deviations (..., C, M)."""
        logits, means, scales = self._split_raw(params)
        low, high = map(math.log, STD_RANGE)
        return logits.log_softmax(-1), means, low + (high - low) * torch.sigmoid(scales)

    def _pick(self, values: Tensor, component: Tensor) -> Tensor:
        """values (..., C, M) at component (...,): (..., M)."""
        index = component[..., None, None].expand(*component.shape, 1, self.action_dim)
        return values.gather(-2, index).squeeze(-2)


@register("head", "categorical")
class Categorical(Head):
    """Each dimension on its own, a density that is constant within each of `BINS` bins.

    Bin edges are quantiles of the training actions; see `bin_edges`. Parameters are logits (M,
    BINS) of which those of bins without width are ignored.
    """

    density: ClassVar[bool] = True
    thresholds: Tensor  # (M, BINS-1) inner edges, +inf where the bin right of it has no width
    edges: Tensor  # (M, BINS+1)
    widths: Tensor  # (M, BINS)

    def __init__(self, width: int, action_dim: int, actions: np.ndarray | None = None) -> None:
        super().__init__(width, action_dim, action_dim * BINS)
        self.noise_dim = action_dim
        if actions is None:
            edges = np.tile(np.linspace(-1.0, 1.0, BINS + 1), (action_dim, 1))
        else:
            edges = np.stack([bin_edges(actions[:, m], BINS) for m in range(action_dim)])
        widths = np.diff(edges, axis=1)
        thresholds = np.where(widths[:, 1:] > 0, edges[:, 1:-1], np.inf)
        for name, values in (("edges", edges), ("widths", widths), ("thresholds", thresholds)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.get_default_dtype()))

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """Sum over dimensions of log(probability of the action's bin / its width), (...,)."""
        inside = actions.clamp(-1.0, 1.0)[..., None] >= self.thresholds  # (..., M, BINS-1)
        index = inside.sum(-1, keepdim=True)  # (..., M, 1)
        log_density = self._log_probs(params) - self._log_widths()
        lead = torch.broadcast_shapes(log_density.shape[:-1], index.shape[:-1])
        chosen = log_density.expand(*lead, -1).gather(-1, index.expand(*lead, -1))
        return chosen.squeeze(-1).sum(-1)

    def mean(self, params: Tensor) -> Tensor:
        """Probability-weighted bin centres."""
        return (self._log_probs(params).exp() * self._centres()).sum(-1)

    def mode(self, params: Tensor) -> Tensor:
        """Centre of the densest bin of each dimension."""
        densest = (self._log_probs(params) - self._log_widths()).argmax(-1, keepdim=True)
        return self._at(self._centres(), densest)

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Inverse of the piecewise-linear CDF at noise (..., M): uniform within a bin."""
        probs = self._log_probs(params).exp()
        cdf = probs.cumsum(-1)
        last = (self.widths > 0).sum(-1) - 1  # (M,) rounding must not reach a bin without width
        index = (noise[..., None] >= cdf).sum(-1).minimum(last)[..., None]  # (..., M, 1)
        p = probs.gather(-1, index).squeeze(-1)
        below = cdf.gather(-1, index).squeeze(-1) - p
        within = ((noise - below) / p.clamp(min=1e-12)).clamp(0.0, 1.0)
        action = self._at(self.edges, index) + within * self._at(self.widths, index)
        return action.clamp(-1.0, 1.0)

    def _log_probs(self, params: Tensor) -> Tensor:
        """Normalised over the bins that have a width, (..., M, BINS); -1e9 or so for the others."""
        logits = params.unflatten(-1, (self.action_dim, BINS))
        return logits.masked_fill(self.widths == 0, -1e9).log_softmax(-1)

    def _log_widths(self) -> Tensor:
        return torch.where(self.widths > 0, self.widths, 1.0).log()

    def _centres(self) -> Tensor:
        return self.edges[:, :-1] + 0.5 * self.widths

    @staticmethod
    def _at(table: Tensor, index: Tensor) -> Tensor:
        """table (M, N) at index (..., M, 1): (..., M)."""
        return table.expand(*index.shape[:-1], -1).gather(-1, index).squeeze(-1)


def bin_edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Edges (bins+1,) from -1 to 1 of bins that hold about equally many of `values` (T,).

    Where a quantile repeats, the data has a point mass (a clipped or discrete action): that value
    gets a bin of its own, NARROWEST wide. Of edges closer than half of that one is left out; the
    bins which this saves are put at the end with no width.
    """
    quantiles = np.quantile(np.clip(values, -1.0, 1.0), np.linspace(0.0, 1.0, bins - 1))
    levels, counts = np.unique(quantiles, return_counts=True)
    low = (levels[counts > 1] - NARROWEST / 2).clip(-1.0, 1.0 - NARROWEST)
    kept = np.array([-1.0, 1.0])
    # point masses first: where edges crowd, the earlier one stays
    wanted = np.concatenate([low, low + NARROWEST, levels[counts == 1]])
    for edge in wanted:
        if np.abs(kept - edge).min() >= NARROWEST / 2:
            kept = np.append(kept, edge)
    return np.concatenate([np.sort(kept), np.full(bins + 1 - len(kept), 1.0)])
