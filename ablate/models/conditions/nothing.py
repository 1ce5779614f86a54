"""No condition: the policy is told nothing but what it observes."""

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


@register("condition", "none", label="no condition", order=1)
class Nothing(Condition):
    """No column."""

    def width(self, layout: Layout) -> int:
        return 0

    def logged(self, trajectories: Trajectories, layout: Layout) -> Numbers:
        return np.zeros((len(trajectories.rewards), 0))

    def shown(self, moment: Moment, before: Numbers | None) -> Numbers:
        return np.zeros((*moment.shape, 0))

    def scaled(self, raw: Tensor, scales: Scales, layout: Layout) -> Tensor:
        return raw
