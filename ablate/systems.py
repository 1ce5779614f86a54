"""A cell: everything that its seeds share. Data, how they are read, a model of matched size, how it acts.

Two kinds of model share one page of training and evaluation (`ablate.trial`): policies, which predict the
action, and the joint model, which predicts whole trajectories (`algorithm: joint`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ablate import registry, streams
from ablate.config import Config, complete, timesteps
from ablate.data import catalogue
from ablate.data.best import best
from ablate.data.catalogue import DataSet
from ablate.data.normalise import Scales, fit_scales
from ablate.data.trajectories import Trajectories
from ablate.data.windows import window_rows
from ablate.errors import UserError, unknown
from ablate.learn.joint import (
    JointSettings,
    JointSource,
    JointStack,
    fit_model,
    joint_source,
    joint_spec,
)
from ablate.learn.objective import Source
from ablate.learn.train import windows_per_update
from ablate.learn.transitions import transitions
from ablate.measure.agent import Agent, at_context, stored
from ablate.measure.heldout import HeldOut, held_out, held_out_metrics
from ablate.models import conditions
from ablate.models.discretise import Discretiser
from ablate.models.layouts import Layout
from ablate.models.match import Matched, given_width, solve_width
from ablate.models.policy import Policy, build, count_parameters, flops_per_target
from ablate.models.spec import ModelSpec
from ablate.models.stack import Stack
from ablate.models.tokens import fit_bins
from ablate.models.trajectory import TrajectoryModel, TrajectorySpec, build_trajectory_model
from ablate.plan.agent import TrajectoryAgent
from ablate.plan.options import PlanOptions

HELD_OUT_TARGETS = 4096
JOINT_TARGETS = 512  # of the joint model, whose every target is a whole window


class System(Protocol):
    """What an algorithm makes of a configuration: how it reads data, what it trains, how it acts."""

    @property
    def config(self) -> Config: ...
    @property
    def data(self) -> DataSet: ...
    @property
    def matched(self) -> Matched: ...
    @property
    def context(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def stacks(self) -> bool: ...
    def model(self, study: str, seed: int) -> Any: ...
    def program(self, models: Any) -> Any: ...
    def actor(self, models: Any, settings: Mapping[str, Any]) -> Any: ...
    def source(self, program: Any) -> Any: ...
    def held(self, study: str, models: Any) -> Any: ...
    def predict(self, program: Any, held: Any, limit: int | None = None) -> dict[str, Tensor]: ...
    def sizes(self) -> dict[str, float]: ...


@dataclass(frozen=True)
class PolicySystem:
    """Everything the seeds of a cell share: its data, how they are read, and a model of matched size.

    trained: the part of the training set that is learned from (see `train.keep`).
    """

    config: Config
    data: DataSet
    trained: Trajectories
    layout: Layout
    scales: Scales
    matched: Matched
    spec: ModelSpec

    @property
    def context(self) -> int:
        """K, in timesteps."""
        return timesteps(self.config)

    @property
    def device(self) -> torch.device:
        """Where the cell trains and acts."""
        return self.scales.mean.device

    def model(self, study: str, seed: int) -> Policy:
        """A freshly initialised policy; its parameters come from the seed's `init` stream alone."""
        generator = streams.torch_stream(study, seed, "init")
        return build(self.spec, generator, self.data.train.actions, self.bins).to(self.device)

    @cached_property
    def bins(self) -> Any:
        """The bins of discretised input, of the training set; None where it is continuous."""
        if self.spec.input != "discretised":
            return None
        return fit_bins(self.rows(self.data.train)[0], self.spec)

    def rows(self, trajectories: Trajectories) -> tuple[Tensor, Tensor]:
        """Trajectories as the model reads them: rows (T, F) and timesteps (T,)."""
        data = stored(trajectories, self.layout, self.device)
        return self.layout.rows(data.fields, self.scales), data.timestep

    def program(self, policies: Sequence[Policy]) -> Agent:
        """The policies as one stacked program that reads this cell's data."""
        return Agent(Stack(list(policies)), self.layout, self.scales, self.context)

    def actor(self, policies: Sequence[Policy], settings: Mapping[str, Any]) -> Agent:
        """The same as it acts: with the context and the state of the measurement."""
        context = settings["context"] or self.context
        stack = Stack([at_context(policy, context) for policy in policies])
        return Agent(stack, self.layout, self.scales, context, settings["state"])

    def source(self, agent: Agent) -> Source:
        """What the trainer reads: the training set as tokens of `agent`."""
        table, timestep = self.rows(self.trained)
        algorithm = registry.get("algorithm", self.config["algorithm"])
        return Source(
            table=table,
            timestep=timestep,
            actions=torch.from_numpy(self.trained.actions).to(self.device),
            visible=agent.visible,
            transitions=transitions(self.trained, self.rows, self.device)
            if algorithm.transitions
            else None,
        )

    def held(self, study: str, policies: Sequence[Policy]) -> HeldOut:
        """The held-out targets that every cell of the study is measured on."""
        agent = self.program(policies[:1])
        return held_out(self.data.held_out, agent, self.layout, study, HELD_OUT_TARGETS)

    def predict(self, agent: Agent, held: HeldOut, limit: int | None = None) -> dict[str, Tensor]:
        """Prediction on held-out targets, (S,) each; on about `limit` of them."""
        return held_out_metrics(agent, held, limit)

    @property
    def stacks(self) -> bool:
        """Whether several seeds can train as one program."""
        return True

    def sizes(self) -> dict[str, float]:
        """What the matching left: width, parameters, their mismatch in percent, operations and targets."""
        train = self.config["train"]
        per_update = windows_per_update(train, self.context)
        if train["loss"] == "all":
            per_update *= self.context  # at most: a window at an episode's start holds fewer
        return {
            "width": float(self.matched.width),
            "parameters": float(self.matched.parameters),
            "parameter_mismatch": 100.0 * self.matched.mismatch,
            "flops_per_target": float(flops_per_target(self.spec)),
            "targets": float(train["updates"] * per_update),
        }


@dataclass(frozen=True)
class JointSystem:
    """The same of a model of whole trajectories, which acts by search or by likelihood."""

    config: Config
    data: DataSet
    trained: Trajectories
    spec: TrajectorySpec
    matched: Matched
    device: torch.device

    @property
    def context(self) -> int:
        """K, in timesteps."""
        return timesteps(self.config)

    @property
    def settings(self) -> JointSettings:
        """The algorithm's own settings."""
        return JointSettings.model_validate(self.config["settings"])

    def model(self, study: str, seed: int) -> TrajectoryModel:
        """A freshly initialised model with bins and scales of the training set."""
        generator = streams.torch_stream(study, seed, "init")
        return fit_model(self.spec, self.data.train, self.settings, generator).to(self.device)

    def program(self, models: Sequence[TrajectoryModel]) -> JointProgram:
        """The model in the shape in which it trains."""
        return JointProgram(JointStack(list(models)))

    def actor(
        self, models: Sequence[TrajectoryModel], settings: Mapping[str, Any]
    ) -> TrajectoryAgent:
        """The models as they act: by likelihood, or where `settings` hold options of a plan, by search."""
        dims = (self.spec.observation_dim, self.spec.action_dim, 0)
        told = "goal" if self.spec.goal else "none"
        layout = Layout(*dims, self.config["history"], told, self.spec.goal)
        decode = "plan" if settings.get("searched") else "likelihood"
        return TrajectoryAgent(models, layout, plan_options(settings.get("plan") or {}), decode)

    def source(self, agent: JointProgram) -> JointSource:
        """What the trainer reads."""
        return joint_source(self.trained, self.spec, self.settings, self.device)

    def held(self, study: str, models: Sequence[TrajectoryModel]) -> JointHeld:
        """Held-out windows that end where a policy's targets do."""
        rows = joint_source(self.data.held_out, self.spec, self.settings, self.device)
        timestep = torch.from_numpy(self.data.held_out.timestep).to(self.device)
        # A window that begins with its episode says nothing of its first observation.
        targets = torch.nonzero(timestep >= min(self.context - 1, int(timestep.max()))).flatten()
        drawn = streams.stream(study, 0, "held-out").permutation(len(targets))[:JOINT_TARGETS]
        ends = targets[torch.from_numpy(drawn).to(self.device).sort().values]
        length = min(self.context, int(timestep.max()) + 1)
        index, _ = window_rows(ends, timestep, length)
        return JointHeld(rows.table[index])

    @torch.no_grad()
    def predict(
        self, agent: JointProgram, held: JointHeld, limit: int | None = None
    ) -> dict[str, Tensor]:
        """Of each window's last timestep (1,): the action's negative log-density, and that of a whole timestep.

        `action_nll` in the action's units, given all before it; `timestep_nll` of (a, r, V) and the next
        observation, the mean over the window's timesteps (NaN without a density, or for windows of one).
        """
        model = agent.stack.model.eval()
        stride = 1 if limit is None else max(1, len(held.rows) // limit)
        undefined = torch.full((1,), float("nan"), device=self.device)
        if not self.spec.density:
            return {"action_nll": undefined, "timestep_nll": undefined}
        each = torch.cat([model.log_density(part) for part in held.rows[::stride].split(64)])
        first = self.spec.observation_dim
        action = -each[:, -1, first : first + self.spec.action_dim].sum(-1).mean()
        whole = -model.per_timestep(each).mean() if each.shape[1] > 1 else undefined[0]
        return {"action_nll": action[None], "timestep_nll": whole[None]}

    @property
    def stacks(self) -> bool:
        """Whether several seeds can train as one program."""
        return False

    def sizes(self) -> dict[str, float]:
        """Width, parameters and targets."""
        train = self.config["train"]
        windows = windows_per_update(train, self.context)
        return {
            "width": float(self.matched.width),
            "parameters": float(self.matched.parameters),
            "parameter_mismatch": 0.0,
            "targets": float(train["updates"] * windows * self.context),
        }


@dataclass(frozen=True)
class JointProgram:
    """What trains: a stack of one joint model."""

    stack: JointStack


@dataclass(frozen=True)
class JointHeld:
    """Held-out windows (B, K, D) of raw rows."""

    rows: Tensor


def plan_options(found: dict[str, Any]) -> PlanOptions:
    """The options of a search. Raises UserError for one that it doesn't have, or out of range."""
    known = [field.name for field in fields(PlanOptions)]
    for name in found:
        if name not in known:
            raise unknown("measure.plan", name, known)
    return PlanOptions(**found)


def prepare(config: Config, cache: Path, device: str = "cpu") -> System:
    """Load the data, lay out the tokens and solve the mixer's width for the declared parameter count.

    Raises UserError for a data set that cannot be had or a width that cannot be matched.
    """
    config = complete(config)
    data = catalogue.load(config["data"], cache)
    if config["train"]["split"] == "tuning":
        data = data.for_tuning
    if config["algorithm"] == "joint":
        return _joint(config, data, device)
    horizon = data.spec.make_env(1).horizon
    layout = Layout(
        observation_dim=data.train.observations.shape[1],
        action_dim=data.train.actions.shape[1],
        policies=data.spec.num_policies,
        history=config["history"],
        condition=config["condition"],
        goal=data.spec.shown_goal,
        timesteps=config["model"]["timesteps"] > 0,
    )
    if unmet := conditions.unmet(config["condition"], data.spec):
        raise UserError(unmet)
    model = ModelSpec.of(config, layout)
    if model.width:
        matched = given_width(model)
    else:
        matched = solve_width(model, config["model"]["parameters"], config["model"]["tolerance"])
    # By the whole training set also where only the best of it is learned from (Chen et al. 2021).
    scales = fit_scales(data.train, horizon)
    if config["train"]["return_scale"] is not None:
        scales = replace(scales, return_to_go=config["train"]["return_scale"])
    return PolicySystem(
        config=config,
        data=data,
        trained=best(data.train, config["train"]["keep"], config["train"]["keep_by"]),
        layout=layout,
        scales=scales.to(device),
        matched=matched,
        spec=model.at(matched.width),
    )


def _joint(config: Config, data: DataSet, device: str) -> System:
    spec = joint_spec(config, data.train.observations.shape[1], data.train.actions.shape[1])
    bins = None
    if spec.discrete or spec.input == "discretised":
        bins = Discretiser.fit(np.tile([[0.0], [1.0]], (1, spec.slots)), spec.bins)  # any will do
    scale = np.ones(spec.slots)
    parameters = count_parameters(
        build_trajectory_model(spec, torch.Generator(), bins, 0.0 * scale, scale)
    )
    return JointSystem(
        config=config,
        data=data,
        trained=best(data.train, config["train"]["keep"], config["train"]["keep_by"]),
        spec=spec,
        matched=Matched(spec.width, parameters, 0.0),
        device=torch.device(device),
    )
