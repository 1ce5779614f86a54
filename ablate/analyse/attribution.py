"""How much of a gain each of several factors brings: Shapley shares with intervals.

k factors are each changed from a start to an end (sets of levels, averaged), so there are 2^k means
v(S), S the factors at their end. The share of factor i in the total v(all) - v(none) is its step
averaged over all orders in which the factors can be changed:

    share_i = sum over S without i of  |S|! (k - |S| - 1)! / k!  *  (v(S with i) - v(S))

Shares sum to the total exactly; an interaction of m factors is split evenly among them. Source: L. S.
Shapley, "A value for n-person games", Contributions to the Theory of Games II (1953) 307-317. Beside
them stand the factor's step from the start (add-one-in) and into the end (leave-one-out), which a
common ablation table shows and which don't sum to the total.

Every share is a linear contrast of cell means, formed within seeds as those of the verdicts are. Its
intervals over new seeds (fixed estimand) and over new data sets (population) are theirs too. Percentages are
ratios of two such contrasts: their interval holds the ratios r
for which "share - r total = 0" is not rejected by that same t (Fieller's theorem; E. C. Fieller, J.
Royal Statistical Society B 16 (1954) 175-185). It is bounded exactly when the total's interval
excludes zero; otherwise no percentage is given.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate import words
from ablate.analyse.intervals import (
    Estimate,
    Floats,
    Units,
    combine,
    interval,
    ratio_interval,
    wider,
)
from ablate.analyse.pairing import pair
from ablate.analyse.randomisation import over_data_sets
from ablate.analyse.strata import at
from ablate.analyse.tidy import factor_columns, last_budget, usable, values
from ablate.errors import UserError, unknown
from ablate.study.contrast import Level, level_text, parse
from ablate.study.hypotheses import Hypothesis


@dataclass(frozen=True)
class Change:
    """One factor's step: the column goes from the mean over `start` to the mean over `end`."""

    name: str
    factor: str
    start: tuple[Level, ...]
    end: tuple[Level, ...]

    @property
    def words(self) -> str:
        """`context 1 → 20`."""
        ends = (", ".join(map(level_text, levels)) for levels in (self.start, self.end))
        return f"{self.factor} {' → '.join(ends)}"


@dataclass(frozen=True)
class Percentage:
    """A share in percent of the total, with its Fieller interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Share:
    """What one factor brings. population, percent: None where there is none.

    first: its step when nothing else has been changed (add-one-in); last: when everything else has
    (leave-one-out). percent is of the fixed estimand, percent_population of the other.
    by_data_set: the share on each data set, for new seeds.
    """

    change: Change
    fixed: Estimate
    population: Estimate | None
    first: Estimate
    last: Estimate
    percent: Percentage | None
    percent_population: Percentage | None
    by_data_set: dict[str, Estimate]


@dataclass(frozen=True)
class Attribution:
    """The total gain and its shares, in the metric's units.

    refusal, refusal_population: why there are no percentages; empty where there are.
    means: the 2^k means, by the names of the factors at their end. data_sets, trials: what it
    rests on; pairing: which of it is paired, in words.
    """

    metric: str
    confidence: float
    total: Estimate
    total_population: Estimate | None
    shares: tuple[Share, ...]
    refusal: str
    refusal_population: str
    means: dict[tuple[str, ...], float]
    data_sets: tuple[str, ...]
    trials: tuple[str, ...]
    pairing: str

    @property
    def n_trials(self) -> int:
        """Trials that it rests on."""
        return len(self.trials)


def shapley_weights(k: int) -> Floats:
    """(k, 2^k): weight of the mean v(S) in each factor's share; bit i of a column: i is in S."""
    out = np.zeros((k, 2**k))
    for i, subset in itertools.product(range(k), range(2**k)):
        if not subset >> i & 1:
            size = subset.bit_count()
            weight = math.factorial(size) * math.factorial(k - size - 1) / math.factorial(k)
            out[i, subset] -= weight
            out[i, subset | 1 << i] += weight
    return out


def attribute(
    table: pd.DataFrame,
    changes: Sequence[Change],
    where: Mapping[str, Sequence[Level]] | None = None,
    *,
    metric: str,
    alpha: float = 0.05,
    paired: bool = True,
) -> Attribution:
    """Attribute the gain from all starts to all ends to the factors of `changes` (2 to 8).

    where: levels at which the other factors are taken; those that it doesn't name are averaged
    over. paired: as of `verdict.judge`. Raises UserError when a needed cell of a data set is missing or has a
    single seed, naming
    the first, or when the changes make no sense.
    """
    _sensible(changes)
    design = _design(last_budget(table), changes, where or {}, metric, alpha, paired)
    k = len(changes)
    nothing, everything = _unit(0, k), _unit(2**k - 1, k)
    gain = everything - nothing
    total, over_total = design.fixed(gain), design.population(gain)
    confidence = 1.0 - alpha
    refusal = _refusal(total, confidence, metric, "these data sets")
    if over_total is None:
        refusal_population = "one data set says nothing about others."
    else:
        refusal_population = _refusal(over_total, confidence, metric, "new data sets")
    shares = []
    for i, (change, weights) in enumerate(zip(changes, shapley_weights(k), strict=True)):
        percent = percent_population = None
        if not refusal:
            percent = _percentage(design.fixed, weights, gain, alpha)
        if not refusal_population:
            percent_population = _percentage(design.population, weights, gain, alpha)
        shares.append(
            Share(
                change=change,
                fixed=design.fixed(weights),
                population=design.population(weights),
                first=design.fixed(_unit(1 << i, k) - nothing),
                last=design.fixed(everything - _unit((2**k - 1) ^ (1 << i), k)),
                percent=percent,
                percent_population=percent_population,
                by_data_set={name: design.on(name, weights) for name in design.names},
            )
        )
    means = {
        tuple(c.name for i, c in enumerate(changes) if s >> i & 1): design.fixed(_unit(s, k)).value
        for s in range(2**k)
    }
    return Attribution(
        metric=metric,
        confidence=confidence,
        total=total,
        total_population=over_total,
        shares=tuple(shares),
        refusal=refusal,
        refusal_population=refusal_population,
        means=means,
        data_sets=design.names,
        trials=design.trials,
        pairing=design.pairing,
    )


def declared(
    hypotheses: Sequence[Hypothesis],
) -> tuple[list[Change], dict[str, tuple[Level, ...]], str] | str:
    """The changes that the study's primary hypotheses are about, the cells they share and the
    metric; or in words why there are none.

    Each primary hypothesis whose contrast is "mean of some levels minus mean of others" of one
    factor gives a change of that factor, named by its id; the first one of a factor counts. Other
    columns are held where all of these hypotheses hold them; one that they hold at different
    levels is held at the first's.
    """
    changes: list[Change] = []
    used: list[Hypothesis] = []
    for hypothesis in hypotheses:
        change = _change(hypothesis) if hypothesis.primary else None
        if change is None or change.factor in {known.factor for known in changes}:
            continue
        if used and hypothesis.metric != used[0].metric:
            continue
        changes.append(change)
        used.append(hypothesis)
    if len(changes) < 2:
        return "fewer than two factors have a primary hypothesis that compares their levels."
    moving = {change.factor for change in changes}
    where: dict[str, tuple[Level, ...]] = {}
    for hypothesis in used:
        for factor in hypothesis.where:
            if factor not in moving:
                where.setdefault(factor, tuple(hypothesis.levels_at(factor) or ()))
    return changes, where, used[0].metric


def _change(hypothesis: Hypothesis) -> Change | None:
    """The change that a contrast of one factor is about; None for any other contrast."""
    if hypothesis.estimator or hypothesis.pairs_of is not None or hypothesis.each is not None:
        return None
    contrast = parse(hypothesis.contrast)
    if len(contrast.factors) != 1 or contrast.factors[0] == "data":
        return None
    ends = [
        {levels[0]: c for levels, c in contrast.terms.items() if c * sign > 0.0}
        for sign in (1.0, -1.0)
    ]
    for side in ends:
        alike = len({round(abs(c), 9) for c in side.values()}) == 1
        if not alike or abs(sum(map(abs, side.values())) - 1.0) > 1e-9:
            return None
    return Change(hypothesis.id, contrast.factors[0], tuple(ends[1]), tuple(ends[0]))


def _sensible(changes: Sequence[Change]) -> None:
    """Raise UserError for changes that cannot be attributed to."""
    if not 2 <= len(changes) <= 8:
        raise UserError(f"attribution: found {len(changes)} factors; allowed: 2 to 8.")
    for attribute_of in ("name", "factor"):
        names = [getattr(change, attribute_of) for change in changes]
        again = next((name for name in names if names.count(name) > 1), None)
        if again is not None:
            raise UserError(f"attribution: '{again}' stands twice; allowed: once.")
    for change in changes:
        both = set(map(level_text, change.start)) & set(map(level_text, change.end))
        if not change.start or not change.end or both:
            found = f"'{sorted(both)[0]}' on both sides" if both else "no level on a side"
            raise UserError(
                f"attribution, {change.name}: found {found}; allowed: different levels of "
                f"{change.factor} at start and end."
            )


@dataclass(frozen=True)
class _Design:
    """The cells of a complete design: v(S) on a data set is the sum over its cells of
    weights[:, S] * mean(cell).

    names (D,), strata (C,): the data set of each cell; cells, units: C arrays (n_c,), as of `Resolved`;
    weights (C, 2^k).
    """

    names: tuple[str, ...]
    strata: NDArray[np.str_]
    cells: tuple[Floats, ...]
    units: tuple[Units, ...]
    weights: Floats
    trials: tuple[str, ...]
    pairing: str
    alpha: float

    @cached_property
    def means(self) -> Floats:
        """The mean of each cell (C,)."""
        return np.array([float(np.mean(cell)) for cell in self.cells])

    def fixed(self, combination: Floats) -> Estimate:
        """The sum over S of combination[S] v(S), averaged over these data sets; for new seeds."""
        return combine(self.weights @ combination / len(self.names), self.cells, self.units)

    def on(self, name: str, combination: Floats) -> Estimate:
        """The sum over S of combination[S] v(S) on one data set; for new seeds."""
        here = np.flatnonzero(self.strata == name)
        cells, units = [self.cells[i] for i in here], [self.units[i] for i in here]
        return combine(self.weights[here] @ combination, cells, units)

    def population(self, combination: Floats) -> Estimate | None:
        """The same for new data sets; None with a single one."""
        parts = self.weights @ combination * self.means  # (C,)
        found, _ = over_data_sets(np.array([parts[self.strata == n].sum() for n in self.names]))
        return None if found is None else wider(found, self.fixed(combination), 1.0 - self.alpha)


def _design(
    table: pd.DataFrame,
    changes: Sequence[Change],
    where: Mapping[str, Sequence[Level]],
    metric: str,
    alpha: float,
    paired: bool,
) -> _Design:
    """The cells, or a UserError that names the first one that is missing."""
    table = table.reset_index(drop=True)  # so that labels are places
    columns = factor_columns(table)
    for factor in [*(change.factor for change in changes), *where]:
        if factor not in columns:
            raise unknown("attribution: the factor", factor, columns)
    selected = at(table, where)
    for change in changes:
        selected = at(selected, {change.factor: (*change.start, *change.end)})
    if selected.empty:
        raise UserError("attribution: no trial is at the levels that it is about.")
    moving = [change.factor for change in changes]
    others = [name for name in columns if name not in moving]
    found = _members(usable(selected, metric), [*others, *moving])
    groups = list(_members(selected, others))
    of_data = [group[others.index("data")] for group in groups]
    strata, runs, weights = [], [], []
    for group, data in zip(groups, of_data, strict=True):
        for levels in itertools.product(*(map(level_text, (*c.start, *c.end)) for c in changes)):
            members = found.get((*group, *levels), [])
            if len(members) < 2:
                cell = zip((*others, *moving), (*group, *levels), strict=True)
                said = ", ".join(f"{name}={value}" for name, value in cell)
                raise UserError(
                    f"attribution: the cell {said} has {len(members)} finished trials with a "
                    f"'{metric}'; allowed: 2 or more in every cell of the factors' starts and ends."
                )
            strata.append(data)
            runs.append(np.array(members))
            weights.append(_cell_weights(changes, levels) / of_data.count(data))
    width = len(runs) // len(groups)
    seeds, scores = pd.factorize(table["seed"], sort=True)[0], values(table, metric)
    pairs = pair(
        [range(i, i + width) for i in range(0, len(runs), width)],
        [seeds[members] for members in runs],
        runs,
        paired=paired,
    )
    runs = [members[kept] for members, kept in zip(runs, pairs.kept, strict=True)]
    return _Design(
        names=tuple(dict.fromkeys(of_data)),
        strata=np.array(strata),
        cells=tuple(scores[members] for members in runs),
        units=pairs.units,
        weights=np.array(weights),
        trials=tuple(map(str, table["trial"].iloc[np.concatenate(runs)].tolist()))
        if "trial" in table.columns
        else (),
        pairing=pairs.words,
        alpha=alpha,
    )


def _members(rows: pd.DataFrame, columns: Sequence[str]) -> dict[tuple[str, ...], list[object]]:
    """Index labels of the rows by their levels of `columns`."""
    found: dict[tuple[str, ...], list[object]] = {}
    keys = rows[list(columns)].itertuples(index=False, name=None)
    for label, key in zip(rows.index, keys, strict=True):
        found.setdefault(tuple(map(level_text, key)), []).append(label)
    return found


def _cell_weights(changes: Sequence[Change], levels: Sequence[str]) -> Floats:
    """(2^k,): the weight of the cell at these levels in each v(S)."""
    out = np.ones(2 ** len(changes))
    for i, (change, level) in enumerate(zip(changes, levels, strict=True)):
        for subset in range(len(out)):
            side = [level_text(one) for one in (change.end if subset >> i & 1 else change.start)]
            out[subset] *= (level in side) / len(side)
    return out


def _unit(subset: int, k: int) -> Floats:
    row = np.zeros(2**k)
    row[subset] = 1.0
    return row


def _refusal(total: Estimate, confidence: float, metric: str, whom: str) -> str:
    """Why no percentage is given; empty when it may be."""
    low, high = interval(total, confidence)
    if low > 0.0 or high < 0.0:
        return ""
    said = words.response(metric)
    return (
        f"for {whom} the {words.percent(confidence)} interval of the total gain in "
        f"{said.said} ({said.span(low, high)}) includes zero, and a share of nothing has no size."
    )


def _percentage(
    estimand: Callable[[Floats], Estimate | None], share: Floats, total: Floats, alpha: float
) -> Percentage:
    """The r at which the remainder, share - r total, is zero, and those at which it may be."""

    def remainder(r: float) -> Estimate:
        found = estimand(share - r * total)
        assert found is not None  # one data set has no population, which was asked before
        return found

    ratio = remainder(0.0).value / (remainder(0.0).value - remainder(1.0).value)

    low, high = ratio_interval(remainder, ratio, 1.0 - alpha)
    return Percentage(100.0 * ratio, 100.0 * low, 100.0 * high)
