"""Futures that a joint model imagines without a search: slot by slot, from a given beginning on."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

from ablate.models.agent import External
from ablate.models.assembly import Model
from ablate.models.nets import Nets
from ablate.plan.imagine import Imagination, Imaginations, imagine
from ablate.plan.options import observation_tokens

# What becomes of a slot: a draw, its likeliest value, or its expectation.
Sampling = Literal["draw", "greedy", "mean"]
# Which member of an ensemble makes a sample's next step: one for all steps, or one drawn for each (Chua et al. 2018).
Propagation = Literal["ts-inf", "ts1"]


class Dynamics(Protocol):
    """A model that can be asked what happens next."""

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
        (E, h, M), an external policy, or None for the model's own. seed: of all that is drawn. Raises UserError
        where the model has no actions of its own and none are given.
        """


class JointDynamics:
    """A joint model, sampled slot by slot; its window slides where it is full.

    A model of windows of K timesteps has learned to predict an observation from at most K - 1 whole timesteps and those
    of its own numbers that come before. So many whole timesteps it is shown whatever slot is next: with K = 2 the
    present one alone. K is 2 or more.
    """

    def __init__(self, model: Model | Nets, sampling: Sampling = "draw") -> None:
        self.model, self.sampling = model.eval(), sampling

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
        """See `Dynamics.imagine`."""
        spec = self.model.spec
        first, last = spec.observation_dim, spec.observation_dim + spec.action_dim
        generator = torch.Generator(device=observation.device).manual_seed(seed)
        free = self.model.mixer.extends  # no length is built in
        seen_most = spec.context - 1
        keep = context.shape[1] if free else seen_most - 1
        context = context[:, max(0, context.shape[1] - keep) :]
        # The observation in the making stands beside the whole timesteps, until its last token is predicted.
        cap = seen_most * len(self.model.head.stream) + observation_tokens(spec) - 1
        running = imagine(self.model, context, observation, None if free else cap)
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
            now = self._draw(running, first, generator)
            seen.append(now)
        return torch.stack(seen, dim=2)

    def _draw(
        self, running: Imagination | Imaginations, count: int, generator: torch.Generator
    ) -> Tensor:
        """The next `count` slots: raw values (E, r, count). No slot stops an imagined episode."""
        drawn = []
        for _ in range(count):
            slot, params = running.slot, running.parameters()
            if self.sampling == "mean":
                value = running.heads.expected(params, slot)[..., None]
                running.tell(value)
            else:
                noise = torch.rand(params.shape[:-1], generator=generator, device=params.device)
                greedy = 1 if self.sampling == "greedy" else None
                symbols = running.heads.draw(params, slot, noise, greedy, None, ends=False)
                running.push(symbols)
                value = running.raw(symbols[..., None], slot)
            drawn.append(value)
        return torch.cat(drawn, -1)
