"""The written rule that turns a hypothesis and its trials into a verdict.

A hypothesis declares its estimand: *fixed* (these data sets, new seeds and new evaluation episodes; the
default) or *population* (new data sets, of which these are a sample). The rule uses the procedures of that
one; the other's estimate, interval and p are reported beside it and decide nothing.

fixed         contrasts formed within seeds, data sets weighing equally: Student's t over seeds. What can't be
              paired is Welch-Satterthwaite's (`pairing.py` and `intervals.py` say which and how). A cell
              needs two finished seeds. Beside it stands a randomisation test of zero: sign flips of the
              seeds' contrasts, or labels shuffled within data set x other factors where nothing is paired
              (for a trend the count of Jonckheere and Terpstra). It decides nothing: with few seeds its p
              can't fall below any usual level, and at its least it can contradict the interval.
population    t with n_datasets - 1 degrees of freedom on the data sets' contrasts of cell means, or the fixed
              estimand's t where its interval is the wider; from two data sets on; a cell needs one finished
              seed. Beside it stand its model-based twin (mixed model with random slopes, same degrees
              of freedom) and, from six data sets on, the exact sign-flip test over data sets. They decide
              nothing: at six data sets a sign flip's p cannot go below 2/64.

Everything is decided at level alpha on p values corrected by Holm over the hypothesis' declared
family (its `family`, else primary and secondary hypotheses apart; untested ones don't count).
Three corrections run side by side, one for each kind of statement: for, against, equivalent. A statement
about a direction needs its one-sided p *and* the two-sided interval: what the interval leaves open, no
verdict closes.

superiority (contrast > threshold)
    supported     the corrected p of "for" is below alpha and the interval lies above the threshold.
    equivalent    not so, and TOST puts the contrast within the margin of 0: the predicted
                  difference is too small to matter (this also says "refuted").
    refuted       neither, the interval excludes the threshold from above and the corrected p of
                  "against", from the same test on the other side, is below alpha.
difference (contrast is not `around`)
    supported     the corrected two-sided p is below alpha, so the interval excludes `around`.
    equivalent    not so, and TOST puts the contrast within the margin of `around`.
trend (the metric rises along the levels of an ordered factor)
    As superiority above 0 of the rise of the fitted line.
equivalence (contrast within the margin of `around`)
    equivalent    the corrected p of TOST is below alpha: the interval at 1 - 2 alpha lies within the margins
                  (Schuirmann). Where that at 1 - alpha doesn't, the notes give the former.
    refuted       the interval lies beyond a margin, and the corrected p of that is below alpha.
anything else     inconclusive; without the seeds or data sets that its estimand needs: not tested,
                  with the reason why it cannot be decided.
not converged     in place of any of these, where the column `converged` says that half of a cell's trials or
                  more, of those about which it says anything, weren't.

A table with budgets is judged at the last one of every fit; `by_budget` gives the others.
A hypothesis of several claims (`each`, "each pair of") holds when all do: intersection-union, p is
the largest p. It is refuted when any claim is, or, where a difference is predicted, when any
claim's is equivalent to none: p is the smallest one times their number. What is reported as its
estimate belongs to the claim that decides, the one with the largest p. Intervals are not
corrected. Failed trials are left out of the means, and counted. A combination of the other factors
that lacks a cell is left out of the average, and that is said.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from ablate import registry
from ablate.analyse.claims import (
    ONE_DATA_SET,
    ClaimResult,
    Estimated,
    Fixed,
    Population,
    assess,
    assess_finding,
    estimated,
)
from ablate.analyse.estimators import Estimator
from ablate.analyse.intervals import Floats
from ablate.analyse.pairing import Resolved, Runs, Untestable, resolve, runs
from ablate.analyse.randomisation import holm
from ablate.analyse.tidy import factor_columns, last_budget
from ablate.analyse.trends import Isotonic
from ablate.errors import UserError, unknown
from ablate.study.contrast import Level
from ablate.study.hypotheses import Claim, Hypothesis, claims
from ablate.words import Response, response

SUPPORTED = "supported"
REFUTED = "refuted"
EQUIVALENT = "equivalent"
INCONCLUSIVE = "inconclusive"
NOT_TESTED = "not tested"
NOT_CONVERGED = "not converged"


@dataclass(frozen=True)
class Verdict:
    """A hypothesis and what the trials say of it. Estimate and bounds are in the metric's units.

    estimand: "fixed" or "population", as declared. estimate, low, high, df: its numbers, of the
    deciding claim. p, p_holm: of the statement that the hypothesis makes, before and after
    correction. p_against_holm, p_equivalent_holm: the corrected p of the other two statements.
    fixed, population: the two estimands side by side. curve: the means by level, of a trend.
    details: every claim. trials: ids of the rows that it rests on. estimator: the one in place of a contrast.
    unconverged: its cells that weren't,
    in words. pairing: which of the deciding claim is
    paired, in words. None where it wasn't
    tested.
    """

    hypothesis: str
    says: str
    verdict: str
    test: str
    metric: str
    contrast: str
    primary: bool
    family: str
    status: str
    confidence: float
    margin: float | None
    threshold: float
    around: float
    n_trials: int = 0
    n_failed: int = 0
    n_missing: int = 0
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    df: float | None = None
    p: float | None = None
    p_holm: float | None = None
    p_against_holm: float | None = None
    p_equivalent_holm: float | None = None
    family_size: int = 0
    test_name: str = ""
    decided_by: str = ""
    degenerate: bool = False
    population: Population = field(default_factory=lambda: Population(0, reason="not tested"))
    details: tuple[ClaimResult, ...] = ()
    untested: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sentence: str = ""
    estimand: str = "fixed"
    fixed: Fixed = field(default_factory=lambda: Fixed(reason="not tested"))
    curve: Isotonic | None = None
    pairing: str = ""
    unconverged: tuple[str, ...] = ()
    estimator: str = ""
    trials: tuple[str, ...] = ()

    @property
    def response(self) -> Response:
        """What the estimate is: of the metric itself, or as the estimator says."""
        found = response(self.metric)
        if not self.estimator:
            return found
        kind: type[Estimator] = registry.get("estimator", self.estimator)
        return kind.gives(found)

    @property
    def deciding(self) -> ClaimResult | None:
        """The claim whose numbers these are; None where nothing was tested."""
        found = (c for c in self.details if not self.decided_by or c.label == self.decided_by)
        return next(found, None)


@dataclass(frozen=True)
class Tested:
    """A hypothesis with its claims resolved, before the size of its family is known."""

    hypothesis: Hypothesis
    margin: float | None
    resolved: tuple[tuple[Claim, Resolved | Estimated], ...]
    untested: tuple[tuple[Claim, Untestable], ...]

    @property
    def every(self) -> list[tuple[Claim, Resolved | Estimated | Untestable]]:
        """All claims, those with trials first."""
        return [*self.resolved, *self.untested]

    def rescored(self, score: Floats) -> Tested:
        """The same contrasts on other values of the same runs, see `Resolved.rescored`."""
        found = ((c, r.rescored(score) if isinstance(r, Resolved) else r) for c, r in self.resolved)
        return replace(self, resolved=tuple(found))


def family_of(hypothesis: Hypothesis) -> str:
    """The family within which the hypothesis is corrected."""
    return hypothesis.family or ("primary" if hypothesis.primary else "secondary")


def margin_of(hypothesis: Hypothesis, default: float | None) -> float | None:
    """The hypothesis' margin, or the study's for a contrast of a response in normalised points."""
    points = response(hypothesis.metric).points and hypothesis.estimator is None
    if hypothesis.margin is None and points:
        return default
    return hypothesis.margin


def judge(
    table: pd.DataFrame,
    hypotheses: Sequence[Hypothesis],
    levels: Mapping[str, Sequence[Level]],
    *,
    alpha: float,
    margin: float | None,
    registered: Mapping[str, bool],
    paired: bool = True,
    beside: bool = True,
) -> list[Verdict]:
    """Verdicts in the order of the hypotheses, without their sentences (see `sentences.py`).

    margin: of hypotheses in normalised points that state none. registered: hypothesis id -> written before
    the runs; families are corrected apart for confirmatory and exploratory hypotheses. paired: whether
    cells of one seed share anything, as in our own runs; in a table from elsewhere only where its study
    says so. beside: with what decides nothing: the procedures of
    `claims.assess`, the trials' ids and how many are missing. Raises UserError for an equivalence without a
    margin or a `where` on a column that isn't there.
    """
    table = last_budget(table)
    known = {
        metric: runs(table, metric)
        for metric in {h.metric for h in hypotheses if h.estimator is None}
    }
    tested = [prepare(table, h, levels, margin, paired, known, beside) for h in hypotheses]
    drafts = [draft(table, one, registered, alpha, beside) for one in tested]
    return corrected(drafts, registered, alpha)


def corrected(
    drafts: Sequence[Verdict], registered: Mapping[str, bool], alpha: float
) -> list[Verdict]:
    """Verdicts by the rule at the head of this file from the uncorrected numbers of all hypotheses."""
    families: dict[tuple[str, bool], list[int]] = {}
    for i, one in enumerate(drafts):
        if one.details:
            families.setdefault((one.family, registered[one.hypothesis]), []).append(i)
    verdicts = list(drafts)
    for members in families.values():
        family = [drafts[i] for i in members]
        wanted = holm([d.p for d in family if d.p is not None])
        against = holm([_against(d) for d in family])
        equal = holm([max(c.p_equivalent for c in d.details) for d in family])
        for i, one, p_for, p_against, p_equal in zip(
            members, family, wanted, against, equal, strict=True
        ):
            whole = replace(
                one,
                family_size=len(members),
                p_holm=float(p_for),
                p_against_holm=float(p_against),
                p_equivalent_holm=float(p_equal),
            )
            found = _rule(whole, alpha)
            notes = (*whole.notes, *_apart(whole, found, alpha))
            verdicts[i] = replace(whole, verdict=found, notes=notes)
    return verdicts


def prepare(
    table: pd.DataFrame,
    hypothesis: Hypothesis,
    levels: Mapping[str, Sequence[Level]],
    default_margin: float | None,
    paired: bool,
    runs_of: Mapping[str, Runs],
    beside: bool,
) -> Tested:
    """The hypothesis' claims on the trials. runs_of: `pairing.runs` of the table by metric; the rest as of `judge`."""
    margin = margin_of(hypothesis, default_margin)
    if margin is None and hypothesis.test == "equivalence":
        raise UserError(
            f"hypothesis '{hypothesis.id}': an equivalence of '{hypothesis.metric}' needs a margin"
        )
    known = factor_columns(table)
    resolved, untested = [], []
    for claim in claims(hypothesis, levels):
        for factor in (*claim.where, *claim.contrast.factors):
            if factor not in known:
                raise unknown(f"hypothesis '{hypothesis.id}': the factor", factor, known)
        found: Resolved | Estimated | Untestable
        if claim.estimator is not None:
            found = estimated(claim, table, hypothesis, paired)
        else:
            found = resolve(
                claim, table, hypothesis.metric, paired, runs_of[hypothesis.metric], beside
            )
        if (
            isinstance(found, Resolved)
            and hypothesis.estimand == "population"
            and len(found.names) < 2
        ):
            found = Untestable(ONE_DATA_SET, found.failed, found.missing)
        if isinstance(found, Untestable):
            untested.append((claim, found))
        else:
            resolved.append((claim, found))
    return Tested(hypothesis, margin, tuple(resolved), tuple(untested))


def _blank(item: Tested, registered: Mapping[str, bool], alpha: float) -> Verdict:
    h = item.hypothesis
    return Verdict(
        hypothesis=h.id,
        says=h.says,
        verdict=NOT_TESTED,
        test=h.test,
        metric=h.metric,
        contrast=h.contrast or _words(item),
        estimator=next(iter(h.estimator)) if h.estimator else "",
        primary=h.primary,
        family=family_of(h),
        status="confirmatory" if registered[h.id] else "exploratory",
        confidence=1.0 - alpha,
        margin=item.margin,
        threshold=h.threshold,
        around=h.around,
        estimand=h.estimand,
        n_failed=len(frozenset().union(*(found.failed for _, found in item.every))),
        n_missing=len(frozenset().union(*(found.missing for _, found in item.every))),
        untested=tuple(claim.label or claim.contrast.text for claim, _ in item.untested),
        notes=() if item.resolved else (item.untested[0][1].reason,),
    )


def _ids(table: pd.DataFrame, rows: pd.Index) -> tuple[str, ...]:
    """The ids of these rows, where the table has any."""
    if "trial" not in table.columns:
        return ()
    return tuple(sorted(table["trial"][table.index.isin(rows)].astype(str).tolist()))


def _words(item: Tested) -> str:
    """What a hypothesis with an estimator estimates, in words."""
    return "; ".join(dict.fromkeys(claim.contrast.text for claim, _ in item.every))


def _assessed(
    item: Tested, claim: Claim, found: Resolved | Estimated, alpha: float, beside: bool
) -> ClaimResult:
    """One claim's numbers, by its contrast of cell means or by its estimator."""
    told = (item.hypothesis, claim.label, claim.contrast.text)
    if isinstance(found, Resolved):
        return assess(*told, found, alpha=alpha, margin=item.margin, beside=beside)
    return assess_finding(*told, found, alpha=alpha, margin=item.margin)


def draft(
    table: pd.DataFrame,
    item: Tested,
    registered: Mapping[str, bool],
    alpha: float,
    beside: bool,
) -> Verdict:
    """The uncorrected numbers of a hypothesis; one without claims that can be tested is "not tested"."""
    blank = _blank(item, registered, alpha)
    if not item.resolved:
        return blank
    details = tuple(_assessed(item, claim, found, alpha, beside) for claim, found in item.resolved)
    trials = functools.reduce(pd.Index.union, (found.trials for _, found in item.resolved))
    unconverged: tuple[str, ...] = ()
    doubts: list[str] = []
    if "converged" in table.columns:
        unconverged, doubts = convergence(table.loc[table.index.isin(trials)])
    decisive = max(details, key=lambda c: (c.p_for, _short_of(item.hypothesis, c)))
    return replace(
        blank,
        n_trials=len(trials),
        trials=_ids(table, trials) if beside else (),
        unconverged=unconverged,
        estimate=decisive.estimate,
        low=decisive.low,
        high=decisive.high,
        df=decisive.df,
        p=decisive.p_for,
        test_name=decisive.test_name,
        decided_by=decisive.label if len(details) > 1 else "",
        degenerate=decisive.degenerate,
        population=decisive.population,
        fixed=decisive.fixed,
        curve=decisive.curve,
        details=details,
        notes=(*decisive.notes, *doubts),
        pairing=decisive.pairing,
    )


def _short_of(hypothesis: Hypothesis, claim: ClaimResult) -> float:
    """How far the estimate is from what the hypothesis wants: breaks ties between equal p."""
    if hypothesis.test in ("superiority", "trend"):
        return hypothesis.threshold - claim.estimate
    distance = abs(claim.estimate - hypothesis.around)
    return distance if hypothesis.test == "equivalence" else -distance


def refuting(verdict: Verdict) -> ClaimResult:
    """The claim that speaks most against the hypothesis."""
    return min(verdict.details, key=lambda c: min(_ways_against(verdict, c)))


def _ways_against(verdict: Verdict, claim: ClaimResult) -> list[float]:
    """One of several claims fails also when the difference it predicts is equivalent to none."""
    if len(verdict.details) > 1 and verdict.test != "equivalence":
        return [claim.p_against, claim.p_equivalent]
    return [claim.p_against]


def _against(verdict: Verdict) -> float:
    ways = [p for claim in verdict.details for p in _ways_against(verdict, claim)]
    return min(1.0, min(ways) * len(ways))


def _clear(verdict: Verdict) -> bool:
    """Whether the intervals of all claims exclude the null; that of a t does when its p says so."""
    if verdict.test == "equivalence":
        return True
    if verdict.test == "difference":
        return all(not c.low <= verdict.around <= c.high for c in verdict.details)
    return all(c.low > verdict.threshold for c in verdict.details)


def _excluded(verdict: Verdict) -> bool:
    """Whether the refuting claim's interval shuts out all that the claim allows."""
    claim = refuting(verdict)
    ways = _ways_against(verdict, claim)
    if ways[-1] < ways[0]:
        return True  # not by the interval: the predicted difference is equivalent to none
    if verdict.test in ("superiority", "trend"):
        return claim.high < verdict.threshold
    if verdict.test == "equivalence" and verdict.margin is not None:
        low, high = verdict.around - verdict.margin, verdict.around + verdict.margin
        return claim.high < low or claim.low > high
    return False


def supports(test: str, p: float | Floats, corrected: float | Floats, alpha: float) -> Any:
    """Whether p values (of what the hypothesis says, before and after Holm) make it supported.

    A one-sided p agrees with the two-sided interval where it is below alpha / 2. For an array an array.
    """
    level = alpha / 2.0 if test in ("superiority", "trend") else alpha
    return (np.asarray(p) < level) & (np.asarray(corrected) < alpha)


def _rule(verdict: Verdict, alpha: float) -> str:
    """The rule at the head of this file."""
    assert verdict.p is not None
    assert verdict.p_holm is not None
    assert verdict.p_against_holm is not None
    assert verdict.p_equivalent_holm is not None
    if verdict.unconverged:
        return NOT_CONVERGED
    if supports(verdict.test, verdict.p, verdict.p_holm, alpha) and _clear(verdict):
        return EQUIVALENT if verdict.test == "equivalence" else SUPPORTED
    if verdict.test != "equivalence" and verdict.p_equivalent_holm < alpha:
        return EQUIVALENT
    if _excluded(verdict) and verdict.p_against_holm < alpha:
        return REFUTED
    return INCONCLUSIVE


def _apart(verdict: Verdict, found: str, alpha: float) -> list[str]:
    """Where a p value or an interval would have said something else than the verdict, in words."""
    assert verdict.p_holm is not None
    percent = f"{100.0 * verdict.confidence:.3g} %"
    if found == INCONCLUSIVE and verdict.p_holm < alpha:
        return [
            f"the one-sided test alone is significant, but the {percent} interval isn't clear of it"
        ]
    if found != EQUIVALENT or verdict.margin is None:
        return []
    widest = max(verdict.details, key=lambda c: c.p_equivalent)
    low, high = verdict.around - verdict.margin, verdict.around + verdict.margin
    if low < widest.low and widest.high < high:
        return []
    return [
        f"within the margin lies the {100.0 * (1.0 - 2.0 * alpha):.3g} % interval, which is that of TOST;"
        f" the {percent} interval goes beyond it"
    ]


def convergence(rows: pd.DataFrame) -> tuple[tuple[str, ...], list[str]]:
    """Cells of these trials that aren't converged, and what to say of single trials that aren't.

    The column `converged` is 1 or 0 (true or false); where it is empty or there is none, nothing is known,
    and that counts as fine.
    """
    if "converged" not in rows.columns:
        return (), []
    known = rows[rows["converged"].notna()]
    if known.empty:
        return (), []
    failing = known["converged"].astype(float) < 0.5
    factors = factor_columns(rows)
    varied = [name for name in factors if rows[name].nunique() > 1] or factors[:1]
    cells = []
    for key, share in (
        failing.groupby([known[name] for name in factors], observed=True).mean().items()
    ):
        if share >= 0.5:
            at = dict(zip(factors, key if isinstance(key, tuple) else (key,), strict=True))
            cells.append(", ".join(f"{name} {at[name]}" for name in varied))
    lost = int(failing.sum())
    notes = [f"{lost} of {len(known)} trials aren't converged"] if lost else []
    return tuple(dict.fromkeys(cells)), notes


def by_budget(
    table: pd.DataFrame,
    hypotheses: Sequence[Hypothesis],
    levels: Mapping[str, Sequence[Level]],
    *,
    alpha: float,
    margin: float | None,
    registered: Mapping[str, bool],
    paired: bool = True,
) -> pd.DataFrame:
    """The verdicts at every budget of the table, each corrected within its budget.

    One row a hypothesis and budget, in this order: hypothesis, budget, estimate, low, high, verdict, trials,
    last (whether it is the last budget). Empty for a table without a column `budget`. Arguments as of
    `judge`.
    """
    columns = ["hypothesis", "budget", "estimate", "low", "high", "verdict", "trials", "last"]
    if "budget" not in table.columns:
        return pd.DataFrame(columns=columns)
    budgets = sorted(table["budget"].dropna().unique().tolist())
    rows = []
    for budget in budgets:
        at = table[table["budget"] == budget]
        for v in judge(
            at,
            hypotheses,
            levels,
            alpha=alpha,
            margin=margin,
            registered=registered,
            paired=paired,
            beside=False,
        ):
            bounds = [math.nan if x is None else x for x in (v.estimate, v.low, v.high)]
            last = budget == budgets[-1]
            rows.append((v.hypothesis, budget, *bounds, v.verdict, v.n_trials, last))
    order = {h.id: i for i, h in enumerate(hypotheses)}
    rows.sort(key=lambda row: (order[row[0]], row[1]))
    return pd.DataFrame(rows, columns=columns)
