"""From a configuration to numbers: fit models, and measure them.

This page is the method section. `fit` prepares data and model and trains the seeds of a cell, keeping a
checkpoint at every declared budget; `measure` does one thing to the models of a budget and gives its
responses. The rooms that they call hold the details.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablate import registry
from ablate.config import budgets, settled
from ablate.errors import UserError
from ablate.learn.checkpoint import described, load_policy, put, save_policy
from ablate.learn.convergence import loss_fall
from ablate.learn.train import train_cohort
from ablate.measure.base import Measured, Trained, split
from ablate.systems import System, prepare

CURVE_TARGETS = 512

__all__ = ["Fitted", "Watch", "checkpoint", "fit", "measure", "prepare", "stacked", "trained"]


@dataclass
class Fitted:
    """What became of one fit: its numbers, or why it failed; its learning curve; CPU seconds."""

    metrics: dict[str, float] = field(default_factory=dict)
    failure: str = ""
    curve: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Watch:
    """Who wants to hear of a fit: `progress(fraction)`, and `on_point(index, row)` for each point of each curve.
    Asked after each update, `leave` says whether the training is to save its state and end (`learn.train.Left`)."""

    progress: Callable[[float], None] = lambda fraction: None
    on_point: Callable[[int, dict[str, float]], None] = lambda index, row: None
    leave: Callable[[], bool] = lambda: False


def checkpoint(folder: Path, fit: str, budget: int) -> Path:
    """Where the model of a fit after `budget` updates is kept."""
    return folder / fit / f"{budget}.safetensors"


def fit(
    system: System,
    streams: str,
    fits: dict[int, str],
    folder: Path,
    *,
    stacked: bool,
    resume: Path | None = None,
    watch: Watch | None = None,
) -> list[Fitted]:
    """Train one cell for every seed; one result a seed, in order, and checkpoints in `folder`.

    streams: names the random streams. fits: seed -> the fit's id. stacked: train the seeds as one program,
    or one after another; the results agree to rounding. resume: the folder in which the state of an
    interrupted training is kept.
    """
    watch = watch or Watch()
    seeds = list(fits)
    models = [system.model(streams, seed) for seed in seeds]
    held = system.held(streams, models)
    train, found, sizes = system.config["train"], [Fitted() for _ in seeds], system.sizes()
    groups = [list(range(len(seeds)))] if stacked else [[i] for i in range(len(seeds))]
    shown = {round(train["updates"] * (i + 1) / train["points"]) for i in range(train["points"])}
    for number, group in enumerate(groups):
        mine = [seeds[i] for i in group]
        program = system.program([models[i] for i in group])
        began = time.process_time()
        before = system.predict(program, held, CURVE_TARGETS)  # of the untrained models

        def keep(update: int, group: list[int] = group, program: Any = program) -> None:
            for place, state in zip(group, program.stack.state_dicts(), strict=True):
                path = checkpoint(folder, fits[seeds[place]], update)
                about = system.config | {"study": streams, "seed": seeds[place], "budget": update}
                save_policy(path, state, about | {"width": system.matched.width})

        def on_point(
            update: int,
            loss: torch.Tensor,
            group: list[int] = group,
            program: Any = program,
            number: int = number,
        ) -> list[dict[str, float]]:
            metrics = system.predict(program, held, CURVE_TARGETS)
            rows = []
            for place, index in enumerate(group):
                row = {"update": float(update), "train_loss": float(loss[place])}
                row |= {name: float(value[place]) for name, value in metrics.items()}
                rows.append(row)
                watch.on_point(index, row)
            watch.progress((number + update / train["updates"]) / len(groups))
            return rows

        result = train_cohort(
            program.stack,
            system.source(program),
            train,
            streams,
            mine,
            sorted({*shown, train["updates"]}),
            on_point,
            None if resume is None else resume / f"training-{mine[0]}.safetensors",
            system.config["algorithm"],
            system.config["settings"],
            keep=(budgets(system.config), keep),
            leave=watch.leave,
        )
        for place, index in enumerate(group):
            found[index].curve = [rows[place] for _, rows in result.points]
            found[index].failure = result.diverged.get(place, "")
            untrained = {name: float(value[place]) for name, value in before.items()}
            found[index].metrics = sizes | {"loss_fall": loss_fall(found[index].curve, untrained)}
            found[index].seconds = (time.process_time() - began) / len(group)
    return found


def trained(
    system: System, streams: str, fits: dict[int, str], folder: Path, budget: int
) -> Trained:
    """The models of these fits after `budget` updates, from their checkpoints.

    Raises UserError when a checkpoint is missing, damaged, or that of another fit.
    """
    models = []
    for seed, name in fits.items():
        path = checkpoint(folder, name, budget)
        tensors, about = load_policy(path)
        said = described(path, tensors, about)
        if (said.streams, said.seed, said.budget) != (streams, seed, budget) or (
            settled(said.config) != settled(system.config)
        ):
            raise UserError(f"{path}: holds the model of another fit; delete it to train this one.")
        model = system.model(streams, seed)
        put(path, tensors, model)
        models.append(model.eval())
    return Trained(system, models, streams, list(fits), budget)


def measure(models: Trained, name: str, options: dict[str, Any]) -> list[Measured]:
    """Do one thing to the models of a cell: a registered measurement under the given options.

    Raises UserError for options that it doesn't have, or a response that it doesn't give.
    """
    made = registry.get("measurement", name)()
    found = made(models, made.Options.model_validate(options))
    return split(name, made, found, len(models.models))


def stacked(system: System, seeds: int) -> bool:
    """Whether so many seeds of a cell train as one program or one by one.

    Both ways agree to rounding only, so it is a rule, the same on every machine: by the mixer and the size of
    the model, as measured once (`Mixer.stacks`). With dropout the ways agree in distribution only, so each
    seed trains by itself.
    """
    mixer = registry.get("mixer", system.config["mixer"])
    small = system.sizes()["parameters"] <= mixer.stacks
    return seeds > 1 and system.stacks and small and not system.config["model"]["dropout"]


def pace(system: System, streams: str, seeds: Sequence[int]) -> float:
    """Seconds an update and seed in the way in which the seeds train, measured on this device.

    CPU time on a CPU, which other programs disturb least; elapsed time on a GPU.
    """
    train = system.config["train"] | {"updates": 6, "warmup": 1}
    mine = list(seeds) if stacked(system, len(seeds)) else list(seeds[:1])
    program = system.program([system.model(streams, seed) for seed in mine])
    marks: list[float] = []

    def mark(update: int, loss: torch.Tensor) -> None:
        if system.device.type == "cuda":
            torch.cuda.synchronize(system.device)
        cpu = system.device.type == "cpu"
        marks.append(time.process_time() if cpu else time.perf_counter())

    train_cohort(
        program.stack,
        system.source(program),
        train,
        streams,
        mine,
        range(1, 7),
        mark,
        algorithm=system.config["algorithm"],
        settings=system.config["settings"],
    )
    # The first updates pay for allocation and tracing; the fastest of the rest is the machine's pace.
    return float(np.diff(marks)[1:].min()) / len(mine)
