"""What one update does: an algorithm, as the trainer sees it.

The trainer draws targets, sets the learning rate, reports points, sets diverged policies aside and resumes; an
`Objective` turns a batch of targets into one update of S policies at once. A user's own subclasses `Objective`
and is registered with ``@register("algorithm", NAME)``; `update` is all it must have. Whatever it trains beside
the policy (critics, temperatures, copies) it declares with `add`, so that an interrupted training can go on.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ablate.data.windows import (
    Visibility,
    counted,
    gather_windows,
    last_rows,
    windows_that_count,
)
from ablate.errors import unknown
from ablate.learn.adam import Adam
from ablate.learn.transitions import Transitions
from ablate.models.stack import Stack
from ablate.registry import Section, checked, get, register


class TrainingData(Protocol):
    """What the trainer asks of any source: rows (T, ...), actions (T, M), the K of windows."""

    @property
    def table(self) -> Tensor:
        """Rows of the training set."""

    @property
    def actions(self) -> Tensor:
        """Its actions."""

    @property
    def context(self) -> int:
        """K, timesteps a window holds at most."""

    @property
    def transitions(self) -> Transitions | None:
        """What Q-learning sees beside them."""


@dataclass(frozen=True)
class Source:
    """What the trainer reads: tokens (T, F), timestep (T,), actions (T, M), what windows show.

    transitions: what Q-learning sees beside them; only where the objective asks for it.
    """

    table: Tensor
    timestep: Tensor
    actions: Tensor
    visible: Visibility
    transitions: Transitions | None = None

    @property
    def context(self) -> int:
        """K, timesteps a window holds at most."""
        return self.visible.context

    def ending(self, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Windows that end at `targets` (S, B): tokens (S, B, K, F), rows (S, B, K), lengths (S, B)."""
        return gather_windows(self.table, self.timestep, self.visible, targets)

    def starting(self, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same of windows that start at `targets` and end K timesteps later or with the episode."""
        last = self._last_row[targets]  # (S, B)
        end = torch.minimum(targets + self.context - 1, last)
        rows = targets.unsqueeze(-1) + torch.arange(self.context, device=targets.device)
        rows = torch.minimum(rows, end.unsqueeze(-1))
        lengths = end - targets + 1
        shown = self.table.index_select(0, rows.flatten()).view(*rows.shape, -1)
        return self.visible.show(shown, lengths, self.timestep[targets] == 0), rows, lengths

    @cached_property
    def _last_row(self) -> Tensor:
        return last_rows(self.timestep)


@dataclass(frozen=True)
class Batch:
    """One update's draw. update: its number, from 0. targets: (S, B) int64 rows of the training set."""

    update: int
    targets: Tensor


@dataclass(frozen=True)
class Part:
    """Tensors that are trained or kept, and the optimiser that trains them, if one does."""

    tensors: list[Tensor]
    optimiser: Adam | None


class Objective(ABC):
    """Trains the S policies of `stack` on `source`, in place.

    Class attributes:
        Settings: its own hyper-parameters.
        heads: registered heads that it can train; empty where any will do.
        losses: levels of `train.loss` that it knows.
        transitions: whether it needs `source.transitions`.
        system: the registered system that reads data, trains and acts for it (`ablate.systems`); of `joint`, models
            predict whole trajectories, which can be searched over.
        starts: whether `train.windows` says where a window's target is; False where it draws windows its own way.
        growth: a loss this many times its first value (or 1, if that is more) has diverged.

    Args:
        train: the `train` part of a configuration. settings: what the study or preset says of `Settings`.
        study, seeds: name the random streams; `seeds` in the order of the stack.

    Raises UserError for settings, a head or a loss that the algorithm doesn't have.
    """

    Settings: ClassVar[type[Section]] = Section
    heads: ClassVar[tuple[str, ...]] = ()
    losses: ClassVar[tuple[str, ...]] = ("last", "all")
    transitions: ClassVar[bool] = False
    system: ClassVar[str] = "policy"
    starts: ClassVar[bool] = False
    growth: ClassVar[float] = 1e3

    def __init__(
        self,
        stack: Stack,
        source: Source,
        train: Mapping[str, Any],
        settings: Mapping[str, Any],
        study: str,
        seeds: Sequence[int],
    ) -> None:
        self.stack, self.source, self.train = stack, source, train
        self.study, self.seeds = study, list(seeds)
        self.settings: Any = checked(self.Settings, settings, "settings")
        self.device = source.table.device
        if self.heads and stack.spec.head not in self.heads:
            raise unknown("head: the algorithm's policy", stack.spec.head, self.heads)
        if train["loss"] not in self.losses:
            raise unknown("train.loss: the algorithm's loss", train["loss"], self.losses)
        if self.transitions and source.transitions is None:
            raise ValueError(f"{type(self).__name__}: the source has no transitions.")
        self.parts: dict[str, Part] = {}
        rates = train["learning_rate"], train["weight_decay"]
        self.optimiser = self.add("", stack.parameters(), *rates, self.undecayed())
        self.begin()

    def begin(self) -> None:  # noqa: B027 - most need nothing
        """Set up what is trained beside the policy, once `source`, `stack` and `settings` are known: nothing."""

    def undecayed(self) -> list[Tensor]:
        """The policy's parameters that weight decay leaves alone: none."""
        return []

    @classmethod
    def uses(cls, config: Mapping[str, Any]) -> frozenset[str]:
        """Paths of the configuration that change what is trained: its parts, and entries of its sections.

        What isn't there may be changed without any effect, and is no factor.
        """
        model, train, condition = config["model"], config["train"], config["condition"]
        paths = {"mixer", "context", "timesteps", "condition", "history", "head", "layout", "input"}
        paths |= {f"model.{name}" for name in model} | {f"train.{name}" for name in train}
        paths |= {f"settings.{name}" for name in config["settings"]}
        known = inspect.signature(get("mixer", config["mixer"])).parameters
        unread = {
            f"model.{n}" for n in ("heads", "activation", "positions", "window") if n not in known
        }
        unread |= {"model.parameters", "model.tolerance"} if model["width"] else set()
        unread |= set() if model["timesteps"] else {"model.timestep_std"}
        unread |= set() if cls.starts else {"train.windows"}
        unread |= set() if len(cls.losses) > 1 else {"train.loss"}
        everywhere = "all" in cls.losses and train["loss"] == "all"
        unread |= set() if everywhere else {"train.least_visible", "train.balanced"}
        unread |= set() if train["keep"] < 1.0 else {"train.keep_by"}
        unread |= set() if "return" in condition else {"train.return_scale"}
        return frozenset(paths - unread)

    @abstractmethod
    def update(self, batch: Batch, rate: float | Tensor) -> Tensor:
        """Update every policy once, at learning rate `rate`; the loss of each before it, (S,), detached.

        A loss that is no longer finite, or has grown beyond `growth`, marks its policy as diverged.
        """

    def add(
        self,
        name: str,
        tensors: Sequence[Tensor],
        learning_rate: float | None = None,
        weight_decay: float = 0.0,
        undecayed: Sequence[Tensor] = (),
    ) -> Any:
        """Declare further tensors, "" being the policy's; with a learning rate, their optimiser is returned.

        undecayed: those of the tensors that weight decay leaves alone.
        """
        made = None
        if learning_rate is not None:
            apart = {id(tensor) for tensor in undecayed}
            decayed = [tensor for tensor in tensors if id(tensor) not in apart]
            made = Adam(
                [
                    (group, decay)
                    for group, decay in ((decayed, weight_decay), (undecayed, 0.0))
                    if group
                ],
                learning_rate,
                tuple(self.train.get("betas", (0.9, 0.999))),
                decoupled=self.train.get("optimiser", "adamw") == "adamw",
            )
        self.parts[name] = Part(list(tensors), made)
        return made

    def rate(self, update: int) -> float:
        """Learning rate of update 0, 1, ...; see `learning_rate`."""
        return learning_rate(update, self.train)

    def policy_step(self, loss: Tensor, rate: float | Tensor) -> None:
        """Descend along the gradient of `loss` (S,): of each policy along its own."""
        self.optimiser.zero_grad()
        # The sum over policies: the gradient of each is that of its own loss.
        loss.sum().backward()
        if self.train["clip"] is not None:
            self.stack.clip_(self.train["clip"])
        self.optimiser.set_rate(rate)
        self.optimiser.step()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Where a policy's products are computed as `train.precision` says."""
        if self.train["precision"] == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def state_tensors(self) -> dict[str, Tensor]:
        """All that an interrupted training needs to go on, by name."""
        found: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            prefix = f"{name}/" if name else ""
            for index, tensor in enumerate(part.tensors):
                found[f"{prefix}parameter/{index}"] = tensor.detach().contiguous()
                state = {} if part.optimiser is None else part.optimiser.state.get(tensor, {})
                for key, value in state.items():
                    found[f"{prefix}optimiser/{index}/{key}"] = value.contiguous()
        return found

    @torch.no_grad()
    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state_tensors` gave. Raises KeyError when a tensor is missing."""
        for name, part in self.parts.items():
            prefix = f"{name}/" if name else ""
            for index, tensor in enumerate(part.tensors):
                tensor.copy_(tensors[f"{prefix}parameter/{index}"])
                if part.optimiser is not None:
                    start = f"{prefix}optimiser/{index}/"
                    part.optimiser.state[tensor] = {
                        key.removeprefix(start): value.clone().to(tensor.device)
                        for key, value in tensors.items()
                        if key.startswith(start)
                    }


@register("algorithm", "bc", label="BC")
class Supervised(Objective):
    """Behaviour cloning, plain or conditioned: the head's loss of the logged action.

    With a return in the condition this is return-conditioned supervised learning (Chen et al. 2021; Emmons et
    al. 2022), with a goal, goal-conditioned; with `train.keep` below 1, cloning of the best trajectories.
    `train.loss` "last" counts a window's last action, "all" the action at each of its positions: a window of K
    timesteps then serves up to K targets, which see 1 to K of them. `train.least_visible` leaves out the
    positions that see fewer, and `train.balanced` weighs the others so that in expectation each timestep of the
    data counts as often as with "last", where windows at an episode's edges hold it less often.
    """

    starts: ClassVar[bool] = True

    def update(self, batch: Batch, rate: float | Tensor) -> Tensor:
        source, stack = self.source, self.stack
        cut = source.starting if self.train.get("windows", "end") == "start" else source.ending
        features, rows, lengths = cut(batch.targets)  # (S, B, K, F), (S, B, K), (S, B)
        with self.autocast():
            if self.train["loss"] == "all":
                mask = torch.arange(source.context, device=self.device) < lengths.unsqueeze(-1)
                params = stack(features, mask, method="everywhere")  # (S, B, K, P)
                each = stack.head.loss(params, source.actions[rows])  # (S, B, K)
                weight = self._weights(rows, lengths)  # (S, B, K)
                loss = (each * weight).sum((1, 2)) / weight.sum((1, 2))  # (S,)
            else:
                params = stack(features, lengths)  # (S, B, P)
                loss = stack.head.loss(params, source.actions[rows[..., -1]]).mean(1)  # (S,)
        self.policy_step(loss, rate)
        return loss.detach()

    def _weights(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """How much each position of windows counts, (S, B, K); rows (S, B, K), lengths (S, B)."""
        oldest = self.source.timestep[rows[..., 0]]  # (S, B)
        counts = counted(oldest, lengths, self.source.context, self.train.get("least_visible", 1))
        return counts * self._share[rows] if self.train.get("balanced", False) else counts

    @cached_property
    def _share(self) -> Tensor:
        """What a row counts in each of the windows that count it, (T,)."""
        source, by = self.source, self.train.get("windows", "end")
        least = self.train.get("least_visible", 1)
        times = windows_that_count(source.timestep, source.context, least, by)
        return 1.0 / times.to(source.actions.dtype)


def learning_rate(update: int, train: Mapping[str, Any]) -> float:
    """Learning rate of update 0, 1, ...: linear warm-up, then constant or half a cosine down to zero."""
    peak, warmup = train["learning_rate"], train["warmup"]
    if update < warmup:
        return peak * (update + 1) / warmup
    if train["schedule"] == "constant":
        return peak
    progress = (update - warmup) / max(1, train["updates"] - warmup)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
