"""Whether a policy achieves the return that it is asked for.

For each seed a line achieved = intercept + slope * target is fitted by least squares to the targets
within the range of the training returns; a policy that does as it is told has slope 1 and intercept 0,
one that ignores the target slope 0. The mean absolute error is given apart for targets within and
beyond that range, since a curve that saturates beyond it is no control. Seeds are the replicates:
intervals are Student's over seeds, Welch-Satterthwaite's over several data sets (fixed estimand).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ablate.analyse.intervals import Estimate, Floats, combine
from ablate.errors import UserError

COLUMNS = ("data", "seed", "target", "achieved", "low", "high")
QUANTITIES = ("slope", "intercept", "error_inside", "error_outside")


@dataclass(frozen=True)
class TargetCurve:
    """One variant on one data set, in normalised points.

    targets (T,) in increasing order; achieved (S, T); low, high: the range of the training returns.
    slope, intercept (S,) of each seed, nan with fewer than two targets in range; error_inside,
    error_outside (S,): mean absolute error, nan without such targets.
    """

    data: str
    targets: Floats
    achieved: Floats
    low: float
    high: float
    slope: Floats
    intercept: Floats
    error_inside: Floats
    error_outside: Floats


def target_curve(
    data: str, targets: Floats, achieved: Floats, low: float, high: float
) -> TargetCurve:
    """Fit one variant on one data set: targets (T,), achieved (S, T), range of training returns."""
    order = np.argsort(targets, kind="stable")
    targets, achieved = np.asarray(targets, float)[order], np.asarray(achieved, float)[:, order]
    inside = (targets >= low) & (targets <= high)
    missed = np.abs(achieved - targets)  # (S, T)
    nothing = np.full(len(achieved), np.nan)
    slope = intercept = nothing
    if len(np.unique(targets[inside])) >= 2:
        centred = targets[inside] - targets[inside].mean()
        slope = achieved[:, inside] @ centred / float(centred @ centred)
        intercept = achieved[:, inside].mean(axis=1) - slope * targets[inside].mean()
    return TargetCurve(
        data=data,
        targets=targets,
        achieved=achieved,
        low=float(low),
        high=float(high),
        slope=slope,
        intercept=intercept,
        error_inside=missed[:, inside].mean(axis=1) if inside.any() else nothing,
        error_outside=missed[:, ~inside].mean(axis=1) if not inside.all() else nothing,
    )


def overall(found: Sequence[TargetCurve], quantity: str) -> Estimate | None:
    """A quantity (one of QUANTITIES) averaged over the data sets that have it, for new seeds; None
    where none has it from two seeds or more."""
    cells = [getattr(one, quantity) for one in found]
    cells = [cell for cell in cells if np.isfinite(cell).all() and len(cell) >= 2]
    if not cells:
        return None
    return combine(np.full(len(cells), 1.0 / len(cells)), cells)


def target_curves(rows: pd.DataFrame, by: Sequence[str]) -> dict[str, list[TargetCurve]]:
    """Variant (combination of the columns `by`) -> its data sets' target_curves.

    rows: one a run and target, columns COLUMNS and `by`; low and high are the range of the data
    set's training returns, in the same normalised points as target and achieved. Seeds that lack a
    target are left out of that data set. Raises UserError for a missing column, text or infinite
    values where numbers belong, or a run with two rows for one target.
    """
    for column in (*COLUMNS, *by):
        if column not in rows.columns:
            raise UserError(
                f"calibration: column '{column}' is missing; found: {', '.join(rows.columns)}."
            )
    for column in ("target", "achieved", "low", "high"):
        if not pd.api.types.is_numeric_dtype(rows[column]):
            raise UserError(f"calibration: column '{column}' holds text, allowed: numbers.")
        if np.isinf(rows[column].to_numpy(dtype=float)).any():
            raise UserError(f"calibration: column '{column}' holds an infinite value.")
    again = rows.duplicated([*by, "data", "seed", "target"])
    if bool(again.any()):
        first = rows.loc[again].iloc[0]
        raise UserError(
            f"calibration: two rows for data={first['data']}, seed={first['seed']}, "
            f"target={first['target']:g}; allowed: one."
        )
    out: dict[str, list[TargetCurve]] = {}
    for key, group in rows.groupby([*by, "data"], sort=True, observed=True):
        *levels, data = key
        wide = group.pivot(index="seed", columns="target", values="achieved").dropna(axis=0)
        if wide.empty:
            continue
        made = target_curve(
            str(data),
            wide.columns.to_numpy(dtype=float),
            wide.to_numpy(dtype=float),
            float(group["low"].iloc[0]),
            float(group["high"].iloc[0]),
        )
        out.setdefault(" · ".join(map(str, levels)), []).append(made)
    return out
