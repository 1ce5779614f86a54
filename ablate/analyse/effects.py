"""The effect of context, cell by cell and averaged, for figures and the interaction table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import pandas as pd

from ablate.analyse.intervals import Floats, combine, interval
from ablate.analyse.table import factor_columns, usable, values

Key = tuple[object, ...]
Cell = tuple[Floats, Floats]  # seeds' values at the shortest and at the longest context


def context_effects(
    table: pd.DataFrame, metric: str = "score", confidence: float = 0.95
) -> pd.DataFrame:
    """K-effect of every variant: mean at the longest context minus mean at the shortest.

    One row a data set x every other factor: those, then shortest, longest (the data set's extreme
    contexts), effect, low, high, df, n_shortest, n_longest. Variants without two finished seeds at
    both are left out.
    """
    others, cells, ends = _cells(table, metric)
    rows = []
    for key, (short, long) in cells.items():
        estimate = combine([1.0, -1.0], [long, short])
        low, high = interval(estimate, confidence)
        rows.append(
            {
                **dict(zip(others, key, strict=True)),
                "shortest": ends[key[0]][0],
                "longest": ends[key[0]][1],
                "effect": estimate.value,
                "low": low,
                "high": high,
                "df": estimate.df,
                "n_shortest": len(short),
                "n_longest": len(long),
            }
        )
    columns = [*others, "shortest", "longest", "effect", "low", "high", "df"]
    return pd.DataFrame(rows, columns=[*columns, "n_shortest", "n_longest"])


def context_by_condition(
    table: pd.DataFrame, metric: str = "score", confidence: float = 0.95, baseline: str = "none"
) -> pd.DataFrame:
    """Interaction of context x condition x data set.

    One row a data set x condition: data, condition, effect, low, high, variants: the K-effect
    averaged over the `variants` (the other factors' combinations) that have both contexts; then
    change,
    change_low, change_high, shared: that effect minus the one under the `baseline` condition, over
    the variants that both conditions have (nan for the baseline itself and where none is shared).
    """
    others, cells, _ = _cells(table, metric)
    columns = ["data", "condition", "effect", "low", "high", "variants"]
    columns += ["change", "change_low", "change_high", "shared"]
    if "condition" not in others:
        return pd.DataFrame(columns=columns)
    at = others.index("condition")
    groups: dict[tuple[object, object], dict[Key, Cell]] = defaultdict(dict)
    for key, cell in cells.items():
        groups[(key[0], key[at])][key[1:at] + key[at + 1 :]] = cell
    rows = []
    for (data, condition), variants in groups.items():
        effect, low, high = _difference(variants, {}, list(variants), confidence)
        reference = groups.get((data, baseline), {})
        shared = [key for key in variants if key in reference]
        row = {"data": data, "condition": condition, "effect": effect, "low": low, "high": high}
        row["variants"] = len(variants)
        nan = float("nan")
        change = (nan, nan, nan)
        if condition != baseline and shared:
            change = _difference(variants, reference, shared, confidence)
        row |= dict(zip(("change", "change_low", "change_high"), change, strict=True))
        rows.append({**row, "shared": 0 if condition == baseline else len(shared)})
    return pd.DataFrame(rows, columns=columns)


def _difference(
    first: Mapping[Key, Cell], second: Mapping[Key, Cell], keys: list[Key], confidence: float
) -> tuple[float, float, float]:
    """Mean K-effect over `keys` in `first`, minus that in `second` unless empty; low, high."""
    weights: list[float] = []
    arrays: list[Floats] = []
    for sign, cells in ((1.0, first), (-1.0, second)):
        for key in keys if cells else []:
            short, long = cells[key]
            weights += [sign / len(keys), -sign / len(keys)]
            arrays += [long, short]
    estimate = combine(weights, arrays)
    return (estimate.value, *interval(estimate, confidence))


def _cells(
    table: pd.DataFrame, metric: str
) -> tuple[list[str], dict[Key, Cell], dict[object, tuple[object, object]]]:
    """Values at both ends of the context axis by (data, other factors...); the ends by data set."""
    others = [name for name in factor_columns(table) if name != "context"]
    rows = usable(table, metric)
    ends: dict[object, tuple[object, object]] = {
        data: (group.min(), group.max())
        for data, group in rows.groupby("data", observed=True)["context"]
    }
    found: dict[Key, dict[object, Floats]] = defaultdict(dict)
    for group_key, group in rows.groupby([*others, "context"], sort=True, observed=True):
        key: Key = tuple(group_key)
        found[key[:-1]][key[-1]] = values(group, metric)
    cells = {}
    for key, by_context in found.items():
        short, long = ends[key[0]]
        if short == long or short not in by_context or long not in by_context:
            continue
        pair = (by_context[short], by_context[long])
        if min(len(pair[0]), len(pair[1])) >= 2:
            cells[key] = pair
    return others, cells, ends
