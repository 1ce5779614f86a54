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

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ablate.config import timesteps
from ablate.data.trajectories import Trajectories
from ablate.errors import UserError
from ablate.learn.critic import Critic, CriticSettings, CriticTraining
from ablate.learn.objective import Batch, Objective, Part, Settings, set_rate
from ablate.learn.transitions import Transitions, transitions
from ablate.models.discretise import Discretiser
from ablate.models.trajectory import TrajectoryModel, TrajectorySpec, build_trajectory_model
from ablate.registry import register


class JointStack:
    """One trajectory model in the shape of a stack of one, as the trainer asks for it.

    Raises UserError for several models: their seeds train one after another.
    """

    def __init__(self, models: Sequence[TrajectoryModel]) -> None:
        if len(models) != 1:
            raise UserError(
                f"algorithm joint: {len(models)} seeds as one stack; allowed: 1, seeds one after another."
            )
        self.model = models[0]
        self.size = 1
        self.spec = self.model.spec

    def parameters(self) -> list[Tensor]:
        """The model's own parameters."""
        return list(self.model.parameters())

    def named_parameters(self) -> dict[str, Tensor]:
        """The same by name."""
        return dict(self.model.named_parameters())

    def train(self, mode: bool = True) -> JointStack:
        """Switch dropout on or off."""
        self.model.train(mode)
        return self

    def eval(self) -> JointStack:
        """Switch dropout off."""
        return self.train(False)

    def clip_(self, max_norm: float) -> Tensor:
        """Scale the gradients in place to a norm <= `max_norm`; the norm before, (1,)."""
        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), max_norm)[None]

    def state_dicts(self) -> list[dict[str, Tensor]]:
        """The model's state as a copy."""
        return [{name: t.detach().clone() for name, t in self.model.state_dict().items()}]


@dataclass(frozen=True)
class JointSource:
    """What the objective reads of a training set.

    table: rows (T, D), raw. last: (T,) the last row of each row's episode. stops: (T,) bool, whether that episode
    truly ends. context: K. goals: (T, G) the coordinates `spec.goal` of the episode's last observation. transitions:
    of raw observations, for a critic; None where none is trained.
    """

    table: Tensor
    actions: Tensor
    last: Tensor
    stops: Tensor
    goals: Tensor
    context: int
    transitions: Transitions | None = None


class JointSettings(Settings):
    """Hyper-parameters of `joint`; the defaults are the release's (config/offline.py, scripts/train.py)."""

    bins: int = Field(default=100, ge=2)
    discretiser: Literal["quantile", "uniform"] = "quantile"
    repeats: Literal["own-bin", "kept"] = "own-bin"  # released: kept
    discount: float = Field(default=0.99, ge=0, le=1)
    penalty: float | None = -100.0  # the reward of a true end; null: as logged
    observation_weight: float = Field(default=1.0, ge=0)
    action_weight: float = Field(default=5.0, ge=0)
    reward_weight: float = Field(default=1.0, ge=0)
    value_weight: float = Field(default=1.0, ge=0)
    value_mask: bool = True
    goal: tuple[int, ...] = ()  # coordinates of the episode's last observation that are shown first
    cosine: int | None = Field(
        default=None, gt=0
    )  # updates after which it is at its lowest; null: all
    floor: float = Field(default=0.1, ge=0, le=1)
    clamped: bool = True  # released: false
    critic: CriticSettings | None = None  # a Q-function for the search, trained apart; null: none


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
    spec: TrajectorySpec,
    settings: JointSettings,
    device: torch.device | str = "cpu",
) -> JointSource:
    """The training set as the objective reads it."""
    rows = joint_rows(trajectories, settings.discount, settings.penalty)
    last = np.repeat(trajectories.episode_starts[1:] - 1, trajectories.lengths)
    return JointSource(
        table=torch.from_numpy(rows).to(device),
        actions=torch.from_numpy(trajectories.actions).to(device),
        last=torch.from_numpy(last).to(device),
        stops=torch.from_numpy(trajectories.terminations[last]).to(device),
        goals=torch.from_numpy(trajectories.observations[last][:, list(spec.goal)]).to(device),
        context=spec.window,
        transitions=_transitions(trajectories, settings, device) if settings.critic else None,
    )


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


def joint_spec(config: Mapping[str, Any], observation_dim: int, action_dim: int) -> TrajectorySpec:
    """The model that a configuration describes. Raises UserError where it describes none."""
    model, settings = config["model"], JointSettings.model_validate(dict(config["settings"]))
    if model.get("width") is None:
        raise UserError(
            "model.width: algorithm joint needs a width, as parameters are not matched."
        )
    return TrajectorySpec(
        observation_dim,
        action_dim,
        layout=config["layout"],
        head=config["head"],
        input=config["input"],
        positions=model.get("positions", "learned"),
        window=timesteps(config),
        bins=settings.bins,
        width=model["width"],
        layers=model["layers"],
        heads=model.get("heads", 1),
        dropout=model["dropout"],
        value_mask=settings.value_mask,
        goal=settings.goal,
    )


def fit_model(
    spec: TrajectorySpec,
    trajectories: Trajectories,
    settings: JointSettings,
    generator: torch.Generator,
) -> TrajectoryModel:
    """A model with initial weights from `generator` and with bins and scales fitted to the training set."""
    rows = joint_rows(trajectories, settings.discount, settings.penalty)
    discretiser = Discretiser.fit(rows, settings.bins, settings.discretiser, settings.repeats)
    std = rows.std(0)
    std = np.where(std > 1e-6, std, 1.0)
    model = build_trajectory_model(spec, generator, discretiser, rows.mean(0), std)
    if settings.critic is not None:
        n = spec.observation_dim
        model.critic = Critic(model.mean[:n], model.std[:n], spec.action_dim, settings.critic)
    return model


@register("algorithm", "joint")
class Joint(Objective):
    """Trains one trajectory model; `stack` is a `JointStack`, `source` a `JointSource`."""

    Settings: ClassVar[type[Settings]] = JointSettings
    losses: ClassVar[tuple[str, ...]] = ("all",)
    imagines: ClassVar[bool] = True

    def __init__(
        self,
        stack: Any,
        source: Any,
        train: Mapping[str, Any],
        settings: Mapping[str, Any],
        study: str,
        seeds: Sequence[int],
    ) -> None:
        super().__init__(stack, source, train, settings, study, seeds)
        self.data: JointSource = source
        self.model: TrajectoryModel = stack.model
        spec = self.model.spec
        decayed = _decayed(self.model)
        parameters = stack.parameters()
        kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[
            train.get("optimiser", "adamw")
        ]
        self.optimiser = kind(
            [
                {
                    "params": [p for p in parameters if id(p) in decayed],
                    "weight_decay": train["weight_decay"],
                },
                {"params": [p for p in parameters if id(p) not in decayed], "weight_decay": 0.0},
            ],
            lr=train["learning_rate"],
            betas=tuple(train.get("betas", (0.9, 0.999))),
            fused=True,
        )
        self.parts[""] = Part(parameters, self.optimiser)
        weights = [self.settings.observation_weight] * spec.observation_dim
        weights += [self.settings.action_weight] * spec.action_dim
        weights += [self.settings.reward_weight, self.settings.value_weight]
        self.weights = torch.tensor(weights, device=self.device)
        self.critic: CriticTraining | None = None
        if self.settings.critic is not None:
            assert isinstance(self.model.critic, Critic)
            assert self.data.transitions is not None
            self.critic = CriticTraining(
                self,
                self.model.critic,
                self.data.transitions,
                self.data.actions,
                self.settings.discount,
                self.settings.critic,
            )

    def update(self, batch: Batch, rate: float) -> Tensor:
        """See `Objective.update`; the rate is this algorithm's own, see the module."""
        with self.autocast():
            loss = self.loss(batch.targets[0])
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if self.train["clip"] is not None:
            self.stack.clip_(self.train["clip"])
        set_rate(self.optimiser, self.rate(batch.update))
        self.optimiser.step()
        loss = loss.detach()
        if self.critic is not None:
            # 0, or not a number: a critic that diverges takes its model with it
            loss = loss + 0.0 * self.critic.update(batch.update).sum()
        return loss[None]

    def loss(self, starts: Tensor) -> Tensor:
        """Weighted mean loss over all predicted slots of the windows that start at rows (B,), masked ones at 0."""
        rows, tokens, entries, counted = self.windows(starts)
        goal = None
        if self.model.spec.goal:
            goal = self.model.encode_goal(self.data.goals[starts])
        params = self.model(entries, tokens, goal)
        each = self.model.loss(params, rows, tokens) * self.weights  # (B, K, D)
        shown = self.model.predicted(rows.shape[1])
        return (each * (counted[..., None] & shown)).sum() / (len(starts) * shown.sum())

    def windows(self, starts: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Windows of K rows from `starts` (B,): raw (B, K, D), tokens, entries, and which rows count (B, K).

        Past a true end rows are stop tokens and count where the model is discrete.
        """
        source, model = self.data, self.model
        index = starts[:, None] + torch.arange(source.context, device=starts.device)
        inside = index <= source.last[starts][:, None]  # (B, K)
        rows = source.table[torch.minimum(index, source.last[starts][:, None])]
        stop = ~inside & source.stops[starts][:, None]
        tokens = None
        if model.discretiser is not None:
            tokens = model.discretiser.encode(rows)
            tokens = torch.where(stop[..., None], model.spec.bins, tokens)
        entries = tokens if model.spec.input == "discretised" else model.encode(rows)
        assert entries is not None
        counted = inside | stop if model.spec.discrete else inside
        return rows, tokens, entries, counted

    def rate(self, update: int) -> float:
        """Learning rate of update 0, 1, ...: linear warm-up, then a cosine down to `floor`."""
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


def _decayed(model: TrajectoryModel) -> set[int]:
    """Parameters that weight decay acts on: weights of linear layers and of the heads."""
    found = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    found |= {id(p) for name, p in model.named_parameters() if name in ("head", "weights")}
    return found
