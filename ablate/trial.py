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

from ablate import streams
from ablate.data import catalogue
from ablate.data.catalogue import DataSet
from ablate.data.normalise import Scales, fit_scales
from ablate.errors import UserError
from ablate.evaluate.agent import Agent, stored
from ablate.evaluate.heldout import HeldOut, held_out, held_out_metrics
from ablate.evaluate.rollout import rollout
from ablate.learn.checkpoint import save_policy
from ablate.learn.train import Source, train_cohort, windows_per_update
from ablate.models.layouts import Layout
from ablate.models.match import Matched, solve_width
from ablate.models.policy import ModelSpec, Policy, build, flops_per_target
from ablate.models.stack import Stack

HELD_OUT_TARGETS = 4096
CURVE_TARGETS = 512

Config = dict[str, Any]


@dataclass
class Outcome:
    """What became of one trial: its metrics, or why it failed; its learning curve; its checkpoint."""

    metrics: dict[str, float] = field(default_factory=dict)
    failure: str = ""
    curve: list[dict[str, float]] = field(default_factory=list)
    checkpoint: Path | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Cell:
    """Everything the seeds of a cell share: its data, how they are read, and a model of matched size."""

    config: Config
    data: DataSet
    layout: Layout
    scales: Scales
    matched: Matched
    model: ModelSpec

    @property
    def device(self) -> torch.device:
        """Where the cell trains and acts."""
        return self.scales.mean.device

    def policy(self, study: str, seed: int) -> Policy:
        """A freshly initialised policy; its parameters come from the seed's `init` stream alone."""
        made = build(self.model, streams.torch_stream(study, seed, "init"), self.data.train.actions)
        return made.to(self.device)

    def agent(self, policies: Sequence[Policy]) -> Agent:
        """The policies as one stacked program that reads this cell's data."""
        return Agent(Stack(list(policies)), self.layout, self.scales, self.config["context"])

    def source(self, agent: Agent) -> Source:
        """What the trainer reads: the training set as tokens of `agent`."""
        data = stored(self.data.train, self.layout, self.device)
        return Source(
            table=agent.tokens(data.fields),
            timestep=data.timestep,
            actions=torch.from_numpy(self.data.train.actions).to(self.device),
            visible=agent.visible,
        )


def prepare(config: Config, cache: Path, device: str = "cpu") -> Cell:
    """Load the data, lay out the tokens and solve the mixer's width for the declared parameter count.

    Raises UserError for a data set that cannot be had or a width that cannot be matched.
    """
    data = catalogue.load(config["data"], cache)
    horizon = data.spec.make_env(1).horizon
    layout = Layout(
        observation_dim=data.train.observations.shape[1],
        action_dim=data.train.actions.shape[1],
        policies=data.spec.num_policies,
        history=config["history"],
        condition=config["condition"],
    )
    if config["condition"] == "policy-id" and layout.policies == 0:
        raise UserError(
            f"condition policy-id: {config['data']} does not record which policy acted."
        )
    model = ModelSpec(
        mixer=config["mixer"],
        head=config["head"],
        context=config["context"],
        features=layout.features,
        action_dim=layout.action_dim,
        width=0,
        layers=config["model"]["layers"],
        dropout=config["model"]["dropout"],
    )
    matched = solve_width(model, config["model"]["parameters"], config["model"]["tolerance"])
    return Cell(
        config=config,
        data=data,
        layout=layout,
        scales=fit_scales(data.train, horizon).to(device),
        matched=matched,
        model=model.at(matched.width),
    )


@dataclass
class Cohort:
    """A cohort in progress: one policy and one outcome a seed, in the order of `seeds`."""

    study: str
    seeds: list[int]
    policies: list[Policy]
    outcomes: list[Outcome]
    held: HeldOut


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
    cell = prepare(config, cache, device)
    watch = watch or Watch()
    policies = [cell.policy(study, seed) for seed in seeds]
    held = held_out(
        cell.data.held_out, cell.agent(policies[:1]), cell.layout, study, HELD_OUT_TARGETS
    )
    cohort = Cohort(study, list(seeds), policies, [Outcome() for _ in seeds], held)
    groups = [list(range(len(seeds)))] if stacked else [[i] for i in range(len(seeds))]
    for number, group in enumerate(groups):

        def share(fraction: float, number: int = number) -> None:
            watch.progress(0.9 * (number + fraction) / len(groups))

        train_group(cell, cohort, group, folder, Watch(share, watch.on_point))
    evaluate(cell, cohort)
    for seed, policy, outcome in zip(seeds, policies, cohort.outcomes, strict=True):
        outcome.metrics |= size_metrics(cell)
        if folder is not None:
            outcome.checkpoint = folder / f"seed-{seed}.safetensors"
            about = config | {"study": study, "seed": seed, "width": cell.model.width}
            save_policy(outcome.checkpoint, policy.state_dict(), about)
    return cohort.outcomes


def train_group(
    cell: Cell, cohort: Cohort, group: list[int], folder: Path | None, watch: Watch
) -> None:
    """Train the policies of `group` as one stack, in place; fill their learning curves and failures."""
    train = cell.config["train"]
    seeds = [cohort.seeds[i] for i in group]
    agent = cell.agent([cohort.policies[i] for i in group])
    count = cell.config["evaluate"]["points"]
    points = {round(train["updates"] * (i + 1) / count) for i in range(count)} | {train["updates"]}
    began = time.process_time()

    def on_point(update: int, loss: torch.Tensor) -> list[dict[str, float]]:
        metrics = held_out_metrics(agent, cohort.held, limit=CURVE_TARGETS)
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
    )
    for place, state in enumerate(agent.stack.state_dicts()):
        cohort.policies[group[place]].load_state_dict(state)
        outcome = cohort.outcomes[group[place]]
        outcome.curve = [rows[place] for _, rows in result.points]
        outcome.failure = result.diverged.get(place, "")
        outcome.seconds = (time.process_time() - began) / len(group)


def evaluate(cell: Cell, cohort: Cohort) -> None:
    """Score the last checkpoint of every seed: rollouts in the environment and held-out prediction."""
    settings = cell.config["evaluate"]
    agent = cell.agent(cohort.policies)
    episodes = settings["episodes"]
    env = cell.data.spec.make_env(len(cohort.seeds) * episodes)
    rollouts = rollout(
        agent,
        env,
        episodes,
        study=cohort.study,
        seeds=cohort.seeds,
        target=target_return(cell.data, settings["target"]),
        policy=cell.data.spec.best_policy,
        sample=settings["actions"] == "sample",
    )
    predicted = held_out_metrics(agent, cohort.held)
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


def size_metrics(cell: Cell) -> dict[str, float]:
    """What the matching left: width, parameters, their mismatch in percent, operations and targets."""
    train = cell.config["train"]
    per_update = windows_per_update(train, cell.config["context"])
    if train["loss"] == "all":
        per_update *= cell.config["context"]  # at most: a window at an episode's start holds fewer
    return {
        "width": float(cell.matched.width),
        "parameters": float(cell.matched.parameters),
        "parameter_mismatch": 100.0 * cell.matched.mismatch,
        "flops_per_target": float(flops_per_target(cell.model)),
        "targets": float(train["updates"] * per_update),
    }


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
    cell = prepare(config, cache, device)
    train = config["train"] | {"updates": 6, "warmup": 1}
    seconds = {}
    for way, size in (("stacked", len(seeds)), ("single", 1)):
        agent = cell.agent([cell.policy(study, seed) for seed in seeds[:size]])
        marks: list[float] = []

        def mark(update: int, loss: torch.Tensor, marks: list[float] = marks) -> None:
            if cell.device.type == "cuda":
                torch.cuda.synchronize(cell.device)
            cpu = cell.device.type == "cpu"
            marks.append(time.process_time() if cpu else time.perf_counter())

        train_cohort(agent.stack, cell.source(agent), train, study, seeds[:size], range(1, 7), mark)
        # The first updates pay for allocation and tracing; the fastest of the rest is the machine's pace.
        seconds[way] = float(np.diff(marks)[1:].min()) / size
    return seconds
