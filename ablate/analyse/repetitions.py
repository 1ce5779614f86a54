"""Repetitions of a planned study: noise, estimates and p values of all of them at once, as `batch.py` computes them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ablate.analyse import batch, randomisation
from ablate.analyse.intervals import Alternative, Floats
from ablate.analyse.planned import Laid, Planned, variance_on


@dataclass
class Simulation:
    """Trials drawn anew: standard normal noise of every cell, the same for every question asked."""

    repetitions: int
    confidence: float
    seed: int
    _noise: dict[tuple[str, int], Floats] = field(default_factory=dict)

    def noise(self, salt: str, cell: int, seeds: int) -> Floats:
        """(repetitions, seeds) standard normal; more seeds go on from fewer."""
        found = self._noise.get((salt, cell))
        if found is None or found.shape[1] < seeds:
            rng = randomisation.generator(f"power/{self.seed}/{salt}/{cell}")
            size = max(20, seeds)
            found = rng.standard_normal((size, self.repetitions)).T
            self._noise[salt, cell] = found
        return found[:, :seeds]


def p_for(
    one: Planned,
    estimand: str,
    seeds: int,
    simulation: Simulation,
    effect: float | None,
    margin: float | None,
) -> Floats:
    """p values (R,) of what the hypothesis says, the largest of its claims'."""
    if estimand == "population":
        return _population_p(one, seeds, simulation, effect or 0.0, margin)
    found = [_claim_p(one, laid, seeds, simulation, effect, margin) for laid in one.laid]
    largest: Floats = np.max(found, axis=0)
    return largest


def _claim_p(
    one: Planned,
    laid: Laid,
    seeds: int,
    simulation: Simulation,
    effect: float | None,
    margin: float | None,
) -> Floats:
    """The p values (R,) that `claims.assess` would decide by."""
    estimates = _fixed_estimates(one, laid, seeds, simulation)
    return _p_of(one.hypothesis.test, estimates, effect, margin)


def _fixed_estimates(
    one: Planned, laid: Laid, seeds: int, simulation: Simulation
) -> batch.Estimates:
    """The contrast on these data sets in every repetition, without any effect."""
    trials = [
        one.spreads.seed[cell] * simulation.noise(one.salt, int(cell), seeds) for cell in laid.cells
    ]
    if laid.paired:
        by_seed = laid.stretch(one.spreads) * np.tensordot(laid.share, np.stack(trials), 1)
        return batch.combine([1.0], [by_seed])
    return batch.combine(laid.share, trials)


def _p_of(
    test: str, estimates: batch.Estimates, effect: float | None, margin: float | None
) -> Floats:
    """p values of what a hypothesis of this kind says, the estimates moved by the effect."""
    moved = estimates.shifted(effect or 0.0)
    if test == "equivalence":
        assert margin is not None  # a study refuses an equivalence without one
        return batch.equivalence_p(moved, margin)
    side: Alternative = "two-sided" if test == "difference" else "greater"
    return batch.p_value(moved, 0.0, side)


def _population_p(
    one: Planned, seeds: int, simulation: Simulation, effect: float, margin: float | None
) -> Floats:
    """The largest of the claims' p values (R,) for new data sets."""
    found = []
    for laid in one.laid:
        rng = randomisation.generator(f"power/{simulation.seed}/data sets/{laid.claim.label}")
        assert laid.between.sd is not None  # `_population` asked
        contrasts = laid.between.sd * rng.standard_normal((simulation.repetitions, len(laid.names)))
        for d, name in enumerate(laid.names):
            for w, cell, stratum in zip(laid.weights, laid.cells, laid.strata, strict=True):
                if stratum == name:
                    noise = simulation.noise(one.salt, int(cell), seeds)
                    contrasts[:, d] += w * one.spreads.seed[cell] * noise.mean(axis=1)
        over = batch.combine([1.0], [contrasts])
        these = _fixed_estimates(one, laid, seeds, simulation)
        wide = batch.wider(over, these, simulation.confidence)
        found.append(_p_of(one.hypothesis.test, wide, effect, margin))
    return np.max(found, axis=0)


def with_data_sets(
    one: Planned, seeds: int, simulation: Simulation, counts: np.ndarray, shrink: float
) -> Floats:
    """The largest of the claims' p values (R, counts) with so many data sets, at the plan."""
    assert one.margin is not None
    p = []
    for laid in one.laid:
        assert laid.between.sd is not None
        scatter = float(np.mean([variance_on(laid, one.spreads, seeds, n) for n in laid.names]))
        rng = randomisation.generator(f"power/{simulation.seed}/more data sets/{laid.claim.label}")
        sd = math.sqrt(laid.between.sd**2 + scatter)
        x = sd * rng.standard_normal((simulation.repetitions, int(counts[-1])))
        means = np.cumsum(x, axis=1)[:, 1:] / counts  # of the first 2, 3, ... data sets
        squares = np.cumsum(np.square(x), axis=1)[:, 1:] / counts - np.square(means)
        df = np.broadcast_to(counts - 1.0, means.shape)
        estimates = batch.Estimates(means, squares / (counts - 1), df)  # variance of the mean
        effect = 0.0 if one.effect is None else one.effect / shrink
        p.append(_p_of(one.hypothesis.test, estimates, effect, one.margin / shrink))
    found: Floats = np.max(p, axis=0)
    return found
