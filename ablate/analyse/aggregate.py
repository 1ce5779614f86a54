"""Aggregates over data sets and seeds (IQM, median, mean, optimality gap) with stratified bootstraps.

Definitions as in R. Agarwal et al., "Deep reinforcement learning at the edge of the statistical
precipice", NeurIPS 2021: the interquartile mean of all runs, the median of the data sets' means, the
mean, and the optimality gap (by how much runs fall short of a target on average). Data sets count
equally also where they have unequal numbers of seeds.

Seeds are resampled within each data set, so intervals are of the fixed estimand: these data sets,
new seeds. Two intervals are given:

plain      the percentile interval that is in common use. With n seeds a resampled mean varies by
           (n - 1) / n too little, and normal quantiles stand in for Student's: too narrow.
corrected  the default. Deviations from the data set's mean are stretched by sqrt(n / (n - 1))
           before resampling, and the tails taken at Phi(-t) for Student's t with the
           Welch-Satterthwaite degrees of freedom of the mean. Source: T. C. Hesterberg, "What
           teachers should know about the bootstrap", The American Statistician 69 (2015) 371-386.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ablate.analyse.intervals import Floats, combine
from ablate.analyse.randomisation import generator

RESAMPLES = 50_000
TARGET = 100.0  # of the optimality gap: the expert's score in normalised points
STATISTICS = ("iqm", "median", "mean", "optimality gap")
_CHUNK = 2048  # resamples at a time, so that they stay in the processor's cache


@dataclass(frozen=True)
class Aggregate:
    """A statistic with its corrected and its plain bootstrap interval; nan where a data set has a
    single seed."""

    statistic: str
    value: float
    low: float
    high: float
    plain_low: float
    plain_high: float


def aggregates(
    scores: Sequence[Floats],
    statistics: Sequence[str] = STATISTICS,
    *,
    target: float = TARGET,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    name: str = "aggregates",
) -> list[Aggregate]:
    """Each statistic of `scores` (D arrays of seeds) with its intervals. `name` seeds the draws."""
    return _described([scores], [1.0], statistics, target, confidence, resamples, name)


def difference(
    first: Sequence[Floats],
    second: Sequence[Floats],
    statistics: Sequence[str] = STATISTICS,
    *,
    target: float = TARGET,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    name: str = "difference",
) -> list[Aggregate]:
    """Each statistic of `first` minus that of `second`, both resampled, with its intervals."""
    return _described([first, second], [1.0, -1.0], statistics, target, confidence, resamples, name)


def point(scores: Sequence[Floats], statistic: str, target: float = TARGET) -> float:
    """A statistic of `scores` (D arrays). Raises KeyError for an unknown name."""
    sizes = [len(values) for values in scores]
    pooled = np.concatenate([np.asarray(values, dtype=float) for values in scores])[None]
    return float(_statistic(statistic, pooled, sizes, target)[0])


def bootstrap(
    scores: Sequence[Floats],
    statistic: str = "iqm",
    *,
    target: float = TARGET,
    resamples: int = RESAMPLES,
    name: str = "bootstrap",
    stretch: bool = False,
) -> Floats:
    """(resamples,) values of the statistic, seeds drawn with replacement within each data set.

    stretch: deviations from the data sets' means times sqrt(n / (n - 1)) first.
    """
    used = stretched(scores) if stretch else scores
    sizes = [len(values) for values in used]
    parts = [
        _statistic(statistic, drawn, sizes, target)
        for drawn in _resamples(used, resamples, generator(name))
    ]
    return np.concatenate(parts)


def stretched(scores: Sequence[Floats]) -> list[Floats]:
    """The scores with the deviations from each data set's mean times sqrt(n / (n - 1))."""
    out = []
    for values in scores:
        n, centre = len(values), float(np.mean(values))
        out.append(centre + (np.asarray(values) - centre) * math.sqrt(n / (n - 1)))
    return out


def corrected_tails(df: float, confidence: float) -> tuple[float, float]:
    """The two quantile levels at which a bootstrap has the reach of Student's t with `df`."""
    tail = float(stats.norm.cdf(stats.t.ppf((1.0 - confidence) / 2.0, df)))
    return tail, 1.0 - tail


def _described(
    arms: Sequence[Sequence[Floats]],
    signs: Sequence[float],
    statistics: Sequence[str],
    target: float,
    confidence: float,
    resamples: int,
    name: str,
) -> list[Aggregate]:
    """Signed sums over arms of each statistic, with intervals from independent resamples."""
    values = [
        sum(sign * point(arm, one, target) for sign, arm in zip(signs, arms, strict=True))
        for one in statistics
    ]
    cells = [cell for arm in arms for cell in arm]
    if any(len(cell) < 2 for cell in cells):
        gap = math.nan
        return [
            Aggregate(one, value, gap, gap, gap, gap)
            for one, value in zip(statistics, values, strict=True)
        ]
    df = combine([1.0 / len(arm) for arm in arms for _ in arm], cells).df
    tail = (1.0 - confidence) / 2.0
    tails = (tail, 1.0 - tail) if math.isnan(df) else corrected_tails(df, confidence)
    bounds = []
    for stretch, levels in ((True, tails), (False, (tail, 1.0 - tail))):
        drawn = np.zeros((len(statistics), resamples))
        for which, (sign, arm) in enumerate(zip(signs, arms, strict=True)):
            used = stretched(arm) if stretch else arm
            sizes = [len(cell) for cell in used]
            start = 0
            for chunk in _resamples(used, resamples, generator(f"{name}/{which}")):
                stop = start + len(chunk)
                for row, one in enumerate(statistics):
                    drawn[row, start:stop] += sign * _statistic(one, chunk, sizes, target)
                start = stop
        bounds.append(np.quantile(drawn, levels, axis=1))  # (2, statistics)
    corrected, plain = bounds
    return [
        Aggregate(
            one,
            value,
            float(corrected[0, i]),
            float(corrected[1, i]),
            float(plain[0, i]),
            float(plain[1, i]),
        )
        for i, (one, value) in enumerate(zip(statistics, values, strict=True))
    ]


def _resamples(
    scores: Sequence[Floats], resamples: int, rng: np.random.Generator
) -> Iterator[Floats]:
    """Chunks (r, N) of resamples; a row holds the data sets one after the other, in order."""
    sizes = np.array([len(values) for values in scores])
    pooled = np.concatenate([np.asarray(values, dtype=float) for values in scores])  # (N,)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    equal = bool((sizes == sizes[0]).all())
    # Single random bytes are drawn several times faster.
    kind: type[np.integer[Any]] = np.uint8 if len(pooled) <= 256 else np.int64
    for begin in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - begin)
        if equal:
            shape = (count, len(sizes), int(sizes[0]))
            seed: NDArray[Any] = rng.integers(0, int(sizes[0]), size=shape, dtype=kind)
            index = (seed + starts.astype(kind)[:, None]).reshape(count, len(pooled))
        else:
            drawn = [
                start + rng.integers(0, size, size=(count, size))
                for start, size in zip(starts, sizes, strict=True)
            ]
            index = np.concatenate(drawn, axis=1)
        yield pooled.take(index)


def _statistic(name: str, pooled: Floats, sizes: Sequence[int], target: float) -> Floats:
    """(R,) values of the statistic for rows (R, N) that hold the data sets one after the other."""
    if name == "iqm":
        return _iqm(pooled, sizes)
    if name == "optimality gap":
        return target - _means(np.minimum(pooled, target), sizes).mean(axis=1)
    means = _means(pooled, sizes)
    found: dict[str, Floats] = {"mean": means.mean(axis=1), "median": np.median(means, axis=1)}
    return found[name]


def _means(pooled: Floats, sizes: Sequence[int]) -> Floats:
    """(R, D) means of the data sets."""
    if len(set(sizes)) == 1:
        shaped: Floats = pooled.reshape(len(pooled), len(sizes), sizes[0]).mean(axis=2)
        return shaped
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    sums: Floats = np.add.reduceat(pooled, starts, axis=1) / np.asarray(sizes, dtype=float)
    return sums


def _iqm(pooled: Floats, sizes: Sequence[int]) -> Floats:
    """Mean of the middle half of all runs, (R,).

    With equal numbers of seeds the lowest and the highest int(N / 4) runs are cut, as
    `scipy.stats.trim_mean` does. With unequal ones every run weighs 1 / n of its data set, and a
    quarter of the weight is cut at each end, a run at the edge in part.
    """
    total = pooled.shape[1]
    if len(set(sizes)) == 1:
        cut = total // 4
        ordered = np.sort(pooled, axis=1)
        middle: Floats = ordered[:, cut : total - cut].mean(axis=1)
        return middle
    weight = np.concatenate([np.full(n, 1.0 / (n * len(sizes))) for n in sizes])
    order = np.argsort(pooled, axis=1, kind="stable")
    edges = np.cumsum(weight[order], axis=1)
    kept = np.diff(np.clip(edges, 0.25, 0.75), axis=1, prepend=0.25)
    trimmed: Floats = (np.take_along_axis(pooled, order, axis=1) * kept).sum(axis=1) / 0.5
    return trimmed
