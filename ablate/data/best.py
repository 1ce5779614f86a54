"""The best trajectories of a data set, for cloning only those (%BC), by both published definitions."""

from __future__ import annotations

import numpy as np

from ablate.data.trajectories import Trajectories
from ablate.errors import UserError, unknown

WAYS = ("timesteps", "episodes")


def best(trajectories: Trajectories, keep: float, keep_by: str = "timesteps") -> Trajectories:
    """The episodes of highest return that make up the share `keep`, in the order in which they were.

    keep_by "timesteps": the best episodes until their timesteps would exceed `keep` of all, at least one (Chen
    et al. 2021, section 5.1; kzl/decision-transformer `gym/experiment.py`). "episodes": the best `keep` of the
    episodes by count, rounded down, at least one (CORL `any_percent_bc.py`). Of equal returns the later episode
    goes first, as in both. With `keep` 1 the same trajectories come back. Raises UserError for a share outside
    (0, 1] or another way.
    """
    if not 0.0 < keep <= 1.0:
        raise UserError(f"train.keep: found {keep}; allowed: a share above 0, at most 1.")
    if keep_by not in WAYS:
        raise unknown("train.keep_by", keep_by, WAYS)
    if keep == 1.0:
        return trajectories
    order = np.argsort(trajectories.returns, kind="stable")[::-1]  # best first
    if keep_by == "episodes":
        count = int(keep * trajectories.num_episodes)
    else:
        wanted = int(keep * len(trajectories.rewards))
        count = int((np.cumsum(trajectories.lengths[order]) <= wanted).sum())
    return trajectories.select(np.sort(order[: max(1, count)]))
