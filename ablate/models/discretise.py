"""Continuous columns as tokens: bins of equal counts (quantile) or of equal widths (uniform); or one for each of a
column's values where there are few enough, and of equal counts otherwise (values).

The released Trajectory Transformer (trajectory/utils/discretization.py) takes as thresholds every ceil(T/N)-th
sorted value and the maximum, reads x as the largest threshold <= x, clipped to the N bins, and a token as the
middle of its bin. Where the data repeat a value (sparse rewards, clipped actions, constant columns) some of
those thresholds coincide: the release then keeps bins without width, which no value falls into but which can be
sampled, and reads the repeated value as the middle between it and the next threshold (a reward of 0 among ones
as 0.5). Here such a value gets a narrow bin of its own, read as the value itself, and what falls empty is left
out: every bin in use holds data and has a width. `repeats="kept"` is the release's rule.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ablate.errors import UserError, unknown

KINDS = ("quantile", "uniform", "values")
REPEATS = ("own-bin", "kept")
NARROW = 1e-3  # width of a repeated value's bin, as a fraction of the column's range
CLOSEST = 1e-5  # edges nearer than this fraction of the column's range are one
RESOLVED = 1e-6  # and so are those nearer than this fraction of its magnitude: float32 has to tell them apart


class Discretiser(nn.Module):
    """C columns of N bins each; bins need not touch, and a column may use fewer than N.

    Args:
        left, right: (C, N) lower and upper edge of each bin, rising along a row.
        used: (C,) how many leading bins of each column exist; the rest is padding.

    Attributes:
        columns, bins: C and N.
        left, right, used: as given. widths, centres: (C, N). valid: (C, N) bool, bins that exist.
    """

    left: Tensor
    right: Tensor
    used: Tensor
    inner: (
        Tensor  # (C, N-1) where one bin's values end and the next one's begin; +inf beyond `used`
    )
    centres: Tensor
    widths: Tensor
    valid: Tensor

    def __init__(self, left: np.ndarray, right: np.ndarray, used: np.ndarray) -> None:
        super().__init__()
        self.columns, self.bins = left.shape
        valid = np.arange(self.bins) < used[:, None]
        # Touching bins share an edge; a value in a gap belongs to the nearer bin.
        inner = np.where(valid[:, 1:], 0.5 * (right[:, :-1] + left[:, 1:]), np.inf)
        inner = np.where(valid[:, 1:] & (right[:, :-1] == left[:, 1:]), left[:, 1:], inner)
        arrays = {
            "left": left,
            "right": right,
            "inner": inner,
            "centres": 0.5 * (left + right),
            "widths": right - left,
        }
        for name, values in arrays.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.get_default_dtype()))
        self.register_buffer("used", torch.tensor(used, dtype=torch.long))
        self.register_buffer("valid", torch.tensor(valid))

    @classmethod
    def fit(
        cls,
        data: np.ndarray,
        bins: int,
        kind: str = "quantile",
        repeats: Literal["own-bin", "kept"] = "own-bin",
    ) -> Discretiser:
        """Bins of data (T, C).

        kind: `quantile`, `uniform` or `values`. repeats: what becomes of values which the data repeat so often that
        thresholds coincide, see the module. Raises UserError for an unknown rule, for data that are empty or not
        finite, and for fewer than two bins.
        """
        if kind not in KINDS:
            raise unknown("discretiser", kind, KINDS)
        if repeats not in REPEATS:
            raise unknown("repeats", repeats, REPEATS)
        if bins < 2:
            raise UserError(f"bins: found {bins}; at least 2 are needed.")
        if data.ndim != 2 or not len(data):
            raise UserError(
                f"discretiser: data have shape {data.shape}; (T, C) with T >= 1 is needed."
            )
        if not np.isfinite(data).all():
            row, column = np.argwhere(~np.isfinite(data))[0]
            raise UserError(f"discretiser: row {row} of column {column} is not finite.")
        values = np.sort(data.astype(np.float64), axis=0)
        if repeats == "kept" and kind != "values":
            left, right = _kept(values, bins, kind)
            return cls(left, right, np.full(values.shape[1], bins))
        left = np.empty((values.shape[1], bins))
        right, used = np.empty_like(left), np.empty(values.shape[1], dtype=np.int64)
        for column in range(values.shape[1]):
            low, high = _own(values[:, column], bins, kind)
            used[column] = len(low)
            left[column] = np.append(low, np.full(bins - len(low), high[-1]))
            right[column] = np.append(high, np.full(bins - len(low), high[-1]))
        return cls(left, right, used)

    def encode(self, values: Tensor, first: int = 0) -> Tensor:
        """Tokens (..., c) int64 of values (..., c) in the columns first .. first+c-1."""
        count = values.shape[-1]
        flat = values.reshape(-1, count).T.contiguous()  # (c, rows)
        found = torch.searchsorted(self.inner[first : first + count].contiguous(), flat, right=True)
        return found.T.reshape(values.shape)

    def decode(self, tokens: Tensor, first: int = 0) -> Tensor:
        """Middles of the bins (..., c) of tokens (..., c); a token past the last bin counts as the last."""
        return self._at(self.centres, tokens, first)

    def log_width(self, tokens: Tensor, first: int = 0) -> Tensor:
        """Logarithm of the width of each token's bin, (..., c); -inf where a kept bin has none."""
        return self._at(self.widths, tokens, first).log()

    def expectation(self, probabilities: Tensor, column: int) -> Tensor:
        """Expected value (...,) under probabilities (..., N) of the bins of one column.

        As in the release the probabilities need not sum to one: what was given to the stop token counts as zero.
        """
        return probabilities @ self.centres[column]

    def percentile(self, probabilities: Tensor, level: float, column: int) -> Tensor:
        """Middle (...,) of the lowest bin at which the cumulated probabilities (..., N) exceed `level`.

        The release reads the bin below it, and for the lowest bin the middle between minimum and maximum. Where
        the cumulated probability never exceeds `level` (stopping is likely), the highest bin.
        """
        index = (probabilities.cumsum(-1) <= level).sum(-1).clamp(max=self.bins - 1)
        return self.centres[column][torch.minimum(index, self.used[column] - 1)]

    def _at(self, table: Tensor, tokens: Tensor, first: int) -> Tensor:
        count = tokens.shape[-1]
        last = self.used[first : first + count] - 1
        columns = torch.arange(first, first + count, device=tokens.device)
        return table[columns, torch.minimum(tokens, last)]


def _thresholds(ordered: np.ndarray, bins: int, kind: str) -> np.ndarray:
    """At most N+1 edges of one sorted column (T,): the release's, but for a maximum counted twice."""
    if kind == "uniform":
        return np.linspace(ordered[0], ordered[-1], bins + 1)
    stride = -(-len(ordered) // bins)
    rows = np.arange(0, len(ordered), stride)
    edges = ordered[rows]
    return (
        edges if rows[-1] == len(ordered) - 1 and len(edges) > 1 else np.append(edges, ordered[-1])
    )


def _kept(ordered: np.ndarray, bins: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The release's bins (C, N), also those without width; short lists are filled with the maximum."""
    if kind == "uniform":
        edges = np.linspace(ordered[0], ordered[-1], bins + 1)  # (N+1, C)
    else:
        strided = ordered[:: -(-len(ordered) // bins)]
        missing = bins + 1 - len(strided)
        edges = np.concatenate([strided, np.repeat(ordered[-1:], missing, axis=0)])
    return edges[:-1].T.copy(), edges[1:].T.copy()


def _own(ordered: np.ndarray, bins: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edges (n,), n <= N, of the bins of one sorted column (T,): all have a width.

    Quantile bins all hold data; of uniform ones some may not.
    """
    if kind == "values":
        distinct = np.unique(ordered)
        if 1 < len(distinct) <= bins:
            side = 0.5 * min(NARROW * (distinct[-1] - distinct[0]), 0.5 * np.diff(distinct).min())
            return distinct - side, distinct + side
        kind = "quantile"
    lowest, highest = float(ordered[0]), float(ordered[-1])
    nearest = max(CLOSEST * (highest - lowest), RESOLVED * max(-lowest, highest), 1e-9)
    narrow = max(NARROW * (highest - lowest), 4.0 * nearest)
    if highest - lowest <= 2.0 * narrow:  # one value
        middle = 0.5 * (lowest + highest)
        return np.array([middle - narrow]), np.array([middle + narrow])
    levels, counts = np.unique(_thresholds(ordered, bins, kind), return_counts=True)
    masses: list[float] = []
    for level in levels[counts > 1].tolist():
        if not masses or level - masses[-1] >= 2.0 * narrow:
            masses.append(level)
    edges = [mass + side * 0.5 * narrow for mass in masses for side in (-1.0, 1.0)]
    # Repeated values first: where edges crowd, theirs stay.
    for level in levels.tolist():
        crowded = any(abs(edge - level) < nearest for edge in edges)
        if not crowded and all(abs(mass - level) >= 0.5 * narrow for mass in masses):
            edges.append(level)
    kept = np.sort(np.array(edges))
    # Values outside of the outermost edges belong to the outermost bins.
    index = np.clip(np.searchsorted(kept, ordered, side="right") - 1, 0, len(kept) - 2)
    held = np.unique(index) if kind == "quantile" else np.arange(len(kept) - 1)
    return kept[held], kept[held + 1]
