"""The value that a table makes of finite data: means of the returns that followed what looked the same.

What a learner's error has to be held against where values are known exactly: it has no model class and no training,
only the data. It knows the timestep, and as much of the past as the data can bear: the mean is taken over the logged
timesteps that share the longest part of the window of which there are enough (backing off, as the language models of
Katz 1987, IEEE Trans. ASSP 35, do).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablate.data.trajectories import Trajectories

Array = NDArray[Any]


def monte_carlo(
    train: Trajectories, returns: Array, asked: Trajectories, context: int, least: int = 10
) -> Array:
    """Estimated value (T,) of what each row of `asked` did, given a window of `context` timesteps that ends there.

    returns: (T',) what followed each row of `train`, its own reward included. least: rows of `train` that a mean has to
    rest on. Rows are alike where timestep, observation and action are the same, and so the ones before them. NaN where
    even of the row alone fewer than one were seen; one is enough there.
    """
    split = len(train.timestep)
    times = np.concatenate([train.timestep, asked.timestep])
    shown = [np.concatenate([one.observations, one.actions], axis=1) for one in (train, asked)]
    each = _codes(np.concatenate(shown))  # (T' + T,)
    key = _codes(np.stack([each, times], axis=1))
    found = np.full(len(asked.timestep), np.nan)
    for length in range(1, context + 1):
        if length > 1:
            longer = np.flatnonzero(times >= length - 1)
            before = np.full(len(each), -1)
            before[longer] = each[longer - length + 1]
            key = _codes(np.stack([key, before], axis=1))
        counted = np.bincount(key[:split], minlength=key.max() + 1)
        total = np.bincount(key[:split], returns, minlength=len(counted))
        enough = counted[key[split:]] >= (1 if length == 1 else least)
        if not enough.any():
            break
        mine = key[split:][enough]
        found[enough] = total[mine] / counted[mine]
    return found


def _codes(rows: Array) -> Array:
    """A number (T,) for each of the rows (T, n), equal where they are equal."""
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
