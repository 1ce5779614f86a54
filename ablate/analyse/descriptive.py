"""Descriptions of the trials: cell summaries, how far seeds pair variants, learning curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from ablate.analyse.intervals import Floats, combine, interval
from ablate.analyse.table import factor_columns, failed, finished, usable, values
from ablate.analyse.tests import generator

_SHUFFLES = 1000


def iqm(scores: Floats) -> float:
    """Interquartile mean of `scores` (n,): the mean without the lowest and the highest quarter."""
    return float(stats.trim_mean(scores, 0.25))


def mean_interval(scores: Floats, confidence: float = 0.95) -> tuple[float, float]:
    """t interval of the mean of `scores` (n,); (nan, nan) below two values."""
    if len(scores) < 2:
        return float("nan"), float("nan")
    return interval(combine([1.0], [scores]), confidence)


def cell_summary(
    table: pd.DataFrame,
    metric: str = "score",
    factors: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """One row a cell: the factors, then n, failed, missing, mean, low, high, sd, iqm of `metric`.

    `n` counts finished trials with a value; `failed` those that failed; `missing` the rest of the
    rows.
    """
    by = list(factors) if factors is not None else factor_columns(table)
    rows = []
    for key, group in table.groupby(by, sort=True, observed=True, dropna=False):
        scores = values(usable(group, metric), metric)
        n, n_failed = len(scores), int(failed(group).sum())
        low, high = mean_interval(scores, confidence)
        rows.append(
            {
                **dict(zip(by, key, strict=True)),
                "n": n,
                "failed": n_failed,
                "missing": len(group) - n - n_failed,
                "mean": float(scores.mean()) if n else float("nan"),
                "low": low,
                "high": high,
                "sd": float(scores.std(ddof=1)) if n > 1 else float("nan"),
                "iqm": iqm(scores) if n else float("nan"),
            }
        )
    columns = [*by, "n", "failed", "missing", "mean", "low", "high", "sd", "iqm"]
    return pd.DataFrame(rows, columns=columns)


def pairing(table: pd.DataFrame, metric: str = "score") -> pd.DataFrame:
    """How far equal seeds make variants alike: mean correlation over pairs of cells, by data set.

    One row a data set: data, correlation, p, cells, seeds, left_out. Cells are the variants that
    vary and have every seed of the data set (`left_out` counts the others). `p` is two-sided, from
    shuffling the seeds within each cell. Positive: paired contrasts are sharper than the
    intervals, which don't count on pairing. Rows without at least two such cells and three seeds
    hold nan.
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
    null = np.array([float(mean_r(rng.permuted(z, axis=1))) for _ in range(_SHUFFLES)])
    hits = int((np.abs(null) >= abs(observed) - 1e-12).sum())
    return observed, (hits + 1) / (_SHUFFLES + 1)


def learning_curves(
    curves: pd.DataFrame,
    table: pd.DataFrame,
    metric: str,
    by: Sequence[str],
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Bands of `metric` over updates: one row a (cell, update): by..., update, n, mean, low, high.

    curves: columns trial, update, metric; table: trial and the columns `by`. Trials that didn't
    finish are left out, as in every mean; so are updates at which the metric wasn't measured.
    """
    rows = []
    known = table.loc[finished(table), ["trial", *by]]
    joined = curves[["trial", "update", metric]].dropna().merge(known, on="trial", how="inner")
    for key, group in joined.groupby([*by, "update"], sort=True, observed=True):
        # More than one factor combination may fall into a band: trials are its replicates.
        scores = values(group, metric)
        low, high = mean_interval(scores, confidence)
        row = dict(zip([*by, "update"], key, strict=True))
        rows.append(
            {**row, "n": len(scores), "mean": float(scores.mean()), "low": low, "high": high}
        )
    return pd.DataFrame(rows, columns=[*by, "update", "n", "mean", "low", "high"])
