"""Trends over an ordered factor: Jonckheere-Terpstra's test and isotonic regression.

A block holds the arms of the ordered factor at one data set and one combination of the other
factors, in the order in which the claim says they rise. Only runs of one block are compared.

Jonckheere-Terpstra counts, over all pairs of arms and of runs in them, how often the later arm's run
is the larger (a tie counts half), and sums the blocks. The test permutes the labels within blocks. The count is
studentised by the runs' placements (each run's own part of the count; its variance within each arm),
so that arms which differ in spread or size alone raise no false alarm in large samples, while the
test stays exact when labels don't matter at all.

Source: A. R. Jonckheere, Biometrika 41 (1954) 133-145; K. Neubert and E. Brunner, Computational
Statistics & Data Analysis 51 (2007) 5192-5204 (studentised placements).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ablate.analyse.intervals import Floats, combine
from ablate.analyse.randomisation import (
    DRAWS,
    Block,
    Randomisation,
    arrangements,
    count_arrangements,
    studentise,
    tally,
)

RESAMPLES = 4000
_CHUNK = 4_000_000  # floats of an intermediate array


@dataclass(frozen=True)
class Isotonic:
    """Mean by level (K,), the nearest rising curve `fit` (K,) and its band `low`, `high` (K,)."""

    levels: tuple[str, ...]
    means: tuple[float, ...]
    fit: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def rising(block: Block) -> tuple[Floats, ...]:
    """The arms of a block in the order of their weights: a trend's weights rise with its order."""
    return tuple(block.arms[i] for i in np.argsort(block.weights, kind="stable"))


def jonckheere_test(
    blocks: Sequence[Block], rng: np.random.Generator, draws: int = DRAWS
) -> Randomisation:
    """Stratified permutation test against a rise along the weights of the blocks.

    Every arm has two values or more, else ValueError. `greater` is the p value of "it rises".
    """
    if any(len(arm) < 2 for block in blocks for arm in block.arms):
        raise ValueError("every arm of a trend test needs at least two replicates")
    ordered = [rising(block) for block in blocks]
    sizes = [tuple(len(arm) for arm in arms) for arms in ordered]
    total = math.prod(count_arrangements(s) for s in sizes)
    exact = total <= draws
    observed, observed_variance = 0.0, 0.0
    numerator, variance = np.zeros(1), np.zeros(1)
    for arms, size in zip(ordered, sizes, strict=True):
        pooled = np.concatenate(arms)  # (n,)
        sign = np.sign(pooled[None, :] - pooled[:, None]) / 2.0  # (n, n): y above x
        label = np.repeat(np.arange(len(size)), size)
        own = _counts(sign, label[None], len(size))
        observed, observed_variance = observed + own[0][0], observed_variance + own[1][0]
        if exact:
            order = np.array(list(arrangements(tuple(range(len(pooled))), size)))
            labels = np.empty_like(order)
            np.put_along_axis(labels, order, np.broadcast_to(label, order.shape), axis=1)
            part, spread = _counts(sign, labels, len(size))
            numerator = (numerator[:, None] + part).ravel()
            variance = (variance[:, None] + spread).ravel()
        else:
            labels = rng.permuted(np.broadcast_to(label, (draws, len(label))), axis=1)
            part, spread = _counts(sign, labels, len(size))
            numerator, variance = numerator + part, variance + spread
    value = float(studentise(np.array([observed]), np.array([observed_variance]))[0])
    name = "stratified Jonckheere-Terpstra permutation"
    return tally(name, value, studentise(numerator, variance), exact, 1 / total)


def isotonic(
    blocks: Sequence[Block],
    levels: Sequence[str],
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    together: bool = False,
) -> Isotonic:
    """The rising curve nearest to the levels' means, with a pointwise bootstrap band.

    The mean of a level weighs blocks as the contrast does. together: the runs of all arms are of the same
    seeds, in one order, and seeds are resampled; else runs are, within cells. They are resampled about
    their means, drawn out by sqrt(n / (n - 1)) and by the ratio of Student's quantile (degrees of
    freedom after Satterthwaite) to the normal one, since a handful of runs understates its own
    spread. Simulated at 95 % (1 or 4 data sets, 5 seeds, normal noise) it covers each level in .93
    to .98 of cases, but the two ends of a curve that is flat throughout in .90 only: a rising fit
    leans outwards there. It describes; the test decides.
    """
    weight = np.array([float(np.abs(block.weights).sum()) for block in blocks])
    share = weight / weight.sum()  # (blocks,)
    ordered = [rising(block) for block in blocks]
    count = len(levels)
    means, drawn = np.empty(count), np.zeros((resamples, count))
    quantile = (1.0 + confidence) / 2.0
    sizes = [[len(arm) for arm in arms] for arms in ordered]
    seeds = rng.integers(0, sizes[0][0], (resamples, sizes[0][0]))
    for k in range(count):
        cells = [arms[k] for arms in ordered]
        units = [np.arange(len(cell)) for cell in cells] if together else None
        estimate = combine(share, cells, units)
        means[k] = estimate.value
        drawn[:, k] = estimate.value
        if estimate.degenerate:
            continue
        reach = float(stats.t.ppf(quantile, estimate.df) / stats.norm.ppf(quantile))
        for part, cell in zip(share, cells, strict=True):
            n = len(cell)
            picks = seeds if together else rng.integers(0, n, (resamples, n))
            noise = (cell - cell.mean())[picks].mean(axis=1)
            drawn[:, k] += part * reach * math.sqrt(n / (n - 1)) * noise
    tails = [50.0 * (1.0 - confidence), 50.0 * (1.0 + confidence)]
    low, high = np.percentile(nearest_rise(drawn), tails, axis=0)
    fit = nearest_rise(means[None])[0]
    return Isotonic(
        tuple(levels),
        tuple(means.tolist()),
        tuple(fit.tolist()),
        tuple(np.minimum(low, fit).tolist()),
        tuple(np.maximum(high, fit).tolist()),
    )


def _counts(sign: Floats, labels: np.ndarray, arms: int) -> tuple[Floats, Floats]:
    """Centred counts and their placement variances, (R,) each, for labels (R, n) of one block.

    sign (n, n): half the sign of y - x.
    """
    step = max(1, _CHUNK // (sign.shape[0] * arms))
    parts = [_counts_of(sign, labels[i : i + step], arms) for i in range(0, len(labels), step)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _counts_of(sign: Floats, labels: np.ndarray, arms: int) -> tuple[Floats, Floats]:
    hot = (labels[..., None] == np.arange(arms)).astype(float)  # (R, n, K)
    against = sign @ hot  # (R, n, K): how far each run is below the runs of every arm
    direction = np.sign(np.arange(arms)[None, :] - np.arange(arms)[:, None]).astype(float)
    placement = (direction[labels] * against).sum(axis=-1)  # (R, n)
    sums = (placement[:, None, :] @ hot)[:, 0]  # (R, K)
    size = hot.sum(axis=1)  # (R, K)
    squares = (np.square(placement)[:, None, :] @ hot)[:, 0] - np.square(sums) / size
    variance = (size * np.maximum(squares, 0.0) / (size - 1.0)).sum(axis=1)
    return placement.sum(axis=1) / 2.0, variance


def nearest_rise(values: Floats) -> Floats:
    """Least-squares rising curve through each row of `values` (R, K): min over ends of max over
    starts of the means between them."""
    count = values.shape[1]
    sums = np.concatenate([np.zeros((len(values), 1)), values.cumsum(axis=1)], axis=1)
    result = np.empty_like(values)
    for i in range(count):
        best = np.full(len(values), -np.inf)
        for start in range(i + 1):
            ends = np.arange(i + 1, count + 1)
            runs = (sums[:, ends] - sums[:, [start]]) / (ends - start)
            best = np.maximum(best, runs.min(axis=1))
        result[:, i] = best
    return result
