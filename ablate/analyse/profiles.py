"""Score distributions (performance profiles) and the probability of improvement.

A profile is the share of runs that score more than tau, averaged over data sets; its band is
pointwise, from seeds resampled within data sets with tails as in `ablate.analyse.aggregate`. Source:
R. Agarwal et al., NeurIPS 2021; E. D. Dolan and J. J. More, Mathematical Programming 91 (2002)
201-213.

The probability of improvement is that a run of one variant beats a run of the other on the same data
set (ties count half), averaged over data sets. It is a mean of the runs' placements (the share of
the other variant's runs that one beats), so its interval is a Welch-Satterthwaite one of those.
Source: E. Brunner and U. Munzel, Biometrical Journal 42 (2000) 17-25; with one data set it is
statsmodels' `rank_compare_2indep`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ablate.analyse.aggregate import corrected_tails
from ablate.analyse.intervals import Estimate, Floats, combine, interval
from ablate.analyse.randomisation import generator

RESAMPLES = 2000
_MOST_DRAWN = 1000  # seeds of a data set that are drawn one by one


@dataclass(frozen=True)
class Profile:
    """share (T,) of runs above each tau (T,), with its pointwise band low, high (T,)."""

    tau: Floats
    share: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Improvement:
    """P(first > second), ties half, over data sets; `by_data_set` (D,) are its parts."""

    value: float
    low: float
    high: float
    estimate: Estimate
    by_data_set: Floats


def profile(
    scores: Sequence[Floats],
    tau: Floats,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    name: str = "profile",
    banded: bool = True,
) -> Profile:
    """The profile of `scores` (D arrays of seeds) at `tau` (T,).

    The band is nan where a data set has a single seed, and where none is asked for, which is much faster.
    """
    tau = np.asarray(tau, dtype=float)
    above = [np.asarray(values)[:, None] > tau for values in scores]  # D times (n_d, T)
    share = np.mean([part.mean(axis=0) for part in above], axis=0)
    if not banded or any(len(values) < 2 for values in scores):
        nothing = np.full(len(tau), math.nan)
        return Profile(tau, share, nothing, nothing)
    df = combine(np.full(len(scores), 1.0 / len(scores)), scores).df
    tail = (1.0 - confidence) / 2.0
    tails = (tail, 1.0 - tail) if math.isnan(df) else corrected_tails(df, confidence)
    rng = generator(name)
    drawn = np.zeros((resamples, len(tau)))
    for part in above:
        n = len(part)
        if n > _MOST_DRAWN:  # the band is pointwise: how many of n draws lie above is binomial
            drawn += rng.binomial(n, part.mean(axis=0), (resamples, len(tau))) / (n * len(above))
            continue
        counts = rng.multinomial(n, np.full(n, 1.0 / n), size=resamples)  # how often each seed came
        drawn += counts @ part.astype(float) / (n * len(above))
    # A share's spread is that of its resamples times sqrt(n / (n - 1)), as for every mean.
    widen = math.sqrt(np.mean([len(part) / (len(part) - 1) for part in above]))
    low, high = np.quantile(share + (drawn - share) * widen, tails, axis=0)
    return Profile(tau, share, np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0))


def grid(variants: Sequence[Sequence[Floats]], count: int = 101) -> Floats:
    """`count` even steps of tau from below the lowest to the highest score of all variants."""
    pooled = np.concatenate([values for scores in variants for values in scores])
    low, high = float(pooled.min()), float(pooled.max())
    reach = max(high - low, 1e-9)
    return np.linspace(low - 0.02 * reach, high, count)


def _placements(runs: Floats, others: Floats) -> Floats:
    """(n,) the share of `others` (m,) that each of `runs` (n,) beats, ties half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, runs, "left") + np.searchsorted(ordered, runs, "right")
    placed: Floats = below / (2.0 * len(ordered))
    return placed


def improvement(
    first: Sequence[Floats], second: Sequence[Floats], confidence: float = 0.95
) -> Improvement:
    """Probability that a run of `first` beats one of `second` (D arrays each, in the same order).

    The interval is nan where a data set has a single seed, and where no placement varies (all runs
    of one beat all of the other), which shows no spread to judge the error by. Raises ValueError
    when the numbers of data sets differ.
    """
    cells: list[Floats] = []
    parts = []
    for x, y in zip(first, second, strict=True):
        ahead, behind = _placements(x, y), _placements(y, x)
        parts.append(float(ahead.mean()))
        # The second arm's placements are centred: they add their spread and nothing to the mean.
        cells += [ahead, behind - (1.0 - parts[-1])]
    value = float(np.mean(parts))
    if any(len(cell) < 2 for cell in cells):
        nothing = Estimate(value, math.nan, math.nan, len(cells), 0)
        return Improvement(value, math.nan, math.nan, nothing, np.array(parts))
    estimate = combine(np.full(len(cells), 1.0 / len(parts)), cells)
    if estimate.degenerate:  # e.g. every run of one beats every run of the other, everywhere
        return Improvement(value, math.nan, math.nan, estimate, np.array(parts))
    low, high = interval(estimate, confidence)
    return Improvement(value, max(low, 0.0), min(high, 1.0), estimate, np.array(parts))
