"""A policy as it is trained and as it acts.

`Agent` puts layout, scales and a stack of S policies together and offers the two shapes in which a policy
is ever called: windows cut from stored trajectories (training), and one timestep after another in an
environment (acting). The audit compares and perturbs both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ablate.data.normalise import Scales
from ablate.data.trajectories import Trajectories
from ablate.data.windows import gather_windows
from ablate.models.layouts import Fields, Layout
from ablate.models.stack import Stack


@dataclass(frozen=True)
class Stored:
    """Trajectories as a model reads them: raw fields (T, ...) and the index of each row in its episode."""

    fields: Fields
    timestep: Tensor


def stored(
    trajectories: Trajectories, layout: Layout, device: torch.device | str = "cpu"
) -> Stored:
    """The raw fields of every timestep; computed once for a trial."""
    timestep = torch.from_numpy(trajectories.timestep).to(device)  # (T,)
    started = (timestep > 0).float()

    def previous(values: Tensor) -> Tensor:
        shifted = torch.roll(values, 1, dims=0)
        return shifted * started.view(-1, *[1] * (values.ndim - 1))

    actions = torch.from_numpy(trajectories.actions).to(device)
    rewards = torch.from_numpy(trajectories.rewards).to(device)
    policy = torch.zeros(len(rewards), layout.policies, device=device)
    if layout.condition == "policy-id":
        assert trajectories.behaviour_id is not None
        ids = torch.from_numpy(trajectories.behaviour_id).to(device)
        policy = torch.nn.functional.one_hot(ids, layout.policies).float()
    return Stored(
        Fields(
            observation=torch.from_numpy(trajectories.observations).to(device),
            action=previous(actions),
            reward=previous(rewards),
            return_to_go=torch.from_numpy(trajectories.returns_to_go).to(device),
            time=timestep.float(),
            policy=policy,
        ),
        timestep,
    )


class Agent:
    """S policies of one shape with what they need to read trajectories and to act.

    Raw quantities go in and are scaled here: observations by mean and standard deviation, rewards and
    returns-to-go by their spread, time by the horizon.
    """

    def __init__(self, stack: Stack, layout: Layout, scales: Scales, context: int) -> None:
        self.stack = stack
        self.layout = layout
        self.scales = scales
        self.context = context
        self.visible = layout.visible(context, scales.mean.device)  # (K + 1, K, F)

    def tokens(self, raw: Fields) -> Tensor:
        """(..., F) tokens of raw fields with leading shape (...,)."""
        return self.layout.table(
            Fields(
                observation=self.scales.observation(raw.observation),
                action=raw.action,
                reward=raw.reward / self.scales.reward,
                return_to_go=raw.return_to_go / self.scales.return_to_go,
                time=raw.time / self.scales.horizon,
                policy=raw.policy,
            )
        )

    def windows(self, table: Tensor, timestep: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Windows ending at `targets` (S, B): tokens (S, B, K, F) with what is hidden zeroed, lengths."""
        features, _, lengths = gather_windows(table, timestep, self.visible, targets)
        return features, lengths

    def predict(self, data: Stored, targets: Tensor) -> Tensor:
        """Training shape. targets (S, B) rows -> head parameters (S, B, P) at those timesteps."""
        features, lengths = self.windows(self.tokens(data.fields), data.timestep, targets)
        return self.stack(features, lengths)

    def start(self, batch: int) -> Actor:
        """Acting shape: a fresh actor for `batch` episodes of each of the S policies."""
        return Actor(self, batch)


class Actor:
    """Episodes in progress, (S, E) of them, all at the same timestep.

    While the window is unbroken (t < K) and no token changes once it is past, the mixer takes one step
    with carried state; from then on the window of the last K timesteps is re-encoded, so that exactly K
    timesteps act on the action, as in training. (A recurrent state carried beyond K would have seen more.)
    """

    def __init__(self, agent: Agent, batch: int) -> None:
        self.agent = agent
        self.batch = batch
        self.timestep = 0
        self.carried = agent.layout.carriable
        features = agent.layout.features
        self.buffer = torch.zeros(
            agent.stack.size, batch, agent.context, features,
            dtype=agent.scales.mean.dtype, device=agent.visible.device,
        )  # fmt: skip
        self.state = agent.stack.start(batch, self.buffer)

    def step(self, raw: Fields) -> Tensor:
        """Fields of the present timestep, (S, E, ...) -> head parameters (S, E, P)."""
        agent, context = self.agent, self.agent.context
        token = agent.tokens(raw)  # (S, E, F)
        length = min(self.timestep + 1, context)
        if self.timestep >= context:
            self.buffer = torch.roll(self.buffer, -1, dims=2)
        self.buffer[:, :, length - 1] = token
        unbroken = self.timestep < context
        self.timestep += 1
        if self.carried and unbroken:
            seen = agent.visible[1, 0] if length == 1 else agent.visible[length, length - 1]
            params, self.state = agent.stack(token * seen, self.state, method="step")
            return params
        lengths = torch.full(
            (agent.stack.size, self.batch), length, dtype=torch.long, device=token.device
        )
        return agent.stack(self.buffer * agent.visible[length], lengths)
