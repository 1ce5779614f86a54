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

import pandas as pd

from ablate.analyse.intervals import Estimate, equivalence_p, interval

REPRODUCES = "reproduces"
REFUTES = "refutes"
OPEN = "open"


COLUMNS = ("streams", "hypothesis", "estimate", "low", "high", "confidence", "verdict")


def coverage(found: pd.DataFrame) -> pd.DataFrame:
    """How often an interval of one replication covers the mean of the others, one row a hypothesis.

    found: columns as in `COLUMNS`, one row a replication and hypothesis. Columns hypothesis, replications,
    covered, estimate (the mean), between (the standard deviation of the estimates), half_width (the mean of
    the intervals'). An honest interval covers somewhat less often than its confidence, since the mean of the
    others is itself uncertain; with two replications or fewer nothing is covered.
    """
    rows = []
    for name, group in found.groupby("hypothesis", sort=False):
        estimates = group["estimate"].to_numpy(float)
        n = len(estimates)
        others = (estimates.sum() - estimates) / max(n - 1, 1)
        inside = (group["low"].to_numpy(float) <= others) & (
            others <= group["high"].to_numpy(float)
        )
        rows.append(
            {
                "hypothesis": name,
                "replications": n,
                "covered": int(inside.sum()) if n > 2 else 0,
                "estimate": float(estimates.mean()),
                "between": float(estimates.std(ddof=1)) if n > 1 else math.nan,
                "half_width": float((group["high"] - group["low"]).mean() / 2.0),
            }
        )
    return pd.DataFrame(rows)


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
