"""Values of the best actions that the data hold, by expectile regression.

Kostrikov, Nair & Levine, Offline Reinforcement Learning with Implicit Q-Learning, 2021, equations 5 and 6. No action
that isn't in the data is ever evaluated, so the values need no policy: IQL extracts one from them, and a search with
a joint model may read them instead of its own value tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ablate.learn.objective import Objective
from ablate.learn.values import Backup, ValueNetworks, View, follow_

MakeNetworks = Callable[..., ValueNetworks]


class ImplicitQ:
    """Twin critics Q and a value V for each of S seeds, trained on `backup` as parts of `objective`.

    make: gives `ValueNetworks`, called as make(name, networks=..., actions=...). expectile: 0.5 is SARSA. tau:
    the target critics' step an update. rate: the learning rate of Q and V, constant.
    """

    def __init__(
        self,
        objective: Objective,
        make: MakeNetworks,
        backup: Backup,
        *,
        expectile: float,
        tau: float,
        rate: float,
    ) -> None:
        self.backup, self.expectile, self.tau = backup, expectile, tau
        self.critic = make("critic", networks=2, actions=True)
        self.target_critic = self.critic.frozen_copy()
        self.value = make("value", networks=1, actions=False)
        self.critic_optimiser = objective.add("critic", self.critic.parameters(), rate)
        self.value_optimiser = objective.add("value", self.value.parameters(), rate)
        objective.add("target_critic", self.target_critic.parameters())

    def update(self, targets: Tensor, here: View, after: View, actions: Tensor) -> Tensor:
        """V, then Q, by what was known before, at rows (S, B) with actions (S, B, M); the advantages (S, B) before.

        here, after: `Backup.pairs` of the rows.
        """
        backup = self.backup
        with torch.no_grad():
            value_after = self.value(after)[0]  # (S, B)
            best = self.target_critic(here, actions).amin(0)  # (S, B)
        advantage = best - self.value(here)[0]
        value_loss = backup.mean(expectile_loss(advantage, self.expectile), targets)
        self.value_optimiser.zero_grad()
        value_loss.sum().backward()
        self.value_optimiser.step()

        wanted = backup.backed_up(targets, value_after)
        errors = (self.critic(here, actions) - wanted).square().mean(0)  # (S, B), mean of the twins
        self.critic_optimiser.zero_grad()
        backup.mean(errors, targets).sum().backward()
        self.critic_optimiser.step()
        follow_(self.target_critic.parameters(), self.critic.parameters(), self.tau)
        return advantage.detach()


def expectile_loss(error: Tensor, expectile: float) -> Tensor:
    """|expectile - 1(error < 0)| * error^2: its minimiser is the expectile; 0.5 gives half the squared error."""
    weight = torch.where(error < 0, 1.0 - expectile, expectile)
    return weight * error.square()
