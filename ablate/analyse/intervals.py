"""Intervals for linear combinations of cell means, with and without pairing.

A cell is a set of replicates (seeds). A contrast is `sum_c w_c mean_c` over cells of one or more
strata (data sets). What cells share decides its variance:

* Nothing: no variance is pooled between cells, so they may differ in spread and size (Welch):

      variance = sum_c w_c^2 s_c^2 / n_c
      df       = variance^2 / sum_c [ (w_c^2 s_c^2 / n_c)^2 / (n_c - 1) ]

* Units, such as seeds that stand in several cells: what a unit does to its cells adds up in the contrast
  before it is squared. With r_cu the deviation of unit u from its cell's mean,

      variance = sum_u ( sum_c w_c r_cu / sqrt(n_c (n_c - 1)) )^2

  Where every unit is in every cell this is Student's paired t (the units' own contrasts, n - 1 degrees
  of freedom); where no two cells share one it is Welch's. Cells that share units, directly or through
  others, form a group; groups are independent and are combined by Satterthwaite's formula. Within a
  group with unequal n_c the degrees of freedom are the harmonic mean of n_c - 1, weighted by the cells'
  own variances. (Simulated at 5 %, five seeds whose episodes move contexts apart by 5.7 points, two data
  sets: false alarms .045 with 5 % of the trials missing at random, .019 with 15 %.)

Source: F. E. Satterthwaite, Biometrics Bulletin 2 (1946) 110-114; B. L. Welch, Biometrika 34
(1947) 28-35; K.-Y. Liang and S. L. Zeger, Biometrika 73 (1986) 13-22 (sums over units). Percentile and
BCa bootstraps over so few seeds give false alarms at twice the nominal rate; this doesn't.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special
from scipy.sparse import csgraph

Floats = NDArray[np.float64]
Units = NDArray[Any]
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


def combine(
    weights: Sequence[float] | Floats,
    cells: Sequence[Floats],
    units: Sequence[Units] | None = None,
) -> Estimate:
    """`sum_c weights[c] * mean(cells[c])` with its variance and degrees of freedom.

    weights (C,); cells: C arrays (n_c,) of replicates. Cells of weight 0 are left out. units: C arrays
    (n_c,) of labels; replicates of one label belong together, whichever cells they are in. None: no two
    do. Raises ValueError when a cell with weight has fewer than two replicates.
    """
    weights = np.asarray(weights, dtype=float)
    used = np.flatnonzero(weights).tolist()
    if not used:
        return Estimate(0.0, 0.0, math.nan, 0, 0)
    weights, sizes = weights[used], np.array([len(cells[c]) for c in used])
    if sizes.min() < 2:
        raise ValueError(
            f"a cell needs at least two replicates to show its spread, found {sizes.min()}"
        )
    # All cells as one array: what is asked of each is asked of all at once.
    values = np.concatenate([cells[c] for c in used], dtype=float)
    starts = np.cumsum(sizes) - sizes
    means = np.add.reduceat(values, starts) / sizes
    away = values - np.repeat(means, sizes)
    largest = np.maximum.reduceat(np.abs(values), starts)
    between = np.maximum.reduceat(values, starts) - np.minimum.reduceat(values, starts)
    flat = between <= _ROUNDING * largest  # differ by rounding only
    spreads = np.where(flat, 0.0, np.add.reduceat(np.square(away), starts) / (sizes - 1.0))
    own = np.square(weights) * spreads / sizes
    value = float((weights * means).sum())
    parts, df = own, sizes - 1.0
    if units is not None:
        scale = np.where(flat, 0.0, weights / np.sqrt(sizes * (sizes - 1.0)))
        labels = np.concatenate([units[c] for c in used])
        size = float((np.abs(weights) * largest).sum())
        parts, df = _groups(np.repeat(scale, sizes) * away, labels, sizes, own, size)
    variance = float(parts.sum())
    if variance == 0.0:
        return Estimate(value, 0.0, math.nan, len(used), int(flat.sum()))
    total = variance**2 / float((np.square(parts) / df).sum())
    return Estimate(value, variance, total, len(used), int(flat.sum()))


def _groups(
    shares: Floats, units: Units, sizes: NDArray[np.int64], own: Floats, size: float
) -> tuple[Floats, Floats]:
    """Variance and degrees of freedom, (G,) each, of the groups of cells that share units.

    shares: each replicate's part of the error (R,), cell after cell of `sizes` (C,); units: (R,). own: the
    variance of each cell by itself (C,). size: of the sum, beside which rounding is judged.
    """
    labels, places = np.unique(units, return_inverse=True)
    cell = np.repeat(np.arange(len(sizes)), sizes)
    errors = np.zeros((len(sizes), len(labels)))
    there = np.zeros(errors.shape, dtype=bool)
    errors[cell, places], there[cell, places] = shares, True
    variances, dfs = [], []
    for members in _connected(there):
        mine, freedom = own[members], sizes[members] - 1.0
        # The weighted harmonic mean of n - 1; without any spread the group adds nothing.
        df = mine.sum() / (mine / freedom).sum() if mine.any() else freedom.min()
        found = float(np.square(errors[members].sum(axis=0)).sum())
        variances.append(0.0 if found <= (_ROUNDING * size) ** 2 else found)
        dfs.append(float(df))
    return np.array(variances), np.array(dfs)


def _connected(there: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """Cells (C,) that share units, directly or through others, in groups; there (C, U)."""
    if there.all():
        return [np.arange(len(there))]
    both = there.astype(float) @ there.T.astype(float) > 0.0
    _, label = csgraph.connected_components(both, directed=False)
    return [np.flatnonzero(label == g) for g in np.unique(label)]


def reach(estimate: Estimate, confidence: float) -> float:
    """Half the width of the two-sided confidence interval."""
    if estimate.degenerate:
        return 0.0
    quantile = -float(special.stdtrit(estimate.df, (1.0 - confidence) / 2.0))
    return quantile * math.sqrt(estimate.variance)


def interval(
    estimate: Estimate, confidence: float = 0.95, side: str = "two"
) -> tuple[float, float]:
    """Confidence interval (low, high) of the combination.

    side: "two"; "lower" (low, inf), a bound from below; "upper" (-inf, high).
    """
    half = reach(estimate, confidence if side == "two" else 2.0 * confidence - 1.0)
    low = -math.inf if side == "upper" else estimate.value - half
    high = math.inf if side == "lower" else estimate.value + half
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
        return 2.0 * float(special.stdtr(estimate.df, -abs(t)))
    return float(special.stdtr(estimate.df, -t if alternative == "greater" else t))


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


def wider(first: Estimate, second: Estimate | None, confidence: float) -> Estimate:
    """The first value with the variance and degrees of freedom that give the wider interval."""
    if second is None or reach(second, confidence) <= reach(first, confidence):
        return first
    return replace(second, value=first.value)


def ratio_interval(
    remainder: Callable[[float], Estimate], ratio: float, confidence: float
) -> tuple[float, float]:
    """Fieller's interval of a / b around `ratio`: those r for which "a - r b is 0" isn't rejected.

    remainder: a - r b at r. Bounded exactly when b itself is not 0 at this confidence, which the caller has
    asked. Source: E. C. Fieller, J. Royal Statistical Society B 16 (1954) 175-185.
    """
    alpha = 1.0 - confidence

    def excess(r: float) -> float:  # positive where r is rejected
        return alpha - p_value(remainder(r)) if r != ratio else alpha - 1.0

    ends = []
    for sign in (-1.0, 1.0):
        step = 0.5 * max(abs(ratio), 1e-3)
        while excess(ratio + sign * step) < 0.0:
            step *= 2.0
        ends.append(float(optimize.brentq(lambda d, s=sign: excess(ratio + s * d), 0.0, step)))
    return ratio - ends[0], ratio + ends[1]
