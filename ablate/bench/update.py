"""An update of a preset, as `train --preset` does it; a stack of replicas against single ones.

CPU time of one thread, in rounds that alternate between the things compared, so that what else the machine does falls
on all of them alike. The load average stands in every row.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ablate.bench.peer import peer
from ablate.bench.transformer import training
from ablate.data.dose import one_thread
from ablate.learn.objective import Batch, Objective
from ablate.learn.train import updates, windows_per_update
from ablate.models.assembly import ModelSpec, build
from ablate.models.linear import AVAILABLE
from ablate.models.match import solve_width
from ablate.models.mixer import set_stacked
from ablate.models.stack import Stack

CHUNKS, REPEATS = 7, 3
PRECISIONS = ("float32", "bfloat16")

Row = dict[str, Any]
Body = Callable[[], object]


def rounds(
    bodies: dict[str, Body], chunks: int = CHUNKS, repeats: int = REPEATS, warm: int = 2
) -> dict[str, list[float]]:
    """CPU seconds of each body in each of `chunks` rounds: the mean of `repeats` calls, after `warm` uncounted ones."""
    found: dict[str, list[float]] = {name: [] for name in bodies}
    for body in bodies.values():
        for _ in range(warm):
            body()
    for _ in range(chunks):
        for name, body in bodies.items():
            start = time.process_time()
            for _ in range(repeats):
                body()
            found[name].append((time.process_time() - start) / repeats)
    return found


def alternate(
    bodies: dict[str, Body], chunks: int = CHUNKS, repeats: int = REPEATS
) -> dict[str, float]:
    """CPU seconds of each body: the least of its rounds."""
    return {name: min(each) for name, each in rounds(bodies, chunks, repeats).items()}


def update_rows(
    folder: Path | None = None, chunks: int = CHUNKS, repeats: int = REPEATS
) -> list[Row]:
    """One row a precision: CPU seconds of an update of a preset, beside the time of its own matrix products.

    That is what they would take, forward and backward, at the highest rate measured in the same rounds for products of
    such sizes in that precision. Ours cuts its windows and draws its masks, as in training.

    folder: a checkout of a public repository (`ablate.bench.peer`), which then is measured in the same rounds, given
    its windows: "ratio" is ours over its, the median over the rounds, from "least" to "most". The preset is `dt`, or
    with a peer the one that compares to it.
    """
    with one_thread():
        other = None if folder is None else peer(folder)
        preset = "dt" if other is None else other.preset
        bodies: dict[str, Body] = {each: preset_update(preset, each) for each in PRECISIONS}
        if other is not None:
            bodies["peer"] = other.update
        shape = _shape(preset)
        seconds = rounds(bodies | _products(shape), chunks, repeats)
    operations = update_operations(preset)
    rows = []
    for precision in PRECISIONS:
        own = [name for name in seconds if name.startswith(f"{precision} ")]
        fastest = min(own, key=lambda name: min(seconds[name]))
        rate = 2 * shape[0] * shape[1] * shape[2] / min(seconds[fastest])
        row: Row = {"preset": preset, "precision": precision, "seconds": min(seconds[precision])}
        if other is not None:
            ratios = [a / b for a, b in zip(seconds[precision], seconds["peer"], strict=True)]
            row |= {"peer, float32": other.name, "peer seconds": min(seconds["peer"])}
            row |= {"ratio": median(ratios), "least": min(ratios), "most": max(ratios)}
        row |= {
            "products": operations / rate,
            "ratio to products": min(seconds[precision]) * rate / operations,
            "peak GFLOP/s": rate / 1e9,
            "library of the peak": fastest.split()[1],
            "GFLOP": operations / 1e9,
            "load": os.getloadavg()[0],
        }
        rows.append(row)
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


def preset_update(preset: str, precision: str) -> Body:
    """Updates of a preset's training, one a call."""
    made = training(preset, f"train.precision={precision}")
    steps = updates(made, 0, made.train["updates"])
    return lambda: next(steps)


def update_operations(preset: str) -> int:
    """Floating-point operations of the matrix products of one update of a preset, forward and backward."""
    made = training(preset)
    set_stacked(made.stack.model, True)  # the plain path, whose products the counter knows
    targets = torch.zeros(1, _windows(made), dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        made.update(Batch(0, targets), 0.0)
    return counter.get_total_flops()


def _windows(made: Objective) -> int:
    return windows_per_update(made.train, made.source.context)


def _shape(preset: str) -> tuple[int, int, int]:
    """(m, k, n) of a preset's largest products: tokens of an update, width, width of the feed-forward part."""
    made = training(preset)
    spec = made.stack.spec
    return _windows(made) * made.stack.tokens(spec.context), spec.width, 4 * spec.width


def _products(shape: tuple[int, int, int]) -> dict[str, Body]:
    """Products x weight^T of (m, k, n) and (m, n, k): "PRECISION LIBRARY SIZES" for each library."""
    m, k, n = shape
    bodies: dict[str, Body] = {}
    for precision in PRECISIONS:
        kind = getattr(torch, precision)
        for inner, outer in ((k, n), (n, k)):
            x, weight = torch.randn(m, inner).to(kind), torch.randn(outer, inner).to(kind)
            sizes = f"{m}x{inner}x{outer}"
            plain = "MKL" if precision == "float32" else "oneDNN"
            bodies[f"{precision} {plain} {sizes}"] = lambda x=x, w=weight: (  # type: ignore[misc]
                torch.nn.functional.linear(x, w)
            )
            if precision == "float32" and AVAILABLE:
                bodies[f"{precision} oneDNN {sizes}"] = lambda x=x, w=weight: (  # type: ignore[misc]
                    torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")
                )
    return bodies


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
