"""Descriptions of the trials: cell summaries, how far seeds pair variants, learning curves."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ablate.analyse.intervals import Floats, combine, interval
from ablate.analyse.randomisation import generator
from ablate.analyse.tidy import factor_columns, usable

_SHUFFLES = 1000
_MOST_SHUFFLED = 10_000_000  # values in all, beyond which there are fewer shuffles, of 50 at least


def mean_interval(scores: Floats, confidence: float = 0.95) -> tuple[float, float]:
    """t interval of the mean of `scores` (n,); (nan, nan) below two values."""
    if len(scores) < 2:
        return float("nan"), float("nan")
    return interval(combine([1.0], [scores]), confidence)


def pairing(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """How far equal seeds make variants alike: mean correlation over pairs of cells, by data set.

    One row a data set: data, correlation, p, cells, seeds, left_out. Cells are the variants that
    vary and have every seed of the data set (`left_out` counts the others). `p` is two-sided, from
    shuffling the seeds within each cell. Positive: contrasts formed within seeds are sharper than
    unpaired ones. Rows without at least two such cells and three seeds hold nan.
    """
    rows = []
    for data, group in usable(table, metric).groupby("data", sort=True, observed=True):
        by = [name for name in factor_columns(table) if name != "data"]
        wide = group.pivot(index="seed", columns=by, values=metric) if by else pd.DataFrame()
        scores = wide.to_numpy(dtype=float).T  # (cells, seeds)
        whole = ~np.isnan(scores).any(axis=1) & (np.ptp(scores, axis=1) > 0.0)
        correlation, p = _mean_correlation(scores[whole], f"pairing/{data}/{metric}")
        rows.append(
            {
                "data": data,
                "correlation": correlation,
                "p": p,
                "cells": int(whole.sum()),
                "seeds": scores.shape[1],
                "left_out": int((~whole).sum()),
            }
        )
    return pd.DataFrame(rows, columns=["data", "correlation", "p", "cells", "seeds", "left_out"])


def _mean_correlation(scores: Floats, name: str) -> tuple[float, float]:
    """Mean off-diagonal correlation of the rows of `scores` (cells, seeds), and its shuffling p."""
    k, n = scores.shape
    if k < 2 or n < 3:
        return float("nan"), float("nan")
    z = (scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, ddof=1, keepdims=True)

    def mean_r(standardised: Floats) -> Floats:  # (..., cells, seeds) -> (...,)
        # Var(sum of k unit-variance columns) = k + k (k - 1) r
        spread = np.var(standardised.sum(axis=-2), axis=-1, ddof=1)
        r: Floats = (spread - k) / (k * (k - 1))
        return r

    observed = float(mean_r(z))
    rng = generator(name)
    shuffles = min(_SHUFFLES, max(50, _MOST_SHUFFLED // z.size))
    null = np.array([float(mean_r(rng.permuted(z, axis=1))) for _ in range(shuffles)])
    hits = int((np.abs(null) >= abs(observed) - 1e-12).sum())
    return observed, (hits + 1) / (shuffles + 1)
