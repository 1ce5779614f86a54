"""A condition of one's own: the policy is told the rewards that its episode has brought so far.

python -m ablate run examples/so_far.yaml
"""

import numpy as np

from ablate.models.conditions import Condition
from ablate.registry import register


@register("condition", "so-far", label="return so far")
class SoFar(Condition):
    """The sum of the episode's rewards before the present timestep."""

    def logged(self, trajectories, layout):
        """(T, 1): what is told at each timestep of logged trajectories."""
        before = np.cumsum(trajectories.rewards, dtype=np.float64) - trajectories.rewards
        at_start = before[trajectories.episode_starts[:-1]]
        return (before - np.repeat(at_start, trajectories.lengths))[:, None]

    def shown(self, moment, before):
        """(S, E, 1): what is told while S models act in E episodes; `before` is what was told last."""
        return moment.reward[..., None] + (0.0 if before is None else before)

    def scaled(self, raw, scales, layout):
        """What a model reads of both, about 1 in size."""
        return raw / scales.return_to_go
