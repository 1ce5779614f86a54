"""What turns the rows of a claim into an estimate with an interval: the linear contrast and others.

An estimator is a class with the options that a study file gives it and one method; a study's own Python file
registers one as our own are:

    @register("estimator", "median-gap")
    class MedianGap(Estimator):
        class Options(Section):
            factor: str
            more: str
            less: str

        def __call__(self, rows, asked):
            o = self.options
            def gap(one):  # the rows of one seed on one data set
                at = one.groupby(one[o.factor].map(level_text))[asked.metric].median()
                return at[o.more] - at[o.less]
            return over_seeds(rows, gap)

    estimator: {median-gap: {factor: mixer, more: gru, less: mlp}}

Whatever it computes, a seed is one unit: its cells share targets, streams and evaluation episodes, so that
`over_seeds` (a number a seed) and `jackknife` (all seeds but one, in turn) give intervals that hold for new
seeds and new episodes. What can't be estimated raises `Untold` with the reason.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd
from pydantic import ValidationError
from scipy import stats

from ablate import registry
from ablate.analyse.intervals import (
    Alternative,
    Estimate,
    Floats,
    combine,
    interval,
    p_value,
    ratio_interval,
)
from ablate.analyse.pairing import Resolved, Runs, Untestable, resolve, runs
from ablate.analyse.randomisation import generator
from ablate.errors import UserError
from ablate.registry import Section, register
from ablate.study.contrast import Level, level_text, named, parse
from ablate.study.hypotheses import Claim
from ablate.words import Response

SHUFFLES = 2000  # and resamples


class Untold(ValueError):
    """There is nothing to estimate, and why."""


@dataclass(frozen=True)
class Asked:
    """What is asked of an estimator beside its options.

    metric: the response's column. paired: whether equal seeds of different cells share anything. name: of
    the claim, from which random numbers are drawn.
    """

    metric: str
    paired: bool = True
    name: str = ""


class Finding(Protocol):
    """An estimate. n: units that it rests on. pairing, notes: in words."""

    @property
    def value(self) -> float: ...

    @property
    def n(self) -> int: ...

    @property
    def pairing(self) -> str: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    def interval(self, confidence: float) -> tuple[float, float]:
        """Two-sided bounds; infinite where nothing bounds it."""

    def p_value(self, null: float, alternative: Alternative) -> float:
        """p of "it is `null`" against the alternative."""


@dataclass(frozen=True)
class ByT:
    """A finding whose interval and p values are those of a t."""

    estimate: Estimate
    n: int
    pairing: str = ""
    notes: tuple[str, ...] = ()

    @property
    def value(self) -> float:
        """The estimate."""
        return self.estimate.value

    def interval(self, confidence: float) -> tuple[float, float]:
        """Student's interval."""
        return interval(self.estimate, confidence)

    def p_value(self, null: float, alternative: Alternative) -> float:
        """Student's p value."""
        return p_value(self.estimate, null, alternative)


class Estimator(ABC):
    """An estimator with its options; see the head of this file."""

    class Options(Section):
        """What a study file says."""

    options: Any

    def __init__(self, options: Mapping[str, Any], where: str = "estimator") -> None:
        """Raises UserError for options that aren't there or have no sense."""
        try:
            self.options = self.Options.model_validate(dict(options))
        except ValidationError as error:
            problem = error.errors()[0]
            at = ".".join(map(str, problem["loc"]))
            raise UserError(f"{where}: '{at}': {str(problem['msg']).lower()}.") from None

    @abstractmethod
    def __call__(self, rows: pd.DataFrame, asked: Asked) -> Finding:
        """The estimate from the finished rows (one a trial) at which the claim is taken."""

    @classmethod
    def gives(cls, response: Response) -> Response:
        """What the estimate is, with its unit and digits: a quantity of the response itself, unless said."""
        return response

    @property
    def says(self) -> str:
        """What is estimated, in words."""
        said = self.options.model_dump(by_alias=True, exclude_none=True)
        return ", ".join(f"{name} {value}" for name, value in said.items())

    @classmethod
    def parts(
        cls, options: Mapping[str, Any], levels: Mapping[str, Sequence[Level]]
    ) -> list[tuple[str, dict[str, Any]]]:
        """(label, options) of every claim that the options stand for; they must all hold."""
        return [("", dict(options))]


def make(name: str, options: Mapping[str, Any], where: str = "estimator") -> Estimator:
    """The registered estimator with these options. Raises UserError naming what is wrong."""
    made: Estimator = registry.get("estimator", name, where)(options, f"{where} '{name}'")
    return made


def over_seeds(rows: pd.DataFrame, number: Callable[[pd.DataFrame], float]) -> ByT:
    """The mean over seeds of `number`, which is taken on every data set and averaged over them.

    Seeds that lack a data set, or for which the number isn't finite or raises KeyError, are left out and
    said. Raises Untold below two seeds.
    """
    found: dict[object, list[float]] = {}
    data = rows["data"].nunique()
    for (seed, _), one in rows.groupby(["seed", "data"], observed=True):
        try:
            found.setdefault(seed, []).append(float(number(one)))
        except KeyError:
            continue
    whole = [float(np.mean(x)) for x in found.values() if len(x) == data and np.isfinite(x).all()]
    if len(whole) < 2:
        raise Untold(f"{len(whole)} seeds give a number on every data set; two are needed")
    lost = rows["seed"].nunique() - len(whole)
    notes = (f"{lost} seeds were left out, as they lack a cell",) if lost else ()
    return ByT(combine([1.0], [np.array(whole)]), len(whole), seeds_paired(len(whole)), notes)


def jackknife(
    rows: pd.DataFrame, statistic: Callable[[pd.DataFrame], Floats], paired: bool
) -> tuple[Floats, Floats, int]:
    """Value (Q,) of the statistic, its covariance (Q, Q) over units, and their number.

    Units are seeds, or single runs where nothing is paired; each is left out in turn. Source: B. Efron and
    C. Stein, Annals of Statistics 9 (1981) 586-596 (the variance errs on the safe side). Raises Untold below
    three units.
    """
    unit = rows["seed"] if paired else pd.Series(np.arange(len(rows)), index=rows.index)
    names = unit.unique()
    if len(names) < 3:
        raise Untold(f"there are {len(names)} seeds; three are needed")
    whole = np.atleast_1d(statistic(rows))
    left = np.stack([np.atleast_1d(statistic(rows[unit != name])) for name in names])  # (n, Q)
    apart = left - left.mean(axis=0)
    return whole, (len(names) - 1.0) / len(names) * apart.T @ apart, len(names)


def seeds_paired(n: int) -> str:
    """What a finding rests on, in words."""
    return f"paired within {n} seeds"


def _resolved(text: str, rows: pd.DataFrame, asked: Asked, known: Runs | None = None) -> Resolved:
    found = resolve(Claim("", parse(text), {}), rows, asked.metric, asked.paired, known, False)
    if isinstance(found, Untestable):
        raise Untold(found.reason)
    if not found.replicated:
        raise Untold("some cell has a single finished seed")
    return found


@register("estimator", "contrast")
class LinearContrast(Estimator):
    """A signed combination of cell means: what `contrast:` is short for."""

    class Options(Section):
        """of: see `ablate.study.contrast`."""

        of: str

    def __call__(self, rows: pd.DataFrame, asked: Asked) -> ByT:
        found = _resolved(self.options.of, rows, asked)
        n = len(np.unique(np.concatenate(found.units)))
        return ByT(found.fixed, n, found.pairing, found.notes)

    @property
    def says(self) -> str:
        return str(self.options.of)


@dataclass(frozen=True)
class Ratio:
    """a / b with its Fieller interval. top, bottom: a and b on the cells, weights over their data sets."""

    top: Resolved
    bottom: Resolved
    notes: tuple[str, ...]

    def remainder(self, ratio: float) -> Estimate:
        """a - ratio b, whose distance from zero decides what the ratio may be."""
        parts = ((self.top, 1.0), (self.bottom, -ratio))
        return combine(
            np.concatenate([sign * one.weights / len(one.names) for one, sign in parts]),
            [cell for one, _ in parts for cell in one.cells],
            [unit for one, _ in parts for unit in one.units],
        )

    @property
    def value(self) -> float:
        """a / b; nan where b is 0."""
        bottom = self.bottom.fixed.value
        return self.top.fixed.value / bottom if bottom else math.nan

    @property
    def n(self) -> int:
        """Seeds (runs where nothing is paired)."""
        return len(np.unique(np.concatenate(self.top.units + self.bottom.units)))

    @property
    def pairing(self) -> str:
        """Of the upper contrast, and of the lower where it differs."""
        return " / ".join(dict.fromkeys((self.top.pairing, self.bottom.pairing)))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Fieller's: the ratios at which a - r b may be 0; all where b may be 0."""
        low, high = interval(self.bottom.fixed, confidence)
        if low <= 0.0 <= high:
            return -math.inf, math.inf
        return ratio_interval(self.remainder, self.value, confidence)

    def p_value(self, null: float, alternative: Alternative) -> float:
        """Of a - null b = 0; a one-sided p is no smaller than that of the sign of b."""
        rest, bottom = self.remainder(null), self.bottom.fixed
        if alternative == "two-sided":
            return p_value(rest)
        up = bottom.value > 0.0
        more: Alternative = "greater" if (alternative == "greater") == up else "less"
        sure: Alternative = "greater" if up else "less"
        return max(p_value(rest, 0.0, more), p_value(bottom, 0.0, sure))

    def bootstrap(self, confidence: float, rng: np.random.Generator) -> tuple[float, float]:
        """The BCa interval of seeds drawn with replacement; raises Untold where they don't pair all cells."""
        if not (self.top.paired and self.bottom.paired) or len(self.top.terms) != len(
            self.bottom.terms
        ):
            raise Untold("the seeds don't pair all cells")
        found = stats.bootstrap(
            (self.top.terms, self.bottom.terms),
            lambda a, b, axis=-1: a.mean(axis=axis) / b.mean(axis=axis),
            paired=True,
            vectorized=True,
            confidence_level=confidence,
            n_resamples=SHUFFLES,
            random_state=rng,
        )
        return float(found.confidence_interval.low), float(found.confidence_interval.high)


@register("estimator", "ratio")
class RatioOfContrasts(Estimator):
    """The ratio of two contrasts, such as the share of a gap that is recovered.

    Source: E. C. Fieller, J. Royal Statistical Society B 16 (1954) 175-185; B. Efron, J. American
    Statistical Association 82 (1987) 171-185 (BCa), which stands beside it from ten seeds on.
    """

    class Options(Section):
        """of, over: contrasts; the first over the second."""

        of: str
        over: str

    def __call__(self, rows: pd.DataFrame, asked: Asked) -> Ratio:
        known = runs(rows, asked.metric)
        top, bottom = (
            _resolved(text, rows, asked, known) for text in (self.options.of, self.options.over)
        )
        found = Ratio(top, bottom, tuple(dict.fromkeys((*top.notes, *bottom.notes))))
        if bottom.fixed.value == 0.0:
            raise Untold(f"'{self.options.over}' is 0, and nothing can be divided by it")
        low, high = interval(bottom.fixed)
        notes = list(found.notes)
        if low <= 0.0 <= high:
            notes.append(f"'{self.options.over}' may be 0, so nothing bounds the ratio")
        elif top.paired and bottom.paired and len(top.terms) == len(bottom.terms) >= 10:
            low, high = found.bootstrap(0.95, generator(f"ratio/{asked.name}"))
            notes.append(f"bootstrap over seeds (BCa, 95 %): {low:.3g} to {high:.3g}")
        return Ratio(top, bottom, tuple(notes))

    @classmethod
    def gives(cls, response: Response) -> Response:
        return replace(response, label=f"share of {response.said}", unit="", digits=2, points=False)

    @property
    def says(self) -> str:
        return f"({self.options.of}) / ({self.options.over})"


@register("estimator", "slope-difference")
class SlopeDifference(Estimator):
    """How much steeper the response rises over an ordered factor on one side of a contrast.

    The slope of the least-squares line through the means of the levels, per unit of the factor (of its
    natural logarithm), in every cell of the contrast; a linear contrast within seeds.
    """

    class Options(Section):
        """over: the ordered factor, whose levels are numbers. between: a contrast of another factor. log: along the
        factor's natural logarithm."""

        over: str
        between: str
        log: bool = False

    def __call__(self, rows: pd.DataFrame, asked: Asked) -> ByT:
        o = self.options
        if o.over not in rows.columns:
            raise Untold(f"the table has no column '{o.over}'")
        levels = sorted({level_text(x) for x in rows[o.over].unique()}, key=as_number)
        x = np.array([as_number(level) for level in levels])
        if len(x) < 2 or not np.isfinite(x).all() or (o.log and x[0] <= 0.0):
            raise Untold(f"the levels of '{o.over}' ({', '.join(levels)}) have no slope")
        x = np.log(x) if o.log else x
        weights = (x - x.mean()) / np.square(x - x.mean()).sum()
        terms = [
            f"{'-' if w < 0.0 else '+'} {abs(w):.17g} {named(o.over, level)}"
            for w, level in zip(weights, levels, strict=True)
            if abs(w) > 1e-12 * np.abs(weights).max()
        ]
        line = " ".join(sorted(terms)).lstrip("+ ")
        return LinearContrast({"of": f"({line}) : ({o.between})"})(rows, asked)

    @property
    def says(self) -> str:
        over = f"log {self.options.over}" if self.options.log else self.options.over
        return f"slope over {over} : ({self.options.between})"


def as_number(level: object) -> float:
    """A level as a number; NaN where it is none."""
    try:
        return float(str(level))
    except ValueError:
        return math.nan
