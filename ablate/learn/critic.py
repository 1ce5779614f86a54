"""A Q-function beside a joint model: trained apart, by implicit Q-learning, for its search to read (TT + Q).

Janner et al. 2021 plan so on AntMaze: the search asks a Q-function what a sequence is worth from its last action on,
where a value token would give the behaviour's return. Its code was never released; the Q-function here is that of
implicit Q-learning. Rewards are the joint model's: raw, with its penalty at true ends, so that the search may add
them up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor, nn

from ablate.data import streams
from ablate.data.windows import BLOCK, Visibility
from ablate.learn.implicit_q import ImplicitQ
from ablate.learn.objective import Objective
from ablate.learn.transitions import Transitions
from ablate.learn.values import Backup, Perceptrons, ValueNetworks, perceptrons
from ablate.models.spec import ModelSpec
from ablate.registry import Section


class CriticSettings(Section):
    """Hyper-parameters; as in IQL (Kostrikov et al. 2021, section 5.2 and appendix B) unless said otherwise.

    updates: of the critic, for each of the joint model. batch: transitions. expectile: of Q that V is. tau: step of the
    target critic. learning_rate: of Q and V. width: of a hidden layer. layers: hidden ones.
    """

    updates: int = Field(default=5, ge=1)
    batch: int = Field(default=256, ge=1)
    expectile: float = Field(default=0.7, gt=0, lt=1)
    tau: float = Field(default=0.005, gt=0, le=1)
    learning_rate: float = Field(default=3e-4, gt=0)
    width: int = Field(default=256, ge=1)
    layers: int = Field(default=2, ge=1)


class Critic(nn.Module):
    """Q of raw observations and actions: the lesser of two perceptrons'. Its numbers are buffers, none a parameter
    of the joint model.

    mean, std: (N,) of the observations.
    """

    def __init__(
        self, mean: Tensor, std: Tensor, action_dim: int, settings: CriticSettings
    ) -> None:
        super().__init__()
        twins = [torch.Generator(), torch.Generator()]
        made = Perceptrons(twins, len(mean), action_dim, settings.width, settings.layers)
        self.count = len(made.parameters())
        for number, tensor in enumerate(made.parameters()):
            self.register_buffer(f"tensor_{number}", tensor.to(mean.dtype))
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())

    @property
    def tensors(self) -> list[Tensor]:
        """As `Perceptrons.parameters`, (2, ...) each."""
        return [self.get_buffer(f"tensor_{number}") for number in range(self.count)]

    def standardised(self, observations: Tensor) -> Tensor:
        """What the perceptrons read of raw observations (..., N)."""
        return (observations - self.get_buffer("mean")) / self.get_buffer("std")

    @torch.no_grad()
    def forward(self, observations: Tensor, actions: Tensor, step: int = 0) -> Tensor:
        """Observations (E, r, N) and actions (E, r, M), raw, to values (E, r): the same at every step of a plan."""
        rows = self.standardised(observations).flatten(0, 1).expand(2, -1, -1)
        found = perceptrons(self.tensors, rows, actions.flatten(0, 1).expand(2, -1, -1))
        return found.amin(0).view(observations.shape[:2])

    @torch.no_grad()
    def copy_(self, tensors: Sequence[Tensor]) -> None:
        """Take over trained numbers."""
        for own, trained in zip(self.tensors, tensors, strict=True):
            own.copy_(trained)


class CriticTraining:
    """Trains `critic` beside a joint model, as parts of its `objective`: so many updates for each of the model's.

    seen: transitions whose table holds raw observations. actions: (T, M). Batches come from a stream of their own.
    """

    def __init__(
        self,
        objective: Objective,
        critic: Critic,
        seen: Transitions,
        actions: Tensor,
        discount: float,
        settings: CriticSettings,
    ) -> None:
        self.objective, self.critic, self.settings = objective, critic, settings
        self.actions = actions
        ones = torch.ones(seen.table.shape[1], device=seen.table.device)
        seen = replace(seen, table=critic.standardised(seen.table))
        spec = ModelSpec("mlp", "mse", 1, seen.table.shape[1], actions.shape[1], width=1)

        def networks(name: str, *, networks: int, actions: bool) -> ValueNetworks:
            return ValueNetworks(
                spec,
                objective.study,
                objective.seeds,
                name,
                networks=networks,
                actions=spec.action_dim if actions else 0,
                width=settings.width,
                layers=settings.layers,
                device=seen.table.device,
                dtype=seen.table.dtype,
            )

        self.values = ImplicitQ(
            objective,
            networks,
            Backup(seen, Visibility(1, ones, ones), seen.rewards, discount),
            expectile=settings.expectile,
            tau=settings.tau,
            rate=settings.learning_rate,
        )
        critic.copy_(self.values.target_critic.parameters())
        self._drawn: tuple[int, Tensor] | None = None

    def update(self, number: int) -> Tensor:
        """What belongs to the joint model's update of that number.

        The advantages (1, B) of the last batch: finite unless the critic has diverged.
        """
        advantage = torch.empty(0)
        for targets in self._targets(number):
            here, after = self.values.backup.pairs(targets)
            advantage = self.values.update(targets, here, after, self.actions[targets])
        self.critic.copy_(self.values.target_critic.parameters())
        return advantage

    def _targets(self, number: int) -> Tensor:
        """Rows (U, 1, B) of the updates that belong to one of the joint model's, drawn a block at a time."""
        block, place = divmod(number, BLOCK)
        if self._drawn is None or self._drawn[0] != block:
            own, objective = self.settings, self.objective
            generator = streams.stream(
                objective.study, objective.seeds[0], f"batches/critic/{block}"
            )
            drawn = generator.integers(0, len(self.actions), (BLOCK, own.updates, 1, own.batch))
            self._drawn = (block, torch.from_numpy(drawn).to(self.actions.device))
        return self._drawn[1][place]
