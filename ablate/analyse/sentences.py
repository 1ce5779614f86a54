"""Verdicts in sentences: a quotable paragraph for each, the study's answer, and how it was reached."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import stats

from ablate import words
from ablate.analyse.claims import PAIRED, TOST, TOST_PAIRED, WELCH, ClaimResult
from ablate.analyse.randomisation import DRAWS
from ablate.analyse.verdict import (
    EQUIVALENT,
    INCONCLUSIVE,
    NOT_CONVERGED,
    NOT_TESTED,
    REFUTED,
    SUPPORTED,
    Verdict,
    refuting,
)
from ablate.errors import UserError
from ablate.study.contrast import ACROSS, parse
from ablate.study.hypotheses import pairs

INTERPLAY, OTHER = "interplay", "other"  # of several themes, of none


def sentence(verdict: Verdict) -> str:
    """The paragraph that a paper may quote: verdict, claim, numbers, both estimands, trials."""
    head = f"{verdict.verdict.capitalize()} ({verdict.status}): {_says(verdict)}"
    if verdict.verdict == NOT_TESTED:
        return f"{head} {_untested(verdict)}"
    sides = _population(verdict) if verdict.estimand == "fixed" else _twins(verdict)
    parts = [head, _meaning(verdict), _numbers(verdict), _curve(verdict), sides, _trials(verdict)]
    if verdict.untested:
        parts.append(f"Tested in part: nothing was run for {'; '.join(verdict.untested)}.")
    parts += [
        words.as_sentence(note) for note in verdict.notes if not note.startswith("left out: ")
    ]
    gaps = sum(note.startswith("left out: ") for note in verdict.notes)
    if gaps:
        parts.append(
            "Left out of the average for lack of a cell: "
            f"{gaps} {'combination' if gaps == 1 else 'combinations'} of the other factors."
        )
    return " ".join(part for part in parts if part)


def answer(verdicts: Sequence[Verdict]) -> str:
    """The study's answer in plain words: what the primary hypotheses say of memory, architecture
    and objective, then of what they touch besides, then how many verdicts of each kind that makes;
    one line each.

    Without primary hypotheses, all of them speak. A theme's word ("yes", "no difference that
    matters", "not settled") answers whether it matters, the way the hypothesis puts it.
    """
    primary = [v for v in verdicts if v.primary] or list(verdicts)
    if not primary:
        return "The study declares no hypotheses, so it answers nothing."
    told = []
    title = {INTERPLAY: "How they depend on each other", OTHER: "Other claims"}
    found = {v.hypothesis: theme_of(v) for v in primary}
    for theme in sorted(
        set(found.values()), key=lambda t: (t == OTHER, t == INTERPLAY, words.theme_place(t), t)
    ):
        mine = [v for v in primary if found[v.hypothesis] == theme]
        briefs = [_brief(v, plainly=theme not in title) for v in mine]
        if len(mine) == len(primary) and theme == OTHER:  # other than nothing
            told.append(" ".join(map(words.capital, briefs)))
            continue
        lead = title.get(theme, theme.capitalize())
        told.append(f"{lead}: {' '.join([briefs[0], *map(words.capital, briefs[1:])])}")
    told.append(_count(primary, any(v.primary for v in verdicts)))
    if any(v.status == "exploratory" for v in primary):
        told.append("What is marked exploratory was written after the runs.")
    return "\n".join(told)


def procedure(verdicts: Sequence[Verdict]) -> str:
    """How these verdicts were reached, a paragraph for a section on methods; empty without any.

    It is the rule at the head of `verdict.py`, with those of its procedures that were used.
    """
    tested = [v for v in verdicts if v.details]
    if not tested:
        return ""
    sizes = {v.family: v.family_size for v in tested}
    families = words.listing([f"{name} {size}" for name, size in sizes.items()])
    told = [
        f"Every hypothesis is decided at level {words.percent(_alpha(tested[0]))} after Holm's correction"
        f" within its declared family (hypotheses tested: {families}), confirmatory and exploratory"
        " ones apart."
    ]
    fixed = [v for v in tested if v.estimand == "fixed"]
    if fixed:
        names = {claim.test_name.partition(" (")[0] for v in fixed for claim in v.details}
        used = [told for name, told in _PROCEDURES.items() if name in names]
        told.append(
            "For these data sets and new seeds (fixed estimand) an estimate is the mean over data"
            f" sets of a contrast of cell means; intervals and tests are {', '.join(used)}."
        )
    if len(fixed) < len(tested):
        told.append(
            "For new data sets (population estimand) intervals and tests are Student's t on the"
            " contrasts of the data sets, with one degree of freedom less than there are data sets, and"
            " never narrower than those for new seeds."
        )
    told.append(
        "A hypothesis is supported when the test of what it states is significant, refuted when"
        " that of its opposite is, and the interval agrees, equivalent when two one-sided tests"
        " put the contrast within the margin, and inconclusive otherwise. Failed trials are left out"
        " and counted."
    )
    return " ".join(told)


# Test name -> how the paragraph on methods puts it.
_PROCEDURES = {
    PAIRED: "Student's t over seeds on the contrasts formed within each seed",
    WELCH: "Welch-Satterthwaite's t, which pools no variances, where cells don't share their seeds",
    TOST_PAIRED: "for an equivalence two one-sided t tests over seeds (TOST)",
    TOST: "for an equivalence two one-sided Welch-Satterthwaite t tests (TOST)",
}


def theme_of(verdict: Verdict) -> str:
    """What the contrast varies: the theme of its factors, other where they have none, or interplay of several."""
    if verdict.estimator:
        return OTHER
    pair = pairs(verdict.contrast)
    if pair is not None:
        beside = verdict.contrast.partition(":")[2]
        factors = {pair, *(parse(beside).factors if beside else ())}
    else:
        contrast = parse(verdict.contrast)
        # A factor at one level throughout only says where; it isn't what the contrast varies.
        factors = {
            factor
            for i, factor in enumerate(contrast.factors)
            if len({levels[i] for levels in contrast.terms}) > 1
        }
    themes = words.themes(factors) or {OTHER}
    return themes.pop() if len(themes) == 1 else INTERPLAY


def _of(verdict: Verdict) -> words.Response:
    """The response that the verdict is about."""
    return verdict.response


def _says(verdict: Verdict) -> str:
    return words.as_sentence(verdict.says)


def _hypotheses(count: int) -> str:
    return "hypothesis" if count == 1 else "hypotheses"


def _bounds(low: float, high: float, verdict: Verdict) -> str:
    """`95 % interval 1.2 to 3.4`."""
    return f"{words.percent(verdict.confidence)} interval {_of(verdict).span(low, high)}"


def _meaning(verdict: Verdict) -> str:
    """What the verdict means for a claim of this kind, with its p value where it is another."""
    response = _of(verdict)
    margin = response.quantity(verdict.margin)
    about = "zero" if verdict.around == 0.0 else response.amount(verdict.around)
    equal = verdict.p_equivalent_holm if verdict.p_equivalent_holm is not None else 1.0
    against = verdict.p_against_holm if verdict.p_against_holm is not None else 1.0
    if verdict.verdict == EQUIVALENT and verdict.test == "equivalence":
        return f"It lies within the margin of {margin} of {about}."
    if verdict.verdict == EQUIVALENT:
        return (
            f"The predicted difference is refuted: it lies within the margin of {margin} of {about}"
            f" (TOST, {words.p_said(equal)} after Holm)."
        )
    if verdict.verdict == REFUTED:
        claim = refuting(verdict)
        where = f" for {_minus(claim.label)}" if verdict.decided_by else ""
        low, high = response.amount(claim.low), response.amount(claim.high)
        return (
            f"It fails{where}: {response.quantity(claim.estimate)}"
            f" ({low} to {high}; {words.p_said(against)} after Holm)."
        )
    if verdict.verdict == SUPPORTED and verdict.margin is not None and equal < _alpha(verdict):
        return f"It is nevertheless smaller than the margin of {margin}."
    if verdict.verdict == NOT_CONVERGED:
        return f"Not converged: {'; '.join(verdict.unconverged)}."
    if verdict.verdict == INCONCLUSIVE:
        return "The trials neither support nor refute it."
    return ""


def _alpha(verdict: Verdict) -> float:
    return 1.0 - verdict.confidence


def _wanted(verdict: Verdict) -> str:
    if verdict.test == "trend":
        return "a rise"
    if verdict.test == "superiority":
        return f"above {_of(verdict).amount(verdict.threshold)}"
    if verdict.test == "difference":
        return f"different from {_of(verdict).amount(verdict.around)}"
    assert verdict.margin is not None
    return f"{_of(verdict).amount(verdict.around)} ± {_of(verdict).amount(verdict.margin)}"


def _numbers(verdict: Verdict) -> str:
    assert verdict.estimate is not None
    assert verdict.low is not None
    assert verdict.high is not None
    assert verdict.p is not None
    assert verdict.p_holm is not None
    decided = verdict.deciding
    assert decided is not None
    where = (
        f" for {_minus(verdict.decided_by)}, the least favourable of {len(verdict.details)} claims that"
        " must all hold,"
        if verdict.decided_by
        else ""
    )
    estimate = _of(verdict).quantity(verdict.estimate)
    family = f"{verdict.family_size} {_hypotheses(verdict.family_size)} of the family"
    freedom = "" if verdict.degenerate else f", {_freedom(verdict.df or 0.0)} degrees of freedom"
    return (
        f"{_scope(verdict, decided)}, {_minus(decided.contrast)} of"
        f" {_of(verdict).said}{where} is"
        f" {estimate} ({_bounds(verdict.low, verdict.high, verdict)}{freedom};"
        f" wanted {_wanted(verdict)}; {_test(verdict)}, {words.p_said(verdict.p)},"
        f" {words.p_said(verdict.p_holm)} after Holm over {family} {verdict.family})."
    )


def _freedom(df: float) -> str:
    return f"{df:.3g}" if df < 1000.0 else f"{df:.0f}"


def _test(verdict: Verdict) -> str:
    if verdict.test_name.startswith("TOST"):
        return verdict.test_name
    sides = "one" if verdict.test in ("superiority", "trend") else "two"
    return f"{sides}-sided {verdict.test_name}"


def _scope(verdict: Verdict, claim: ClaimResult) -> str:
    """Which data sets, which estimand."""
    if verdict.estimand == "population":
        return (
            f"For new data sets, of which these {verdict.population.n_datasets} are a sample"
            " (population estimand)"
        )
    return f"{_data_sets(claim)}, for new seeds (fixed estimand)"


def _data_sets(claim: ClaimResult) -> str:
    names = list(claim.by_data_set)
    if names == [ACROSS]:
        return "Between these data sets"
    return (
        f"On {words.data(names[0])}"
        if len(names) == 1
        else f"On the mean of {len(names)} data sets"
    )


def _population(verdict: Verdict) -> str:
    found = verdict.population
    if found.estimate is None or found.low is None or found.high is None or found.p is None:
        return f"For new data sets (population estimand) there is no estimate: {found.reason}."
    return (
        f"For new data sets (population estimand) it is {_of(verdict).amount(found.estimate)}"
        f" ({_bounds(found.low, found.high, verdict)}; t over {found.n_datasets} data sets,"
        f" {_plain_p(verdict, found.p)}{_beside(verdict)})."
    )


def _twins(verdict: Verdict) -> str:
    """What stands beside a verdict about new data sets: other procedures, the other estimand."""
    told = _beside(verdict).removeprefix("; ")
    sides = "" if verdict.test == "equivalence" else "two-sided and "
    beside = f"Beside it, {sides}uncorrected: {told}." if told else ""
    found = verdict.fixed
    if found.estimate is None or found.low is None or found.high is None or found.p is None:
        return f"{beside} For new seeds (fixed estimand) there is no interval: {found.reason}."
    return (
        f"{beside} On these data sets, for new seeds (fixed estimand), it is"
        f" {_of(verdict).amount(found.estimate)} ({_bounds(found.low, found.high, verdict)};"
        f" {_plain_p(verdict, found.p)})."
    ).strip()


def _plain_p(verdict: Verdict, p: float) -> str:
    """A p value that decides nothing."""
    sides = "" if verdict.test == "equivalence" else "two-sided and "
    return f"{words.p_said(p)}, {sides}uncorrected"


def _beside(verdict: Verdict) -> str:
    """The population estimand's other procedures, each after a semicolon."""
    found = verdict.population
    told = ""
    if found.mixed_p is not None and found.mixed_estimate is not None:
        told += (
            f"; mixed model with random slopes {_of(verdict).amount(found.mixed_estimate)},"
            f" {words.p_said(found.mixed_p)}"
        )
    elif found.mixed_reason:
        told += f"; no mixed model: {found.mixed_reason}"
    if found.p_sign_flip is not None:
        exact = "exact " if 2**found.n_datasets <= DRAWS else ""  # else they are drawn
        told += f"; {exact}sign flips {words.p_said(found.p_sign_flip)}"
    return told


def _curve(verdict: Verdict) -> str:
    """The nearest rising curve of a trend, with its band."""
    curve = verdict.curve
    if curve is None:
        return ""
    at = [
        f"{_of(verdict).amount(fit)} at {level}"
        f" ({_of(verdict).amount(low)} to {_of(verdict).amount(high)})"
        for level, fit, low, high in zip(
            curve.levels, curve.fit, curve.low, curve.high, strict=True
        )
    ]
    return (
        f"The nearest rising curve (isotonic regression, {words.percent(verdict.confidence)} bootstrap"
        f" band) is {words.listing(at)}."
    )


def _trials(verdict: Verdict) -> str:
    pairing = f" {words.as_sentence(verdict.pairing)}" if verdict.pairing else ""
    failed = f"{verdict.n_failed} failed{', left out of the means' if verdict.n_failed else ''}"
    return f"{verdict.n_trials} trials; {failed}; {verdict.n_missing} missing.{pairing}"


def _untested(verdict: Verdict) -> str:
    why = verdict.notes[0] if verdict.notes else "no trial is about it"
    return f"It cannot be decided, because {why}. {verdict.n_failed} failed; {verdict.n_missing} missing."


def _count(verdicts: Sequence[Verdict], primary: bool) -> str:
    kinds = (SUPPORTED, EQUIVALENT, REFUTED, INCONCLUSIVE, NOT_CONVERGED, NOT_TESTED)
    counts = [(sum(v.verdict == kind for v in verdicts), kind) for kind in kinds]
    told = ", ".join(f"{count} {kind}" for count, kind in counts if count)
    kind = "primary " if primary else ""
    return f"Verdicts on {len(verdicts)} {kind}{_hypotheses(len(verdicts))}: {told}."


def _brief(verdict: Verdict, plainly: bool) -> str:
    """`yes, +7.1 points (95 % interval 5.0 to 9.2) for context 20 against 1. CLAIM: supported.`

    plainly: with the word that answers whether the theme matters.
    """
    says = words.capital(verdict.says.strip().rstrip("."))
    mark = ", exploratory" if verdict.status == "exploratory" else ""
    if verdict.estimate is None or verdict.low is None or verdict.high is None:
        return f"{verdict.verdict}{mark} (claim: {says})."
    value = _of(verdict).quantity(verdict.estimate, sign=not is_level(verdict.contrast))
    found = f"{value} ({_interval(verdict)}){_compared(verdict)}{_rests(verdict)}{_open(verdict)}"
    because = ""
    if verdict.verdict == EQUIVALENT and verdict.margin is not None:
        about = "zero" if verdict.around == 0.0 else _of(verdict).amount(verdict.around)
        margin = f"{verdict.margin:g} {_of(verdict).unit}".strip()
        predicted = "" if verdict.test == "equivalence" else ", so refuted"
        because = f" to {about} within {margin}{predicted}"
    if plainly:
        return f"{_plain(verdict)}, {found}. {says}: {verdict.verdict}{because}{mark}."
    return f"{says}: {verdict.verdict}{because}{mark}, {found}."


def _interval(verdict: Verdict) -> str:
    """The interval that agrees with the verdict: of an equivalence the one that is TOST's, at 1 - 2 alpha, where the
    wider one goes beyond the margin."""
    assert verdict.low is not None
    assert verdict.high is not None
    low, high, confidence = verdict.low, verdict.high, verdict.confidence
    inside = verdict.margin is None or (
        verdict.around - verdict.margin < low and high < verdict.around + verdict.margin
    )
    if verdict.verdict != EQUIVALENT or inside or verdict.estimator or verdict.degenerate:
        return _bounds(low, high, verdict)
    alpha, df = _alpha(verdict), verdict.df or math.nan
    ratio = float(stats.t.isf(alpha, df) / stats.t.isf(alpha / 2.0, df))
    centre, half = (low + high) / 2.0, (high - low) / 2.0 * ratio
    shown = _of(verdict).span(centre - half, centre + half)
    return f"{words.percent(2.0 * confidence - 1.0)} interval {shown}"


def _rests(verdict: Verdict) -> str:
    """` on 2 of 3 data sets`, where some lack a cell."""
    claim = verdict.deciding
    if claim is None or not claim.lost:
        return ""
    there = len(claim.by_data_set)
    return f" on {there} of {there + len(claim.lost)} data sets (a cell is missing on {words.listing(claim.lost)})"


def _open(verdict: Verdict) -> str:
    """Why it isn't settled although the interval, which isn't corrected, excludes the null."""
    if verdict.verdict != INCONCLUSIVE or verdict.low is None or verdict.high is None:
        return ""
    null = verdict.threshold if verdict.test in ("superiority", "trend") else verdict.around
    clear = (
        verdict.low > null
        if verdict.test != "difference"
        else not verdict.low <= null <= verdict.high
    )
    if verdict.test == "equivalence" or not clear or verdict.p_holm is None:
        return ""
    return f", not clear after correction for {verdict.family_size} hypotheses ({words.p_said(verdict.p_holm)})"


def _plain(verdict: Verdict) -> str:
    """Whether what the contrast varies matters, in a word or two."""
    same = verdict.test == "equivalence"
    return {
        SUPPORTED: "yes",
        EQUIVALENT: "no difference that matters",
        REFUTED: "yes, it makes a difference" if same else "no",
        INCONCLUSIVE: "not settled",
        NOT_CONVERGED: "not settled, as training hasn't converged",
    }[verdict.verdict]


def is_level(contrast: str) -> bool:
    """Whether a contrast is a mean of the metric itself, not a difference between means."""
    try:
        parsed = parse(contrast)
    except UserError:
        return False  # "each pair of", or the words of an estimator
    return abs(sum(parsed.terms.values())) > 1e-9


def _compared(verdict: Verdict) -> str:
    """` for context 20 against 1`; empty where the contrast is no difference within one factor."""
    if verdict.decided_by:
        return f" for {_minus(verdict.decided_by)}, the least favourable claim"
    if pairs(verdict.contrast) or verdict.estimator or is_level(verdict.contrast):
        return ""
    contrast = parse(verdict.contrast)
    if len(contrast.factors) != 1:
        return ""
    if contrast.ordered:
        factor, order = next(iter(contrast.ordered.items()))
        ends = (words.level(factor, order[place]) for place in (0, -1))
        return f" from {words.factor(factor).label} {' to '.join(ends)}"
    factor = contrast.factors[0]
    sides = (
        [
            words.level(factor, levels[0])
            for levels, weight in contrast.terms.items()
            if sign * weight > 0.0
        ]
        for sign in (1.0, -1.0)
    )
    more, less = (words.listing(side) for side in sides)
    return f" for {words.factor(factor).label} {more} against {less}"


def _minus(text: str) -> str:
    """A contrast or label with a real minus between its terms."""
    return text.replace(" - ", " − ")
