"""Whether an effect measured here reproduces one that was measured elsewhere.

Both have an estimate and a 95 % interval; the margin is the smallest effect of interest. An effect
is *none* when it is within the margin of zero: ours by TOST at `alpha`; the earlier one when its
whole interval is (stricter than TOST, as its degrees of freedom are not known).

reproduces   both are none; or neither is, and both intervals exclude zero on the same side
refutes      neither is none, and both intervals exclude zero on opposite sides; or one is none and
             the other's interval lies wholly beyond the margin
open         anything else: an interval too wide to say, or an earlier effect without an interval

Without a margin nothing is none, and only the signs are compared.
"""

from __future__ import annotations

import math

from ablate.analyse.intervals import Estimate, equivalence_p, interval

REPRODUCES = "reproduces"
REFUTES = "refutes"
OPEN = "open"


def judge(
    ours: Estimate,
    effect: float,
    half_width: float,
    margin: float | None,
    alpha: float = 0.05,
) -> str:
    """`reproduces`, `refutes` or `open`, by the rule at the head of this file.

    effect, half_width: the earlier estimate and half of its 95 % interval (NaN where unknown), in
    the unit of `ours` if there is a margin; else any unit that keeps the sign.
    """
    if math.isnan(half_width):
        return OPEN
    mine = interval(ours, 1.0 - alpha)
    theirs = (effect - half_width, effect + half_width)
    if margin is not None:
        none = (
            equivalence_p(ours, margin) < alpha,
            -margin < theirs[0] and theirs[1] < margin,
        )
        if all(none):
            return REPRODUCES
        if any(none):
            other = theirs if none[0] else mine
            return REFUTES if _side(*other, margin) else OPEN
    sides = (_side(*mine, 0.0), _side(*theirs, 0.0))
    if 0 in sides:
        return OPEN
    return REPRODUCES if sides[0] == sides[1] else REFUTES


def _side(low: float, high: float, reach: float) -> int:
    """1 when (low, high) lies above `reach`, -1 when below -`reach`, else 0."""
    return int(low > reach) - int(high < -reach)
