"""How far the episode is: t over the horizon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ablate.models.conditions.base import Condition, Moment, Numbers
from ablate.registry import register

if TYPE_CHECKING:
    from ablate.data.normalise import Scales
    from ablate.data.trajectories import Trajectories
    from ablate.models.layouts import Layout


@register("condition", "time", order=2)
class Time(Condition):
    """Raw: the timestep's index in its episode."""

    def logged(self, trajectories: Trajectories, layout: Layout) -> Numbers:
        return trajectories.timestep[:, None]

    def shown(self, moment: Moment, before: Numbers | None) -> Numbers:
        return np.full((*moment.shape, 1), float(moment.timestep))

    def scaled(self, raw: Tensor, scales: Scales, layout: Layout) -> Tensor:
        return raw / scales.horizon

    def drawn(
        self, generator: np.random.Generator, shape: tuple[int, ...], scales: Scales, layout: Layout
    ) -> Numbers:
        return generator.uniform(0, scales.horizon, (*shape, 1))
