"""The figures of what goes beyond the verdicts, in the order in which the paper shows them."""

from __future__ import annotations

import pandas as pd

from ablate.analyse.further import Further
from ablate.analyse.table import factor_columns
from ablate.report.figures import (
    aggregates,
    attribution,
    bands,
    leave_out,
    profiles,
    specification,
    variance,
    variants,
)
from ablate.report.figures.base import Drawn


def draw(
    found: Further, table: pd.DataFrame, curves: pd.DataFrame, by: str = ""
) -> list[Drawn | None]:
    """All of them, None where there is nothing to show; to be called under `style.paper_style`.

    by: the factor whose levels are compared over data sets; mixers at their longest context when
    empty, or else the only factor that varies.
    """
    compared = variants.of_factor(table, by) if by else variants.of_mixers(table)
    if compared is None and not by:
        varying = [n for n in factor_columns(table) if n != "data" and table[n].nunique() > 1]
        compared = variants.of_factor(table, varying[0]) if len(varying) == 1 else None
    return [
        attribution.draw(found.attribution),
        variance.draw(found.variance),
        aggregates.draw(compared),
        profiles.draw(compared),
        bands.draw(compared, table, curves),
        specification.draw(found.multiverse, trials=_trials(table)),
        leave_out.draw(found.without, found.failed, trials=_trials(table)),
    ]


def _trials(table: pd.DataFrame) -> tuple[str, ...]:
    return tuple(table["trial"].astype(str)) if "trial" in table.columns else ()
