"""Supervised training of one cohort: S policies that differ only in seed, updated together.

AdamW (Loshchilov & Hutter 2019) with linear warm-up and a constant or cosine schedule, gradients clipped to
a norm for each policy by itself. A policy whose loss is no longer finite, or has grown a thousandfold, is
diverged: its last good parameters are kept and the others train on.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ablate import streams
from ablate.data.windows import BLOCK, draw_targets, gather_windows
from ablate.learn.checkpoint import Trained, load_training_state, save_training_state
from ablate.models.stack import Stack

DIVERGED = 1e3  # a loss this many times its first value has diverged
SAVE_EVERY = 60.0  # seconds between training states on disk


@dataclass(frozen=True)
class Source:
    """What the trainer reads: tokens (T, F), timestep (T,), actions (T, M), visibility mask (K+1, K, F)."""

    table: Tensor
    timestep: Tensor
    actions: Tensor
    visible: Tensor

    @property
    def context(self) -> int:
        """K, timesteps a window holds at most."""
        return self.visible.shape[1]


def learning_rate(update: int, train: dict[str, Any]) -> float:
    """Learning rate of update 0, 1, ...: linear warm-up, then constant or half a cosine down to zero."""
    peak, warmup = train["learning_rate"], train["warmup"]
    if update < warmup:
        return peak * (update + 1) / warmup
    if train["schedule"] == "constant":
        return peak
    progress = (update - warmup) / max(1, train["updates"] - warmup)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))


def windows_per_update(train: dict[str, Any], context: int) -> int:
    """Windows of an update: one a target, or with loss on all positions as many as hold the targets."""
    targets: int = train["targets_per_update"]
    return targets if train["loss"] == "last" else max(1, round(targets / context))


def train_cohort(
    stack: Stack,
    source: Source,
    train: dict[str, Any],
    study: str,
    seeds: Sequence[int],
    points: Sequence[int],
    on_point: Callable[[int, Tensor], Any],
    resume: Path | None = None,
) -> Trained:
    """Train in place. `on_point(update, mean training loss since the last point (S,))` is called at `points`.

    Supervised targets per update are `train["targets_per_update"]` in every variant: one window a target
    with loss on its last position ("last"), or targets / K windows with loss on all positions ("all").
    What it returns, plain JSON, is kept in the result. With `resume`, the training state is saved there
    about once a minute and at the end, and taken up from there.
    """
    parameters = stack.parameters()
    optimiser = torch.optim.AdamW(
        parameters,
        lr=train["learning_rate"],
        weight_decay=train["weight_decay"],
        fused=True,
    )
    result = Trained()
    device = source.table.device
    everywhere = train["loss"] == "all"
    windows = windows_per_update(train, source.context)
    total, count = torch.zeros(stack.size, device=device), 0
    first_loss: Tensor | None = None
    start = 0
    if resume is not None and resume.exists():
        start, first_loss = load_training_state(resume, stack, optimiser, seeds, result)
    # A state is saved right after diverged policies were put back: what was loaded is good.
    good = [parameter.detach().clone() for parameter in parameters]
    saved = time.monotonic()
    autocast = (
        torch.autocast(device.type, dtype=torch.bfloat16)
        if train["precision"] == "bfloat16"
        else contextlib.nullcontext()
    )
    targets = torch.empty(0)
    for update in range(start, train["updates"]):
        stack.train()  # a point's evaluation has switched dropout off
        if update % BLOCK == 0 or update == start:
            block = update // BLOCK
            drawn = [draw_targets(study, s, block, windows, len(source.actions)) for s in seeds]
            targets = torch.stack([torch.from_numpy(d) for d in drawn], dim=1).to(device)
        # At every update, so that a resumed training draws the same masks wherever it starts.
        torch.manual_seed(streams.entropy(study, seeds[0], f"dropout/{update}") % (1 << 63))
        ends = targets[update % BLOCK]  # (S, B)
        features, rows, lengths = gather_windows(
            source.table, source.timestep, source.visible, ends
        )  # (S, B, K, F)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(update, train)
        optimiser.zero_grad(set_to_none=True)
        with autocast:
            if everywhere:
                mask = torch.arange(source.context, device=device) < lengths.unsqueeze(-1)
                params = stack(features, mask, method="everywhere")  # (S, B, K, P)
                each = stack.head.loss(params, source.actions[rows])  # (S, B, K)
                loss = (each * mask).sum((1, 2)) / mask.sum((1, 2))  # (S,)
            else:
                params = stack(features, lengths)  # (S, B, P)
                loss = stack.head.loss(params, source.actions[ends]).mean(1)  # (S,)
        # The sum over policies: the gradient of each is that of its own loss.
        loss.sum().backward()
        stack.clip_(train["clip"])
        optimiser.step()
        detached = loss.detach()
        total, count = total + detached, count + 1
        if update + 1 in points or (update + 1) % BLOCK == 0:
            first_loss = detached.clone() if first_loss is None else first_loss
            _set_aside_diverged(stack, detached, first_loss, update, good, result)
        if update + 1 in points:
            mean = total / count
            result.points.append((update + 1, on_point(update + 1, mean.cpu())))
            total, count = torch.zeros_like(total), 0
        # Only at a point, so that the running mean of the loss needs no place in the saved state.
        due = update + 1 == train["updates"] or time.monotonic() - saved > SAVE_EVERY
        if resume is not None and count == 0 and due:
            save_training_state(resume, stack, optimiser, seeds, update + 1, first_loss, result)
            saved = time.monotonic()
    stack.eval()
    return result


def _set_aside_diverged(
    stack: Stack,
    loss: Tensor,
    first_loss: Tensor,
    update: int,
    good: list[Tensor],
    result: Trained,
) -> None:
    """Note newly diverged policies; put the last good parameters of every diverged one back."""
    limit = DIVERGED * first_loss.abs().clamp(min=1.0)
    bad = ~torch.isfinite(loss) | (loss > limit)
    # A finite loss may have a gradient that isn't; what it made of the parameters is not to be kept.
    for parameter in stack.parameters():
        finite = torch.isfinite(parameter.detach())
        bad = bad | ~(finite.all()[None] if stack.size == 1 else finite.flatten(1).all(1))
    for index in torch.nonzero(bad).flatten().tolist():
        if index not in result.diverged:
            result.diverged[index] = (
                f"diverged: loss {float(loss[index]):.3g} at update {update + 1}"
            )
    with torch.no_grad():
        for parameter, kept in zip(stack.parameters(), good, strict=True):
            # One replica has no leading dimension; give it one, so that both read alike.
            now, last = (parameter[None], kept[None]) if stack.size == 1 else (parameter, kept)
            for index in range(stack.size):
                source, goal = (last, now) if index in result.diverged else (now, last)
                goal[index].copy_(source[index])
