"""What a noisy controller did: the logged action and how likely it was."""

from __future__ import annotations

import numpy as np
from scipy.special import log_ndtr


def explore(mean: np.ndarray, std: float, rng: np.random.Generator) -> np.ndarray:
    """clip(mean + N(0, std^2), -1, 1) of means (..., M) in [-1, 1], rounded to float32."""
    noise = std * rng.standard_normal(mean.shape)
    return np.clip(mean + noise, -1.0, 1.0).astype(np.float32)


def censored_logp(action: np.ndarray, mean: np.ndarray, std: float) -> np.ndarray:
    """Log-likelihood of clip(N(mean, std^2), -1, 1), summed over the last axis: (..., M) -> (...).

    A censored Gaussian: the normal density inside (-1, 1), the probability of the whole tail at -1
    and 1. At the bounds it is therefore a probability, not a density.
    """
    action, mean = action.astype(np.float64), np.asarray(mean, dtype=np.float64)
    inside = -0.5 * np.square((action - mean) / std) - np.log(std) - 0.5 * np.log(2 * np.pi)
    low, high = log_ndtr((-1.0 - mean) / std), log_ndtr((mean - 1.0) / std)
    each = np.where(action <= -1.0, low, np.where(action >= 1.0, high, inside))
    return each.sum(axis=-1)
