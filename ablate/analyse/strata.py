"""Scores by variant and data set: what every description that pools data sets is computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ablate.analyse.intervals import Floats
from ablate.analyse.tidy import factor_columns, usable, values
from ablate.errors import UserError
from ablate.study.contrast import level_text, level_texts


@dataclass(frozen=True)
class Strata:
    """Every variant's scores on the same data sets.

    names (D,): data sets. scores: variant -> D arrays (n_d,) of seeds, which may differ in length.
    trials: those that are shown. left_out: data sets that some variant wasn't run on, in words.
    """

    names: tuple[str, ...]
    scores: dict[str, tuple[Floats, ...]]
    trials: tuple[str, ...]
    left_out: tuple[str, ...]


def strata(
    table: pd.DataFrame,
    by: Sequence[str],
    metric: str,
    where: Mapping[str, Sequence[object]] | None = None,
) -> Strata:
    """The finished trials by variant (combination of the factors `by`) and data set.

    where: factor -> levels that are kept. Only data sets that every variant was run on are
    compared. Raises UserError when there is no such data set, or when a variant has several cells
    on a data set, since then it isn't said which one is meant.
    """
    rows = at(usable(table, metric), where or {})
    lacking = [name for name in by if name not in rows.columns]
    if lacking:
        raise UserError(f"variants by {', '.join(by)}: the table has no column '{lacking[0]}'.")
    if rows.empty:
        raise UserError(f"variants by {', '.join(by)}: no finished trial has a '{metric}'.")
    others = [name for name in factor_columns(rows) if name != "data" and name not in by]
    found: dict[str, dict[str, Floats]] = {}
    index: dict[tuple[str, str], list[object]] = {}
    for key, group in rows.groupby([*by, "data"], sort=True, observed=True):
        *levels, data = key
        name = " · ".join(map(level_text, levels))
        varying = [other for other in others if group[other].nunique(dropna=False) > 1]
        if varying:
            raise UserError(
                f"variants by {', '.join(by)}: on {data} the variant '{name}' has several cells, "
                f"which differ in {', '.join(varying)}; hold {varying[0]} at one level."
            )
        found.setdefault(name, {})[str(data)] = values(group, metric)
        index[name, str(data)] = group.index.tolist()
    data_sets = sorted({data for one in found.values() for data in one})
    shared = [data for data in data_sets if all(data in one for one in found.values())]
    if not shared:
        raise UserError(f"variants by {', '.join(by)}: no data set has all of {', '.join(found)}.")
    left_out = tuple(
        f"{data} (not run: {', '.join(name for name in found if data not in found[name])})"
        for data in data_sets
        if data not in shared
    )
    used: list[Any] = [i for name in found for data in shared for i in index[name, data]]
    trials = tuple(map(str, rows["trial"].loc[used].tolist())) if "trial" in rows.columns else ()
    scores = {name: tuple(one[data] for data in shared) for name, one in found.items()}
    return Strata(tuple(shared), scores, trials, left_out)


def at(rows: pd.DataFrame, where: Mapping[str, Sequence[object]]) -> pd.DataFrame:
    """The rows at these levels, compared as in contrasts (20, 20.0 and "20" are one)."""
    for factor, levels in where.items():
        if factor not in rows.columns:
            raise UserError(f"levels of '{factor}': the table has no such column.")
        rows = rows[level_texts(rows[factor]).isin([level_text(level) for level in levels])]
    return rows
