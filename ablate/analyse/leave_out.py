"""How verdicts change without one data set, and with failed trials counted as the worst.

Every hypothesis is judged again by the study's own rule. Leaving a data set out is to have run the
study without it: a hypothesis on that one alone is then not tested and no longer corrected for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ablate import words
from ablate.analyse.multiverse import concerned
from ablate.analyse.tidy import FAILED, FINISHED, failed, finished
from ablate.analyse.verdict import Verdict, family_of, judge
from ablate.study.contrast import ACROSS, Level
from ablate.study.hypotheses import Hypothesis

COLUMNS = ("hypothesis", "setting", "verdict", "estimate", "low", "high", "trials", "changed")
ALL = "all data sets"
EXCLUDED = "failed trials left out"
WORST = "failed trials as the worst"


def without_each_data_set(
    table: pd.DataFrame,
    hypotheses: Sequence[Hypothesis],
    levels: Mapping[str, Sequence[Level]],
    *,
    alpha: float = 0.05,
    margin: float | None = 3.0,
    registered: Mapping[str, bool] | None = None,
    paired: bool = True,
) -> pd.DataFrame:
    """Verdicts on all data sets (setting ALL) and without each one, columns COLUMNS.

    Only hypotheses whose effect is averaged over two data sets or more, or must hold on each of
    them, have rows; setting is the data set that is left out. Arguments as of `verdict.judge`.
    """
    before = registered if registered is not None else {h.id: True for h in hypotheses}

    def judged(rows: pd.DataFrame, which: Sequence[Hypothesis]) -> dict[str, Verdict]:
        rows = concerned(rows, which)
        found = judge(
            rows,
            which,
            levels,
            alpha=alpha,
            margin=margin,
            registered=before,
            paired=paired,
            beside=False,
        )
        return {verdict.hypothesis: verdict for verdict in found}

    own = judged(table, hypotheses)
    rests_on = {name: _data_sets(verdict) for name, verdict in own.items()}
    several = {name for name, data in rests_on.items() if len(data) > 1}
    out = [_row(own[name], ALL, own[name]) for name in own if name in several]
    for data in sorted({one for name in several for one in rests_on[name]}):
        touched = [h for h in hypotheses if h.id in several and data in rests_on[h.id]]
        families = {(family_of(h), before[h.id]) for h in touched}
        which = [h for h in hypotheses if (family_of(h), before[h.id]) in families]
        again = judged(table[table["data"].astype(str) != data], which)
        out += [_row(again[h.id], data, own[h.id]) for h in touched]
    return _frame(out, hypotheses)


def with_failed_as_worst(
    table: pd.DataFrame,
    hypotheses: Sequence[Hypothesis],
    levels: Mapping[str, Sequence[Level]],
    *,
    alpha: float = 0.05,
    margin: float | None = 3.0,
    registered: Mapping[str, bool] | None = None,
    paired: bool = True,
) -> pd.DataFrame:
    """Verdicts with failed trials left out, as the study's own are, and counted as the worst value
    observed on their data set; columns COLUMNS. Without rows when no trial failed.

    Failed trials of a data set on which nothing finished stay failed.
    """
    before = registered if registered is not None else {h.id: True for h in hypotheses}
    if not failed(table).any():
        return pd.DataFrame(columns=list(COLUMNS))
    filled = worst_for_failed(table, sorted({h.metric for h in hypotheses}))
    out = []
    own: dict[str, Verdict] = {}
    for setting, rows in ((EXCLUDED, table), (WORST, filled)):
        for one in judge(
            rows, hypotheses, levels, alpha=alpha, margin=margin, registered=before, paired=paired
        ):
            own.setdefault(one.hypothesis, one)
            out.append(_row(one, setting, own[one.hypothesis]))
    return _frame(out, hypotheses)


def worst_for_failed(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The table with failed trials finished at the worst value observed on their data set."""
    out = table.copy()
    done, lost = finished(table), failed(table)
    saved = np.zeros(len(table), dtype=bool)
    for metric in metrics:
        there = table.loc[done].groupby("data", observed=True)[metric]
        worst = there.max() if words.response(metric).lower else there.min()
        value = table["data"].map(worst).to_numpy(dtype=float)
        column = out[metric].to_numpy(dtype=float).copy()
        column[lost] = value[lost]
        saved |= lost & np.isfinite(value)
        out[metric] = column
    out["status"] = np.where(saved, FINISHED, np.where(lost, FAILED, table["status"]))
    return out


def _data_sets(verdict: Verdict) -> set[str]:
    """The data sets that the verdict's effects are averaged over or must hold on."""
    return {data for claim in verdict.details for data in claim.by_data_set if data != ACROSS}


def _row(verdict: Verdict, setting: str, own: Verdict) -> dict[str, object]:
    gap = math.nan
    return {
        "hypothesis": verdict.hypothesis,
        "setting": setting,
        "verdict": verdict.verdict,
        "estimate": gap if verdict.estimate is None else float(verdict.estimate),
        "low": gap if verdict.low is None else float(verdict.low),
        "high": gap if verdict.high is None else float(verdict.high),
        "trials": verdict.n_trials,
        "changed": verdict.verdict != own.verdict,
    }


def _frame(rows: Sequence[dict[str, object]], hypotheses: Sequence[Hypothesis]) -> pd.DataFrame:
    """The rows in the order of the hypotheses."""
    order = {h.id: i for i, h in enumerate(hypotheses)}
    rows = sorted(rows, key=lambda row: order[str(row["hypothesis"])])
    return pd.DataFrame(rows, columns=list(COLUMNS))
