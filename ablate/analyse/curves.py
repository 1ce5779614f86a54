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
    """mean, low, high (U,) at updates (U,), from `runs` runs; bounds are nan where some data set has
    a single run."""

    updates: Floats
    mean: Floats
    low: Floats
    high: Floats
    runs: int


@dataclass(frozen=True)
class Bands:
    """Bands by variant on the same data sets; left_out: data sets and runs that are not in them."""

    bands: dict[str, Band]
    data_sets: tuple[str, ...]
    trials: tuple[str, ...]
    left_out: tuple[str, ...]


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
    update that most runs have are left out, and said. Raises UserError as `strata` does.
    """
    own = curves.loc[curves["trial"].isin(table["trial"]), ["trial", "update", metric]]
    wide = own.pivot(index="trial", columns="update", values=metric)
    wide = wide.loc[:, np.isfinite(wide.to_numpy(dtype=float)).mean(axis=0) > 0.5]
    complete = wide[np.isfinite(wide.to_numpy(dtype=float)).all(axis=1)]
    # `strata` sorts the trials; the place of each in `complete` travels as its value.
    place = pd.Series(np.arange(len(complete)), index=complete.index)
    shown = table.assign(**{metric: table["trial"].map(place)})
    found = strata(shown, by, metric, where)
    values = complete.to_numpy(dtype=float)
    updates = complete.columns.to_numpy(dtype=float)
    made = {
        variant: band(updates, [values[cell.astype(int)] for cell in cells], confidence)
        for variant, cells in found.scores.items()
    }
    lost = len(usable(table.assign(**{metric: 0.0}), metric)) - len(usable(shown, metric))
    notes = found.left_out
    if lost:
        notes = (*notes, f"{lost} finished trials without a whole curve")
    return Bands(made, found.names, found.trials, notes)
