"""What a search is told, what it costs, and which executed timesteps an imagined one can see."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from ablate.errors import UserError
from ablate.models.assembly import block
from ablate.models.spec import ModelSpec
from ablate.models.tokens import stream
from ablate.registry import Section, get

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class PlanOptions(Section):
    """Options of a search; the defaults are the release's for hopper (config/offline.py).

    Attributes:
        objective: `return`, by imagined rewards and a final value; `likelihood`, the most probable sequence
            (imitation, and with a model that has a goal: reaching it); `direct`, no search: each slot of the
            action drawn, or the most likely, after the ones before it; `rewards`, by imagined rewards alone;
            `value`, by the final value alone.
        mode: `reference` crops whole timesteps off the front as the release does, and counts positions from
            the new front; `full` crops nothing.
        horizon: imagined timesteps. beam: sequences kept. n_expand: continuations of each (not for likelihood).
        k_obs, k_act, k_rew: draw among so many most likely bins; null: among all.
        cdf_obs, cdf_act, cdf_rew: leave out the least likely bins that hold this share of the probability.
        percentile: `mean` or a number in (0, 1): what is read from the distributions of reward and value.
        value: what a sequence is worth from its last imagined step on (return only): by its value `tokens`, by the
            model's `critic`, or by the `exact` Q* of the data's process where it is known; the latter two give Q of
            that step in place of its reward and value.
        least_likely: probability that the actions of a sequence are to have, the geometric mean over its timesteps;
            what is less likely comes after everything that isn't, the likeliest first, much as in the Trajectory
            Autoencoding Planner (Jiang et al. 2023, equation 3). null: likelihood doesn't matter (not for likelihood).
        discount: of imagined rewards.
        max_context_transitions: timesteps the search may look at, imagined ones counted in (reference), or
            executed timesteps it is given (full).
        prefix_context: whether executed timesteps are looked at at all.
        plan_freq: environment steps between searches.
        proposals: which actions are compared (return only): the `model`'s own; `uniform` ones between the bounds; or
            `inflated` ones, of a Gaussian about what the model expects. Random shooting is `uniform` with as many
            sequences as there are candidates, each with one continuation.
        temperature: of the model's own proposals; imagined observations and rewards are drawn as ever.
        spread: of inflated ones, standard deviations of the data's actions.
    """

    objective: Literal["return", "likelihood", "direct", "rewards", "value"] = "return"
    mode: Literal["reference", "full"] = "reference"
    horizon: Count = 15
    beam: Count = 128
    n_expand: Count = 2
    k_obs: Count | None = 1
    k_act: Count | None = None
    k_rew: Count | None = 1
    cdf_obs: Share | None = None
    cdf_act: Share | None = 0.6
    cdf_rew: Share | None = None
    percentile: Annotated[float, Field(gt=0, lt=1)] | Literal["mean"] = "mean"
    value: Literal["tokens", "critic", "exact"] = "tokens"
    least_likely: Annotated[float, Field(gt=0, lt=1)] | None = None
    discount: float = Field(default=0.99, ge=0, le=1)
    max_context_transitions: Count = 5
    prefix_context: bool = True
    plan_freq: Count = 1
    proposals: Literal["model", "uniform", "inflated"] = "model"
    temperature: float = Field(default=1.0, gt=0)
    spread: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _executed_within_the_plan(self) -> Self:
        if self.plan_freq > self.horizon and self.objective != "direct":
            raise ValueError(
                f"plan_freq: found {self.plan_freq}; a plan has {self.horizon} timesteps to execute"
            )
        return self

    @property
    def scored(self) -> bool:
        """Whether sequences are drawn and kept by a score: rewards, values or both."""
        return self.objective not in ("likelihood", "direct")

    @property
    def executed(self) -> int:
        """Most executed timesteps that stand before the present observation."""
        return self.max_context_transitions if self.prefix_context else 0


def per_step(spec: ModelSpec) -> int:
    """Tokens of a timestep."""
    return len(stream(spec))


def observation_tokens(spec: ModelSpec) -> int:
    """Tokens of a timestep's observation; where one token holds everything, that one."""
    return max(1, sum(held[-1] < spec.observation_dim for held in stream(spec)))


def binned(spec: ModelSpec) -> bool:
    """Whether what the model's head predicts are bins."""
    return "valid" in inspect.signature(get("head", spec.head)).parameters


@lru_cache(maxsize=256)
def holds(spec: ModelSpec) -> int | None:
    """Most timesteps that the model can look at; None where its parameters belong to no length."""
    with torch.device("meta"):
        made: Any = spec.build()
        return None if made.mixer.extends else spec.context


def check_fits(spec: ModelSpec, options: PlanOptions) -> None:
    """Raise UserError where the search can't be done with the model."""
    bins = binned(spec)
    if options.objective == "likelihood" and not bins:
        raise UserError(
            f"plan.objective: likelihood searches among bins, and the head '{spec.head}' has none; "
            "allowed: heads categorical, autoregressive, or objective return."
        )
    several = options.beam > 1 or options.n_expand > 1
    own = options.proposals == "model"
    if several and own and not get("head", spec.head).density:
        raise UserError(
            f"plan: the head '{spec.head}' proposes one action only; allowed: any other head, or "
            "other proposals."
        )
    if options.scored and options.least_likely is not None and not bins:
        raise UserError(
            f"plan.least_likely: the head '{spec.head}' has no bins, so that an action has a density and no "
            "probability; allowed: null."
        )
    if options.percentile != "mean" and not bins:
        raise UserError(f"plan.percentile: the head '{spec.head}' has no bins; allowed: mean.")
    if options.mode == "full" and holds(spec) is not None:
        needed = options.executed + options.horizon + (per_step(spec) == 1)
        if needed > spec.context:
            raise UserError(
                f"plan.mode: full needs a window that holds {options.executed} executed and {options.horizon} "
                f"imagined timesteps, and the mixer '{spec.mixer}' has parameters for {spec.context}; allowed: mode "
                "reference, a longer window, or a mixer without a fixed length (attention with model.positions: "
                "rotary or none, gru, lstm, ssm, convformer)."
            )


def window_cap(spec: ModelSpec, options: PlanOptions) -> int | None:
    """Most tokens that the model looks at, None where nothing is cropped."""
    if options.mode == "full" and options.objective != "direct":
        return None
    n = per_step(spec)
    return min(options.max_context_transitions * n - (n > 1), block(spec))


def cropped(tokens: int, cap: int | None, each: int) -> int:
    """Timesteps of `each` tokens cut off the front of so many tokens: whole ones, as few as let the rest fit."""
    if cap is None or tokens <= cap:
        return 0
    return -(-(tokens - cap) // each)


def visible_timesteps(spec: ModelSpec, options: PlanOptions, executed: int) -> np.ndarray:
    """(H, executed) bool: whether imagined step h, when its action is chosen, sees an executed timestep.

    executed: timesteps before the present one, the last of them in the last column; the present observation
    is imagined step 0's own.
    """
    given = min(executed, options.executed)
    first = np.zeros(
        options.horizon, dtype=np.int64
    )  # of the timesteps given, the first that is seen
    cap = window_cap(spec, options)
    for step in range(options.horizon):
        tokens = (given + step) * per_step(spec) + observation_tokens(spec)
        first[step] = cropped(tokens, cap, per_step(spec))
    age = np.arange(executed) - (executed - given)  # index among those given; negative: not given
    return (age[None] >= 0) & (age[None] >= first[:, None])


def released_positions(spec: ModelSpec, options: PlanOptions) -> dict[str, int]:
    """Token positions of one return search after a full context: dimension layout, reference mode.

    `released`: every token a forward pass over the whole window, as in the public code. `cached`: each
    sequence's keys and values kept, the window encoded anew once a timestep, the prefix once for all.
    """
    n, a, slots = spec.observation_dim, spec.action_dim, spec.slots
    cap = window_cap(spec, options)
    wide = options.beam * options.n_expand
    released, length = 0, options.executed * slots + n
    start = length - slots * cropped(length, cap, slots)
    cached = start
    for step in range(options.horizon):
        for drawn in range(a + 2):
            window = length - slots * cropped(length, cap, slots)
            released += wide * window
            cached += 0 if step == 0 and drawn == 0 else wide
            length += 1
        if step == options.horizon - 1:
            break
        for drawn in range(n):
            window = length - slots * cropped(length, cap, slots)
            released += options.beam * window
            anew = drawn == 0 and cropped(length, cap, slots) > cropped(length - 1, cap, slots)
            cached += options.beam * (window if anew else 1)
            length += 1
    return {"released": released, "cached": cached}
