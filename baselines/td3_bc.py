"""TD3+BC: the least that makes an off-policy learner work offline, an imitation term in the policy's loss.

Fujimoto & Gu, A Minimalist Approach to Offline Reinforcement Learning, 2021. Numbers and order of steps are those
of the paper's table 3 and of CORL's `algorithms/offline/td3_bc.py`; where the two differ it is said.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ablate.learn.objective import Batch
from ablate.learn.values import ValueObjective, follow_, frozen_copy
from ablate.registry import Section, register


@register("algorithm", "td3+bc", label="TD3+BC")
class TD3BC(ValueObjective):
    """Twin critics, a delayed deterministic policy with target smoothing, and the logged action's pull.

    The policy's loss is mean((pi - a)^2) - alpha / mean|Q| * mean(Q(s, pi)).
    """

    class Settings(Section):
        """Hyper-parameters; the policy's own (updates, batch, learning rate) stand under `train`. Sources: the paper,
        section 5 for the first, table 3 for the rest.

        alpha: weight of Q against imitation. discount: of rewards. tau: step of the target networks. policy_noise:
        standard deviation of target smoothing. noise_clip: its bound. policy_every: updates of the critics for each of
        the policy. critic_learning_rate: of both critics. critic_width: of a hidden layer. critic_layers: hidden ones.
        return_range: rewards are scaled so that returns span it; null for as they are, as CORL. reward_shift: added to
        each reward.
        """

        alpha: float = Field(default=2.5, ge=0)
        discount: float = Field(default=0.99, ge=0, lt=1)
        tau: float = Field(default=0.005, gt=0, le=1)
        policy_noise: float = Field(default=0.2, ge=0)
        noise_clip: float = Field(default=0.5, ge=0)
        policy_every: int = Field(default=2, ge=1)
        critic_learning_rate: float = Field(default=3e-4, gt=0)
        critic_width: int = Field(default=256, ge=1)
        critic_layers: int = Field(default=2, ge=1)
        return_range: float | None = Field(default=None, gt=0)
        reward_shift: float = 0.0

    heads: ClassVar[tuple[str, ...]] = ("mse",)  # the policy is deterministic
    settings: Settings

    def begin(self) -> None:
        super().begin()
        self.critic = self.value_networks("critic", networks=2, actions=True)
        self.target_critic = self.critic.frozen_copy()
        self.target_policy = frozen_copy(self.stack)
        self.last_loss = torch.zeros(self.stack.size, device=self.device, dtype=self.dtype)
        self.critic_optimiser = self.add(
            "critic", self.critic.parameters(), self.settings.critic_learning_rate
        )
        self.add("target_critic", self.target_critic.parameters())
        self.add("target_policy", self.target_policy.parameters())
        self.add("last_loss", [self.last_loss])

    def update(self, batch: Batch, rate: float | Tensor) -> Tensor:
        """See `Objective.update`: the critics always, the policy every `policy_every` updates."""
        own, rows = self.settings, batch.targets
        here, after = self.backup.pairs(rows)
        actions = self.source.actions[rows]  # (S, B, M)

        with torch.no_grad():
            noise = own.policy_noise * self.noise(batch.update, "normal", *actions.shape[1:])
            noise = noise.clamp(-own.noise_clip, own.noise_clip)
            next_actions = self.target_policy(after.features, after.lengths) + noise
            next_values = self.target_critic(after, next_actions.clamp(-1.0, 1.0))  # (2, S, B)
            wanted = self.backup.backed_up(rows, next_values.amin(0))  # (S, B)

        errors = (self.critic(here, actions) - wanted).square()  # (2, S, B)
        self.critic_optimiser.zero_grad()
        self.backup.mean(errors, rows).sum().backward()
        self.critic_optimiser.step()

        if (batch.update + 1) % own.policy_every == 0:
            with torch.no_grad():
                encoded = self.critic.encode(here)
            with self.autocast():
                chosen = self.stack(here.features, here.lengths)  # (S, B, M)
            values = self.critic.values(encoded, chosen, networks=1, constant=True)[0]  # (S, B)
            weight = own.alpha / self.backup.mean(values.detach().abs(), rows)  # (S,)
            pull = self.backup.mean((chosen - actions).square().mean(-1), rows)
            loss = pull - weight * self.backup.mean(values, rows)
            self.policy_step(loss, rate)
            self.last_loss.copy_(loss.detach())
            follow_(self.target_critic.parameters(), self.critic.parameters(), own.tau)
            follow_(self.target_policy.parameters(), self.stack.parameters(), own.tau)
        return self.last_loss.clone()
