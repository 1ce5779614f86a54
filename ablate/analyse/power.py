"""Power: what a study can detect, how many seeds and data sets it needs, and what they cost.

By simulation of the procedure that gives the verdict: trials are drawn with the SDs of a pilot or of
published runs, tested with the same tests, chosen by the same rules, and corrected by Holm over the
same families (`verdict.py`); only the arithmetic is that of `batch.py`, all repetitions at once. The
usual formula's answer stands beside it.

Both estimands are given, each as if the hypothesis had declared it. An effect is `planned` to be the
hypothesis' margin: above its threshold (superiority), away from `around` (difference), a rise by as
much (trend), or exactly `around` with the declared margin to stay within (equivalence). While one
hypothesis' effect is varied, the others of its family have their planned ones and the estimands that
they declare. What is detectable has a power of 80 %: an effect beyond the threshold, or for an
equivalence a margin. Where seeds pair the cells, the SD of a seed's contrast is the
pilot's own if it has the same data sets, else that of cells that share nothing, which is on the safe side. Where
more data sets are searched for, t over them stands for the wider of both intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ablate.analyse import batch, randomisation
from ablate.analyse.intervals import Floats
from ablate.analyse.planned import (
    POWER,
    Planned,
    between_error,
    formula,
    known_to,
    lay,
    standard_error,
    structure,
)
from ablate.analyse.repetitions import Simulation, p_for, with_data_sets
from ablate.analyse.spreads import Spreads, upper
from ablate.analyse.verdict import EQUIVALENT, SUPPORTED, family_of, judge, supports
from ablate.errors import UserError
from ablate.study.contrast import ACROSS, Level
from ablate.study.hypotheses import Hypothesis

MOST_SEEDS, MOST_DATA_SETS = 100, 200
_SEEDS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 25, 30, 35, 40, 50, 60, 70, 80, 90, 100)
_SEARCHED = 500  # repetitions while seeds are searched for


@dataclass(frozen=True)
class Estimand:
    """What the study can do for one hypothesis under one estimand.

    planned: power at the planned effect. detectable, formula: the effect (margin) with 80 % power,
    by simulation and by formula; upper: the same at the upper limit of the pilot's SD. needed,
    needed_upper: how many seeds (data sets) reach 80 % at the planned effect, None beyond 100
    (200). cost: seconds of that. reason: why there is nothing.
    """

    planned: float | None = None
    detectable: float | None = None
    formula: float | None = None
    upper: float | None = None
    needed: int | None = None
    needed_upper: int | None = None
    cost: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Forecast:
    """A hypothesis' power under both estimands; its verdict rests on `estimand`.

    `fixed.needed` are seeds a cell on these data sets; `population.needed` data sets with these
    seeds.
    """

    hypothesis: str
    test: str
    metric: str
    primary: bool
    family: str
    estimand: str
    effect: float | None
    data_sets: int
    cells: int
    seeds: int
    source: str
    fixed: Estimand
    population: Estimand


def forecast(
    hypotheses: Sequence[Hypothesis],
    levels: Mapping[str, Sequence[Level]],
    cells: pd.DataFrame,
    spreads: Mapping[str, Spreads | str],
    *,
    seeds: int,
    alpha: float,
    margin: float | None,
    seconds: Sequence[float] | None = None,
    repetitions: int = 1000,
    seed: int = 0,
    paired: bool = True,
) -> list[Forecast]:
    """The power of every hypothesis, in their order.

    cells: the design, one row a cell, columns `data` and the factors; seeds: of each. spreads: by
    metric, or why there are none. margin: of hypotheses on the score that state none. seconds: of
    one trial of every cell (C,). paired: as of `verdict.judge`. Raises UserError when no hypothesis can be
    simulated or the study has fewer than two seeds.
    """
    if seeds < 2:
        raise UserError(f"power: found {seeds} seed; allowed: two or more, as one shows no spread.")
    if cells.empty:
        raise UserError("power: the design has no cells.")
    rows = structure(cells)
    planned: dict[str, Planned | str] = {}
    for hypothesis in hypotheses:
        known = spreads[hypothesis.metric]
        if isinstance(known, str):
            planned[hypothesis.id] = known
            continue
        planned[hypothesis.id] = lay(hypothesis, levels, rows, known, margin, paired)
    families: dict[str, list[Planned]] = {}
    for one in planned.values():
        if isinstance(one, Planned):
            families.setdefault(family_of(one.hypothesis), []).append(one)
    if not families:
        reason = next(iter(planned.values()), "the study declares no hypotheses")
        raise UserError(f"power: nothing can be simulated: {reason}.")
    fine = Simulation(repetitions, 1.0 - alpha, seed)
    coarse = Simulation(min(_SEARCHED, repetitions), 1.0 - alpha, seed + 1)
    made: dict[str, Forecast] = {}
    for members in families.values():
        family = _Family(members, alpha)
        for one in members:
            made[one.hypothesis.id] = family.forecast(one, seeds, fine, coarse, seconds)
    return [made.get(h.id) or _without(h, seeds, str(planned[h.id]), spreads) for h in hypotheses]


def on_pilot(
    hypothesis: Hypothesis,
    levels: Mapping[str, Sequence[Level]],
    pilot: pd.DataFrame,
    *,
    seeds: int,
    alpha: float,
    margin: float | None,
    repetitions: int = 200,
    paired: bool = True,
) -> float:
    """The share of studies made of a pilot's seeds, drawn with replacement, that support the hypothesis.

    For hypotheses with an estimator of their own, at the effect that the pilot shows; uncorrected. seeds: of
    every study.
    """
    rng = randomisation.generator(f"power/on pilot/{hypothesis.id}")
    groups = [rows for _, rows in pilot.groupby("seed", sort=True)]
    hits = 0
    for _ in range(repetitions):
        picks = rng.integers(0, len(groups), seeds)
        drawn = pd.concat(
            [groups[pick].assign(seed=i) for i, pick in enumerate(picks)], ignore_index=True
        )
        (found,) = judge(
            drawn,
            [hypothesis],
            levels,
            alpha=alpha,
            margin=margin,
            registered={hypothesis.id: True},
            paired=paired,
        )
        wanted = EQUIVALENT if hypothesis.test == "equivalence" else SUPPORTED
        hits += found.verdict == wanted
    return hits / repetitions


class _Family:
    """Hypotheses that are corrected together, and their p values in a simulation."""

    def __init__(self, members: Sequence[Planned], alpha: float) -> None:
        self.members = list(members)
        self.alpha = alpha
        self._planned: dict[tuple[int, str, int, int, float], Floats] = {}

    def forecast(
        self,
        one: Planned,
        seeds: int,
        fine: Simulation,
        coarse: Simulation,
        seconds: Sequence[float] | None,
    ) -> Forecast:
        """Both estimands of one member."""
        used = sorted({int(c) for laid in one.laid for c in laid.cells})
        price = [seconds[c] for c in used] if seconds is not None else None
        names = {name for laid in one.laid for name in laid.names}
        h = one.hypothesis
        effect = one.effect if h.test != "equivalence" else one.margin
        return Forecast(
            hypothesis=h.id,
            test=h.test,
            metric=h.metric,
            primary=h.primary,
            family=family_of(h),
            estimand=h.estimand,
            effect=effect,
            data_sets=len(names),
            cells=len(used),
            seeds=seeds,
            source=one.spreads.source,
            fixed=self._fixed(one, seeds, fine, coarse, price),
            population=self._population(one, seeds, fine, price),
        )

    def _fixed(
        self,
        one: Planned,
        seeds: int,
        fine: Simulation,
        coarse: Simulation,
        price: Sequence[float] | None,
    ) -> Estimand:
        errors = [standard_error(laid, one.spreads, seeds) for laid in one.laid]
        if max(errors)[0] == 0.0:
            return Estimand(
                reason="no cell varies over seeds in the pilot: it says nothing of the error"
            )
        error, df = max(errors)
        expected = formula(one.hypothesis.test, error, df, self._level(one.hypothesis.test))
        factor = max(upper(known_to(laid, one.spreads)) for laid in one.laid)
        found = self._detectable(one, "fixed", seeds, fine, expected)
        planned = needed = careful = None
        if one.margin is not None:
            planned = self.power(one, "fixed", seeds, fine)
            needed = self._seeds(one, coarse, 1.0)
            careful = self._seeds(one, coarse, factor) if math.isfinite(factor) else None
        cost = None
        if price is not None and needed is not None:
            cost = needed * sum(price)
        return Estimand(
            planned=planned,
            detectable=found,
            formula=expected,
            upper=found * factor if found is not None and math.isfinite(factor) else None,
            needed=needed,
            needed_upper=careful,
            cost=cost,
        )

    def power(
        self,
        one: Planned,
        estimand: str,
        seeds: int,
        simulation: Simulation,
        effect: float | None = None,
        margin: float | None = None,
        shrink: float = 1.0,
    ) -> float:
        """The share of repetitions that support `one` (find it equivalent) after Holm.

        effect, margin: instead of the planned ones. shrink: divide them, which is what larger SDs
        do.
        """
        if effect is None and margin is None:
            own = self._at_plan(one, estimand, seeds, simulation, shrink)
        else:
            own = p_for(one, estimand, seeds, simulation, effect, margin)
        return self.share(one, own, seeds, simulation, shrink)

    def share(
        self,
        one: Planned,
        own: Floats,
        seeds: int,
        simulation: Simulation,
        shrink: float = 1.0,
    ) -> float:
        """The share of p values `own` (R,) of `one` that pass Holm beside the other members'."""
        columns = [
            own
            if member is one
            else self._at_plan(member, member.hypothesis.estimand, seeds, simulation, shrink)
            for member in self.members
        ]
        corrected = batch.holm(np.stack(columns, axis=1))[:, self.members.index(one)]
        return float(np.mean(supports(one.hypothesis.test, own, corrected, self.alpha)))

    def _at_plan(
        self,
        member: Planned,
        estimand: str,
        seeds: int,
        simulation: Simulation,
        shrink: float,
    ) -> Floats:
        """p values (R,) at the planned effect; 1 where none is declared or nothing is known of
        data sets, which is Holm's worst."""
        unknown = estimand == "population" and any(x.between.sd is None for x in member.laid)
        if member.margin is None or unknown:
            return np.ones(simulation.repetitions)
        key = (id(member), estimand, seeds, simulation.seed, shrink)
        if key not in self._planned:
            effect = None if member.effect is None else member.effect / shrink
            self._planned[key] = p_for(
                member, estimand, seeds, simulation, effect, member.margin / shrink
            )
        return self._planned[key]

    def _level(self, test: str) -> float:
        """What a p value is held against in Holm's first step; a one-sided one agrees with the interval."""
        least = 2 if test in ("superiority", "trend") else 1
        return self.alpha / max(len(self.members), least)

    def _detectable(
        self, one: Planned, estimand: str, seeds: int, simulation: Simulation, start: float
    ) -> float | None:
        def power(size: float) -> float:
            equivalence = one.hypothesis.test == "equivalence"
            effect, margin = (0.0, size) if equivalence else (size, one.margin)
            return self.power(one, estimand, seeds, simulation, effect=effect, margin=margin)

        return _search(power, start)

    def _seeds(self, one: Planned, simulation: Simulation, shrink: float) -> int | None:
        """The fewest seeds with 80 % power at the planned effect."""

        def reached(seeds: int) -> bool:
            return self.power(one, "fixed", seeds, simulation, shrink=shrink) >= POWER

        return _fewest(_SEEDS, reached)

    def _population(
        self, one: Planned, seeds: int, simulation: Simulation, price: Sequence[float] | None
    ) -> Estimand:
        """By t over the data sets' contrasts."""
        if any(laid.names == (ACROSS,) for laid in one.laid):
            return Estimand(
                reason="the contrast compares data sets, so it is about these ones only"
            )
        for laid in one.laid:
            if laid.between.sd is None:
                return Estimand(reason=f"{laid.between.reason}: no spread between data sets")
        h = one.hypothesis
        several = min(len(laid.names) for laid in one.laid) >= 2
        planned = found = expected = high = None
        factor = max(upper(laid.between.df) for laid in one.laid)
        reason = "" if several else "one data set says nothing about others"
        if several:
            spreads = [between_error(laid, one.spreads, seeds) for laid in one.laid]
            error, n = max(spreads)
            expected = formula(h.test, error, n - 1.0, self._level(h.test))
            if error > 0.0:
                found = self._detectable(one, "population", seeds, simulation, expected)
            high = found * factor if found is not None and math.isfinite(factor) else None
            if one.margin is not None:
                planned = self.power(one, "population", seeds, simulation)
        needed = careful = cost = None
        if one.margin is not None:
            needed = self._data_sets(one, seeds, simulation, 1.0)
            if math.isfinite(factor):
                careful = self._data_sets(one, seeds, simulation, factor)
            if price is not None and needed is not None:
                names = {name for laid in one.laid for name in laid.names}
                cost = sum(price) / len(names) * needed * seeds
        return Estimand(planned, found, expected, high, needed, careful, cost, reason)

    def _data_sets(
        self, one: Planned, seeds: int, simulation: Simulation, shrink: float
    ) -> int | None:
        """The fewest data sets, each like these on average, with 80 % power at the planned effect."""
        counts = tuple(range(2, MOST_DATA_SETS + 1))
        p = with_data_sets(one, seeds, simulation, np.array(counts), shrink)

        def reached(count: int) -> bool:
            return self.share(one, p[:, counts.index(count)], seeds, simulation, shrink) >= POWER

        return _fewest(counts, reached)


def _search(power: Any, start: float) -> float | None:
    """The size at which the increasing function `power` is 80 %, from a first guess; None when no
    size reaches it."""
    low, high = 0.0, math.inf
    p_low, p_high = 0.0, 1.0
    size = start
    for _ in range(14):
        p = power(size)
        if abs(p - POWER) < 0.004:
            return size
        if p < POWER:
            low, p_low = size, p
        else:
            high, p_high = size, p
        if math.isinf(high):
            size *= 1.4
            if size > 1000.0 * start:
                return None
        elif high - low < 0.01 * high:
            break
        else:  # by the inverse normal, in which power is nearly straight
            z = stats.norm.ppf(np.clip([p_low, POWER, p_high], 0.003, 0.997))
            share = (z[1] - z[0]) / (z[2] - z[0]) if low > 0.0 else 0.5
            size = low + float(np.clip(share, 0.1, 0.9)) * (high - low)
    return size


def _fewest(grid: Sequence[int], reached: Any) -> int | None:
    """The least of `grid` for which the (monotone) question is answered with yes."""
    if not reached(grid[-1]):
        return None
    low, high = -1, len(grid) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(grid[middle]) else (middle, high)
    return grid[high]


def _without(
    hypothesis: Hypothesis, seeds: int, reason: str, spreads: Mapping[str, Spreads | str]
) -> Forecast:
    """A hypothesis of which nothing can be said."""
    known = spreads[hypothesis.metric]
    none = Estimand(reason=reason)
    return Forecast(
        hypothesis=hypothesis.id,
        test=hypothesis.test,
        metric=hypothesis.metric,
        primary=hypothesis.primary,
        family=family_of(hypothesis),
        estimand=hypothesis.estimand,
        effect=hypothesis.margin,
        data_sets=0,
        cells=0,
        seeds=seeds,
        source=known if isinstance(known, str) else known.source,
        fixed=none,
        population=replace(none),
    )
