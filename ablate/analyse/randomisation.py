"""Tests by re-randomisation, the t over data sets, and Holm's correction.

Two randomisation tests, chosen by the contrast's shape alone (`verdict.py`):

* `permutation`: a contrast of one factor. Within each block (data set x every other factor) all
  labels of the factor are exchangeable under the null, so they are shuffled there and nowhere
  else. The statistic is studentised (Welch's t of the combination): exact when the labels don't
  matter at all, and right for large samples when arms differ in spread, size or in means that
  cancel in the contrast. (Simulated at 5 %, one arm of spread 6 against two of spread 2, ten seeds
  each: false alarms .06; the same shuffles with the plain difference of means .15.)
  Source: A. Janssen, Statistics & Probability Letters 36 (1997) 9-21; E. Chung and J. P. Romano,
  Annals of Statistics 41 (2013) 484-507.
* `sign_flip`: interactions and everything else. Each seed gives one contrast per data set; under
  the null those lie symmetrically about zero.

Both list every arrangement when there are at most `DRAWS`, else draw `DRAWS` and count the
observed one as one of them: p = (b + 1) / (n + 1). Equal seeds (of the generator) give equal p
values.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablate.analyse.intervals import Alternative, Estimate, Floats, combine

DRAWS = 10_000
_TIE = 1e-9  # statistics this close, relatively, are the same arrangement reached by another sum
SIGN_FLIP_DATA_SETS = 6  # with fewer, 2^-D cannot reach the usual levels


@dataclass(frozen=True)
class Block:
    """The arms that may be shuffled among each other: weights (A,), arms: A arrays (n_a,)."""

    weights: Floats
    arms: tuple[Floats, ...]


@dataclass(frozen=True)
class Randomisation:
    """Outcome of a randomisation test: `p` by alternative, how many arrangements, and were they
    all.

    `smallest` is the least one-sided p that this many arrangements could have given.
    """

    name: str
    greater: float
    less: float
    two_sided: float
    arrangements: int
    exact: bool
    smallest: float

    def p(self, alternative: Alternative) -> float:
        """The p value against `alternative`."""
        return {"greater": self.greater, "less": self.less, "two-sided": self.two_sided}[
            alternative
        ]


def generator(name: str) -> np.random.Generator:
    """A generator that depends on `name` only (a hypothesis' id), never on the order of calls."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big"))


def permutation(
    blocks: Sequence[Block], rng: np.random.Generator, draws: int = DRAWS
) -> Randomisation:
    """Stratified permutation test of `sum_blocks sum_arms w * mean` = 0, labels shuffled within
    blocks.

    The weights of each block sum to 0 (so a block's common level says nothing), and every arm has
    two values or more. Raises ValueError otherwise.
    """
    if any(abs(float(np.sum(block.weights))) > 1e-9 for block in blocks):
        raise ValueError("the weights of every block of a permutation test sum to zero")
    if any(len(arm) < 2 for block in blocks for arm in block.arms):
        raise ValueError("every arm of a permutation test needs at least two replicates")
    sizes = [[len(arm) for arm in block.arms] for block in blocks]
    total = math.prod(count_arrangements(s) for s in sizes)
    exact = total <= draws
    # All values over one scale and centred per block: sums of squares then keep their digits.
    scale = max(max(float(np.ptp(np.concatenate(b.arms))) for b in blocks), 1e-300)
    numerator, variance = np.zeros(1), np.zeros(1)
    observed, observed_variance = 0.0, 0.0
    for block, size in zip(blocks, sizes, strict=True):
        pooled = np.concatenate(block.arms)  # (n,)
        pooled = (pooled - pooled.mean()) / scale
        own = _moments(pooled[None], size, block.weights)
        observed, observed_variance = observed + own[0][0], observed_variance + own[1][0]
        if exact:
            order = np.array(list(arrangements(tuple(range(len(pooled))), tuple(size))))
            shuffled = pooled[order]  # (arrangements of this block, n)
            part, spread = _moments(shuffled, size, block.weights)
            numerator = (numerator[:, None] + part).ravel()  # every combination of blocks
            variance = (variance[:, None] + spread).ravel()
        else:
            shuffled = rng.permuted(np.broadcast_to(pooled, (draws, len(pooled))), axis=1)
            part, spread = _moments(shuffled, size, block.weights)
            numerator, variance = numerator + part, variance + spread  # (draws,)
    value = float(studentise(np.array([observed]), np.array([observed_variance]))[0])
    name = "stratified permutation of labels"
    return tally(name, value, studentise(numerator, variance), exact, 1 / total)


def sign_flip(terms: Floats, rng: np.random.Generator, draws: int = DRAWS) -> Randomisation:
    """Sign-flip test of "the sum of `terms` is 0".

    terms (n,): the share of one seed on one data set in the estimate, symmetric about 0 under the
    null.
    """
    total = 2.0 ** len(terms)
    exact = total <= draws
    if exact:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(terms))))
    else:
        signs = rng.integers(0, 2, size=(draws, len(terms))) * 2.0 - 1.0  # (draws, n)
    return tally("sign flips", float(terms.sum()), signs @ terms, exact, 1 / total)


def over_data_sets(contrasts: Floats) -> tuple[Estimate | None, str]:
    """Population estimand: the data sets' contrasts (D,) as a sample; t with D - 1 degrees of
    freedom.

    Returns (estimate, "") or (None, why there is none).
    """
    if len(contrasts) < 2:
        return None, "one data set says nothing about others: at least two are needed"
    return combine([1.0], [np.asarray(contrasts, dtype=float)]), ""


def holm(p_values: Sequence[float]) -> Floats:
    """Holm's step-down correction of p values (H,), in the same order.

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70. The same as statsmodels'
    `multipletests(method="holm")`, which collects garbage at every call and so takes 0.1 s.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    steps = np.arange(len(p), 0, -1)  # the smallest p times H, the next times H - 1, ...
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(steps * p[order]), 1.0)
    return corrected


def count_arrangements(sizes: Sequence[int]) -> int:
    """Number of ways to deal sum(sizes) values to arms of these sizes."""
    left, ways = sum(sizes), 1
    for size in sizes:
        ways *= math.comb(left, size)
        left -= size
    return ways


def arrangements(items: tuple[int, ...], sizes: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Every way to deal `items` to arms of `sizes`, each as one flat tuple in arm order."""
    if len(sizes) == 1:
        yield items
        return
    for first in itertools.combinations(items, sizes[0]):
        chosen = set(first)
        rest = tuple(item for item in items if item not in chosen)
        for tail in arrangements(rest, sizes[1:]):
            yield first + tail


def _moments(shuffled: Floats, sizes: Sequence[int], weights: Floats) -> tuple[Floats, Floats]:
    """Contrast and its Welch variance, (R,) each, for R arrangements (R, n) of one block."""
    value = np.zeros(len(shuffled))
    variance = np.zeros(len(shuffled))
    start = 0
    for size, weight in zip(sizes, weights, strict=True):
        arm = shuffled[:, start : start + size]  # (R, n_a)
        start += size
        mean = arm.mean(axis=1)
        value += weight * mean
        squares = np.square(arm - mean[:, None]).sum(axis=1) / (size - 1)
        variance += weight**2 * squares / size
    return value, variance


def studentise(value: Floats, variance: Floats) -> Floats:
    """value / sqrt(variance); without variance: 0 for a zero value, else infinite with its sign."""
    tiny = 1e-24  # values are in units of the range: this is rounding
    flat = variance <= tiny
    value = np.where(np.abs(value) <= 1e-12, 0.0, value)
    t: Floats = value / np.sqrt(np.where(flat, 1.0, variance))
    return np.where(flat & (value != 0.0), np.copysign(np.inf, value), t)


def tally(
    name: str, observed: float, null: NDArray[np.float64], exact: bool, smallest: float
) -> Randomisation:
    """p values of `observed` among `null` (R,), ties counted against the finding."""
    finite = np.abs(null[np.isfinite(null)])
    slack = 0.0
    if math.isfinite(observed) and len(finite):
        slack = _TIE * abs(observed) + 1e-12 * float(finite.max())
    extra = 0 if exact else 1  # the observed arrangement is itself in an exhaustive list

    def share(hits: NDArray[np.bool_]) -> float:
        return (int(hits.sum()) + extra) / (len(hits) + extra)

    extent = f"all {len(null)} arrangements" if exact else f"{len(null)} draws"
    return Randomisation(
        name=f"{name} ({extent})",
        greater=share(null >= observed - slack),
        less=share(null <= observed + slack),
        two_sided=share(np.abs(null) >= abs(observed) - slack),
        arrangements=len(null),
        exact=exact,
        smallest=max(smallest, 1.0 / (len(null) + extra)),
    )
