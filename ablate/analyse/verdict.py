"""The written rule that turns a hypothesis and its trials into a verdict.

A hypothesis declares its estimand: *fixed* (these data sets, new seeds; the default) or
*population* (new data sets, of which these are a sample). The rule uses the procedures of that one;
the other's estimate, interval and p are reported beside it and decide nothing.

fixed         interval and TOST: stratified Welch-Satterthwaite t, data sets weighing equally. Tests
              of zero: by randomisation, as below. A cell needs two finished seeds.
population    everything: t with n_datasets - 1 degrees of freedom on the data sets' contrasts of
              cell means, from two data sets on; a cell needs one finished seed. Beside it stand its
              model-based twin (mixed model with random slopes, same degrees of freedom) and, from
              six data sets on, the exact sign-flip test over data sets. They decide nothing: at
              six data sets a sign flip's p cannot go below 2/64.

Everything is decided at level alpha on p values corrected by Holm over the hypothesis' declared
family (its `family`, else primary and secondary hypotheses apart; untested ones don't count).
Three corrections run side by side, one for each kind of statement: for, against, equivalent.

superiority (contrast > threshold)
    supported     the corrected p of "for" is below alpha. For threshold 0 and the fixed estimand
                  that is the randomisation test (labels shuffled within data set x other factors
                  for a contrast of one factor, else sign flips of per-seed contrasts), else the
                  one-sided t.
    equivalent    not so, and TOST puts the contrast within the margin of 0: the predicted
                  difference is too small to matter (this also says "refuted").
    refuted       neither, the interval excludes the threshold from above and the corrected p of
                  "against", from the same test on the other side, is below alpha.
difference (contrast is not `around`)
    supported     the corrected two-sided p is below alpha, tests as above.
    equivalent    not so, and TOST puts the contrast within the margin of `around`.
trend (the metric rises along the levels of an ordered factor)
    As superiority above 0 of the rise of the fitted line, whose interval and TOST are those of any
    contrast. For the fixed estimand the randomisation test is Jonckheere-Terpstra's, labels
    shuffled within data set x other factors: one-sided upwards for, downwards against.
equivalence (contrast within the margin of `around`)
    equivalent    the corrected p of TOST is below alpha.
    refuted       the interval lies beyond a margin, and the corrected p of that is below alpha.
anything else     inconclusive; without the seeds or data sets that its estimand needs: not tested,
                  with the reason why it cannot be decided.

A randomisation test with so few arrangements that even its smallest p couldn't pass Holm's first
step hands over to the t test; that depends on the design only, and is said.
A hypothesis of several claims (`each`, "each pair of") holds when all do: intersection-union, p is
the largest p. It is refuted when any claim is, or, where a difference is predicted, when any
claim's is equivalent to none: p is the smallest one times their number. What is reported as its
estimate belongs to the claim that decides, the one with the largest p. Intervals are not
corrected. Failed trials are left out of the means, and counted. A combination of the other factors
that lacks a cell is left out of the average, unequal numbers of seeds are used as they are, and both
are said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from ablate import words
from ablate.analyse.claims import ONE_DATA_SET, ClaimResult, Fixed, Population, assess
from ablate.analyse.resolve import Resolved, Untestable, resolve
from ablate.analyse.table import factor_columns
from ablate.analyse.tests import holm
from ablate.analyse.trends import Isotonic
from ablate.errors import UserError, unknown
from ablate.study.contrast import Level
from ablate.study.hypotheses import Claim, Hypothesis, claims

SUPPORTED = "supported"
REFUTED = "refuted"
EQUIVALENT = "equivalent"
INCONCLUSIVE = "inconclusive"
NOT_TESTED = "not tested"


@dataclass(frozen=True)
class Verdict:
    """A hypothesis and what the trials say of it. Estimate and bounds are in the metric's units.

    estimand: "fixed" or "population", as declared. estimate, low, high, df: its numbers, of the
    deciding claim. p, p_holm: of the statement that the hypothesis makes, before and after
    correction. p_against_holm, p_equivalent_holm: the corrected p of the other two statements.
    fixed, population: the two estimands side by side. curve: the means by level, of a trend.
    details: every claim. None where it wasn't tested.
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


@dataclass(frozen=True)
class _Tested:
    """A hypothesis with its claims resolved, before the size of its family is known."""

    hypothesis: Hypothesis
    margin: float | None
    resolved: tuple[tuple[Claim, Resolved], ...]
    untested: tuple[tuple[Claim, Untestable], ...]

    @property
    def every(self) -> list[tuple[Claim, Resolved | Untestable]]:
        return [*self.resolved, *self.untested]


def family_of(hypothesis: Hypothesis) -> str:
    """The family within which the hypothesis is corrected."""
    return hypothesis.family or ("primary" if hypothesis.primary else "secondary")


def judge(
    table: pd.DataFrame,
    hypotheses: Sequence[Hypothesis],
    levels: Mapping[str, Sequence[Level]],
    *,
    alpha: float,
    margin: float | None,
    registered: Mapping[str, bool],
) -> list[Verdict]:
    """Verdicts in the order of the hypotheses, without their sentences (see `sentences.py`).

    margin: of hypotheses on `score` that state none. registered: hypothesis id -> written before
    the runs; families are corrected apart for confirmatory and exploratory hypotheses.
    Raises UserError for an equivalence without a margin or a `where` on a column that isn't there.
    """
    tested = [_prepare(table, h, levels, margin) for h in hypotheses]
    families: dict[tuple[str, bool], list[int]] = {}
    for i, item in enumerate(tested):
        if item.resolved:
            key = (family_of(item.hypothesis), registered[item.hypothesis.id])
            families.setdefault(key, []).append(i)
    verdicts = [_blank(item, registered, alpha) for item in tested]
    for members in families.values():
        drafts = [
            _draft(verdicts[i], tested[i], alpha=alpha, family_size=len(members)) for i in members
        ]
        wanted = holm([d.p for d in drafts if d.p is not None])
        against = holm([_against(d) for d in drafts])
        equal = holm([max(c.p_equivalent for c in d.details) for d in drafts])
        for i, draft, p_for, p_against, p_equal in zip(
            members, drafts, wanted, against, equal, strict=True
        ):
            corrected = replace(
                draft,
                p_holm=float(p_for),
                p_against_holm=float(p_against),
                p_equivalent_holm=float(p_equal),
            )
            verdicts[i] = replace(corrected, verdict=_rule(corrected, alpha))
    return verdicts


def _prepare(
    table: pd.DataFrame,
    hypothesis: Hypothesis,
    levels: Mapping[str, Sequence[Level]],
    default_margin: float | None,
) -> _Tested:
    margin = hypothesis.margin
    if margin is None and words.response(hypothesis.metric).points:
        margin = default_margin
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
        found = resolve(claim, table, hypothesis.metric)
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
    return _Tested(hypothesis, margin, tuple(resolved), tuple(untested))


def _blank(item: _Tested, registered: Mapping[str, bool], alpha: float) -> Verdict:
    h = item.hypothesis
    return Verdict(
        hypothesis=h.id,
        says=h.says,
        verdict=NOT_TESTED,
        test=h.test,
        metric=h.metric,
        contrast=h.contrast,
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


def _draft(blank: Verdict, item: _Tested, *, alpha: float, family_size: int) -> Verdict:
    """The uncorrected numbers of a tested hypothesis."""
    details = tuple(
        assess(
            item.hypothesis,
            claim.label,
            claim.contrast.text,
            found,
            alpha=alpha,
            margin=item.margin,
            family_size=family_size,
        )
        for claim, found in item.resolved
    )
    decisive = max(details, key=lambda c: (c.p_for, _short_of(item.hypothesis, c)))
    return replace(
        blank,
        n_trials=len(frozenset().union(*(found.trials for _, found in item.resolved))),
        estimate=decisive.estimate,
        low=decisive.low,
        high=decisive.high,
        df=decisive.df,
        p=decisive.p_for,
        family_size=family_size,
        test_name=decisive.test_name,
        decided_by=decisive.label if len(details) > 1 else "",
        degenerate=decisive.degenerate,
        population=decisive.population,
        fixed=decisive.fixed,
        curve=decisive.curve,
        details=details,
        notes=decisive.notes,
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


def _rule(verdict: Verdict, alpha: float) -> str:
    """The rule at the head of this file."""
    assert verdict.p_holm is not None
    assert verdict.p_against_holm is not None
    assert verdict.p_equivalent_holm is not None
    if verdict.p_holm < alpha:
        return EQUIVALENT if verdict.test == "equivalence" else SUPPORTED
    if verdict.test != "equivalence" and verdict.p_equivalent_holm < alpha:
        return EQUIVALENT
    if _excluded(verdict) and verdict.p_against_holm < alpha:
        return REFUTED
    return INCONCLUSIVE
