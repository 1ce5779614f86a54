"""Implicit Q-learning: values of the best actions that the data hold, by expectile regression; then weighted cloning.

Kostrikov, Nair & Levine, Offline Reinforcement Learning with Implicit Q-Learning, 2021. Numbers are those of the
paper's section 5.2 and appendix B for locomotion, as in CORL's `algorithms/offline/iql.py`, whose order of steps
is followed. AntMaze there: expectile 0.9, beta 10, rewards minus 1.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from ablate.learn.implicit_q import ImplicitQ
from ablate.learn.objective import Batch
from ablate.learn.values import ValueObjective
from ablate.registry import Section, register


@register("algorithm", "iql", label="IQL")
class IQL(ValueObjective):
    """V by expectile regression on Q, Q by V of what follows, the policy by advantage-weighted regression.

    No action that isn't in the data is ever evaluated. The policy's loss is the negative log-density of the
    logged action times min(exp(beta * (Q - V)), `weight_limit`); for a head without a density, the squared error
    summed over dimensions, as CORL's deterministic variant.
    """

    class Settings(Section):
        """Hyper-parameters; the policy's own (updates, batch, learning rate, schedule) stand under `train`. Sources:
        the paper, section 5.2 for the first two, appendix B for the rest, unless said otherwise.

        expectile: of Q that V is; 0.5 is SARSA. beta: inverse temperature. weight_limit: of the exponential weights;
        released code. discount: of rewards. tau: step of the target critic. critic_learning_rate: of Q and V.
        critic_width: of a hidden layer. critic_layers: hidden ones. return_range: rewards are scaled so that returns
        span it, as for locomotion; null for as they are. reward_shift: added to each reward.
        """

        expectile: float = Field(default=0.7, gt=0, lt=1)
        beta: float = Field(default=3.0, ge=0)
        weight_limit: float = Field(default=100.0, gt=0)
        discount: float = Field(default=0.99, ge=0, lt=1)
        tau: float = Field(default=0.005, gt=0, le=1)
        critic_learning_rate: float = Field(default=3e-4, gt=0)
        critic_width: int = Field(default=256, ge=1)
        critic_layers: int = Field(default=2, ge=1)
        return_range: float | None = Field(default=1000.0, gt=0)
        reward_shift: float = 0.0

    settings: Settings

    def begin(self) -> None:
        super().begin()
        own = self.settings
        self.values = ImplicitQ(
            self,
            self.value_networks,
            self.backup,
            expectile=own.expectile,
            tau=own.tau,
            rate=own.critic_learning_rate,
        )

    def update(self, batch: Batch, rate: float | Tensor) -> Tensor:
        """See `Objective.update`: V, then Q, then the policy, all by what was known before the update."""
        own, rows = self.settings, batch.targets
        here, after = self.backup.pairs(rows)
        actions = self.source.actions[rows]  # (S, B, M)
        advantage = self.values.update(rows, here, after, actions)
        weights = (own.beta * advantage).exp().clamp(max=own.weight_limit)  # (S, B)
        with self.autocast():
            params = self.stack(here.features, here.lengths)  # (S, B, P)
        loss = self.backup.mean(weights * self.imitation(params, actions), rows)
        self.policy_step(loss, rate)
        return loss.detach()

    def imitation(self, params: Tensor, actions: Tensor) -> Tensor:
        """Negative log-density of actions (S, B, M), or their squared error, (S, B)."""
        head = self.stack.head
        if head.density:
            return -head.log_prob(params, actions)
        return (head.mean(params) - actions).square().sum(-1)
