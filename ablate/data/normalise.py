"""Scales of a data set, fitted on its training part and used by every variant alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ablate.data.trajectories import Trajectories

CONSTANT = 1e-6  # a deviation below which a quantity counts as constant
BLOCK = 1 << 16  # rows whose squares are summed at once


@dataclass(frozen=True)
class Scales:
    """mean, std (N,) of observations; spread of rewards and of returns-to-go; horizon in timesteps."""

    mean: Tensor
    std: Tensor
    reward: float
    return_to_go: float
    horizon: int

    def observation(self, raw: Tensor) -> Tensor:
        """(..., N) -> (..., N), zero mean and unit variance on the training set."""
        return (raw - self.mean) / self.std

    def to(self, device: torch.device | str) -> Scales:
        """The same scales with their tensors on `device`."""
        return Scales(
            self.mean.to(device), self.std.to(device), self.reward, self.return_to_go, self.horizon
        )


def moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (N,) float64 of rows (T, N) of any type.

    In double precision and about the mean, with the mean's own rounding taken out (Chan, Golub & LeVeque
    1983, equation 1.7), so that neither the number of rows nor an offset costs digits. A constant column
    has a deviation of exactly 0.
    """
    count = len(rows)
    mean = rows.mean(axis=0, dtype=np.float64)
    total, squares = np.zeros_like(mean), np.zeros_like(mean)
    for start in range(0, count, BLOCK):  # so that no copy of all rows is made
        apart = rows[start : start + BLOCK] - mean
        total += apart.sum(axis=0)
        squares += np.square(apart).sum(axis=0)
    varied = rows.max(axis=0) > rows.min(axis=0)
    variance = np.maximum(squares - np.square(total) / count, 0.0) / count
    return mean + total / count, np.sqrt(np.where(varied, variance, 0.0))


def fit_scales(trajectories: Trajectories, horizon: int) -> Scales:
    """Fit on the training set. A constant quantity gets scale 1, so that it stays what it is."""
    mean, std = moments(trajectories.observations)
    return Scales(
        mean=torch.from_numpy(mean.astype(np.float32)),
        std=torch.from_numpy(np.where(std > CONSTANT, std, 1.0).astype(np.float32)),
        reward=_spread(trajectories.rewards),
        return_to_go=_spread(trajectories.returns_to_go),
        horizon=horizon,
    )


def _spread(values: np.ndarray) -> float:
    std = float(moments(values)[1])
    return std if std > CONSTANT else 1.0
