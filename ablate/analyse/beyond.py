"""Beyond the verdicts, in one call: attribution, variance, robustness; or in words why not.

Nothing here decides a hypothesis. What a table cannot serve is a reason, not an error, since it
must not cost the reader the verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ablate.analyse.attribution import Attribution, attribute, declared
from ablate.analyse.leave_out import with_failed_as_worst, without_each_data_set
from ablate.analyse.multiverse import Multiverse, multiverse
from ablate.analyse.tidy import last_budget
from ablate.analyse.variance import Anova, Components, anova, components
from ablate.errors import UserError
from ablate.study.contrast import Level
from ablate.study.hypotheses import Hypothesis


@dataclass(frozen=True)
class Beyond:
    """What else the trials say. Parts are None where there is nothing to say, and `reasons` (part ->
    why) tells. without, failed: as `ablate.analyse.leave_out` gives them, perhaps empty."""

    attribution: Attribution | None
    variance: Components | None
    anova: Anova | None
    multiverse: Multiverse | None
    without: pd.DataFrame
    failed: pd.DataFrame
    reasons: dict[str, str] = field(default_factory=dict)


def beyond(
    table: pd.DataFrame,
    hypotheses: Sequence[Hypothesis],
    levels: Mapping[str, Sequence[Level]],
    curves: pd.DataFrame | None = None,
    *,
    alpha: float = 0.05,
    margin: float | None = 3.0,
    registered: Mapping[str, bool] | None = None,
    metric: str,
    crossing: pd.DataFrame | None = None,
    paired: bool = True,
    budgets: pd.DataFrame | None = None,
    clones: Mapping[str, float] | None = None,
) -> Beyond:
    """Everything beyond the verdicts. Arguments as of `verdict.judge`; curves: trial, update, metrics.

    The multiverse is that of the primary hypotheses, or of all where none is. metric: of variance,
    which is taken apart on the trials of `crossing` (all when None; a sparse fraction of many factors
    takes minutes). budgets: the trials at every budget, where the table has the last alone. clones: as of
    `multiverse`.
    """
    reasons: dict[str, str] = {}
    judged: Any = {"alpha": alpha, "margin": margin, "registered": registered, "paired": paired}
    table = last_budget(table)
    crossed = table if crossing is None else last_budget(crossing)
    chosen = declared(hypotheses)
    attribution = None
    if isinstance(chosen, str):
        reasons["attribution"] = chosen
    else:
        changes, where, of = chosen
        try:
            attribution = attribute(table, changes, where, metric=of, alpha=alpha, paired=paired)
        except UserError as error:
            reasons["attribution"] = str(error)
    found: Components | None = None
    effects: Anova | None = None
    try:
        found = components(crossed, metric)
    except UserError as error:
        reasons["variance"] = str(error)
    try:
        effects = anova(crossed, metric)
    except UserError as error:
        reasons["anova"] = str(error)
    primary = [h for h in hypotheses if h.primary] or list(hypotheses)
    other: Multiverse | None = None
    try:
        if not primary:
            raise UserError("the study has no hypothesis.")
        every = table if budgets is None else budgets
        other = multiverse(every, primary, levels, curves, clones=clones, **judged)
    except UserError as error:
        reasons["multiverse"] = str(error)
    return Beyond(
        attribution=attribution,
        variance=found,
        anova=effects,
        multiverse=other,
        without=without_each_data_set(table, hypotheses, levels, **judged),
        failed=with_failed_as_worst(table, hypotheses, levels, **judged),
        reasons=reasons,
    )
