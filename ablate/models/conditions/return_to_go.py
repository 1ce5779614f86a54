"""The return still to come, as the Decision Transformer is told (Chen et al. 2021): undiscounted."""

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


@register("condition", "return-to-go", order=3)
class ReturnToGo(Condition):
    """Raw: logged, the sum of this and the episode's later rewards; acting, the target less the rewards received.

    It is not lowered where `decrement` is off, as with DT's delayed rewards (gym/decision_transformer/evaluation).
    """

    uses = frozenset({"target", "decrement"})

    def logged(self, trajectories: Trajectories, layout: Layout) -> Numbers:
        return trajectories.returns_to_go[:, None]

    def shown(self, moment: Moment, before: Numbers | None) -> Numbers:
        if before is None:
            return np.full((*moment.shape, 1), moment.target)
        return before - moment.reward[..., None] if moment.decrement else before

    def scaled(self, raw: Tensor, scales: Scales, layout: Layout) -> Tensor:
        return raw / scales.return_to_go

    def stays(self, past: Collection[str]) -> bool:
        """See `Condition.stays`. Past ones give away past rewards (R_{t-1} - R_t = r_{t-1})."""
        return "returns" in past

    def drawn(
        self, generator: np.random.Generator, shape: tuple[int, ...], scales: Scales, layout: Layout
    ) -> Numbers:
        return scales.return_to_go * generator.normal(size=(*shape, 1))
