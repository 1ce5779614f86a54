"""Conservative Q-learning, CQL(H): soft actor-critic whose critics are pushed down on actions that aren't in the data.

Kumar et al., Conservative Q-Learning for Offline Reinforcement Learning, 2020, equation 4, with the settings and the
order of steps of CORL's `algorithms/offline/cql.py` for locomotion: a fixed weight of the penalty (no Lagrange
multiplier), importance-weighted actions from three proposals, no entropy in the backup.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ablate.learn.objective import Batch
from ablate.learn.values import ValueObjective, follow_
from ablate.models.heads import Head
from ablate.registry import Section, register

LOG_STD_RANGE = (-20.0, 2.0)  # CORL, `ReparameterizedTanhGaussian`
LOG_STD_OFFSET = -1.0  # CORL, `TanhGaussianPolicy`: where the learned offset starts
INSIDE = 1.0 - 1e-6  # an action at the bound has no finite density
NODES = 32  # of the quadrature for the mean


@register("head", "tanh-gaussian")
class TanhGaussian(Head):
    """The tanh of a diagonal Gaussian whose standard deviations depend on the state: soft actor-critic's policy.

    Parameters are means (M) and log standard deviations (M) before the tanh. Densities are in action units.
    """

    density: ClassVar[bool] = True
    nodes: Tensor  # (NODES,) of Gauss-Hermite quadrature
    node_weights: Tensor  # (NODES,), summing to 1

    def __init__(self, width: int, action_dim: int, actions: np.ndarray | None = None) -> None:
        super().__init__(width, action_dim, 2 * action_dim)
        self.noise_dim = action_dim
        nn.init.xavier_uniform_(self.linear.weight, gain=1e-2)
        nn.init.zeros_(self.linear.bias)
        self.multiplier = nn.Parameter(torch.ones(1))
        self.offset = nn.Parameter(torch.full((1,), LOG_STD_OFFSET))
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        dtype = torch.get_default_dtype()
        self.register_buffer("nodes", torch.tensor(nodes, dtype=dtype))
        self.register_buffer("node_weights", torch.tensor(weights / weights.sum(), dtype=dtype))

    def forward(self, features: Tensor) -> Tensor:
        """Means and log standard deviations (..., 2 M)."""
        means, log_std = self.linear(features).chunk(2, dim=-1)
        log_std = (self.multiplier * log_std + self.offset).clamp(*LOG_STD_RANGE)
        return torch.cat([means, log_std], dim=-1)

    def draw(self, params: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Action (..., M) of standard normal numbers (..., M), differentiable, and its log-density (...,)."""
        means, log_std = params.chunk(2, dim=-1)
        before = means + log_std.exp() * normal
        log_density = -0.5 * normal.square() - log_std - 0.5 * math.log(2.0 * math.pi)
        return torch.tanh(before), (log_density - _log_slope(before)).sum(-1)

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """sum_m log N(atanh a_m; mu_m, sigma_m) - log(1 - a_m^2), (...,)."""
        means, log_std = params.chunk(2, dim=-1)
        before = torch.atanh(actions.clamp(-INSIDE, INSIDE))
        z = (before - means) * torch.exp(-log_std)
        log_density = -0.5 * z.square() - log_std - 0.5 * math.log(2.0 * math.pi)
        return (log_density - _log_slope(before)).sum(-1)

    def mean(self, params: Tensor) -> Tensor:
        """The expected action, by quadrature."""
        means, log_std = params.chunk(2, dim=-1)
        spread = log_std.exp().unsqueeze(-1) * self.nodes
        return (torch.tanh(means.unsqueeze(-1) + spread) * self.node_weights).sum(-1)

    def mode(self, params: Tensor) -> Tensor:
        """The tanh of the Gaussian's mean, as CORL acts."""
        return torch.tanh(params.chunk(2, dim=-1)[0])

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Normal quantiles of noise (..., M), through the tanh."""
        quantile = math.sqrt(2.0) * torch.erfinv((2.0 * noise - 1.0).clamp(-0.999999, 0.999999))
        return self.draw(params, quantile)[0]


def _log_slope(before: Tensor) -> Tensor:
    """log(1 - tanh(x)^2), without loss of digits."""
    return 2.0 * (math.log(2.0) - before - F.softplus(-2.0 * before))


@register("algorithm", "cql", label="CQL")
class CQL(ValueObjective):
    """Soft actor-critic whose twin critics' losses have alpha * (logsumexp_a Q(s, a) - Q(s, logged a)) added."""

    class Settings(Section):
        """Hyper-parameters; the policy's own (updates, batch, learning rate) stand under `train`.

        Sources: CORL, configs/offline/cql/<env>/<data>.yaml for locomotion, unless said otherwise; its names in
        brackets.

        alpha: weight of the penalty (`cql_alpha`; the paper has 5). actions: of each of the three proposals
        (`cql_n_actions`). discount: of rewards. tau: step of the target critics (`soft_target_update_rate`).
        target_entropy: of the policy; null for minus the number of action dimensions, as SAC. critic_learning_rate: of
        both critics (`qf_lr`). critic_width: of a hidden layer (`FullyConnectedQFunction`). critic_layers: hidden ones
        (`q_n_hidden_layers`). orthogonal: initial weights of the critics (`orthogonal_init`). return_range: rewards are
        scaled so that returns span it; null for as they are, CORL has 1000 for hopper-medium only. reward_shift: added
        to each reward (`reward_bias`).
        """

        alpha: float = Field(default=10.0, ge=0)
        actions: int = Field(default=10, ge=1)
        discount: float = Field(default=0.99, ge=0, lt=1)
        tau: float = Field(default=0.005, gt=0, le=1)
        target_entropy: float | None = None
        critic_learning_rate: float = Field(default=3e-4, gt=0)
        critic_width: int = Field(default=256, ge=1)
        critic_layers: int = Field(default=3, ge=1)
        orthogonal: bool = True
        return_range: float | None = Field(default=None, gt=0)
        reward_shift: float = 0.0

    heads: ClassVar[tuple[str, ...]] = ("tanh-gaussian",)
    settings: Settings

    def begin(self) -> None:
        super().begin()
        own = self.settings
        self.critic = self.value_networks("critic", networks=2, actions=True)
        if own.orthogonal:
            self.critic.make_orthogonal(self.study, self.seeds)
        self.target_critic = self.critic.frozen_copy()
        self.critic_optimiser = self.add(
            "critic", self.critic.parameters(), own.critic_learning_rate
        )
        self.add("target_critic", self.target_critic.parameters())
        self.log_temperature = torch.zeros(
            self.stack.size, device=self.device, dtype=self.dtype, requires_grad=True
        )
        self.temperature_optimiser = self.add(
            "temperature", [self.log_temperature], self.train["learning_rate"]
        )
        dims = self.stack.spec.action_dim
        self.entropy = float(-dims) if own.target_entropy is None else own.target_entropy

    def update(self, batch: Batch, rate: float | Tensor) -> Tensor:
        """See `Objective.update`: temperature, policy and critics, all by what was known before the update."""
        own, rows = self.settings, batch.targets
        here, after = self.backup.pairs(rows)
        actions = self.source.actions[rows]  # (S, B, M)
        size, dims = actions.shape[1:]
        normal = self.noise(batch.update, "normal", size, 2 + 2 * own.actions, dims)
        uniform = self.noise(batch.update, "uniform", size, own.actions, dims) * 2.0 - 1.0
        head: Any = self.stack.head
        temperature = self.log_temperature.detach().exp()  # (S,)

        with self.autocast():
            params = self.stack(here.features, here.lengths)  # (S, B, 2 M)
            with torch.no_grad():
                params_after = self.stack(after.features, after.lengths)
        chosen, log_density = head.draw(params, normal[:, :, 0])
        encoded = self.critic.encode(here)
        values = self.critic.values(encoded.detach(), chosen, constant=True).amin(0)  # (S, B)
        loss = self.backup.mean(temperature[:, None] * log_density - values, rows)
        surplus = self.backup.mean(log_density.detach() + self.entropy, rows)  # (S,)

        with torch.no_grad():
            next_action = head.draw(params_after, normal[:, :, 1])[0]
            value_after = self.target_critic(after, next_action).amin(0)
            wanted = self.backup.backed_up(rows, value_after)  # (S, B)
            proposed, log_proposal = self.proposals(params, params_after, normal[:, :, 2:], uniform)
        logged = self.critic.values(encoded, actions)  # (2, S, B)
        elsewhere = self.critic.values(encoded, proposed)  # (2, S, B, 3 A)
        penalty = penalty_of(elsewhere, log_proposal, logged)
        critic_loss = self.backup.mean(
            (logged - wanted).square() + own.alpha * penalty, rows
        )  # (2, S)

        self.temperature_optimiser.zero_grad()
        (-self.log_temperature * surplus).sum().backward()
        self.temperature_optimiser.set_rate(rate)
        self.temperature_optimiser.step()
        self.policy_step(loss, rate)
        self.critic_optimiser.zero_grad()
        critic_loss.sum().backward()
        self.critic_optimiser.step()
        follow_(self.target_critic.parameters(), self.critic.parameters(), own.tau)
        return loss.detach()

    def proposals(
        self, params: Tensor, params_after: Tensor, normal: Tensor, uniform: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Actions (S, B, 3 A, M) from the uniform density, and from the policy there and one timestep later.

        Returns them and the log-density, (S, B, 3 A), of each under what proposed it.
        """
        head: Any = self.stack.head
        count, dims = uniform.shape[2:]
        now, log_now = head.draw(params.unsqueeze(2), normal[:, :, :count])
        later, log_later = head.draw(params_after.unsqueeze(2), normal[:, :, count:])
        flat = torch.full_like(log_now, -dims * math.log(2.0))
        return torch.cat([uniform, later, now], dim=2), torch.cat([flat, log_later, log_now], dim=2)


def penalty_of(elsewhere: Tensor, log_proposal: Tensor, logged: Tensor) -> Tensor:
    """log sum_i exp(Q_i) / q_i, of values (..., n) of actions proposed at density q, minus the logged action's, (...,).

    As CORL, which leaves out the mean's 1 / n: a constant without a gradient.
    """
    return torch.logsumexp(elsewhere - log_proposal, dim=-1) - logged
