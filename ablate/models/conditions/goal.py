"""What a part of the observation is to become, as RvS-G is told (Emmons et al. 2022)."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ablate.data import streams
from ablate.models.conditions.base import Condition, Moment, Numbers
from ablate.registry import register

if TYPE_CHECKING:
    from ablate.data.catalogue import DataSpec
    from ablate.data.normalise import Scales
    from ablate.data.trajectories import Trajectories
    from ablate.models.layouts import Layout


@register("condition", "goal", order=5)
class Goal(Condition):
    """Raw: values of the observation's coordinates `layout.goal`.

    Logged, in hindsight: what the episode shows at a timestep drawn uniformly from the later ones (Emmons et al. 2022,
    section 4; drawn once for each timestep, not at each update), at the last timestep its own. Acting, the goal of the
    environment's episode.
    """

    def width(self, layout: Layout) -> int:
        return len(layout.goal)

    def logged(self, trajectories: Trajectories, layout: Layout) -> Numbers:
        last = np.repeat(trajectories.episode_starts[1:] - 1, trajectories.lengths)  # (T,)
        rows = np.arange(len(last))
        share = streams.stream("goals", 0, "hindsight").random(len(rows))
        later = np.minimum(rows + 1 + np.floor(share * (last - rows)).astype(np.int64), last)
        return trajectories.observations[later][:, layout.goal]

    def first(self, trajectories: Trajectories, layout: Layout) -> Numbers:
        """See `Condition.first`: where the episode ends (Janner et al. 2021, section 3.2)."""
        last = np.repeat(trajectories.episode_starts[1:] - 1, trajectories.lengths)
        return trajectories.observations[last][:, layout.goal]

    def shown(self, moment: Moment, before: Numbers | None) -> Numbers:
        if before is not None:
            return before
        goals = moment.env.goals()
        assert goals is not None  # the data set's `goal` says that there are some
        return goals.reshape(*moment.shape, -1)

    def scaled(self, raw: Tensor, scales: Scales, layout: Layout) -> Tensor:
        """See `Condition.scaled`: as the observation's coordinates that it is about."""
        at = list(layout.goal)
        return (raw - scales.mean[at]) / scales.std[at]

    def stays(self, past: Collection[str]) -> bool:
        """See `Condition.stays`. What hindsight chose for a past timestep may lie before the present one."""
        return False

    def missing(self, spec: DataSpec) -> str:
        return "" if spec.shown_goal else "shows a goal's place"
