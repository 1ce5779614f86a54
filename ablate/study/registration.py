"""What a study declares before its runs, hypothesis by hypothesis, and which of it came before any result.

study.json keeps it for ever:

    hypotheses: {HASH: {id, registered, after}}     after: results that were there when it was registered
    seeds: [{seeds, looks, registered, after}]      every number of seeds that was asked for, in order

A verdict is confirmatory where its hypothesis was registered, as it stands, before there was any result, where the
number of seeds was not raised once results had been seen, other than in looks that were declared with the first, and
where the study doesn't say itself that its verdicts are exploratory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ablate import registry
from ablate.config import settled
from ablate.study import identity

if TYPE_CHECKING:  # a study's folder is opened by commands that need neither models nor data
    from ablate.study.expand import Cell
    from ablate.study.hypotheses import Hypothesis
    from ablate.study.schema import Study


@dataclass(frozen=True)
class Declared:
    """What a study says now. hypotheses: id -> hash of the claim and of what its verdict depends on.
    exploratory: why all verdicts are, as it says itself."""

    hypotheses: Mapping[str, str]
    seeds: int
    looks: tuple[int, ...] = ()
    exploratory: str = ""


def declared(study: Study) -> Declared:
    """What a study declares, at its profile."""
    from ablate.study.contrast import Cells
    from ablate.study.expand import cells, frame
    from ablate.study.hypotheses import claims

    study = study.model_copy(update={"tuned": None})  # what tuning finds isn't declared
    found = cells(study)
    table = Cells.of(frame(found, study))
    looks = study.sequential.looks if study.sequential else ()
    hashes = {}
    for hypothesis in study.hypotheses:
        used = sorted(
            {
                index
                for claim in claims(hypothesis, study.levels)
                for index in (
                    claim.weights(table).cells if claim.estimator is None else table.at(claim.where)
                )
            }
        )
        hashes[hypothesis.id] = _hash(study, hypothesis, [found[index] for index in used])
    return Declared(hashes, study.seeds, tuple(looks), study.exploratory)


def _hash(study: Study, hypothesis: Hypothesis, used: Sequence[Cell]) -> str:
    """Hash of a claim, the error rate, and of the cells that it is about: how they train and how they are measured."""
    measurement = hypothesis.metric.partition(".")[0]
    options = registry.get("measurement", measurement).Options
    about = [
        {
            "fit": settled(cell.config),
            "measured": options.model_validate(
                cell.config["measure"].get(measurement, {})
            ).model_dump(mode="json", exclude_defaults=True),
        }
        for cell in used
    ]
    return identity.digest(
        {
            "alpha": study.alpha,
            "cells": sorted(map(identity.digest, about)),
            "claim": hypothesis.model_dump(mode="json", exclude={"id", "says"}),
        }
    )


def entered(before: Mapping[str, Any], now: Declared, results: int, when: str) -> dict[str, Any]:
    """The part of study.json about what is declared, with what is new since `before`.

    results: how many there are. when: the time.
    """
    hypotheses = dict(before.get("hypotheses", {}))
    for name, found in now.hypotheses.items():
        hypotheses.setdefault(found, {"id": name, "registered": when, "after": results})
    seeds = list(before.get("seeds", ()))
    entry = {"seeds": now.seeds, "looks": list(now.looks)}
    if not any(
        {**entry, "registered": 0, "after": 0} == {**s, "registered": 0, "after": 0} for s in seeds
    ):
        seeds.append({**entry, "registered": when, "after": results})
    return {"hypotheses": hypotheses, "seeds": seeds}


@dataclass(frozen=True)
class Standing:
    """Why verdicts are exploratory. every: why all are, empty where they aren't: the seeds aren't as declared, or the
    study says so itself. late: id -> why that hypothesis is."""

    every: str
    late: Mapping[str, str]

    def before(self, hypothesis: str) -> bool:
        """Whether a hypothesis is as it was declared before any result."""
        return not self.every and hypothesis not in self.late


def standing(kept: Mapping[str, Any], now: Declared) -> Standing:
    """Which of what a study declares came before its results. kept: content of study.json."""
    known = kept.get("hypotheses", {})
    late = {}
    for name, found in now.hypotheses.items():
        if found not in known:
            late[name] = "not registered in this form before the runs"
        elif known[found]["after"]:
            when, there = known[found]["registered"], known[found]["after"]
            late[name] = f"registered when {_results(there)} there, {when}"
    return Standing(now.exploratory or _seeds(kept.get("seeds", ()), now), late)


def _seeds(kept: Sequence[Mapping[str, Any]], now: Declared) -> str:
    """Why the number of seeds makes verdicts exploratory; empty where it doesn't."""
    first = [one for one in kept if not one["after"]]
    if not first:
        return "" if not kept else "the seeds were registered when there were results"
    if any(now.seeds in (one["seeds"], *one["looks"]) for one in first[-1:]):
        return ""
    raised = next((one for one in kept if one["after"] and one["seeds"] == now.seeds), None)
    asked = first[-1]["seeds"]
    if raised is not None and now.seeds > asked:
        return (
            f"the seeds were raised from {asked} to {now.seeds} when {_results(raised['after'])} there "
            f"({raised['registered']}), and `sequential` had declared no such look"
        )
    return f"{asked} seeds were registered before the runs, and the verdicts are of {now.seeds}"


def _results(count: int) -> str:
    return f"{count:,} result{' was' if count == 1 else 's were'}"
