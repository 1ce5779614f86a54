"""What a fraction of the full factorial can tell: which effects are estimable, and what hides the
others.

An effect is a main effect or a two-factor interaction of the levels that were run. It is judged
beside all such effects that don't contain it (a main effect is not judged beside its own
interactions), as in type II sums of squares: its degrees of freedom are what its columns of the
effect-coded model matrix add to the rank of the others. What its own cells could give but the
others take away is aliased; a partner is an effect without which more of it would be estimable.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ablate.study.contrast import Level, level_text

Columns = np.ndarray  # float64
WORK = 2e9  # effects, times the cube of the model matrix's columns: seconds
_TOLERANCE = 1e-8  # relative to the largest singular value


@dataclass(frozen=True)
class Effect:
    """One effect and how much of it the cells show.

    factors: one name for a main effect, two for an interaction.
    degrees: degrees of freedom among the levels that were run, were all combinations run.
    present: those that the combinations that were run could show.
    estimable: those that remain beside the other effects.
    partners: effects that the rest (`present` - `estimable`) is mixed with.
    """

    factors: tuple[str, ...]
    degrees: int
    present: int
    estimable: int
    partners: tuple[str, ...]

    @property
    def name(self) -> str:
        """`mixer` or `mixer:context`."""
        return ":".join(self.factors)


@dataclass(frozen=True)
class Aliasing:
    """What the cells that were run can tell about the full factorial.

    run, full: cells run; cells of the full factorial of all declared levels on the data sets that
    were run. never_run: for each factor, the declared levels that no cell has.
    effects: main effects, then two-factor interactions; none of a factor that has one level only.
    constant: factors of which a single level was run. untold: there are too many effects to judge.
    """

    run: int
    full: int
    never_run: dict[str, list[Level]]
    constant: list[str]
    effects: list[Effect]
    untold: bool = False

    @property
    def fraction(self) -> float:
        """Cells run over cells of the full factorial."""
        return self.run / self.full

    @property
    def words(self) -> list[str]:
        """One sentence a line, for `plan` and the paper."""
        lines = [
            f"{self.run} of the {self.full} cells of the full factorial on these data sets are run "
            f"({100 * self.fraction:.1f} %)."
        ]
        for factor, levels in self.never_run.items():
            shown = ", ".join(str(level) for level in levels)
            lines.append(f"Never run: {factor} {shown}.")
        if self.constant:
            lines.append(
                f"Not varied, so without any effect to estimate: {', '.join(self.constant)}."
            )
        if self.untold:
            lines.append("Too many effects to tell which of them are aliased with which.")
        whole = [e.name for e in self.effects if e.estimable == e.degrees]
        if whole:
            lines.append(f"Estimable in full: {', '.join(whole)}.")
        for effect in self.effects:
            if effect.estimable < effect.degrees:
                lines.append(_say(effect))
        return lines


def _say(effect: Effect) -> str:
    count = f"{effect.estimable} of its {effect.degrees} degrees of freedom"
    line = f"{effect.name}: " + ("not estimable" if not effect.estimable else f"{count} estimable")
    reasons = []
    unseen = effect.degrees - effect.present
    if unseen:
        reasons.append(
            "its combinations were not run together"
            if not effect.present
            else f"{unseen} lost to combinations that were not run"
        )
    hidden = effect.present - effect.estimable
    if hidden:
        partners = " or ".join(effect.partners) or "several other effects together"
        reasons.append(f"{hidden} aliased with {partners}")
    return f"{line}; {', '.join(reasons)}."


def aliasing(cells: pd.DataFrame, levels: Mapping[str, Sequence[Level]]) -> Aliasing:
    """Judge every main effect and two-factor interaction on the cells that are run.

    cells: one row each, a column for every key of `levels`. levels: all declared levels; of
    `data`, which is a factor here, only those that the cells have count towards the full factorial.
    """
    present = {f: list(dict.fromkeys(map(level_text, cells[f]))) for f in levels}
    never = {
        f: [x for x in declared if level_text(x) not in present[f]]
        for f, declared in levels.items()
    }
    full = math.prod(len(present[f] if f == "data" else declared) for f, declared in levels.items())
    varied = [f for f in levels if len(present[f]) > 1]
    main = {f: _coded(cells[f], present[f]) for f in varied}  # each (cells, levels - 1)
    columns: dict[tuple[str, ...], Columns] = {(f,): main[f] for f in varied}
    pairs = list(itertools.combinations(varied, 2))
    widths = {f: main[f].shape[1] for f in varied}
    total = sum(widths.values()) + sum(widths[a] * widths[b] for a, b in pairs)
    untold = (len(varied) + len(pairs)) * max(total, len(cells) ** 0.5) ** 3 > WORK
    for a, b in [] if untold else pairs:
        product = main[a][:, :, None] * main[b][:, None, :]
        columns[a, b] = product.reshape(len(cells), -1)
    return Aliasing(
        run=len(cells),
        full=full,
        never_run={f: lost for f, lost in never.items() if lost and f != "data"},
        constant=[f for f in levels if len(present[f]) == 1],
        effects=[] if untold else [_judge(key, columns) for key in columns],
        untold=untold,
    )


def _coded(column: pd.Series, present: Sequence[str]) -> Columns:
    """Effect coding (cells, levels - 1): 1 at the level, -1 at the last level, 0 elsewhere."""
    index = column.map(level_text).map({level: i for i, level in enumerate(present)}).to_numpy()
    table = np.vstack([np.eye(len(present) - 1), -np.ones(len(present) - 1)])
    return table[index]


def _judge(key: tuple[str, ...], columns: Mapping[tuple[str, ...], Columns]) -> Effect:
    """Ranks by the null space N of the model matrix: an effect adds (its columns - rank of its
    rows of N)."""
    inside = [k for k in columns if len(k) < len(key) and set(k) < set(key)]
    others = [k for k in columns if k != key and not set(key) < set(k)]
    degrees = columns[key].shape[1]
    own = degrees - _rank(_null([*(columns[k] for k in inside), columns[key]])[-degrees:])
    null = _null([*(columns[k] for k in others), columns[key]])
    estimable = degrees - _rank(null[-degrees:])
    partners = []
    if estimable < own:
        at = 1  # the intercept comes first
        for other in others:
            width = columns[other].shape[1]
            rows = null[at : at + width]
            at += width
            if other in inside:
                continue
            without = null @ _null_space(rows)  # null vectors that don't touch `other`
            if degrees - _rank(without[-degrees:]) > estimable:
                partners.append(":".join(other))
    return Effect(key, degrees, own, estimable, tuple(partners))


def _null(blocks: Sequence[Columns]) -> Columns:
    """Orthonormal null space (columns, dimension) of [1, blocks...]."""
    return _null_space(np.hstack([np.ones((len(blocks[0]), 1)), *blocks]))


def _null_space(matrix: Columns) -> Columns:
    if len(matrix) > matrix.shape[1]:
        _, matrix = np.linalg.qr(matrix)  # the same null space, of fewer rows
    _, values, right = np.linalg.svd(matrix)
    kept = int((values > _TOLERANCE * max(values.max(initial=0.0), 1.0)).sum())
    return right[kept:].T


def _rank(matrix: Columns) -> int:
    if not matrix.size:
        return 0
    # Absolute, since null vectors are of unit length: rows of rounding errors have rank 0.
    return int((np.linalg.svd(matrix, compute_uv=False) > _TOLERANCE).sum())
