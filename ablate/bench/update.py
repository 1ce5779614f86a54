"""An update of a Decision Transformer; a stack of replicas against single ones.

CPU time of one thread, the minimum over chunks that alternate between the things compared, so that
what else the machine does falls on all of them alike. The load average stands in every row.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ablate.bench.transformer import ACTIONS, BATCH, OBSERVATIONS, TIMESTEPS, DecisionTransformer
from ablate.data.dose import one_thread
from ablate.models.assembly import ModelSpec, build
from ablate.models.linear import AVAILABLE
from ablate.models.match import solve_width
from ablate.models.mixer import set_stacked
from ablate.models.stack import Stack

PUBLIC_SECONDS = 0.195  # one update of the public Gym code: CPU time, one thread, float32
GOAL = 0.8  # of PUBLIC_SECONDS
CHUNKS, REPEATS = 7, 3

Row = dict[str, Any]


def alternate(
    bodies: dict[str, Callable[[], object]], chunks: int = CHUNKS, repeats: int = REPEATS
) -> dict[str, float]:
    """CPU seconds of each body: the minimum over `chunks` rounds of the mean of `repeats` calls."""
    best = dict.fromkeys(bodies, float("inf"))
    for body in bodies.values():
        body()
        body()
    for _ in range(chunks):
        for name, body in bodies.items():
            start = time.process_time()
            for _ in range(repeats):
                body()
            best[name] = min(best[name], (time.process_time() - start) / repeats)
    return best


def decision_transformer_update(chunks: int = CHUNKS) -> list[Row]:
    """One row a precision: seconds an update, beside the public code and the matrix products.

    `products` is the time which the update's own matrix products, forward and backward, would take
    at the highest rate measured here for products of such sizes in that precision.
    """
    with one_thread():
        bodies: dict[str, Callable[[], object]] = {
            "float32": _transformer_update(torch.float32),
            "bfloat16": _transformer_update(torch.bfloat16),
        }
        for dtype in (torch.float32, torch.bfloat16):
            bodies |= _products(dtype)
        seconds = alternate(bodies, chunks)
    operations = transformer_operations()
    rows = []
    for precision in ("float32", "bfloat16"):
        rates = {
            name: 2 * m * k * n / seconds[name]
            for name, (kind, m, k, n) in _SHAPES.items()
            if kind == precision and name in seconds
        }
        peak = max(rates.values())
        products = operations / peak
        rows.append(
            {
                "precision": precision,
                "seconds": seconds[precision],
                "public seconds": PUBLIC_SECONDS,
                "ratio to public": seconds[precision] / PUBLIC_SECONDS,
                "goal": GOAL,
                "products": products,
                "ratio to products": seconds[precision] / products,
                "peak GFLOP/s": peak / 1e9,
                "library of the peak": max(rates, key=lambda name: rates[name]).split()[1],
                "GFLOP": operations / 1e9,
                "load": os.getloadavg()[0],
            }
        )
    return rows


def cohort_throughput(
    mixers: tuple[str, ...] = ("gru", "attention", "mlp"),
    replicas: int = 5,
    parameters: int = 16_000,
    context: int = 20,
    targets: int = 128,
    chunks: int = CHUNKS,
) -> list[Row]:
    """One row for each mixer: seconds an update and replica, as a stack and one after another.

    `ratio` above 1 says that the stack is faster. Updates are those of a study: forward at the
    targets, mixture head, backward, clipping, AdamW.
    """
    rows = []
    with one_thread():
        for mixer in mixers:
            spec = ModelSpec(mixer, "mixture", context, 14, 3)
            spec = spec.at(solve_width(spec, parameters).width)
            generator = torch.Generator().manual_seed(0)
            policies = [build(spec, generator) for _ in range(2 * replicas)]
            single = [_study_update(Stack([policy]), targets) for policy in policies[:replicas]]
            bodies: dict[str, Callable[[], object]] = {
                "stack": _study_update(Stack(policies[replicas:]), targets),
                "single": lambda bodies=tuple(single): [body() for body in bodies],  # type: ignore[misc]
            }
            seconds = alternate(bodies, chunks)
            rows.append(
                {
                    "mixer": mixer,
                    "replicas": replicas,
                    "width": spec.width,
                    "stack seconds": seconds["stack"] / replicas,
                    "single seconds": seconds["single"] / replicas,
                    "ratio": seconds["single"] / seconds["stack"],
                    "load": os.getloadavg()[0],
                }
            )
    return rows


def transformer_operations() -> int:
    """Floating-point operations of one update's matrix products, forward and backward."""
    model = DecisionTransformer()
    set_stacked(model, True)  # the plain path, whose products the counter knows
    with FlopCounterMode(display=False) as counter:
        _error(model, *_batch()).backward()
    return counter.get_total_flops()


# name: precision and (m, k, n); the update's two kinds of product, for each library
_ROWS = BATCH * (3 * TIMESTEPS - 1)
_SHAPES = {
    f"{precision} {library} {m}x{k}x{n}": (precision, m, k, n)
    for precision, libraries in (("float32", ("MKL", "oneDNN")), ("bfloat16", ("oneDNN",)))
    for library in libraries
    for m, k, n in ((_ROWS, 128, 512), (_ROWS, 512, 128))
}


def _products(precision: torch.dtype) -> dict[str, Callable[[], object]]:
    """Products x weight^T at the update's sizes, under their names in `_SHAPES`."""
    bodies: dict[str, Callable[[], object]] = {}
    for name, (kind, m, k, n) in _SHAPES.items():
        if kind != str(precision).removeprefix("torch."):
            continue
        x, weight = torch.randn(m, k).to(precision), torch.randn(n, k).to(precision)
        if precision == torch.float32 and "oneDNN" in name:
            if AVAILABLE:
                product = torch.ops.mkldnn._linear_pointwise
                bodies[name] = lambda p=product, x=x, w=weight: p(x, w, None, "none", [], "")  # type: ignore[misc]
        else:
            bodies[name] = lambda x=x, w=weight: torch.nn.functional.linear(x, w)  # type: ignore[misc]
    return bodies


def _batch() -> tuple[torch.Tensor, ...]:
    """Returns (B, K, 1), states (B, K, N), actions (B, K, M) and timesteps (B, K)."""
    rng = np.random.default_rng(0)

    def normal(size: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=(BATCH, TIMESTEPS, size)).astype(np.float32))

    start = rng.integers(0, 1000 - TIMESTEPS, BATCH)[:, None]
    timesteps = torch.from_numpy(start + np.arange(TIMESTEPS))
    return normal(1), normal(OBSERVATIONS), normal(ACTIONS).tanh(), timesteps


def _error(model: DecisionTransformer, *batch: torch.Tensor) -> torch.Tensor:
    return (model(*batch) - batch[2]).square().mean()


def _transformer_update(precision: torch.dtype) -> Callable[[], object]:
    """One training step with the published settings, in float32 or under bfloat16 autocast."""
    model = DecisionTransformer()
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=1e-4, fused=True)
    batch = _batch()

    def update() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            loss = _error(model, *batch)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25, foreach=True)
        optimiser.step()

    return update


def _study_update(stack: Stack, targets: int) -> Callable[[], object]:
    """One training step of a study, for every replica of the stack."""
    spec = stack.spec
    optimiser = torch.optim.AdamW(stack.parameters(), 1e-3, weight_decay=1e-4, fused=True)
    features = torch.randn(stack.size, targets, spec.context, spec.features)
    lengths = torch.full((stack.size, targets), spec.context)
    actions = torch.rand(stack.size, targets, spec.action_dim) * 2 - 1

    def update() -> None:
        loss = stack.head.loss(stack(features, lengths), actions).mean(1).sum()
        optimiser.zero_grad()
        loss.backward()
        stack.clip_(1.0)
        optimiser.step()

    return update
