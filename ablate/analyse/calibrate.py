"""How often each procedure cries wolf on the user's own runs: A/A splits.

The seeds of every cell are split at random into two halves, and "no difference between the halves"
is tested over the data sets of each variant (everything but the data set held still), as for two variants
whose seeds are paired in the order of the split, and unpaired. There is none,
so a procedure at level alpha should find one in alpha of the splits. Popular procedures stand beside
those that give the verdicts, to show what they would have done here.

The splits of one variant share its runs, so their outcomes aren't independent: the Monte-Carlo error
is that of the mean over variants, or the binomial one where that is larger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from ablate.analyse import batch
from ablate.analyse.claims import PAIRED, WELCH
from ablate.analyse.intervals import Floats, spread
from ablate.analyse.randomisation import SIGN_FLIP_DATA_SETS, generator
from ablate.analyse.tidy import check, factor_columns, usable, values
from ablate.errors import UserError

LEAST = 4  # seeds: halves of two, which just show a spread
DRAWS = 499  # shufflings of a permutation test
RESAMPLES = 1000  # of a bootstrap
SPLITS = 60
TOTAL = 600  # splits are fewer where there are many variants
FIXED, POPULATION, POPULAR = "fixed", "population", "popular"


@dataclass(frozen=True)
class Rate:
    """False alarms of one procedure: rate of `tests` splits, over `variants`, at a level; error is
    one Monte-Carlo standard error. kind: the estimand it is for here, or "popular"."""

    procedure: str
    kind: str
    level: float
    rate: float
    error: float
    tests: int
    variants: int

    @property
    def judgement(self) -> str:
        """`too many`, `few` (conservative), or `as it should` within two Monte-Carlo errors."""
        if self.rate - self.level > max(2.0 * self.error, 0.01):
            return "too many"
        return "few" if self.level - self.rate > max(2.0 * self.error, 0.01) else "as it should"


@dataclass(frozen=True)
class Calibration:
    """The rates, of which table and how; left_out: what had too few seeds, in words."""

    metric: str
    level: float
    rates: tuple[Rate, ...]
    splits: int
    variants: int
    cells: int
    left_out: tuple[str, ...]

    def text(self) -> str:
        """The table and its warnings, as plain text."""
        lines = [
            f"A/A splits of '{self.metric}': {self.variants} variants ({self.cells} cells), "
            f"{self.splits} random halvings of the seeds of each; level {self.level:g}.",
            "",
        ]
        width = max(len(r.procedure) for r in self.rates)
        lines.append(f"  {'procedure':<{width}}  estimand    false alarms")
        for r in self.rates:
            lines.append(
                f"  {r.procedure:<{width}}  {r.kind:<10}  {100 * r.rate:4.1f} % "
                f"(± {100 * r.error:.1f})  {'' if r.judgement == 'as it should' else r.judgement}"
            )
        return "\n".join([*(line.rstrip() for line in lines), "", *self.warnings])

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader has to know, one line each."""
        found = []
        for r in self.rates:
            if r.judgement == "too many":
                used = (
                    "don't use it on such runs"
                    if r.kind == POPULAR
                    else ("verdicts that rest on it err more often than they say")
                )
                found.append(
                    f"warning: {r.procedure} finds a difference where there is none in "
                    f"{100 * r.rate:.1f} % of the splits, not {100 * self.level:g} %: {used}."
                )
        if not found:
            found.append("No procedure is above its level by more than the Monte-Carlo error.")
        if self.variants < 5:
            found.append(
                f"Only {self.variants} {'variant' if self.variants == 1 else 'variants'}: the splits "
                "share few runs, so the rates are rough."
            )
        return (*found, *self.left_out)

    def frame(self) -> pd.DataFrame:
        """One row a procedure."""
        columns = ("procedure", "kind", "level", "rate", "error", "tests", "variants", "judgement")
        return pd.DataFrame([{c: getattr(r, c) for c in columns} for r in self.rates])


@dataclass(frozen=True)
class Variant:
    """One algorithm on its data sets: name, and a cell's scores (n_d,) for each."""

    name: str
    cells: tuple[Floats, ...]


def calibrate(
    table: pd.DataFrame,
    metric: str,
    *,
    level: float = 0.05,
    splits: int = SPLITS,
    name: str = "A/A",
) -> Calibration:
    """False-alarm rates of the procedures on random halvings of a tidy table's seeds.

    splits: of each variant, fewer when there are many variants. name: of the random stream. Raises
    UserError for a table without `metric`, or when no cell has four finished trials that vary.
    """
    check(table, [metric])
    variants, left_out = variants_of(table, metric)
    if not variants:
        raise UserError(
            f"calibration: no cell has {LEAST} finished trials whose '{metric}' varies, so none can "
            "be split into two halves that show a spread; allowed: four seeds or more a cell. With "
            "fewer seeds, trust the simulated error rates (python -m ablate bench inference)."
        )
    splits = max(4, min(splits, math.ceil(TOTAL / len(variants))))
    outcomes: dict[str, list[tuple[float, int]]] = {}
    kinds: dict[str, str] = {}
    for variant in variants:
        rng = generator(f"{name}/{metric}/{variant.name}")
        halves = _split(variant, splits, rng)
        alarms = {PAIRED: (FIXED, _paired(variant, splits, rng, level))}
        for procedure, (kind, p) in (alarms | _procedures(halves, rng, level)).items():
            kinds[procedure] = kind
            outcomes.setdefault(procedure, []).append((float(np.mean(p)), len(p)))
    rates = tuple(
        _rate(procedure, kinds[procedure], level, found) for procedure, found in outcomes.items()
    )
    cells = sum(len(v.cells) for v in variants)
    return Calibration(metric, level, rates, splits, len(variants), cells, tuple(left_out))


def variants_of(table: pd.DataFrame, metric: str) -> tuple[list[Variant], list[str]]:
    """The variants with their cells of four seeds or more that vary, and what was left out."""
    rows = usable(table, metric)
    factors = [name for name in factor_columns(table) if name != "data"]
    score = values(rows, metric)
    keys = list(rows[factors].astype(str).agg(" ".join, axis=1)) if factors else [""] * len(rows)
    found: dict[str, dict[str, list[int]]] = {}
    for i, (key, data) in enumerate(zip(keys, rows["data"].astype(str), strict=True)):
        found.setdefault(key, {}).setdefault(data, []).append(i)
    variants, thin, flat = [], 0, 0
    for key, by_data in found.items():
        cells = []
        for index in by_data.values():
            values_of = score[index]
            if len(values_of) < LEAST:
                thin += 1
            elif spread(values_of) == 0.0:
                flat += 1
            else:
                cells.append(values_of)
        if cells:
            variants.append(Variant(key, tuple(cells)))
    left_out = []
    if thin:
        left_out.append(f"{thin} cells with fewer than {LEAST} finished trials were left out.")
    if flat:
        left_out.append(f"{flat} cells that don't vary over seeds were left out.")
    return variants, left_out


def _split(variant: Variant, splits: int, rng: np.random.Generator) -> list[tuple[Floats, Floats]]:
    """Random halves (splits, n // 2) and (splits, n - n // 2) of each cell."""
    halves = []
    for cell in variant.cells:
        shuffled = rng.permuted(np.broadcast_to(cell, (splits, len(cell))), axis=1)
        cut = len(cell) // 2
        halves.append((shuffled[:, :cut], shuffled[:, cut:]))
    return halves


def _paired(variant: Variant, splits: int, rng: np.random.Generator, level: float) -> np.ndarray:
    """Alarms (splits,) of the paired t: a seed is one unit on all data sets, so all are split at the same
    seeds, and those of the halves are paired as they come. Cells with more seeds leave the last ones out."""
    size = min(len(cell) for cell in variant.cells)
    order = rng.permuted(np.tile(np.arange(size), (splits, 1)), axis=1)  # (R, size)
    cut = size // 2
    pairs = np.mean(
        [cell[order[:, :cut]] - cell[order[:, cut : 2 * cut]] for cell in variant.cells], axis=0
    )
    alarms: np.ndarray = batch.p_value(batch.combine([1.0], [pairs])) < level
    return alarms


def _procedures(
    halves: Sequence[tuple[Floats, Floats]], rng: np.random.Generator, level: float
) -> dict[str, tuple[str, np.ndarray]]:
    """Procedure -> (kind, alarms (splits,) bool), for those that this many data sets allow."""
    n = len(halves)
    share = np.array([1.0, -1.0]) / n
    fixed = batch.combine(np.tile(share, n), [half for pair in halves for half in pair])
    blocks = [batch.Arms(share, pair) for pair in halves]
    shuffled = batch.permutation(blocks, rng, DRAWS).two_sided
    found: dict[str, tuple[str, np.ndarray]] = {
        WELCH: (FIXED, batch.p_value(fixed) < level),
        "stratified permutation": (FIXED, shuffled < level),
    }
    contrasts = np.stack([a.mean(axis=1) - b.mean(axis=1) for a, b in halves], axis=1)  # (R, D)
    if n >= 2:
        over = batch.combine([1.0], [contrasts])
        found["t over data sets"] = (POPULATION, batch.p_value(over) < level)
    if n >= SIGN_FLIP_DATA_SETS:
        flips = batch.sign_flip(contrasts / n, rng, 2**12).two_sided
        found["sign flips over data sets"] = (POPULATION, flips < level)
    for label, statistic in (("mean", _mean), ("IQM", _iqm)):
        outside = _bootstrap(halves, statistic, rng, level)
        found[f"stratified percentile bootstrap, {label}"] = (POPULAR, outside)
    first, second = (np.concatenate([pair[i] for pair in halves], axis=1) for i in (0, 1))
    if n >= 2:
        pooled = batch.combine([1.0, -1.0], [first, second])
        found["Welch t on pooled runs"] = (POPULAR, batch.p_value(pooled) < level)
        each = np.stack(
            [batch.p_value(batch.combine([1.0, -1.0], pair)) for pair in halves], axis=1
        )
        found["any data set's Welch t, uncorrected"] = (POPULAR, each.min(axis=1) < level)
        found["any data set's Welch t, Holm"] = (POPULAR, batch.holm(each).min(axis=1) < level)
    return found


def _mean(x: Floats) -> Floats:
    """(..., D, n) equal cells or a flat sample (..., N): the mean of all runs."""
    found: Floats = x.mean(axis=-1)
    return found


def _iqm(x: Floats) -> Floats:
    """Interquartile mean of the last axis, as scipy.stats.trim_mean(x, 0.25)."""
    cut = x.shape[-1] // 4
    if cut:
        x = np.partition(x, [cut, x.shape[-1] - cut - 1], axis=-1)[..., cut : x.shape[-1] - cut]
    found: Floats = x.mean(axis=-1)
    return found


def _bootstrap(
    halves: Sequence[tuple[Floats, Floats]],
    statistic: Callable[[Floats], Floats],
    rng: np.random.Generator,
    level: float,
) -> np.ndarray:
    """Whether the percentile interval of the difference leaves out 0: (splits,) bool.

    Runs are drawn with replacement within each data set, and the statistic is of all runs together,
    as is usual.
    """
    splits = halves[0][0].shape[0]
    alarms = np.zeros(splits, dtype=bool)
    picks = [
        [rng.integers(0, half.shape[1], (RESAMPLES, half.shape[1])) for half in pair]
        for pair in halves
    ]
    for s in range(splits):
        sides = [
            statistic(
                np.concatenate(
                    [pair[i][s][pick[i]] for pair, pick in zip(halves, picks, strict=True)], axis=1
                )
            )
            for i in (0, 1)
        ]
        low, high = np.quantile(sides[0] - sides[1], [level / 2.0, 1.0 - level / 2.0])
        alarms[s] = low > 0.0 or high < 0.0
    return alarms


def _rate(procedure: str, kind: str, level: float, found: Sequence[tuple[float, int]]) -> Rate:
    rates = np.array([rate for rate, _ in found])
    tests = sum(n for _, n in found)
    rate = float(np.average(rates, weights=[n for _, n in found]))
    binomial = math.sqrt(max(rate * (1.0 - rate), level * (1.0 - level) / 4.0) / tests)
    clusters = float(stats.sem(rates)) if len(rates) > 1 else 0.0
    return Rate(procedure, kind, level, rate, max(binomial, clusters), tests, len(rates))
