"""Planted faults: mixers, readers, agents and stacks, each with one thing wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.data.trajectories import Trajectories
from ablate.data.windows import Visibility
from ablate.models.agent import Actor, Agent, Stored, stored
from ablate.models.layouts import Fields, Layout
from ablate.models.mixer import Mixer, State
from ablate.models.stack import Stack


class Sum(Mixer):
    """Running sum over the window: a sound mixer, and the simplest; the faults below spoil it."""

    def __init__(self, width: int, context: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__(width, context, layers, dropout)
        self.up = nn.Linear(width, width)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return torch.tanh(tokens + self.up(tokens).cumsum(1))

    def start(self, batch: int, like: Tensor) -> State:
        return (like.new_zeros(batch, self.width),)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        total = state[0] + self.up(token)
        return torch.tanh(token + total), (total,)


class BatchAxisLSTM(Sum):
    """What the released Decision LSTM does: tokens (B, L, D) into an LSTM that reads (L, B, D)."""

    def __init__(self, width: int, context: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__(width, context, layers, dropout)
        self.network = nn.LSTM(width, width, layers)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.network(tokens)[0]

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        return self.network(token[:, None])[0].squeeze(1), state


class OneAhead(Sum):
    """Attention with a mask that is off by one; a window's end has nothing ahead but padding."""

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        length = tokens.shape[1]
        seen = torch.ones(length, length, dtype=torch.bool).tril(diagonal=1) & mask[:, None]
        return tokens + F.scaled_dot_product_attention(tokens, tokens, self.up(tokens), seen)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        raise ValueError("has no step")

    def start(self, batch: int, like: Tensor) -> State:
        return ()


class Bidirectional(Sum):
    """Reads the window, padding included, from both ends."""

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return super().forward(tokens, mask) + self.up(tokens).flip(1).cumsum(1).flip(1)


class MeanOverPadding(Sum):
    """Averages over the whole window, however short its history is."""

    def last(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return super().last(tokens, lengths) + self.up(tokens).mean(1)


class BatchMean(Sum):
    """Subtracts the batch's mean."""

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return super().forward(tokens - tokens.mean(0, keepdim=True), mask)


class BatchNormed(Sum):
    """Batch statistics in training, running ones when acting."""

    def __init__(self, width: int, context: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__(width, context, layers, dropout)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return super().forward(self.norm(tokens.transpose(1, 2)).transpose(1, 2), mask)


class BatchStep(Sum):
    """Leaks along the batch only when it steps."""

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        features, state = super().step(token, state)
        return features + token.roll(1, 0), state


class OtherStep(Sum):
    """Steps with a state that decays, where the window does not."""

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        return super().step(token, (0.9 * state[0],))


class SlidesNot(Sum):
    """Says that its state slides along, but the state forgets nothing."""

    slides = True


class Fading(Sum):
    """Sound, but forgets fast: a geometric mean over the past."""

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        state, features = self.start(len(tokens), tokens), []
        for token in tokens.unbind(1):
            row, state = self.step(token, state)
            features.append(row)
        return torch.stack(features, 1)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        return super().step(token, (0.3 * state[0],))


class ShortSighted(Sum):
    """Sees the present and the timestep before it, whatever the context."""

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        before = F.pad(tokens[:, :-1], (0, 0, 1, 0))
        return torch.tanh(tokens + self.up(before))

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        return torch.tanh(token + self.up(state[0])), (token,)


class LastDiffers(Sum):
    """Trained on all positions it computes something else than at a window's end."""

    def last(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return 2.0 * super().last(tokens, lengths)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        features, state = super().step(token, state)
        return 2.0 * features, state


class Raises(Sum):
    """Cannot be run."""

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        raise RuntimeError("no kernel\nand more")


class CannotBeBuilt(Sum):
    """Cannot be made."""

    def __init__(self, *args: Any) -> None:
        raise ZeroDivisionError("heads")


class AllPositions(Sum):
    """Answers for every position where the target's is wanted."""

    def last(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return self.forward(tokens, tokens[..., 0] > 0)


class NotANumber(Sum):
    """Divides by zero."""

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return tokens / torch.zeros_like(tokens)


class NoStacking(Sum):
    """Runs by itself, but not under `vmap`."""

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        if self.stacked and bool(tokens.sum() > 0):
            return tokens
        return super().forward(tokens, mask)


class OtherStacked(Sum):
    """Its path under `vmap` is another function."""

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return super().forward(1.1 * tokens if self.stacked else tokens, mask)


def future_return(trajectories: Trajectories, layout: Layout, device: Any) -> Stored:
    """Reads the return-to-go of the timestep after."""
    data = stored(trajectories, layout, device)
    told = {"return-to-go": data.fields.told["return-to-go"].roll(-1, 0)}
    return replace(data, fields=replace(data.fields, told=told))


def unshifted_action(trajectories: Trajectories, layout: Layout, device: Any) -> Stored:
    """Reads the action of the timestep itself, which is the one to be predicted."""
    data = stored(trajectories, layout, device)
    action = torch.from_numpy(trajectories.actions)
    return replace(data, fields=replace(data.fields, action=action))


def one_long_episode(trajectories: Trajectories, layout: Layout, device: Any) -> Stored:
    """Counts timesteps on from one episode to the next."""
    return replace(
        stored(trajectories, layout, device), timestep=torch.arange(len(trajectories.rewards))
    )


class IgnoresReturn(Agent):
    """Loses the return-to-go on its way to the token."""

    def tokens(self, raw: Fields) -> Tensor:
        told = {**raw.told, "return-to-go": torch.zeros_like(raw.told["return-to-go"])}
        return super().tokens(replace(raw, told=told))


class CarriesOn(Agent):
    """Acts with a recurrent state that is carried beyond the context."""

    def start(self, batch: int) -> Actor:
        return CarriedActor(self, batch)


class CarriedActor(Actor):
    def step(self, raw: Fields) -> Tensor:
        params, self.state = self.agent.stack(self.agent.tokens(raw), self.state, method="step")
        return params


class StopsTheClock(Agent):
    """Acts as if every timestep were the first."""

    def start(self, batch: int) -> Actor:
        return StoppedActor(self, batch)


class StoppedActor(Actor):
    def step(self, raw: Fields) -> Tensor:
        return super().step(replace(raw, told={"time": torch.zeros_like(raw.told["time"])}))


class ShowsEverything(Layout):
    """Hides nothing of a past token."""

    def visible(self, context: int, device: Any = "cpu") -> Visibility:
        return Visibility(context, torch.ones(self.features), torch.ones(self.features))


class LeakyStack(Stack):
    """Adds to each replica's output a little of the next one's."""

    def __call__(self, *args: Any, method: str = "last") -> Any:
        result = super().__call__(*args, method=method)
        if method == "step":
            return result[0] + 0.1 * result[0].roll(1, 0), result[1]
        return result + 0.1 * result.roll(1, 0)
