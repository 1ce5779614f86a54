"""How far scores scatter: between seeds of a cell, and of an effect between data sets.

From a pilot's trials, or from runs that others published. The SD between seeds is a cell's own
where the pilot has it, else the root mean square of its data set's cells, else of all. That of an
effect between data sets is what is left of the spread of the data sets' contrasts once the scatter
of their seeds is taken off (the method of moments, 0 when nothing is left).

Few seeds understate a spread more often than they overstate it (C. Colas, O. Sigaud and P.-Y.
Oudeyer, arXiv:1806.08295), so what follows from a pilot is also given at the upper 80 % limit of the
SD: s * sqrt(df / chi2_0.2(df)) (R. H. Browne, Statistics in Medicine 14 (1995) 1933-1940).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from ablate import words
from ablate.analyse.intervals import Floats, spread
from ablate.analyse.pairing import Resolved, Untestable, resolve
from ablate.analyse.tidy import factor_columns, usable, values
from ablate.errors import UserError, unknown
from ablate.study.contrast import level_text
from ablate.study.hypotheses import Claim

UPPER = 0.8  # the one-sided confidence of the upper limit of an SD


@dataclass(frozen=True)
class Published:
    """Spreads in normalised points, and where they were measured.

    seed: SD between seeds of a cell. by_data: SD of the interaction of algorithm and data set.
    """

    seed: float
    by_data: float
    source: str


# Variance components of published runs. Whole algorithms differ more between data sets than
# variants of one code base should, so `by_data` is a worst case.
PUBLISHED = {
    "d3rlpy": Published(
        10.7,
        17.0,
        "d3rlpy-benchmarks: 9 offline algorithms on 12 MuJoCo v0 data sets, 10 seeds; whole "
        "algorithms, so the spread between data sets is a worst case",
    ),
    "corl-locomotion": Published(
        6.2, 10.3, "CORL's table of locomotion, 4 seeds; whole algorithms, a worst case"
    ),
    "corl-antmaze": Published(
        7.9, 15.3, "CORL's table of AntMaze, 4 seeds; whole algorithms, a worst case"
    ),
    "corl-adroit": Published(
        9.0, 28.0, "CORL's table of Adroit, 4 seeds; whole algorithms, a worst case"
    ),
}
WORST_CASE = "d3rlpy"


@dataclass(frozen=True)
class Between:
    """SD of a contrast between data sets, with the degrees of freedom it is known to (infinite for
    a published one); None and why where it isn't known."""

    sd: float | None
    df: float = math.inf
    reason: str = ""


@dataclass(frozen=True)
class Spreads:
    """What is known of a metric's scatter on the cells of a design.

    seed, df: SD between seeds of every cell (C,), and the degrees of freedom that each is known to
    (0 where it is another cell's). between: of a claim. within: the SD of a seed's contrast, averaged over
    these data sets, where a pilot shows it. notes: what isn't the cell's own.
    """

    source: str
    seed: Floats
    df: Floats
    between: Callable[[Claim], Between]
    within: Callable[[Claim, tuple[str, ...]], Between] = lambda claim, names: Between(None)
    notes: tuple[str, ...] = ()


def upper(df: float) -> float:
    """The factor from an SD with `df` degrees of freedom to its upper 80 % limit; 1 when known."""
    if math.isinf(df):
        return 1.0
    if df < 0.5:
        return math.inf
    return math.sqrt(df / float(stats.chi2.ppf(1.0 - UPPER, df)))


def published(name: str, cells: pd.DataFrame, metric: str) -> Spreads:
    """Published spreads for the cells of a design. Raises UserError for an unknown name, or a
    metric that isn't in normalised points."""
    if name not in PUBLISHED:
        raise unknown("published spreads", name, PUBLISHED)
    if not words.response(metric).points:
        raise UserError(
            f"published spreads: they are of scores in normalised points, not of '{metric}'; give "
            "a pilot with --pilot TABLE."
        )
    known = PUBLISHED[name]

    def between(claim: Claim) -> Between:
        return Between(known.by_data * math.sqrt(sum(c * c for c in claim.contrast.terms.values())))

    seed = np.full(len(cells), known.seed)
    return Spreads(known.source, seed, np.full(len(cells), math.inf), between)


def from_pilot(
    pilot: pd.DataFrame, cells: pd.DataFrame, metric: str, name: str = "the pilot"
) -> Spreads:
    """The spreads of a pilot's finished trials (a tidy table) for the cells of a design.

    Cells are matched by the factor columns that both have. Raises UserError when no cell of the
    pilot has two finished trials, or none of them varies.
    """
    rows = usable(pilot, metric)
    score = values(rows, metric)
    own: dict[tuple[str, ...], list[Floats]] = {}
    by_data: dict[str, list[Floats]] = {}
    shared = [c for c in cells.columns if c in rows.columns]
    for _, index in rows.groupby(factor_columns(rows), observed=True, sort=False).indices.items():
        if len(index) < 2:
            continue
        first = rows.iloc[index[0]]
        own.setdefault(tuple(level_text(first[c]) for c in shared), []).append(score[index])
        by_data.setdefault(str(first["data"]), []).append(score[index])
    everything = [one for found in by_data.values() for one in found]
    if not everything:
        raise UserError(
            f"{name}: no cell has two finished trials with '{metric}', so nothing is known of the "
            "spread between seeds; allowed: two seeds or more of some cell."
        )
    if not any(spread(one) for one in everything):
        raise UserError(f"{name}: '{metric}' doesn't vary over the seeds of any cell.")
    pooled_of = {data: _pooled(found)[0] for data, found in by_data.items()}
    overall = _pooled(everything)[0]
    seed, df = np.empty(len(cells)), np.zeros(len(cells))
    from_data = from_all = 0
    for i, row in enumerate(cells[shared].itertuples(index=False, name=None)):
        found = own.get(tuple(level_text(value) for value in row))
        data = str(cells["data"].iloc[i])
        if found:
            seed[i], df[i] = _pooled(found)
        elif data in pooled_of:
            seed[i], from_data = pooled_of[data], from_data + 1
        else:
            seed[i], from_all = overall, from_all + 1
    notes = []
    if from_data:
        notes.append(f"{from_data} of {len(cells)} cells take their data set's SD between seeds")
    if from_all:
        notes.append(f"{from_all} of {len(cells)} cells take the SD between seeds of all cells")
    return Spreads(
        name,
        seed,
        df,
        lambda claim: between_data_sets(claim, pilot, metric),
        lambda claim, names: within_seeds(claim, names, pilot, metric),
        (*notes,),
    )


def between_data_sets(claim: Claim, pilot: pd.DataFrame, metric: str) -> Between:
    """The SD of a claim's contrast between the pilot's data sets, beyond the scatter of seeds."""
    known = factor_columns(pilot)
    lacking = [f for f in (*claim.where, *claim.contrast.factors) if f not in known]
    if lacking:
        return Between(None, reason=f"the pilot has no column '{lacking[0]}'")
    found = resolve(claim, pilot, metric)
    if isinstance(found, Untestable):
        return Between(None, reason="the pilot doesn't have the cells of the contrast")
    estimates = list(found.by_data_set.values())
    if len(estimates) < 2:
        return Between(None, reason="the pilot has the contrast on one data set only")
    total = float(np.var([e.value for e in estimates], ddof=1))
    scatter = float(np.mean([e.variance for e in estimates]))
    return Between(math.sqrt(max(total - scatter, 0.0)), len(estimates) - 1.0)


def within_seeds(claim: Claim, names: tuple[str, ...], pilot: pd.DataFrame, metric: str) -> Between:
    """The SD of a claim's contrast within seeds, averaged over the data sets `names`, in a pilot whose
    seeds are in all cells; it is known to n - 1 degrees of freedom."""
    known = factor_columns(pilot)
    lacking = [f for f in (*claim.where, *claim.contrast.factors) if f not in known]
    found = None if lacking else resolve(claim, pilot, metric)
    if not isinstance(found, Resolved) or set(found.names) != set(names) or not found.paired:
        return Between(None, reason="the pilot doesn't have the contrast within seeds")
    terms = found.terms * len(found.terms)
    return Between(float(np.std(terms, ddof=1)), len(terms) - 1.0)


def _pooled(groups: Sequence[Floats]) -> tuple[float, float]:
    """Root mean square SD of groups of replicates, weighted by degrees of freedom, and their sum."""
    df = float(sum(len(one) - 1 for one in groups))
    squares = sum(spread(one) * (len(one) - 1) for one in groups)
    return math.sqrt(squares / df), df
