"""What makes no sense although each word of it is known: refused with file and line before
anything runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ablate import registry
from ablate.config import fit_part
from ablate.data import catalogue
from ablate.errors import UserError
from ablate.models import conditions, histories
from ablate.study import identity
from ablate.study.contrast import Cells, find_level, parse
from ablate.study.expand import Cell, cells, frame
from ablate.study.hypotheses import Claiming, Hypothesis, claims, coverage
from ablate.study.schema import Study
from ablate.study.source import Key, Source


def possible(source: Source, study: Study) -> None:
    """Refuse a design with a cell that can't be, or with data that nobody has."""
    found = cells(study)
    nothing_inert(source, study, found)
    used = {name for design in study.designs.values() for name in design.data}
    specs = {name: _spec(source, study, name) for name in study.data if name in used}
    _acting(source, study)
    for cell in found:
        for rule in RULES:
            problem = rule(cell, specs[cell.data])
            if problem:
                factor, message = problem
                named = [d for d in cell.designs if factor in study.designs[d].levels]
                design = (named or cell.designs)[0]
                key: Key = ("designs", design, factor)
                if not named:
                    key = tuple(factor.split(".")) if "." in factor else ("designs", design)
                raise source.refuse(key, f"design '{design}': {message}")


def _acting(source: Source, study: Study) -> None:
    """Refuse a measurement or a factor of acting that the file names, where a data set has no environment."""
    if not study.lacking:
        return
    for part in registry.parts("measurement"):
        named: list[Key] = [("measure", part.name)] if part.name in study.measure else []
        named += [("factors", f) for f in study.factors if f.startswith(f"measure.{part.name}.")]
        if part.value.acts and named:
            raise source.refuse(
                named[0], f"the measurement '{part.name}' can't be had. {study.remarks[0]}"
            )


def _told(cell: Cell, spec: catalogue.DataSpec) -> tuple[str, str] | None:
    unmet = conditions.unmet(cell.config["condition"], spec)
    if not unmet:
        return None
    allowed = [p.name for p in registry.parts("condition") if not p.value().missing(spec)]
    return "condition", f"{unmet} Allowed here: {', '.join(allowed)}, or a sum of these."


def _loss_at_hidden_positions(cell: Cell, spec: catalogue.DataSpec) -> tuple[str, str] | None:
    history = cell.config["history"]
    if cell.config["train"]["loss"] != "all" or {"observation", "action"} <= histories.past(
        history
    ):
        return None
    return "train.loss", (
        "train.loss 'all' asks for the action at every position, where the history "
        f"'{history}' hides what it depends on. Allowed here: last."
    )


def _measurable(cell: Cell, spec: catalogue.DataSpec) -> tuple[str, str] | None:
    for name in cell.config["measure"]:
        if refusal := registry.get("measurement", name).refusal(cell.config):
            return "algorithm", f"{refusal}."
    return None


def _trainable(cell: Cell, spec: catalogue.DataSpec) -> tuple[str, str] | None:
    name = cell.config["algorithm"]
    made = registry.get("algorithm", name)
    if made.heads and cell.config["head"] not in made.heads:
        return "head", (
            f"the algorithm '{name}' doesn't train the head '{cell.config['head']}'. Allowed: "
            f"{', '.join(made.heads)}."
        )
    if cell.config["train"]["loss"] not in made.losses:
        return "train.loss", (
            f"the algorithm '{name}' has no loss '{cell.config['train']['loss']}'. Allowed: "
            f"{', '.join(made.losses)}."
        )
    return None


RULES: tuple[Callable[[Cell, catalogue.DataSpec], tuple[str, str] | None], ...] = (
    _told,
    _loss_at_hidden_positions,
    _measurable,
    _trainable,
)


def nothing_inert(source: Source, study: Study, found: Sequence[Cell]) -> None:
    """Refuse levels that lead to the same fit and the same measurements: an ablation that changes nothing must
    not look like a finding.

    Two cells are alike when they agree in everything that their algorithm reads (`Objective.uses`) and that
    their measurements read (`Measurement.reads`), whatever else they say.
    """
    seen: dict[str, Cell] = {}
    for cell in found:
        key = identity.canonical(effective(cell.config))
        other = seen.setdefault(key, cell)
        if other is cell:
            continue
        differ = [f for f in study.factors if cell.levels[f] != other.levels[f]]
        factor = differ[0]
        designs = [d for d in cell.designs if factor in study.designs[d].levels]
        at: Key = ("designs", designs[0], factor) if designs else ("factors", factor)
        where = ", ".join(f"{f} {cell.levels[f]}" for f in study.factors if f not in differ)
        raise source.refuse(
            at,
            f"the levels {other.levels[factor]} and {cell.levels[factor]} of {factor} lead to the same model and "
            f"the same measurements on {cell.data} ({where}), since nothing there reads {listed(differ)}. "
            "Allowed: levels that change something; keep one of them in this design.",
        )


def effective(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a cell's configuration its algorithm and its measurements read."""
    uses = registry.get("algorithm", config["algorithm"]).uses(config)
    flat = {"data": config["data"], "algorithm": config["algorithm"]}
    for name, value in fit_part(config).items():
        if name in ("model", "train", "settings"):
            flat |= {f"{name}.{n}": v for n, v in value.items() if f"{name}.{n}" in uses}
        elif name in uses:
            flat[name] = value
    for name, options in config["measure"].items():
        reads = registry.get("measurement", name).reads(config)
        flat |= {f"measure.{name}.{n}": v for n, v in options.items() if n in reads}
        flat[f"measure.{name}"] = True
    return flat


def listed(names: Sequence[str]) -> str:
    """`a and b`."""
    return " and ".join(names)


def hypotheses(source: Source, study: Claiming, metrics: Collection[str]) -> None:
    """Refuse a hypothesis that names what is not declared, or that contradicts itself.

    metrics: those that it may be about.
    """
    known = sorted(metrics)
    seen: set[str] = set()
    for index, hypothesis in enumerate(study.hypotheses):
        key: Key = ("hypotheses", index)
        if hypothesis.id in seen:
            raise source.refuse((*key, "id"), f"the hypothesis '{hypothesis.id}' stands twice.")
        seen.add(hypothesis.id)
        named = _contrast(source, study, hypothesis, key)
        _where(source, study, hypothesis, key, named)
        _test(source, hypothesis, key, known)


def testable(source: Source, profiles: Sequence[Study]) -> None:
    """Refuse a hypothesis whose cells no profile of the file runs."""
    frames = [Cells.of(frame(cells(study), study)) for study in profiles]
    for index, hypothesis in enumerate(profiles[0].hypotheses):
        if not any(
            coverage(hypothesis, study.levels, made).tested
            for study, made in zip(profiles, frames, strict=True)
        ):
            raise source.refuse(
                ("hypotheses", index, "contrast"),
                f"hypothesis '{hypothesis.id}': no profile has a design with the cells that "
                f"'{hypothesis.contrast}' needs.",
            )


def _contrast(source: Source, study: Claiming, hypothesis: Hypothesis, key: Key) -> set[str]:
    """The factors a hypothesis' contrast names, all of them known."""
    if hypothesis.estimator is not None:
        try:
            claims(hypothesis, study.levels)
        except UserError as error:
            raise source.refuse((*key, "estimator"), str(error)) from None
        return set()
    here = (*key, "contrast")
    pairs_of = hypothesis.pairs_of
    if pairs_of is not None:
        if pairs_of not in study.levels:
            raise source.unknown(here, "each pair of", pairs_of, study.levels)
        among = hypothesis.levels_at(pairs_of) or study.levels[pairs_of]
        if len(among) < 2:
            raise source.refuse(here, f"'{hypothesis.contrast}' needs two levels or more.")
    try:
        contrast = (
            parse(hypothesis.contrast, study.levels)
            if pairs_of is None
            else parse(hypothesis.pair(*among[:2]).text, study.levels)
        )
    except UserError as error:
        raise source.refuse(here, str(error)) from None
    return set(contrast.factors)


def _where(
    source: Source,
    study: Claiming,
    hypothesis: Hypothesis,
    key: Key,
    named: set[str],
) -> None:
    """`where` and `each` speak of declared levels, and of no factor that the contrast varies."""
    for factor in hypothesis.where:
        here = (*key, "where", factor)
        if factor not in study.levels:
            raise source.unknown(here, "the factor", factor, study.levels)
        if factor in named and factor != hypothesis.pairs_of:
            raise source.refuse(
                here,
                f"the contrast of '{hypothesis.id}' already says which levels of {factor} count.",
            )
        for level in hypothesis.levels_at(factor) or ():
            if find_level(level, study.levels[factor]) is None:
                raise source.unknown(here, f"the {factor}", level, study.levels[factor])
    each = hypothesis.each
    if each is not None and each not in study.levels:
        raise source.unknown((*key, "each"), "the factor", each, study.levels)
    if each in named:
        raise source.refuse(
            (*key, "each"), f"the contrast of '{hypothesis.id}' already varies {each}."
        )


def _test(source: Source, hypothesis: Hypothesis, key: Key, known: Sequence[str]) -> None:
    """The numbers of a hypothesis belong to its test."""
    if hypothesis.metric.partition("@")[0] not in known:
        raise source.unknown((*key, "metric"), "the metric", hypothesis.metric, known)
    if hypothesis.threshold and hypothesis.test != "superiority":
        raise source.refuse((*key, "threshold"), "'threshold' belongs to the test superiority.")
    if hypothesis.around and hypothesis.test == "superiority":
        raise source.refuse(
            (*key, "around"), "'around' belongs to the tests equivalence and difference."
        )
    if hypothesis.test == "equivalence" and hypothesis.margin is None:
        raise source.refuse(
            key,
            f"'{hypothesis.id}' tests equivalence in '{hypothesis.metric}', which is not in "
            "normalised points: give its own margin.",
        )


def _spec(source: Source, study: Study, name: str) -> catalogue.DataSpec:
    """The data set's entry; the catalogue's refusal gets file and line."""
    try:
        return catalogue.spec(name, study.readings.get(name))
    except UserError as error:
        raise source.refuse(("data", study.data.index(name)), str(error)) from None
