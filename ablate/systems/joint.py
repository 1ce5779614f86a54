"""The system of joint models: whole trajectories in and out; they act by likelihood, or by search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ablate.config import Config, timesteps
from ablate.data import streams
from ablate.data.best import best
from ablate.data.catalogue import DataSet, DataSpec
from ablate.data.trajectories import Trajectories
from ablate.data.windows import window_rows
from ablate.learn.joint import (
    JointSettings,
    JointSource,
    fit_model,
    joint_rows,
    joint_source,
    joint_spec,
)
from ablate.learn.train import windows_per_update
from ablate.models.assembly import Model, block, flops_per_target
from ablate.models.layouts import Layout
from ablate.models.match import Matched, match
from ablate.models.spec import ModelSpec
from ablate.models.stack import Stack
from ablate.plan.agent import TrajectoryAgent
from ablate.plan.futures import Dynamics, JointDynamics, Propagation, Sampling
from ablate.plan.options import PlanOptions
from ablate.registry import get, register

TARGETS = 512  # every one is a whole window
TOKENS = 512 * TARGETS  # of all held-out windows: of longer ones there are fewer,
FEWEST = 64  # but not fewer than these


@dataclass(frozen=True)
class JointProgram:
    """What trains."""

    stack: Stack


@dataclass(frozen=True)
class Windows:
    """Held-out windows (B, K, D) of raw rows, and what each is told first (B, P)."""

    rows: Tensor
    told: Tensor


@register("system", "joint")
@dataclass(frozen=True)
class JointSystem:
    """Everything that the seeds of a cell of joint models share; see `ablate.systems.system.System`."""

    config: Config
    data: DataSet
    trained: Trajectories
    layout: Layout  # its conditions are what the models are told first
    spec: ModelSpec
    matched: Matched
    device: torch.device

    @classmethod
    def prepare(cls, config: Config, data: DataSet, device: str) -> JointSystem:
        sizes = data.train.observations.shape[1], data.train.actions.shape[1]
        layout = Layout.of(config, data.spec, *sizes)
        spec = joint_spec(config, layout)
        matched = match(spec, config["model"])
        return cls(
            config=config,
            data=data,
            trained=best(data.train, config["train"]["keep"], config["train"]["keep_by"]),
            layout=layout,
            spec=spec.at(matched.width),
            matched=matched,
            device=torch.device(device),
        )

    @classmethod
    def shape(
        cls, config: Config, data: DataSpec, observation_dim: int, action_dim: int
    ) -> ModelSpec:
        return joint_spec(config, Layout.of(config, data, observation_dim, action_dim))

    @property
    def context(self) -> int:
        """K, in timesteps."""
        return timesteps(self.config)

    @property
    def settings(self) -> JointSettings:
        """The algorithm's own settings."""
        return JointSettings.model_validate(self.config["settings"])

    @property
    def stacks(self) -> bool:
        """Whether several seeds can train as one program; a critic's can't."""
        return self.settings.critic is None

    def model(self, study: str, seed: int) -> Model:
        """A freshly initialised model with bins and units of the training set."""
        generator = streams.torch_stream(study, seed, "init")
        made = fit_model(self.spec, self.data.train, self.settings, generator, self.layout)
        return made.to(self.device)

    def program(self, models: Sequence[Model]) -> JointProgram:
        """The models in the shape in which they train."""
        return JointProgram(Stack(list(models)))

    def actor(self, models: Sequence[Model], options: Mapping[str, Any]) -> TrajectoryAgent:
        """The models as they act: by search as the `plan` of `options` says, or without one directly."""
        plan = options.get("plan", PlanOptions(objective="direct"))
        return TrajectoryAgent(models, self.layout, plan, self.data.spec.optimal_values)

    def dynamics(
        self, model: Model, sampling: Sampling = "draw", propagation: Propagation = "ts-inf"
    ) -> Dynamics:
        """One model as it imagines what happens next. It is no ensemble: `propagation` says nothing of it."""
        return JointDynamics(model, sampling)

    def source(self, program: JointProgram) -> JointSource:
        """What the trainer reads."""
        return self._source(self.trained)

    def rows(self, trajectories: Trajectories) -> tuple[Tensor, Tensor]:
        """Trajectories as the model reads them: rows (T, D) of (s, a, r, V), raw, and timesteps (T,)."""
        table = joint_rows(trajectories, self.settings.discount, self.settings.penalty)
        found = torch.from_numpy(table), torch.from_numpy(trajectories.timestep)
        return found[0].to(self.device), found[1].to(self.device)

    def held(self, study: str, models: Sequence[Model], timesteps: int | None = None) -> Windows:
        """See `System`; of at most 512 whole windows, which end where a policy's targets do."""
        source = self._source(self.data.held_out)
        timestep = torch.from_numpy(self.data.held_out.timestep).to(self.device)
        # A window that begins with its episode says nothing of its first observation.
        targets = torch.nonzero(timestep >= min(self.context - 1, int(timestep.max()))).flatten()
        count = timesteps or min(TARGETS, max(FEWEST, TOKENS // block(self.spec)))
        drawn = streams.stream(study, 0, "held-out").permutation(len(targets))[:count]
        ends = targets[torch.from_numpy(drawn).to(self.device).sort().values]
        length = min(self.context, int(timestep.max()) + 1)
        index, _ = window_rows(ends, timestep, length)
        return Windows(source.table[index], source.told[index[:, 0]])

    @torch.no_grad()
    def predict(
        self, program: JointProgram, held: Windows, limit: int | None = None
    ) -> dict[str, Tensor]:
        """Of each window's last timestep (S,): the action's negative log-density, and that of a whole timestep.

        `action_nll` in the action's units, given all before it; `timestep_nll` of (a, r, V) and the next
        observation, the mean over the window's timesteps (NaN without a density, or for windows of one).
        """
        stack = program.stack.eval()
        undefined = torch.full((stack.size,), float("nan"), device=self.device)
        if not get("head", self.spec.head).density:
            return {"action_nll": undefined, "timestep_nll": undefined}
        stride = 1 if limit is None else max(1, len(held.rows) // limit)
        parts = []
        for rows, told in zip(
            held.rows[::stride].split(64), held.told[::stride].split(64), strict=True
        ):
            shown = [rows, told] if self.spec.prefix else [rows]
            every = [each.expand(stack.size, *each.shape) for each in shown]
            parts.append(stack(*every, method="log_density"))
        each = torch.cat(parts, 1)  # (S, B, K, D)
        first = self.spec.observation_dim
        action = (
            -each[:, :, -1, first : first + self.spec.action_dim]
            .sum(-1)
            .mean(1, dtype=torch.float64)
            .float()
        )
        whole = undefined
        if each.shape[2] > 1:
            heads = stack.model.head
            whole = (
                -heads.per_timestep(each.flatten(0, 1))
                .unflatten(0, each.shape[:2])
                .mean((1, 2), dtype=torch.float64)
                .float()
            )
        return {"action_nll": action, "timestep_nll": whole}

    def sizes(self) -> dict[str, float]:
        """What the matching left: width, parameters, their mismatch in percent, operations and targets."""
        train = self.config["train"]
        windows = windows_per_update(train, self.context)
        return {
            "width": float(self.matched.width),
            "parameters": float(self.matched.parameters),
            "parameter_mismatch": 100.0 * self.matched.mismatch,
            "flops_per_target": float(flops_per_target(self.spec)),
            "targets": float(train["updates"] * windows * self.context),
        }

    def _source(self, trajectories: Trajectories) -> JointSource:
        return joint_source(trajectories, self.spec, self.settings, self.layout, self.device)
