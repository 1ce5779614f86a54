"""How a file of one's own is to be read: what it leaves open, said by whoever knows it.

Everything has a default that takes a file as it says of itself, and every reader asks, in one line, for
what it can't know. The commands' options and a study's data entry are these fields by these names.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Terminals = Literal["ask", "as-is", "time-limit"]


class Reading(BaseModel):
    """What a file doesn't say of itself.

    Attributes:
        environment: gymnasium id (`package:id` imports the package) that a policy is evaluated in, whose
            time limit and action space the file is read by; None for the one that the file names.
        horizon: timesteps after which an episode is cut; None for the environment's time limit.
        rescale_actions: actions are in units of their own: put their bounds (the environment's; the
            data's own extremes where no environment is known) to -1 and 1.
        clip_actions: put actions beyond [-1, 1], after any rescaling, onto the bound.
        choices: number of choices of a discrete action; None for the environment's, else one more than
            the largest in a file of integers; 0: actions are magnitudes, although they are whole.
        map: name in the file -> our name (observations, actions, rewards, terminals, timeouts,
            next_observations); several names onto one of ours are put side by side, in this order.
        terminals: what it means that episodes end as terminal at the time limit. "as-is": these are true
            ends. "time-limit": they were cut there. "ask": refuse where every episode ends so.
        held_out: share of the episodes that isn't trained on, at least one episode; 0 trains on all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    environment: str | None = Field(default=None, min_length=1, max_length=200)
    horizon: int | None = Field(default=None, ge=1, le=10**9, strict=True)
    rescale_actions: bool = Field(default=False, strict=True)
    clip_actions: bool = Field(default=False, strict=True)
    choices: int | None = Field(default=None, ge=0, le=1 << 16, strict=True)
    map: dict[str, str] = Field(default_factory=dict)
    terminals: Terminals = "ask"
    held_out: float = Field(default=0.1, ge=0.0, lt=1.0, allow_inf_nan=False)

    @property
    def said(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON: belongs to the identity of the data."""
        return self.model_dump(mode="json", exclude_defaults=True)


AS_IT_IS = Reading()
