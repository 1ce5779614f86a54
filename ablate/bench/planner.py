"""A plan of the Trajectory Transformer's search at hopper's sizes: CPU time of one thread.

The weights are the initial ones: what a search costs depends on them only through how many sequences share
their past, and untrained ones share least.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F

from ablate.bench.peer import planner
from ablate.bench.update import Body, Row, one_thread, rounds
from ablate.models.assembly import Model, build
from ablate.models.discretise import Discretiser
from ablate.models.spec import ModelSpec
from ablate.plan.options import PlanOptions, released_positions
from ablate.plan.search import Plan, search

OBSERVATIONS, ACTIONS = 11, 3
WIDTH, LAYERS = 128, 4
PRODUCTS = 12 * WIDTH**2 * LAYERS  # multiply-adds of a token's matrix products
HOPPER = PlanOptions()  # horizon 15, beam 128, context 5
LONG = PlanOptions(horizon=5, beam=64, max_context_transitions=32)  # a window of 511 tokens
EPISODES = 16
CASES = (
    ("H 15, beam 128, context 5", HOPPER),
    ("H 15, beam 128, context 5", HOPPER.model_copy(update={"mode": "full"})),
    ("H 5, beam 64, 511 tokens", LONG),
    ("H 5, beam 64, 511 tokens", LONG.model_copy(update={"mode": "full"})),
)
SHORT = PlanOptions(horizon=5, beam=64)
SEVERAL = (SHORT, SHORT.model_copy(update={"mode": "full"}))


# Beside a peer: what, our options, and whether the peer, too, is run with a window that holds everything.
BESIDE = (
    ("H 15, beam 128, context 5", HOPPER, False),
    ("H 5, beam 64, context 5", SHORT, True),
)


def peer_rows(
    folder: Path, chunks: int = 2, cases: tuple[tuple[str, PlanOptions, bool], ...] = BESIDE
) -> list[Row]:
    """One row a case, mode and window of the peer: CPU seconds of a plan, in rounds that alternate.

    folder: a checkout of a public repository (`ablate.bench.peer`). "times": its seconds over ours, the median over
    the rounds, from "least" to "most". Its window crops as released, to the context; where it holds everything, it
    looks at what ours does in mode full.
    """
    rows: list[Row] = []
    with one_thread():
        name, plan = planner(folder)
        for what, options, whole in cases:
            full = options.model_copy(update={"mode": "full"})
            bodies = {mode.mode: searching(mode, 1) for mode in (options, full)}
            others: dict[str, Body] = {"cropped": plan(options)}
            if whole:
                others["whole"] = plan(full)
            seconds = rounds(bodies | others, chunks, 1, warm=0)
            pairs = [(mode, "cropped") for mode in bodies] + [("full", "whole")] * whole
            for mode, window in pairs:
                ratios = [b / a for a, b in zip(seconds[mode], seconds[window], strict=True)]
                row: Row = {"what": what, "mode": mode, "seconds": min(seconds[mode])}
                row |= {"peer": name, "its window": window, "peer seconds": min(seconds[window])}
                row |= {"times": median(ratios), "least": min(ratios), "most": max(ratios)}
                rows.append(row | {"load": os.getloadavg()[0]})
    return rows


def planner_rows(chunks: int = 2) -> list[Row]:
    """One row a case, beside the matrix products of the tokens it computes; then 16 episodes as one batch."""
    rows: list[Row] = []
    with one_thread():
        for what, options in CASES:
            seconds, plan = seconds_of(options, 1, chunks)
            products = plan.positions * PRODUCTS / products_per_second()
            bounds = released_positions(
                hopper(options).spec, options.model_copy(update={"mode": "reference"})
            )
            rows.append(
                {
                    "what": what,
                    "mode": options.mode,
                    "episodes": 1,
                    "seconds": seconds,
                    "products": products,
                    "ratio": seconds / products,
                    "positions": plan.positions,
                    "bound": lower_bound(options),
                    "a cache without sharing": bounds["cached"],
                    "released positions": bounds["released"],
                    "load": os.getloadavg()[0],
                }
            )
        for options in SEVERAL:
            alone, _ = seconds_of(options, 1, chunks)
            seconds, plan = seconds_of(options, EPISODES, 1)
            rows.append(
                dict.fromkeys(rows[0], "")
                | {
                    "what": f"H 5, beam 64, context 5; ratio: to {EPISODES} times one",
                    "mode": options.mode,
                    "episodes": EPISODES,
                    "seconds": seconds,
                    "ratio": seconds / (EPISODES * alone),
                    "positions": plan.positions,
                    "bound": EPISODES * lower_bound(options),
                    "load": os.getloadavg()[0],
                }
            )
    return rows


def products_per_second(repeats: int = 20) -> float:
    """Multiply-adds a second of a product of the search's own shape, on this machine, now."""
    left, right = torch.randn(256, WIDTH), torch.randn(4 * WIDTH, WIDTH)
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        F.linear(left, right)
        best = min(best, time.process_time() - start)
    return left.numel() * len(right) / max(best, 1e-9)


def lower_bound(options: PlanOptions) -> int:
    """Token positions of a search that computes every new token once: nothing cropped, the prefix once."""
    slots = OBSERVATIONS + ACTIONS + 2
    given = options.executed * slots + OBSERVATIONS
    drawn = options.horizon * options.beam * options.n_expand * (ACTIONS + 1)
    return given + drawn + (options.horizon - 1) * options.beam * (OBSERVATIONS + 1)


def hopper(options: PlanOptions) -> Model:
    """The released shape; the window holds what mode full looks at."""
    window = max(10, options.max_context_transitions)
    if options.mode == "full":
        window = options.executed + options.horizon
    shape = {
        "width": WIDTH,
        "layers": LAYERS,
        "heads": 4,
        "dropout": 0.1,
        "initialisation": "mingpt",
    }
    config = {"mixer": "attention", "head": "categorical", "context": window, "model": shape}
    config |= {"layout": "dimension", "input": "discretised"}
    spec = ModelSpec.joint(config, OBSERVATIONS, ACTIONS)
    data = np.random.default_rng(0).normal(size=(10_000, spec.slots))
    generator = torch.Generator().manual_seed(0)
    return build(spec, generator, data, Discretiser.fit(data, spec.bins)).eval()


def searching(options: PlanOptions, episodes: int) -> Callable[[], Plan]:
    """A search, ready to be called."""
    model = hopper(options)
    generator = torch.Generator().manual_seed(1)
    context = torch.randn(episodes, options.executed, model.spec.slots, generator=generator)
    observation = torch.randn(episodes, OBSERVATIONS, generator=generator)
    shape = (episodes, options.horizon, options.beam * options.n_expand, model.spec.slots)
    noise = torch.rand(shape, generator=generator)
    return lambda: search(model, context, observation, options, noise)


def seconds_of(options: PlanOptions, episodes: int, chunks: int) -> tuple[float, Plan]:
    """CPU seconds of one search, the least of `chunks`, and the plan."""
    run = searching(options, episodes)
    best = float("inf")
    for _ in range(chunks):
        start = time.process_time()
        plan = run()
        best = min(best, time.process_time() - start)
    return best, plan
