"""A policy as it is trained and as it acts.

`Agent` puts layout, scales and a stack of S policies together and offers the two shapes in which a policy
is ever called: windows cut from stored trajectories (training), and one timestep after another in an
environment (acting). The audit compares and perturbs both.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ablate.data.normalise import Scales
from ablate.data.trajectories import Trajectories
from ablate.data.windows import gather_windows
from ablate.errors import UserError, unknown
from ablate.models.assembly import Model, build
from ablate.models.layouts import Fields, Layout
from ablate.models.stack import Stack

STATES = ("re-encoded", "carried")
PADDED = 512  # windows up to this long keep their padding while they fill; longer ones fill in such parts
ROOM = 64  # timesteps that an actor first has room for
# Tokens that are encoded at once on a CPU: 64 windows of the Decision Transformer as one piece take 1.5 times as long
# as in pieces of 32 (`python -m ablate bench acting`).
TOKENS = 2048


@dataclass(frozen=True)
class Stored:
    """Trajectories as a model reads them: raw fields (T, ...) and the index of each row in its episode."""

    fields: Fields
    timestep: Tensor


def stored(
    trajectories: Trajectories, layout: Layout, device: torch.device | str = "cpu"
) -> Stored:
    """The raw fields of every timestep; computed once for a trial.

    Raises UserError for a condition that the trajectories don't hold.
    """
    timestep = torch.from_numpy(trajectories.timestep).to(device)  # (T,)
    started = (timestep > 0).float()

    def previous(values: Tensor) -> Tensor:
        shifted = torch.roll(values, 1, dims=0)
        return shifted * started.view(-1, *[1] * (values.ndim - 1))

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(device)

    return Stored(
        Fields(
            observation=tensor(trajectories.observations),
            action=previous(tensor(trajectories.actions)),
            reward=previous(tensor(trajectories.rewards)),
            time=timestep.float(),
            told={name: tensor(values) for name, values in layout.told(trajectories).items()},
        ),
        timestep,
    )


# Observations (B, N) -> actions (B, M): a policy from elsewhere that acts on what is imagined.
External = Callable[[Tensor], Tensor]


class Acting(Protocol):
    """Episodes in progress: what a rollout asks for actions."""

    def act(self, raw: Fields, noise: Tensor | None) -> Tensor:
        """Fields of the present timestep (S, E, ...) -> actions (S, E, M) in the environment's units.

        noise: (S, E, `noise_dim`) uniform numbers in [0, 1) to sample with, or None for the mode.
        """


class Actable(Protocol):
    """What a rollout needs of S policies: an `Agent`, or a planner."""

    layout: Layout

    @property
    def size(self) -> int:
        """S."""

    @property
    def device(self) -> torch.device:
        """Where fields are to lie."""

    @property
    def noise_dim(self) -> int:
        """How many uniform numbers an action is sampled with."""

    def eval(self) -> Any:
        """Switch dropout off."""

    def start(self, batch: int) -> Acting:
        """`batch` fresh episodes of each policy."""


A = TypeVar("A", bound=Actable)


class Around(Generic[A]):
    """What acts through another agent, whose layout, size, device and noise it keeps; a subclass says how episodes
    start."""

    def __init__(self, agent: A) -> None:
        self.agent = agent
        self.layout, self.size, self.device = agent.layout, agent.size, agent.device
        self.noise_dim = agent.noise_dim

    def eval(self) -> Self:
        """Switch dropout off."""
        self.agent.eval()
        return self


def at_context(policy: Model, context: int) -> Model:
    """The policy, or where `context` exceeds the K it was trained at, a copy that takes such windows.

    What it then sees it was never trained on: an extrapolation. Raises UserError where the mixer's
    parameters belong to a K (learned positions, stacked windows).
    """
    if context <= policy.spec.context:
        return policy
    if not policy.mixer.extends:
        raise UserError(
            f"evaluate.context: {context} exceeds the trained context of {policy.spec.context}, and mixer "
            f"'{policy.spec.mixer}' has parameters for that many timesteps only; allowed: 1 ... "
            f"{policy.spec.context}, or a mixer without a fixed length (attention with model.positions: "
            "rotary or none, gru, lstm, ssm, convformer)."
        )
    longer = copy.deepcopy(policy)
    longer.spec = dataclasses.replace(policy.spec, context=context)
    # Only a mixer depends on K. Its initial weights are replaced: where they come from doesn't matter.
    mixer = build(longer.spec, torch.Generator()).mixer
    some = next(iter(policy.mixer.state_dict().values()))
    mixer.to(device=some.device, dtype=some.dtype).load_state_dict(policy.mixer.state_dict())
    longer.mixer = mixer
    return longer.train(policy.training)


class Agent:
    """S policies of one shape with what they need to read trajectories and to act.

    Raw quantities go in and are scaled by the layout: observations by mean and standard deviation, rewards by
    their spread, each condition as it says.

    context: K of the windows that are cut, and of acting. state: what acting does once K timesteps are
    past. "re-encoded" encodes the last K anew, so that exactly K act on the action, as in training;
    "carried" goes on with the state, which may remember more. Raises UserError for another state, and for
    "carried" where the mixer's state cannot go on or where past timesteps change what they show.
    """

    def __init__(
        self, stack: Stack, layout: Layout, scales: Scales, context: int, state: str = "re-encoded"
    ) -> None:
        if state not in STATES:
            raise unknown("evaluate.state", state, STATES)
        if state == "carried" and not stack.carries:
            raise UserError(
                f"evaluate.state: mixer '{stack.spec.mixer}' cannot carry its state past the context; "
                "allowed: re-encoded, or a mixer that steps on (gru, lstm, ssm, conv, convformer, mlp, bag, "
                "attention with model.window and model.positions: rotary or none)."
            )
        if state == "carried" and not layout.carriable:
            raise UserError(
                f"evaluate.state: carried needs timesteps that stay as they were read, and history "
                f"'{layout.history}' with condition '{layout.condition}' hides a part of them once they are "
                "past; allowed: re-encoded, or a history that keeps what the condition shows."
            )
        self.stack = stack
        self.layout = layout
        self.scales = scales
        self.context = context
        self.state = state
        self.visible = layout.visible(context, scales.mean.device)

    @property
    def size(self) -> int:
        """S."""
        return self.stack.size

    @property
    def device(self) -> torch.device:
        """Where it reads and acts."""
        return self.scales.mean.device

    @property
    def noise_dim(self) -> int:
        """How many uniform numbers an action is sampled with."""
        return self.stack.head.noise_dim

    def eval(self) -> Agent:
        """Switch dropout off."""
        self.stack.eval()
        return self

    def tokens(self, raw: Fields) -> Tensor:
        """(..., F) rows of raw fields with leading shape (...,)."""
        return self.layout.rows(raw, self.scales)

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
    with carried state; from then on the window of the last K timesteps is re-encoded, unless the agent's
    state is "carried". Where a timestep's tokens stay what they were, they are made once, when it is the present.
    """

    def __init__(self, agent: Agent, batch: int) -> None:
        self.agent = agent
        self.batch = batch
        self.timestep = 0
        self.past = torch.zeros(
            agent.size, batch, 0, agent.layout.features,
            dtype=agent.scales.mean.dtype, device=agent.device,
        )  # fmt: skip
        self.filled = 0  # rows of `past` in use
        self.state = agent.stack.start(batch, self.past) if agent.layout.carriable else ()
        self.tokens: Tensor | None = (
            None  # (S, E, K n, W) of the last K timesteps, once they are full
        )

    def act(self, raw: Fields, noise: Tensor | None) -> Tensor:
        """Fields (S, E, ...) -> actions (S, E, M): sampled with noise (S, E, `noise_dim`), or the mode."""
        params, head = self.step(raw), self.agent.stack.head
        return head.mode(params) if noise is None else head.sample(params, noise)

    def step(self, raw: Fields) -> Tensor:
        """Fields of the present timestep, (S, E, ...) -> head parameters (S, E, P)."""
        agent, context = self.agent, self.agent.context
        token = agent.tokens(raw)  # (S, E, F)
        length = min(self.timestep + 1, context)
        unbroken = self.timestep < context
        carried = agent.state == "carried"
        self.timestep += 1
        if not carried:
            self._keep(token)
        if carried or (unbroken and agent.layout.carriable):
            seen = agent.visible.newest(token, length)
            params, self.state = agent.stack(seen, self.state, method="step")
            return params
        if agent.layout.carriable and agent.stack.still:
            self._read(token)
            return self._in_pieces(context, "newest", self.tokens)
        lengths = torch.full(
            (agent.size, self.batch), length, dtype=torch.long, device=token.device
        )
        whole = torch.full_like(lengths, self.timestep == length, dtype=torch.bool)
        windows = agent.visible.show(self._window(length), lengths, whole)
        return self._in_pieces(windows.shape[2], "last", windows, lengths)

    def _in_pieces(self, timesteps: int, method: str, *inputs: Any) -> Tensor:
        """A method of the stack on windows (S, E, ...) of so many timesteps, of as many episodes at once as pays."""
        stack, size = self.agent.stack, self.batch
        if self.past.device.type == "cpu":
            size = max(1, TOKENS // stack.tokens(timesteps))
        if size >= self.batch:
            return stack(*inputs, method=method)
        pieces = zip(*(each.split(size, 1) for each in inputs), strict=True)
        return torch.cat([stack(*piece, method=method) for piece in pieces], dim=1)

    def _read(self, row: Tensor) -> None:
        """Put the tokens of the present row (S, E, F) behind those of the timesteps before."""
        stack = self.agent.stack
        if self.tokens is None:
            # A copy, as the rows it is a view of are written over in place, which a gradient would meet.
            self.tokens = stack(self._window(self.agent.context).clone(), method="group")
            return
        new = stack(row[:, :, None], method="group")  # (S, E, n, W)
        self.tokens = torch.cat([self.tokens[:, :, new.shape[2] :], new], dim=2)

    def _keep(self, token: Tensor) -> None:
        """Append a row (S, E, F). Twice the window has room, so that most steps copy one row only."""
        if self.filled == self.past.shape[2]:
            context = self.agent.context
            kept = self.past[:, :, max(0, self.filled - context + 1) : self.filled]
            room = min(2 * context, max(2 * self.filled, ROOM))
            grown = self.past.new_zeros(*self.past.shape[:2], room, self.past.shape[3])
            grown[:, :, : kept.shape[2]] = kept
            self.past, self.filled = grown, kept.shape[2]
        self.past[:, :, self.filled] = token
        self.filled += 1

    def _window(self, length: int) -> Tensor:
        """The last `length` rows, padded on the right: (S, E, L, F) with L >= length."""
        context = self.agent.context
        rows = min(context, -(-length // PADDED) * PADDED)
        window = self.past[:, :, self.filled - length :][:, :, :rows]
        missing = rows - window.shape[2]
        return F.pad(window, (0, 0, 0, missing)) if missing else window
