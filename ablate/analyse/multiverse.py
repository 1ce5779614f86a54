"""The multiverse: the same runs judged again under every reasonable way of scoring them.

A universe is one choice on each axis; every hypothesis is judged in each by the study's own rule
(`ablate.analyse.verdict`), corrected within it. Source: S. Steegen, F. Tuerlinckx, A. Gelman and W.
Vanpaemel, Perspectives on Psychological Science 11 (2016) 702-712.

score    how a run becomes one number: the declared metric; mean of the last 20 % of the points of
         its curve, or the best of them (which is selection on the test); another target
         (columns `METRIC_target_RULE`) or the best over all targets; fewer evaluation episodes
         (columns `METRIC_episodes_N`); the median over episodes (`METRIC_median`). A table holds one
         number for each, so they are taken one at a time, not crossed.
seeds    all, or disjoint blocks of 3, 5 and 10 of them, of each size at most `MOST_BLOCKS` (the blocks of one
         size share its weight).
summary  how a cell's seeds become one number: mean, interquartile mean, median. Each cell's values
         are moved and stretched so that their mean is the summary and their standard error its own
         (Tukey-McLaughlin's for the trimmed mean, Maritz and Jarrett's for the median), and then
         judged as they are. Below four seeds nothing is trimmed: such universes are not counted twice.

Only what the table and curves can serve is varied; the rest is named, with the reason.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from ablate import words
from ablate.analyse.intervals import Floats
from ablate.analyse.tidy import factor_columns, last_budget, usable
from ablate.analyse.verdict import INCONCLUSIVE, NOT_TESTED, Verdict, judge
from ablate.errors import UserError
from ablate.study.contrast import Level, level_text, level_texts
from ablate.study.hypotheses import Hypothesis

DECLARED = "as declared"
LAST = "mean of the last 20 %"
BEST = "best checkpoint"
BEST_TARGET = "best target"
MEDIAN_EPISODE = "median episode"
SUMMARIES = ("mean", "IQM", "median")
SEEDS = (3, 5, 10)
MOST_BLOCKS = 20  # of one size, evenly chosen
_UNDECIDED = (INCONCLUSIVE, NOT_TESTED)


@dataclass(frozen=True)
class Multiverse:
    """Verdicts by universe.

    axes: axis -> its options. unserved: what couldn't be varied -> why.
    rows: one a universe and hypothesis: universe, weight, score, seeds, block, summary, hypothesis,
        verdict, estimate, low, high, stands. The first universe is the study's own. Weights of the
        universes sum to 1.
    shares: one row a hypothesis: hypothesis, verdict (the study's own), universes, stands,
        otherwise (decided otherwise), undecided, same_sign; the last four are shares of the weight.
        For an undecided verdict `stands` is the share that is undecided too.
    """

    axes: dict[str, tuple[str, ...]]
    unserved: dict[str, str]
    rows: pd.DataFrame
    shares: pd.DataFrame

    @property
    def universes(self) -> int:
        """How many there are."""
        return int(self.rows["universe"].nunique())


def multiverse(
    table: pd.DataFrame,
    hypotheses: Sequence[Hypothesis],
    levels: Mapping[str, Sequence[Level]],
    curves: pd.DataFrame | None = None,
    *,
    alpha: float = 0.05,
    margin: float | None = 3.0,
    registered: Mapping[str, bool] | None = None,
    paired: bool = True,
) -> Multiverse:
    """Judge the hypotheses in every universe that the table and the curves can serve.

    Arguments as of `verdict.judge`; curves: trial, update, metrics. Raises UserError as it does, and where no trial
    is on a data set that the hypotheses are about.
    """
    before = registered if registered is not None else {h.id: True for h in hypotheses}
    metrics = sorted({h.metric for h in hypotheses})
    table = concerned(last_budget(table), hypotheses).reset_index(drop=True)
    if table.empty:
        raise UserError("no trial is on a data set that its hypotheses are about.")
    scored, unserved = _scores(table, curves, metrics)
    blocks = _blocks(table)
    if len(blocks) == 1:
        unserved["seeds"] = "there are not more than three of them"
    sizes: dict[str, int] = {}
    for size, _, _ in blocks:
        sizes[size] = sizes.get(size, 0) + 1
    found = []
    number = 0
    for (name, changed), (size, block, chosen) in itertools.product(scored.items(), blocks):
        rows = changed.iloc[np.flatnonzero(chosen)]
        most = rows.groupby("data", observed=True)["seed"].nunique().max()
        for summary in SUMMARIES:
            if summary == "IQM" and most < 4:
                continue
            verdicts = judge(
                _summarised(rows, metrics, summary),
                hypotheses,
                levels,
                alpha=alpha,
                margin=margin,
                registered=before,
                paired=paired,
                beside=False,
            )
            told = {
                "universe": number,
                "weight": 1.0 / sizes[size],
                "score": name,
                "seeds": size,
                "block": block,
                "summary": summary,
            }
            found += [{**told, **_told(one)} for one in verdicts]
            number += 1
    frame = pd.DataFrame(found)
    each = frame.drop_duplicates("universe")["weight"].sum()
    frame["weight"] /= each
    own = frame[frame["universe"] == 0].set_index("hypothesis")["verdict"]
    frame["stands"] = _alike(frame["verdict"], frame["hypothesis"].map(own))
    axes = {
        "score": tuple(scored),
        "seeds": tuple(dict.fromkeys(size for size, _, _ in blocks)),
        "summary": tuple(name for name in SUMMARIES if name in set(frame["summary"])),
    }
    return Multiverse(axes, unserved, frame, _shares(frame))


def concerned(table: pd.DataFrame, hypotheses: Sequence[Hypothesis]) -> pd.DataFrame:
    """The rows of the data sets that the hypotheses may be about, which is faster to judge."""
    named = [h.levels_at("data") for h in hypotheses]
    if any(levels is None for levels in named):
        return table
    kept = {level_text(level) for levels in named for level in levels or ()}
    return table[level_texts(table["data"]).isin(kept)]


def _told(verdict: Verdict) -> dict[str, object]:
    gap = math.nan
    return {
        "hypothesis": verdict.hypothesis,
        "verdict": verdict.verdict,
        "estimate": gap if verdict.estimate is None else float(verdict.estimate),
        "low": gap if verdict.low is None else float(verdict.low),
        "high": gap if verdict.high is None else float(verdict.high),
    }


def _alike(verdicts: pd.Series, own: pd.Series) -> pd.Series:
    """Whether verdicts are the same; all undecided ones are."""
    both = verdicts.isin(_UNDECIDED) & own.isin(_UNDECIDED)
    return (verdicts == own) | both


def _shares(frame: pd.DataFrame) -> pd.DataFrame:
    """What of the universes' weight each verdict keeps."""
    out = []
    for name, rows in frame.groupby("hypothesis", sort=False):
        first = rows.iloc[0]
        weight = rows["weight"].to_numpy()
        stands = rows["stands"].to_numpy()
        undecided = rows["verdict"].isin(_UNDECIDED).to_numpy() & ~stands
        sign = np.sign(rows["estimate"].to_numpy()) == np.sign(first["estimate"])
        out.append(
            {
                "hypothesis": name,
                "verdict": first["verdict"],
                "universes": len(rows),
                "stands": float(weight[stands].sum()),
                "otherwise": float(weight[~stands & ~undecided].sum()),
                "undecided": float(weight[undecided].sum()),
                "same_sign": float(weight[sign].sum()),
            }
        )
    return pd.DataFrame(out)


def _scores(
    table: pd.DataFrame, curves: pd.DataFrame | None, metrics: Sequence[str]
) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """The table under each way of scoring a run, and what could not be served, with the reason.

    A metric that a way does not exist for keeps its declared values there.
    """
    out = {DECLARED: table}
    unserved: dict[str, str] = {}
    at_points = {m: _points(table, curves, m) for m in metrics}
    served = {m: points for m, points in at_points.items() if points is not None}
    if served:
        last, best = table.copy(), table.copy()
        for metric, points in served.items():
            tail = max(1, math.ceil(0.2 * points.shape[1]))
            last[metric] = points[:, -tail:].mean(axis=1)
            best[metric] = (points.min if words.response(metric).lower else points.max)(axis=1)
        out |= {LAST: last, BEST: best}
    for metric in metrics:
        if metric not in served:
            unserved[f"checkpoint of {metric}"] = f"the curves hold no {metric} for every trial"
    for kind, told in (("target", "target"), ("episodes", "number of episodes")):
        options: dict[str, dict[str, str]] = {}
        for metric in metrics:
            head = f"{metric}_{kind}_"
            columns = [c for c in table.columns if c.startswith(head)]
            for column in columns:
                options.setdefault(column.removeprefix(head), {})[metric] = column
            if not columns:
                unserved[f"{told} of {metric}"] = f"the table has no column {head}..."
        for option, columns_of in options.items():
            name = f"target {option}" if kind == "target" else f"{option} episodes"
            out[name] = table.assign(**{m: table[c] for m, c in columns_of.items()})
        if kind == "target" and options:
            best = table.copy()
            for metric in metrics:
                names = [c[metric] for c in options.values() if metric in c]
                every = table[[metric, *names]]
                best[metric] = (every.min if words.response(metric).lower else every.max)(axis=1)
            out[BEST_TARGET] = best
    medians = {m: f"{m}_median" for m in metrics if f"{m}_median" in table.columns}
    if medians:
        out[MEDIAN_EPISODE] = table.assign(**{m: table[c] for m, c in medians.items()})
    for metric in metrics:
        if metric not in medians:
            unserved[f"median episode of {metric}"] = f"the table has no column {metric}_median"
    return out, unserved


def _points(table: pd.DataFrame, curves: pd.DataFrame | None, metric: str) -> Floats | None:
    """(rows, points) of the metric in order of updates, nan for unfinished trials; None unless every
    finished trial has all points."""
    if curves is None or curves.empty or metric not in curves or "trial" not in table:
        return None
    done = set(usable(table, metric)["trial"].tolist())
    own = curves[curves["trial"].isin(done) & np.isfinite(curves[metric].to_numpy(dtype=float))]
    wide = own.pivot(index="trial", columns="update", values=metric).dropna(axis=1)
    if wide.shape[1] < 2 or set(wide.index) != done:
        return None
    return wide.reindex(table["trial"]).to_numpy(dtype=float)


def _blocks(table: pd.DataFrame) -> list[tuple[str, int, NDArray[np.bool_]]]:
    """(size in words, number of the block, its rows): all seeds first, then 3, 5, 10 of them.

    Seeds are counted within each data set, in their order; one with fewer than a block's keeps all.
    """
    place = table.groupby("data", observed=True)["seed"].rank("dense").to_numpy() - 1
    counts = table.groupby("data", observed=True)["seed"].nunique()
    most, least = int(counts.max()), int(counts.min())
    shown = str(most) if most == least else f"{least} to {most}"
    out: list[tuple[str, int, NDArray[np.bool_]]] = [(f"all {shown}", 0, place >= 0)]
    for size in SEEDS:
        if size < most:
            count = max(1, least // size)
            for block in range(0, count, -(-count // MOST_BLOCKS)):
                out.append(
                    (str(size), block, (place >= block * size) & (place < (block + 1) * size))
                )
    return out


def _summarised(table: pd.DataFrame, metrics: Sequence[str], summary: str) -> pd.DataFrame:
    """The table with every cell's values moved and stretched to the summary's."""
    if summary == "mean":
        return table
    out = table.copy()
    for metric in metrics:
        rows = usable(table, metric)
        column = out[metric].to_numpy(dtype=float).copy()
        places = out.index.get_indexer(rows.index)
        cell = rows.groupby(factor_columns(rows), observed=True, dropna=False).ngroup().to_numpy()
        order = np.argsort(cell, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(cell[order])) + 1):
            column[places[members]] = summarised(column[places[members]], summary)
        out[metric] = column
    return out


def summarised(values: Floats, summary: str) -> Floats:
    """Values (n,) moved and stretched so that their mean is the summary ("mean", "IQM" or "median")
    and var / n the square of its standard error.

    IQM: the mean without the int(n / 4) lowest and highest; standard error by J. W. Tukey and D. H.
    McLaughlin, Sankhya A 25 (1963) 331-352 (as in Yuen's test). Median: J. S. Maritz and R. G.
    Jarrett, J. American Statistical Association 73 (1978) 194-196. A single value stays.
    """
    n = len(values)
    if n < 2 or summary == "mean":
        return values
    if summary == "IQM":
        cut = n // 4
        ordered = np.sort(values)
        centre = float(ordered[cut : n - cut].mean())
        kept = n - 2 * cut
        squares = float(np.square(_winsorised(ordered, cut)).sum())
        variance = squares / (kept * (kept - 1))
    else:
        centre = float(np.median(values))
        variance = _maritz_jarrett(np.sort(values))
    deviations = values - values.mean()
    spread = float(np.square(deviations).sum()) / (n - 1) / n
    if spread == 0.0:
        return np.full(n, centre)
    return centre + deviations * math.sqrt(variance / spread)


def _winsorised(ordered: Floats, cut: int) -> Floats:
    """Deviations of the winsorised values from their mean."""
    values = np.clip(ordered, ordered[cut], ordered[len(ordered) - cut - 1])
    deviations: Floats = values - values.mean()
    return deviations


def _maritz_jarrett(ordered: Floats) -> float:
    """Variance of the median of resamples, in closed form (with an even n that of the quantile
    between the two in the middle)."""
    n = len(ordered)
    edges = stats.beta.cdf(np.arange(n + 1) / n, (n + 1) / 2, (n + 1) / 2)
    weights = np.diff(edges)
    return float(weights @ ordered**2 - (weights @ ordered) ** 2)
