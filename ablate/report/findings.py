"""What the report says of one hypothesis: plain values, so that no template looks into the
analysis."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ablate import words
from ablate.analyse.sentences import is_level
from ablate.analyse.verdict import EQUIVALENT, REFUTED, SUPPORTED, Verdict
from ablate.study.hypotheses import Hypothesis


@dataclass(frozen=True)
class Part:
    """One claim of a hypothesis, or its effect on one data set, with its interval."""

    label: str
    estimate: float
    low: float
    high: float


FIRM = 0.9  # the share of universes below which no verdict is told without it
_CLAIMS = (SUPPORTED, REFUTED, EQUIVALENT)


@dataclass(frozen=True)
class Finding:
    """A hypothesis and its verdict.

    Estimate and interval are of the estimand that the hypothesis declares; `fixed` (these data sets,
    new seeds) and `population` (new data sets) stand side by side, None where there is no such
    interval; `beside`: further procedures for new data sets, in words.
    p_corrected: Holm's p of what the verdict says; of the hypothesis itself where it is
    inconclusive. test: superiority, equivalence or difference. Estimates are of the `response` and in
    its unit. `failed` counts failed trials among those it would have used.
    """

    id: str
    says: str
    contrast: str
    where: str
    metric: str
    response: words.Response
    test: str
    margin: float | None
    threshold: float
    around: float
    primary: bool
    verdict: str
    confirmatory: bool
    family: str
    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    confidence: float = 0.95
    p_corrected: float = math.nan
    trials: tuple[str, ...] = ()
    failed: int = 0
    missing: int = 0
    test_name: str = ""
    decided_by: str = ""
    sentence: str = ""
    notes: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    estimand: str = "fixed"
    fixed: Part | None = None
    population: Part | None = None
    beside: tuple[str, ...] = ()
    rests: int = 0  # data sets that the estimate is of
    lost: tuple[str, ...] = ()  # data sets that it is about and that lack a cell
    absolute: bool = False  # a mean of the metric, not a difference between means
    stands: float | None = (
        None  # the share of its universes in which the verdict is the same, where it has any
    )

    @property
    def tested(self) -> bool:
        """Whether there is an estimate."""
        return not math.isnan(self.estimate)

    @property
    def other(self) -> Part | None:
        """The same contrast under the estimand that doesn't decide."""
        return self.population if self.estimand == "fixed" else self.fixed

    @property
    def shown_estimate(self) -> str:
        """`+16.3`."""
        return self.response.amount(self.estimate, sign=not self.absolute)

    @property
    def shown_interval(self) -> str:
        """`12.1 to 20.4`, or `at least 12.1` of a one-sided interval."""
        return self.response.span(self.low, self.high)

    @property
    def level(self) -> str:
        """`95 %`."""
        return words.percent(self.confidence)

    @property
    def result(self) -> str:
        """`+16.3 points, 95 % interval 12.1 to 20.4`; of the deciding claim, where several must
        hold; with the share of universes where it is fragile."""
        of = f" for {words.claim(self.decided_by)}" if self.decided_by else ""
        firm = ""
        if self.fragile and self.stands is not None:
            firm = f", in {words.percent(self.stands, 0)} of universes"
        return f"{self._quantity}{of}, {self.level} interval {self.shown_interval}{firm}"

    @property
    def brief(self) -> str:
        """The same for a text that says what brackets hold: `+16.3 points [12.1 to 20.4]`, with the claim that decides
        and the share of universes behind the interval."""
        told = [self.shown_interval]
        if self.decided_by:
            told.append(words.claim(self.decided_by))
        if self.fragile and self.stands is not None:
            told.append(f"{words.percent(self.stands, 0)} of universes")
        return f"{self._quantity} [{'; '.join(told)}]"

    @property
    def amount(self) -> str:
        """The same behind a word that says the direction, as in "lower by": without a plus sign."""
        return self.brief.removeprefix("+")

    @property
    def _quantity(self) -> str:
        """The estimate with its sign, if it is a difference, and its unit."""
        return self.response.quantity(self.estimate, sign=not self.absolute)

    @property
    def fragile(self) -> bool:
        """Whether it is a claim that fewer than `FIRM` of its universes make."""
        return self.verdict in _CLAIMS and self.stands is not None and self.stands < FIRM

    @property
    def absent(self) -> bool:
        """Whether it was predicted and the trials say otherwise."""
        return self.verdict == REFUTED or (
            self.verdict == EQUIVALENT and self.test != "equivalence"
        )

    @property
    def standing(self) -> str:
        """`confirmatory` when the hypothesis was registered before its runs, else `exploratory`."""
        return "confirmatory" if self.confirmatory else "exploratory"

    @property
    def criterion(self) -> str:
        """The test in words, e.g. `equivalence within 3 points`."""
        unit = self.response.unit
        if self.test == "equivalence":
            about = f" of {self.around:g}" if self.around else ""
            return f"equivalence within {_value(self.margin)} {unit}{about}".strip()
        if self.test == "superiority":
            return f"more than {self.threshold:g} {unit}".strip()
        if self.test == "trend":
            return "a rise"
        return f"different from {self.around:g} {unit}".strip()

    @property
    def p_relation(self) -> str:
        """`= 0.014` or `< 0.001`."""
        return words.p_relation(self.p_corrected)


def from_verdict(verdict: Verdict, hypothesis: Hypothesis) -> Finding:
    """The report's view of a verdict."""
    parts: tuple[Part, ...] = ()
    if len(verdict.details) > 1:
        parts = tuple(Part(c.label, c.estimate, c.low, c.high) for c in verdict.details)
    elif verdict.details and len(verdict.details[0].by_data_set) > 1:
        found = verdict.details[0].by_data_set
        parts = tuple(
            Part(f"data {name}", *values)
            for name, values in found.items()
            if math.isfinite(values[0])  # an estimator may have no number of its own for each
        )
    new = verdict.population
    population = None
    if new.estimate is not None and new.low is not None and new.high is not None:
        population = Part(f"{new.n_datasets} data sets", new.estimate, new.low, new.high)
    here = verdict.fixed
    fixed = None
    if here.estimate is not None and here.low is not None and here.high is not None:
        fixed = Part("these data sets", here.estimate, here.low, here.high)
    return Finding(
        id=verdict.hypothesis,
        says=verdict.says,
        contrast=verdict.contrast,
        where=_where(hypothesis),
        metric=verdict.metric,
        response=verdict.response,
        test=verdict.test,
        margin=verdict.margin,
        threshold=verdict.threshold,
        around=verdict.around,
        primary=verdict.primary,
        verdict=verdict.verdict,
        confirmatory=verdict.status == "confirmatory",
        family=verdict.family,
        estimate=_number(verdict.estimate),
        low=_number(verdict.low),
        high=_number(verdict.high),
        confidence=verdict.confidence,
        p_corrected=_number(_deciding(verdict)),
        trials=verdict.trials,
        failed=verdict.n_failed,
        missing=verdict.n_missing,
        test_name=verdict.test_name,
        decided_by=verdict.decided_by,
        sentence=verdict.sentence,
        notes=verdict.notes,
        parts=parts,
        estimand=verdict.estimand,
        fixed=fixed,
        population=population,
        beside=_beside(verdict),
        rests=0 if verdict.deciding is None else len(verdict.deciding.by_data_set),
        lost=() if verdict.deciding is None else verdict.deciding.lost,
        absolute=is_level(verdict.contrast),
    )


def _beside(verdict: Verdict) -> tuple[str, ...]:
    """The population estimand's other procedures, with uncorrected p values."""
    new = verdict.population
    response = verdict.response
    out = []
    if new.p is not None:
        out.append(f"t over data sets: {words.p_said(new.p)}")
    if new.mixed_p is not None and new.mixed_low is not None and new.mixed_high is not None:
        span = response.span(new.mixed_low, new.mixed_high)
        out.append(f"mixed model with random slopes: {span}, {words.p_said(new.mixed_p)}")
    if new.p_sign_flip is not None:
        out.append(f"exact sign flips: {words.p_said(new.p_sign_flip)}")
    return tuple(out)


def _deciding(verdict: Verdict) -> float | None:
    """The corrected p of what the verdict says, which may be the opposite of the hypothesis."""
    if verdict.verdict == REFUTED:
        return verdict.p_against_holm
    if verdict.verdict == EQUIVALENT and verdict.test != "equivalence":
        return verdict.p_equivalent_holm
    return verdict.p_holm


def _where(hypothesis: Hypothesis) -> str:
    """`LQ, one policy; time condition; for each mixer`."""
    said = [
        words.listing(
            words.setting(name, v) for v in (levels if isinstance(levels, list) else [levels])
        )
        for name, levels in hypothesis.where.items()
    ]
    if hypothesis.each:
        said.append(f"for each {words.factor(hypothesis.each).label}")
    return "; ".join(said)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _value(number: float | None) -> str:
    return "an unstated margin" if number is None else f"{number:g}"
