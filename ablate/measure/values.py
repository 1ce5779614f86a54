"""What a joint model says that an action is worth, and the measurement `values`: whether the returns that it predicts
are those that followed.

The measurement takes no simulator. What is predicted is the behaviour policy's value, as the data were its: the
discounted sum of the rewards after a timestep, given the window up to its action and reward.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import Field

from ablate.data import streams
from ablate.data.trajectories import Trajectories
from ablate.learn.joint import JointSettings, joint_rows, prefixes
from ablate.measure.base import Measurement, Trained, needs_joint
from ablate.models.assembly import Model, block
from ablate.plan.imagine import imagine
from ablate.registry import Section, register
from ablate.systems.joint import JointSystem
from ablate.words import Response

CHUNK = 256  # windows encoded at once


@register("measurement", "values")
class Values(Measurement):
    """Calibration of the value slot in episodes that no model learned from.

    bias: mean of predicted minus observed. error: root of the mean squared difference. Both over the standard
    deviation of what was observed: an error of 1 is no better than the mean. slope: of the least-squares line of
    observed against predicted, 1 where predictions are as far apart as they should be, less where too far.
    """

    responses = (
        Response("bias", "bias of values", "of the values' deviation"),
        Response("error", "error of values", "of the values' deviation", "lower"),
        Response("slope", "slope of observed against predicted values"),
    )

    class Options(Section):
        """timesteps: how many held-out ones are asked about, or all that there are where there are fewer."""

        timesteps: int = Field(default=1024, ge=2)

    def __call__(self, trained: Trained, options: Any) -> Mapping[str, np.ndarray]:
        """See `Measurement`. NaN where all values that were observed are the same."""
        system, truth = trained.system, trained.system.data.held_out
        settings = JointSettings.model_validate(system.config["settings"])
        table = torch.from_numpy(joint_rows(truth, settings.discount, settings.penalty))
        # As many timesteps before each as there are: windows of one length can be encoded together.
        before = min(system.context - 1, int(truth.timestep.max()))
        rows = np.flatnonzero(truth.timestep >= before)
        drawn = streams.stream(trained.streams, 0, "values").permutation(len(rows))
        rows = np.sort(rows[drawn[: options.timesteps]])
        observed = table[rows, -1].double().numpy()
        found = [self._predicted(model, table, rows, before) for model in trained.models]
        return _calibration(np.array(found), observed)

    @staticmethod
    @torch.no_grad()
    def _predicted(model: Any, table: torch.Tensor, rows: np.ndarray, before: int) -> np.ndarray:
        """Expected values (B,) at `rows`, each told the `before` timesteps before it, its action and reward."""
        spec = model.spec
        cap = None if model.mixer.extends else block(spec)
        made = []
        for part in np.array_split(rows, -(-len(rows) // CHUNK)):
            earlier = table[part[:, None] + np.arange(-before, 0)]  # (B, K-1, D)
            now = table[part].to(model.head.mean)
            running = imagine(model.eval(), earlier.to(now), now[:, : spec.observation_dim], cap)
            running.tell(now[:, None, spec.observation_dim : -1])
            made.append(running.heads.expected(running.parameters(), running.slot)[:, 0])
        return torch.cat(made).double().cpu().numpy()

    @classmethod
    def refusal(cls, config: Mapping[str, Any]) -> str:
        return needs_joint(config, "values", "reads predicted values", asks=False)


@torch.no_grad()
def action_values(
    system: JointSystem, model: Model, trajectories: Trajectories, rows: np.ndarray
) -> np.ndarray:
    """E[r + discount V | the window, the action] (B,) at `rows`, as a model with bins predicts it.

    A value token doesn't count the reward beside it, and is predicted once that is known: so it is averaged over the
    rewards that the model deems possible. The window holds as many timesteps as the context has and the episode had.
    """
    table, _ = system.rows(trajectories)
    told = torch.from_numpy(prefixes(trajectories, system.layout)).to(system.device)
    spec, discount = model.spec, system.settings.discount
    n = spec.observation_dim
    cap = None if model.mixer.extends else block(spec)
    length = np.minimum(trajectories.timestep[rows], system.context - 1)
    found = np.empty(len(rows))
    for before in np.unique(length):
        alike = np.flatnonzero(length == before)
        for part in np.array_split(alike, -(-len(alike) // CHUNK)):
            at = rows[part]
            earlier = table[at[:, None] + np.arange(-before, 0)].to(model.head.mean)  # (B, k, D)
            now = table[at].to(model.head.mean)
            first = told[at - before].to(now) if spec.prefix else None
            running = imagine(model.eval(), earlier, now[:, :n], cap, first)
            running.tell(now[:, None, n:-2])
            heads, slot = running.heads, running.slot
            params = running.parameters()
            reward = heads.expected(params, slot)[:, 0]
            bins = int(heads.bins.used[slot])
            chances = heads.log_probs(params, slot)[:, 0, :bins].exp()  # (B, bins)
            running.branch(bins)
            running.push(torch.arange(bins, device=now.device).expand(len(part), bins))
            after = heads.expected(running.parameters(), running.slot)  # (B, bins)
            value = reward + discount * (chances * after).sum(1)
            found[part] = value.double().cpu().numpy()
    return found


def _calibration(predicted: np.ndarray, observed: np.ndarray) -> dict[str, np.ndarray]:
    """The responses (S,) of predicted (S, B) and observed (B,) values."""
    spread = observed.std()
    with np.errstate(divide="ignore", invalid="ignore"):
        centred = predicted - predicted.mean(1, keepdims=True)
        found = {
            "bias": (predicted - observed).mean(1) / spread,
            "error": np.sqrt(((predicted - observed) ** 2).mean(1)) / spread,
            "slope": (centred * (observed - observed.mean())).sum(1) / (centred**2).sum(1),
        }
    return {n: np.where(np.isfinite(v) & (spread > 0), v, np.nan) for n, v in found.items()}
