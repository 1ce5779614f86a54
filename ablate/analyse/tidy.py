"""What the analysis knows of a tidy table: which columns are factors, which rows count.

A row is one trial. `status` "COMPLETED" (or no such column, as in tables that we didn't write) is a
finished trial; "FAILED" one that failed; anything else one that hasn't been finished yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from pandas.core.groupby import SeriesGroupBy

from ablate.analyse.intervals import Floats
from ablate.config import is_factor
from ablate.errors import UserError, unknown
from ablate.study.contrast import level_text
from ablate.study.entries import FILE

BOOKKEEPING = ("trial", "fit", "status", "seed", "budget", "converged", "failure")
FINISHED = "COMPLETED"
FAILED = "FAILED"


def factor_columns(table: pd.DataFrame) -> list[str]:
    """The factor columns of `table`, `data` first: those that a configuration has, and whatever
    else is categorical (as in a table from elsewhere, whose factors its study names)."""
    found = [
        str(name)
        for name in table.columns
        if is_factor(str(name)) or isinstance(table[name].dtype, pd.CategoricalDtype)
    ]
    return sorted(found, key=lambda name: name != "data")


def last_budget(table: pd.DataFrame) -> pd.DataFrame:
    """The rows at the largest budget of their cell; all rows where no column `budget` is.

    A seed that lacks the last checkpoint of its cell is missing there: no mean mixes budgets.
    """
    if "budget" not in table.columns:
        return table
    most = _by_cell(table).transform("max")
    return table[(table["budget"] == most) | most.isna()]


def several_budgets(table: pd.DataFrame) -> bool:
    """Whether any cell was measured at more than one budget."""
    return "budget" in table.columns and bool((_by_cell(table).nunique() > 1).any())


def _by_cell(table: pd.DataFrame) -> SeriesGroupBy:
    """The budgets, grouped by cell."""
    factors = factor_columns(table)
    if not factors:
        return table.assign(all=0).groupby("all")["budget"]
    return table.groupby(factors, observed=True, dropna=False)["budget"]


def apart_from_presets(table: pd.DataFrame, factors: Iterable[str]) -> pd.DataFrame:
    """The table without what presets bring along, where the study varies presets.

    Their mixer, context, scale and so on differ with the preset and are part of what it is; only the
    declared `factors` are varied beside it.
    """
    declared = {"data", *factors}
    if "preset" not in declared:
        return table
    return table.drop(columns=[name for name in factor_columns(table) if name not in declared])


def metric_columns(table: pd.DataFrame) -> list[str]:
    """The numeric columns that are neither factors nor bookkeeping."""
    apart = {*factor_columns(table), *BOOKKEEPING}
    return [
        name
        for name in table.columns
        if name not in apart and pd.api.types.is_numeric_dtype(table[name])
    ]


def unmeasured(table: pd.DataFrame) -> tuple[str, ...]:
    """Of each data set of the user's, a sentence that names the numbers of which no finished trial there has one."""
    told = []
    named = [column for column in metric_columns(table) if "." in column]
    done = table.loc[finished(table), ["data", *named]]
    own = done[done["data"].astype(str).str.startswith(FILE)]
    for name, rows in own.groupby("data", observed=True):
        empty = [column for column in named if rows[column].isna().all()]
        if empty:
            told.append(
                f"No value can be had on {name} of {', '.join(empty)}: these models don't predict it, or what it needs "
                "isn't in these data, as a known behaviour or states that the simulator can be put into."
            )
    return tuple(told)


def check(table: pd.DataFrame, metrics: Sequence[str]) -> None:
    """Refuse a table that cannot be analysed. Raises UserError naming the column or the trial.

    Levels and seeds count as equal when they are so by value: `20`, `20.0` and the text "20".
    """
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise UserError(f"table of trials: the column '{twice[0]}' stands twice; one is allowed")
    for column in ("data", "seed"):
        if column not in table.columns:
            raise UserError(
                f"table of trials: column '{column}' is missing; found: {', '.join(table.columns)}"
            )
    for metric in metrics:
        if metric not in table.columns:
            raise unknown("metric of a hypothesis", metric, metric_columns(table))
        if not pd.api.types.is_numeric_dtype(table[metric]):
            wrong = np.flatnonzero(
                pd.to_numeric(table[metric], errors="coerce").isna() & table[metric].notna()
            )
            where = (
                f", e.g. '{table[metric].iloc[wrong[0]]}' in row {wrong[0] + 1}"
                if len(wrong)
                else ""
            )
            raise UserError(
                f"table of trials: column '{metric}' holds text{where}; a metric is a number"
            )
    keys = [*factor_columns(table), "seed"]
    for column in keys:
        empty = np.flatnonzero(table[column].isna() | (table[column] == ""))
        if len(empty):
            raise UserError(f"table of trials, row {empty[0] + 1}: '{column}' is empty")
    again = table[keys].apply(_by_value).duplicated()
    if bool(again.any()):
        first = table.loc[again, keys].iloc[0].to_dict()
        what = ", ".join(f"{key}={first[key]}" for key in keys)
        raise UserError(f"table of trials: two rows for the same trial ({what}); one is allowed")
    for metric in metrics:
        bad = np.isinf(table[metric].to_numpy(dtype=float)) & finished(table)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise UserError(
                f"table of trials, row {row + 1}: '{metric}' is infinite in a finished trial"
            )


def _by_value(column: pd.Series) -> pd.Series:
    """A number for each level, the same for levels that compare as equal."""
    if pd.api.types.is_integer_dtype(column):
        return column
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, levels = column.cat.codes.to_numpy(), list(column.cat.categories)
    else:
        codes, found = pd.factorize(column)
        levels = list(found)
    texts = np.array([level_text(level) for level in levels], dtype=object)
    return pd.Series(pd.factorize(texts)[0][codes], index=column.index)


def finished(table: pd.DataFrame) -> np.ndarray:
    """(rows,) bool: trials that ended well."""
    if "status" not in table.columns:
        return np.ones(len(table), dtype=bool)
    return (table["status"] == FINISHED).to_numpy()


def failed(table: pd.DataFrame) -> np.ndarray:
    """(rows,) bool: trials that failed."""
    if "status" not in table.columns:
        return np.zeros(len(table), dtype=bool)
    return (table["status"] == FAILED).to_numpy()


def usable(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The finished trials that have a value of `metric`, ordered by factors, then seed."""
    rows = table.loc[finished(table) & table[metric].notna().to_numpy()]
    codes = [_codes(rows[name]) for name in (*factor_columns(table), "seed")]
    order = np.lexsort(codes[::-1])
    return rows if np.array_equal(order, np.arange(len(rows))) else rows.iloc[order]


def _codes(column: pd.Series) -> np.ndarray:
    """The rank (rows,) of each cell's level among the column's, missing ones last."""
    if pd.api.types.is_integer_dtype(column):
        return column.to_numpy()
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, count = column.cat.codes.to_numpy(), len(column.cat.categories)
    else:
        codes, levels = pd.factorize(column, sort=True)
        count = len(levels)
    return np.where(codes < 0, count, codes)


def values(rows: pd.DataFrame, metric: str) -> Floats:
    """The metric of these rows as (n,) float64."""
    return rows[metric].to_numpy(dtype=np.float64)
