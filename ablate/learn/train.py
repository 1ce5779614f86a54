"""Training of one cohort: S policies that differ only in seed, updated together by one algorithm.

The loop is the same for every algorithm (`ablate.learn.objective`): targets drawn from a stream that no variant
can touch, a learning rate with linear warm-up and a constant or cosine schedule, points of the learning curve,
training states on disk. A policy whose loss is no longer finite, or has grown a thousandfold, is diverged: its
last good parameters are kept and the others train on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablate.data import streams
from ablate.data.windows import BLOCK, draw_targets
from ablate.learn.checkpoint import Trained, load_training_state, save_training_state
from ablate.learn.objective import Batch, Objective, Source, TrainingData, learning_rate
from ablate.models.stack import Stack
from ablate.registry import get

__all__ = ["Source", "Trained", "learning_rate", "train_cohort", "windows_per_update"]

SAVE_EVERY = 60.0  # seconds between training states on disk


class Left(KeyboardInterrupt):
    """A training was asked to leave; its state has been saved."""


def windows_per_update(train: Mapping[str, Any], context: int) -> int:
    """Windows of an update: one a target, or with loss on all positions as many as hold the targets."""
    return max(1, round(train["targets_per_update"] / targets_per_window(train, context)))


def targets_per_window(train: Mapping[str, Any], context: int) -> int:
    """Supervised positions of a full window; one at an episode's start holds fewer."""
    if train["loss"] == "last":
        return 1
    return context - min(train.get("least_visible", 1), context) + 1


def train_cohort(
    stack: Stack,
    source: TrainingData,
    train: dict[str, Any],
    study: str,
    seeds: Sequence[int],
    points: Sequence[int],
    on_point: Callable[[int, Tensor], Any],
    resume: Path | None = None,
    algorithm: str = "bc",
    settings: Mapping[str, Any] | None = None,
    keep: tuple[Sequence[int], Callable[[int], None]] | None = None,
    leave: Callable[[], bool] = lambda: False,
) -> Trained:
    """Train in place. `on_point(update, mean training loss since the last point (S,))` is called at `points`.

    Targets per update are `train["targets_per_update"]` in every variant and for every algorithm: one window a
    target with loss on its last position ("last"), or targets / K windows with loss on all positions ("all").
    What `on_point` returns, plain JSON, is kept in the result. With `resume`, the training state is saved there
    about once a minute and at the end, and taken up from there. keep: updates after which a function is called
    to keep the parameters (once more for the last where a finished training is taken up). leave: asked after each
    update; once it says so the state is saved, if there is a place for it, and Left raised. Raises UserError for an
    unknown algorithm, or settings, a head or a loss that it doesn't have.
    """
    made = get("algorithm", algorithm)(stack, source, train, settings or {}, study, seeds)
    objective: Objective = made
    result = Trained()
    device = source.table.device
    total, count = torch.zeros(stack.size, device=device), 0
    first_loss: Tensor | None = None
    start = 0
    between: dict[str, Tensor] = {}  # what a state saved between two points holds beside
    if resume is not None and resume.exists():
        start, first_loss, between = load_training_state(resume, objective, seeds, result)
    # A state at a point is saved right after diverged policies were put back: what was loaded is good.
    aside = Aside(stack, result)
    if between:
        total, count = between["total"].to(device), int(between["count"])
        aside.good = [between[f"good/{i}"].to(device) for i in range(len(aside.good))]
    saved = time.monotonic()
    # What is drawn here is drawn from named streams: the default generators are left as they were.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for update, loss in updates(objective, start, train["updates"]):
            total, count = total + loss, count + 1
            if update + 1 in points or (update + 1) % BLOCK == 0:
                first_loss = loss.clone() if first_loss is None else first_loss
                limit = objective.growth * first_loss.abs().clamp(min=1.0)
                aside.put(loss, limit, update)
            if update + 1 in points:
                aside.tell()
                mean = total / count
                result.points.append((update + 1, on_point(update + 1, mean.cpu())))
                total, count = torch.zeros_like(total), 0
            if keep is not None and update + 1 in keep[0]:
                keep[1](update + 1)
            leaves = leave()
            due = update + 1 == train["updates"] or time.monotonic() - saved > SAVE_EVERY
            if resume is not None and (due or leaves):
                aside.tell()
                between = {}
                if count:
                    between = {"total": total, "count": torch.tensor(count)}
                    between |= {f"good/{i}": each for i, each in enumerate(aside.good)}
                save_training_state(
                    resume, objective, seeds, update + 1, first_loss, result, between
                )
                saved = time.monotonic()
            if leaves:
                raise Left
    aside.tell()
    stack.eval()
    if keep is not None and start >= train["updates"]:
        keep[1](train["updates"])
    return result


def updates(objective: Objective, start: int, stop: int) -> Iterator[tuple[int, Tensor]]:
    """Updates start .. stop-1, each done when it is asked for: its number, and each policy's loss before it (S,).

    Nothing of them is read back from the device.
    """
    source, stack, device = objective.source, objective.stack, objective.device
    windows = windows_per_update(objective.train, source.context)
    study, seeds, timesteps = objective.study, objective.seeds, len(source.actions)
    targets = torch.empty(0)
    for update in range(start, stop):
        stack.train()  # a point's evaluation has switched dropout off
        if update % BLOCK == 0 or update == start:
            drawn = [draw_targets(study, s, update // BLOCK, windows, timesteps) for s in seeds]
            targets = torch.from_numpy(np.stack(drawn, axis=1))  # (BLOCK, S, B)
            if device.type == "cuda":
                targets = targets.pin_memory()  # what is pinned is copied while the device works on
            targets = targets.to(device, non_blocking=True)
        # At every update, so that a resumed training draws the same masks wherever it starts.
        streams.seed_default(study, seeds[0], f"dropout/{update}", device)
        yield (
            update,
            objective.update(Batch(update, targets[update % BLOCK]), objective.rate(update)),
        )


class Aside:
    """Puts the last good parameters of diverged policies back, on their device; the host hears of it from `tell`."""

    def __init__(self, stack: Stack, result: Trained) -> None:
        self.stack, self.result = stack, result
        parameters = stack.parameters()
        device = parameters[0].device
        self.good = [parameter.detach().clone() for parameter in parameters]
        self.update = torch.full((stack.size,), -1, device=device)  # of which a policy diverged
        self.loss = torch.zeros(stack.size, device=device)
        for index in result.diverged:
            self.update[index] = 0

    @torch.no_grad()
    def put(self, loss: Tensor, limit: Tensor, update: int) -> None:
        """After an update: loss and limit (S,). Notes newly diverged policies, and keeps or puts back parameters."""
        size = self.stack.size
        bad = ~torch.isfinite(loss) | (loss > limit)
        # A finite loss may have a gradient that isn't; what it made of the parameters is not to be kept.
        # One replica has no leading dimension; give it one, so that both read alike.
        now = [p.detach()[None] if size == 1 else p.detach() for p in self.stack.parameters()]
        for parameter in now:
            bad = bad | ~torch.isfinite(parameter).view(size, -1).all(1)
        new = bad & (self.update < 0)
        self.update.masked_fill_(new, update)
        self.loss.copy_(torch.where(new, loss, self.loss))
        gone = self.update >= 0
        for parameter, good in zip(now, self.good, strict=True):
            kept = good[None] if size == 1 else good
            kept.copy_(torch.where(gone.view(-1, *[1] * (parameter.ndim - 1)), kept, parameter))
            parameter.copy_(kept)

    def tell(self) -> None:
        """Note in the result which policies have diverged, and where."""
        for index, (update, loss) in enumerate(
            zip(self.update.tolist(), self.loss.tolist(), strict=True)
        ):
            if update >= 0 and index not in self.result.diverged:
                self.result.diverged[index] = f"diverged: loss {loss:.3g} at update {update + 1}"
