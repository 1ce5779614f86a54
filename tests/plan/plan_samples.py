"""Small models and situations for the tests of planning."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablate.models.discretise import Discretiser
from ablate.models.trajectory import TrajectoryModel, TrajectorySpec, build_trajectory_model

N, M, BINS = 3, 2, 6
D = N + M + 2
DATA = np.random.default_rng(0).normal(size=(600, D)) * np.linspace(0.5, 3, D) + 1.0
DATA[:, N : N + M] = np.tanh(DATA[:, N : N + M])


def make_model(dtype: torch.dtype = torch.float64, **changes: Any) -> TrajectoryModel:
    """A model whose weights are far from the small initial ones, so that its distributions are uneven."""
    shape = {"window": 3, "bins": BINS, "width": 16, "heads": 2, "layers": 2, "dropout": 0.1}
    spec = TrajectorySpec(N, M, **(shape | changes))
    discretiser = Discretiser.fit(DATA, spec.bins)
    generator = torch.Generator().manual_seed(1)
    model = build_trajectory_model(spec, generator, discretiser, DATA.mean(0), DATA.std(0))
    noise = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=noise))
    return model.to(dtype).eval()


def situation(executed: int, episodes: int = 1, seed: int = 3) -> tuple[Tensor, Tensor]:
    """Executed rows (E, L, D) and the present observation (E, N)."""
    rng = np.random.default_rng(seed)
    rows = torch.from_numpy(DATA[rng.integers(len(DATA), size=(episodes, executed + 1))])
    return rows[:, :-1], rows[:, -1, :N]


def uniforms(shape: tuple[int, ...], seed: int = 4) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def prefix(model: TrajectoryModel, context: Tensor, observation: Tensor) -> Tensor:
    """Tokens (1, L D + N) as the release's make_prefix gives them."""
    assert model.discretiser is not None
    rows = context[0].clone()
    rows[:, -1] = 1e6
    told = model.discretiser.encode(rows).flatten()
    return torch.cat([told, model.discretiser.encode(observation[0])])[None]
