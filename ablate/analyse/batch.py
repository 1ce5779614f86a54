"""The procedures of a verdict on many repetitions at once: what power and calibration simulate.

Each function does to R simulated experiments, as arrays with a leading axis R, what its namesake in
`intervals` or `randomisation` does to one. A set of shufflings serves many repetitions, which is what makes
it fast and changes no single p value's law; but not all of them, as its own chance would then move
all p values the same way.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ablate.analyse.intervals import Alternative, Floats

_TIE = 1e-9
_TOGETHER = 25  # repetitions that share their shufflings
_FLAT = 1e-20  # a variance this small, relative to the square of the value, is rounding
_ROUNDED = 1e-13  # the same where squares are differences of sums


@dataclass(frozen=True)
class Estimates:
    """R combinations of cell means: value, variance, df, (R,) each; df is nan without variance."""

    value: Floats
    variance: Floats
    df: Floats

    def shifted(self, by: float) -> Estimates:
        """The same with every value moved by `by`, as a constant effect does."""
        return Estimates(self.value + by, self.variance, self.df)


@dataclass(frozen=True)
class PValues:
    """p by alternative, (R,) each."""

    greater: Floats
    less: Floats
    two_sided: Floats


@dataclass(frozen=True)
class Arms:
    """A block of a permutation test: weights (A,), arms: A arrays (R, n_a)."""

    weights: Floats
    arms: tuple[Floats, ...]

    @property
    def sizes(self) -> list[int]:
        """Replicates of every arm."""
        return [arm.shape[1] for arm in self.arms]


def combine(weights: Sequence[float] | Floats, cells: Sequence[Floats]) -> Estimates:
    """`sum_c weights[c] * mean(cells[c])` with Welch-Satterthwaite df; cells: C arrays (R, n_c)."""
    means = [cell.mean(axis=1) for cell in cells]
    variances = [cell.var(axis=1, ddof=1) for cell in cells]
    return combine_moments(weights, means, variances, [cell.shape[1] for cell in cells])


def combine_moments(
    weights: Sequence[float] | Floats,
    means: Sequence[Floats],
    variances: Sequence[Floats],
    sizes: Sequence[int],
) -> Estimates:
    """As `combine`, from each cell's mean (R,), unbiased variance (R,) and number of replicates."""
    value = np.zeros_like(means[0])
    variance, denominator = np.zeros_like(value), np.zeros_like(value)
    for weight, mean, square, n in zip(weights, means, variances, sizes, strict=True):
        part = weight**2 * square / n
        value = value + weight * mean
        variance = variance + part
        denominator = denominator + part**2 / (n - 1)
    flat = variance <= _FLAT * np.square(value)
    variance = np.where(flat, 0.0, variance)
    df = np.where(flat, np.nan, variance**2 / np.where(flat, 1.0, denominator))
    return Estimates(value, variance, df)


def p_value(
    estimates: Estimates, null: float = 0.0, alternative: Alternative = "two-sided"
) -> Floats:
    """p values (R,) of "the combination equals `null`"; 0 or 1 without variance."""
    distance = estimates.value - null
    flat = estimates.variance == 0.0
    t = distance / np.sqrt(np.where(flat, 1.0, estimates.variance))
    if alternative == "two-sided":
        t, true = np.abs(t), np.abs(distance) > 1e-12
    elif alternative == "less":
        t, true = -t, distance < -1e-12
    else:
        true = distance > 1e-12
    tail: Floats = special.stdtr(np.where(flat, 1.0, estimates.df), -t)
    if alternative == "two-sided":
        tail = 2.0 * tail
    return np.where(flat, np.where(true, 0.0, 1.0), tail)


def equivalence_p(estimates: Estimates, margin: float, around: float = 0.0) -> Floats:
    """TOST: p values (R,) of "the combination is `margin` or more away from `around`"."""
    return np.maximum(
        p_value(estimates, around - margin, "greater"), p_value(estimates, around + margin, "less")
    )


def wider(first: Estimates, second: Estimates, confidence: float) -> Estimates:
    """`intervals.wider`, R times."""

    def reach(one: Estimates) -> Floats:
        quantile = special.stdtrit(np.nan_to_num(one.df, nan=1.0), (1.0 + confidence) / 2.0)
        found: Floats = quantile * np.sqrt(one.variance)
        return found

    take = reach(second) > reach(first)
    return Estimates(
        first.value,
        np.where(take, second.variance, first.variance),
        np.where(take, second.df, first.df),
    )


def permutation(blocks: Sequence[Arms], rng: np.random.Generator, draws: int) -> PValues:
    """The stratified, studentised permutation test of `randomisation.permutation`, R times.

    All arrangements when there are at most `draws`, else `draws` random ones and
    p = (b + 1) / (draws + 1).
    """
    total = arrangements([block.sizes for block in blocks])
    repetitions = blocks[0].arms[0].shape[0]
    if total <= draws:
        listed = [_listed(block.sizes) for block in blocks]  # (arrangements, n) each
        picks = np.array(list(itertools.product(*(range(len(one)) for one in listed))))
        labels = [one[picks[:, i]] for i, one in enumerate(listed)]  # (total, n) each
        return _shuffled(blocks, labels, exact=True)
    parts = []
    for start in range(0, repetitions, _TOGETHER):
        some = [
            Arms(block.weights, tuple(arm[start : start + _TOGETHER] for arm in block.arms))
            for block in blocks
        ]
        labels = [_drawn(block.sizes, rng, draws) for block in blocks]
        parts.append(_shuffled(some, labels, exact=False))
    return _joined(parts)


def _joined(parts: Sequence[PValues]) -> PValues:
    return PValues(
        np.concatenate([part.greater for part in parts]),
        np.concatenate([part.less for part in parts]),
        np.concatenate([part.two_sided for part in parts]),
    )


def _shuffled(blocks: Sequence[Arms], labels: Sequence[np.ndarray], exact: bool) -> PValues:
    """The permutation test over given labels (L, n) of every block."""
    repetitions = blocks[0].arms[0].shape[0]
    null = np.zeros((repetitions, len(labels[0])))
    spread = np.zeros_like(null)
    value, variance = np.zeros(repetitions), np.zeros(repetitions)
    for block, label in zip(blocks, labels, strict=True):
        x = np.concatenate(block.arms, axis=1)  # (R, n)
        x = x - x.mean(axis=1, keepdims=True)
        own = np.repeat(np.arange(len(block.arms)), block.sizes)[None]
        mean, square = _moments(x, own, block)
        value, variance = value + mean[:, 0], variance + square[:, 0]
        mean, square = _moments(x, label, block)
        null += mean
        spread += square
    scale = max(float(np.square(value).max(initial=0.0)), float(np.square(null).max()), 1e-300)
    return _tally(_studentise(value, variance, scale), _studentise(null, spread, scale), exact)


def sign_flip(terms: Floats, rng: np.random.Generator, draws: int) -> PValues:
    """The sign-flip test of `randomisation.sign_flip` on the rows of `terms` (R, n)."""
    n = terms.shape[1]
    if 2.0**n <= draws:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
        return _tally(terms.sum(axis=1), terms @ signs.T, exact=True)
    parts = []
    for start in range(0, len(terms), _TOGETHER):
        signs = rng.integers(0, 2, size=(draws, n)) * 2.0 - 1.0
        some = terms[start : start + _TOGETHER]
        parts.append(_tally(some.sum(axis=1), some @ signs.T, exact=False))
    return _joined(parts)


def holm(p_values: Floats) -> Floats:
    """Holm's correction of each row of p values (R, H)."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, axis=1, kind="stable")
    steps = np.arange(p.shape[1], 0, -1)
    stepped = np.maximum.accumulate(steps * np.take_along_axis(p, order, axis=1), axis=1)
    corrected = np.empty_like(p)
    np.put_along_axis(corrected, order, np.minimum(stepped, 1.0), axis=1)
    return corrected


def arrangements(blocks: Sequence[Sequence[int]]) -> float:
    """Number of ways to deal the labels within all blocks; each is its arms' sizes."""
    ways = 0.0  # its logarithm, as sixty seeds in ten blocks overflow a float
    for sizes in blocks:
        ways += math.lgamma(sum(sizes) + 1) - sum(math.lgamma(size + 1) for size in sizes)
    return float(round(math.exp(ways))) if ways < 30.0 else math.inf


def _listed(sizes: Sequence[int]) -> np.ndarray:
    """Every dealing of labels 0..A-1 in these numbers: (arrangements, n) ints."""
    return np.array(_deal(list(sizes), sum(sizes)))


def _deal(left: list[int], n: int) -> list[tuple[int, ...]]:
    if n == 0:
        return [()]
    found = []
    for label, count in enumerate(left):
        if count:
            left[label] -= 1
            found += [(label, *rest) for rest in _deal(left, n - 1)]
            left[label] += 1
    return found


def _drawn(sizes: Sequence[int], rng: np.random.Generator, draws: int) -> np.ndarray:
    """Random dealings of the labels: (draws, n) ints."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return rng.permuted(np.broadcast_to(labels, (draws, len(labels))), axis=1)


def _moments(x: Floats, labels: np.ndarray, block: Arms) -> tuple[Floats, Floats]:
    """Contrast and Welch variance, (R, L) each, of x (R, n) under labels (L, n)."""
    value = np.zeros((len(x), len(labels)))
    variance = np.zeros_like(value)
    squared = np.square(x)
    for arm, (weight, size) in enumerate(zip(block.weights, block.sizes, strict=True)):
        chosen = (labels == arm).astype(float).T  # (n, L)
        mean = x @ chosen / size
        squares = np.maximum(squared @ chosen - size * np.square(mean), 0.0)
        value += weight * mean
        variance += weight**2 / (size * (size - 1)) * squares
    return value, variance


def _studentise(value: Floats, variance: Floats, scale: float) -> Floats:
    """value / sqrt(variance); without variance 0 for a zero value, else infinite with its sign."""
    flat = variance <= _ROUNDED * scale
    value = np.where(np.square(value) <= _ROUNDED * scale, 0.0, value)
    t = value / np.sqrt(np.where(flat, 1.0, variance))
    return np.where(flat & (value != 0.0), np.copysign(np.inf, value), t)


def _tally(observed: Floats, null: Floats, exact: bool) -> PValues:
    """p of `observed` (R,) among `null` (R, arrangements), ties counted against the finding."""
    finite = np.where(np.isfinite(null), np.abs(null), 0.0).max(axis=1)
    slack = np.where(np.isfinite(observed), _TIE * np.abs(observed) + 1e-12 * finite, 0.0)
    size = np.abs(observed) - slack
    extra = 0 if exact else 1

    def share(hits: np.ndarray) -> Floats:
        counts: Floats = (hits.sum(axis=1) + extra) / (null.shape[1] + extra)
        return counts

    return PValues(
        greater=share(null >= (observed - slack)[:, None]),
        less=share(null <= (observed + slack)[:, None]),
        two_sided=share(np.abs(null) >= size[:, None]),
    )
