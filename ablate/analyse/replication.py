"""How well the intervals of a study hold under other streams."""

from __future__ import annotations

import math

import pandas as pd

COLUMNS = ("streams", "hypothesis", "part", "estimate", "low", "high", "confidence", "verdict")


def coverage(found: pd.DataFrame) -> pd.DataFrame:
    """How often an interval of one replication covers the mean of the others, one row a hypothesis and part of it.

    found: columns as in `COLUMNS`, one row a replication, hypothesis and part (empty for a claim of one part). Columns
    hypothesis, part, replications, covered, estimate (the mean), between (the standard deviation of the estimates),
    half_width (the mean of the intervals'). An honest interval covers somewhat less often than its confidence, since
    the mean of the others is itself uncertain; with two replications or fewer nothing is covered.
    """
    rows = []
    named = found.assign(part=found["part"].fillna("").astype(str))
    for (name, part), group in named.groupby(["hypothesis", "part"], sort=False):
        estimates = group["estimate"].to_numpy(float)
        n = len(estimates)
        others = (estimates.sum() - estimates) / max(n - 1, 1)
        inside = (group["low"].to_numpy(float) <= others) & (
            others <= group["high"].to_numpy(float)
        )
        rows.append(
            {
                "hypothesis": name,
                "part": part,
                "replications": n,
                "covered": int(inside.sum()) if n > 2 else 0,
                "estimate": float(estimates.mean()),
                "between": float(estimates.std(ddof=1)) if n > 1 else math.nan,
                "half_width": float((group["high"] - group["low"]).mean() / 2.0),
            }
        )
    return pd.DataFrame(rows)
