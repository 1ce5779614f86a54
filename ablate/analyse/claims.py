"""One claim on its trials: estimate, interval and the p values of everything its test may conclude.

Three p values a claim, each a one-sided statement that the rule in `verdict.py` may make:

* `p_for`: the claim is true;
* `p_against`: its opposite is (superiority: the contrast is below the threshold; trend: the metric
  falls; equivalence: it lies beyond a margin; a difference cannot be refuted otherwise than by
  equivalence: 1);
* `p_equivalent`: the contrast is within the margin of `around` (1 without a margin).

They belong to the estimand that the hypothesis declares; both are always reported. All are p values of
the t whose interval is reported, so that test and interval can't contradict each other; a randomisation
test stands beside them where the null is "0".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import pandas as pd

from ablate.analyse import mixed
from ablate.analyse.estimators import Asked, Finding, Untold
from ablate.analyse.intervals import Estimate, equivalence_p, interval, p_value, wider
from ablate.analyse.pairing import Resolved, Untestable
from ablate.analyse.randomisation import (
    SIGN_FLIP_DATA_SETS,
    Randomisation,
    generator,
    over_data_sets,
    permutation,
    sign_flip,
)
from ablate.analyse.tidy import failed, finished
from ablate.analyse.trends import Isotonic, isotonic, jonckheere_test
from ablate.study.contrast import ACROSS, parse
from ablate.study.hypotheses import Claim, Hypothesis

PAIRED = "paired t over seeds"
WELCH = "Welch-Satterthwaite t"
TOST_PAIRED = "TOST by paired t over seeds"
TOST = "TOST by Welch-Satterthwaite t"
OVER_DATA_SETS = "t over data sets"
TOST_OVER_DATA_SETS = "TOST by t over data sets"
TESTS = {PAIRED: TOST_PAIRED, WELCH: TOST, OVER_DATA_SETS: TOST_OVER_DATA_SETS}  # t -> its TOST
MOST_SHUFFLED = 2_000  # runs
ONE_DATA_SET = (
    "the estimand is new data sets, and the contrast is there on one only: at least two are needed"
)


@dataclass(frozen=True)
class Fixed:
    """The estimand over new seeds on these data sets: the interval of the contrasts within seeds.

    p is two-sided, of "0" (of `around` or `threshold`; for an equivalence the TOST), by t.
    p_randomised: the same by `randomisation`, where that exists. All None with the `reason` why.
    """

    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    df: float | None = None
    p: float | None = None
    p_randomised: float | None = None
    randomisation: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Population:
    """The estimand over new data sets: t with n_datasets - 1 degrees of freedom, or why none.

    Where the interval over new seeds on these data sets is wider, its standard error and degrees of
    freedom take their place: a sample of data sets can't be known better than its members. p is two-sided, of
    "0" (of `around` or `threshold`; for an equivalence the TOST); p_sign_flip
    from six data sets on. mixed_*: the same by the mixed model with random slopes (`mixed.py`), or
    `mixed_reason` why not; slope_sd, seed_sd: its standard deviations over data sets and seeds.
    """

    n_datasets: int
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_sign_flip: float | None = None
    reason: str = ""
    df: float | None = None
    mixed_estimate: float | None = None
    mixed_low: float | None = None
    mixed_high: float | None = None
    mixed_p: float | None = None
    slope_sd: float | None = None
    seed_sd: float | None = None
    mixed_reason: str = ""


@dataclass(frozen=True)
class ClaimResult:
    """What the trials say of one claim. Estimates and bounds are in the metric's units.

    estimate, low, high, df, degenerate and the p values: of the declared estimand. by_data_set: name ->
    (estimate, low, high), for new seeds. curve: means by level, of a trend. pairing: which of it is
    paired, in words. lost: data sets that it is about and that lack a cell.
    """

    label: str
    contrast: str
    estimate: float
    low: float
    high: float
    df: float
    degenerate: bool
    test_name: str
    p_for: float
    p_against: float
    p_equivalent: float
    population: Population
    by_data_set: dict[str, tuple[float, float, float]]
    notes: tuple[str, ...]
    fixed: Fixed = field(default_factory=Fixed)
    curve: Isotonic | None = None
    pairing: str = ""
    lost: tuple[str, ...] = ()


def assess(
    hypothesis: Hypothesis,
    label: str,
    contrast: str,
    resolved: Resolved,
    *,
    alpha: float,
    margin: float | None,
    beside: bool = True,
) -> ClaimResult:
    """Test one claim. beside: also by what decides nothing, the randomisation test, the curve of a trend and the
    estimand that wasn't declared.

    Raises ValueError when the declared estimand has too few data sets or seeds for an estimate;
    `verdict.judge` doesn't ask then.
    """
    confidence = 1.0 - alpha
    of_data_sets = hypothesis.estimand == "population"
    basis: Estimate | None = resolved.fixed if resolved.replicated else None
    random = _randomise(hypothesis, label, resolved) if beside else None
    fixed = _fixed(hypothesis, basis, random, confidence, margin)
    if of_data_sets:
        basis = _over_data_sets(resolved, confidence)[0]
    if basis is None:
        raise ValueError(f"'{hypothesis.id}': {ONE_DATA_SET if of_data_sets else fixed.reason}")
    low, high = interval(basis, confidence)
    around = hypothesis.around
    p_equivalent = equivalence_p(basis, margin, around) if margin is not None else 1.0
    name = OVER_DATA_SETS if of_data_sets else PAIRED if resolved.paired else WELCH
    if hypothesis.test == "equivalence":
        assert margin is not None  # `verdict.judge` refuses an equivalence without one
        name, p_for = TESTS[name], p_equivalent
        beyond = (
            p_value(basis, around + margin, "greater"),
            p_value(basis, around - margin, "less"),
        )
        p_against = min(1.0, 2.0 * min(beyond))
    elif hypothesis.test == "difference":
        p_for, p_against = p_value(basis, around), 1.0
    else:
        p_for = p_value(basis, hypothesis.threshold, "greater")
        p_against = p_value(basis, hypothesis.threshold, "less")
    notes = [*resolved.notes, *_spread_notes(basis, "data sets" if of_data_sets else "seeds")]
    by_data_set = {
        data: (e.value, *interval(e, confidence)) for data, e in resolved.by_data_set.items()
    }
    return ClaimResult(
        label=label,
        contrast=contrast,
        estimate=basis.value,
        low=low,
        high=high,
        df=basis.df,
        degenerate=basis.degenerate,
        test_name=name,
        p_for=p_for,
        p_against=p_against,
        p_equivalent=p_equivalent,
        population=population(hypothesis, resolved, confidence, margin)
        if beside or of_data_sets
        else Population(0, reason="not asked"),
        by_data_set=by_data_set,
        notes=tuple(notes),
        fixed=fixed,
        curve=_curve(hypothesis, label, contrast, resolved, confidence) if beside else None,
        pairing=resolved.pairing,
        lost=resolved.lost,
    )


@dataclass(frozen=True)
class Estimated:
    """A claim that an estimator of its own has answered; fields as of `Resolved`."""

    finding: Finding
    test: str
    names: tuple[str, ...]
    trials: pd.Index
    failed: frozenset[object]
    missing: frozenset[object] = frozenset()


def estimated(
    claim: Claim, table: pd.DataFrame, hypothesis: Hypothesis, paired: bool
) -> Estimated | Untestable:
    """Ask a claim's estimator, or why there is no answer."""
    assert claim.estimator is not None
    selected = claim.select(table)
    rows = selected[finished(selected)]
    lost = frozenset(selected.index[failed(selected)])
    if rows.empty:
        return Untestable("no trial is about it", lost, frozenset())
    try:
        asked = Asked(hypothesis.metric, paired, f"{hypothesis.id}/{claim.label}")
        found = claim.estimator(rows, asked)
    except Untold as reason:
        return Untestable(str(reason), lost, frozenset())
    if not all(map(math.isfinite, (found.value, found.p_value(0.0, "greater")))):
        return Untestable("its estimate isn't finite", lost, frozenset())
    names = tuple(dict.fromkeys(map(str, rows["data"])))
    test = hypothesis.estimator and next(iter(hypothesis.estimator))
    return Estimated(found, f"the {test} estimator", names, rows.index, lost)


def assess_finding(
    hypothesis: Hypothesis,
    label: str,
    contrast: str,
    found: Estimated,
    *,
    alpha: float,
    margin: float | None,
) -> ClaimResult:
    """Test a claim by what its estimator found; see `assess`."""
    finding = found.finding
    low, high = finding.interval(1.0 - alpha)
    around, null = hypothesis.around, _null(hypothesis)
    p_equivalent = 1.0
    p_against = 1.0
    if margin is not None:
        sides = (
            finding.p_value(around - margin, "greater"),
            finding.p_value(around + margin, "less"),
        )
        p_equivalent = max(sides)
    if hypothesis.test == "equivalence":
        assert margin is not None
        beyond = (
            finding.p_value(around + margin, "greater"),
            finding.p_value(around - margin, "less"),
        )
        p_for, p_against = p_equivalent, min(1.0, 2.0 * min(beyond))
    elif hypothesis.test == "difference":
        p_for = finding.p_value(around, "two-sided")
    else:
        p_for, p_against = finding.p_value(null, "greater"), finding.p_value(null, "less")
    two_sided = (
        p_equivalent if hypothesis.test == "equivalence" else finding.p_value(null, "two-sided")
    )
    bounds = (finding.value, low, high) if len(found.names) == 1 else (math.nan,) * 3
    reason = f"{found.test} is about these data sets only"
    return ClaimResult(
        label=label,
        contrast=contrast,
        estimate=finding.value,
        low=low,
        high=high,
        df=finding.n - 1.0,
        degenerate=low == high,
        test_name=f"TOST by {found.test}" if hypothesis.test == "equivalence" else found.test,
        p_for=p_for,
        p_against=p_against,
        p_equivalent=p_equivalent,
        population=Population(n_datasets=0, reason=reason),
        by_data_set=dict.fromkeys(found.names, bounds),
        notes=finding.notes,
        fixed=Fixed(finding.value, low, high, finding.n - 1.0, two_sided),
        pairing=finding.pairing,
    )


def _over_data_sets(resolved: Resolved, confidence: float) -> tuple[Estimate | None, str]:
    """The estimate for new data sets, never narrower than that on these; or why there is none."""
    estimate, reason = over_data_sets(resolved.contrasts)
    if estimate is None:
        return None, reason
    return wider(estimate, resolved.fixed if resolved.replicated else None, confidence), ""


def population(
    hypothesis: Hypothesis, resolved: Resolved, confidence: float, margin: float | None
) -> Population:
    """The same contrast over new data sets, from the data sets' contrasts."""
    if resolved.names == (ACROSS,):
        reason = "the contrast compares data sets, so it is about these ones only"
        return Population(n_datasets=0, reason=reason)
    contrasts = resolved.contrasts
    estimate, reason = _over_data_sets(resolved, confidence)
    if estimate is None:
        return Population(n_datasets=len(contrasts), reason=reason)
    low, high = interval(estimate, confidence)
    flips = None
    if len(contrasts) >= SIGN_FLIP_DATA_SETS and hypothesis.test != "equivalence":
        null = _null(hypothesis)
        flips = sign_flip((contrasts - null) / len(contrasts), generator(hypothesis.id)).two_sided
    found = Population(
        n_datasets=len(contrasts),
        estimate=estimate.value,
        low=low,
        high=high,
        p=_two_sided(hypothesis, estimate, margin),
        p_sign_flip=flips,
        df=estimate.df,
    )
    model, why = mixed.fit(contrasts, *resolved.replicates)
    if model is None:
        return replace(found, mixed_reason=why)
    low, high = interval(model.estimate, confidence)
    return replace(
        found,
        mixed_estimate=model.estimate.value,
        mixed_low=low,
        mixed_high=high,
        mixed_p=_two_sided(hypothesis, model.estimate, margin),
        slope_sd=model.slope_sd,
        seed_sd=model.seed_sd,
    )


def _fixed(
    hypothesis: Hypothesis,
    estimate: Estimate | None,
    random: Randomisation | None,
    confidence: float,
    margin: float | None,
) -> Fixed:
    if estimate is None:
        return Fixed(reason="some cell has a single finished seed: at least two are needed")
    low, high = interval(estimate, confidence)
    return Fixed(
        estimate=estimate.value,
        low=low,
        high=high,
        df=estimate.df,
        p=_two_sided(hypothesis, estimate, margin),
        p_randomised=random.two_sided if random else None,
        randomisation=random.name if random else "",
    )


def _spread_notes(basis: Estimate, what: str) -> list[str]:
    if basis.degenerate and what == "data sets":
        return [
            "the contrast is the same on all data sets: the interval is a point and says nothing of"
            " the error"
        ]
    if basis.degenerate:
        return ["no cell varies over seeds: the interval is a point and says nothing of the error"]
    if basis.flat_cells:
        return [
            f"{basis.flat_cells} of {basis.cells} cells don't vary over seeds and add nothing to"
            " the interval"
        ]
    return []


def _null(hypothesis: Hypothesis) -> float:
    return hypothesis.threshold if hypothesis.test == "superiority" else hypothesis.around


def _two_sided(hypothesis: Hypothesis, estimate: Estimate, margin: float | None) -> float:
    if hypothesis.test == "equivalence" and margin is not None:
        return equivalence_p(estimate, margin, hypothesis.around)
    return p_value(estimate, _null(hypothesis))


def _randomise(hypothesis: Hypothesis, label: str, resolved: Resolved) -> Randomisation | None:
    """The randomisation test of "the contrast is 0", or None where the null isn't that.

    Where every seed is in every cell the signs of the seeds' contrasts are flipped; where nothing is
    paired the labels are shuffled. Of more than `MOST_SHUFFLED` runs neither: the t that decides has the same
    limit, and ten thousand shuffles of them take minutes.
    """
    if hypothesis.test == "equivalence" or _null(hypothesis) != 0.0 or not resolved.replicated:
        return None
    if sum(map(len, resolved.cells)) > MOST_SHUFFLED:
        return None
    rng = generator(f"{hypothesis.id}/{label}")
    if resolved.blocks is not None and resolved.exchangeable:
        test = jonckheere_test if hypothesis.test == "trend" else permutation
        return test(resolved.blocks, rng)
    if len(resolved.terms) == 0:
        return None
    return sign_flip(resolved.terms, rng)


def _curve(
    hypothesis: Hypothesis, label: str, contrast: str, resolved: Resolved, confidence: float
) -> Isotonic | None:
    """The metric by level of the factor whose trend it is, where the contrast is one."""
    if resolved.blocks is None:
        return None
    parsed = parse(contrast)
    if not parsed.rises:
        return None
    levels = next(iter(parsed.ordered.values()))
    rng = generator(f"isotonic/{hypothesis.id}/{label}")
    return isotonic(resolved.blocks, levels, rng, confidence, together=resolved.paired)
