"""Small models and situations for the tests of planning."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablate.models.assembly import Model, build
from ablate.models.discretise import Discretiser
from ablate.models.spec import ModelSpec

N, M, BINS = 3, 2, 6
D = N + M + 2
DATA = np.random.default_rng(0).normal(size=(600, D)) * np.linspace(0.5, 3, D) + 1.0
DATA[:, N : N + M] = np.tanh(DATA[:, N : N + M])


def make_spec(n: int = N, m: int = M, **changes: Any) -> ModelSpec:
    """The released Trajectory Transformer's shape, but for `changes` of the fields of `ModelSpec`."""
    config = {
        "mixer": "attention", "head": "categorical", "context": 10, "layout": "dimension",
        "input": "discretised", "model": {"width": 128, "layers": 4, "heads": 4, "dropout": 0.1},
    }  # fmt: skip
    return dataclasses.replace(ModelSpec.joint(config, n, m), **changes)


def make_model(dtype: torch.dtype = torch.float64, **changes: Any) -> Model:
    """A model whose weights are far from the small initial ones, so that its distributions are uneven."""
    shape = {"context": 3, "bins": BINS, "width": 16, "layers": 2}
    heads = {"heads": 2} if changes.get("mixer", "attention") == "attention" else {"heads": 1}
    spec = make_spec(**(shape | heads | {"initialisation": "mingpt"} | changes))
    discretiser = Discretiser.fit(DATA, spec.bins)
    told = DATA[:, : sum(size for _, size in spec.prefix)]
    model = build(spec, torch.Generator().manual_seed(1), DATA, discretiser, told)
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


def prefix(model: Model, context: Tensor, observation: Tensor) -> Tensor:
    """Tokens (1, L D + N) as the release's make_prefix gives them."""
    rows = context[0].clone()
    rows[:, -1] = 1e6
    told = model.head.bins.encode(rows).flatten()
    return torch.cat([told, model.head.bins.encode(observation[0])])[None]
