"""The interface of a condition::

    @register("condition", "remaining-time", label="time that is left")
    class RemainingTime(Condition):
        def logged(self, trajectories, layout):
            return trajectories.timestep[:, None]

        def shown(self, moment, before):
            return np.full((*moment.shape, 1), float(moment.timestep))

        def scaled(self, raw, scales, layout):
            return (scales.horizon - raw) / scales.horizon

What it says of logged trajectories and while acting are raw numbers in the units of the data; `scaled` makes of
both what a model reads, so that the two can't drift apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ablate import registry

if TYPE_CHECKING:
    from ablate.data.catalogue import DataSpec
    from ablate.data.normalise import Scales
    from ablate.data.trajectories import Trajectories
    from ablate.models.layouts import Layout

Numbers = NDArray[Any]


class Place(Protocol):
    """What a condition may ask of the environment of E episodes."""

    horizon: int

    def goals(self) -> Numbers | None:
        """The goal of each episode (E, G), None where there is none."""


@dataclass
class Moment:
    """The present timestep of episodes in progress, (S, E) of them, and what is asked of them.

    observation: (S, E, N). action (S, E, M), reward (S, E): those that led here, zero at the start; the reward also
        once an episode is over.
    timestep: the same in every episode, 0 at the start.
    env: where they act.
    target: the return asked for, in the environment's units; decrement: whether what is still asked for is lowered
        by each reward.
    policy: the behaviour id to act as, None where none is asked for.
    """

    observation: Numbers
    action: Numbers
    reward: Numbers
    timestep: int
    env: Place
    layout: Layout
    target: float
    decrement: bool
    policy: int | None

    @property
    def shape(self) -> tuple[int, int]:
        """(S, E)."""
        policies, episodes = self.reward.shape
        return policies, episodes


class Condition(ABC):
    """What a policy is told at each timestep: w raw numbers, which become `width` columns of its row.

    Attributes:
        uses: the measurement's options that it reads (`target`, `decrement`); to vary another one changes nothing.
        stands: where in a window what is said at the present timestep stands, see `ablate.data.windows.PLACES`; empty
            where each timestep shows its own, as long as it `stays`.
    """

    uses: frozenset[str] = frozenset()
    stands: str = ""

    def width(self, layout: Layout) -> int:
        """How many columns it has."""
        return 1

    @abstractmethod
    def logged(self, trajectories: Trajectories, layout: Layout) -> Numbers:
        """Raw numbers (T, w) at each timestep of logged trajectories. They may be had from what comes later."""

    def first(self, trajectories: Trajectories, layout: Layout) -> Numbers:
        """Raw numbers (T, w) that a joint model is told once, before a window that starts at each timestep."""
        return self.logged(trajectories, layout)

    @abstractmethod
    def shown(self, moment: Moment, before: Numbers | None) -> Numbers:
        """Raw numbers (S, E, w) while acting. before: those of the timestep before, None at the start."""

    @abstractmethod
    def scaled(self, raw: Tensor, scales: Scales, layout: Layout) -> Tensor:
        """Columns (..., width) of raw numbers (..., w): about 1 in size, on the scales of the training set."""

    def stays(self, past: Collection[str]) -> bool:
        """Whether it is still shown once its timestep is past; past: what the history shows, see `histories`."""
        return True

    def missing(self, spec: DataSpec) -> str:
        """What it needs data to do and this set doesn't, as in "says which policy acted"; else empty."""
        return ""

    def drawn(
        self, generator: np.random.Generator, shape: tuple[int, ...], scales: Scales, layout: Layout
    ) -> Numbers:
        """Random raw numbers (*shape, w) with about the spread of real ones: the audit perturbs with them."""
        return generator.normal(size=(*shape, self.width(layout)))


def of(level: str) -> dict[str, Condition]:
    """The conditions whose sum a level is, by name. Raises UserError for one that is not known."""
    return {part.name: part.value() for part in registry.terms("condition", level)}


def unmet(level: str, spec: DataSpec) -> str:
    """What a level needs of data and a set doesn't have, in one line; empty where it can be used."""
    for name, condition in of(level).items():
        if lacking := condition.missing(spec):
            return f"the condition '{name}' needs data that {lacking}; '{spec.name}' does not."
    return ""


def uses(level: str) -> frozenset[str]:
    """The measurement's options that a level reads."""
    return frozenset().union(*(condition.uses for condition in of(level).values()))
