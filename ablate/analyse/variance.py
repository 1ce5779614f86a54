"""Where the scores vary: variance components, and omega squared.

The design is the crossing of the data set with every factor that varies, seeds within cells.

Omega squared of an effect T, for these levels (fixed effects), from sums of squares of type III
under sum-to-zero coding, so that each effect is one of equally weighted cell means and no effect
depends on which level is the first (0/1 coding credits interactions with main effects):

    omega^2 = (SS_T - df_T MS_e) / (SS_total + MS_e)
    partial = (SS_T - df_T MS_e) / (SS_T + (N - df_T) MS_e)

Source: W. L. Hays, Statistics for Psychologists, 1963; D. C. Olejnik and J. Algina, Psychological
Methods 8 (2003) 434-447.

Variance components take the levels as a sample of levels (all effects random). Without empty cells
they are solved from mean squares of the cell means (method of moments): with n~ the harmonic mean of
the cells' seeds and L_U the number of cells that share a level of U,

    E MS_T = sum over U containing T of  L_U sigma_U^2  +  sigma_seed^2 / n~

which is unbiased with unequal seeds too, and equals ANOVA's estimates with equal ones. With empty
cells they are of maximum restricted likelihood (REML), from the cell means and the within-cell sum of
squares, which are sufficient. Source: S. R. Searle, G. Casella and C. E. McCulloch, Variance
Components, 1992, chapters 4 to 6.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize

from ablate.analyse.intervals import Floats
from ablate.analyse.strata import at
from ablate.analyse.tidy import factor_columns, usable, values
from ablate.errors import UserError
from ablate.study.contrast import Level, level_texts

SEED = "seed"
MOMENTS = "the method of moments"
REML = "restricted maximum likelihood"
_MOST_CELLS = 800  # of a REML fit, whose covariance is a matrix of cells x cells
_MOST_FACTORS = 8  # besides the data set: 2^9 - 1 effects

Term = tuple[str, ...]  # the factors of an effect, in the table's order


@dataclass(frozen=True)
class Effect:
    """One line of the analysis of variance. omega2 and partial may be negative by chance."""

    term: Term
    ss: float
    df: int
    omega2: float
    partial: float


@dataclass(frozen=True)
class Anova:
    """Effects of the full factorial model, in order of their size; ss_error, df_error: within cells."""

    effects: tuple[Effect, ...]
    ss_error: float
    df_error: int
    ss_total: float

    def effect(self, *term: str) -> Effect:
        """The effect of these factors, in any order. Raises KeyError when there is none."""
        return {frozenset(one.term): one for one in self.effects}[frozenset(term)]


@dataclass(frozen=True)
class Components:
    """Variance by source, in squared units of the metric; `seed` is what is left within cells.

    variance: source -> estimate, which is below zero where the method of moments finds less than no
    variance. method: MOMENTS or REML. trials: those that it rests on. n_cells of n_possible were run.
    """

    variance: dict[Term, float]
    method: str
    n_cells: int
    n_possible: int
    trials: tuple[str, ...]

    def grouped(self) -> dict[str, float]:
        """Sources as a reader asks for them: the data set, every factor, factor x data set, the
        interactions among factors, those with the data set, seeds. Negative parts count as they are.
        """
        out: dict[str, float] = {}
        later: dict[str, float] = {}
        for term, variance in self.variance.items():
            if len(term) == 1:
                out[term[0]] = variance
            elif len(term) == 2 and "data" in term:
                later[f"{next(f for f in term if f != 'data')} × data"] = variance
            else:
                name = "interactions × data" if "data" in term else "interactions of factors"
                later[name] = later.get(name, 0.0) + variance
        seed = out.pop(SEED)
        return {**out, **later, SEED: seed}


@dataclass(frozen=True)
class _Cells:
    """codes (C, F): the level of each cell; levels (F,); means, counts (C,); within: sum of squares."""

    factors: Term
    codes: np.ndarray
    levels: tuple[int, ...]
    means: Floats
    counts: Floats
    within: float
    scores: tuple[Floats, ...]
    trials: tuple[str, ...]
    empty: str  # the first cell that wasn't run, in words

    @property
    def whole(self) -> bool:
        return math.prod(self.levels) == len(self.means)

    @property
    def df_error(self) -> int:
        return int(self.counts.sum()) - len(self.counts)

    @property
    def terms(self) -> list[Term]:
        """Every non-empty subset of the factors, main effects first."""
        return [
            term
            for size in range(1, len(self.factors) + 1)
            for term in itertools.combinations(self.factors, size)
        ]


def anova(
    table: pd.DataFrame,
    metric: str,
    where: Mapping[str, Sequence[Level]] | None = None,
) -> Anova:
    """Type III sums of squares with sum coding, and omega squared, of the full factorial model.

    where: levels at which it is taken. Raises UserError for a design with an empty cell, which it
    names (type III has no meaning there), and when no cell has two seeds.
    """
    cells = _cells(table, metric, where or {})
    if not cells.whole:
        raise UserError(
            f"omega squared: the cell {cells.empty} wasn't run; allowed: a whole crossing of "
            f"{', '.join(cells.factors)} (hold some of them at fewer levels)."
        )
    mean_square = cells.within / cells.df_error
    pooled = np.concatenate(cells.scores)
    total = float(np.square(pooled - pooled.mean()).sum())
    # Weighted least squares on cell means gives the sums of squares of a fit to the runs.
    root = np.sqrt(cells.counts)
    blocks = {term: _contrasts(cells, term) * root[:, None] for term in cells.terms}
    target = cells.means * root
    effects = []
    for term in cells.terms:
        others = [block for other, block in blocks.items() if other != term]
        rest = np.column_stack([root, *others])
        # What the term adds when it comes last: its columns with all others projected out.
        basis = np.linalg.qr(rest)[0]
        own = blocks[term] - basis @ (basis.T @ blocks[term])
        left = target - basis @ (basis.T @ target)
        fitted = np.linalg.qr(own)[0].T @ left
        ss, df = float(fitted @ fitted), blocks[term].shape[1]
        credit = ss - df * mean_square
        effects.append(
            Effect(
                term,
                ss,
                df,
                omega2=_ratio(credit, total + mean_square),
                partial=_ratio(credit, ss + (len(pooled) - df) * mean_square),
            )
        )
    return Anova(tuple(effects), cells.within, cells.df_error, total)


def components(
    table: pd.DataFrame,
    metric: str,
    where: Mapping[str, Sequence[Level]] | None = None,
) -> Components:
    """Variance components of the crossing of data set and factors, and of seeds within cells.

    With empty cells interactions of three and more factors are one component, "the cell".
    Raises UserError when no cell has two seeds, or nothing but seeds varies.
    """
    cells = _cells(table, metric, where or {})
    possible = math.prod(cells.levels)
    if cells.whole:
        found, method = _moments(cells), MOMENTS
    else:
        found, method = _reml(cells), REML
    return Components(found, method, len(cells.means), possible, cells.trials)


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0.0 else math.nan


def _cells(table: pd.DataFrame, metric: str, where: Mapping[str, Sequence[Level]]) -> _Cells:
    """The cells with a finished trial. Raises UserError as `components` does."""
    rows = at(usable(table, metric), where)
    if rows.empty:
        raise UserError(f"variance of '{metric}': no finished trial has a value.")
    coded = {n: pd.factorize(level_texts(rows[n]), sort=True) for n in factor_columns(rows)}
    factors = tuple(name for name, (_, found) in coded.items() if len(found) > 1)
    if not factors:
        raise UserError(f"variance of '{metric}': nothing but the seed varies.")
    if len(factors) > _MOST_FACTORS + 1:
        raise UserError(
            f"variance of '{metric}': {len(factors)} factors vary; allowed: {_MOST_FACTORS + 1}."
        )
    names = {name: coded[name][1].tolist() for name in factors}
    levels = tuple(len(names[name]) for name in factors)
    flat = np.ravel_multi_index([coded[name][0] for name in factors], levels)
    cells, sizes = np.unique(flat, return_counts=True)
    unique = np.column_stack(np.unravel_index(cells, levels))
    ordered = values(rows, metric)[np.argsort(flat, kind="stable")]
    scores = tuple(np.split(ordered, np.cumsum(sizes)[:-1]))
    counts: Floats = sizes.astype(float)
    if counts.max() < 2:
        raise UserError(
            f"variance of '{metric}': every cell has a single seed; allowed: two or more in some."
        )
    means = np.array([float(cell.mean()) for cell in scores])
    within = float(sum(np.square(cell - cell.mean()).sum() for cell in scores))
    there = set(map(tuple, unique.tolist()))
    absent = next((key for key in itertools.product(*map(range, levels)) if key not in there), None)
    empty = ""
    if absent is not None:
        empty = ", ".join(f"{n}={names[n][i]}" for n, i in zip(factors, absent, strict=True))
    trials = tuple(map(str, rows["trial"].tolist())) if "trial" in rows.columns else ()
    return _Cells(factors, unique, levels, means, counts, within, scores, trials, empty)


def _contrasts(cells: _Cells, term: Term) -> Floats:
    """(C, df) sum-to-zero columns of an effect: products of those of its factors."""
    columns = np.ones((len(cells.codes), 1))
    for name in term:
        place = cells.factors.index(name)
        size = cells.levels[place]
        coding = np.vstack([np.eye(size - 1), -np.ones(size - 1)])  # (levels, levels - 1)
        own = coding[cells.codes[:, place]]
        columns = (columns[:, :, None] * own[:, None, :]).reshape(len(columns), -1)
    return columns


def _moments(cells: _Cells) -> dict[Term, float]:
    """Solve the expected mean squares of the cell means, from the highest interaction down."""
    shaped = np.empty(cells.levels)
    shaped[tuple(cells.codes.T)] = cells.means
    error = cells.within / cells.df_error
    noise = error * float(np.mean(1.0 / cells.counts))
    size = dict(zip(cells.factors, cells.levels, strict=True))
    whole = math.prod(cells.levels)
    found: dict[Term, float] = {}
    for term in reversed(cells.terms):
        own = shaped
        for axis, name in enumerate(cells.factors):
            mean = own.mean(axis=axis, keepdims=True)
            own = own - mean if name in term else np.broadcast_to(mean, own.shape)
        df = math.prod(size[name] - 1 for name in term)
        square = float(np.square(own).sum()) / df
        above = sum(
            variance * whole / math.prod(size[n] for n in other)
            for other, variance in found.items()
            if set(term) < set(other)
        )
        found[term] = (square - noise - above) * math.prod(size[n] for n in term) / whole
    return {**{term: found[term] for term in cells.terms}, (SEED,): error}


def _reml(cells: _Cells) -> dict[Term, float]:
    """Maximise the restricted likelihood of all runs, in terms of the cells' means and sizes."""
    count = len(cells.means)
    if count > _MOST_CELLS:
        raise UserError(
            f"variance components: {count} cells of an incomplete design; allowed: {_MOST_CELLS}."
        )
    terms: list[Term] = [term for term in cells.terms if len(term) <= 2]
    if len(cells.factors) > 2:
        terms.append(cells.factors)
    alike = []
    for term in terms:
        places = [cells.factors.index(name) for name in term]
        group = np.unique(cells.codes[:, places], axis=0, return_inverse=True)[1].ravel()
        alike.append((group[:, None] == group[None, :]).astype(float))
    # An effect whose levels are those of another, or of the cells, cannot be told from it.
    keep = [
        i
        for i, matrix in enumerate(alike)
        if not any(np.array_equal(matrix, other) for other in alike[:i])
    ]
    terms, alike = [terms[i] for i in keep], [alike[i] for i in keep]
    scale = float(np.var(np.concatenate(cells.scores))) or 1.0
    means = (cells.means - cells.means.mean()) / math.sqrt(scale)
    within = cells.within / scale
    diagonal = np.diag(1.0 / cells.counts)
    parts = np.array([*alike, diagonal]).reshape(-1, count * count)  # (P, C * C)
    ones = np.ones(count)

    def loss(theta: Floats) -> tuple[float, Floats]:
        """-2 log restricted likelihood and its gradient in the variances."""
        covariance = (theta @ parts).reshape(count, count)
        inverse = np.linalg.inv(covariance)
        sign, logdet = np.linalg.slogdet(covariance)
        if sign <= 0:
            return math.inf, np.zeros(len(theta))
        weight = float(ones @ inverse @ ones)
        projected = inverse - np.outer(inverse @ ones, inverse @ ones) / weight
        residual = projected @ means
        error, df = float(theta[-1]), cells.df_error
        value = logdet + math.log(weight) + float(means @ residual)
        value += df * math.log(error) + within / error
        gradient = parts @ (projected - np.outer(residual, residual)).ravel()
        gradient[-1] += df / error - within / error**2
        return value, gradient

    start = np.full(len(parts), 1.0 / len(parts))
    start[-1] = max(within / cells.df_error, 1e-8)
    bounds = [(0.0, None)] * (len(parts) - 1) + [(1e-10, None)]
    solved = optimize.minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"ftol": 1e-15, "gtol": 1e-11},
    )
    variances = [float(v) * scale for v in solved.x]
    return {**dict(zip(terms, variances[:-1], strict=True)), (SEED,): variances[-1]}
