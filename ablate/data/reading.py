"""How a file of one's own is to be read: what it leaves open, said by whoever knows it.

Everything has a default that takes a file as it says of itself, and every reader asks, in one line, for
what it can't know. The commands' options and a study's data entry are these fields by these names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ablate.data.trajectories import OPTIONAL, PER_EPISODE
from ablate.errors import UserError, unknown

# What a file holds, a row a timestep, and what else it may hold of each.
LAYOUT = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
NAMES = (*LAYOUT, *(name for name in OPTIONAL if name not in PER_EPISODE))
Terminals = Literal["ask", "as-is", "time-limit"]


class Reading(BaseModel):
    """What a file doesn't say of itself.

    Attributes:
        environment: gymnasium id (`package:id` imports the package) that a policy is evaluated in, whose
            time limit and action space the file is read by; None for the one that the file names, and "none" where
            there is no simulator, whatever the file names.
        horizon: timesteps after which an episode is cut; None for the environment's time limit.
        rescale_actions: actions are in units of their own: put their bounds (the environment's; the
            data's own extremes where no environment is known) to -1 and 1.
        clip_actions: put actions beyond [-1, 1], after any rescaling, onto the bound.
        choices: number of choices of a discrete action; None for the environment's, else one more than
            the largest in a file of integers; 0: actions are magnitudes, although they are whole.
        map: our name (observations, actions, rewards, terminals, timeouts, next_observations) -> name in the
            file; of several, as in "position+velocity", the arrays are put side by side, in this order. Said
            the other way round, it is turned.
        terminals: what it means that episodes end as terminal at the time limit. "as-is": these are true
            ends. "time-limit": they were cut there. "ask": refuse where every episode ends so.
        held_out: share of the episodes that isn't trained on, at least one episode; 0 trains on all.
        random, expert: the returns that score 0 and 100; None for those of the file or of the environment.
        folder: where relative paths begin; that of the study file. Changes nothing of what is read.
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
    random: float | None = Field(default=None, allow_inf_nan=False)
    expert: float | None = Field(default=None, allow_inf_nan=False)
    folder: str = ""

    @field_validator("map", mode="before")
    @classmethod
    def _ours_first(cls, found: Any) -> Any:
        if not isinstance(found, dict) or set(found) <= set(NAMES):
            return found
        if not set(map(str, found.values())) <= set(NAMES):
            return found
        turned: dict[str, str] = {}
        for theirs, ours in found.items():
            turned[ours] = f"{turned[ours]}+{theirs}" if ours in turned else theirs
        return turned

    @model_validator(mode="after")
    def _both_or_none(self) -> Reading:
        low, high = self.random, self.expert
        if (low is None) != (high is None) or (
            low is not None and high is not None and low >= high
        ):
            raise ValueError(
                f"random and expert: found {low} and {high}; allowed: two returns, the first below the second"
            )
        return self

    @property
    def said(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON: belongs to the identity of the data."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude={"folder"})

    @property
    def renamed(self) -> dict[str, str]:
        """`map` the other way round: name in the file -> our name."""
        return {
            theirs.strip(): ours for ours, both in self.map.items() for theirs in both.split("+")
        }

    @property
    def of_file(self) -> Reading:
        """What concerns the file alone: the same without an environment that isn't there."""
        return self.model_copy(update={"environment": None}) if self.simulated is False else self

    @property
    def simulated(self) -> bool | None:
        """Whether an environment is named here, or said to be none; None where nothing is said."""
        return None if self.environment is None else self.environment != NONE


AS_IT_IS = Reading()
NONE = "none"  # the environment of data without a simulator


def checked(said: Mapping[str, Any]) -> Reading:
    """The reading that these fields make. Raises UserError, one line, for what it doesn't have or allow."""
    try:
        return Reading.model_validate(dict(said))
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            raise unknown("how a file is read: the field", name, Reading.model_fields) from None
        text = str(problem["msg"]).removeprefix("Value error, ").rstrip(".")
        found = f"{name}: found '{problem['input']}'; " if name else ""
        raise UserError(f"how a file is read: {found}{text[0].lower()}{text[1:]}.") from None
