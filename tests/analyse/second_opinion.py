"""Verdicts' numbers recomputed from the committed tables by other means, without any code of `ablate`.

Rows are read by the csv module; a contrast is formed within each seed by hand, its interval is that of
`scipy.stats.ttest_1samp`; the interval of a ratio is found from where scipy's p value crosses its level, instead of
by Fieller's formula.

    python tests/analyse/second_opinion.py results/better_clone
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from scipy import optimize, stats

Row = dict[str, str]
Numbers = tuple[float, float, float]  # estimate, low, high


def rows(folder: Path) -> list[Row]:
    """The finished trials at the last budget of their fits."""
    with (folder / "trials.csv").open(newline="") as file:
        found = [row for row in csv.DictReader(file) if row["status"] == "COMPLETED"]
    return [row for row in found if row["budget"] == row["train.updates"]]


def by_seed(found: Iterable[Row], metric: str, **where: object) -> dict[str, float]:
    """The mean over the cells at these levels, a seed; a tuple stands for several levels."""
    names = {name.replace("__", "."): level for name, level in where.items()}
    sums: dict[str, list[float]] = {}
    for row in found:
        wanted = (level if isinstance(level, tuple) else (level,) for level in names.values())
        if all(row[n] in map(str, ls) for n, ls in zip(names, wanted, strict=True)):
            sums.setdefault(row["seed"], []).append(float(row[metric]))
    assert len({len(values) for values in sums.values()}) == 1, "cells are missing"
    return {seed: float(np.mean(values)) for seed, values in sums.items()}


def difference(more: dict[str, float], less: dict[str, float]) -> np.ndarray:
    """Within each seed."""
    assert more.keys() == less.keys()
    return np.array([more[seed] - less[seed] for seed in sorted(more)])


def by_t(each: np.ndarray) -> Numbers:
    """The mean over seeds with its 95 % interval."""
    found = stats.ttest_1samp(each, 0.0).confidence_interval(0.95)
    return float(each.mean()), float(found.low), float(found.high)


def by_p(top: np.ndarray, bottom: np.ndarray) -> Numbers:
    """The ratio of two means over seeds, and the ratios that a t test at 5 % doesn't reject."""

    def apart(ratio: float) -> float:
        return float(stats.ttest_1samp(top - ratio * bottom, 0.0).pvalue) - 0.05

    middle = float(top.mean() / bottom.mean())

    def edge(way: float) -> float:
        step = 0.01
        while apart(middle + way * step) > 0.0:
            step *= 2.0
        inside, outside = sorted((middle + way * step / 2.0 * (step > 0.01), middle + way * step))
        return float(optimize.brentq(apart, inside, outside, xtol=1e-13, rtol=1e-14))

    return middle, edge(-1.0), edge(1.0)


def better_clone(folder: Path) -> dict[str, Numbers]:
    """Two primary claims and a secondary one of why a better clone acts worse."""
    found = rows(folder)
    what = "measure__intervene__what"
    plain = {
        "data": "lq-mix/episode-3000",
        "condition": "time",
        "history": "states+actions",
        "head": "mse",
    }

    def at(metric: str, context: int, done: str) -> dict[str, float]:
        return by_seed(found, metric, **plain, context=context, **{what: done})

    regret, clone = "intervene.regret", "intervene.clone_regret"
    none = at(regret, 20, "none")
    return {
        "acts-no-better": by_t(difference(none, at(regret, 1, "none"))),
        "beliefs": by_p(
            difference(none, at(regret, 20, "better")),
            difference(none, dict.fromkeys(none, 0.0)),
        ),
        "knife-edge": by_t(difference(at(clone, 20, "noise-shown"), at(clone, 20, "none"))),
    }


def left_out(statistic: Callable[[set[str]], float], seeds: list[str]) -> Numbers:
    """A statistic of the seeds with the 95 % interval of a t by leaving each seed out in turn."""
    whole, n = statistic(set(seeds)), len(seeds)
    values = np.array([statistic(set(seeds) - {seed}) for seed in seeds])
    error = float(np.sqrt((n - 1) / n * np.square(values - values.mean()).sum()))
    reach = float(stats.t.ppf(0.975, n - 1)) * error
    return whole, whole - reach, whole + reach


def memory_vs_arch(folder: Path) -> dict[str, Numbers]:
    """A primary claim and a prediction: memory against the widest gap between architectures, and its harm."""
    found = rows(folder)
    regret = "rollout.regret"
    plain: dict[str, object] = {
        "data": "lq-mix/episode-3000",
        "condition": "time",
        "head": "mse",
        "model__parameters": 16000,
    }

    def at(context: int, *which: str) -> dict[str, float]:
        return by_seed(found, regret, **plain, context=context, mixer=which)

    named = ("attention", "gru", "lstm", "conv", "mlp", "ssm")
    run = {(row["mixer"], row["context"]) for row in found if row["data"] == plain["data"]}
    mixers = [mixer for mixer in named if {(mixer, "1"), (mixer, "20")} <= run]
    alone = {(k, m): at(k, m) for k in (1, 20) for m in mixers}

    def beyond(seeds: set[str]) -> float:
        means = {
            cell: np.mean([x for seed, x in of.items() if seed in seeds])
            for cell, of in alone.items()
        }
        by = {k: [means[k, m] for m in mixers] for k in (1, 20)}
        return float(
            abs(np.mean(by[20]) - np.mean(by[1])) - max(max(x) - min(x) for x in by.values())
        )

    return {
        "harm": by_t(difference(at(20, *mixers), at(1, *mixers))),
        "memory-over-architecture": left_out(beyond, sorted(alone[1, "gru"])),
    }


def loss_told(folder: Path) -> dict[str, Numbers]:
    """Both primary claims of what the loss costs a model that is told the return, and one of those told the time."""
    found = rows(folder)

    def gap(metric: str, condition: str) -> np.ndarray:
        every, last = (
            by_seed(found, metric, condition=condition, train__loss=loss)
            for loss in ("all", "last")
        )
        return difference(every, last)

    return {
        "told": by_t(gap("rollout.regret", "return-to-go+time")),
        "told-error": by_t(gap("held-out.action_error", "return-to-go+time")),
        "untold": by_t(gap("rollout.regret", "time")),
    }


OPINIONS: dict[str, Callable[[Path], dict[str, Numbers]]] = {
    "better_clone": better_clone,
    "loss_told": loss_told,
    "memory_vs_arch": memory_vs_arch,
}


if __name__ == "__main__":
    place = Path(sys.argv[1])
    for name, (value, low, high) in OPINIONS[place.name](place).items():
        print(f"{name}: {value:.10g} ({low:.10g} to {high:.10g})")
