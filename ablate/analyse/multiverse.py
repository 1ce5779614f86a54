"""The multiverse: the same runs judged again under every reasonable way of scoring them.

A universe is one choice on each axis; every hypothesis is judged in each by the study's own rule
(`ablate.analyse.verdict`), corrected within it. Source: S. Steegen, F. Tuerlinckx, A. Gelman and W.
Vanpaemel, Perspectives on Psychological Science 11 (2016) 702-712.

checkpoint the last one; each earlier budget; the best of them; of what learning curves hold, the mean of the last
           20 % of their points, the best of them (selection on the test), and the last one, which rests on fewer
           held-out windows.
target     the return that is asked for, where the hypothesis isn't about it: each that was measured, and the best of
           all (selection again).
episodes   how a run's episodes become one number: their mean score, their median score, or the mean regret, which is
           capped in each episode; and the ways that the table has a column `METRIC_WAY` of: the first N episodes
           (`episodes_10`), their interquartile mean, half the cap and twice the cap (`words.WAYS`). A regret changes by
           as much as the score does, in the other direction, so it takes a score's place where a hypothesis is about
           differences alone.
list       evaluation episodes of each seed's own, or one list for all seeds.
anchors    of what is in points: those of the score, or the exact clone of the behaviour at 100.
seeds      all, or disjoint blocks of 3, 5 and 10 of them, of each size at most `MOST_BLOCKS` (the blocks of one
           size share its weight).
summary    how a cell's seeds become one number: mean, interquartile mean, median. Each cell's values
           are moved and stretched so that their mean is the summary and their standard error its own
           (Tukey-McLaughlin's for the trimmed mean, Maritz and Jarrett's for the median), and then
           judged as they are. Below four seeds nothing is trimmed: such universes are not counted twice.

All are crossed, but that curves and columns `METRIC_target_RULE` hold one number each, which other ways to score a run
can't be crossed with. A hypothesis has the universes of the axes that its metric has; in those of others it keeps its
declared numbers, which count there for the correction alone. What the tables can't serve is named, with the reason.

Control: "two halves of the seeds of one arm differ", which is never so. It is tested by Welch's t in every arm of the
study, for all ways to halve its seeds (at most `MOST_SPLITS`, drawn from a fixed stream), under every way of scoring
what the hypotheses are about; the share of these tests that claim a difference should be about alpha. Halves of few
seeds make the test cautious.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats

from ablate.analyse import batch
from ablate.analyse.intervals import Floats
from ablate.analyse.pairing import Runs, runs
from ablate.analyse.randomisation import generator
from ablate.analyse.scorings import AS_DECLARED, DECLARED, SCORING, Scoring, Sources
from ablate.analyse.tidy import FINISHED, factor_columns, last_budget
from ablate.analyse.verdict import (
    INCONCLUSIVE,
    NOT_CONVERGED,
    NOT_TESTED,
    Tested,
    Verdict,
    convergence,
    corrected,
    draft,
    prepare,
)
from ablate.errors import UserError
from ablate.study.contrast import Level, level_text, level_texts
from ablate.study.hypotheses import Hypothesis

AXES = (*SCORING, "seeds", "summary")
SUMMARIES = ("mean", "IQM", "median")
SEEDS = (3, 5, 10)
MOST_BLOCKS = 20  # of one size, evenly chosen
MOST_SPLITS = 20  # of the seeds of an arm
_UNDECIDED = (INCONCLUSIVE, NOT_TESTED, NOT_CONVERGED)


@dataclass(frozen=True)
class Control:
    """Two halves of the seeds of one arm, which never differ.

    share: of the tests that claim they do, over universes, arms and splits; None where it can't be asked. reason: why
    not. universes: ways of scoring a run and of summarising seeds; arms, splits: of an arm at most.
    """

    share: float | None
    alpha: float
    universes: int = 0
    arms: int = 0
    splits: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Multiverse:
    """Verdicts by universe.

    axes: axis -> its options over all hypotheses, the declared one first. unserved: what couldn't be varied -> why,
    as in `target of rollout.score`.
    rows: one a hypothesis and universe of it: universe, weight, an option for each of AXES, block, hypothesis,
        verdict, estimate, low, high, stands. The first universe is the study's own. Weights of a hypothesis sum to 1.
    shares: one row a hypothesis: hypothesis, verdict (the study's own), universes, stands,
        otherwise (decided otherwise), undecided, same_sign; the last four are shares of the weight.
        For an undecided verdict `stands` is the share that is undecided too.
    """

    axes: dict[str, tuple[str, ...]]
    unserved: dict[str, str]
    rows: pd.DataFrame
    shares: pd.DataFrame
    control: Control

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
    clones: Mapping[str, float] | None = None,
) -> Multiverse:
    """Judge the hypotheses in every universe that the table, at all its budgets, and the curves can serve.

    Arguments as of `verdict.judge`; curves: trial, update, metrics; clones: data set -> score of the exact clone of its
    behaviour. Raises UserError as it does, and where no trial is on a data set that the hypotheses are about.
    """
    before = registered if registered is not None else {h.id: True for h in hypotheses}
    whole = concerned(table, hypotheses).reset_index(drop=True)
    last = last_budget(whole).reset_index(drop=True)
    if last.empty:
        raise UserError("no trial is on a data set that its hypotheses are about.")
    blocks = _blocks(last)
    judged = _Rule(levels, alpha, margin, before, paired)
    known = clones or {}
    every = [_Scored(h, last, whole, curves, known, judged) for h in hypotheses]
    arms = [
        _Scored(h, *_planted(h, table), curves, known, judged, planted=True)
        for h in _metrics(hypotheses)
    ]
    unserved = {what: why for one in every for what, why in one.unserved.items()}
    if len(blocks) == 1:
        unserved["seeds"] = "there are not more than three of them"
    scorings = dict.fromkeys(s for one in every for s in one.ways)
    size_of = {size: sum(b.size == size for b in blocks) for size in {b.size for b in blocks}}
    found = []
    number = 0
    for scoring, block in itertools.product(scorings, blocks):
        for summary in SUMMARIES:
            if summary == "IQM" and block.most < 4:
                continue
            drafts = [one.draft(one.served(scoring), block, summary) for one in every]
            own = [one for one in every if scoring in one.ways]
            told = {
                "universe": number,
                "weight": 1.0 / size_of[block.size],
                **dict(zip(SCORING, scoring, strict=True)),
                "seeds": block.size,
                "block": block.number,
                "summary": summary,
            }
            verdicts = {v.hypothesis: v for v in corrected(drafts, before, alpha)}
            found += [{**told, **_told(verdicts[one.hypothesis.id])} for one in own]
            number += 1
    frame = pd.DataFrame(found)
    frame["weight"] /= frame.groupby("hypothesis")["weight"].transform("sum")
    own_verdict = frame[frame["universe"] == 0].set_index("hypothesis")["verdict"]
    frame["stands"] = _alike(frame["verdict"], frame["hypothesis"].map(own_verdict))
    axes = {axis: tuple(dict.fromkeys(frame[axis])) for axis in AXES}
    return Multiverse(axes, unserved, frame, _shares(frame), _control(arms, alpha))


def concerned(table: pd.DataFrame, hypotheses: Sequence[Hypothesis]) -> pd.DataFrame:
    """The rows of the data sets that the hypotheses may be about, which is faster to judge."""
    named = [h.levels_at("data") for h in hypotheses]
    if any(levels is None for levels in named):
        return table
    kept = {level_text(level) for levels in named for level in levels or ()}
    return table[level_texts(table["data"]).isin(kept)]


def _metrics(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    """A hypothesis of each metric."""
    return [*{h.metric: h for h in hypotheses}.values()]


def _planted(hypothesis: Hypothesis, table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The trials that have its metric at the last budget of their cell, and at all."""
    whole = table[np.isfinite(table[hypothesis.metric].to_numpy(dtype=float))].reset_index(
        drop=True
    )
    return last_budget(whole).reset_index(drop=True), whole


@dataclass(frozen=True)
class _Rule:
    """What a study judges by."""

    levels: Mapping[str, Sequence[Level]]
    alpha: float
    margin: float | None
    registered: Mapping[str, bool]
    paired: bool


@dataclass(frozen=True, eq=False)
class _Block:
    """Seeds. size: how many, in words; number: of the block among those of its size; most: in a data set; chosen:
    which rows of the table at the last budget."""

    size: str
    number: int
    most: int
    chosen: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Case:
    """A hypothesis on the seeds of a block: which of its rows, and their runs."""

    places: NDArray[np.intp]
    rows: pd.DataFrame
    runs: Runs


class _Scored:
    """A hypothesis with every way of scoring the runs that it rests on.

    ways: its scorings, the declared one first. unserved: as of `Multiverse`.
    """

    def __init__(
        self,
        hypothesis: Hypothesis,
        last: pd.DataFrame,
        whole: pd.DataFrame,
        curves: pd.DataFrame | None,
        clones: Mapping[str, float],
        rule: _Rule,
        planted: bool = False,
    ) -> None:
        self.hypothesis, self.rule = hypothesis, rule
        self._places = np.arange(len(last)) if planted else np.flatnonzero(_at(hypothesis, last))
        self._slim = _columns(hypothesis, last.iloc[self._places])
        self._last = last.iloc[self._places].reset_index(drop=True)
        self._cases: dict[tuple[str, int], _Case] = {}
        self._claims: dict[_Case, Tested] = {}
        self._drafts: dict[tuple[Scoring, str, int, str], Verdict] = {}
        self._values: dict[Scoring, Floats] = {}
        self._doubts: dict[tuple[str, str, int], tuple[str, ...]] = {}
        metric = hypothesis.metric
        self._done = _done(self._last, metric)
        self._sources = Sources(hypothesis, self._last, whole, curves, clones, self._done)
        options = self._sources.options((lambda: True) if planted else self._differs)
        self.unserved = self._sources.unserved
        self.ways = dict.fromkeys(s for s in itertools.product(*options) if self._there(s))

    def served(self, scoring: Scoring) -> Scoring:
        """The scoring with declared options in the place of those that it doesn't have."""
        if scoring in self.ways:
            return scoring
        own = [set(options) for options in zip(*self.ways, strict=True)]
        kept = tuple(o if o in own[i] else DECLARED for i, o in enumerate(scoring))
        return kept if kept in self.ways else AS_DECLARED

    def values(self, scoring: Scoring) -> Floats:
        """(n,) of its rows, nan where a run isn't finished."""
        if scoring not in self._values:
            self._values[scoring] = np.where(self._done, self._sources.values(scoring), np.nan)
        return self._values[scoring]

    def draft(self, scoring: Scoring, block: _Block, summary: str) -> Verdict:
        """Its uncorrected numbers."""
        key = (scoring, block.size, block.number, summary)
        if key not in self._drafts:
            found = self._draft(self.case(block), self.values(scoring), summary)
            if found.details:
                doubts = self._unconverged(scoring[0], block)
                found = replace(found, unconverged=doubts)
            self._drafts[key] = found
        return self._drafts[key]

    def case(self, block: _Block) -> _Case:
        """The hypothesis on the block's seeds."""
        key = (block.size, block.number)
        if key not in self._cases:
            places = np.flatnonzero(block.chosen[self._places])
            rows = self._slim.iloc[places].reset_index(drop=True)
            known = runs(rows, self.hypothesis.metric)
            self._cases[key] = _Case(places, rows, known)
        return self._cases[key]

    @functools.cached_property
    def everyone(self) -> _Case:
        """The hypothesis on all seeds."""
        return self.case(_Block("every", 0, 0, np.ones(self._places.max(initial=-1) + 1, bool)))

    def scores(self, scoring: Scoring) -> Floats:
        """The values of the runs of all seeds, in the order of `Runs.score`."""
        return self.values(scoring)[self.everyone.places][self.everyone.runs.place]

    def _draft(self, case: _Case, values: Floats, summary: str) -> Verdict:
        score = values[case.places][case.runs.place]
        if summary != "mean":
            for mine in case.runs.done.values():
                score[mine] = summarised(score[mine], summary)
        if self.hypothesis.estimator is None:
            return self._numbers(case.rows, self._tested(case).rescored(score))
        column = np.full(len(case.rows), np.nan)
        column[case.runs.place] = score
        rows = case.rows.assign(**{self.hypothesis.metric: column})
        return self._numbers(rows, self._prepared(rows, case.runs))

    def _tested(self, case: _Case) -> Tested:
        """Its claims on the runs of a case, as they are declared."""
        if case not in self._claims:
            self._claims[case] = self._prepared(case.rows, case.runs)
        return self._claims[case]

    def _prepared(self, rows: pd.DataFrame, known: Runs) -> Tested:
        rule = self.rule
        of = {self.hypothesis.metric: known}
        return prepare(rows, self.hypothesis, rule.levels, rule.margin, rule.paired, of, False)

    def _numbers(self, rows: pd.DataFrame, tested: Tested) -> Verdict:
        return draft(rows, tested, self.rule.registered, self.rule.alpha, False)

    def _unconverged(self, checkpoint: str, block: _Block) -> tuple[str, ...]:
        """The cells that aren't converged at a checkpoint."""
        said = self._sources.converged(checkpoint)
        if said is None:
            return ()
        key = (checkpoint, block.size, block.number)
        if key not in self._doubts:
            case = self.case(block)
            trials = [found.trials for _, found in self._tested(case).resolved]
            used = np.unique(np.concatenate(trials)).astype(int)
            rows = case.rows.iloc[used].assign(converged=said[case.places[used]])
            self._doubts[key] = convergence(rows)[0]
        return self._doubts[key]

    def _differs(self) -> bool:
        """Whether it is about differences alone, so that what is added to all values makes none."""
        plain = self._sources.values(AS_DECLARED)
        found = [self._draft(self.everyone, plain + by, "mean").estimate for by in (0.0, 1000.0)]
        plain_one, moved = (math.nan if x is None else x for x in found)
        return abs(plain_one - moved) < 1e-6

    def _there(self, scoring: Scoring) -> bool:
        return bool(np.isfinite(self.values(scoring)[self._done]).all())


def _at(hypothesis: Hypothesis, table: pd.DataFrame) -> NDArray[np.bool_]:
    """The rows at which the hypothesis' `where` holds."""
    keep = np.ones(len(table), dtype=bool)
    for factor in hypothesis.where:
        if factor in table.columns and factor != hypothesis.pairs_of:
            kept = {level_text(level) for level in hypothesis.levels_at(factor) or ()}
            keep &= level_texts(table[factor]).isin(kept).to_numpy()
    return keep


def _columns(hypothesis: Hypothesis, rows: pd.DataFrame) -> pd.DataFrame:
    """What judging reads of the rows, all at their last budget; an estimator may read anything. Convergence comes from
    the checkpoint."""
    dropped = {"budget", "converged"} & set(rows.columns)
    if hypothesis.estimator is not None:
        return rows.drop(columns=list(dropped))
    said = f"{hypothesis.contrast} {hypothesis.each} {' '.join(hypothesis.where)}"
    factors = [f for f in factor_columns(rows) if f == "data" or f in said or rows[f].nunique() > 1]
    more = [c for c in ("status", "seed", hypothesis.metric) if c in rows.columns]
    return rows[[*factors, *more]]


def _done(rows: pd.DataFrame, metric: str) -> NDArray[np.bool_]:
    """(n,) whether a run is finished and has the metric."""
    there: NDArray[np.bool_] = np.isfinite(rows[metric].to_numpy(dtype=float))
    if "status" in rows.columns:
        there &= (rows["status"] == FINISHED).to_numpy()
    return there


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


def _blocks(table: pd.DataFrame) -> list[_Block]:
    """All seeds first, then 3, 5, 10 of them.

    Seeds are counted within each data set, in their order; one with fewer than a block's keeps all.
    """
    place = table.groupby("data", observed=True)["seed"].rank("dense").to_numpy() - 1
    counts = table.groupby("data", observed=True)["seed"].nunique()
    most, least = int(counts.max()), int(counts.min())
    shown = str(most) if most == least else f"{least} to {most}"
    out = [_Block(f"all {shown}", 0, most, place >= 0)]
    for size in SEEDS:
        if size < most:
            count = max(1, least // size)
            for block in range(0, count, -(-count // MOST_BLOCKS)):
                chosen = (place >= block * size) & (place < (block + 1) * size)
                out.append(_Block(str(size), block, size, chosen))
    return out


def _control(every: Sequence[_Scored], alpha: float) -> Control:
    """How often two halves of the seeds of one arm are said to differ; see the head of this file."""
    shares: list[float] = []
    universes = most_arms = most_splits = 0
    for one in every:
        done = one.everyone.runs.done.values()
        sizes = sorted({len(mine) for mine in done if len(mine) >= 4})
        arms = [np.stack([mine for mine in done if len(mine) == n]) for n in sizes]  # (A, n)
        splits = [_halves(n) for n in sizes]
        if not arms:
            continue
        told = [
            differ(one.scores(scoring)[mine], halves, summary, alpha).mean(axis=1)
            for scoring in one.ways
            for summary in SUMMARIES
            for mine, halves in zip(arms, splits, strict=True)
        ]
        shares.append(float(np.concatenate(told).mean()))
        ways = len(one.ways) * len(SUMMARIES)
        universes, most_arms = max(universes, ways), max(most_arms, sum(map(len, arms)))
        most_splits = max(most_splits, *map(len, splits))
    if not shares:
        return Control(None, alpha, reason="no arm has four seeds, which two halves need")
    return Control(float(np.mean(shares)), alpha, universes, most_arms, most_splits)


def _halves(n: int) -> NDArray[np.bool_]:
    """(splits, n): which of n are in the first half, of n // 2."""
    ways = list(itertools.combinations(range(n), n // 2))
    if 2 * (n // 2) == n:
        ways = ways[: len(ways) // 2]  # the others are the same, the other way round
    if len(ways) > MOST_SPLITS:
        drawn = generator(f"halves/{n}").choice(len(ways), MOST_SPLITS, replace=False)
        ways = [ways[i] for i in sorted(drawn.tolist())]
    out = np.zeros((len(ways), n), dtype=bool)
    for row, members in zip(out, ways, strict=True):
        row[list(members)] = True
    return out


def differ(
    values: Floats, halves: NDArray[np.bool_], summary: str, alpha: float
) -> NDArray[np.bool_]:
    """(arms, splits) whether Welch's t claims that the halves (splits, n) of the values (arms, n) differ."""
    both = [
        summarised(values[:, np.stack([np.flatnonzero(h) for h in which])], summary)
        for which in (halves, ~halves)
    ]  # (arms, splits, n / 2)
    found = batch.combine([1.0, -1.0], [half.reshape(-1, half.shape[-1]) for half in both])
    flat = found.variance <= 0.0
    t = np.abs(found.value) / np.sqrt(np.where(flat, 1.0, found.variance))
    p = 2.0 * special.stdtr(np.where(flat, 1.0, found.df), -t)
    claimed: NDArray[np.bool_] = np.where(flat, found.value != 0.0, p < alpha)
    return claimed.reshape(len(values), len(halves))


def summarised(values: Floats, summary: str) -> Floats:
    """Values (..., n) moved and stretched so that their mean is the summary ("mean", "IQM" or "median")
    and var / n the square of its standard error.

    IQM: the mean without the int(n / 4) lowest and highest; standard error by J. W. Tukey and D. H.
    McLaughlin, Sankhya A 25 (1963) 331-352 (as in Yuen's test). Median: J. S. Maritz and R. G.
    Jarrett, J. American Statistical Association 73 (1978) 194-196: the variance of the median of resamples, in closed
    form (with an even n that of the quantile between the two in the middle). A single value stays.
    """
    n = values.shape[-1]
    if n < 2 or summary == "mean":
        return values
    ordered = np.sort(values, axis=-1)
    if summary == "IQM":
        cut = n // 4
        centre = ordered[..., cut : n - cut].mean(axis=-1, keepdims=True)
        kept = n - 2 * cut
        inner = np.clip(ordered, ordered[..., [cut]], ordered[..., [n - cut - 1]])
        squares = np.square(inner - inner.mean(axis=-1, keepdims=True)).sum(axis=-1, keepdims=True)
        variance = squares / (kept * (kept - 1))
    else:
        centre = np.median(ordered, axis=-1, keepdims=True)
        weights = _maritz_jarrett(n)
        variance = (ordered**2 @ weights - (ordered @ weights) ** 2)[..., None]
    away = values - values.mean(axis=-1, keepdims=True)
    spread = np.square(away).sum(axis=-1, keepdims=True) / (n - 1) / n
    flat = spread == 0.0
    return centre + away * np.sqrt(np.maximum(variance, 0.0) / np.where(flat, 1.0, spread))


@functools.cache
def _maritz_jarrett(n: int) -> Floats:
    """(n,) how probable each of the ordered values is as the median of resamples."""
    edges = stats.beta.cdf(np.arange(n + 1) / n, (n + 1) / 2, (n + 1) / 2)
    weights: Floats = np.diff(edges)
    return weights
