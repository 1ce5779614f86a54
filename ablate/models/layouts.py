"""How a trajectory becomes tokens: one token a timestep.

The token of timestep t holds the present observation, the action and reward that led to it, and what the
policy is conditioned on. What of a timestep stays visible once it is past is the factor `history`; the
present observation and the present condition always are visible. Returns-to-go of past timesteps give away
past rewards (R_{t-1} - R_t = r_{t-1}), so they are shown only where past rewards are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ablate.errors import unknown

HISTORIES = ("states+actions", "states", "actions", "states+actions+rewards")
CONDITIONS = ("none", "time", "return-to-go", "return-to-go+time", "policy-id")


@dataclass(frozen=True)
class Fields:
    """What a token is made of; every tensor shares its leading shape (...,).

    observation (..., N) normalised; action (..., M), reward (...,): the previous timestep's, zero at the
    start of an episode; return_to_go (...,) scaled; time (...,) = t / horizon; policy (..., Z) one-hot.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    return_to_go: Tensor
    time: Tensor
    policy: Tensor


@dataclass(frozen=True)
class Layout:
    """Column layout of a per-timestep token.

    observation_dim N, action_dim M, policies Z >= 0; `history` and `condition` are levels of the study.
    Raises UserError for an unknown level.
    """

    observation_dim: int
    action_dim: int
    policies: int
    history: str
    condition: str

    def __post_init__(self) -> None:
        if self.history not in HISTORIES:
            raise unknown("history", self.history, HISTORIES)
        if self.condition not in CONDITIONS:
            raise unknown("condition", self.condition, CONDITIONS)

    @property
    def columns(self) -> list[tuple[str, int, bool, bool]]:
        """(name, width, seen in the window's first token, stays visible when past), in token order."""
        past_states = "states" in self.history
        past_actions = "actions" in self.history
        past_rewards = "rewards" in self.history
        columns = [("observation", self.observation_dim, True, past_states)]
        # The action that led to the oldest visible state was taken before the window: not visible.
        if past_actions:
            columns.append(("action", self.action_dim, False, True))
        if past_rewards:
            columns.append(("reward", 1, False, True))
        if "return-to-go" in self.condition:
            columns.append(("return_to_go", 1, True, past_rewards))
        if "time" in self.condition:
            columns.append(("time", 1, True, True))
        if self.condition == "policy-id":
            columns.append(("policy", self.policies, True, True))
        return columns

    @property
    def features(self) -> int:
        """Width F of a token."""
        return sum(width for _, width, _, _ in self.columns)

    @property
    def carriable(self) -> bool:
        """Whether a token stays as it is once it is past, so that a carried state can hold it."""
        return all(stays for _, _, _, stays in self.columns)

    def table(self, fields: Fields) -> Tensor:
        """Tokens as seen at the present timestep, (..., F)."""
        parts = []
        for name, _, _, _ in self.columns:
            value = getattr(fields, name)
            scalar = name in ("reward", "return_to_go", "time")
            parts.append(value.unsqueeze(-1) if scalar else value)
        return torch.cat(parts, dim=-1)

    def visible(self, context: int, device: torch.device | str = "cpu") -> Tensor:
        """(K + 1, K, F) mask: row n says what of each position is visible in a window of length n."""
        length = torch.arange(context + 1, device=device).view(-1, 1, 1)
        position = torch.arange(context, device=device).view(1, -1, 1)
        parts = []
        for _, width, first, stays in self.columns:
            seen = position < length
            if not first:
                seen = seen & (position > 0)
            if not stays:
                seen = seen & (position == length - 1)
            parts.append(seen.expand(context + 1, context, width))
        return torch.cat(parts, dim=-1).to(torch.float32)
