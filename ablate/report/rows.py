"""Which rows of a tidy table a profile is about."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from ablate.analyse import tidy as frame
from ablate.config import STANDARD
from ablate.errors import UserError
from ablate.study.contrast import level_text, level_texts
from ablate.study.schema import Study


def of_profile(
    study: Study, table: pd.DataFrame, asked: Collection[str] | None = None
) -> pd.DataFrame:
    """The rows of the study's trials at its profile, each with a `trial` id, in the table's order.

    asked: ids of the study's trials, by which our own tables are matched, so that a trial of an older code or
    other data never counts; None for a table that `ablate` did not write: it is matched by its factor levels.
    Raises UserError, in one line, when nothing that finished is left.
    """
    if table.empty:
        raise UserError(f"{_name(study)}: the table of trials is empty; {_remedy(study)}.")
    if asked is not None and "trial" in table.columns:
        rows = table[table["trial"].isin(asked)]
    else:
        rows = _by_level(study, table)
    if "trial" not in rows.columns:
        rows = rows.assign(trial=[f"row-{index + 1}" for index in range(len(rows))])
    if not frame.finished(rows).any():
        n = int(frame.failed(rows).sum())
        failed = f" ({n} failed)" if n else ""
        raise UserError(
            f"{_name(study)}: no trial of profile '{study.profile}' has finished{failed}; "
            f"{_remedy(study)}."
        )
    return frame.apart_from_presets(rows.reset_index(drop=True), study.factors)


def _by_level(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """Rows whose levels the study declares, for every factor that the table has."""
    keep = pd.Series(True, index=table.index)
    for name, levels in study.levels.items():
        if name in table.columns:
            keep &= level_texts(table[name]).isin({level_text(level) for level in levels})
    return table[keep]


def _name(study: Study) -> str:
    return f"study '{study.study}'"


def _remedy(study: Study) -> str:
    """What to run first: the file that the user named."""
    profile = "" if study.profile == STANDARD else f" --profile {study.profile}"
    return f"run `python -m ablate run {study.file or f'{study.study}.yaml'}{profile}` first"
