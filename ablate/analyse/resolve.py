"""From a claim and a tidy table to the arrays that the tests want."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ablate.analyse.intervals import Estimate, Floats, combine
from ablate.analyse.table import factor_columns, failed, usable, values
from ablate.analyse.tests import Block
from ablate.study.contrast import ACROSS, Contrast, level_text
from ablate.study.hypotheses import Claim


@dataclass(frozen=True)
class Resolved:
    """A claim on the trials that there are.

    weights (C,), cells: C arrays (n_c,), strata (C,): the cells with weight, weights within a
    stratum.
    blocks: for the permutation test, when the contrast is one of a single factor; else None.
    paired: for each of `names` the contrast of every seed (n,), when all its cells have the same seeds
        on every data set; else None.
    terms (n,): for the sign-flip test, each seed's share in the estimate; empty without shared
    seeds.
    trials, failed: index labels of the table's rows that were used, and that failed, of the cells
        it is about; missing: their (cell, seed) pairs with neither a value nor a failure.
    notes: what was left out, in words.
    """

    strata: tuple[str, ...]
    names: tuple[str, ...]
    weights: Floats
    cells: tuple[Floats, ...]
    blocks: tuple[Block, ...] | None
    terms: Floats
    paired: tuple[Floats, ...] | None
    trials: frozenset[object]
    failed: frozenset[object]
    missing: frozenset[object]
    notes: tuple[str, ...]

    @property
    def replicated(self) -> bool:
        """Whether every cell has the two seeds that the fixed estimand needs."""
        return all(
            len(cell) >= 2 for cell, w in zip(self.cells, self.weights, strict=True) if w != 0.0
        )

    @property
    def fixed(self) -> Estimate:
        """The mean over these data sets of the contrast, for new seeds.

        Raises ValueError unless `replicated`.
        """
        return combine(self.weights / len(self.names), self.cells)

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
                found[name] = combine(self.weights[mine], [self.cells[i] for i in mine])
            else:
                found[name] = Estimate(value, math.nan, math.nan, len(mine), 0)
        return found

    @property
    def replicates(self) -> tuple[Floats, list[Floats]]:
        """What says how much seeds vary, for the mixed model: scales (D,) and independent samples.

        The seeds' contrasts where cells have the same seeds, so that what a seed does to all cells
        alike cancels; else the cells' runs.
        """
        if self.paired is not None:
            return np.array([1.0 / len(seeds) for seeds in self.paired]), list(self.paired)
        parts = np.square(self.weights) / np.array([len(cell) for cell in self.cells])
        scales = np.array([math.fsum(parts[self._of(name)]) for name in self.names])
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

    @property
    def trials(self) -> frozenset[object]:
        """No trial was used."""
        return frozenset()


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


def resolve(claim: Claim, table: pd.DataFrame, metric: str) -> Resolved | Untestable:
    """The claim's trials, or why there is nothing to test.

    Cells with fewer than `claim.replicates` usable seeds count as missing: below two they show no
    spread. What needs them is left out of the average (`Contrast.weights`) and said in `notes`, as
    are unequal numbers of seeds, which are used as they are.
    """
    factors = factor_columns(table)
    selected = _named(claim, table)
    rows = usable(selected, metric)
    found: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i, key in enumerate(rows[factors].itertuples(index=False, name=None)):
        found[key].append(i)
    failures = frozenset(selected.index[failed(selected)])
    gaps = _missing(selected, rows, table, factors)
    groups = {key: np.array(index) for key, index in found.items()}
    keys = [key for key, index in groups.items() if len(index) >= claim.replicates]
    thin = len(groups) - len(keys)
    cells = pd.DataFrame(keys, columns=factors)
    weights = claim.contrast.weights(claim.select(cells)) if keys else None
    if weights is None or not weights.strata:
        reason = "no trial is about it"
        if len(selected):
            few = "no finished trial" if claim.replicates == 1 else "fewer than two finished trials"
            reason = f"some cell that it needs wasn't run or has {few}"
        return Untestable(reason, failures, gaps)
    members = [groups[keys[i]] for i in weights.table.index]
    score, seeds = values(rows, metric), rows["seed"].to_numpy()
    used = cells.loc[weights.table.index]
    strata = tuple(str(s) for s in weights.table["stratum"])
    share = weights.table["weight"].to_numpy(dtype=float)  # (C,)
    arrays = tuple(score[m] for m in members)
    notes = [f"left out: {text}" for text in weights.incomplete]
    if thin:
        notes.append(f"{thin} cells with a single finished seed were left out")
    sizes = [len(a) for a, w in zip(arrays, share, strict=True) if w != 0.0]
    if min(sizes) < max(sizes):
        notes.append(f"cells have {min(sizes)} to {max(sizes)} seeds, used as they are")
    lost = sorted(set(map(str, selected["data"].unique())) - set(strata))
    if lost and strata[0] != ACROSS:
        notes.append(f"no complete contrast on {', '.join(lost)}")
    return Resolved(
        strata=strata,
        names=tuple(weights.strata),
        weights=share,
        cells=arrays,
        blocks=_blocks(claim.contrast, used, share / len(weights.strata), arrays)
        if min(map(len, arrays)) >= 2
        else None,
        terms=_terms(claim.contrast, used, strata, share, arrays, [seeds[m] for m in members]),
        paired=_paired(tuple(weights.strata), strata, share, arrays, [seeds[m] for m in members]),
        trials=frozenset(rows.index[np.concatenate(members)]),
        failed=failures,
        missing=gaps,
        notes=tuple(notes),
    )


def _named(claim: Claim, table: pd.DataFrame) -> pd.DataFrame:
    """The rows, whatever their status, at levels that the claim's contrast names."""
    rows = claim.select(table)
    if rows.empty:
        return rows
    levels = [rows[factor].map(level_text) for factor in claim.contrast.factors]
    return rows[[key in claim.contrast.terms for key in zip(*levels, strict=True)]]


def _missing(
    selected: pd.DataFrame, rows: pd.DataFrame, table: pd.DataFrame, factors: list[str]
) -> frozenset[object]:
    """(cell, seed) pairs without a value and without a failure. Every seed that some trial of a
    data set has is expected in all of the data set's cells."""
    seeds = {data: set(group) for data, group in table.groupby("data", observed=True)["seed"]}
    cells = selected[factors].drop_duplicates()
    expected = {
        (key, seed)
        for key, data in zip(
            cells.itertuples(index=False, name=None), cells["data"].tolist(), strict=True
        )
        for seed in seeds[data]
    }
    there = pd.concat([rows, selected[failed(selected)]])
    keys = there[factors].itertuples(index=False, name=None)
    return frozenset(expected - set(zip(keys, there["seed"].tolist(), strict=True)))


def _blocks(
    contrast: Contrast, used: pd.DataFrame, weights: Floats, arrays: tuple[Floats, ...]
) -> tuple[Block, ...] | None:
    """Cells that differ in the shuffled factor only, with their weights in the fixed estimand."""
    factor = shuffled_factor(contrast)
    if factor is None:
        return None
    found: dict[tuple[object, ...], list[int]] = defaultdict(list)
    others = used.drop(columns=factor)
    for i, key in enumerate(others.itertuples(index=False, name=None)):
        found[key].append(i)
    return tuple(Block(weights[i], tuple(arrays[j] for j in i)) for i in found.values())


def _terms(
    contrast: Contrast,
    used: pd.DataFrame,
    strata: tuple[str, ...],
    weights: Floats,
    arrays: tuple[Floats, ...],
    seeds: list[np.ndarray],
) -> Floats:
    """Each (stratum, seed)'s share in the estimate, over the seeds that a combination's cells
    share.

    Within a combination of the factors that the contrast doesn't name, the mean over seeds of
    per-seed contrasts; a seed lacking in one cell drops out of that combination only.
    """
    named = [*contrast.factors]
    combinations: dict[tuple[object, ...], list[int]] = defaultdict(list)
    others = used.drop(columns=[*named, *(["data"] if "data" not in named else [])])
    for i, key in enumerate(others.itertuples(index=False, name=None)):
        combinations[(strata[i], *key)].append(i)
    terms: dict[tuple[str, object], float] = defaultdict(float)
    number = len(set(strata))
    for key, members in combinations.items():
        shared = set.intersection(*(set(seeds[i].tolist()) for i in members))
        if not shared:
            return np.empty(0)
        for i in members:
            for seed, value in zip(seeds[i].tolist(), arrays[i], strict=True):
                if seed in shared:
                    terms[(str(key[0]), seed)] += weights[i] * value / (len(shared) * number)
    return np.array([terms[key] for key in sorted(terms, key=str)])


def _paired(
    names: tuple[str, ...],
    strata: tuple[str, ...],
    weights: Floats,
    arrays: tuple[Floats, ...],
    seeds: list[np.ndarray],
) -> tuple[Floats, ...] | None:
    """Each stratum's contrast by seed, where all its cells have the same seeds, in one order."""
    found = []
    for name in names:
        mine = [i for i, stratum in enumerate(strata) if stratum == name]
        first = seeds[mine[0]]
        if any(not np.array_equal(seeds[i], first) for i in mine[1:]):
            return None
        found.append(np.array([weights[i] * arrays[i] for i in mine]).sum(axis=0))
    return tuple(found)
