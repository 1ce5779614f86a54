"""What a model is told of a timestep: the columns of its row. `ablate.models.tokens` makes tokens of them.

The row of timestep t holds the present observation, the action and reward that led to it, and what the
policy is conditioned on (`ablate.models.conditions`). What of a timestep stays visible once it is past is the
factor `history` (`ablate.models.histories`); the present observation and the present condition always are visible.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ablate.data.normalise import Scales
from ablate.data.trajectories import Trajectories
from ablate.data.windows import Visibility
from ablate.errors import UserError
from ablate.models import conditions, histories
from ablate.models.conditions import Condition

if TYPE_CHECKING:
    from ablate.data.catalogue import DataSpec


@dataclass(frozen=True)
class Fields:
    """What a row is made of, in the units of the data; every tensor shares its leading shape (...,).

    observation (..., N); action (..., M), reward (...,): the previous timestep's, zero at the start of an
    episode; time (...,): t, the timestep's index in its episode; told: what each condition says, (..., w), by
    the condition's name.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    time: Tensor
    told: Mapping[str, Tensor] = field(default_factory=dict)

    def map(self, function: Callable[[Tensor], Tensor]) -> Fields:
        """`function` of every tensor."""
        return Fields(
            observation=function(self.observation),
            action=function(self.action),
            reward=function(self.reward),
            time=function(self.time),
            told={name: function(values) for name, values in self.told.items()},
        )


@dataclass(frozen=True)
class Layout:
    """Column layout of a timestep's row.

    observation_dim N, action_dim M, policies Z >= 0; `history` and `condition` are levels of the study, sums
    of registered parts; goal: the G coordinates of the observation that a goal is about, where the data set has
    goals; timesteps: whether the model looks up the timestep's index in a table (`ModelSpec.timesteps`), which
    then is the last column. Raises UserError for an unknown level.
    """

    observation_dim: int
    action_dim: int
    policies: int
    history: str
    condition: str
    goal: tuple[int, ...] = ()
    timesteps: bool = False

    def __post_init__(self) -> None:
        _ = self.past, self.conditions

    @classmethod
    def of(
        cls, config: Mapping[str, Any], data: DataSpec, observation_dim: int, action_dim: int
    ) -> Layout:
        """What a model of a configuration is told of a timestep; a joint model's conditions stand before its sequence.

        Raises UserError for a condition that the data don't record.
        """
        if unmet := conditions.unmet(config["condition"], data):
            raise UserError(unmet)
        return cls(
            observation_dim=observation_dim,
            action_dim=action_dim,
            policies=data.num_policies,
            history=config["history"],
            condition=config["condition"],
            goal=data.shown_goal,
            timesteps=config["model"]["timesteps"] > 0,
        )

    @cached_property
    def past(self) -> frozenset[str]:
        """What the history shows of the past."""
        return histories.past(self.history)

    @cached_property
    def conditions(self) -> dict[str, Condition]:
        """The conditions that have columns, by name, in the order of the row."""
        found = conditions.of(self.condition)
        return {name: condition for name, condition in found.items() if condition.width(self)}

    @cached_property
    def columns(self) -> list[tuple[str, int, bool, bool]]:
        """(name, width, seen in the window's first row, stays visible when past), in the order of the row."""
        columns = [("observation", self.observation_dim, True, "observation" in self.past)]
        # The action that led to the oldest visible state was taken before the window: not visible.
        if "action" in self.past:
            columns.append(("action", self.action_dim, False, True))
        if "reward" in self.past:
            columns.append(("reward", 1, False, True))
        for name, condition in self.conditions.items():
            # What stands elsewhere in the window is the present's; a past timestep's own is never seen.
            stays = condition.stays(self.past) and not condition.stands
            columns.append((name, condition.width(self), True, stays))
        if self.timesteps:
            columns.append(("timestep", 1, True, True))
        return columns

    @property
    def features(self) -> int:
        """Width F of a row."""
        return sum(width for _, width, _, _ in self.columns)

    @property
    def carriable(self) -> bool:
        """Whether a row stays as it is once it is past, so that a carried state can hold it."""
        return all(stays for _, _, _, stays in self.columns)

    def told(self, trajectories: Trajectories) -> dict[str, np.ndarray]:
        """What each condition says of logged trajectories, raw numbers (T, w) by name.

        Raises UserError for a condition that says something of another shape, or what is not finite.
        """
        found = {}
        for name, condition in self.conditions.items():
            said = np.asarray(condition.logged(trajectories, self), dtype=np.float32)
            if said.ndim != 2 or len(said) != len(trajectories.rewards):
                raise UserError(
                    f"condition '{name}': says numbers of shape {said.shape} of {trajectories.name}; "
                    f"allowed: ({len(trajectories.rewards)}, w)."
                )
            if not np.isfinite(said).all():
                row = int(np.argwhere(~np.isfinite(said))[0, 0])
                raise UserError(
                    f"condition '{name}': what it says of row {row} of {trajectories.name} is not finite."
                )
            found[name] = said
        return found

    def rows(self, raw: Fields, scales: Scales) -> Tensor:
        """Rows (..., F) as seen at the present timestep, of raw fields with leading shape (...,).

        Raises UserError for a condition that gives another width than it declares.
        """
        parts = [scales.observation(raw.observation)]
        if "action" in self.past:
            parts.append(raw.action)
        if "reward" in self.past:
            parts.append(raw.reward.unsqueeze(-1) / scales.reward)
        for name, condition in self.conditions.items():
            shown = condition.scaled(raw.told[name], scales, self)
            if shown.shape[-1] != condition.width(self):
                raise UserError(
                    f"condition '{name}': gives {shown.shape[-1]} columns; it declares {condition.width(self)}."
                )
            parts.append(shown)
        if self.timesteps:
            parts.append(raw.time.unsqueeze(-1))
        return torch.cat(parts, dim=-1)

    def visible(self, context: int, device: torch.device | str = "cpu") -> Visibility:
        """What windows of at most `context` timesteps show."""
        first: list[bool] = []
        stays: list[bool] = []
        placed: list[tuple[str, int, int]] = []
        for name, width, in_first, when_past in self.columns:
            if name in self.conditions and (place := self.conditions[name].stands):
                placed.append((place, len(first), len(first) + width))
            first += [in_first] * width
            stays += [when_past] * width
        return Visibility.of(context, first, stays, device, tuple(placed))
