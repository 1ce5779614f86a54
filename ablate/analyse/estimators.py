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

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from pydantic import ConfigDict, Field, ValidationError
from scipy import stats

from ablate import registry
from ablate.analyse.expressions import evaluate
from ablate.analyse.intervals import (
    Alternative,
    Estimate,
    Floats,
    combine,
    interval,
    p_value,
    ratio_interval,
)
from ablate.analyse.pairing import Resolved, Untestable, resolve
from ablate.analyse.randomisation import generator
from ablate.analyse.tidy import usable, values
from ablate.analyse.trends import nearest_rise
from ablate.config import Section
from ablate.errors import UserError
from ablate.registry import register
from ablate.study.contrast import Level, level_text, parse, written
from ablate.study.hypotheses import Claim

SHUFFLES = 2000


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
    return ByT(combine([1.0], [np.array(whole)]), len(whole), _units(len(whole)), notes)


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


def _units(n: int) -> str:
    return f"paired within {n} seeds"


def _resolved(text: str, rows: pd.DataFrame, asked: Asked) -> Resolved:
    found = resolve(Claim("", parse(text), {}), rows, asked.metric, asked.paired)
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
        top, bottom = (
            _resolved(text, rows, asked) for text in (self.options.of, self.options.over)
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
        """over: the ordered factor, whose levels are numbers. between: a contrast of another factor."""

        over: str
        between: str
        log: bool = False

    def __call__(self, rows: pd.DataFrame, asked: Asked) -> ByT:
        o = self.options
        if o.over not in rows.columns:
            raise Untold(f"the table has no column '{o.over}'")
        levels = sorted({level_text(x) for x in rows[o.over].unique()}, key=_number)
        x = np.array([_number(level) for level in levels])
        if len(x) < 2 or not np.isfinite(x).all() or (o.log and x[0] <= 0.0):
            raise Untold(f"the levels of '{o.over}' ({', '.join(levels)}) have no slope")
        x = np.log(x) if o.log else x
        weights = (x - x.mean()) / np.square(x - x.mean()).sum()
        terms = [
            f"{'-' if w < 0.0 else '+'} {abs(w):.17g} {o.over}[{written(level)}]"
            for w, level in zip(weights, levels, strict=True)
            if abs(w) > 1e-12 * np.abs(weights).max()
        ]
        line = " ".join(sorted(terms)).lstrip("+ ")
        return LinearContrast({"of": f"({line}) : ({o.between})"})(rows, asked)

    @property
    def says(self) -> str:
        over = f"log {self.options.over}" if self.options.log else self.options.over
        return f"slope over {over} : ({self.options.between})"


def _number(level: object) -> float:
    try:
        return float(str(level))
    except ValueError:
        return math.nan


@register("estimator", "logistic")
class Logistic(Estimator):
    """How far two levels of a factor are apart along x, in a logistic curve of a response from 0 to 1:

        logit E[response] = slope * (x - place of the level)

    so the offset, in units of x, is 0 where the curves of the levels lie on each other. It is fitted to all
    runs together; its interval is a t of the jackknife over seeds. Beside it stands the likelihood-ratio test
    of no offset, divided by the design effect (Rao and Scott's first-order correction), as runs of a seed
    share their episodes. Source: J. N. K. Rao and A. J. Scott, Annals of Statistics 12 (1984) 46-60.
    """

    class Options(Section):
        """in: x, an expression of columns, e.g. log(context / distance). by: the factor; between: two of its
        levels, (each pair when not given). of: the response, the hypothesis' `metric` when not given."""

        model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
        of: str | None = None
        x: str = Field(alias="in")
        by: str
        between: tuple[Level, Level] | None = None

    def __call__(self, rows: pd.DataFrame, asked: Asked) -> ByT:
        o, metric = self.options, self.options.of or asked.metric
        if o.by not in rows.columns:
            raise Untold(f"the table has no column '{o.by}'")
        rows = usable(rows, metric)
        level = rows[o.by].map(level_text)
        pair = [level_text(x) for x in o.between] if o.between else sorted(level.unique())
        if len(pair) != 2:
            raise Untold(f"'{o.by}' has {len(pair)} levels here; an offset is between two")
        rows = rows[level.isin(pair)]
        second = (rows[o.by].map(level_text) == pair[0]).to_numpy(dtype=float)
        y = values(rows, metric)
        if len(y) == 0 or y.min() < 0.0 or y.max() > 1.0:
            raise Untold(f"'{metric}' isn't between 0 and 1")
        x = evaluate(o.x, rows)
        design = pd.DataFrame({"one": 1.0, "x": x, "second": second, "y": y}, index=rows.index)
        design = pd.concat([design, rows["seed"]], axis=1)
        columns = ["one", "x", "second"]

        def fitted(some: pd.DataFrame) -> Floats:
            """The offset along x, then the logit's."""
            b, _, _ = logit_fit(some[columns].to_numpy(), some["y"].to_numpy())
            return np.array([-b[2] / b[1], b[2]])

        whole, covariance, n = jackknife(design, fitted, asked.paired)
        _, deviance, naive = logit_fit(design[columns].to_numpy(), y)
        _, without, _ = logit_fit(design[columns[:2]].to_numpy(), y)
        effect = covariance[1, 1] / naive[2, 2]
        ratio = max(without - deviance, 0.0) / effect if effect > 0.0 else math.nan
        p = float(stats.f.sf(ratio, 1, n - 1))
        note = f"likelihood-ratio test of no offset: F = {ratio:.3g} (1 and {n - 1} degrees of freedom), p = {p:.2g}"
        estimate = Estimate(float(whole[0]), float(covariance[0, 0]), n - 1.0, 1, 0)
        return ByT(
            estimate, n, _units(n) if asked.paired else "unpaired: runs are the units", (note,)
        )

    @property
    def says(self) -> str:
        o = self.options
        between = f" {o.between[0]} - {o.between[1]}" if o.between else ""
        return f"offset of {o.by}{between} along {o.x}"

    @classmethod
    def parts(
        cls, options: Mapping[str, Any], levels: Mapping[str, Sequence[Level]]
    ) -> list[tuple[str, dict[str, Any]]]:
        by = str(options.get("by"))
        if options.get("between") is not None or by not in levels:
            return [("", dict(options))]
        pairs = list(itertools.combinations(levels[by], 2))
        label = (lambda a, b: f"{a} - {b}") if len(pairs) > 1 else (lambda a, b: "")
        return [(label(a, b), {**options, "between": (a, b)}) for a, b in pairs]


def logit_fit(x: Floats, y: Floats) -> tuple[Floats, float, Floats]:
    """Coefficients (Q,), deviance and their covariance (Q, Q) of a logistic regression of y (n,) in 0..1.

    By Newton's steps, as statsmodels' GLM with a binomial family. Raises Untold where it doesn't settle, as
    when the curve is a step.
    """
    b = np.zeros(x.shape[1])
    for _ in range(50):
        mean = 1.0 / (1.0 + np.exp(-np.clip(x @ b, -30.0, 30.0)))
        weight = np.maximum(mean * (1.0 - mean), 1e-10)
        information = x.T @ (weight[:, None] * x)
        try:
            step = np.linalg.solve(information, x.T @ (y - mean))
        except np.linalg.LinAlgError:
            break
        b = b + step
        if np.abs(step).max() < 1e-9 * (1.0 + np.abs(b).max()):
            with np.errstate(divide="ignore", invalid="ignore"):
                terms = np.where(y > 0, y * np.log(y / mean), 0.0)
                terms = terms + np.where(y < 1, (1 - y) * np.log((1 - y) / (1 - mean)), 0.0)
            covariance: Floats = np.linalg.inv(information).astype(np.float64)
            return b.astype(np.float64), 2.0 * float(terms.sum()), covariance
    raise Untold(
        "the logistic curve doesn't settle: the response jumps from 0 to 1, or x doesn't vary"
    )


@dataclass(frozen=True)
class Rise:
    """The rise of a monotone curve, by t of the jackknife; zero is tested by shuffling levels within seeds."""

    by_t: ByT
    greater: float
    less: float

    @property
    def value(self) -> float:
        """From the first level to the last."""
        return self.by_t.value

    @property
    def n(self) -> int:
        """Seeds."""
        return self.by_t.n

    @property
    def pairing(self) -> str:
        """Seeds are the units."""
        return self.by_t.pairing

    @property
    def notes(self) -> tuple[str, ...]:
        """The curve."""
        return self.by_t.notes

    def interval(self, confidence: float) -> tuple[float, float]:
        """Student's interval."""
        return self.by_t.interval(confidence)

    def p_value(self, null: float, alternative: Alternative) -> float:
        """Of a constant curve by shuffling, of any other rise by t."""
        if null != 0.0:
            return self.by_t.p_value(null, alternative)
        both = min(1.0, 2.0 * min(self.greater, self.less))
        return {"greater": self.greater, "less": self.less, "two-sided": both}[alternative]


@register("estimator", "isotonic")
class IsotonicRise(Estimator):
    """The rise of the nearest monotone curve through the means of an ordered factor's levels.

    The test against a constant curve is the likelihood ratio of the two (how much of the
    spread the rising curve explains), with the levels shuffled within seeds, the same way on all
    data sets. Source: R. E. Barlow, D. J. Bartholomew, J. M. Bremner and H. D. Brunk, Statistical Inference
    under Order Restrictions (1972), chapter 3.
    """

    class Options(Section):
        """over: the ordered factor, whose levels are numbers. of: the response, the hypothesis' `metric` when
        not given."""

        over: str
        of: str | None = None

    def __call__(self, rows: pd.DataFrame, asked: Asked) -> Rise:
        metric = self.options.of or asked.metric
        if self.options.over not in rows.columns:
            raise Untold(f"the table has no column '{self.options.over}'")
        rows = usable(rows, metric)
        at = rows[self.options.over].map(level_text).map(_number)
        if at.isna().any() or at.nunique() < 2:
            raise Untold(f"'{self.options.over}' has no two levels that are numbers")
        wide = rows.assign(_at=at).pivot_table(index="seed", columns="_at", values=metric).dropna()
        means = wide.to_numpy()  # (seeds, levels)
        if len(means) < 3:
            raise Untold(
                f"{len(means)} seeds have all levels of '{self.options.over}'; three are needed"
            )
        lost = rows["seed"].nunique() - len(means)
        frame = wide.reset_index()
        levels = list(wide.columns)

        def rise(some: pd.DataFrame) -> Floats:
            curve = nearest_rise(some[levels].to_numpy().mean(axis=0)[None])[0]
            return np.array([curve[-1] - curve[0]])

        whole, covariance, n = jackknife(frame, rise, True)
        rng = generator(f"isotonic/{asked.name}")
        shuffled = rng.permuted(np.broadcast_to(means, (SHUFFLES, *means.shape)), axis=2).mean(
            axis=1
        )
        own = means.mean(axis=0)[None]
        p = [_share(sign * own, sign * shuffled) for sign in (1.0, -1.0)]
        curve = nearest_rise(own)[0]
        notes = [
            "the nearest rising curve: "
            + ", ".join(f"{v:.3g} at {k:g}" for k, v in zip(levels, curve, strict=True))
        ]
        if lost:
            notes.append(f"{lost} seeds were left out, as they lack a level")
        estimate = Estimate(float(whole[0]), float(covariance[0, 0]), n - 1.0, 1, 0)
        return Rise(ByT(estimate, n, _units(n), tuple(notes)), *p)

    @property
    def says(self) -> str:
        return f"rise over {self.options.over}"


def _share(own: Floats, shuffled: Floats) -> float:
    """p of the spread that the rising curve explains of means (1, K) among shuffled ones (R, K).

    Shuffling leaves the seeds' total spread as it is, so this orders as the likelihood ratio does.
    """

    def explained(means: Floats) -> Floats:
        curve = nearest_rise(means)
        found: Floats = np.square(curve - curve.mean(axis=1, keepdims=True)).sum(axis=1)
        return found

    observed = float(explained(own)[0])
    hits = int((explained(shuffled) >= observed * (1.0 - 1e-9)).sum())
    return (hits + 1) / (len(shuffled) + 1)
