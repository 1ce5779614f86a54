"""What figures and score tables show: cell means, effects of context, and which slice is drawn.

These are descriptions with seed intervals; the tests and verdicts are `ablate.analyse`'s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ablate import words
from ablate.analyse import descriptive
from ablate.analyse import tidy as frame
from ablate.study.contrast import level_text, level_texts
from ablate.study.hypotheses import Hypothesis, pairs

MOST_SERIES = 10  # levels told apart by colour and marker


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


def mentioned(name: str, hypotheses: Sequence[Hypothesis]) -> int:
    """How many hypotheses compare levels of the factor `name`."""
    return sum(
        f"{name}[" in one.contrast or pairs(one.contrast) == name or one.each == name
        for one in hypotheses
    )


def varied(table: pd.DataFrame, hypotheses: Sequence[Hypothesis] = ()) -> list[str]:
    """The factors but data that vary: those that most hypotheses compare first."""
    names = [
        name
        for name in frame.factor_columns(table)
        if name != "data" and table[name].nunique(dropna=False) > 1
    ]
    return sorted(
        names, key=lambda name: (-mentioned(name, hypotheses), words.factor(name).order, name)
    )


@dataclass(frozen=True)
class View:
    """What a figure or table of a response shows.

    across: the factor along the axis; series: the one told by colour and marker, empty for none; panels:
    data set -> at which levels the other factors are held, and the finished trials there.
    """

    across: str
    series: str
    panels: dict[str, tuple[dict[str, Any], pd.DataFrame]]

    @property
    def ordered(self) -> bool:
        """Whether the factor along the axis is a number."""
        return all(
            pd.api.types.is_numeric_dtype(rows[self.across]) for _, rows in self.panels.values()
        )

    def levels(self, name: str) -> list[Any]:
        """The levels of a factor that are shown, in the order in which people read them."""
        if not name:
            return []
        column = pd.concat([rows[name] for _, rows in self.panels.values()])
        if isinstance(
            column.dtype, pd.CategoricalDtype
        ):  # a table from elsewhere declares an order
            present = set(column)
            return [level for level in column.cat.categories if level in present]
        return words.levels(name, column.dropna().unique().tolist())

    def cells(self, data: str, metric: str) -> dict[tuple[Any, Any], Interval]:
        """(level across, level of the series or "") -> mean over seeds of `metric`."""
        _, rows = self.panels[data]
        found = by_level(rows, [self.across, *filter(None, [self.series])], metric)
        return {(key[0], key[1] if self.series else ""): cell for key, cell in found.items()}


def axes(done: pd.DataFrame, hypotheses: Sequence[Hypothesis] = ()) -> tuple[str, str]:
    """The factor along the axis and the one told by colour, each empty where there is none."""
    names = varied(done, hypotheses)
    numbers = [name for name in names if pd.api.types.is_numeric_dtype(done[name])]
    across = (numbers or names or [""])[0]
    few = (n for n in names if n != across and done[n].nunique(dropna=False) <= MOST_SERIES)
    return across, next(few, "")


def view(
    table: pd.DataFrame, metric: str, hypotheses: Sequence[Hypothesis] = (), ordered: bool = False
) -> View | None:
    """What to show of `metric`: two factors, and of the others the levels at which these two are crossed
    most completely.

    Along the axis stands a factor whose levels are numbers, where there is one, and else the factor that
    most hypotheses compare; by colour, of those with few levels, the one that most compare. ordered: only
    with numbers along the axis. None where nothing varies.
    """
    done = finished(table)
    if metric not in done.columns:
        return None
    done = done[done[metric].notna()]
    across, series = axes(done, hypotheses)
    if not across or (ordered and not pd.api.types.is_numeric_dtype(done[across])):
        return None
    panels = {}
    for name, levels in core(done, across, series).items():
        rows = at(done[done["data"] == name], levels)
        if rows[across].nunique() > 1 or not ordered:
            panels[str(name)] = (levels, rows)
    return View(across, series, panels) if panels else None


def sliced(table: pd.DataFrame, *shown: str) -> list[str]:
    """The factors that a figure must hold still to show the factors `shown`: all others that vary."""
    return [
        name
        for name in frame.factor_columns(table)
        if name not in ("data", *shown) and table[name].nunique(dropna=False) > 1
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
                values, tuple(group["trial"].tolist())
            )
    return out


def core(table: pd.DataFrame, *shown: str) -> dict[str, dict[str, Any]]:
    """For each data set the levels of the remaining factors at which those `shown` are crossed most
    completely.

    One slice serves every data set where it can: a data set leaves the common one only when it has
    no more than half as many cells there as in its own best.
    """
    done = finished(table)
    held = sliced(done, *shown)
    names = words.levels("data", done["data"].unique())
    if not held:
        return {name: {} for name in names}
    cells = done[["data", *filter(None, shown), *held]].drop_duplicates()
    size = cells.groupby(["data", *held], dropna=False, observed=True).size()
    total = cells.groupby(held, dropna=False, observed=True).size()
    order = sorted(
        _keys(total.index),
        key=lambda key: (
            -_at(total, key),
            [words.place(name, level) for name, level in zip(held, key, strict=True)],
        ),
    )
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


def at(rows: pd.DataFrame, levels: dict[str, Any]) -> pd.DataFrame:
    """The rows at these levels, which are compared as hypotheses compare them (`level_text`)."""
    for name, value in levels.items():
        here = rows[name]
        same = here.isna() if pd.isna(value) else level_texts(here) == level_text(value)
        rows = rows[same]
    return rows


def crossing(table: pd.DataFrame, hypotheses: Sequence[Hypothesis] = ()) -> pd.DataFrame:
    """The trials whose variance is taken apart: the data sets that the most cells cross alike, at the
    levels that the figure of the response shows; the whole table where no more than two factors vary."""
    done = finished(table)
    shown = [name for name in axes(done, hypotheses) if name]
    if len(varied(done)) < 3:
        return table
    groups: dict[tuple, list[pd.DataFrame]] = {}
    for name, levels in core(table, *shown).items():
        rows = at(done[done["data"] == name], levels)
        cells = rows[shown].drop_duplicates()
        key = (repr(levels), *sorted(map(tuple, cells.to_numpy().tolist()), key=str))
        groups.setdefault(key, []).append(rows)
    largest = max(groups, key=lambda key: (len(groups[key]) * (len(key) - 1), str(key)))
    return pd.concat(groups[largest])
