"""Open-loop rollouts: what a model of the dynamics imagines for h timesteps from a given beginning.

The same joint models that plan are sampled here without search (Janner et al. 2021, section 4.1), beside
one-step models (`baselines/ensemble.py`), so that long-horizon error can be taken apart: whose actions are
played, how much of the past is seen, and what the model's head is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ablate.data import streams
from ablate.data.normalise import moments
from ablate.data.trajectories import Trajectories
from ablate.errors import UserError
from ablate.measure.base import Measurement, Trained, needs_joint
from ablate.models.agent import External
from ablate.models.assembly import Model, block
from ablate.plan.imagine import Imagination
from ablate.registry import Section, register
from ablate.words import Response


class JointDynamics:
    """A joint model, sampled slot by slot; its window slides where it is full.

    greedy: take the most likely value of each slot instead of drawing one.
    """

    def __init__(self, model: Model, greedy: bool = False) -> None:
        self.model, self.greedy = model.eval(), greedy

    @torch.no_grad()
    def imagine(
        self,
        context: Tensor,
        observation: Tensor,
        horizon: int,
        samples: int,
        actions: Tensor | External | None,
        seed: int,
    ) -> Tensor:
        """`samples` futures (E, samples, h, N) of E beginnings: observations 1 .. h timesteps ahead.

        context: (E, L, D) raw rows (s, a, r, V) before the present; observation: (E, N). actions: logged ones
        (E, h, M), an external policy, or None for the model's own. seed: of all that is drawn.
        """
        spec = self.model.spec
        first, last = spec.observation_dim, spec.observation_dim + spec.action_dim
        generator = torch.Generator(device=observation.device).manual_seed(seed)
        free = self.model.mixer.extends  # no length is built in
        keep = context.shape[1] if free else spec.context - 1
        context = context[:, max(0, context.shape[1] - keep) :]
        cap = None if free else block(spec)
        running = Imagination(self.model, context, observation, cap)
        running.branch(samples)
        now = observation[:, None].expand(-1, samples, -1)  # (E, r, N)
        seen = []
        for step in range(horizon):
            if actions is None:
                self._draw(running, spec.action_dim, generator)
            else:
                played = (
                    actions[:, step, None].expand(-1, samples, -1)
                    if isinstance(actions, Tensor)
                    else actions(now.flatten(0, 1)).unflatten(0, now.shape[:2])
                )
                running.tell(played)
            self._draw(running, spec.slots - last, generator)  # reward and value
            symbols = self._draw(running, first, generator)
            now = running.raw(symbols)
            seen.append(now)
        return torch.stack(seen, dim=2)

    def _draw(self, running: Imagination, count: int, generator: torch.Generator) -> Tensor:
        """Draw the next `count` slots: symbols (E, r, count). No slot stops an imagined episode."""
        drawn = []
        for _ in range(count):
            slot, params = running.slot, running.parameters()
            noise = torch.rand(params.shape[:-1], generator=generator, device=params.device)
            symbols = running.heads.draw(
                params, slot, noise, 1 if self.greedy else None, None, ends=False
            )
            running.push(symbols)
            drawn.append(symbols)
        return torch.stack(drawn, -1)


def beginnings(
    trajectories: Trajectories, context: int, horizon: int, count: int, name: str
) -> np.ndarray:
    """Rows (count,) with `context` timesteps before and `horizon` after them in their episode.

    Drawn by the stream of `name` without replacement, the same for every model. Raises UserError where there
    are fewer.
    """
    rows = _possible(trajectories, context, horizon)
    if len(rows) < count:
        raise UserError(
            f"{trajectories.name}: {len(rows)} timesteps have {context} before and {horizon} after them; "
            f"{count} are asked for."
        )
    drawn = streams.stream(name, 0, "open-loop").permutation(len(rows))[:count]
    return np.sort(rows[drawn])


def _possible(trajectories: Trajectories, context: int, horizon: int) -> np.ndarray:
    """Rows with `context` timesteps before and `horizon` after them in their episode."""
    timestep = trajectories.timestep
    left = np.repeat(trajectories.lengths, trajectories.lengths) - timestep - 1
    return np.flatnonzero((timestep >= context) & (left >= horizon))


def errors(imagined: Tensor, truth: Tensor, scale: Tensor) -> dict[str, Tensor]:
    """How far imagined futures (E, r, h, N) are from the true one (E, h, N), by step ahead, (h,) each.

    Observations are divided by `scale` (N,), e.g. the data's standard deviations. rmse: of the mean of the
    samples; spread: standard deviation of the samples about their mean; energy_score: mean |x - y| - mean
    |x - x'| / 2 over samples (Gneiting & Raftery 2007, equation 21), lower is better.
    """
    x, y = imagined.double() / scale, truth.double() / scale
    mean = x.mean(1)  # (E, h, N)
    rmse = (mean - y).square().mean((0, 2)).sqrt()
    spread = x.var(1, unbiased=False).mean((0, 2)).sqrt()
    to_truth = torch.linalg.vector_norm(x - y[:, None], dim=-1).mean(1)  # (E, h)
    samples = x.shape[1]
    among = torch.zeros_like(to_truth)
    for shift in range(1, samples):  # every ordered pair of different samples once
        among += torch.linalg.vector_norm(x - x.roll(shift, 1), dim=-1).mean(1)
    pairs = among / max(1, samples - 1)
    return {"rmse": rmse, "spread": spread, "energy_score": (to_truth - 0.5 * pairs).mean(0)}


@register("measurement", "open-loop")
class OpenLoop(Measurement):
    """How far imagined states lie from held-out ones, by timesteps ahead (see `errors`)."""

    responses = (
        Response("rmse", "error of the mean", "of the state's deviation", "lower", index="horizon"),
        Response("spread", "spread of samples", "of the state's deviation", index="horizon"),
        Response("energy_score", "", "of the state's deviation", "lower", index="horizon"),
    )

    class Options(Section):
        """horizon: timesteps ahead. samples: futures of each beginning. beginnings: how many, or all that there are
        where there are fewer. actions: those that were logged, or the model's own. greedy: the most likely value of
        each slot instead of a draw."""

        horizon: int = Field(default=15, ge=1)
        samples: int = Field(default=16, ge=1)
        beginnings: int = Field(default=128, ge=1)
        actions: Literal["logged", "own"] = "logged"
        greedy: bool = False

    def __call__(self, trained: Trained, options: Any) -> Mapping[str, np.ndarray]:
        system = trained.system
        truth, before = system.data.held_out, system.context - 1
        there = len(_possible(truth, before, options.horizon))
        rows = beginnings(
            truth, before, options.horizon, max(1, min(options.beginnings, there)), trained.streams
        )
        earlier = system.rows(truth)[0][rows[:, None] + np.arange(-before, 0)]  # (E, K-1, D)
        ahead = rows[:, None] + np.arange(options.horizon)
        states = torch.from_numpy(truth.observations)
        _, deviation = moments(system.data.train.observations)
        scale = torch.from_numpy(deviation.astype(np.float32)).clamp(min=1e-6)
        played = torch.from_numpy(truth.actions)[ahead] if options.actions == "logged" else None
        found: dict[str, list[np.ndarray]] = {}
        for seed, model in zip(trained.seeds, trained.models, strict=True):
            imagined = JointDynamics(model, options.greedy).imagine(
                earlier,
                states[rows].to(system.device),
                options.horizon,
                options.samples,
                None if played is None else played.to(system.device),
                streams.entropy(trained.streams, seed, "open-loop") % (1 << 63),
            )
            for name, values in errors(imagined.cpu(), states[ahead + 1], scale).items():
                found.setdefault(name, []).append(values.numpy())
        made = {name: np.stack(values) for name, values in found.items()}
        return {**made, "horizon": np.arange(1, options.horizon + 1)}

    @classmethod
    def refusal(cls, config: Mapping[str, Any]) -> str:
        return needs_joint(config, "open-loop", "samples imagined trajectories", asks=False)
