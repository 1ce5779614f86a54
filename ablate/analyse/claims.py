"""One claim on its trials: estimate, interval and the p values of everything its test may conclude.

Three p values a claim, each a one-sided statement that the rule in `verdict.py` may make:

* `p_for`: the claim is true;
* `p_against`: its opposite is (superiority: the contrast is below the threshold; equivalence: it
  lies beyond a margin; a difference cannot be refuted otherwise than by equivalence: 1);
* `p_equivalent`: the contrast is within the margin of `around` (1 without a margin).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ablate.analyse.intervals import Estimate, equivalence_p, interval, p_value
from ablate.analyse.resolve import Resolved
from ablate.analyse.tests import (
    SIGN_FLIP_DATA_SETS,
    Randomisation,
    generator,
    over_data_sets,
    permutation,
    sign_flip,
)
from ablate.study.contrast import ACROSS
from ablate.study.hypotheses import Hypothesis

WELCH = "Welch-Satterthwaite t"
TOST = "TOST by Welch-Satterthwaite t"


@dataclass(frozen=True)
class Population:
    """The estimand over new data sets: t with n_datasets - 1 degrees of freedom, or why none.

    p is two-sided, of "0" (of `around`, for an equivalence the TOST); p_sign_flip from six data
    sets on.
    """

    n_datasets: int
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_sign_flip: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class ClaimResult:
    """What the trials say of one claim. Estimates and bounds are in the metric's units.

    p_t: the t counterpart of p_for, also where a randomisation test is the primary one.
    by_data_set: name -> (estimate, low, high).
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
    p_t: float
    population: Population
    by_data_set: dict[str, tuple[float, float, float]]
    notes: tuple[str, ...]


def assess(
    hypothesis: Hypothesis,
    label: str,
    contrast: str,
    resolved: Resolved,
    *,
    alpha: float,
    margin: float | None,
    family_size: int,
) -> ClaimResult:
    """Test one claim. `family_size` is the number of hypotheses that are corrected together."""
    fixed = resolved.fixed
    confidence = 1.0 - alpha
    low, high = interval(fixed, confidence)
    around = hypothesis.around
    p_equivalent = equivalence_p(fixed, margin, around) if margin is not None else 1.0
    notes = list(resolved.notes)
    random = _randomise(hypothesis, label, resolved)
    sides = 2 if hypothesis.test == "difference" else 1
    if random is not None and random.smallest * sides * family_size >= alpha:
        notes.append(
            f"the {random.name} cannot go below p = {random.smallest * sides:.3g}, too coarse for"
            f" {family_size} corrected hypotheses: the t test decides"
        )
        random = None
    if hypothesis.test == "equivalence":
        assert margin is not None  # `verdict.judge` refuses an equivalence without one
        name, p_for, p_t = TOST, p_equivalent, p_equivalent
        beyond = (
            p_value(fixed, around + margin, "greater"),
            p_value(fixed, around - margin, "less"),
        )
        p_against = min(1.0, 2.0 * min(beyond))
    elif hypothesis.test == "difference":
        p_t = p_value(fixed, around)
        name, p_for = (random.name, random.two_sided) if random else (WELCH, p_t)
        p_against = 1.0
    else:
        p_t = p_value(fixed, hypothesis.threshold, "greater")
        name, p_for = (random.name, random.greater) if random else (WELCH, p_t)
        p_against = random.less if random else p_value(fixed, hypothesis.threshold, "less")
    if fixed.degenerate:
        notes.append(
            "no cell varies over seeds: the interval is a point and says nothing of the error"
        )
    elif fixed.flat_cells:
        notes.append(
            f"{fixed.flat_cells} of {fixed.cells} cells don't vary over seeds and add nothing to"
            " the interval"
        )
    by_data_set = {
        data: (e.value, *interval(e, confidence)) for data, e in resolved.by_data_set.items()
    }
    return ClaimResult(
        label=label,
        contrast=contrast,
        estimate=fixed.value,
        low=low,
        high=high,
        df=fixed.df,
        degenerate=fixed.degenerate,
        test_name=name,
        p_for=p_for,
        p_against=p_against,
        p_equivalent=p_equivalent,
        p_t=p_t,
        population=population(hypothesis, resolved, confidence, margin),
        by_data_set=by_data_set,
        notes=tuple(notes),
    )


def population(
    hypothesis: Hypothesis, resolved: Resolved, confidence: float, margin: float | None
) -> Population:
    """The same contrast over new data sets, from the data sets' contrasts."""
    if resolved.names == (ACROSS,):
        reason = "the contrast compares data sets, so it is about these ones only"
        return Population(n_datasets=0, reason=reason)
    contrasts = np.array([e.value for e in resolved.by_data_set.values()])
    estimate, reason = over_data_sets(contrasts)
    if estimate is None:
        return Population(n_datasets=len(contrasts), reason=reason)
    low, high = interval(estimate, confidence)
    flips = None
    if len(contrasts) >= SIGN_FLIP_DATA_SETS and hypothesis.test != "equivalence":
        null = _null(hypothesis)
        flips = sign_flip((contrasts - null) / len(contrasts), generator(hypothesis.id)).two_sided
    return Population(
        n_datasets=len(contrasts),
        estimate=estimate.value,
        low=low,
        high=high,
        p=_population_p(hypothesis, estimate, margin),
        p_sign_flip=flips,
    )


def _null(hypothesis: Hypothesis) -> float:
    return hypothesis.threshold if hypothesis.test == "superiority" else hypothesis.around


def _population_p(hypothesis: Hypothesis, estimate: Estimate, margin: float | None) -> float:
    if hypothesis.test == "equivalence" and margin is not None:
        return equivalence_p(estimate, margin, hypothesis.around)
    return p_value(estimate, _null(hypothesis))


def _randomise(hypothesis: Hypothesis, label: str, resolved: Resolved) -> Randomisation | None:
    """The randomisation test of "the contrast is 0", or None where the null isn't that."""
    if hypothesis.test == "equivalence" or _null(hypothesis) != 0.0:
        return None
    rng = generator(f"{hypothesis.id}/{label}")
    if resolved.blocks is not None:
        return permutation(resolved.blocks, rng)
    if len(resolved.terms) == 0:
        return None
    return sign_flip(resolved.terms, rng)
