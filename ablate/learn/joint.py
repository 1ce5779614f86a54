"""The algorithm `joint`: states, actions, rewards and values predicted together (Janner et al. 2021).

Windows of K timesteps, cross-entropy on every slot that some token predicts (negative density or squared error for
a continuous head), weighted by kind. The reward of a true end is replaced by a penalty; V is the discounted sum of
the rewards after this one. What follows a true end within a window is the stop token, with loss; what follows a
time-out isn't known and has none. (The release gives the stop token also to episodes that were cut off before the
time limit.)

As released (trajectory/utils/training.py) the learning rate falls by a cosine to a tenth; its cosine isn't stopped
at its end, so that with more updates than `cosine` it climbs again: `clamped: false`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ablate.data.trajectories import Trajectories
from ablate.errors import UserError
from ablate.learn.critic import Critic, CriticSettings, CriticTraining
from ablate.learn.objective import Batch, Objective
from ablate.learn.transitions import Transitions, transitions
from ablate.models.assembly import Model, build
from ablate.models.discretise import Discretiser
from ablate.models.layouts import Layout
from ablate.models.nets import Sharing, shared
from ablate.models.spec import ModelSpec
from ablate.registry import Section, get, register


@dataclass(frozen=True)
class JointSource:
    """What the objective reads of a training set.

    table: rows (T, D), raw. last: (T,) the last row of each row's episode. stops: (T,) bool, whether that episode
    truly ends. context: K. told: (T, P) what a window that starts there is told first. transitions: of raw
    observations, for a critic; None where none is trained.
    """

    table: Tensor
    actions: Tensor
    last: Tensor
    stops: Tensor
    told: Tensor
    context: int
    transitions: Transitions | None = None

    def windows(self, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Windows of K rows from `starts` (...,): raw rows (..., K, D), and which were executed (..., K).

        Past a true end rows are not a number; past a time-out they repeat the last one.
        """
        index = starts.unsqueeze(-1) + torch.arange(self.context, device=starts.device)
        last = self.last[starts].unsqueeze(-1)
        inside = index <= last  # (..., K)
        over = ~inside & self.stops[starts].unsqueeze(-1)
        rows = self.table[torch.minimum(index, last)]
        return rows.masked_fill(over.unsqueeze(-1), float("nan")), inside


class JointSettings(Section):
    """Hyper-parameters of `joint`; the defaults are the release's (config/offline.py, scripts/train.py).

    bins: of each dimension. discretiser: bins of equal counts, of equal widths, or one a value. repeats: a value that
    fills several quantiles has a bin of its own, or empty bins stay as released. discount: of the value that stands in
    a row. penalty: the reward of a true end; null for the one that was logged. observation_weight, action_weight,
    reward_weight, value_weight: of these tokens in the loss. first_observation: whether the loss counts what a layout
    can predict of a window's first observation, as released: with a token for each dimension all but the first number,
    with one for all of them nothing; where not, every layout has the same targets. value_mask: past value tokens are
    hidden from what follows, as released. cosine: updates after which the learning rate is at its lowest; null for all.
    floor: share of the learning rate that is left then. clamped: what lies outside of the bins is read as the nearest;
    as released it is not. critic: a Q-function for the search, trained apart; null for none. sharing: which losses
    train which net: joint, one net by all; stopped, one net by observations and rewards, from whose features actions
    and values are read; separate, a net for actions, one for observations and rewards, one for values; transplanted,
    two joint models, the second of which is asked for observations and rewards.
    """

    bins: int = Field(default=100, ge=2)
    discretiser: Literal["quantile", "uniform", "values"] = "quantile"
    repeats: Literal["own-bin", "kept"] = "own-bin"
    discount: float = Field(default=0.99, ge=0, le=1)
    penalty: float | None = -100.0
    observation_weight: float = Field(default=1.0, ge=0)
    action_weight: float = Field(default=5.0, ge=0)
    reward_weight: float = Field(default=1.0, ge=0)
    value_weight: float = Field(default=1.0, ge=0)
    first_observation: bool = True
    value_mask: bool = True
    cosine: int | None = Field(default=None, gt=0)
    floor: float = Field(default=0.1, ge=0, le=1)
    clamped: bool = True
    critic: CriticSettings | None = None
    sharing: Sharing = "joint"


def values_to_go(
    trajectories: Trajectories, discount: float, penalty: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Rewards (T,), true ends penalised, and the discounted sums of the rewards after each one, (T,)."""
    rewards = trajectories.rewards.astype(np.float64)
    if penalty is not None:
        rewards = np.where(trajectories.terminations, penalty, rewards)
    values = np.zeros(len(rewards))
    starts, lengths = trajectories.episode_starts[:-1], trajectories.lengths
    for back in range(2, int(lengths.max()) + 1):  # from the end, all episodes at once
        rows = (starts + lengths - back)[lengths >= back]
        values[rows] = rewards[rows + 1] + discount * values[rows + 1]
    return rewards, values


def joint_rows(trajectories: Trajectories, discount: float, penalty: float | None) -> np.ndarray:
    """Rows (T, D) float32 of (s, a, r, V)."""
    rewards, values = values_to_go(trajectories, discount, penalty)
    parts = (trajectories.observations, trajectories.actions, rewards[:, None], values[:, None])
    return np.concatenate(parts, axis=1).astype(np.float32)


def joint_source(
    trajectories: Trajectories,
    spec: ModelSpec,
    settings: JointSettings,
    layout: Layout | None = None,
    device: torch.device | str = "cpu",
) -> JointSource:
    """The training set as the objective reads it. layout: its conditions are what the model is told first, if any."""
    rows = joint_rows(trajectories, settings.discount, settings.penalty)
    last = np.repeat(trajectories.episode_starts[1:] - 1, trajectories.lengths)
    return JointSource(
        table=torch.from_numpy(rows).to(device),
        actions=torch.from_numpy(trajectories.actions).to(device),
        last=torch.from_numpy(last).to(device),
        stops=torch.from_numpy(trajectories.terminations[last]).to(device),
        told=torch.from_numpy(prefixes(trajectories, layout)).to(device),
        context=spec.context,
        transitions=_transitions(trajectories, settings, device) if settings.critic else None,
    )


def prefixes(trajectories: Trajectories, layout: Layout | None) -> np.ndarray:
    """What a window that starts at a row is told first, (T, P) float32: by each condition, see `Condition.first`."""
    parts: list[np.ndarray] = [np.zeros((len(trajectories.rewards), 0))]
    if layout is not None:
        parts += [each.first(trajectories, layout) for each in layout.conditions.values()]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _transitions(
    trajectories: Trajectories, settings: JointSettings, device: torch.device | str
) -> Transitions:
    """What a critic backs values up along: raw observations, and the joint model's rewards."""

    def read(one: Trajectories) -> tuple[Tensor, Tensor]:
        return tuple(  # type: ignore[return-value]
            torch.from_numpy(values).to(device) for values in (one.observations, one.timestep)
        )

    rewards, _ = values_to_go(trajectories, settings.discount, settings.penalty)
    made = transitions(trajectories, read, device)
    return replace(made, rewards=torch.from_numpy(rewards).to(device, made.rewards.dtype))


def joint_spec(config: Mapping[str, Any], layout: Layout) -> ModelSpec:
    """The model that a configuration describes, its width 0 where it is to be solved for."""
    settings = JointSettings.model_validate(dict(config["settings"]))
    if settings.critic is not None and settings.sharing != "joint":
        raise UserError(
            f"settings.critic: found one beside sharing '{settings.sharing}'; allowed: joint, or no critic."
        )
    spec = ModelSpec.joint(
        config,
        layout.observation_dim,
        layout.action_dim,
        bins=settings.bins,
        value_mask=settings.value_mask,
        prefix=tuple((name, each.width(layout)) for name, each in layout.conditions.items()),
    )
    return shared(spec, settings.sharing)


def fit_model(
    spec: ModelSpec,
    trajectories: Trajectories,
    settings: JointSettings,
    generator: torch.Generator,
    layout: Layout | None = None,
) -> Model:
    """A model with initial weights from `generator` and with bins and units fitted to the training set."""
    rows = joint_rows(trajectories, settings.discount, settings.penalty)
    discretiser = Discretiser.fit(rows, settings.bins, settings.discretiser, settings.repeats)
    told = prefixes(trajectories, layout)
    model = build(spec, generator, rows, discretiser, told)
    if settings.critic is not None:
        n, heads = spec.observation_dim, model.head
        model.critic = Critic(heads.mean[:n], heads.std[:n], spec.action_dim, settings.critic)
    return model


@register("algorithm", "joint")
class Joint(Objective):
    """Trains the joint models of `stack` on a `JointSource`."""

    Settings: ClassVar[type[Section]] = JointSettings
    losses: ClassVar[tuple[str, ...]] = ("all",)
    system: ClassVar[str] = "joint"

    source: Any  # a `JointSource`

    def undecayed(self) -> list[Tensor]:
        """See `Objective.undecayed`: all but matrices, and embeddings and positions."""
        decayed = decayed_names(self.stack.model)
        return [p for n, p in self.stack.named_parameters().items() if n not in decayed]

    def begin(self) -> None:
        """See `Objective.begin`: the weights of slots, and the critic where there is one."""
        stack, spec = self.stack, self.stack.spec
        self.data: JointSource = self.source
        weights = [self.settings.observation_weight] * spec.observation_dim
        weights += [self.settings.action_weight] * spec.action_dim
        weights += [self.settings.reward_weight, self.settings.value_weight]
        self.weights = torch.tensor(weights, device=self.device)
        self.critic: CriticTraining | None = None
        if self.settings.critic is not None:
            if stack.size > 1:
                raise UserError(
                    f"settings.critic: {stack.size} seeds as one stack; allowed: one after another."
                )
            assert isinstance(stack.model.critic, Critic)
            assert self.data.transitions is not None
            self.critic = CriticTraining(
                self,
                stack.model.critic,
                self.data.transitions,
                self.data.actions,
                self.settings.discount,
                self.settings.critic,
            )

    @classmethod
    def uses(cls, config: Mapping[str, Any]) -> frozenset[str]:
        """See `Objective.uses`: rows are read whole, whatever the history; a condition is what is told first."""
        unread = {"history", "train.windows", "train.loss", "train.return_scale"}
        unread |= {f"model.{name}" for name in ("timesteps", "timestep_std", "auxiliary")}
        if config["train"]["schedule"] == "constant":
            unread |= {f"settings.{name}" for name in ("cosine", "floor", "clamped")}
        binned = "valid" in inspect.signature(get("head", config["head"])).parameters
        if not binned and config["input"] == "continuous":
            unread |= {f"settings.{name}" for name in ("bins", "discretiser", "repeats")}
        return super().uses(config) - unread

    def update(self, batch: Batch, rate: float | Tensor) -> Tensor:
        """See `Objective.update`."""
        with self.autocast():
            loss = self.loss(batch.targets)
        self.policy_step(loss, rate)
        loss = loss.detach()
        if self.critic is not None:
            # 0, or not a number: a critic that diverges takes its model with it
            loss = loss + 0.0 * self.critic.update(batch.update).sum()
        return loss

    def loss(self, starts: Tensor) -> Tensor:
        """Weighted mean loss (S,) over all predicted slots of windows that start at rows (S, B), masked ones at 0.

        Past a true end rows count where the heads have bins, one of which says so.
        """
        rows, inside = self.data.windows(starts)  # (S, B, K, D), (S, B, K)
        heads = self.stack.model.head
        counted = inside | rows[..., 0].isnan() if heads.binned else inside
        told = [self.data.told[starts]] if self.stack.spec.prefix else []
        each = self.stack(rows, *told, method="losses") * self.weights  # (S, B, K, D)
        shown = heads.predicted(rows.shape[2])
        if not self.settings.first_observation:
            shown[0, : self.stack.spec.observation_dim] = False
        masked = each * (counted[..., None] & shown)
        return masked.sum((1, 2, 3)) / (starts.shape[1] * shown.sum())

    def rate(self, update: int) -> float:
        """See `Objective.rate`: linear warm-up, then a cosine down to `floor`."""
        return joint_rate(update, self.train, self.settings)


def joint_rate(update: int, train: Mapping[str, Any], settings: JointSettings) -> float:
    """The release's rule (trajectory/utils/training.py), by updates instead of tokens."""
    peak, warmup = train["learning_rate"], train["warmup"]
    if update < warmup:
        return peak * (update + 1) / warmup
    if train["schedule"] == "constant":
        return peak
    end = settings.cosine or train["updates"]
    progress = (update - warmup) / max(1, end - warmup)
    if settings.clamped:
        progress = min(progress, 1.0)
    return peak * max(settings.floor, 0.5 * (1.0 + math.cos(math.pi * progress)))


def decayed_names(model: Model) -> set[str]:
    """Parameters that weight decay acts on: matrices, but for embeddings and positions."""
    looked_up = {
        f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Embedding)
    }
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and name not in looked_up and not name.endswith("positions")
    }
