"""The average of the reward still to come, as RvS-R is told (Emmons et al. 2022)."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ablate.models.conditions.base import Condition, Moment, Numbers
from ablate.registry import register

if TYPE_CHECKING:
    from ablate.data.normalise import Scales
    from ablate.data.trajectories import Trajectories
    from ablate.models.layouts import Layout


@register("condition", "average-return", order=4)
class AverageReturn(Condition):
    """Raw: return-to-go and timestep; the column is the one over the timesteps left, in units of the returns' spread
    over the horizon.

    The same average is asked for throughout an episode (Emmons et al. 2022, appendix).
    """

    uses = frozenset({"target"})

    def logged(self, trajectories: Trajectories, layout: Layout) -> Numbers:
        time = trajectories.timestep.astype(np.float32)
        return np.stack([trajectories.returns_to_go, time], axis=-1)

    def shown(self, moment: Moment, before: Numbers | None) -> Numbers:
        horizon, t = moment.env.horizon, moment.timestep
        still = np.full(moment.shape, moment.target / horizon) * (horizon - t)
        return np.stack([still, np.full(moment.shape, float(t))], axis=-1)

    def scaled(self, raw: Tensor, scales: Scales, layout: Layout) -> Tensor:
        to_go, time = raw.split(1, dim=-1)
        left = (scales.horizon - time).clamp(min=1.0)
        return to_go / left * (scales.horizon / scales.return_to_go)

    def stays(self, past: Collection[str]) -> bool:
        return "returns" in past

    def drawn(
        self, generator: np.random.Generator, shape: tuple[int, ...], scales: Scales, layout: Layout
    ) -> Numbers:
        to_go = scales.return_to_go * generator.normal(size=shape)
        return np.stack([to_go, generator.uniform(0, scales.horizon, shape)], axis=-1)
