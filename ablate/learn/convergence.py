"""Whether a training has converged, by its own learning curve."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence


def loss_fall(curve: Sequence[Mapping[str, float]], untrained: Mapping[str, float]) -> float:
    """The fall of the held-out loss over the last third of training, as a share of its whole fall.

    curve: rows with `update` and the held-out loss; untrained: what a row has before the first update. The loss at two
    thirds is interpolated between the curve's points; the whole fall is that from the untrained model to the last
    point, so that it doesn't depend on how many points there are. 0 where the loss didn't fall at the end, NaN where
    the curve can't say: fewer than three points, no held-out loss, or a loss that never fell. A schedule that ends at a
    small rate hides slow learning: read it at a constant rate.
    """
    # a joint model's loss weighs slots and masks some; what it learns is the density of a timestep
    loss = "heldout_loss" if any("heldout_loss" in row for row in curve) else "timestep_nll"
    points = [
        (row["update"], row[loss]) for row in curve if not math.isnan(row.get(loss, math.nan))
    ]
    if len(points) < 3:
        return math.nan
    first, last = untrained.get(loss, math.nan), points[-1][1]
    if not first > last:
        return math.nan
    at = points[-1][0] * 2.0 / 3.0
    for (a, before), (b, after) in itertools.pairwise(points):
        if a <= at <= b:
            then = before + (after - before) * (at - a) / (b - a)
            return max(0.0, (then - last) / (first - last))
    return math.nan
