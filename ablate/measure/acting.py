"""The measurements `rollout` and `plan`: models act in their environment, by themselves or by search."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from ablate import registry
from ablate.data import catalogue
from ablate.data.catalogue import DataSet
from ablate.errors import UserError
from ablate.measure.base import Measurement, Numbers, Trained, needs_joint
from ablate.measure.episodes import CAP, LOST, RESPONSES, optimal_returns, summaries
from ablate.measure.rollout import Rollouts, rollout
from ablate.measure.video import Filmed
from ablate.models import conditions
from ablate.models.agent import Actable
from ablate.models.spec import ModelSpec
from ablate.plan.options import PlanOptions, visible_timesteps
from ablate.registry import Section, register


class ActingOptions(Section):
    """Options of every measurement that acts.

    episodes: of each seed. target: the return to ask for: a percentile of the data's returns as in `p90`, or a number.
    actions: drawn, or the likeliest. decrement: lower the target by each reward; the Decision Transformer's delayed
    mode doesn't. cap: of an episode's regret, in points. below: score under which an episode counts as lost.
    episodes_of: whose episodes: the training seed's own, or one list for all seeds of the study, whose intervals then
    say nothing of other episodes.
    """

    episodes: int = Field(default=50, gt=0)
    target: str | float = "p90"
    actions: Literal["sample", "mode"] = "sample"
    decrement: bool = True
    cap: float = Field(default=CAP, gt=0)
    below: float = LOST
    episodes_of: Literal["seed", "study"] = "seed"

    @field_validator("target")
    @classmethod
    def _known_target(cls, target: str | float) -> str | float:
        if isinstance(target, str) and not re.fullmatch(r"p(100|\d{1,2})", target):
            raise ValueError("expected a percentile of the data's returns such as p90, or a number")
        if isinstance(target, float) and not math.isfinite(target):
            raise ValueError("expected a finite number")
        return target


def target_return(data: DataSet, rule: str | float) -> float:
    """Return-to-go shown at the start: `p90` is the 90th percentile of the training returns, a number itself.

    Raises UserError for another rule.
    """
    if isinstance(rule, (int, float)):
        return float(rule)
    if rule.startswith("p") and rule[1:].isdecimal() and int(rule[1:]) <= 100:
        return float(np.percentile(data.train.returns, int(rule[1:])))
    raise UserError(f"target: '{rule}' is not known; allowed: a number, or p0 ... p100.")


def act(
    trained: Trained,
    options: Any,
    settings: Mapping[str, Any],
    video: Path | None = None,
    agent: Actable | None = None,
) -> Rollouts:
    """Roll every model out as `options` say. settings: what the system needs to make it act.

    video: the file for a film of the first episode. agent: the models as they act, where the caller made that.
    """
    data = trained.system.data
    env = data.spec.make_env(len(trained.seeds) * options.episodes)
    if video is not None:
        env = Filmed(env, video)
    found = rollout(
        agent or trained.system.actor(trained.models, settings),
        env,
        options.episodes,
        study=trained.streams,
        seeds=trained.seeds,
        target=target_return(data, options.target),
        policy=data.spec.best_policy,
        sample=options.actions == "sample",
        decrement=options.decrement,
        lists=[0] * len(trained.seeds) if options.episodes_of == "study" else None,
    )
    if isinstance(env, Filmed):
        env.write()
    return found


def acted(trained: Trained, options: Any, settings: Mapping[str, Any]) -> dict[str, Numbers]:
    """The responses of acting, see `episodes.RESPONSES`."""
    data, found = trained.system.data, act(trained, options, settings)
    optimal = optimal_returns(data.spec, found.env_seeds)
    return summaries(found, data.anchors, optimal, options.cap, options.below)


def read_options(config: Mapping[str, Any], options: Mapping[str, Any]) -> frozenset[str]:
    """Of the options of acting, those that change anything: what conditions read, only where one of them does."""
    asked = frozenset().union(*(part.value.uses for part in registry.parts("condition")))
    return frozenset(options) - (asked - conditions.uses(config["condition"]))


@register("measurement", "rollout")
class Rollout(Measurement):
    """The models act by themselves, asked for a return where they are told one."""

    responses = RESPONSES
    acts = True

    class Options(ActingOptions):
        """context: K of acting, that of training where it is null. state: past K timesteps the window is encoded anew,
        or a recurrent state goes on."""

        context: int | None = Field(default=None, gt=0)
        state: Literal["re-encoded", "carried"] = "re-encoded"

    def __call__(self, trained: Trained, options: Any) -> Mapping[str, Numbers]:
        return acted(trained, options, self.settings(options))

    @staticmethod
    def settings(options: Any) -> dict[str, Any]:
        """What the system needs to make models act so."""
        return {"context": options.context, "state": options.state}

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> frozenset[str]:
        return read_options(config, cls.Options.model_fields)


@register("measurement", "plan")
class Plan(Measurement):
    """The models act by search over what they imagine (`ablate.plan`), for return or for likelihood."""

    responses = RESPONSES
    acts = True

    class Options(PlanOptions, ActingOptions):
        """Those of acting, and of the search."""

    def __call__(self, trained: Trained, options: Any) -> Mapping[str, Numbers]:
        return acted(trained, options, self.settings(options))

    @staticmethod
    def settings(options: Any) -> dict[str, Any]:
        """What the system needs to make models act so."""
        return {"plan": PlanOptions(**options.model_dump(include=set(PlanOptions.model_fields)))}

    @staticmethod
    def sees(config: Mapping[str, Any], spec: ModelSpec) -> tuple[PlanOptions, Numbers]:
        """The search of a configuration, and for each imagined timestep (H,) how many executed ones it sees."""
        options = Plan.Options.model_validate(config["measure"]["plan"])
        return options, visible_timesteps(spec, options, options.executed).sum(1)

    @classmethod
    def refusal(cls, config: Mapping[str, Any]) -> str:
        return needs_joint(config, "plan", "searches over imagined trajectories") or no_value(
            config, "plan", config["measure"]["plan"]["value"]
        )

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> frozenset[str]:
        options = config["measure"]["plan"]
        left = unread(options["objective"], options["proposals"])
        return read_options(config, cls.Options.model_fields) - left


def no_value(config: Mapping[str, Any], name: str, value: str) -> str:
    """Why the search of a measurement can't be told this `value`; empty where it can."""
    if value == "critic" and not config["settings"].get("critic"):
        return f"measure.{name}.value: critic needs one that is trained; set settings.critic: {{}}"
    if (
        value == "exact"
        and catalogue.spec(config["data"], config["reading"]).optimal_values is None
    ):
        return (
            f"measure.{name}.value: exact needs a process whose Q* is known and whose state is shown; found"
            f" {config['data']}, allowed: tokens, critic, or data such as chain/gamble-episode-v0"
        )
    return ""


def unread(objective: str, proposals: str = "model") -> frozenset[str]:
    """Of the options of a search for this objective by these proposals, those that change nothing."""
    found: set[str] = set()
    if objective in ("likelihood", "direct"):
        found |= {"n_expand", "value", "discount", "percentile", "least_likely"}
        found |= {"proposals", "temperature", "spread"}
    else:
        of_proposals = {"model": {"spread"}, "uniform": {"temperature", "spread"}}
        found |= of_proposals.get(proposals, {"temperature"})
        if objective != "return":
            found |= {"value"} | ({"discount"} if objective == "value" else set())
    if objective == "direct":
        found |= set(PlanOptions.model_fields) - {
            *("objective", "max_context_transitions", "prefix_context"),
        }
    return frozenset(found)
