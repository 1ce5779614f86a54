"""Heads: what turns a feature into a distribution over M numbers.

In a policy these are one timestep's action in [-1, 1]^M. In a joint model (`ablate.models.slots`) they are the
numbers that one token predicts: a head that is `chained` serves all of a token's numbers at once, any other one
number each. So a head that is written for actions predicts whole trajectories too; its numbers are then scaled
so that the training data fill [-1, 1]. Two options, which a head may know, let it do better there:

    bounded: False where the numbers are standardised instead of bounded by [-1, 1].
    valid: (M, N) bool, which of N bins exist. The numbers are then bins 0 .. N-1, and N says that the episode is
        over; where the bins lie is known outside.

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
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.registry import register

COMPONENTS = 5
HIDDEN = 64  # units between the bins of earlier dimensions and the next one's
CHAINS = 32  # over which an autoregressive head averages its mean
STD_RANGE = (0.01, 2.0)  # standard deviations of a mixture component, in action units
STD_START = 0.5
FREE_RANGE = (math.exp(-5.0), math.exp(2.0))  # the same of standardised numbers
FREE_START = 1.0
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
        weighted: whether a distribution needs the head's weights besides the parameters P.
        chained: whether one number may depend on another, given the feature, and `each_log_prob`, `pick`, `told`
            and `expected` say how; only asked in a joint model.
        joint: whether a joint model can use the head.
        noise_dim: how many uniform numbers in [0, 1) `sample` takes.
    """

    density: ClassVar[bool]
    weighted: ClassVar[bool] = False
    chained: ClassVar[bool] = False
    joint: ClassVar[bool] = True
    noise_dim: int

    def __init__(self, width: int, action_dim: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.linear = nn.Linear(width, outputs, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        """Parameters (..., P)."""
        return self.linear(features)

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


@register("head", "mse", order=1)
class SquaredError(Head):
    """The Decision Transformer's: tanh of a linear map, mean squared error; no distribution."""

    density: ClassVar[bool] = False
    noise_dim = 0

    def __init__(
        self,
        width: int,
        action_dim: int,
        actions: np.ndarray | None = None,
        bounded: bool = True,
    ) -> None:
        super().__init__(width, action_dim, action_dim)
        self.bounded = bounded

    def forward(self, features: Tensor) -> Tensor:
        """The predicted action (..., M)."""
        return torch.tanh(self.linear(features)) if self.bounded else self.linear(features)

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
class Gaussian(Head):
    """A diagonal Gaussian whose standard deviations are learned and the same in every state.

    As the policies of RvS (Emmons et al. 2022) and IQL (Kostrikov et al. 2022), with IQL's tanh on the
    mean; the deviations stay within `STD_RANGE`, as the mixture's do, so that their densities compare.
    Parameters are means (M) and squashed log standard deviations (M).
    """

    density: ClassVar[bool] = True

    def __init__(
        self,
        width: int,
        action_dim: int,
        actions: np.ndarray | None = None,
        bounded: bool = True,
    ) -> None:
        super().__init__(width, action_dim, action_dim)
        self.bounded, self.noise_dim = bounded, action_dim
        self.scales = nn.Parameter(torch.full((action_dim,), _squashed(bounded)))

    def forward(self, features: Tensor) -> Tensor:
        """Means and squashed log standard deviations (..., 2 M)."""
        means = self.linear(features)
        means = torch.tanh(means) if self.bounded else means
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
        drawn = means + _log_std(scales, self.bounded).exp() * _quantile(noise)
        return drawn.clamp(-1.0, 1.0) if self.bounded else drawn


def _log_std(squashed: Tensor, bounded: bool = True) -> Tensor:
    """Log standard deviation within `STD_RANGE`, or `FREE_RANGE`, of any number."""
    low, high = map(math.log, STD_RANGE if bounded else FREE_RANGE)
    return low + (high - low) * torch.sigmoid(squashed)


def _squashed(bounded: bool = True) -> float:
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
class Mixture(Head):
    """Five Gaussians with diagonal covariance, standard deviations bounded by `STD_RANGE`.

    Parameters are component logits (C), means (C, M) and squashed log standard deviations (C, M).
    """

    density: ClassVar[bool] = True
    chained: ClassVar[bool] = True

    def __init__(
        self,
        width: int,
        action_dim: int,
        actions: np.ndarray | None = None,
        bounded: bool = True,
    ) -> None:
        super().__init__(width, action_dim, COMPONENTS * (1 + 2 * action_dim))
        self.bounded, self.noise_dim = bounded, 1 + action_dim
        with torch.no_grad():
            _, means, scales = self._split_raw(self.linear.bias)
            # apart from the start, since equal components receive equal gradients
            means.uniform_(-1.0, 1.0)
            scales.fill_(_squashed(bounded))

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
        return self._clipped((log_weights.exp() * means[..., m]).sum(-1))

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
            return self._clipped(means[..., m].gather(-1, chosen).squeeze(-1))
        weights = log_weights.exp()
        above = weights.cumsum(-1)
        chosen = (noise.unsqueeze(-1) >= above).sum(-1, keepdim=True).clamp(max=COMPONENTS - 1)
        share = weights.gather(-1, chosen)
        rest = ((noise.unsqueeze(-1) - above.gather(-1, chosen) + share) / share).squeeze(-1)
        mean, std = (part[..., m].gather(-1, chosen).squeeze(-1) for part in (means, log_std.exp()))
        return self._clipped(mean + std * _quantile(rest))

    def mean(self, params: Tensor) -> Tensor:
        """Weighted mean of the components, clipped to [-1, 1]."""
        log_weights, means, _ = self._split(params)
        return self._clipped((log_weights.exp()[..., None] * means).sum(-2))

    def mode(self, params: Tensor) -> Tensor:
        """Mean of the heaviest component, clipped; the highest peak may be a weightless needle."""
        log_weights, means, _ = self._split(params)
        return self._clipped(self._pick(means, log_weights.argmax(-1)))

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Component by inverse CDF from noise[..., 0], then dimensions by normal quantiles."""
        log_weights, means, log_std = self._split(params)
        below = noise[..., :1] >= log_weights.exp().cumsum(-1)  # (..., C)
        chosen = below.sum(-1).clamp(max=COMPONENTS - 1)
        z = _quantile(noise[..., 1:])
        return self._clipped(self._pick(means, chosen) + self._pick(log_std, chosen).exp() * z)

    def _clipped(self, numbers: Tensor) -> Tensor:
        return numbers.clamp(-1.0, 1.0) if self.bounded else numbers

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

    def __init__(self, width: int, action_dim: int, actions: np.ndarray | None = None) -> None:
        super().__init__(width, action_dim, action_dim)
        self.noise_dim = 1

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
