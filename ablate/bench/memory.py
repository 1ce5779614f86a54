"""Memory of one update in long contexts: does it grow linearly?

Each length is run in a process of its own, whose largest resident memory the system reports. One token
a timestep, width 128, three layers, loss at every position, forward and backward.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import torch

from ablate.bench.transformer import ACTIONS, LAYERS, OBSERVATIONS, WIDTH
from ablate.bench.update import Row
from ablate.models.assembly import build
from ablate.models.spec import ModelSpec
from ablate.registry import names, process

GIGABYTE = 1e9
GOAL = 4.0  # gigabytes at 4,096 timesteps, batch 8
LENGTHS = ((1024, 8), (2048, 8), (4096, 8), (16_384, 1))  # timesteps and batch
CASES: tuple[tuple[str, float], ...] = (("attention", 0.0), ("attention", 0.1), ("ssm", 0.1))


def peak() -> float:
    """Largest resident memory of this process so far, in gigabytes."""
    kilobyte = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte / GIGABYTE


def one_update(mixer: str, dropout: float, length: int, batch: int) -> dict[str, float]:
    """Gigabytes before and at most during a forward and a backward pass in this process."""
    torch.set_num_threads(1)
    features = OBSERVATIONS + ACTIONS
    spec = ModelSpec(mixer, "mse", length, features, ACTIONS, WIDTH, LAYERS, dropout)
    policy = build(spec, torch.Generator().manual_seed(0)).train()
    rows = torch.randn(batch, length, features)
    actions = torch.rand(batch, length, ACTIONS) * 2 - 1
    mask = torch.ones(batch, length, dtype=torch.bool)
    before = peak()
    params = policy(rows, mask, method="everywhere")
    policy.head.loss(params, actions).mean().backward()
    return {"before": before, "peak": peak()}


def measured(mixer: str, dropout: float, length: int, batch: int) -> dict[str, float]:
    """The same, in a fresh process."""
    command, environment = process(
        "ablate.bench.memory", mixer, str(dropout), str(length), str(batch)
    )
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def memory_rows(
    cases: tuple[tuple[str, float], ...] = CASES,
    lengths: tuple[tuple[int, int], ...] = LENGTHS,
) -> list[Row]:
    """One row for each model and length.

    growth: memory of the update, without what the process held before, over that of the length before in
    the list with the same batch; 2 where the length doubles is linear, 4 quadratic.
    """
    rows: list[Row] = []
    for mixer, dropout in cases:
        last: dict[int, tuple[int, float]] = {}
        for length, batch in lengths:
            found = measured(mixer, dropout, length, batch)
            used = found["peak"] - found["before"]
            earlier = last.get(batch)
            rows.append(
                {
                    "mixer": mixer,
                    "dropout": dropout,
                    "timesteps": length,
                    "batch": batch,
                    "peak GB": found["peak"],
                    "of the update GB": used,
                    "longer by": length / earlier[0] if earlier else float("nan"),
                    "growth": used / earlier[1] if earlier else float("nan"),
                    "goal GB": GOAL if (length, batch) == (4096, 8) else float("nan"),
                }
            )
            last[batch] = (length, used)
    return rows


if __name__ == "__main__":
    names("mixer")  # imported before memory is measured
    print(json.dumps(one_update(sys.argv[1], float(sys.argv[2]), *map(int, sys.argv[3:5]))))
