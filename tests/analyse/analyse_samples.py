"""Made-up tidy tables with known truth."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablate.analyse import answer
from ablate.measure.base import Measurement, Trained
from ablate.registry import register
from ablate.study.hypotheses import Hypothesis
from ablate.words import Response

RUNS = Path(  # the published runs of d3rlpy-benchmarks
    os.environ.get(
        "D3RLPY_BENCHMARK", Path(__file__).parents[3] / "shared/data/d3rlpy_bench_final.csv"
    )
)


@register("measurement", "sample")
class Sample(Measurement):
    """A measurement whose responses are known: `sample.score`, `sample.error`."""

    responses = (
        Response("score", unit="points", direction="higher", digits=1, points=True),
        Response("error", direction="lower"),
    )

    def __call__(self, trained: Trained, options: Any) -> dict[str, np.ndarray]:
        raise NotImplementedError("tables are made up, not measured")


COLUMNS = ["trial", "status", "data", "mixer", "context", "condition", "history", "head", "seed"]


def tidy(
    truth: Callable[[dict[str, Any]], float],
    *,
    data: Sequence[str] = ("lq-mix/episode", "tmaze/passive-20"),
    mixer: Sequence[str] = ("mlp", "gru", "attention"),
    context: Sequence[int] = (1, 20),
    condition: Sequence[str] = ("none",),
    head: Sequence[str] = ("mse",),
    seeds: int = 5,
    noise: float = 2.0,
    draw: int = 0,
) -> pd.DataFrame:
    """One row a trial: truth(cell) plus normal noise of spread `noise`."""
    rng = np.random.default_rng(draw)
    rows = []
    for d, m, k, c, h in itertools.product(data, mixer, context, condition, head):
        cell = {"data": d, "mixer": m, "context": k, "condition": c, "head": h}
        for seed in range(seeds):
            score = truth(cell) + noise * rng.normal()
            rows.append({**cell, "history": "states+actions", "seed": seed, "score": score})
    table = pd.DataFrame(rows)
    table["trial"] = [f"t{i:04d}" for i in range(len(table))]
    table["status"] = "COMPLETED"
    return table[[*COLUMNS, "score"]].assign(failure="")


def claim(
    id: str = "memory", contrast: str = "context[20] - context[1]", **rest: Any
) -> Hypothesis:
    """A hypothesis; superiority on the score, with a margin of 3, unless told otherwise."""
    default = {"test": "superiority", "margin": 3.0, "metric": "score"}
    return Hypothesis(**{"id": id, "says": f"{id} holds", "contrast": contrast, **default, **rest})


def analyse(table: pd.DataFrame, hypotheses: Sequence[Hypothesis], *args: Any, **rest: Any):
    """The one call, on the score."""
    return answer.analyse(table, hypotheses, *args, **{"metric": "score", **rest})
