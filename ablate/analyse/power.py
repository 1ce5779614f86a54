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
equivalence a margin. In two things the simulation is short of the procedure: Jonckheere-Terpstra's
count is held against the normal law with its exact variance, not against shuffles; and above 60
runs in a contrast the t test stands for shuffles and sign flips, which by then are as powerful (2
algorithms, 6 data sets, 5 seeds: .785 and .786 at an effect of 7.9, .836 and .834 at 8.4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ablate import words
from ablate.analyse import batch, tests
from ablate.analyse.claims import ONE_DATA_SET
from ablate.analyse.intervals import Alternative, Floats
from ablate.analyse.resolve import Untestable, resolve
from ablate.analyse.spreads import Between, Spreads, upper
from ablate.analyse.verdict import family_of
from ablate.errors import UserError
from ablate.study.contrast import ACROSS, Level
from ablate.study.hypotheses import Claim, Hypothesis, claims

POWER = 0.8
MOST_SEEDS, MOST_DATA_SETS = 100, 200
_SEEDS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 25, 30, 35, 40, 50, 60, 70, 80, 90, 100)
_SHUFFLED = 60  # runs in a contrast, up to which labels are shuffled
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


@dataclass(frozen=True)
class _Laid:
    """A claim on the design's cells; weights (C,) within a stratum, cells (C,) of the design.

    blocks: of the permutation test, (positions in `cells`) each; None when there is none.
    """

    claim: Claim
    weights: Floats
    cells: np.ndarray
    strata: tuple[str, ...]
    names: tuple[str, ...]
    blocks: tuple[tuple[int, ...], ...] | None
    between: Between

    @property
    def share(self) -> Floats:
        """Weights of the fixed estimand."""
        return self.weights / len(self.names)

    @cached_property
    def direction(self) -> Floats:
        """How cell means move (C,) when the contrast moves by 1 on every data set."""
        squares = {
            name: sum(
                w * w for w, s in zip(self.weights.tolist(), self.strata, strict=True) if s == name
            )
            for name in self.names
        }
        return np.array(
            [w / squares[s] for w, s in zip(self.weights.tolist(), self.strata, strict=True)]
        )


@dataclass(frozen=True)
class _Planned:
    """A hypothesis with its claims on the design."""

    hypothesis: Hypothesis
    margin: float | None
    laid: tuple[_Laid, ...]
    spreads: Spreads
    salt: str  # of the metric's noise

    @property
    def effect(self) -> float | None:
        """The planned distance from the threshold (from `around`), None where it isn't declared."""
        return 0.0 if self.hypothesis.test == "equivalence" else self.margin


@dataclass
class _Simulation:
    """Trials drawn anew: standard normal noise of every cell, the same for every question asked."""

    repetitions: int
    draws: int
    seed: int
    _noise: dict[tuple[str, int], Floats] = field(default_factory=dict)

    def noise(self, salt: str, cell: int, seeds: int) -> Floats:
        """(repetitions, seeds) standard normal; more seeds go on from fewer."""
        found = self._noise.get((salt, cell))
        if found is None or found.shape[1] < seeds:
            rng = tests.generator(f"power/{self.seed}/{salt}/{cell}")
            size = max(20, seeds)
            found = rng.standard_normal((size, self.repetitions)).T
            self._noise[salt, cell] = found
        return found[:, :seeds]


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
    draws: int = 999,
    seed: int = 0,
) -> list[Forecast]:
    """The power of every hypothesis, in their order.

    cells: the design, one row a cell, columns `data` and the factors; seeds: of each. spreads: by
    metric, or why there are none. margin: of hypotheses on the score that state none. seconds: of
    one trial of every cell (C,). Raises UserError when no hypothesis can be simulated or the study
    has fewer than two seeds.
    """
    if seeds < 2:
        raise UserError(f"power: found {seeds} seed; allowed: two or more, as one shows no spread.")
    if cells.empty:
        raise UserError("power: the design has no cells.")
    structure = _structure(cells)
    planned: dict[str, _Planned | str] = {}
    for hypothesis in hypotheses:
        known = spreads[hypothesis.metric]
        if isinstance(known, str):
            planned[hypothesis.id] = known
            continue
        planned[hypothesis.id] = _plan(hypothesis, levels, structure, known, margin)
    families: dict[str, list[_Planned]] = {}
    for one in planned.values():
        if isinstance(one, _Planned):
            families.setdefault(family_of(one.hypothesis), []).append(one)
    if not families:
        reason = next(iter(planned.values()), "the study declares no hypotheses")
        raise UserError(f"power: nothing can be simulated: {reason}.")
    fine = _Simulation(repetitions, draws, seed)
    coarse = _Simulation(min(_SEARCHED, repetitions), min(draws, 499), seed + 1)
    made: dict[str, Forecast] = {}
    for members in families.values():
        family = _Family(members, alpha)
        for one in members:
            made[one.hypothesis.id] = family.forecast(one, seeds, fine, coarse, seconds)
    return [made.get(h.id) or _without(h, seeds, str(planned[h.id]), spreads) for h in hypotheses]


class _Family:
    """Hypotheses that are corrected together, and their p values in a simulation."""

    def __init__(self, members: Sequence[_Planned], alpha: float) -> None:
        self.members = list(members)
        self.alpha = alpha
        self._planned: dict[tuple[int, str, int, int, float], Floats] = {}

    def forecast(
        self,
        one: _Planned,
        seeds: int,
        fine: _Simulation,
        coarse: _Simulation,
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
        one: _Planned,
        seeds: int,
        fine: _Simulation,
        coarse: _Simulation,
        price: Sequence[float] | None,
    ) -> Estimand:
        errors = [_standard_error(laid, one.spreads, seeds) for laid in one.laid]
        if max(errors)[0] == 0.0:
            return Estimand(
                reason="no cell varies over seeds in the pilot: it says nothing of the error"
            )
        error, df = max(errors)
        formula = _formula(one.hypothesis.test, error, df, self.alpha / len(self.members))
        factor = max(upper(_known_to(laid, one.spreads)) for laid in one.laid)
        found = self._detectable(one, "fixed", seeds, fine, formula)
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
            formula=formula,
            upper=found * factor if found is not None and math.isfinite(factor) else None,
            needed=needed,
            needed_upper=careful,
            cost=cost,
        )

    def power(
        self,
        one: _Planned,
        estimand: str,
        seeds: int,
        simulation: _Simulation,
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
            own = _p_for(one, estimand, seeds, simulation, self, effect, margin)
        return self.share(one, own, seeds, simulation, shrink)

    def share(
        self,
        one: _Planned,
        own: Floats,
        seeds: int,
        simulation: _Simulation,
        shrink: float = 1.0,
    ) -> float:
        """The share of p values `own` (R,) of `one` that pass Holm beside the other members'."""
        columns = [
            own
            if member is one
            else self._at_plan(member, member.hypothesis.estimand, seeds, simulation, shrink)
            for member in self.members
        ]
        corrected = batch.holm(np.stack(columns, axis=1))
        return float(np.mean(corrected[:, self.members.index(one)] < self.alpha))

    def _at_plan(
        self,
        member: _Planned,
        estimand: str,
        seeds: int,
        simulation: _Simulation,
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
            self._planned[key] = _p_for(
                member, estimand, seeds, simulation, self, effect, member.margin / shrink
            )
        return self._planned[key]

    def _detectable(
        self, one: _Planned, estimand: str, seeds: int, simulation: _Simulation, start: float
    ) -> float | None:
        def power(size: float) -> float:
            equivalence = one.hypothesis.test == "equivalence"
            effect, margin = (0.0, size) if equivalence else (size, one.margin)
            return self.power(one, estimand, seeds, simulation, effect=effect, margin=margin)

        return _search(power, start)

    def _seeds(self, one: _Planned, simulation: _Simulation, shrink: float) -> int | None:
        """The fewest seeds with 80 % power at the planned effect."""

        def reached(seeds: int) -> bool:
            return self.power(one, "fixed", seeds, simulation, shrink=shrink) >= POWER

        return _fewest(_SEEDS, reached)

    def _population(
        self, one: _Planned, seeds: int, simulation: _Simulation, price: Sequence[float] | None
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
        planned = found = formula = high = None
        factor = max(upper(laid.between.df) for laid in one.laid)
        reason = "" if several else "one data set says nothing about others"
        if several:
            spreads = [_between_error(laid, one.spreads, seeds) for laid in one.laid]
            error, n = max(spreads)
            formula = _formula(h.test, error, n - 1.0, self.alpha / len(self.members))
            if error > 0.0:
                found = self._detectable(one, "population", seeds, simulation, formula)
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
        return Estimand(planned, found, formula, high, needed, careful, cost, reason)

    def _data_sets(
        self, one: _Planned, seeds: int, simulation: _Simulation, shrink: float
    ) -> int | None:
        """The fewest data sets, each like these on average, with 80 % power at the planned effect."""
        counts = tuple(range(2, MOST_DATA_SETS + 1))
        p = _with_data_sets(one, seeds, simulation, np.array(counts), shrink)

        def reached(count: int) -> bool:
            return self.share(one, p[:, counts.index(count)], seeds, simulation, shrink) >= POWER

        return _fewest(counts, reached)


def _structure(cells: pd.DataFrame) -> pd.DataFrame:
    """A tidy table of the design with two trials a cell, whose metric is the row's number."""
    rows = cells.loc[cells.index.repeat(2)].reset_index(drop=True)
    for name in rows.columns:
        if name not in ("data",) and not pd.api.types.is_numeric_dtype(rows[name]):
            rows[name] = rows[name].astype("category")
    return rows.assign(seed=np.tile([0, 1], len(cells)), row=np.arange(len(rows), dtype=float))


def _plan(
    hypothesis: Hypothesis,
    levels: Mapping[str, Sequence[Level]],
    structure: pd.DataFrame,
    spreads: Spreads,
    default_margin: float | None,
) -> _Planned | str:
    margin = hypothesis.margin
    if margin is None and words.response(hypothesis.metric).points:
        margin = default_margin
    laid = []
    for claim in claims(hypothesis, levels):
        found = resolve(claim, structure, "row")
        if isinstance(found, Untestable):
            continue
        cells = np.array([int(cell[0]) // 2 for cell in found.cells])
        blocks = None
        if found.blocks is not None:
            at = {int(cell): i for i, cell in enumerate(cells)}
            blocks = tuple(
                tuple(at[int(arm[0]) // 2] for arm in block.arms) for block in found.blocks
            )
        laid.append(
            _Laid(
                claim,
                np.asarray(found.weights, dtype=float),
                cells,
                found.strata,
                found.names,
                blocks,
                spreads.between(claim),
            )
        )
    if not laid:
        return "the design doesn't have its cells"
    if hypothesis.estimand == "population":
        laid = [one for one in laid if len(one.names) > 1]
        if not laid:
            return ONE_DATA_SET
    return _Planned(hypothesis, margin, tuple(laid), spreads, hypothesis.metric)


def _p_for(
    one: _Planned,
    estimand: str,
    seeds: int,
    simulation: _Simulation,
    family: _Family,
    effect: float | None,
    margin: float | None,
) -> Floats:
    """p values (R,) of what the hypothesis says, the largest of its claims'."""
    if estimand == "population":
        return _population_p(one, seeds, simulation, effect or 0.0, margin)
    found = [_claim_p(one, laid, seeds, simulation, family, effect, margin) for laid in one.laid]
    largest: Floats = np.max(found, axis=0)
    return largest


def _claim_p(
    one: _Planned,
    laid: _Laid,
    seeds: int,
    simulation: _Simulation,
    family: _Family,
    effect: float | None,
    margin: float | None,
) -> Floats:
    """The p values (R,) that `claims.assess` would decide by, by the same choice of test."""
    h = one.hypothesis
    # A cell without any spread gets a trace of it: ties would count as order in a trend.
    sd = np.maximum(one.spreads.seed, 1e-9 * one.spreads.seed.max())
    trials = [sd[cell] * simulation.noise(one.salt, int(cell), seeds) for cell in laid.cells]
    estimates = batch.combine(laid.share, trials)
    if h.test == "equivalence":
        assert margin is not None  # a study refuses an equivalence without one
        return batch.equivalence_p(estimates.shifted(effect or 0.0), margin)
    assert effect is not None
    two_sided = h.test == "difference"
    null = h.threshold if h.test == "superiority" else h.around
    random = None
    if null == 0.0 and seeds * len(laid.cells) <= _SHUFFLED:
        random = _random(laid, trials, effect, simulation, family, h.test)
    if random is not None:
        return random.two_sided if two_sided else random.greater
    return batch.p_value(estimates.shifted(effect), 0.0, "two-sided" if two_sided else "greater")


def _random(
    laid: _Laid,
    trials: Sequence[Floats],
    effect: float,
    simulation: _Simulation,
    family: _Family,
    test: str,
) -> batch.PValues | None:
    """The randomisation test, or None where it has too few arrangements to decide."""
    seeds = trials[0].shape[1]
    rng = tests.generator(f"power/{simulation.seed}/shuffles/{laid.claim.label}/{seeds}")
    if laid.blocks is not None:
        sizes = [[seeds] * len(block) for block in laid.blocks]
        total = batch.arrangements(sizes)
    else:
        total = 2.0 ** (len(laid.names) * seeds)
    smallest = 1.0 / total if total <= tests.DRAWS else 1.0 / (tests.DRAWS + 1)
    sides = 2 if test == "difference" else 1
    if smallest * sides * len(family.members) >= family.alpha:
        return None
    moved = [x + effect * d for x, d in zip(trials, laid.direction.tolist(), strict=True)]
    if laid.blocks is not None and test == "trend":
        ordered = [
            [moved[i] for i in sorted(block, key=lambda i: laid.weights[i])]
            for block in laid.blocks
        ]
        return batch.jonckheere(ordered)
    if laid.blocks is not None:
        arms = [
            batch.Arms(laid.share[list(block)], tuple(moved[i] for i in block))
            for block in laid.blocks
        ]
        return _resolved(batch.permutation(arms, rng, simulation.draws), total, simulation.draws)
    terms = []
    for name in laid.names:
        mine = [i for i, stratum in enumerate(laid.strata) if stratum == name]
        terms.append(np.sum([laid.share[i] * moved[i] / seeds for i in mine], axis=0))
    flips = batch.sign_flip(np.concatenate(terms, axis=1), rng, simulation.draws)
    return _resolved(flips, total, simulation.draws)


def _resolved(found: batch.PValues, total: float, draws: int) -> batch.PValues:
    """p values of fewer draws than a verdict makes, with what its many would take off."""
    if total <= draws:
        return found
    off = 1.0 / (draws + 1) - 1.0 / (tests.DRAWS + 1)
    return batch.PValues(found.greater - off, found.less - off, found.two_sided - off)


def _population_p(
    one: _Planned, seeds: int, simulation: _Simulation, effect: float, margin: float | None
) -> Floats:
    """The largest of the claims' p values (R,) for new data sets."""
    found = []
    for laid in one.laid:
        rng = tests.generator(f"power/{simulation.seed}/data sets/{laid.claim.label}")
        contrasts = np.empty((simulation.repetitions, len(laid.names)))
        assert laid.between.sd is not None  # `_population` asked
        for d, name in enumerate(laid.names):
            scatter = math.sqrt(_variance(laid, one.spreads, seeds, name))
            new = rng.standard_normal((2, simulation.repetitions))
            contrasts[:, d] = laid.between.sd * new[0] + scatter * new[1]
        found.append(
            _over_data_sets(one.hypothesis, batch.combine([1.0], [contrasts]), effect, margin)
        )
    return np.max(found, axis=0)


def _over_data_sets(
    hypothesis: Hypothesis, estimates: batch.Estimates, effect: float, margin: float | None
) -> Floats:
    """p values of what the hypothesis says, by t over data sets."""
    if hypothesis.test == "equivalence":
        assert margin is not None
        return batch.equivalence_p(estimates, margin)
    side: Alternative = "two-sided" if hypothesis.test == "difference" else "greater"
    return batch.p_value(estimates.shifted(effect), 0.0, side)


def _with_data_sets(
    one: _Planned, seeds: int, simulation: _Simulation, counts: np.ndarray, shrink: float
) -> Floats:
    """The largest of the claims' p values (R, counts) with so many data sets, at the plan."""
    assert one.margin is not None
    p = []
    for laid in one.laid:
        assert laid.between.sd is not None
        scatter = float(np.mean([_variance(laid, one.spreads, seeds, n) for n in laid.names]))
        rng = tests.generator(f"power/{simulation.seed}/more data sets/{laid.claim.label}")
        sd = math.sqrt(laid.between.sd**2 + scatter)
        x = sd * rng.standard_normal((simulation.repetitions, int(counts[-1])))
        means = np.cumsum(x, axis=1)[:, 1:] / counts  # of the first 2, 3, ... data sets
        squares = np.cumsum(np.square(x), axis=1)[:, 1:] / counts - np.square(means)
        df = np.broadcast_to(counts - 1.0, means.shape)
        estimates = batch.Estimates(means, squares / (counts - 1), df)  # variance of the mean
        effect = 0.0 if one.effect is None else one.effect / shrink
        p.append(_over_data_sets(one.hypothesis, estimates, effect, one.margin / shrink))
    found: Floats = np.max(p, axis=0)
    return found


def _variance(laid: _Laid, spreads: Spreads, seeds: int, name: str) -> float:
    """Sampling variance of the contrast on one data set."""
    return sum(
        w * w * spreads.seed[cell] ** 2 / seeds
        for w, cell, stratum in zip(laid.weights, laid.cells, laid.strata, strict=True)
        if stratum == name
    )


def _standard_error(laid: _Laid, spreads: Spreads, seeds: int) -> tuple[float, float]:
    """Of the fixed estimand, with Satterthwaite's degrees of freedom (1 without any spread)."""
    parts = np.square(laid.share * spreads.seed[laid.cells]) / seeds
    total = float(parts.sum())
    if total == 0.0:
        return 0.0, 1.0
    return math.sqrt(total), total**2 / float(np.square(parts).sum()) * (seeds - 1)


def _between_error(laid: _Laid, spreads: Spreads, seeds: int) -> tuple[float, int]:
    """Of the population estimand, and its number of data sets."""
    assert laid.between.sd is not None
    scatter = np.mean([_variance(laid, spreads, seeds, name) for name in laid.names])
    return math.sqrt((laid.between.sd**2 + float(scatter)) / len(laid.names)), len(laid.names)


def _known_to(laid: _Laid, spreads: Spreads) -> float:
    """Satterthwaite's degrees of freedom of the pilot's standard error; 0 where cells aren't its
    own."""
    if np.isinf(spreads.df[laid.cells]).all():
        return math.inf
    parts = np.square(laid.share * spreads.seed[laid.cells])
    own = spreads.df[laid.cells] > 0.0
    if not parts[own].sum():
        return 0.0
    return float(
        parts[own].sum() ** 2 / (np.square(parts[own]) / spreads.df[laid.cells][own]).sum()
    )


def _formula(test: str, error: float, df: float, alpha: float) -> float:
    """(t_{1 - alpha} + t_{power}) * SE; for an equivalence both sides share the risk."""
    if test == "equivalence":
        reach = stats.t.isf(alpha, df) + stats.t.ppf((1.0 + POWER) / 2.0, df)
    else:
        tail = alpha / 2.0 if test == "difference" else alpha
        reach = stats.t.isf(tail, df) + stats.t.ppf(POWER, df)
    return float(reach) * error


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
