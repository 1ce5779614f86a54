"""One call from a tidy table and hypotheses to everything that a report says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from ablate.analyse.descriptive import pairing
from ablate.analyse.sentences import answer, sentence
from ablate.analyse.tidy import (
    check,
    factor_columns,
    failed,
    finished,
    last_budget,
    metric_columns,
)
from ablate.analyse.verdict import Verdict, judge
from ablate.errors import UserError
from ablate.study.contrast import Level
from ablate.study.hypotheses import Hypothesis


@dataclass(frozen=True)
class Analysis:
    """What the trials say.

    verdicts: one a hypothesis, in their order. pairing: `descriptive.pairing` of `metric`. answer: the
    study's question in words.
    n_trials, n_failed, n_unfinished: rows of the table.
    """

    verdicts: tuple[Verdict, ...]
    metric: str
    pairing: pd.DataFrame
    answer: str
    alpha: float
    n_trials: int
    n_failed: int
    n_unfinished: int

    def verdict(self, hypothesis: str) -> Verdict:
        """The verdict of one hypothesis. Raises KeyError when there is none of this id."""
        for found in self.verdicts:
            if found.hypothesis == hypothesis:
                return found
        raise KeyError(hypothesis)


def analyse(
    table: pd.DataFrame,
    hypotheses: Sequence[Hypothesis],
    levels: Mapping[str, Sequence[Level]] | None = None,
    *,
    alpha: float = 0.05,
    margin: float | None = 3.0,
    registered: bool | Mapping[str, bool] = False,
    metric: str = "",
    paired: bool = True,
) -> Analysis:
    """Analyse a tidy table: one row a trial, columns as `ablate.analyse.tidy` says.

    levels: the study's declared levels of every factor and of `data`; those in the table when None.
    margin: for hypotheses in normalised points that state none. registered: whether the hypotheses were
    written before the runs (for all, or by id; an id that isn't there counts as no). metric: of
    the pairing; the first hypothesis' when empty. paired: as of `verdict.judge`. A table with budgets is
    judged at the last of every fit. Raises UserError for a table or a hypothesis that makes no sense.
    """
    if not 0.0 < alpha < 1.0:
        raise UserError(f"alpha: found {alpha}; allowed: between 0 and 1")
    metric = metric or ([h.metric for h in hypotheses] or metric_columns(table))[0]
    table = last_budget(table)
    check(table, sorted({metric, *(h.metric for h in hypotheses)}))
    table = table.reset_index(drop=True)
    known = levels if levels is not None else levels_of(table)
    before = {
        h.id: registered if isinstance(registered, bool) else registered.get(h.id, False)
        for h in hypotheses
    }
    verdicts = judge(
        table, hypotheses, known, alpha=alpha, margin=margin, registered=before, paired=paired
    )
    told = tuple(replace(verdict, sentence=sentence(verdict)) for verdict in verdicts)
    n_failed = int(failed(table).sum())
    return Analysis(
        verdicts=told,
        metric=metric,
        pairing=pairing(table, metric),
        answer=answer(told),
        alpha=alpha,
        n_trials=len(table),
        n_failed=n_failed,
        n_unfinished=len(table) - n_failed - int(finished(table).sum()),
    )


def levels_of(table: pd.DataFrame) -> dict[str, list[Level]]:
    """The levels that occur in the table, numbers before words, for every factor and `data`."""
    return {
        name: sorted(table[name].unique().tolist(), key=lambda x: (isinstance(x, str), x))
        for name in factor_columns(table)
    }
