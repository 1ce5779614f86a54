"""Intervals for linear combinations of cell means: Welch's t, Satterthwaite's degrees of freedom.

A cell is a set of independent replicates (seeds). A contrast is `sum_c w_c mean_c` over cells of
one or more strata (data sets); no variance is pooled between cells, so cells may differ in spread
and size:

    variance = sum_c w_c^2 s_c^2 / n_c
    df       = variance^2 / sum_c [ (w_c^2 s_c^2 / n_c)^2 / (n_c - 1) ]

Source: F. E. Satterthwaite, Biometrics Bulletin 2 (1946) 110-114; B. L. Welch, Biometrika 34
(1947) 28-35. Percentile and BCa bootstraps over so few seeds give false alarms at twice the
nominal rate; this doesn't.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Alternative = Literal["two-sided", "greater", "less"]

# A cell whose values differ by rounding only has no spread (and no information about it).
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A linear combination of cell means, in the metric's units.

    `df` is nan when no cell varies at all: then `variance` is 0, the interval is a point and p is
    0 or 1.
    """

    value: float
    variance: float
    df: float
    cells: int
    flat_cells: int

    @property
    def degenerate(self) -> bool:
        """True when no cell shows any spread, so that nothing is known about the error."""
        return self.variance == 0.0


def spread(values: Floats) -> float:
    """Unbiased variance of `values` (n >= 2,); exactly 0 when they differ by rounding only."""
    if np.ptp(values) <= _ROUNDING * float(np.max(np.abs(values))):
        return 0.0
    return float(np.var(values, ddof=1))


def combine(weights: Sequence[float] | Floats, cells: Sequence[Floats]) -> Estimate:
    """`sum_c weights[c] * mean(cells[c])` with its Welch-Satterthwaite variance and df.

    weights (C,); cells: C arrays (n_c,) of replicates. Cells of weight 0 are left out.
    Raises ValueError when a cell with weight has fewer than two replicates.
    """
    value = variance = denominator = 0.0
    used = flat = 0
    for weight, cell in zip(np.asarray(weights, dtype=float), cells, strict=True):
        if weight == 0.0:
            continue
        n = len(cell)
        if n < 2:
            raise ValueError(f"a cell needs at least two replicates to show its spread, found {n}")
        used += 1
        value += weight * float(np.mean(cell))
        part = weight**2 * spread(np.asarray(cell, dtype=float)) / n
        flat += part == 0.0
        variance += part
        denominator += part**2 / (n - 1)
    df = variance**2 / denominator if variance > 0.0 else math.nan
    return Estimate(value, variance, df, used, flat)


def interval(
    estimate: Estimate, confidence: float = 0.95, side: str = "two"
) -> tuple[float, float]:
    """Confidence interval (low, high) of the combination.

    side: "two"; "lower" (low, inf), a bound from below; "upper" (-inf, high).
    """
    tail = (1.0 - confidence) / 2.0 if side == "two" else 1.0 - confidence
    reach = 0.0
    if not estimate.degenerate:
        reach = float(stats.t.isf(tail, estimate.df)) * math.sqrt(estimate.variance)
    low = -math.inf if side == "upper" else estimate.value - reach
    high = math.inf if side == "lower" else estimate.value + reach
    return low, high


def p_value(estimate: Estimate, null: float = 0.0, alternative: Alternative = "two-sided") -> float:
    """p value of "the combination equals `null`" against `alternative`; 0 or 1 when degenerate."""
    distance = estimate.value - null
    if estimate.degenerate:
        slack = _ROUNDING * max(abs(estimate.value), abs(null), 1.0)
        true = {
            "two-sided": abs(distance) > slack,
            "greater": distance > slack,
            "less": distance < -slack,
        }[alternative]
        return 0.0 if true else 1.0
    t = distance / math.sqrt(estimate.variance)
    if alternative == "two-sided":
        return float(2.0 * stats.t.sf(abs(t), estimate.df))
    return float(stats.t.sf(t if alternative == "greater" else -t, estimate.df))


def equivalence_p(estimate: Estimate, margin: float, around: float = 0.0) -> float:
    """Two one-sided tests (TOST): p of "the combination is `margin` or more away from `around`".

    Source: D. J. Schuirmann, J. Pharmacokinetics and Biopharmaceutics 15 (1987) 657-680.
    Raises ValueError when the margin is not positive.
    """
    if not margin > 0.0:
        raise ValueError(f"a margin of equivalence is positive, found {margin}")
    above_low = p_value(estimate, around - margin, "greater")
    below_high = p_value(estimate, around + margin, "less")
    return max(above_low, below_high)
