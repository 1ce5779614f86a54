"""Prediction on held-out episodes: action error and action log-likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ablate.data import streams
from ablate.data.trajectories import Trajectories, action_variance, wanted_actions
from ablate.models.agent import Agent, stored
from ablate.models.layouts import Layout

EARLY = 8  # timesteps 0..7, where history has told least: the pilot's window of reference/science
CHUNK = 2048  # targets encoded at once, in contexts up to LONG
LONG = 512
TIMESTEPS = 1 << 18  # of longer contexts, encoded at once


@dataclass(frozen=True)
class HeldOut:
    """A fixed sample of held-out targets, the same in every cell, in the shape the agent reads."""

    table: Tensor  # (T, F)
    timestep: Tensor  # (T,)
    logged: Tensor  # (T, M)
    wanted: Tensor  # (T, M): noise-free action of the acting controller, else the logged action
    variance: float  # of `wanted`, mean over action dimensions
    targets: Tensor  # (B,)
    early: Tensor  # (B,) bool


def held_out(
    trajectories: Trajectories, agent: Agent, layout: Layout, study: str, targets: int
) -> HeldOut:
    """Draw `targets` held-out timesteps without replacement (all of them where there are fewer)."""
    device = agent.device
    generator = streams.stream(study, 0, "held-out")
    timestep = trajectories.timestep
    everywhere = generator.permutation(len(timestep))[:targets]
    data = stored(trajectories, layout, device)
    wanted = wanted_actions(trajectories)
    chosen = np.sort(everywhere)
    return HeldOut(
        table=agent.tokens(data.fields),
        timestep=data.timestep,
        logged=torch.from_numpy(trajectories.actions).to(device),
        wanted=torch.from_numpy(wanted).to(device),
        variance=action_variance(trajectories),
        targets=torch.from_numpy(chosen).to(device),
        early=torch.from_numpy(timestep[chosen] < EARLY).to(device),
    )


@torch.no_grad()
def held_out_metrics(agent: Agent, data: HeldOut, limit: int | None = None) -> dict[str, Tensor]:
    """Metrics (S,) over all targets, or over an even stride through them that keeps about `limit`.

    action_error: mean over targets and action dimensions of the squared difference between the head's mean
    and the acting controller's noise-free action, as a fraction of that action's variance (so that data
    sets compare: 0 is perfect, 1 is no better than the mean action); action_error_early: the same at
    timesteps 0..7, by the same variance;
    action_nll: negative log density of the logged action per timestep (NaN for a head without density);
    heldout_loss: the training loss on held-out targets.
    """
    agent.stack.eval()
    size, head = agent.stack.size, agent.stack.head
    # An even stride, so that a short sample still covers every part of the episodes.
    stride = 1 if limit is None else max(1, len(data.targets) // limit)
    targets, early = data.targets[::stride], data.early[::stride]
    errors, nll, losses = [], [], []
    for part in torch.split(targets, _chunk(agent.context)):
        features, lengths = agent.windows(data.table, data.timestep, part.expand(size, -1))
        params = agent.stack(features, lengths)  # (S, B, P)
        logged = data.logged[part].expand(size, -1, -1)
        errors.append(((head.mean(params) - data.wanted[part]) ** 2).mean(-1))
        losses.append(head.loss(params, logged))
        if head.density:
            nll.append(-head.log_prob(params, logged))
    error = torch.cat(errors, 1)  # (S, B)
    undefined = torch.full((size,), float("nan"), device=error.device)
    return {
        "action_error": _mean(error) / data.variance,
        "action_error_early": _mean(error[:, early]) / data.variance
        if bool(early.any())
        else undefined,
        "action_nll": _mean(torch.cat(nll, 1)) if nll else undefined,
        "heldout_loss": _mean(torch.cat(losses, 1)),
    }


def _mean(each: Tensor) -> Tensor:
    """(S, B) -> (S,), summed in double precision."""
    return each.mean(1, dtype=torch.float64).to(each.dtype)


def _chunk(context: int) -> int:
    return CHUNK if context <= LONG else max(1, TIMESTEPS // context)
