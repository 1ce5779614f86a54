"""Scales of a data set, fitted on its training part and used by every variant alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ablate.data.trajectories import Trajectories


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


def fit_scales(trajectories: Trajectories, horizon: int) -> Scales:
    """Fit on the training set. A constant quantity gets scale 1, so that it stays what it is."""
    observations = trajectories.observations
    std = observations.std(axis=0)
    return Scales(
        mean=torch.from_numpy(observations.mean(axis=0)),
        std=torch.from_numpy(np.where(std > 1e-6, std, 1.0).astype(np.float32)),
        reward=_spread(trajectories.rewards),
        return_to_go=_spread(trajectories.returns_to_go),
        horizon=horizon,
    )


def _spread(values: np.ndarray) -> float:
    std = float(np.std(values, dtype=np.float64))
    return std if std > 1e-6 else 1.0
