"""Learning curves with bands: means over data sets and seeds at each update.

The mean over data sets of the means over seeds, with a pointwise Welch-Satterthwaite interval at
every update (fixed estimand, as in `ablate.analyse.intervals`, for all updates at once).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from ablate.analyse.intervals import Floats
from ablate.analyse.strata import strata
from ablate.analyse.table import usable


@dataclass(frozen=True)
class Band:
    """mean, low, high (U,) at updates (U,), or shares of them, from `runs` runs; bounds are nan where
    some data set has a single run."""

    updates: Floats
    mean: Floats
    low: Floats
    high: Floats
    runs: int


@dataclass(frozen=True)
class Bands:
    """Bands by variant on the same data sets; left_out: data sets and runs that are not in them.

    share: the variants train for different numbers of updates, and each curve stands over the share
    (0, 1] of its own.
    """

    bands: dict[str, Band]
    data_sets: tuple[str, ...]
    trials: tuple[str, ...]
    left_out: tuple[str, ...]
    share: bool = False


def band(updates: Floats, cells: Sequence[Floats], confidence: float = 0.95) -> Band:
    """The band of D data sets' curves, cells: D arrays (n_d, U)."""
    count = len(cells)
    sizes = np.array([len(cell) for cell in cells])
    mean = np.mean([cell.mean(axis=0) for cell in cells], axis=0)  # (U,)
    if sizes.min() < 2:
        gap = np.full(len(mean), math.nan)
        return Band(updates, mean, gap, gap, int(sizes.sum()))
    parts = np.array([cell.var(axis=0, ddof=1) / len(cell) for cell in cells]) / count**2  # (D, U)
    variance = parts.sum(axis=0)
    lost = np.square(parts) / (sizes - 1)[:, None]
    below = lost.sum(axis=0)
    df = np.divide(variance**2, below, out=np.full(len(mean), np.inf), where=below > 0.0)
    reach = stats.t.isf((1.0 - confidence) / 2.0, df) * np.sqrt(variance)
    return Band(updates, mean, mean - reach, mean + reach, int(sizes.sum()))


def bands(
    table: pd.DataFrame,
    curves: pd.DataFrame,
    by: Sequence[str],
    metric: str,
    where: Mapping[str, Sequence[object]] | None = None,
    confidence: float = 0.95,
) -> Bands:
    """Bands of the finished trials' curves by variant (combination of the factors `by`).

    curves: trial, update and `metric`, one row a point. Runs whose curve lacks a finite value at an
    update that most runs of their variant have are left out, and said. Raises UserError as `strata`
    does.
    """
    finished = usable(table.assign(**{metric: 0.0}), metric)
    own = curves.loc[curves["trial"].isin(finished["trial"]), ["trial", "update", metric]]
    wide = own.pivot(index="trial", columns="update", values=metric)
    values = wide.to_numpy(dtype=float)  # (runs, U)
    finite = np.isfinite(values)
    columns: dict[int, np.ndarray] = {}  # by place in `wide`: which updates the curve is read at
    for _, group in finished.groupby(list(by), dropna=False):
        places = np.flatnonzero(wide.index.isin(group["trial"]))
        if not len(places):
            continue
        read = np.flatnonzero(finite[places].mean(axis=0) > 0.5)
        columns |= {int(i): read for i in places if finite[i, read].all() and len(read)}
    # `strata` sorts the trials; the place of each in `wide` travels as its value.
    known = pd.Series(list(columns), index=wide.index[list(columns)])
    shown = table.assign(**{metric: table["trial"].map(known)})
    found = strata(shown, by, metric, where)
    updates = wide.columns.to_numpy(dtype=float)
    cells = {v: [cell.astype(int) for cell in each] for v, each in found.scores.items()}
    grids = {variant: columns[each[0][0]] for variant, each in cells.items()}
    last = {variant: updates[grid[-1]] for variant, grid in grids.items()}
    share = len(set(last.values())) > 1
    made = {
        variant: band(
            updates[grids[variant]] / (last[variant] if share else 1.0),
            [values[np.ix_(cell, grids[variant])] for cell in each],
            confidence,
        )
        for variant, each in cells.items()
    }
    lost = len(finished) - len(usable(shown, metric))
    notes = found.left_out
    if lost:
        notes = (*notes, f"{lost} finished trials without a whole curve")
    return Bands(made, found.names, found.trials, notes, share)
