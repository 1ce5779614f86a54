"""Which variants the figures that pool data sets compare, and how they look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from ablate.analyse.strata import Strata, strata
from ablate.analyse.table import factor_columns
from ablate.errors import UserError
from ablate.report import style, summaries
from ablate.report import text as words

MOST = 10  # variants of a figure: so many looks there are


@dataclass(frozen=True)
class Variants:
    """Scores by variant on the same data sets. by: the factor that sets them apart; held: at which
    levels of the other factors, in words."""

    found: Strata
    by: str
    held: str

    @property
    def looks(self) -> dict[str, style.Look]:
        """The look of each variant, in the order of legends."""
        names = list(self.found.scores)
        return style.mixers(names) if self.by == "mixer" else style.series(names)

    def label(self, name: str) -> str:
        """A variant as shown."""
        return words.mixer(name) if self.by == "mixer" else name


def of_mixers(table: pd.DataFrame, metric: str = "score") -> Variants | None:
    """Mixers at the longest context of every data set and at the slice that the score figure shows.

    None where the table has no mixers and contexts, or fewer than two of them share a data set.
    """
    if not {"mixer", "context", metric} <= set(table.columns):
        return None
    done = summaries.finished(table)
    parts = []
    for name, levels in summaries.core(table).items():
        rows = summaries.at(done[done["data"] == name], levels)
        rows = rows[rows["context"] == rows["context"].max()]
        if rows["mixer"].nunique() > 1:
            parts.append(rows)
    if not parts:
        return None
    rows = pd.concat(parts)
    kept = [name for name in ("trial", "status", "data", "mixer", "seed", metric) if name in rows]
    held = "at the longest context and the levels that the figure of scores shows"
    return _variants(rows[kept], "mixer", metric, {}, held)


def of_factor(
    table: pd.DataFrame,
    by: str,
    metric: str = "score",
    where: Mapping[str, Sequence[object]] | None = None,
) -> Variants | None:
    """The levels of the factor `by`, with the others at `where`; None where they can't be compared."""
    said = ", ".join(f"{k} {words.listing(map(str, v))}" for k, v in (where or {}).items())
    return _variants(table, by, metric, where or {}, f"at {said}" if said else "")


def _variants(
    table: pd.DataFrame, by: str, metric: str, where: Mapping[str, Sequence[object]], held: str
) -> Variants | None:
    """The variants, without those that lack a data set which most of them have."""
    if by not in factor_columns(table):
        return None
    data_sets = table.groupby(by, observed=True)["data"].nunique()
    most = data_sets[data_sets == data_sets.max()].index
    if len(most) < 2:
        most = data_sets.index
    try:
        found = strata(table[table[by].isin(most)], [by], metric, where)
    except UserError:
        return None
    if not 2 <= len(found.scores) <= MOST:
        return None
    return Variants(found, by, held)
