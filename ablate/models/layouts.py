"""What a model is told of a timestep: the columns of its row. `ablate.models.tokens` makes tokens of them.

The row of timestep t holds the present observation, the action and reward that led to it, and what the
policy is conditioned on. What of a timestep stays visible once it is past is the factor `history`; the
present observation and the present condition always are visible. Returns-to-go of past timesteps give away
past rewards (R_{t-1} - R_t = r_{t-1}), so they are shown only where past rewards are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ablate.config import CONDITIONS, HISTORIES
from ablate.data.windows import Visibility
from ablate.errors import unknown


@dataclass(frozen=True)
class Fields:
    """What a token is made of; every tensor shares its leading shape (...,).

    observation (..., N) normalised; action (..., M), reward (...,): the previous timestep's, zero at the
    start of an episode; return_to_go (...,) scaled; time (...,) = t / horizon; policy (..., Z) one-hot;
    average_return (...,): return-to-go over the timesteps left (Emmons et al. 2022), scaled; goal (..., G):
    coordinates of the observation to reach, normalised; these two where a condition shows them. timestep
    (...,): t itself, where the model has a table of timesteps.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    return_to_go: Tensor
    time: Tensor
    policy: Tensor
    average_return: Tensor | None = None
    goal: Tensor | None = None
    timestep: Tensor | None = None


@dataclass(frozen=True)
class Layout:
    """Column layout of a timestep's row.

    observation_dim N, action_dim M, policies Z >= 0; `history` and `condition` are levels of the study;
    goal: the G coordinates of the observation that a goal is about, where the data set has goals;
    timesteps: whether the model looks up the timestep's index in a table (`ModelSpec.timesteps`), which then
    is the last column. Raises UserError for an unknown level.
    """

    observation_dim: int
    action_dim: int
    policies: int
    history: str
    condition: str
    goal: tuple[int, ...] = ()
    timesteps: bool = False

    def __post_init__(self) -> None:
        if self.history not in HISTORIES:
            raise unknown("history", self.history, HISTORIES)
        if self.condition not in CONDITIONS:
            raise unknown("condition", self.condition, CONDITIONS)

    @property
    def columns(self) -> list[tuple[str, int, bool, bool]]:
        """(name, width, seen in the window's first row, stays visible when past), in the order of the row."""
        past_states = "states" in self.history
        past_actions = "actions" in self.history
        past_rewards = "rewards" in self.history
        columns = [("observation", self.observation_dim, True, past_states)]
        # The action that led to the oldest visible state was taken before the window: not visible.
        if past_actions:
            columns.append(("action", self.action_dim, False, True))
        if past_rewards:
            columns.append(("reward", 1, False, True))
        # Past returns-to-go are as good as past rewards: shown where those are, or where asked for.
        past_returns = past_rewards or "returns" in self.history
        if "return-to-go" in self.condition:
            columns.append(("return_to_go", 1, True, past_returns))
        if "average-return" in self.condition:
            columns.append(("average_return", 1, True, past_returns))
        if "goal" in self.condition:
            # A goal that hindsight chose for a past timestep may lie before the present one.
            columns.append(("goal", len(self.goal), True, False))
        if "time" in self.condition:
            columns.append(("time", 1, True, True))
        if self.condition == "policy-id":
            columns.append(("policy", self.policies, True, True))
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

    def table(self, fields: Fields) -> Tensor:
        """Rows as seen at the present timestep, (..., F)."""
        parts = []
        for name, _, _, _ in self.columns:
            value = getattr(fields, name)
            scalar = name in ("reward", "return_to_go", "average_return", "time", "timestep")
            parts.append(value.unsqueeze(-1) if scalar else value)
        return torch.cat(parts, dim=-1)

    def visible(self, context: int, device: torch.device | str = "cpu") -> Visibility:
        """What windows of at most `context` timesteps show."""
        first, stays = [], []
        for _, width, in_first, when_past in self.columns:
            first += [float(in_first)] * width
            stays += [float(when_past)] * width
        return Visibility(
            context, torch.tensor(first, device=device), torch.tensor(stays, device=device)
        )
