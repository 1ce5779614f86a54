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
from ablate.learn.train import Source, train_cohort
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
class Bench:
    """Everything the seeds of a cell share."""

    config: Config
    data: DataSet
    layout: Layout
    scales: Scales
    matched: Matched
    model: ModelSpec

    def policy(self, study: str, seed: int) -> Policy:
        """A freshly initialised policy; its parameters come from the seed's `init` stream alone."""
        return build(self.model, streams.torch_stream(study, seed, "init"), self.data.train.actions)

    def agent(self, policies: Sequence[Policy]) -> Agent:
        """The policies as one stacked program that reads this cell's data."""
        return Agent(Stack(list(policies)), self.layout, self.scales, self.config["context"])


def prepare(config: Config, cache: Path) -> Bench:
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
    return Bench(
        config=config,
        data=data,
        layout=layout,
        scales=fit_scales(data.train, horizon),
        matched=matched,
        model=model.at(matched.width),
    )


def run_cohort(
    study: str,
    seeds: Sequence[int],
    config: Config,
    *,
    cache: Path,
    stacked: bool,
    folder: Path | None = None,
    progress: Callable[[float], None] = lambda fraction: None,
    on_point: Callable[[int, dict[str, float]], None] = lambda index, row: None,
) -> list[Outcome]:
    """Train and evaluate one cell for every seed; one outcome a seed, in order.

    stacked: train the seeds as one program, or one after another; the results agree to rounding. folder:
    where checkpoints, and the state of an interrupted training, are kept. on_point(index, row) is called
    for every point of every learning curve.
    """
    bench = prepare(config, cache)
    policies = [bench.policy(study, seed) for seed in seeds]
    outcomes = [Outcome() for _ in seeds]
    held = held_out(
        bench.data.held_out, bench.agent(policies[:1]), bench.layout, study, HELD_OUT_TARGETS
    )
    groups = [list(range(len(seeds)))] if stacked else [[i] for i in range(len(seeds))]
    for number, group in enumerate(groups):
        train_group(
            bench, study, seeds, policies, outcomes, group, held, folder,
            lambda f, n=number: progress(0.9 * (n + f) / len(groups)), on_point,
        )  # fmt: skip
    evaluate(bench, study, seeds, policies, outcomes, held)
    for index, outcome in enumerate(outcomes):
        outcome.metrics |= bench_metrics(bench)
        if folder is not None:
            outcome.checkpoint = folder / f"seed-{seeds[index]}.safetensors"
            about = config | {"study": study, "seed": seeds[index], "width": bench.model.width}
            save_policy(outcome.checkpoint, policies[index].state_dict(), about)
    return outcomes


def train_group(
    bench: Bench,
    study: str,
    seeds: Sequence[int],
    policies: list[Policy],
    outcomes: list[Outcome],
    group: list[int],
    held: HeldOut,
    folder: Path | None,
    progress: Callable[[float], None],
    tell: Callable[[int, dict[str, float]], None],
) -> None:
    """Train the policies of `group` as one stack, in place; fill their learning curves and failures."""
    train = bench.config["train"]
    agent = bench.agent([policies[i] for i in group])
    data = stored(bench.data.train, bench.layout)
    source = Source(
        table=agent.tokens(data.fields),
        timestep=data.timestep,
        actions=torch.from_numpy(bench.data.train.actions),
        visible=agent.visible,
    )
    count = bench.config["evaluate"]["points"]
    points = sorted(
        {round(train["updates"] * (i + 1) / count) for i in range(count)} | {train["updates"]}
    )
    began = time.process_time()

    def on_point(update: int, loss: torch.Tensor) -> None:
        metrics = held_out_metrics(agent, held, limit=CURVE_TARGETS)
        for place, index in enumerate(group):
            row = {"update": float(update), "train_loss": float(loss[place])}
            row |= {name: float(value[place]) for name, value in metrics.items()}
            outcomes[index].curve.append(row)
            tell(index, row)
        progress(update / train["updates"])

    resume = None
    if folder is not None:
        resume = folder / f"training-{'-'.join(str(seeds[i]) for i in group)}.safetensors"
    result = train_cohort(
        agent.stack, source, train, study, [seeds[i] for i in group], points, on_point, resume
    )
    if resume is not None:
        resume.unlink(missing_ok=True)
    for place, state in enumerate(agent.stack.state_dicts()):
        policies[group[place]].load_state_dict(state)
        outcomes[group[place]].failure = result.diverged.get(place, "")
        outcomes[group[place]].seconds = (time.process_time() - began) / len(group)


def evaluate(
    bench: Bench,
    study: str,
    seeds: Sequence[int],
    policies: list[Policy],
    outcomes: list[Outcome],
    held: HeldOut,
) -> None:
    """Score the last checkpoint of every seed: rollouts in the environment and held-out prediction."""
    settings = bench.config["evaluate"]
    agent = bench.agent(policies)
    episodes = settings["episodes"]
    env = bench.data.spec.make_env(len(seeds) * episodes)
    rollouts = rollout(
        agent,
        env,
        episodes,
        study=study,
        seeds=seeds,
        target=target_return(bench.data, settings["target"]),
        policy=bench.data.spec.best_policy,
        sample=settings["actions"] == "sample",
    )
    predicted = held_out_metrics(agent, held)
    anchors = bench.data.anchors
    scores = 100.0 * (rollouts.returns - anchors.low) / (anchors.high - anchors.low)  # (S, E)
    for index, outcome in enumerate(outcomes):
        outcome.metrics |= {
            "score": float(scores[index].mean()),
            "score_median": float(np.median(scores[index])),
            "return_mean": float(rollouts.returns[index].mean()),
            "return_std": float(rollouts.returns[index].std(ddof=1)),
            "success": float(rollouts.success[index].mean()),
            "jerk": float(rollouts.jerk[index]),
        }
        outcome.metrics |= {name: float(value[index]) for name, value in predicted.items()}


def bench_metrics(bench: Bench) -> dict[str, float]:
    """What the matching left: parameters, their mismatch in percent, operations and targets."""
    return {
        "width": float(bench.matched.width),
        "parameters": float(bench.matched.parameters),
        "parameter_mismatch": 100.0 * bench.matched.mismatch,
        "flops_per_target": float(flops_per_target(bench.model)),
        "targets": float(
            bench.config["train"]["updates"] * bench.config["train"]["targets_per_update"]
        ),
    }


def target_return(data: DataSet, rule: str | float) -> float:
    """Return-to-go shown at the start: `p90` is the 90th percentile of the training returns, a number itself.

    Raises UserError for another rule.
    """
    if isinstance(rule, (int, float)):
        return float(rule)
    if rule.startswith("p") and rule[1:].isdigit() and int(rule[1:]) <= 100:
        return float(np.percentile(data.train.returns, int(rule[1:])))
    raise UserError(f"evaluate.target: '{rule}' is not known; allowed: a number, or p0 ... p100.")


def measure_ways(study: str, seeds: Sequence[int], config: Config, cache: Path) -> dict[str, float]:
    """CPU seconds an update and seed: the seeds as one stack, and one by one. Measured on this device."""
    bench = prepare(config, cache)
    short = config | {"train": config["train"] | {"updates": 6, "warmup": 1}}
    train = short["train"]
    data = stored(bench.data.train, bench.layout)
    seconds = {}
    for way, size in (("stacked", len(seeds)), ("single", 1)):
        agent = bench.agent([bench.policy(study, seed) for seed in seeds[:size]])
        source = Source(
            agent.tokens(data.fields),
            data.timestep,
            torch.from_numpy(bench.data.train.actions),
            agent.visible,
        )
        marks: list[float] = []
        train_cohort(
            agent.stack, source, train, study, seeds[:size], range(1, 7),
            lambda update, loss, marks=marks: marks.append(time.process_time()),
        )  # fmt: skip
        # The first updates pay for allocation and tracing; the fastest of the rest is the machine's pace.
        seconds[way] = float(np.diff(marks)[1:].min()) / size
    return seconds
