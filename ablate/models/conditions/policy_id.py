"""Which of the data's policies acts: an oracle, since a learner doesn't know."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ablate.models.conditions.base import Condition, Moment, Numbers
from ablate.registry import register

if TYPE_CHECKING:
    from ablate.data.catalogue import DataSpec
    from ablate.data.normalise import Scales
    from ablate.data.trajectories import Trajectories
    from ablate.models.layouts import Layout


@register("condition", "policy-id", label="oracle policy id", order=6)
class PolicyId(Condition):
    """Raw: the behaviour id, one-hot; zeros where none is asked for."""

    def width(self, layout: Layout) -> int:
        return layout.policies

    def logged(self, trajectories: Trajectories, layout: Layout) -> Numbers:
        assert trajectories.behaviour_id is not None
        return _one_hot(trajectories.behaviour_id, layout)

    def shown(self, moment: Moment, before: Numbers | None) -> Numbers:
        if moment.policy is None:
            return np.zeros((*moment.shape, moment.layout.policies))
        return _one_hot(np.full(moment.shape, moment.policy), moment.layout)

    def scaled(self, raw: Tensor, scales: Scales, layout: Layout) -> Tensor:
        return raw

    def missing(self, spec: DataSpec) -> str:
        return "" if spec.num_policies else "says which policy acted"

    def drawn(
        self, generator: np.random.Generator, shape: tuple[int, ...], scales: Scales, layout: Layout
    ) -> Numbers:
        return _one_hot(generator.integers(0, layout.policies, shape), layout)


def _one_hot(ids: Numbers, layout: Layout) -> Numbers:
    return np.eye(layout.policies, dtype=np.float32)[ids]
