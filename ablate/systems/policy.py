"""The system of policies: windows of rows in, the action out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ablate.config import Config, timesteps
from ablate.data import streams
from ablate.data.best import best
from ablate.data.catalogue import DataSet, DataSpec
from ablate.data.normalise import Scales, fit_scales
from ablate.data.trajectories import Trajectories
from ablate.errors import UserError
from ablate.learn.heldout import HeldOut, held_out, held_out_metrics
from ablate.learn.objective import Source
from ablate.learn.train import targets_per_window, windows_per_update
from ablate.learn.transitions import transitions
from ablate.models.agent import Agent, at_context, stored
from ablate.models.assembly import Model, build, flops_per_target
from ablate.models.discretise import Discretiser
from ablate.models.layouts import Layout
from ablate.models.match import Matched, match
from ablate.models.spec import ModelSpec
from ablate.models.stack import Stack
from ablate.models.tokens import fit_bins
from ablate.registry import get, register

TARGETS = 4096  # held-out timesteps, where a study doesn't say


@register("system", "policy")
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

    @classmethod
    def prepare(cls, config: Config, data: DataSet, device: str) -> PolicySystem:
        sizes = data.train.observations.shape[1], data.train.actions.shape[1]
        spec = cls.shape(config, data.spec, *sizes)
        if refusal := get("head", spec.head).refusal(data.train.actions):
            raise UserError(f"{config['data']}: {refusal}")
        matched = match(spec, config["model"])
        # By the whole training set also where only the best of it is learned from (Chen et al. 2021).
        scales = fit_scales(data.train, data.spec.horizon)
        if config["train"]["return_scale"] is not None:
            scales = replace(scales, return_to_go=config["train"]["return_scale"])
        return cls(
            config=config,
            data=data,
            trained=best(data.train, config["train"]["keep"], config["train"]["keep_by"]),
            layout=Layout.of(config, data.spec, *sizes),
            scales=scales.to(device),
            matched=matched,
            spec=spec.at(matched.width),
        )

    @classmethod
    def shape(
        cls, config: Config, data: DataSpec, observation_dim: int, action_dim: int
    ) -> ModelSpec:
        return ModelSpec.of(config, Layout.of(config, data, observation_dim, action_dim))

    @property
    def context(self) -> int:
        """K, in timesteps."""
        return timesteps(self.config)

    @property
    def device(self) -> torch.device:
        """Where the cell trains and acts."""
        return self.scales.mean.device

    def model(self, study: str, seed: int) -> Model:
        """A freshly initialised policy; its parameters come from the seed's `init` stream alone."""
        generator = streams.torch_stream(study, seed, "init")
        return build(self.spec, generator, self.data.train.actions, self.bins).to(self.device)

    @cached_property
    def bins(self) -> Discretiser | None:
        """The bins of discretised input, of the training set; None where it is continuous."""
        if self.spec.input != "discretised":
            return None
        return fit_bins(self.rows(self.data.train)[0], self.spec)

    def rows(self, trajectories: Trajectories) -> tuple[Tensor, Tensor]:
        """Trajectories as the model reads them: rows (T, F) and timesteps (T,)."""
        data = stored(trajectories, self.layout, self.device)
        return self.layout.rows(data.fields, self.scales), data.timestep

    def program(self, policies: Sequence[Model]) -> Agent:
        """The policies as one stacked program that reads this cell's data."""
        return Agent(Stack(list(policies)), self.layout, self.scales, self.context)

    def actor(self, policies: Sequence[Model], options: Mapping[str, Any]) -> Agent:
        """The same as it acts: with the context and the state of the measurement."""
        context = options["context"] or self.context
        stack = Stack([at_context(policy, context) for policy in policies])
        return Agent(stack, self.layout, self.scales, context, options["state"])

    def source(self, agent: Agent) -> Source:
        """What the trainer reads: the training set as tokens of `agent`."""
        table, timestep = self.rows(self.trained)
        algorithm = get("algorithm", self.config["algorithm"])
        return Source(
            table=table,
            timestep=timestep,
            actions=torch.from_numpy(self.trained.actions).to(self.device),
            visible=agent.visible,
            transitions=transitions(self.trained, self.rows, self.device)
            if algorithm.transitions
            else None,
        )

    def held(self, study: str, policies: Sequence[Model], timesteps: int | None = None) -> HeldOut:
        """See `System`; of 4,096 timesteps."""
        agent = self.program(policies[:1])
        return held_out(self.data.held_out, agent, self.layout, study, timesteps or TARGETS)

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
        per_update *= targets_per_window(train, self.context)
        return {
            "width": float(self.matched.width),
            "parameters": float(self.matched.parameters),
            "parameter_mismatch": 100.0 * self.matched.mismatch,
            "flops_per_target": float(flops_per_target(self.spec)),
            "targets": float(train["updates"] * per_update),
        }
