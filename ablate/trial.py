"""One cohort, from configuration to metrics.

A cohort is one cell of a study with one or more seeds. This page is the method section: data, policy,
training, evaluation, in that order; the rooms it calls hold the details.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablate import registry, streams
from ablate.config import complete
from ablate.data import catalogue
from ablate.data.best import best
from ablate.data.catalogue import DataSet
from ablate.data.normalise import Scales, fit_scales
from ablate.data.trajectories import Trajectories
from ablate.errors import UserError
from ablate.evaluate.agent import Agent, at_context, stored
from ablate.evaluate.heldout import HeldOut, held_out, held_out_metrics
from ablate.evaluate.rollout import Rollouts, rollout
from ablate.evaluate.video import Filmed
from ablate.learn.checkpoint import save_policy
from ablate.learn.objective import Source
from ablate.learn.train import train_cohort, windows_per_update
from ablate.learn.transitions import transitions
from ablate.models.layouts import Layout
from ablate.models.match import Matched, parameters_at, solve_width
from ablate.models.policy import Policy, build, flops_per_target
from ablate.models.spec import ModelSpec
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
    """Everything the seeds of a cell share: its data, how they are read, and a model of matched size.

    trained: the part of the training set that is learned from (see `train.keep`).
    """

    config: Config
    data: DataSet
    trained: Trajectories
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

    def actor(self, policies: Sequence[Policy]) -> Agent:
        """The same as it acts: with the context and the state of the evaluation."""
        settings = self.config["evaluate"]
        context = settings["context"] or self.config["context"]
        stack = Stack([at_context(policy, context) for policy in policies])
        return Agent(stack, self.layout, self.scales, context, settings["state"])

    def source(self, agent: Agent) -> Source:
        """What the trainer reads: the training set as tokens of `agent`."""

        def read(trajectories: Trajectories) -> tuple[torch.Tensor, torch.Tensor]:
            data = stored(trajectories, self.layout, self.device)
            return agent.tokens(data.fields), data.timestep

        table, timestep = read(self.trained)
        algorithm = registry.get("algorithm", self.config["algorithm"])
        return Source(
            table=table,
            timestep=timestep,
            actions=torch.from_numpy(self.trained.actions).to(self.device),
            visible=agent.visible,
            transitions=transitions(self.trained, read, self.device)
            if algorithm.transitions
            else None,
        )


def prepare(config: Config, cache: Path, device: str = "cpu") -> Cell:
    """Load the data, lay out the tokens and solve the mixer's width for the declared parameter count.

    Raises UserError for a data set that cannot be had or a width that cannot be matched.
    """
    config = complete(config)
    data = catalogue.load(config["data"], cache)
    horizon = data.spec.make_env(1).horizon
    layout = Layout(
        observation_dim=data.train.observations.shape[1],
        action_dim=data.train.actions.shape[1],
        policies=data.spec.num_policies,
        history=config["history"],
        condition=config["condition"],
        goal=data.spec.shown_goal if "goal" in config["condition"] else (),
        timesteps=config["model"]["timesteps"] > 0,
    )
    if config["condition"] == "policy-id" and layout.policies == 0:
        raise UserError(
            f"condition policy-id: {config['data']} does not record which policy acted."
        )
    if "goal" in config["condition"] and not layout.goal:
        raise UserError(f"condition {config['condition']}: {config['data']} shows no goal's place.")
    model = ModelSpec.of(config, layout)
    if model.width:
        count = parameters_at(model, model.width)
        matched = Matched(model.width, count, 0.0)
    else:
        matched = solve_width(model, config["model"]["parameters"], config["model"]["tolerance"])
    # By the whole training set also where only the best of it is learned from (Chen et al. 2021).
    scales = fit_scales(data.train, horizon)
    if config["train"]["return_scale"] is not None:
        scales = replace(scales, return_to_go=config["train"]["return_scale"])
    return Cell(
        config=config,
        data=data,
        trained=best(data.train, config["train"]["keep"], config["train"]["keep_by"]),
        layout=layout,
        scales=scales.to(device),
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
        cell.config["algorithm"],
        cell.config["settings"],
    )
    for place, state in enumerate(agent.stack.state_dicts()):
        cohort.policies[group[place]].load_state_dict(state)
        outcome = cohort.outcomes[group[place]]
        outcome.curve = [rows[place] for _, rows in result.points]
        outcome.failure = result.diverged.get(place, "")
        outcome.seconds = (time.process_time() - began) / len(group)


def evaluate(cell: Cell, cohort: Cohort) -> None:
    """Score the last checkpoint of every seed: rollouts in the environment and held-out prediction."""
    target = target_return(cell.data, cell.config["evaluate"]["target"])
    rollouts = act(cell, cohort.policies, cohort.study, cohort.seeds, target)
    predicted = held_out_metrics(cell.agent(cohort.policies), cohort.held)
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


def act(
    cell: Cell,
    policies: Sequence[Policy],
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
