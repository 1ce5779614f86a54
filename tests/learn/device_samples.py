"""Small objectives on any device, for what a GPU asks of an update."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ablate.data.windows import Visibility
from ablate.learn.joint import Joint, JointSource
from ablate.learn.objective import Objective, Source, Supervised
from ablate.models.assembly import build
from ablate.models.spec import ModelSpec
from ablate.models.stack import Stack
from ablate.registry import names

MIXERS = names("mixer")
STEPS, EPISODE, OBSERVATIONS, ACTIONS, CONTEXT = 60, 20, 5, 2, 4
TRAIN: dict[str, Any] = {
    "updates": 9,
    "learning_rate": 1e-3,
    "schedule": "constant",
    "warmup": 0,
    "weight_decay": 0.1,
    "clip": 1.0,
    "loss": "last",
    "precision": "float32",
}


def policy(
    mixer: str, seeds: int, device: str = "cpu", loss: str = "last", targets: int = 5, **model: Any
) -> Objective:
    """Behaviour cloning by a stack of fresh policies."""
    sizes = {"width": 8, "layers": 1, "dropout": 0.0} | model
    spec = ModelSpec(mixer, "mixture", CONTEXT, OBSERVATIONS, ACTIONS, **sizes)
    generator = torch.Generator().manual_seed(0)
    stack = Stack([build(spec, generator).to(device) for _ in range(seeds)])
    table = torch.randn(STEPS, OBSERVATIONS, generator=generator)
    actions = torch.rand(STEPS, ACTIONS, generator=generator) * 2 - 1
    timestep = torch.arange(STEPS) % EPISODE
    shown = [True] * OBSERVATIONS
    visible = Visibility.of(CONTEXT, shown, shown, device)
    source = Source(table.to(device), timestep.to(device), actions.to(device), visible)
    train = TRAIN | {"loss": loss, "targets_per_update": targets}
    return Supervised(stack, source, train, {}, "device", list(range(seeds)))


def joint(
    mixer: str, seeds: int, device: str = "cpu", targets: int = 20, **model: Any
) -> Objective:
    """Training of a stack of fresh models of whole trajectories, a token a modality."""
    config: dict[str, Any] = {"mixer": mixer, "head": "categorical", "context": CONTEXT}
    config |= {"layout": "modality", "input": "continuous"}
    config["model"] = {"width": 8, "layers": 1, "dropout": 0.0} | model
    spec = ModelSpec.joint(config, OBSERVATIONS, ACTIONS, bins=7)
    generator = torch.Generator().manual_seed(0)
    rows = np.random.default_rng(0).normal(size=(STEPS, spec.slots)).astype(np.float32)
    stack = Stack([build(spec, generator, rows).to(device) for _ in range(seeds)])
    last = torch.arange(STEPS) // EPISODE * EPISODE + EPISODE - 1
    source = JointSource(
        table=torch.from_numpy(rows).to(device),
        actions=torch.zeros(STEPS, ACTIONS, device=device),
        last=last.to(device),
        stops=(last > EPISODE).to(device),
        told=torch.zeros(STEPS, 0, device=device),
        context=CONTEXT,
    )
    train = TRAIN | {"loss": "all", "targets_per_update": targets}
    return Joint(stack, source, train, {}, "device", list(range(seeds)))  # type: ignore[arg-type]
