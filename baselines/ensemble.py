"""One-step dynamics: an ensemble of Gaussian perceptrons, as PETS has it (Chua et al. 2018).

The comparator of the joint models' imagination. Each member predicts mean and diagonal variance of the change of
the observation from observation and action; its bootstrap sample of transitions is its own. `unroll` above 1
trains on what the member itself imagined so many steps ahead instead of on the truth at every step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.data import streams
from ablate.data.normalise import moments
from ablate.data.trajectories import Trajectories
from ablate.errors import UserError
from ablate.models.agent import External

LOG_STD = (-6.0, 1.0)  # of the standardised change


@dataclass(frozen=True)
class EnsembleSettings:
    """Hyper-parameters; the first five are PETS' for MuJoCo (Chua et al. 2018, appendix A).

    propagation: `ts1` draws a member anew at every step, `ts-inf` keeps one for each sample, `mean` follows the
    mean of all members' means.
    """

    members: int = 5
    width: int = 200
    layers: int = 3
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    batch: int = 256  # transitions a member and update
    updates: int = 5000
    unroll: int = 1  # steps imagined in training
    propagation: Literal["ts1", "ts-inf", "mean"] = "ts-inf"


class GaussianEnsemble(nn.Module):
    """B members over observations (N,) and actions (M,); all run as one batched product.

    mean, std: (N,) of the observations; step: (N,) standard deviations of their change in one timestep.
    """

    mean: Tensor
    std: Tensor
    step: Tensor

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        settings: EnsembleSettings,
        mean: np.ndarray,
        std: np.ndarray,
        step: np.ndarray,
    ) -> None:
        super().__init__()
        self.settings = settings
        sizes = [observation_dim + action_dim, *[settings.width] * settings.layers]
        shapes = list(zip(sizes, [*sizes[1:], 2 * observation_dim], strict=True))
        self.weights = nn.ParameterList(
            torch.randn(settings.members, i, o) / math.sqrt(i) for i, o in shapes
        )
        self.biases = nn.ParameterList(torch.zeros(settings.members, 1, o) for _, o in shapes)
        for name, values in (("mean", mean), ("std", std), ("step", step)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.get_default_dtype()))

    def forward(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation (B, R, N) of the standardised change, from (B, R, N), (B, R, M)."""
        x = torch.cat([(observation - self.mean) / self.std, action], -1)
        last = len(self.weights) - 1
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if number < last:
                x = F.silu(x)
        mean, raw = x.chunk(2, -1)
        low, high = LOG_STD
        return mean, low + (high - low) * torch.sigmoid(raw)

    def loss(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Negative log-density of the standardised change, (B,), from (B, R, h+1, N) and (B, R, h, M).

        From the second step on a member predicts from what it imagined (reparameterised samples).
        """
        now, total = observations[:, :, 0], observations.new_zeros(len(observations))
        steps = actions.shape[2]
        for h in range(steps):
            mean, log_std = self(now, actions[:, :, h])
            change = (observations[:, :, h + 1] - now) / self.step
            z = (change - mean) * (-log_std).exp()
            total = total + (0.5 * z.square() + log_std).sum(-1).mean(1)
            if h + 1 < steps:
                noise = torch.randn_like(mean)
                now = now + (mean + log_std.exp() * noise) * self.step
        return total / steps + 0.5 * self.mean.numel() * math.log(2.0 * math.pi)

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
        """See `ablate.measure.openloop.JointDynamics`. Raises UserError where no actions are given: it has none."""
        if actions is None:
            raise UserError(
                "ensemble: it predicts no actions of its own; allowed: logged ones or a policy."
            )
        generator = torch.Generator(device=observation.device).manual_seed(seed)
        members, how = self.settings.members, self.settings.propagation
        now = observation.repeat_interleave(samples, 0)  # (R, N)
        rows = torch.arange(len(now), device=now.device)
        chosen = rows % members
        seen = []
        for h in range(horizon):
            if isinstance(actions, Tensor):
                action = actions[:, h].repeat_interleave(samples, 0)
            else:
                action = actions(now)
            every = (now.expand(members, -1, -1), action.expand(members, -1, -1))
            mean, log_std = self(*every)  # (B, R, N)
            if how == "mean":
                now = now + mean.mean(0) * self.step
            else:
                if how == "ts1":
                    chosen = torch.randint(members, rows.shape, generator=generator)
                noise = torch.randn(now.shape, generator=generator, dtype=now.dtype)
                now = now + (mean[chosen, rows] + log_std[chosen, rows].exp() * noise) * self.step
            seen.append(now)
        return torch.stack(seen, 1).unflatten(0, (len(observation), samples))


def fit_ensemble(
    trajectories: Trajectories, settings: EnsembleSettings, seed: int
) -> GaussianEnsemble:
    """An ensemble trained on the transitions of whole unrolls of `settings.unroll` steps.

    Raises UserError where no episode is that long.
    """
    observations = trajectories.observations
    left = np.repeat(trajectories.lengths, trajectories.lengths) - trajectories.timestep - 1
    rows = np.flatnonzero(left >= settings.unroll)
    if not len(rows):
        raise UserError(
            f"{trajectories.name}: no episode has {settings.unroll} steps to unroll over; "
            f"the longest has {int(trajectories.lengths.max()) - 1}."
        )
    one = np.flatnonzero(left >= 1)
    _, change = moments(observations[one + 1] - observations[one])
    centre, spread = moments(observations)
    generator = streams.torch_stream("ensemble", seed, "init")
    state = torch.random.get_rng_state()
    torch.manual_seed(int(torch.randint(0, 1 << 62, (), generator=generator)))
    model = GaussianEnsemble(
        observations.shape[1],
        trajectories.actions.shape[1],
        settings,
        centre,
        np.where(spread > 1e-6, spread, 1.0),
        np.where(change > 1e-6, change, 1.0),
    )
    optimiser = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    drawn = streams.stream("ensemble", seed, "batches")
    samples = rows[drawn.integers(0, len(rows), (settings.members, len(rows)))]  # bootstrap
    table, acted = torch.from_numpy(observations), torch.from_numpy(trajectories.actions)
    ahead = torch.arange(settings.unroll + 1)
    for _ in range(settings.updates):
        places = drawn.integers(0, samples.shape[1], (settings.members, settings.batch))
        starts = torch.from_numpy(np.take_along_axis(samples, places, 1))  # (B, R)
        index = starts[..., None] + ahead
        loss = model.loss(table[index], acted[index[..., :-1]]).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    torch.random.set_rng_state(state)
    return model.eval()
