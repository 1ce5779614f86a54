"""One cohort, from configuration to metrics.

A cohort is one cell of a study with one or more seeds. This page is the method section: data, policy,
training, evaluation, in that order; the rooms it calls hold the details.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablate.data.catalogue import DataSet
from ablate.errors import UserError
from ablate.learn.checkpoint import save_policy
from ablate.learn.train import train_cohort
from ablate.measure.rollout import Rollouts, rollout
from ablate.measure.video import Filmed
from ablate.systems import Cell, Config, JointCell, prepare

CURVE_TARGETS = 512

__all__ = ["Cell", "JointCell", "Outcome", "Watch", "measure_ways", "prepare", "run_cohort"]
AnyCell = Any  # a `Cell` or a `JointCell`, whose policies are of its own kind


@dataclass
class Outcome:
    """What became of one trial: its metrics, or why it failed; its learning curve; its checkpoint."""

    metrics: dict[str, float] = field(default_factory=dict)
    failure: str = ""
    curve: list[dict[str, float]] = field(default_factory=list)
    checkpoint: Path | None = None
    seconds: float = 0.0


@dataclass
class Cohort:
    """A cohort in progress: one policy and one outcome a seed, in the order of `seeds`."""

    study: str
    seeds: list[int]
    policies: list[Any]
    outcomes: list[Outcome]
    held: Any


@dataclass(frozen=True)
class Watch:
    """Who wants to hear of a cohort: `progress(fraction)`, and `on_point(index, row)` for each point of each curve."""

    progress: Callable[[float], None] = lambda fraction: None
    on_point: Callable[[int, dict[str, float]], None] = lambda index, row: None


def run_cohort(
    study: str,
    seeds: Sequence[int],
    config: Config,
    *,
    cache: Path,
    stacked: bool,
    device: str = "cpu",
    folder: Path | None = None,
    watch: Watch | None = None,
) -> list[Outcome]:
    """Train and evaluate one cell for every seed; one outcome a seed, in order.

    stacked: train the seeds as one program, or one after another; the results agree to rounding. folder:
    where checkpoints, and the state of an interrupted training, are kept.
    """
    cell: AnyCell = prepare(config, cache, device)
    watch = watch or Watch()
    policies = [cell.policy(study, seed) for seed in seeds]
    held = cell.held(study, policies)
    cohort = Cohort(study, list(seeds), policies, [Outcome() for _ in seeds], held)
    groups = [list(range(len(seeds)))] if stacked else [[i] for i in range(len(seeds))]
    for number, group in enumerate(groups):

        def share(fraction: float, number: int = number) -> None:
            watch.progress(0.9 * (number + fraction) / len(groups))

        train_group(cell, cohort, group, folder, Watch(share, watch.on_point))
    evaluate(cell, cohort)
    for seed, policy, outcome in zip(seeds, policies, cohort.outcomes, strict=True):
        outcome.metrics |= cell.sizes()
        if folder is not None:
            outcome.checkpoint = folder / f"seed-{seed}.safetensors"
            about = config | {"study": study, "seed": seed, "width": cell.matched.width}
            save_policy(outcome.checkpoint, policy.state_dict(), about)
    return cohort.outcomes


def train_group(
    cell: AnyCell, cohort: Cohort, group: list[int], folder: Path | None, watch: Watch
) -> None:
    """Train the policies of `group` as one stack, in place; fill their learning curves and failures."""
    train = cell.config["train"]
    seeds = [cohort.seeds[i] for i in group]
    agent = cell.agent([cohort.policies[i] for i in group])
    count = cell.config["evaluate"]["points"]
    points = {round(train["updates"] * (i + 1) / count) for i in range(count)} | {train["updates"]}
    began = time.process_time()

    def on_point(update: int, loss: torch.Tensor) -> list[dict[str, float]]:
        metrics = cell.measure(agent, cohort.held, limit=CURVE_TARGETS)
        rows = []
        for place, index in enumerate(group):
            row = {"update": float(update), "train_loss": float(loss[place])}
            row |= {name: float(value[place]) for name, value in metrics.items()}
            rows.append(row)
            watch.on_point(index, row)
        watch.progress(update / train["updates"])
        return rows

    resume = None
    if folder is not None:
        resume = folder / f"training-{'-'.join(map(str, seeds))}.safetensors"
    result = train_cohort(
        agent.stack,
        cell.source(agent),
        train,
        cohort.study,
        seeds,
        sorted(points),
        on_point,
        resume,
        cell.config["algorithm"],
        cell.config["settings"],
    )
    for place, state in enumerate(agent.stack.state_dicts()):
        cohort.policies[group[place]].load_state_dict(state)
        outcome = cohort.outcomes[group[place]]
        outcome.curve = [rows[place] for _, rows in result.points]
        outcome.failure = result.diverged.get(place, "")
        outcome.seconds = (time.process_time() - began) / len(group)


def evaluate(cell: AnyCell, cohort: Cohort) -> None:
    """Score the last checkpoint of every seed: rollouts in the environment and held-out prediction."""
    target = target_return(cell.data, cell.config["evaluate"]["target"])
    rollouts = act(cell, cohort.policies, cohort.study, cohort.seeds, target)
    predicted = _measured(cell, cohort)
    scores = cell.data.anchors.score(rollouts.returns)  # (S, E)
    for index, outcome in enumerate(cohort.outcomes):
        outcome.metrics |= {
            "score": float(scores[index].mean()),
            "score_median": float(np.median(scores[index])),
            "return_mean": float(rollouts.returns[index].mean()),
            "return_std": float(rollouts.returns[index].std(ddof=1)),
            "success": float(rollouts.success[index].mean()),
            "jerk": float(rollouts.jerk[index]),
        }
        outcome.metrics |= {name: float(value[index]) for name, value in predicted.items()}


def _measured(cell: AnyCell, cohort: Cohort) -> dict[str, torch.Tensor]:
    """Prediction on held-out targets, (S,) each."""
    groups = [cohort.policies] if cell.stacks else [[policy] for policy in cohort.policies]
    found = [cell.measure(cell.agent(group), cohort.held) for group in groups]
    return {name: torch.cat([each[name] for each in found]) for name in found[0]}


def act(
    cell: AnyCell,
    policies: Sequence[Any],
    study: str,
    seeds: Sequence[int],
    target: float,
    video: Path | None = None,
) -> Rollouts:
    """Roll every policy out as `evaluate` says, asked for a return of `target`.

    video: the file for a film of the first episode.
    """
    settings = cell.config["evaluate"]
    env = cell.data.spec.make_env(len(seeds) * settings["episodes"])
    if video is not None:
        env = Filmed(env, video)
    rollouts = rollout(
        cell.actor(policies),
        env,
        settings["episodes"],
        study=study,
        seeds=seeds,
        target=target,
        policy=cell.data.spec.best_policy,
        sample=settings["actions"] == "sample",
        decrement=settings["decrement"],
    )
    if isinstance(env, Filmed):
        env.write()
    return rollouts


def target_return(data: DataSet, rule: str | float) -> float:
    """Return-to-go shown at the start: `p90` is the 90th percentile of the training returns, a number itself.

    Raises UserError for another rule.
    """
    if isinstance(rule, (int, float)):
        return float(rule)
    if rule.startswith("p") and rule[1:].isdecimal() and int(rule[1:]) <= 100:
        return float(np.percentile(data.train.returns, int(rule[1:])))
    raise UserError(f"evaluate.target: '{rule}' is not known; allowed: a number, or p0 ... p100.")


def measure_ways(
    study: str, seeds: Sequence[int], config: Config, cache: Path, device: str = "cpu"
) -> dict[str, float]:
    """Seconds an update and seed, the seeds as one stack and one by one, measured on this device.

    CPU time on a CPU, which other programs disturb least; elapsed time on a GPU.
    """
    cell: AnyCell = prepare(config, cache, device)
    train = config["train"] | {"updates": 6, "warmup": 1}
    seconds = {}
    ways = [("stacked", len(seeds)), ("single", 1)]
    for way, size in ways if cell.stacks else ways[1:]:
        agent = cell.agent([cell.policy(study, seed) for seed in seeds[:size]])
        marks: list[float] = []

        def mark(update: int, loss: torch.Tensor, marks: list[float] = marks) -> None:
            if cell.device.type == "cuda":
                torch.cuda.synchronize(cell.device)
            cpu = cell.device.type == "cpu"
            marks.append(time.process_time() if cpu else time.perf_counter())

        train_cohort(
            agent.stack,
            cell.source(agent),
            train,
            study,
            seeds[:size],
            range(1, 7),
            mark,
            algorithm=cell.config["algorithm"],
            settings=cell.config["settings"],
        )
        # The first updates pay for allocation and tracing; the fastest of the rest is the machine's pace.
        seconds[way] = float(np.diff(marks)[1:].min()) / size
    return seconds
