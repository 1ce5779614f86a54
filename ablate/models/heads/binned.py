"""Heads of bins: each number on its own, or given those before it."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.models.heads.base import Head
from ablate.registry import register

BINS = 21
HIDDEN = 64  # units between the bins of earlier dimensions and the next one's
CHAINS = 32  # over which an autoregressive head averages its mean
NARROWEST = 0.02  # a value the data repeats gets a bin this wide: a point mass has no density


class Binned(Head):
    """A density that is constant within each of N bins a number.

    In a policy there are `BINS`, whose edges are quantiles of the training actions (see `bin_edges`); logits of
    bins without width are ignored. With `valid` the numbers are bins that lie elsewhere, and one more logit says
    that the episode is over. What an output is comes from `logits`.
    """

    density: ClassVar[bool] = True
    chained: ClassVar[bool] = True
    thresholds: Tensor  # (M, BINS-1) inner edges, +inf where the bin right of it has no width
    edges: Tensor  # (M, BINS+1)
    widths: Tensor  # (M, BINS)
    void: Tensor  # (M, N + 1) outputs that stand for nothing, of bins that lie elsewhere

    def __init__(
        self,
        width: int,
        action_dim: int,
        outputs: int,
        actions: np.ndarray | None,
        valid: Tensor | None,
        bias: bool = True,
    ) -> None:
        super().__init__(width, action_dim, outputs, bias)
        self.noise_dim = action_dim
        self.outside = valid is not None
        if valid is not None:
            self.register_buffer("void", F.pad(~valid, (0, 1)))
            return
        if actions is None:
            edges = np.tile(np.linspace(-1.0, 1.0, BINS + 1), (action_dim, 1))
        else:
            edges = np.stack([bin_edges(actions[:, m], BINS) for m in range(action_dim)])
        widths = np.diff(edges, axis=1)
        thresholds = np.where(widths[:, 1:] > 0, edges[:, 1:-1], np.inf)
        for name, values in (("edges", edges), ("widths", widths), ("thresholds", thresholds)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.get_default_dtype()))

    @abstractmethod
    def number_logits(self, params: Tensor, m: int) -> Tensor:
        """Logits (..., N) of number m, given those that were told."""

    @abstractmethod
    def log_probs(self, params: Tensor, index: Tensor) -> Tensor:
        """Log-probabilities (..., M, N) of each number's bins, given the bins `index` (..., M) of those before."""

    def number(self, params: Tensor, m: int) -> Tensor:
        """Log-probabilities (..., N) of number m's bins, given those that were told."""
        logits = self.number_logits(params, m).unsqueeze(-2)
        return self.normalise(logits, slice(m, m + 1)).squeeze(-2)

    def each_log_prob(self, params: Tensor, numbers: Tensor) -> Tensor:
        """Log-probability (..., M) of each of the bins `numbers` (..., M), given those before it."""
        found = self.log_probs(params, numbers)
        return found.gather(-1, numbers.unsqueeze(-1)).squeeze(-1)

    def each_loss(self, params: Tensor, numbers: Tensor) -> Tensor:
        """Cross-entropy (..., M) of the bins `numbers` (..., M)."""
        return -self.each_log_prob(params, numbers)

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """Sum over dimensions of log(probability of the action's bin / its width), (...,)."""
        index = self.index(actions)  # (..., M)
        return self.density_of(self.log_probs(params, index), index)

    def index(self, actions: Tensor) -> Tensor:
        """The bin of each dimension of actions (..., M): (..., M) int64."""
        return (actions.clamp(-1.0, 1.0)[..., None] >= self.thresholds).sum(-1)

    def normalise(self, logits: Tensor, only: slice = slice(None)) -> Tensor:
        """Log-probabilities of the bins that have a width, of logits (..., m, N) of `only` m dimensions.

        -1e9 or so for the others, and nothing at all for bins that lie elsewhere.
        """
        if self.outside:
            return logits.masked_fill(self.void[only], float("-inf")).log_softmax(-1)
        return logits.masked_fill(self.widths[only] == 0, -1e9).log_softmax(-1)

    def density_of(self, log_probs: Tensor, index: Tensor) -> Tensor:
        """Log-density (...,) of the bins `index` (..., M), from their log-probabilities (..., M, BINS)."""
        log_density, index = log_probs - self._log_widths(), index.unsqueeze(-1)
        lead = torch.broadcast_shapes(log_density.shape[:-1], index.shape[:-1])
        chosen = log_density.expand(*lead, -1).gather(-1, index.expand(*lead, -1))
        return chosen.squeeze(-1).sum(-1)

    def weighted_centre(self, log_probs: Tensor, only: slice = slice(None)) -> Tensor:
        """Probability-weighted bin centres (..., m), from (..., m, BINS)."""
        return (log_probs.exp() * self._centres()[only]).sum(-1)

    def densest(self, log_probs: Tensor, only: slice = slice(None)) -> Tensor:
        """Index (..., m) of the densest bin of each dimension."""
        return (log_probs - self._log_widths()[only]).argmax(-1)

    def centre(self, index: Tensor, only: slice = slice(None)) -> Tensor:
        """The middle (..., m) of the bins `index` (..., m)."""
        return self._at(self._centres()[only], index.unsqueeze(-1))

    def draw(
        self, log_probs: Tensor, noise: Tensor, only: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """Action and bin (..., m) by the inverse of the piecewise-linear CDF at noise (..., m)."""
        probs = log_probs.exp()
        cdf = probs.cumsum(-1)
        last = (self.widths[only] > 0).sum(-1) - 1  # (m,) rounding must not reach a bin of no width
        index = (noise[..., None] >= cdf).sum(-1).minimum(last)[..., None]  # (..., m, 1)
        p = probs.gather(-1, index).squeeze(-1)
        below = cdf.gather(-1, index).squeeze(-1) - p
        within = ((noise - below) / p.clamp(min=1e-12)).clamp(0.0, 1.0)
        low, width = self._at(self.edges[only], index), self._at(self.widths[only], index)
        return (low + within * width).clamp(-1.0, 1.0), index.squeeze(-1)

    def _log_widths(self) -> Tensor:
        return torch.where(self.widths > 0, self.widths, 1.0).log()

    def _centres(self) -> Tensor:
        return self.edges[:, :-1] + 0.5 * self.widths

    @staticmethod
    def _at(table: Tensor, index: Tensor) -> Tensor:
        """table (M, N) at index (..., M, 1): (..., M)."""
        return table.expand(*index.shape[:-1], -1).gather(-1, index).squeeze(-1)


@register("head", "categorical", order=4)
class Categorical(Binned):
    """Each dimension on its own; parameters are logits (M, BINS)."""

    chained: ClassVar[bool] = False  # each number on its own

    def __init__(
        self,
        width: int,
        action_dim: int,
        actions: np.ndarray | None = None,
        valid: Tensor | None = None,
    ) -> None:
        size = BINS if valid is None else valid.shape[1] + 1
        bias = valid is None  # the Trajectory Transformer has none (trajectory/models/ein.py)
        super().__init__(width, action_dim, action_dim * size, actions, valid, bias)
        self.size = size

    def number_logits(self, params: Tensor, m: int) -> Tensor:
        return params[..., m * self.size : (m + 1) * self.size]

    def log_probs(self, params: Tensor, index: Tensor) -> Tensor:
        return self._log_probs(params)

    def mean(self, params: Tensor) -> Tensor:
        """Probability-weighted bin centres."""
        return self.weighted_centre(self._log_probs(params))

    def mode(self, params: Tensor) -> Tensor:
        """Centre of the densest bin of each dimension."""
        return self.centre(self.densest(self._log_probs(params)))

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Uniform within a bin drawn by noise (..., M)."""
        return self.draw(self._log_probs(params), noise)[0]

    def _log_probs(self, params: Tensor) -> Tensor:
        """(..., M, N)."""
        return self.normalise(params.unflatten(-1, (self.action_dim, self.size)))


@register("head", "autoregressive", order=5)
class Autoregressive(Binned):
    """Each dimension given the earlier ones: p(a) = prod_m p(a_m | a_1 ... a_{m-1}).

    A neural autoregressive estimator (Larochelle & Murray 2011): the hidden units of dimension m add the
    embeddings of the earlier dimensions' bins to what the feature gives,

        h_m = gelu(c + sum_{j<m} E_j[bin of a_j]),    logits_m = W_m h_m + b_m.

    Parameters are c (HIDDEN); E, W and b are weights of the head.
    """

    weighted: ClassVar[bool] = True

    def __init__(
        self,
        width: int,
        action_dim: int,
        actions: np.ndarray | None = None,
        valid: Tensor | None = None,
    ) -> None:
        super().__init__(width, action_dim, HIDDEN, actions, valid)
        self.size = size = BINS if valid is None else valid.shape[1] + 1
        bound = HIDDEN**-0.5
        self.out = nn.Parameter(torch.empty(action_dim, HIDDEN, size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(action_dim, size))
        self.earlier = nn.Embedding(max(action_dim - 1, 1) * size, HIDDEN)
        nn.init.normal_(self.earlier.weight, std=0.02)
        self.register_buffer(
            "chains", torch.tensor(lattice(CHAINS, action_dim), dtype=torch.get_default_dtype())
        )

    chains: Tensor  # (CHAINS, M) noise of the chains that the mean is taken over

    def flops(self) -> int:
        return 2 * (self.linear.weight.numel() + self.out.numel())

    def log_probs(self, params: Tensor, index: Tensor) -> Tensor:
        offset = torch.arange(self.action_dim - 1, device=index.device) * self.size
        earlier = self.earlier(index[..., :-1] + offset).cumsum(-2)  # (..., M-1, H)
        hidden = params.unsqueeze(-2) + F.pad(earlier, (0, 0, 1, 0))  # (..., M, H)
        logits = torch.einsum("...mh,mhb->...mb", F.gelu(hidden), self.out) + self.bias
        return self.normalise(logits)

    def number_logits(self, params: Tensor, m: int) -> Tensor:
        return F.gelu(params) @ self.out[m] + self.bias[m]

    def told(self, params: Tensor, m: int, number: Tensor) -> Tensor:
        return params + self.earlier(number + m * self.size) if m < self.action_dim - 1 else params

    def mean(self, params: Tensor) -> Tensor:
        """Expected action over `CHAINS` evenly spread chains; exact for the first dimension.

        Dimension m averages E[a_m | a_1 ... a_{m-1}] over drawn prefixes, which varies less than a_m.
        """
        noise = self.chains.expand(*params.shape[:-1], -1, -1)  # (..., C, M)
        chains = params.unsqueeze(-2).expand(*params.shape[:-1], CHAINS, -1)
        return self._chain(chains, noise)[1].mean(-2)

    def mode(self, params: Tensor) -> Tensor:
        """The densest bin of each dimension in turn, given those chosen before: greedy decoding."""
        return self._chain(params, None)[0]

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """One dimension after another, each from its noise (..., M)."""
        return self._chain(params, noise)[0]

    def _chain(self, params: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """Actions (..., M), drawn or, without noise, greedy; and each dimension's expectation given them."""
        hidden, actions, means = params, [], []
        for m in range(self.action_dim):
            only = slice(m, m + 1)
            log_probs = self.number(hidden, m).unsqueeze(-2)  # (..., 1, BINS)
            means.append(self.weighted_centre(log_probs, only))
            if noise is None:
                index = self.densest(log_probs, only)
                actions.append(self.centre(index, only))
            else:
                action, index = self.draw(log_probs, noise[..., only], only)
                actions.append(action)
            hidden = self.told(hidden, m, index.squeeze(-1))
        return torch.cat(actions, -1), torch.cat(means, -1)


def lattice(points: int, dimensions: int) -> np.ndarray:
    """Evenly spread points (points, dimensions) in [0, 1): the additive recurrence R_d (Roberts 2018)."""
    ratio = 2.0
    for _ in range(64):  # the positive root of x^(d+1) = x + 1
        ratio = (1.0 + ratio) ** (1.0 / (dimensions + 1))
    steps = ratio ** -np.arange(1.0, dimensions + 1)
    return (0.5 + np.arange(points)[:, None] * steps) % 1.0


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
