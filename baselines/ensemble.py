"""The algorithm `one-step`: an ensemble of Gaussian perceptrons that predict the next observation, as PETS has it
(Chua et al. 2018).

The comparator of the joint models' imagination. Each member predicts mean and diagonal variance of the change of
the observation from observation and action, and from nothing else; its bootstrap sample of transitions is its own.
`unroll` above 1 trains on what the member itself imagined so many steps ahead instead of on the truth at every step.
It has no actions of its own, so it can't act.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ablate.audit.result import Audit
from ablate.config import Config, timesteps
from ablate.data import streams
from ablate.data.best import best
from ablate.data.catalogue import DataSet, DataSpec
from ablate.data.normalise import moments
from ablate.data.trajectories import Trajectories
from ablate.errors import UserError
from ablate.learn.joint import joint_rows
from ablate.learn.objective import Batch, Objective
from ablate.learn.train import windows_per_update
from ablate.models.agent import External
from ablate.models.match import Matched, match
from ablate.models.spec import ModelSpec
from ablate.models.stack import Stack
from ablate.plan.futures import Dynamics, Propagation, Sampling
from ablate.registry import Section, register

LOG_STD = (-6.0, 1.0)  # of the standardised change
TARGETS = 2048  # held-out transitions


class OneStepSettings(Section):
    """What an ensemble is; sizes and training stand under `model` and `train`.

    members: B, which share the model's parameters. unroll: steps imagined in training, of which as many are drawn as
    make up the targets of an update.
    """

    members: int = Field(default=5, ge=1, le=100)
    unroll: int = Field(default=1, ge=1, le=100)


@dataclass(frozen=True)
class OneStepSpec(ModelSpec):
    """The shape of an ensemble: a `ModelSpec` of rows (s, a, r, V), of which it reads s and a."""

    members: int = 5

    def build(self, *adapted: Any) -> GaussianEnsemble:
        """See `ModelSpec.build`."""
        return GaussianEnsemble(self)


class GaussianEnsemble(nn.Module):
    """B members over observations (N,) and actions (M,); all run as one batched product.

    mean, std: (N,) of the observations; step: (N,) standard deviations of their change in one timestep.
    """

    mean: Tensor
    std: Tensor
    step: Tensor

    def __init__(self, spec: OneStepSpec) -> None:
        super().__init__()
        self.spec = spec
        n, members = spec.observation_dim, spec.members
        sizes = [n + spec.action_dim, *[spec.width] * spec.layers]
        shapes = list(zip(sizes, [*sizes[1:], 2 * n], strict=True))
        self.weights = nn.ParameterList(
            torch.randn(members, i, o) / math.sqrt(i) for i, o in shapes
        )
        self.biases = nn.ParameterList(torch.zeros(members, 1, o) for _, o in shapes)
        for name, start in (("mean", 0.0), ("std", 1.0), ("step", 1.0)):
            self.register_buffer(name, torch.full((n,), start))
        self.head = nn.Module()  # it has none apart

    def fit_units(self, trajectories: Trajectories) -> GaussianEnsemble:
        """Take the units of observations and of their changes from a training set; returns itself."""
        seen, one = trajectories.observations, _starts(trajectories, 1)
        centre, spread = moments(seen)
        _, change = moments(seen[one + 1] - seen[one])
        spread, change = (np.where(x > 1e-6, x, 1.0) for x in (spread, change))
        for name, values in (("mean", centre), ("std", spread), ("step", change)):
            getattr(self, name).copy_(torch.from_numpy(values))
        return self

    def forward(self, *args: Any, method: str = "predict") -> Any:
        """`predict` or `loss` with that method's arguments."""
        return {"predict": self.predict, "loss": self.loss}[method](*args)

    def predict(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation (B, R, N) of the standardised change, from (B, R, N), (B, R, M)."""
        x = torch.cat([(observation - self.mean) / self.std, action], -1)
        last = len(self.weights) - 1
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if number < last:
                x = F.silu(x)
        mean, raw = x.chunk(2, -1)
        low, high = LOG_STD
        return mean, low + (high - low) * torch.sigmoid(raw)

    def loss(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Negative log-density of the standardised change, (B,), from (B, R, h+1, N) and (B, R, h, M).

        From the second step on a member predicts from what it imagined (reparameterised samples).
        """
        now, total = observations[:, :, 0], observations.new_zeros(len(observations))
        steps = actions.shape[2]
        for h in range(steps):
            mean, log_std = self.predict(now, actions[:, :, h])
            change = (observations[:, :, h + 1] - now) / self.step
            z = (change - mean) * (-log_std).exp()
            total = total + (0.5 * z.square() + log_std).sum(-1).mean(1)
            if h + 1 < steps:
                noise = torch.randn_like(mean)
                now = now + (mean + log_std.exp() * noise) * self.step
        return total / steps + 0.5 * self.mean.numel() * math.log(2.0 * math.pi)


class EnsembleDynamics:
    """An ensemble as it imagines what happens next; see `ablate.plan.futures.Dynamics`.

    sampling: `draw` from a member's Gaussian, follow its mean (`greedy`), or follow the mean of all members' means.
    propagation: `ts1` chooses a member anew at every step, `ts-inf` keeps one for each sample.
    """

    def __init__(
        self,
        model: GaussianEnsemble,
        sampling: Sampling = "draw",
        propagation: Propagation = "ts-inf",
    ) -> None:
        self.model, self.sampling, self.propagation = model.eval(), sampling, propagation

    @torch.no_grad()
    def imagine(
        self,
        context: Tensor,
        observation: Tensor,
        horizon: int,
        samples: int,
        actions: Tensor | External | None,
        seed: int,
    ) -> Tensor:
        """See `Dynamics.imagine`. Raises UserError where no actions are given: it has none."""
        if actions is None:
            raise UserError(
                "one-step: it predicts no actions of its own; allowed: logged ones or a policy."
            )
        model = self.model
        generator = torch.Generator(device=observation.device).manual_seed(seed)
        members = model.spec.members
        now = observation.repeat_interleave(samples, 0)  # (R, N)
        rows = torch.arange(len(now), device=now.device)
        chosen = rows % members
        seen = []
        for h in range(horizon):
            if isinstance(actions, Tensor):
                action = actions[:, h].repeat_interleave(samples, 0)
            else:
                action = actions(now)
            every = (now.expand(members, -1, -1), action.expand(members, -1, -1))
            mean, log_std = model.predict(*every)  # (B, R, N)
            if self.sampling == "mean":
                now = now + mean.mean(0) * model.step
            else:
                if self.propagation == "ts1":
                    chosen = torch.randint(
                        members, rows.shape, generator=generator, device=now.device
                    )
                change = mean[chosen, rows]
                if self.sampling == "draw":
                    noise = torch.randn(
                        now.shape, generator=generator, dtype=now.dtype, device=now.device
                    )
                    change = change + log_std[chosen, rows].exp() * noise
                now = now + change * model.step
            seen.append(now)
        return torch.stack(seen, 1).unflatten(0, (len(observation), samples))


def _starts(trajectories: Trajectories, steps: int) -> np.ndarray:
    """Rows with `steps` more in their episode. Raises UserError where there are none."""
    left = np.repeat(trajectories.lengths, trajectories.lengths) - trajectories.timestep - 1
    rows = np.flatnonzero(left >= steps)
    if not len(rows):
        raise UserError(
            f"{trajectories.name}: no episode has {steps} steps to unroll over; "
            f"the longest has {int(trajectories.lengths.max()) - 1}."
        )
    return rows


@dataclass(frozen=True)
class OneStepSource:
    """What the objective reads. table: observations (T, N). starts: of each row (T,), a row with a whole unroll after
    it in its episode, itself where it has one. whole: (W,) all of these rows."""

    table: Tensor
    actions: Tensor
    starts: Tensor
    whole: Tensor
    context: int
    transitions: None = None


@dataclass(frozen=True)
class OneStepProgram:
    """What trains."""

    stack: Stack


@register("system", "one-step")
@dataclass(frozen=True)
class OneStepSystem:
    """Everything that the seeds of a cell of ensembles share; see `ablate.systems.system.System`."""

    config: Config
    data: DataSet
    trained: Trajectories
    spec: OneStepSpec
    matched: Matched
    device: torch.device
    stacks: ClassVar[bool] = False

    @classmethod
    def prepare(cls, config: Config, data: DataSet, device: str) -> OneStepSystem:
        sizes = data.train.observations.shape[1], data.train.actions.shape[1]
        spec = cls.shape(config, data.spec, *sizes)
        matched = match(spec, config["model"])
        keep = config["train"]["keep"], config["train"]["keep_by"]
        made = spec.at(matched.width)
        assert isinstance(made, OneStepSpec)
        return cls(config, data, best(data.train, *keep), made, matched, torch.device(device))

    @classmethod
    def shape(
        cls, config: Config, data: DataSpec, observation_dim: int, action_dim: int
    ) -> OneStepSpec:
        plain = ModelSpec.joint(config, observation_dim, action_dim)
        settings = OneStepSettings.model_validate(config["settings"])
        return OneStepSpec(**vars(plain), members=settings.members)

    @property
    def context(self) -> int:
        """Timesteps a joint model would need to see as much."""
        return timesteps(self.config)

    @property
    def settings(self) -> OneStepSettings:
        """The algorithm's own settings."""
        return OneStepSettings.model_validate(self.config["settings"])

    def model(self, study: str, seed: int) -> GaussianEnsemble:
        """A freshly initialised ensemble with units of the training set."""
        generator = streams.torch_stream(study, seed, "init")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(
                int(torch.randint(0, 1 << 62, (), generator=generator))
            )
            made = GaussianEnsemble(self.spec)
        return made.fit_units(self.data.train).to(self.device)

    def program(self, models: Sequence[GaussianEnsemble]) -> OneStepProgram:
        """The model in the shape in which it trains."""
        return OneStepProgram(Stack(list(models)))  # type: ignore[arg-type]

    def actor(self, models: Sequence[GaussianEnsemble], options: Mapping[str, Any]) -> Any:
        """Raises UserError: it can't act."""
        raise UserError("one-step: it predicts no actions, so that it can't act.")

    def dynamics(
        self,
        model: GaussianEnsemble,
        sampling: Sampling = "draw",
        propagation: Propagation = "ts-inf",
    ) -> Dynamics:
        """One model as it imagines what happens next."""
        return EnsembleDynamics(model, sampling, propagation)

    def rows(self, trajectories: Trajectories) -> tuple[Tensor, Tensor]:
        """Rows (T, D) of (s, a, r, V) as joint models read them, and timesteps (T,)."""
        table = torch.from_numpy(joint_rows(trajectories, 0.0, None))
        return table.to(self.device), torch.from_numpy(trajectories.timestep).to(self.device)

    def source(self, program: OneStepProgram) -> OneStepSource:
        """What the trainer reads."""
        return self._source(self.trained)

    def held(
        self, study: str, models: Sequence[GaussianEnsemble], timesteps: int | None = None
    ) -> OneStepSource:
        """Held-out transitions, as many as `System` says."""
        source = self._source(self.data.held_out, unroll=1)
        drawn = streams.stream(study, 0, "held-out").permutation(len(source.whole))[
            : timesteps or TARGETS
        ]
        chosen = source.whole[torch.from_numpy(drawn).to(self.device).sort().values]
        return OneStepSource(source.table, source.actions, source.starts, chosen, 2)

    @torch.no_grad()
    def predict(
        self, program: OneStepProgram, held: OneStepSource, limit: int | None = None
    ) -> dict[str, Tensor]:
        """`heldout_loss` (1,): negative log-density of the next observation in units of its change, members' mean."""
        stride = 1 if limit is None else max(1, len(held.whole) // limit)
        rows = held.whole[::stride]
        every = rows.expand(self.settings.members, -1)
        loss = program.stack(*windows(held, every[None], 1), method="loss").mean(-1)
        undefined = torch.full_like(loss, float("nan"))
        return {"action_nll": undefined, "timestep_nll": undefined, "heldout_loss": loss}

    def sizes(self) -> dict[str, float]:
        """What the matching left: width, parameters, their mismatch in percent, operations and targets."""
        train, unroll = self.config["train"], self.settings.unroll
        targets = train["updates"] * windows_per_update(train, unroll + 1) * unroll
        return {
            "width": float(self.matched.width),
            "parameters": float(self.matched.parameters),
            "parameter_mismatch": 100.0 * self.matched.mismatch,
            "flops_per_target": 2.0 * self.matched.parameters,
            "targets": float(targets),
        }

    @classmethod
    def audit(cls, config: Mapping[str, Any]) -> Audit:
        """What a prediction depends on: the present observation and action of its own row, all of them."""
        result = Audit(
            mixer=config["mixer"],
            context=timesteps(config),
            history=config["history"],
            condition=config["condition"],
            head=config["head"],
            lags=(0,),
        )
        spec = OneStepSpec(**vars(ModelSpec.joint({**config, "model": {}}, 3, 2)), members=2)
        generator = torch.Generator().manual_seed(0)
        model = spec.at(16).build().double()
        seen, done = (torch.randn(2, 5, n, generator=generator).double() for n in (3, 2))
        before = model(seen, done)[0]
        for name, values in (("observation", seen), ("action", done)):
            for column in range(values.shape[-1]):
                changed = values.clone()
                changed[:, 2, column] += 1.0
                now = (changed, done) if name == "observation" else (seen, changed)
                moved = (model(*now)[0] - before).abs().amax((0, 2)) > 0.0  # (5,)
                if not moved[2]:
                    result.findings.append(f"unseen: {name} {column} has no influence.")
                if moved.sum() > moved[2].sum():
                    result.findings.append(f"rows: {name} {column} influences another row.")
        return result

    def _source(self, trajectories: Trajectories, unroll: int | None = None) -> OneStepSource:
        steps = unroll or self.settings.unroll
        whole = _starts(trajectories, steps)
        starts = streams.stream("one-step", 0, "starts").choice(whole, len(trajectories.rewards))
        starts[whole] = whole
        return OneStepSource(
            table=torch.from_numpy(trajectories.observations).to(self.device),
            actions=torch.from_numpy(trajectories.actions).to(self.device),
            starts=torch.from_numpy(starts).to(self.device),
            whole=torch.from_numpy(whole).to(self.device),
            context=steps + 1,
        )


def windows(source: OneStepSource, rows: Tensor, unroll: int) -> tuple[Tensor, Tensor]:
    """Observations (..., h+1, N) and actions (..., h, M) of unrolls that start at rows (...,)."""
    index = rows[..., None] + torch.arange(unroll + 1, device=rows.device)
    return source.table[index], source.actions[index[..., :-1]]


@register("algorithm", "one-step")
class OneStep(Objective):
    """Trains one ensemble: every member on its bootstrap sample of the same targets (one member: on all of them)."""

    Settings: ClassVar[type[Section]] = OneStepSettings
    losses: ClassVar[tuple[str, ...]] = ("all",)
    system: ClassVar[str] = "one-step"

    source: Any  # a `OneStepSource`

    def begin(self) -> None:
        """See `Objective.begin`: which row each member learns from in place of each that has a whole unroll."""
        members, whole = self.settings.members, self.source.whole
        own = torch.arange(len(self.source.actions), device=self.device).repeat(members, 1)
        if members > 1:
            drawn = streams.stream(self.study, self.seeds[0], "bootstrap")
            places = drawn.integers(0, len(whole), (members, len(whole)))
            own[:, whole] = whole[torch.from_numpy(places).to(self.device)]
        self.own = own  # (B, T)

    def undecayed(self) -> list[Tensor]:
        """See `Objective.undecayed`: the biases."""
        named = self.stack.named_parameters().items()
        return [tensor for name, tensor in named if "biases" in name]

    @classmethod
    def uses(cls, config: Mapping[str, Any]) -> frozenset[str]:
        """See `Objective.uses`: of the model its size, and none of the parts of a sequence model."""
        model = {
            "layers",
            *({"width"} if config["model"]["width"] else {"parameters", "tolerance"}),
        }
        read = {f"model.{name}" for name in (*model, "width")}
        found = super().uses(config)
        return frozenset(
            path for path in found if path in read or path.startswith(("train.", "settings."))
        )

    def update(self, batch: Batch, rate: float | Tensor) -> Tensor:
        """See `Objective.update`."""
        rows = self.own[:, self.source.starts[batch.targets[0]]]  # (B, R)
        with self.autocast():
            shown = windows(self.source, rows, self.settings.unroll)
            each = self.stack(*(x[None] for x in shown), method="loss")  # (1, B)
        self.policy_step(each.sum(-1), rate)
        return each.detach().mean(-1)
