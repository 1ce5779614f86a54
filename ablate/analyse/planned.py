"""A hypothesis' claims on the cells of a design, and their standard errors before anything has run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from ablate.analyse.claims import ONE_DATA_SET
from ablate.analyse.intervals import Floats
from ablate.analyse.pairing import Untestable, resolve
from ablate.analyse.spreads import Between, Spreads
from ablate.analyse.verdict import margin_of
from ablate.study.contrast import Level
from ablate.study.hypotheses import Claim, Hypothesis, claims

POWER = 0.8


@dataclass(frozen=True)
class Laid:
    """A claim on the design's cells; weights (C,) within a stratum, cells (C,) of the design.

    between: the SD of the contrast between data sets. within: that of a seed's contrast, averaged over the
    data sets, where seeds pair the cells and a pilot shows it.
    """

    claim: Claim
    weights: Floats
    cells: np.ndarray
    strata: tuple[str, ...]
    names: tuple[str, ...]
    between: Between
    paired: bool
    within: Between

    @property
    def share(self) -> Floats:
        """Weights of the fixed estimand."""
        return self.weights / len(self.names)

    def stretch(self, spreads: Spreads) -> float:
        """The SD of a seed's contrast over what it would be if cells shared nothing."""
        alone = math.sqrt(float(np.square(self.share * spreads.seed[self.cells]).sum()))
        return 1.0 if self.within.sd is None or alone == 0.0 else self.within.sd / alone


@dataclass(frozen=True)
class Planned:
    """A hypothesis with its claims on the design."""

    hypothesis: Hypothesis
    margin: float | None
    laid: tuple[Laid, ...]
    spreads: Spreads
    salt: str  # of the metric's noise

    @property
    def effect(self) -> float | None:
        """The planned distance from the threshold (from `around`), None where it isn't declared."""
        return 0.0 if self.hypothesis.test == "equivalence" else self.margin


def structure(cells: pd.DataFrame) -> pd.DataFrame:
    """A tidy table of the design with two trials a cell, whose metric is the row's number."""
    rows = cells.loc[cells.index.repeat(2)].reset_index(drop=True)
    for name in rows.columns:
        if name not in ("data",) and not pd.api.types.is_numeric_dtype(rows[name]):
            rows[name] = rows[name].astype("category")
    return rows.assign(seed=np.tile([0, 1], len(cells)), row=np.arange(len(rows), dtype=float))


def lay(
    hypothesis: Hypothesis,
    levels: Mapping[str, Sequence[Level]],
    structure: pd.DataFrame,
    spreads: Spreads,
    default_margin: float | None,
    paired: bool,
) -> Planned | str:
    if hypothesis.estimator is not None:
        return "an estimator of its own has no formula; its power takes a pilot with its seeds"
    margin = margin_of(hypothesis, default_margin)
    laid = []
    for claim in claims(hypothesis, levels):
        found = resolve(claim, structure, "row")
        if isinstance(found, Untestable):
            continue
        cells = np.array([int(cell[0]) // 2 for cell in found.cells])
        laid.append(
            Laid(
                claim,
                np.asarray(found.weights, dtype=float),
                cells,
                found.strata,
                found.names,
                spreads.between(claim),
                paired,
                spreads.within(claim, found.names) if paired else Between(None),
            )
        )
    if not laid:
        return "the design doesn't have its cells"
    if hypothesis.estimand == "population":
        laid = [one for one in laid if len(one.names) > 1]
        if not laid:
            return ONE_DATA_SET
    return Planned(hypothesis, margin, tuple(laid), spreads, hypothesis.metric)


def variance_on(laid: Laid, spreads: Spreads, seeds: int, name: str) -> float:
    """Sampling variance of the contrast on one data set."""
    return sum(
        w * w * spreads.seed[cell] ** 2 / seeds
        for w, cell, stratum in zip(laid.weights, laid.cells, laid.strata, strict=True)
        if stratum == name
    )


def standard_error(laid: Laid, spreads: Spreads, seeds: int) -> tuple[float, float]:
    """Of the fixed estimand, with its degrees of freedom (1 without any spread): of the seeds where they
    pair the cells, else Satterthwaite's."""
    parts = np.square(laid.share * spreads.seed[laid.cells]) / seeds
    total = float(parts.sum())
    if total == 0.0:
        return 0.0, 1.0
    if laid.paired:
        return math.sqrt(total) * laid.stretch(spreads), seeds - 1.0
    return math.sqrt(total), total**2 / float(np.square(parts).sum()) * (seeds - 1)


def between_error(laid: Laid, spreads: Spreads, seeds: int) -> tuple[float, int]:
    """Of the population estimand, and its number of data sets."""
    assert laid.between.sd is not None
    scatter = np.mean([variance_on(laid, spreads, seeds, name) for name in laid.names])
    return math.sqrt((laid.between.sd**2 + float(scatter)) / len(laid.names)), len(laid.names)


def known_to(laid: Laid, spreads: Spreads) -> float:
    """Satterthwaite's degrees of freedom of the pilot's standard error; 0 where cells aren't its
    own."""
    if laid.within.sd is not None:
        return laid.within.df
    if np.isinf(spreads.df[laid.cells]).all():
        return math.inf
    parts = np.square(laid.share * spreads.seed[laid.cells])
    own = spreads.df[laid.cells] > 0.0
    if not parts[own].sum():
        return 0.0
    return float(
        parts[own].sum() ** 2 / (np.square(parts[own]) / spreads.df[laid.cells][own]).sum()
    )


def formula(test: str, error: float, df: float, alpha: float) -> float:
    """(t_{1 - alpha} + t_{power}) * SE; for an equivalence both sides share the risk."""
    if test == "equivalence":
        reach = stats.t.isf(alpha, df) + stats.t.ppf((1.0 + POWER) / 2.0, df)
    else:
        tail = alpha / 2.0 if test == "difference" else alpha
        reach = stats.t.isf(tail, df) + stats.t.ppf(POWER, df)
    return float(reach) * error
