"""The audit of a joint model: what does the prediction of each slot of a trajectory depend on?

Rows are made up in the model's own units. No prediction may depend on its own slot or a later one, on other windows
of the batch or, where values are masked, on a value; the first number of the action has to depend on all that its
window holds before it, and on what the sequence is told first; and what the mixer carries from token to token
(`Mixer.step`, or attention's keys and values) has to give what a window gives.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ablate.audit.result import SHAPES, Audit
from ablate.data import streams
from ablate.models.assembly import Model
from ablate.plan.imagine import Imagination

LONGEST = 8  # timesteps: what holds for every lag of a window this long holds for longer ones
TOLERANCE = 1e-9  # relative change below which nothing has changed
FIELDS = ("observation", "action", "reward")


class Window:
    """A model and two draws of one window."""

    def __init__(self, model: Model, context: int) -> None:
        self.model, self.spec = model, model.spec
        self.slots, self.first = self.spec.slots, self.spec.observation_dim
        length = min(LONGEST, context)
        reach = (model.mixer.reach - model.ahead + model.embed.hidden) // model.embed.per_step
        self.reach = max(1, reach)  # timesteps
        heads = model.head
        drawn = streams.stream("audit", 0, "joint").normal(size=(2, length, self.slots))
        # Every altered number must leave its bin: the two draws lie on either side of the middle.
        size, sign = np.abs(drawn[0]) + 0.7, np.where(drawn[1] > 0, 1.0, -1.0)
        made = torch.from_numpy(np.stack([sign * size, -sign * size])).to(heads.mean)
        self.base, self.other = heads.mean + heads.std * made  # (L, D) each
        self.told: Tensor | None = None
        if model.ahead:
            self.told = model.told_mean + 0.5 * model.told_std[None]

    @property
    def length(self) -> int:
        """L."""
        return len(self.base)

    def shown(self, batch: int, shift: float = 0.0) -> Tensor | None:
        """What `batch` windows are told first, (B, P)."""
        return None if self.told is None else (self.told + shift).expand(batch, -1)

    @torch.no_grad()
    def predict(self, rows: Tensor, shift: float = 0.0) -> Tensor:
        """What each slot's head says (B, L, D, P) of windows (B, L, D)."""
        features = self.model.features(rows, self.shown(len(rows), shift))
        found: Tensor = self.model.head.each(features, rows, "number")
        return found.nan_to_num(neginf=0.0)

    @torch.no_grad()
    def act(self, rows: Tensor) -> Tensor:
        """The same of the first number of the last timestep's action (B, P), from what is carried."""
        now = rows[:, -1, : self.first]
        made = Imagination(self.model, rows[:, :-1], now, None, self.shown(len(rows)))
        head, m = self.model.head.at[self.first]
        found: Tensor = self.model.head.heads[head].number(made.parameters().flatten(0, -2), m)
        return found.nan_to_num(neginf=0.0)

    def altered(self) -> Tensor:
        """(L D, L, D): copies of the base with one slot of one row from the other draw."""
        copies = self.base.repeat(self.length * self.slots, 1, 1)
        row, slot = np.divmod(np.arange(self.length * self.slots), self.slots)
        copies[np.arange(len(copies)), row, slot] = self.other[row, slot]
        return copies

    def slope(self) -> np.ndarray:
        """Derivatives of the feature that chooses the action by each token, (L, tokens a timestep).

        They show what is too faint for an alteration: a recurrence forgets geometrically.
        """
        model, n = self.model, self.model.embed.per_step
        with torch.no_grad():
            tokens = model.tokens(model.encode(self.base[None]))
        tokens.requires_grad_()
        features = model.mix(tokens, self.shown(1))
        own = next(token for token, held in enumerate(model.head.stream) if self.first in held)
        before = (self.length - 1) * n + (own - 1 if n > 1 else 0)
        weights = torch.linspace(-1.0, 1.0, features.shape[-1]).to(features)
        (found,) = torch.autograd.grad((features[0, before] * weights).sum(), tokens)
        size = np.zeros(self.length * n)
        size[: found.shape[1]] = found[0].abs().sum(-1).cpu().numpy()
        return size.reshape(self.length, n)


def examine(model: Model, result: Audit, context: int) -> None:
    """Fill in what the model's predictions depend on, and what is wrong with that."""
    lab = Window(model, context)
    length, slots, first = lab.length, lab.slots, lab.first
    result.lags = tuple(range(length))
    result.declared = {
        name: list(range(name != "observation", min(length, lab.reach))) for name in FIELDS
    }
    free = {name: list(range(name != "observation", length)) for name in FIELDS}
    result.allowed = dict.fromkeys(SHAPES, free)
    rows = torch.cat([lab.base[None], lab.altered()])
    params = lab.predict(rows)  # (1 + L D, L, D, P)
    shown = model.head.predicted(length)  # (L, D)
    spread = params[0][shown].square().mean().sqrt().clamp(min=1e-12)
    change = ((params[1:] - params[:1]).abs().amax(-1) / spread).cpu().numpy()
    change = change.reshape(length, slots, length, slots)  # altered row, slot; predicted row, slot
    change[:, :, ~shown.cpu().numpy()] = 0.0
    order = np.arange(length * slots).reshape(length, slots)
    early = order[None, None] <= order[:, :, None, None]
    if (change[early] > TOLERANCE).any():
        result.findings.append(
            "future (training): a prediction depends on its own slot or on one that comes later."
        )
    values = change[:, -1][:, :, first : first + lab.spec.action_dim]
    if lab.spec.value_mask and (values > TOLERANCE).any():
        result.findings.append("undeclared (training): an action depends on a value.")
    held = {
        "observation": slice(0, first),
        "action": slice(first, slots - 2),
        "reward": slice(slots - 2, slots - 1),
    }
    acted, slope = lab.act(rows), lab.slope()
    moved = ((acted[1:] - acted[:1]).abs().amax(-1) / spread).cpu().numpy().reshape(length, slots)
    for name in FIELDS:
        by_shape = {}
        for shape, of in zip(SHAPES, (change[:, :, -1, first], moved), strict=True):
            each = of[:, held[name]].reshape(length, -1).max(1)[::-1]  # by lag
            faint = np.minimum(_slope_of(lab, slope, held[name])[::-1], TOLERANCE)
            by_shape[shape] = np.where(each > TOLERANCE, each, faint).tolist()
            seen = {lag for lag in result.lags if by_shape[shape][lag]}
            if missing := sorted(set(result.declared[name]) - seen):
                result.findings.append(
                    f"blind ({shape}): no influence of {name} at lags {missing}."
                )
            if extra := sorted(lag for lag in seen - set(free[name]) if each[lag] > TOLERANCE):
                result.findings.append(
                    f"undeclared ({shape}): the action depends on {name} at lags {extra}."
                )
            for lag in set(result.lags) - set(free[name]):
                by_shape[shape][lag] = each[lag] if each[lag] > TOLERANCE else 0.0
        result.receptive[name] = by_shape
    alone = params[:1]
    mixed = lab.predict(torch.stack([lab.base, lab.other]))[:1]
    if float((mixed - alone).abs().max() / spread) > TOLERANCE:
        result.findings.append("batch (training): a window depends on the other windows.")
    if lab.told is not None:
        told = (lab.predict(lab.base[None], shift=1.0) - alone).abs().amax(-1)[0]
        if float(told[shown].max() / spread) <= TOLERANCE:
            result.findings.append(
                f"condition-ignored (training): no influence of {result.condition}."
            )
    if float((acted[0] - params[0, -1, first]).abs().max() / spread) > 1e-6:
        result.findings.append(
            "paths-differ (step): what the mixer carries does not give what the window gives."
        )


def _slope_of(lab: Window, slope: np.ndarray, held: slice) -> np.ndarray:
    """The derivative by the tokens that hold some slots of a row, (L,)."""
    wanted = set(range(lab.slots)[held])
    if slope.shape[1] == 1:  # what was done in a timestep is told with the next observation
        here = slope[:, 0]
        return here if 0 in wanted else np.append(here[1:], 0.0)
    holding = [bool(wanted & set(slots)) for slots in lab.model.head.stream]
    return slope[:, holding].max(1)
