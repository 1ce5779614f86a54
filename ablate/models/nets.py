"""Several nets that make one joint model: each is told whole trajectories and is asked for some of their slots."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ablate.errors import UserError
from ablate.models.assembly import Model
from ablate.models.discretise import Discretiser
from ablate.models.mixer import Mixer
from ablate.models.slots import Slots
from ablate.models.spec import ModelSpec
from ablate.models.tokens import stream
from ablate.registry import get

Sharing = Literal["joint", "stopped", "separate", "transplanted"]


@dataclass(frozen=True)
class NetsSpec(ModelSpec):
    """The shape of several nets of one width, whose parameters count together.

    parts: of each net the slots that it is asked for; together all, each once. alone: whether a net learns and
    predicts these only, or, as a joint model of its own, all.
    """

    parts: tuple[tuple[int, ...], ...] = ()
    alone: bool = True

    @property
    def nets(self) -> int:
        return len(self.parts)

    def build(self, *adapted: Any) -> Nets:
        """See `ModelSpec.build`."""
        return Nets(self, *adapted)

    def net(self, number: int) -> ModelSpec:
        """The shape of one net."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(ModelSpec)}
        return ModelSpec(**{**plain, "only": self.parts[number] if self.alone else ()})


class Nets(nn.Module):
    """Joint models of some slots each, used as one; see `ablate.models.assembly.Model` for what isn't said here.

    What doesn't depend on the net (bins, units, tokens, how far the mixer looks) is the first one's.
    """

    critic: nn.Module | None = None  # none is trained beside several nets

    def __init__(
        self,
        spec: NetsSpec,
        data: np.ndarray | None = None,
        discretiser: Discretiser | None = None,
        told: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.nets = nn.ModuleList(
            Model(spec.net(number), data, copy.deepcopy(discretiser), told)
            for number in range(spec.nets)
        )

    @property
    def parts(self) -> list[tuple[Model, tuple[int, ...]]]:
        """The nets, and of each the slots that it is asked for."""
        return list(zip(self.nets, self.spec.parts, strict=True))  # type: ignore[arg-type]

    @property
    def head(self) -> Slots:
        """Bins and units; only some slots can be asked of it."""
        return self.parts[0][0].head

    @property
    def mixer(self) -> Mixer:
        """How far it looks; its weights are those of one net."""
        return self.parts[0][0].mixer

    def forward(self, *args: Any, method: str = "losses") -> Any:
        """Run `losses` or `log_density` with that method's arguments."""
        return {"losses": self.losses, "log_density": self.log_density}[method](*args)

    def losses(self, rows: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Of every slot of raw rows the sum over the nets that learn it, (B, L, D)."""
        each = [net.losses(rows, prefix) for net, _ in self.parts]
        return torch.stack(each).sum(0)

    def log_density(self, rows: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Of every slot that of the net that is asked for it, (B, L, D)."""
        found = torch.zeros_like(rows)
        for net, slots in self.parts:
            own = torch.zeros(self.spec.slots, dtype=torch.bool, device=rows.device)
            own[list(slots)] = True
            found = found + net.log_density(rows, prefix).masked_fill(~own, 0.0)
        return found

    def flops(self) -> int:
        return sum(net.flops() for net, _ in self.parts)


def shared(spec: ModelSpec, sharing: Sharing) -> ModelSpec:
    """The shape of a joint model that shares its trunk so.

    joint: one net, which all losses train. stopped: one net, which the losses of observations and rewards train;
    actions and values are read from its features. separate: a net for actions, one for observations and rewards, one
    for values. transplanted: two joint models from different initial weights; actions and values are asked of the
    first, observations and rewards of the second.

    Raises UserError where one head predicts slots of several nets.
    """
    if sharing == "joint":
        return spec
    first, reward = spec.observation_dim, spec.slots - 2
    policy = tuple(range(first, reward))
    dynamics = (*range(first), reward)
    value = (spec.slots - 1,)
    if sharing == "stopped":
        return dataclasses.replace(spec, stopped=(*policy, *value))
    parts: tuple[tuple[int, ...], ...] = (policy, dynamics, value)
    alone = sharing == "separate"
    if not alone:
        parts = ((*policy, *value), dynamics)
    chained = bool(get("head", spec.head).chained)
    if alone and chained and any(_split(held, parts) for held in stream(spec)):
        raise UserError(
            f"settings.sharing: separate needs a layout in which no token holds what several nets predict, as the head "
            f"'{spec.head}' predicts a token at once; found the layout '{spec.layout}', allowed: modality, dimension."
        )
    plain: Mapping[str, Any] = {
        field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)
    }
    return NetsSpec(**plain, parts=parts, alone=alone)


def _split(held: tuple[int, ...], parts: tuple[tuple[int, ...], ...]) -> bool:
    """Whether the slots of a token belong to several nets."""
    return sum(bool(set(held) & set(slots)) for slots in parts) > 1
