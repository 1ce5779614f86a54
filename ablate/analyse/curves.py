"""Estimators of curves: two logistic ones that are apart along x, and one that rises."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ConfigDict, Field
from scipy import stats

from ablate.analyse.estimators import (
    SHUFFLES,
    Asked,
    ByT,
    Estimator,
    Untold,
    as_number,
    jackknife,
    seeds_paired,
)
from ablate.analyse.expressions import evaluate
from ablate.analyse.intervals import (
    Alternative,
    Estimate,
    Floats,
)
from ablate.analyse.randomisation import generator
from ablate.analyse.tidy import usable, values
from ablate.analyse.trends import nearest_rise
from ablate.registry import Section, register
from ablate.study.contrast import Level, level_text
from ablate.words import Response


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

    @classmethod
    def gives(cls, response: Response) -> Response:
        return replace(
            response, label=f"offset of {response.said}", unit="", digits=2, points=False
        )

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
            estimate,
            n,
            seeds_paired(n) if asked.paired else "unpaired: runs are the units",
            (note,),
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
        at = rows[self.options.over].map(level_text).map(as_number)
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
        return Rise(ByT(estimate, n, seeds_paired(n), tuple(notes)), *p)

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
