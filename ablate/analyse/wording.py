"""Verdicts in words: a quotable paragraph for each, and the study's answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ablate.analyse.claims import TOST, ClaimResult
from ablate.analyse.verdict import (
    EQUIVALENT,
    INCONCLUSIVE,
    NOT_TESTED,
    REFUTED,
    SUPPORTED,
    Verdict,
    refuting,
)
from ablate.study.contrast import ACROSS, parse

# What varying a factor is about. A contrast of several themes is about how they depend on each
# other.
THEMES = {
    "context": "memory",
    "history": "memory",
    "mixer": "architecture",
    "head": "objective",
    "condition": "objective",
}
_ORDER = ("memory", "architecture", "objective", "interplay", "other")


def number(value: float) -> str:
    """Three digits that matter, and no exponent: 12.3, 0.0451, -3.00."""
    if not math.isfinite(value):
        return {math.inf: "infinity", -math.inf: "-infinity"}.get(value, "unknown")
    if value == 0.0 or abs(value) < 5e-7:
        return "0"
    digits = min(max(2 - math.floor(math.log10(abs(value))), 0), 6)
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0.0 else text


def probability(p: float) -> str:
    """A p value as "p = 0.012" or "p < 0.0001"."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def units(metric: str) -> str:
    """What the metric counts in, with a leading space; empty for a bare number."""
    return " points" if metric == "score" else ""


def percent(confidence: float) -> str:
    """0.95 as "95 %"."""
    return f"{confidence * 100:.3g} %"


def sentence(verdict: Verdict) -> str:
    """The paragraph that a paper may quote: verdict, claim, numbers, both estimands, trials."""
    head = f"{verdict.verdict.capitalize()} ({verdict.status}): {_says(verdict)}"
    if verdict.verdict == NOT_TESTED:
        return f"{head} {_untested(verdict)}"
    parts = [head, _meaning(verdict), _numbers(verdict), _population(verdict), _trials(verdict)]
    if verdict.untested:
        parts.append(f"Tested in part: nothing was run for {'; '.join(verdict.untested)}.")
    parts += [_as_sentence(note) for note in verdict.notes if not note.startswith("left out: ")]
    gaps = sum(note.startswith("left out: ") for note in verdict.notes)
    if gaps:
        parts.append(
            "Left out of the average for lack of a cell: "
            f"{gaps} {'combination' if gaps == 1 else 'combinations'} of the other factors."
        )
    return " ".join(part for part in parts if part)


def answer(verdicts: Sequence[Verdict]) -> str:
    """The study's answer: what the primary hypotheses say of memory, architecture and objective.

    Without primary hypotheses, all of them speak.
    """
    primary = [v for v in verdicts if v.primary] or list(verdicts)
    if not primary:
        return "The study declares no hypotheses, so it answers nothing."
    paragraphs = [_count(primary, any(v.primary for v in verdicts))]
    for theme in _ORDER:
        mine = [v for v in primary if theme_of(v) == theme]
        if mine:
            title = {"interplay": "How they depend on each other", "other": "Other claims"}
            lead = title.get(theme, theme.capitalize())
            paragraphs.append(f"{lead}: {'; '.join(_brief(v) for v in mine)}.")
    if any(v.status == "exploratory" for v in primary):
        paragraphs.append("What is marked exploratory was written after the runs.")
    return " ".join(paragraphs)


def theme_of(verdict: Verdict) -> str:
    """What the contrast varies: memory, architecture, objective, other, or interplay of several."""
    if verdict.contrast.startswith("each pair of "):
        factors = {verdict.contrast.removeprefix("each pair of ").strip()}
    else:
        contrast = parse(verdict.contrast)
        # A factor at one level throughout only says where; it isn't what the contrast varies.
        factors = {
            factor
            for i, factor in enumerate(contrast.factors)
            if len({levels[i] for levels in contrast.terms}) > 1
        }
    themes = {THEMES.get(factor, "other") for factor in factors} or {"other"}
    return themes.pop() if len(themes) == 1 else "interplay"


def _says(verdict: Verdict) -> str:
    return _as_sentence(verdict.says)


def _as_sentence(text: str) -> str:
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _hypotheses(count: int) -> str:
    return "hypothesis" if count == 1 else "hypotheses"


def _bounds(low: float, high: float, verdict: Verdict) -> str:
    return f"{percent(verdict.confidence)} interval {number(low)} to {number(high)}"


def _meaning(verdict: Verdict) -> str:
    """What the verdict means for a claim of this kind, with its p value where it is another."""
    unit = units(verdict.metric)
    margin = number(verdict.margin) + unit if verdict.margin is not None else ""
    about = "zero" if verdict.around == 0.0 else number(verdict.around)
    equal = verdict.p_equivalent_holm if verdict.p_equivalent_holm is not None else 1.0
    against = verdict.p_against_holm if verdict.p_against_holm is not None else 1.0
    if verdict.verdict == EQUIVALENT and verdict.test == "equivalence":
        return f"It lies within the margin of {margin} of {about}."
    if verdict.verdict == EQUIVALENT:
        return (
            f"The predicted difference is refuted: it lies within the margin of {margin} of {about}"
            f" (TOST, {probability(equal)} after Holm)."
        )
    if verdict.verdict == REFUTED:
        claim = refuting(verdict)
        where = f" for {claim.label}" if verdict.decided_by else ""
        return (
            f"It fails{where}: {number(claim.estimate)}{unit}"
            f" ({number(claim.low)} to {number(claim.high)}; {probability(against)} after Holm)."
        )
    if verdict.verdict == SUPPORTED and verdict.margin is not None and equal < _alpha(verdict):
        return f"It is nevertheless smaller than the margin of {margin}."
    if verdict.verdict == INCONCLUSIVE:
        return "The trials neither support nor refute it."
    return ""


def _alpha(verdict: Verdict) -> float:
    return 1.0 - verdict.confidence


def _wanted(verdict: Verdict) -> str:
    if verdict.test == "superiority":
        return f"above {number(verdict.threshold)}"
    if verdict.test == "difference":
        return f"different from {number(verdict.around)}"
    assert verdict.margin is not None
    return f"{number(verdict.around)} ± {number(verdict.margin)}"


def _numbers(verdict: Verdict) -> str:
    assert verdict.estimate is not None
    assert verdict.low is not None
    assert verdict.high is not None
    assert verdict.p is not None
    assert verdict.p_holm is not None
    by = verdict.decided_by
    decided = next(claim for claim in verdict.details if not by or claim.label == by)
    where = (
        f" for {verdict.decided_by}, the least favourable of {len(verdict.details)} claims that"
        " must all hold,"
        if verdict.decided_by
        else ""
    )
    estimate = f"{number(verdict.estimate)}{units(verdict.metric)}"
    family = f"{verdict.family_size} {_hypotheses(verdict.family_size)} of the family"
    freedom = "" if verdict.degenerate else f", {number(verdict.df or 0.0)} degrees of freedom"
    return (
        f"{_data_sets(decided)}, for new seeds, {decided.contrast} of {verdict.metric}{where} is"
        f" {estimate} ({_bounds(verdict.low, verdict.high, verdict)}{freedom};"
        f" wanted {_wanted(verdict)}; {_test(verdict)}, {probability(verdict.p)},"
        f" {probability(verdict.p_holm)} after Holm over {family} '{verdict.family}')."
    )


def _test(verdict: Verdict) -> str:
    if verdict.test_name == TOST:
        return verdict.test_name
    return f"{'one' if verdict.test == 'superiority' else 'two'}-sided {verdict.test_name}"


def _data_sets(claim: ClaimResult) -> str:
    names = list(claim.by_data_set)
    if names == [ACROSS]:
        return "Between these data sets"
    return f"On {names[0]}" if len(names) == 1 else f"On the mean of {len(names)} data sets"


def _population(verdict: Verdict) -> str:
    found = verdict.population
    if found.estimate is None or found.low is None or found.high is None or found.p is None:
        return f"For new data sets there is no estimate: {found.reason}."
    flips = (
        f"; exact sign flips {probability(found.p_sign_flip)}"
        if found.p_sign_flip is not None
        else ""
    )
    return (
        f"For new data sets it is {number(found.estimate)}"
        f" ({_bounds(found.low, found.high, verdict)}; t over {found.n_datasets} data sets,"
        f" {probability(found.p)}, uncorrected{flips})."
    )


def _trials(verdict: Verdict) -> str:
    failed = f"{verdict.n_failed} failed{', left out of the means' if verdict.n_failed else ''}"
    return f"{verdict.n_trials} trials; {failed}; {verdict.n_missing} missing."


def _untested(verdict: Verdict) -> str:
    why = verdict.notes[0] if verdict.notes else "no trial is about it"
    return f"{_as_sentence(why)} {verdict.n_failed} failed; {verdict.n_missing} missing."


def _count(verdicts: Sequence[Verdict], primary: bool) -> str:
    kinds = (SUPPORTED, EQUIVALENT, REFUTED, INCONCLUSIVE, NOT_TESTED)
    counts = [(sum(v.verdict == kind for v in verdicts), kind) for kind in kinds]
    told = ", ".join(f"{count} {kind}" for count, kind in counts if count)
    kind = "primary " if primary else ""
    return f"Of {len(verdicts)} {kind}{_hypotheses(len(verdicts))}: {told}."


def _brief(verdict: Verdict) -> str:
    says = verdict.says.strip().rstrip(".")
    mark = ", exploratory" if verdict.status == "exploratory" else ""
    if verdict.estimate is None or verdict.low is None or verdict.high is None:
        return f"“{says}” was {verdict.verdict}{mark}"
    how = f"is {verdict.verdict}"
    if verdict.verdict == EQUIVALENT and verdict.margin is not None:
        about = "zero" if verdict.around == 0.0 else number(verdict.around)
        within = f"equivalent to {about} within {number(verdict.margin)}{units(verdict.metric)}"
        predicted = verdict.test == "equivalence"
        how = f"holds: {within}" if predicted else f"is refuted: the difference is {within}"
    return (
        f"“{says}” {how} ({number(verdict.estimate)}{units(verdict.metric)},"
        f" {number(verdict.low)} to {number(verdict.high)}{mark})"
    )
