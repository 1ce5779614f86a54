"""The audit of the joint model: what does the prediction of each slot of a trajectory depend on?

On synthetic rows with fresh weights in double precision, as the audit of policies: no prediction depends on its
own slot or a later one, on other windows of the batch or, where values are masked, on a value; the first number
of the action depends on all that its window holds before it; and the cached way of acting gives what a window
gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablate import streams
from ablate.audit.audit import ACTIONS, OBSERVATIONS, SHAPES, Audit
from ablate.errors import UserError
from ablate.learn.joint import JointSettings, joint_spec
from ablate.models.discretise import Discretiser
from ablate.models.heads import COMPONENTS
from ablate.models.trajectory import TrajectoryModel, TrajectorySpec, build_trajectory_model
from ablate.plan.imagine import Imagination

WIDTH, LAYERS, BINS = 16, 2, 7
LONGEST = 8  # timesteps: what holds for every lag of a window this long holds for longer ones
TOLERANCE = 1e-9  # relative change below which nothing has changed
FIELDS = ("observation", "action", "reward")


def audit_joint(config: Mapping[str, Any]) -> Audit:
    """Audit the joint model that a configuration describes, small and without dropout.

    Errors which the model raises become findings. Raises UserError for a configuration without a model.
    """
    model = config["model"]
    heads = model.get("heads", 1)
    small = {
        **config,
        "context": min(LONGEST, int(config.get("timesteps") or config["context"])),
        "timesteps": 0,
        "model": {**model, "width": WIDTH * heads, "layers": LAYERS, "dropout": 0.0},
        "settings": {**config["settings"], "bins": BINS, "goal": ()},
    }
    spec = joint_spec(small, OBSERVATIONS, ACTIONS)
    settings = JointSettings.model_validate(small["settings"])
    result = Audit(
        mixer=config["mixer"],
        context=spec.window,
        history=config["history"],
        condition=config["condition"],
        head=config["head"],
        lags=tuple(range(spec.window)),
        declared={
            "observation": list(range(spec.window)),
            "action": list(range(1, spec.window)),
            "reward": list(range(1, spec.window)),
        },
    )
    try:
        _examine(_Lab(spec, settings), result)
    except UserError:
        raise
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        result.findings.append(f"does-not-run: {type(error).__name__}: {line}")
    return result


class _Lab:
    """A fresh model and two draws of one window."""

    def __init__(self, spec: TrajectorySpec, settings: JointSettings) -> None:
        self.spec = spec
        drawn = streams.stream("audit", 0, "joint").normal(size=(256, spec.slots))
        bins = None
        if spec.discrete or spec.input == "discretised":
            bins = Discretiser.fit(drawn, BINS, settings.discretiser, settings.repeats)
        made = build_trajectory_model(
            spec, streams.torch_stream("audit", 0, "init"), bins, drawn.mean(0), drawn.std(0)
        )
        self.model: TrajectoryModel = made.double().eval()
        # Every altered number must leave its bin: the two draws lie on either side of the middle.
        size = np.abs(drawn[: spec.window]) + 0.7
        sign = np.where(drawn[-spec.window :] > 0, 1.0, -1.0)
        self.base = torch.from_numpy(sign * size)  # (K, D)
        self.other = torch.from_numpy(-sign * size)

    @torch.no_grad()
    def predict(self, rows: Tensor) -> Tensor:
        """Head parameters (B, K, D, P) of windows (B, K, D)."""
        entries = self.model.encode(rows)
        tokens = None
        if self.model.discretiser is not None:
            tokens = self.model.discretiser.encode(rows)
        return self.model(entries, tokens)

    @torch.no_grad()
    def act(self, rows: Tensor) -> Tensor:
        """The same of the first number of the last timestep's action (B, P), by the cached way."""
        observation = rows[:, -1, : self.spec.observation_dim]
        made = Imagination(self.model, rows[:, :-1], observation, None)
        found: Tensor = made.parameters()
        return found.flatten(0, -2)

    def altered(self) -> Tensor:
        """(K D, K, D): copies of the base with one slot of one row from the other draw."""
        length, slots = self.base.shape
        copies = self.base.repeat(length * slots, 1, 1)
        row, slot = np.divmod(np.arange(length * slots), slots)
        copies[np.arange(len(copies)), row, slot] = self.other[row, slot]
        return copies


def _examine(lab: _Lab, result: Audit) -> None:
    spec, (length, slots) = lab.spec, lab.base.shape
    first = spec.observation_dim
    rows = torch.cat([lab.base[None], lab.altered()])
    params = lab.predict(rows)  # (1 + K D, K, D, P)
    shown = lab.model.predicted(length)  # (K, D)
    spread = params[0][shown].square().mean().sqrt().clamp(min=1e-12)
    change = ((params[1:] - params[:1]).abs().amax(-1) / spread).numpy()
    change = change.reshape(length, slots, length, slots)  # altered row, slot; predicted row, slot
    change[:, :, ~shown.numpy()] = 0.0
    order = np.arange(length * slots).reshape(length, slots)
    early = order[None, None] <= order[:, :, None, None]
    if (change[early] > TOLERANCE).any():
        result.findings.append(
            "future (training): a prediction depends on its own slot or on one that comes later."
        )
    values = change[:, -1][:, :, first : first + spec.action_dim]
    if spec.value_mask and (values > TOLERANCE).any():
        result.findings.append("undeclared (training): an action depends on a value.")
    slices = {
        "observation": slice(0, first),
        "action": slice(first, slots - 2),
        "reward": slice(slots - 2, slots - 1),
    }
    acted = lab.act(rows)
    moved = ((acted[1:] - acted[:1]).abs().amax(-1) / spread).numpy().reshape(length, slots)
    for name in FIELDS:
        by_shape = {}
        for shape, of in zip(SHAPES, (change[:, :, -1, first], moved), strict=True):
            each = of[:, slices[name]].reshape(length, -1).max(1)[::-1]  # by lag
            by_shape[shape] = np.where(each > TOLERANCE, each, 0.0).tolist()
            seen = {lag for lag in result.lags if by_shape[shape][lag]}
            wanted = set(result.declared[name])
            if missing := sorted(wanted - seen):
                result.findings.append(
                    f"blind ({shape}): no influence of {name} at lags {missing}."
                )
            if extra := sorted(seen - wanted):
                result.findings.append(
                    f"undeclared ({shape}): the action depends on {name} at lags {extra}."
                )
        result.receptive[name] = by_shape
    mixed = lab.predict(torch.stack([lab.base, lab.other]))[0]
    alone = lab.predict(lab.base[None])[0]
    if float((mixed - alone).abs().max() / spread) > TOLERANCE:
        result.findings.append("batch (training): a window depends on the other windows.")
    window, cached = params[0, -1, first], acted[0]
    if spec.head == "mixture":  # the same weights, normalised or not
        window, cached = (
            torch.cat([each[: 2 * COMPONENTS], each[2 * COMPONENTS :].log_softmax(-1)])
            for each in (window, cached)
        )
    if float((cached - window).abs().max() / spread) > 1e-6:
        result.findings.append("shapes: acting with a cache differs from the window.")
