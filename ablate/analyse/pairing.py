"""From a claim and a tidy table to the arrays that the tests want.

Cells of one seed share targets, initial weights and evaluation episodes, and a seed's streams are drawn
from (study, seed) whatever the data set: two data sets of one environment are even evaluated on the same
episodes. So the unit is the seed, across cells and across data sets. A combination (the cells of one data
set and one level of every factor that the contrast doesn't name) is paired: its contrast is formed within
each seed that all its cells have, and other seeds are left out of it, since what only one side has been
evaluated on would come in as a difference. A combination whose cells share fewer than two seeds, or not
more than half of its smallest cell's, is unpaired: its cells are independent samples.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ablate.analyse.intervals import Estimate, Floats, Units, combine
from ablate.analyse.randomisation import Block
from ablate.analyse.tidy import factor_columns, failed, finished, usable, values
from ablate.study.contrast import ACROSS, Cells, Contrast, level_text
from ablate.study.hypotheses import Claim

_STATUS = {"status"}


@dataclass(frozen=True)
class Resolved:
    """A claim on the trials that there are.

    weights (C,), cells: C arrays (n_c,), strata (C,): the cells with weight, weights within a
    stratum.
    units: C arrays (n_c,) of labels; replicates with the same label are of one seed.
    pairing: which of it is paired, in words.
    blocks: the cells that differ in one factor only, when the contrast is one of a single factor; else
        None. exchangeable: whether their labels may be shuffled, as nothing is paired.
    places: C arrays (n_c,) of the runs' places in `Runs.score`, from which `cells` are taken.
    trials: index labels of the table's rows that were used; failed: of those that failed, of the cells
        it is about; missing: their (cell, seed) pairs with neither a value nor a failure.
    notes: what was left out, in words. lost: the data sets that lack a cell that it needs.
    """

    strata: tuple[str, ...]
    names: tuple[str, ...]
    weights: Floats
    cells: tuple[Floats, ...]
    units: tuple[Units, ...]
    pairing: str
    blocks: tuple[Block, ...] | None
    exchangeable: bool
    trials: pd.Index
    failed: frozenset[object]
    missing: frozenset[object]
    notes: tuple[str, ...]
    lost: tuple[str, ...] = ()
    places: tuple[Units, ...] = ()

    def rescored(self, score: Floats) -> Resolved:
        """The same on other values (n,) of the same runs, in the order of `Runs.score`; without blocks."""
        return replace(self, cells=tuple(score[mine] for mine in self.places), blocks=None)

    @property
    def replicated(self) -> bool:
        """Whether every cell has the two seeds that the fixed estimand needs."""
        return all(
            len(cell) >= 2 for cell, w in zip(self.cells, self.weights, strict=True) if w != 0.0
        )

    @property
    def paired(self) -> bool:
        """Whether every seed is in every cell, so that each gives a contrast of its own."""
        return all(np.array_equal(unit, self.units[0]) for unit in self.units)

    @property
    def fixed(self) -> Estimate:
        """The mean over these data sets of the contrast, for new seeds.

        Raises ValueError unless `replicated`.
        """
        return combine(self.weights / len(self.names), self.cells, self._shared)

    @property
    def _shared(self) -> tuple[Units, ...] | None:
        """The units, where any two cells share one."""
        return None if self.exchangeable else self.units

    @property
    def terms(self) -> Floats:
        """Each seed's share in the estimate (n,); empty unless `paired`."""
        if not self.paired:
            return np.empty(0)
        shares = self.weights / len(self.names)
        total: Floats = (shares[:, None] * np.stack(self.cells)).sum(axis=0) / len(self.units[0])
        return total

    @property
    def contrasts(self) -> Floats:
        """The contrast of cell means on each of `names` (D,)."""
        means = self.weights * np.array([cell.mean() for cell in self.cells])
        return np.array([math.fsum(means[self._of(name)]) for name in self.names])

    @property
    def by_data_set(self) -> dict[str, Estimate]:
        """The contrast on each data set (on the one stratum of a contrast between data sets).

        Its variance is nan where a cell has a single seed.
        """
        found = {}
        for name, value in zip(self.names, self.contrasts.tolist(), strict=True):
            mine = self._of(name)
            if all(len(self.cells[i]) >= 2 for i in mine if self.weights[i] != 0.0):
                units = None if self.exchangeable else [self.units[i] for i in mine]
                found[name] = combine(self.weights[mine], [self.cells[i] for i in mine], units)
            else:
                found[name] = Estimate(value, math.nan, math.nan, len(mine), 0)
        return found

    @property
    def replicates(self) -> tuple[Floats, list[Floats]]:
        """What says how much seeds vary, for the mixed model: scales (D,) and independent samples.

        Each data set's contrasts by seed where all are paired, else the cells' runs.
        """
        members = [self._of(name) for name in self.names]
        if all(
            np.array_equal(self.units[i], self.units[mine[0]]) for mine in members for i in mine
        ):
            by_seed = [
                (self.weights[m, None] * np.stack([self.cells[i] for i in m])).sum(axis=0)
                for m in members
            ]
            return np.array([1.0 / len(seeds) for seeds in by_seed]), by_seed
        parts = np.square(self.weights) / np.array([len(cell) for cell in self.cells])
        scales = np.array([math.fsum(parts[mine]) for mine in members])
        used = [c for c, w in zip(self.cells, self.weights, strict=True) if w != 0.0]
        return scales, used

    def _of(self, name: str) -> list[int]:
        return [i for i, stratum in enumerate(self.strata) if stratum == name]


@dataclass(frozen=True)
class Untestable:
    """Why there is nothing to test; failed, missing as in `Resolved`."""

    reason: str
    failed: frozenset[object]
    missing: frozenset[object]


def shuffled_factor(contrast: Contrast) -> str | None:
    """The one factor that the contrast is about, whose labels may be shuffled, or None.

    That is a factor whose coefficients sum to 0 at all levels of the contrast's other factors,
    while none of its levels counts now for and now against. No contrast has two of them. An
    interaction or a share of an effect has none: there "the contrast is 0" allows effects that
    cancel; nor has a mean.
    """
    for i, factor in enumerate(contrast.factors):
        sums: dict[tuple[str, ...], float] = defaultdict(float)
        signs: dict[str, set[bool]] = defaultdict(set)
        for levels, coefficient in contrast.terms.items():
            sums[levels[:i] + levels[i + 1 :]] += coefficient
            signs[levels[i]].add(coefficient > 0.0)
        balanced = all(abs(total) < 1e-9 for total in sums.values())
        if balanced and all(len(sign) == 1 for sign in signs.values()):
            return factor
    return None


@dataclass(frozen=True)
class Runs:
    """A table's runs by cell, as all claims about one metric share them.

    factors: the columns of a cell's key. every: key -> places (n,) in the table of its rows, whatever their status.
    cells: these cells, labelled by their keys, in this order; at: key -> its place among them.
    done: key -> places in the arrays below, of finished runs with a value, by seed. score, seed, place (n,): their
    values, seeds as numbers from 0, rows of the table. failed (rows,): which rows did.
    """

    table: pd.DataFrame
    factors: list[str]
    every: dict[tuple[Any, ...], np.ndarray]
    cells: Cells
    at: dict[tuple[Any, ...], int]
    done: dict[tuple[Any, ...], np.ndarray]
    score: Floats
    seed: Units
    place: Units
    failed: np.ndarray


def runs(table: pd.DataFrame, metric: str) -> Runs:
    """The runs of `table` that have the metric."""
    factors = factor_columns(table)
    rows = usable(
        table[
            list(dict.fromkeys([*factors, "seed", *_STATUS.intersection(table.columns), metric]))
        ],
        metric,
    )
    every = _cells(table, factors)
    return Runs(
        table=table,
        factors=factors,
        every=every,
        cells=_labelled(list(every), factors),
        at={key: place for place, key in enumerate(every)},
        done=_cells(rows, factors),
        score=values(rows, metric),
        seed=pd.factorize(rows["seed"], sort=True)[0],
        place=table.index.get_indexer(rows.index),
        failed=failed(table),
    )


def resolve(
    claim: Claim,
    table: pd.DataFrame,
    metric: str,
    paired: bool = True,
    known: Runs | None = None,
    count: bool = True,
) -> Resolved | Untestable:
    """The claim's trials, or why there is nothing to test.

    paired: whether equal seeds of different cells share anything. known: `runs` of table and metric, where several
    claims are asked. count: also what is missing. Cells with fewer than `claim.replicates` usable seeds count as
    missing: below two they show no spread. What needs them is left out of the average (`Contrast.weights`) and said
    in `notes`, as are unequal numbers of seeds.
    """
    known = known or runs(table, metric)
    factors = known.factors
    keys = known.cells.labels
    selected = {keys[i]: known.every[keys[i]] for i in _named(claim, known.cells)}
    groups = {key: places for key, places in known.done.items() if key in selected}
    there = np.concatenate([*selected.values(), np.array([], dtype=int)])
    failures = frozenset(table.index[there[known.failed[there]]])
    gaps = _missing(known, selected, groups) if count else frozenset()
    full = [key for key, index in groups.items() if len(index) >= claim.replicates]
    thin = len(groups) - len(full)
    weights = None
    if full:
        weights = claim.contrast.weights(known.cells.take(known.at[key] for key in full))
    if weights is None or not weights.strata:
        reason = "no trial is about it"
        if selected:
            few = "no finished trial" if claim.replicates == 1 else "fewer than two finished trials"
            reason = f"some cell that it needs wasn't run or has {few}"
            ended = finished(table)[there]
            if ended.any() and table[metric].iloc[there[ended]].isna().all():
                reason = f"'{metric}' has no value in any of its {ended.sum()} finished trials"
        return Untestable(reason, failures, gaps)
    used = weights.cells
    members = [groups[key] for key in used]
    strata = weights.stratum
    share = np.array(weights.weight, dtype=float)  # (C,)
    named = {*claim.contrast.factors, "data"}
    pairs = pair(
        _combinations([_others(key, factors, named) for key in used], strata),
        [known.seed[m] for m in members],
        [known.place[m] for m in members],
        paired=paired,
    )
    members = [m[kept] for m, kept in zip(members, pairs.kept, strict=True)]
    arrays = tuple(known.score[m] for m in members)
    notes = [f"left out: {text}" for text in weights.incomplete]
    if thin:
        notes.append(f"{thin} cells with a single finished seed were left out")
    notes += pairs.notes
    data = factors.index("data")
    lost = sorted({str(key[data]) for key in selected} - set(strata))
    lost = [] if strata[0] == ACROSS else lost
    if lost:
        notes.append(f"no complete contrast on {', '.join(lost)}")
    blocks = None
    if min(map(len, arrays)) >= 2:
        blocks = _blocks(claim.contrast, used, factors, share / len(weights.strata), arrays)
    return Resolved(
        strata=strata,
        names=tuple(weights.strata),
        weights=share,
        cells=arrays,
        units=pairs.units,
        pairing=pairs.words,
        blocks=blocks,
        exchangeable=not pairs.any,
        trials=table.index[np.unique(known.place[np.concatenate(members)])],
        failed=failures,
        missing=gaps,
        notes=tuple(notes),
        lost=tuple(lost),
        places=tuple(members),
    )


@dataclass(frozen=True)
class Pairs:
    """Which seeds of the cells count, and which belong together.

    kept: for every cell the places (n_c,) of the runs that count; units: their labels. any: whether any
    combination is paired. words, notes: the same for a reader.
    """

    kept: tuple[np.ndarray, ...]
    units: tuple[Units, ...]
    any: bool
    words: str
    notes: tuple[str, ...]


def pair(
    combinations: Sequence[Sequence[int]],
    seeds: Sequence[Units],
    runs: Sequence[Units],
    *,
    paired: bool,
) -> Pairs:
    """Pair cells by their seeds, combination by combination, as the head of this file says.

    combinations: the cells of each; seeds, runs: of every cell, arrays (n_c,) of numbers from 0: seeds once in
    a cell, runs once in the table.
    """
    kept = [np.arange(len(mine)) for mine in seeds]
    units = list(seeds)
    label = 1_000_000_000  # of runs that stand alone: beyond any seed's
    lengths: list[int] = []  # seeds of the paired combinations
    sizes: list[int] = []  # runs of the cells of the others
    left_out = 0
    for members in combinations:
        least = min(len(seeds[i]) for i in members)
        first = seeds[members[0]]
        if not paired:
            shared = first[:0]
        elif all(np.array_equal(seeds[i], first) for i in members):
            shared = first  # by seed, as they stand in a cell
        else:
            shared = functools.reduce(np.intersect1d, (seeds[i] for i in members))
        if paired and len(shared) >= min(2, least) and 2 * len(shared) > least:
            for i in members:
                place = np.flatnonzero(np.isin(seeds[i], shared))
                kept[i] = place[np.argsort(seeds[i][place], kind="stable")]
                units[i] = seeds[i][kept[i]]
                left_out += len(seeds[i]) - len(kept[i])
            lengths.append(len(shared))
            continue
        for i in members:
            units[i] = label + runs[i]
            sizes.append(len(seeds[i]))
    notes = []
    if left_out:
        trials = "trial was" if left_out == 1 else "trials were"
        notes.append(f"{left_out} {trials} left out: some cell to be compared with lacks the seed")
    if sizes and min(sizes) < max(sizes):
        notes.append(f"cells have {min(sizes)} to {max(sizes)} seeds, used as they are")
    return Pairs(
        tuple(kept),
        tuple(units),
        bool(lengths),
        _pairing(lengths, len(combinations), paired),
        (*notes,),
    )


def _pairing(lengths: Sequence[int], combinations: int, paired: bool) -> str:
    """What is paired, in words."""
    if not paired:
        return "unpaired: equal seeds of different cells share nothing that is known"
    if not lengths:
        return "unpaired: the cells share too few seeds"
    least, most = min(lengths), max(lengths)
    number = f"{most}" if least == most else f"{least} to {most}"
    told = f"paired within {number} {'seed' if most == 1 else 'seeds'}"
    if len(lengths) == combinations:
        return told
    return (
        f"{told} in {len(lengths)} of {combinations} comparisons, unpaired in the others: their cells"
        " share too few seeds"
    )


def _combinations(others: Sequence[tuple[object, ...]], strata: Sequence[str]) -> list[list[int]]:
    """The cells of each stratum and combination of `others`, the levels that the contrast doesn't name."""
    found: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i, key in enumerate(others):
        found[(strata[i], *key)].append(i)
    return list(found.values())


def _others(
    key: tuple[object, ...], factors: Sequence[str], named: Collection[str]
) -> tuple[object, ...]:
    """The levels of a cell's key at all factors but these."""
    return tuple(level for name, level in zip(factors, key, strict=True) if name not in named)


def _labelled(keys: Sequence[tuple[Any, ...]], factors: Sequence[str]) -> Cells:
    """The cells of these keys, labelled by them."""
    columns = list(zip(*keys, strict=True)) if keys else [()] * len(factors)
    levels = dict(zip(factors, columns, strict=True))
    texts = {name: [level_text(level) for level in column] for name, column in levels.items()}
    return Cells(keys, levels, texts)


def _cells(rows: pd.DataFrame, factors: list[str]) -> dict[tuple[Any, ...], np.ndarray]:
    """The places of the rows of each cell, cells in the order of their first row."""
    codes = rows.groupby(factors, observed=True, sort=False, dropna=False).ngroup().to_numpy()
    order = np.argsort(codes, kind="stable")
    places = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1) if len(rows) else []
    keys = rows[factors].iloc[[mine[0] for mine in places]].itertuples(index=False, name=None)
    return dict(zip(keys, places, strict=True))


def _named(claim: Claim, cells: Cells) -> list[int]:
    """The places of the cells at which the claim holds, at levels that its contrast names."""
    named = cells.keys(claim.contrast.factors)
    return [i for i in cells.at(claim.where) if named[i] in claim.contrast.terms]


def _missing(
    known: Runs,
    selected: Mapping[tuple[Any, ...], np.ndarray],
    groups: Mapping[tuple[Any, ...], np.ndarray],
) -> frozenset[object]:
    """(cell, seed) pairs without a value and without a failure. Every seed that some trial of a
    data set has is expected in all of the data set's cells."""
    seeds = known.table["seed"].to_numpy()
    data = known.factors.index("data")
    of_data: dict[object, list[np.ndarray]] = {}
    for key, places in known.every.items():
        of_data.setdefault(key[data], []).append(places)
    lacking: set[object] = set()
    expected: dict[object, np.ndarray] = {}
    for key, places in selected.items():
        if key[data] not in expected:
            expected[key[data]] = pd.unique(seeds[np.concatenate(of_data[key[data]])])
        lost = places[known.failed[places]]
        there = [known.place[groups[key]], lost] if key in groups else [lost]
        mine = seeds[np.concatenate(there)]
        absent = expected[key[data]][~np.isin(expected[key[data]], mine)]
        lacking.update((key, seed) for seed in absent.tolist())
    return frozenset(lacking)


def _blocks(
    contrast: Contrast,
    used: Sequence[tuple[object, ...]],
    factors: Sequence[str],
    weights: Floats,
    arrays: tuple[Floats, ...],
) -> tuple[Block, ...] | None:
    """Cells that differ in the shuffled factor only, with their weights in the fixed estimand."""
    factor = shuffled_factor(contrast)
    if factor is None:
        return None
    found: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i, key in enumerate(used):
        found[_others(key, factors, {factor})].append(i)
    return tuple(Block(weights[i], tuple(arrays[j] for j in i)) for i in found.values())
