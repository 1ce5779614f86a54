"""What figures and score tables show: cell means, effects of context, and which slice is drawn.

These are descriptions with seed intervals; the tests and verdicts are `ablate.analyse`'s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ablate.analyse import descriptive, intervals
from ablate.analyse import table as frame
from ablate.analyse.intervals import Estimate

PREFERRED = {  # ties between equally complete slices go to the plainer one
    "condition": ("time", "none", "return-to-go", "return-to-go+time", "policy-id"),
    "history": ("states+actions", "states", "actions", "states+actions+rewards"),
    "head": ("mse", "mixture", "categorical"),
}


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its Student-t interval; `low`/`high` are NaN for a single seed."""

    mean: float
    low: float
    high: float
    n: int
    trials: tuple[str, ...] = field(default=(), compare=False)


def finished(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of trials that ended well."""
    return table.loc[frame.finished(table)]


def sliced(table: pd.DataFrame) -> list[str]:
    """The factors a figure must hold still to show mixer and context; not the settings that don't
    vary."""
    return [
        name
        for name in frame.factor_columns(table)
        if name not in ("data", "mixer", "context")
        and ("." not in name or table[name].nunique(dropna=False) > 1)
    ]


def mean_interval(values: np.ndarray, trials: tuple[str, ...] = ()) -> Interval:
    """Mean and 95 % Student-t interval of `values` (n,); NaNs are left out."""
    kept = values[np.isfinite(values)]
    if len(kept) == 0:
        return Interval(math.nan, math.nan, math.nan, 0, trials)
    return Interval(float(kept.mean()), *descriptive.mean_interval(kept), len(kept), trials)


def by_level(rows: pd.DataFrame, keys: list[str], metric: str) -> dict[tuple, Interval]:
    """Mean over seeds of `metric` for each combination of `keys`, in sorted order."""
    out: dict[tuple, Interval] = {}
    if metric not in rows.columns:
        return out
    for key, group in rows.groupby(keys, sort=True, dropna=False):
        values = group[metric].to_numpy(dtype=float)
        if np.isfinite(values).any():
            out[key if isinstance(key, tuple) else (key,)] = mean_interval(
                values, tuple(group["trial"])
            )
    return out


def core(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """For each data set the levels of the remaining factors at which mixer x context is most
    complete.

    One slice serves every data set where it can: a data set leaves the common one only when it has
    no more than half as many cells there as in its own best.
    """
    done = finished(table)
    held = sliced(done)
    names = sorted(done["data"].unique())
    if not held:
        return {name: {} for name in names}
    cells = done[["data", "mixer", "context", *held]].drop_duplicates()
    size = cells.groupby(["data", *held], dropna=False).size()
    total = cells.groupby(held, dropna=False).size()
    order = sorted(_keys(total.index), key=lambda key: (-_at(total, key), _plainness(held, key)))
    out = {}
    for name in names:
        own = {key: int(size.get((name, *key), 0)) for key in order}
        best = max(own.values())
        chosen = next(key for key in order if 2 * own[key] > best)
        out[name] = dict(zip(held, chosen, strict=True))
    return out


def _keys(index: pd.Index) -> list[tuple]:
    return [key if isinstance(key, tuple) else (key,) for key in index]


def _at(series: pd.Series, key: tuple) -> int:
    return int(series.loc[key if len(key) > 1 else key[0]])


def _plainness(held: list[str], key: tuple) -> tuple:
    ranks: list[object] = []
    for name, value in zip(held, key, strict=True):
        order = PREFERRED.get(name, ())
        ranks.append(order.index(value) if value in order else len(order))
        ranks.append(str(value))
    return tuple(ranks)


def at(rows: pd.DataFrame, levels: dict[str, Any]) -> pd.DataFrame:
    """The rows at these levels."""
    for name, value in levels.items():
        rows = rows[rows[name] == value] if not pd.isna(value) else rows[rows[name].isna()]
    return rows


def crossing(table: pd.DataFrame) -> pd.DataFrame:
    """The trials whose variance is taken apart: the data sets that the most cells cross alike, at the
    levels that the figure of scores shows; the whole of a table without mixers and contexts."""
    if not {"mixer", "context"} <= set(table.columns):
        return table
    done = finished(table)
    groups: dict[tuple, list[pd.DataFrame]] = {}
    for name, levels in core(table).items():
        rows = at(done[done["data"] == name], levels)
        cells = rows[["mixer", "context"]].drop_duplicates()
        key = (repr(levels), *sorted(map(tuple, cells.to_numpy().tolist())))
        groups.setdefault(key, []).append(rows)
    largest = max(groups, key=lambda key: (len(groups[key]) * (len(key) - 1), str(key)))
    return pd.concat(groups[largest])


@dataclass(frozen=True)
class Change:
    """Means at the shortest and the longest context, and the estimate of long minus short, over
    `mixers` with equal weights; ends: the two contexts."""

    short: float
    long: float
    estimate: Estimate
    ends: tuple[int, int]
    mixers: tuple[str, ...]
    trials: tuple[str, ...]


def context_change(rows: pd.DataFrame, metric: str, keep: set[str] | None = None) -> Change | None:
    """What the longest context of `rows` changes against the shortest, over the mixers run at both.

    keep: only these mixers. None where no mixer was run at both with at least two seeds each.
    """
    if metric not in rows.columns or rows.empty:
        return None
    rows = rows[np.isfinite(rows[metric].to_numpy(dtype=float))]
    if keep is not None:
        rows = rows[rows["mixer"].isin(keep)]
    if rows["context"].nunique() < 2:
        return None
    low, high = rows["context"].min(), rows["context"].max()
    cells: list[np.ndarray] = []
    mixers: list[str] = []
    trials: list[str] = []
    for name, group in rows.groupby("mixer", sort=True):
        short, long = (group[group["context"] == level] for level in (low, high))
        if len(short) >= 2 and len(long) >= 2:
            cells += [frame.values(long, metric), frame.values(short, metric)]
            mixers.append(str(name))
            trials += [*short["trial"], *long["trial"]]
    if not cells:
        return None
    n = len(mixers)
    return Change(
        short=float(np.mean([cell.mean() for cell in cells[1::2]])),
        long=float(np.mean([cell.mean() for cell in cells[::2]])),
        estimate=intervals.combine([1 / n, -1 / n] * n, cells),
        ends=(int(low), int(high)),
        mixers=tuple(mixers),
        trials=tuple(trials),
    )


def context_effect(
    rows: pd.DataFrame, metric: str, keep: set[str] | None = None
) -> Interval | None:
    """The change of `context_change` with its 95 % interval: Welch-Satterthwaite over the cells
    (Welch 1947, Satterthwaite 1946)."""
    change = context_change(rows, metric, keep)
    if change is None:
        return None
    bounds = intervals.interval(change.estimate)
    return Interval(change.estimate.value, *bounds, len(change.mixers), change.trials)


def context_mixers(rows: pd.DataFrame) -> set[str]:
    """The mixers with at least two seeds at both the shortest and the longest context of `rows`."""
    if rows.empty or rows["context"].nunique() < 2:
        return set()
    ends = rows[rows["context"].isin([rows["context"].min(), rows["context"].max()])]
    counts = ends.groupby(["mixer", "context"]).size().unstack()
    return set(counts.index[(counts.fillna(0) >= 2).all(axis=1)])
