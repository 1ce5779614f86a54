"""An earlier measurement beside a study, `studies/<study>.reference.csv`, for what is drawn beside our own effects."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ablate import words
from ablate.errors import UserError

COLUMNS = (
    *("source", "data", "mixer", "head", "condition", "metric", "context_low", "context_high"),
    *("value_low", "value_high", "effect", "half_width", "note"),
)


def read_reference(path: Path) -> pd.DataFrame | None:
    """An earlier measurement, `studies/<study>.reference.csv`; None where there is no such file.

    Raises UserError when it cannot be read, lacks a column or has text where a number belongs.
    """
    if not path.exists():
        return None
    try:
        found = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a table of comma-separated values ({error}).") from error
    missing = [name for name in COLUMNS if name not in found.columns]
    if missing:
        raise UserError(
            f"{path}: no column {words.listing(missing)}; allowed: {', '.join(COLUMNS)}."
        )
    for name in ("value_low", "value_high", "effect", "half_width"):
        if not pd.api.types.is_numeric_dtype(found[name]):
            raise UserError(f"{path}: column {name} holds text, where a number belongs.")
    return found
