"""What GRU and LSTM share: a fused kernel, or the same weights as explicit cells under vmap."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.models.dropout import Dropout
from ablate.models.linear import linear
from ablate.models.mixer import Mixer, State


class Recurrent(Mixer):
    """A recurrent network of `layers` layers of `width` units, read at every timestep.

    Subclasses give `network` (the fused `nn.RNNBase`), `parts` (state tensors a layer) and `cell`.
    """

    carries = True
    extends = True
    network: nn.RNNBase
    parts: int

    def __init__(self, width: int, context: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__(width, context, layers, dropout)
        self.drop = Dropout(dropout)

    @abstractmethod
    def cell(self, projected: Tensor, recurrent: Tensor, state: State) -> State:
        """A layer's next state, features first, from W x + b and U h + c (B, G D) and its state."""

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """See `Mixer.forward`. Padding lies right of the targets and comes after they are read."""
        self.check_window(tokens)
        if not self.stacked:
            return self.network(tokens)[0]
        for layer in range(self.layers):
            if layer:
                tokens = self.drop(tokens)
            weight, bias = self._weights("ih", layer)
            projected = linear(tokens, weight, bias, self.stacked).unbind(
                1
            )  # all timesteps at once
            weight, bias = self._weights("hh", layer)
            state: State = (tokens.new_zeros(tokens.shape[0], self.width),) * self.parts
            features: list[Tensor] = []
            for row in projected:
                state = self.cell(row, F.linear(state[0], weight, bias), state)
                features.append(state[0])
            tokens = torch.stack(features, dim=1)
        return tokens

    def start(self, batch: int, like: Tensor) -> State:
        """Zeros (B, D) for every layer's state tensors."""
        return (like.new_zeros(batch, self.width),) * (self.layers * self.parts)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """See `Mixer.step`: one cell a layer."""
        carried: list[Tensor] = []
        for layer in range(self.layers):
            if layer:
                token = self.drop(token)
            mine = state[layer * self.parts : (layer + 1) * self.parts]
            projected = linear(token, *self._weights("ih", layer), self.stacked)
            recurrent = linear(mine[0], *self._weights("hh", layer), self.stacked)
            mine = self.cell(projected, recurrent, mine)
            carried += mine
            token = mine[0]
        return token, tuple(carried)

    def flops(self) -> int:
        """Input and recurrent products of every timestep and layer."""
        weights = sum(p.numel() for name, p in self.network.named_parameters() if "weight" in name)
        return 2 * self.context * weights

    def _weights(self, kind: str, layer: int) -> tuple[Tensor, Tensor]:
        # looked up by name on each call, so that torch.func can put other tensors in their place
        return (
            getattr(self.network, f"weight_{kind}_l{layer}"),
            getattr(self.network, f"bias_{kind}_l{layer}"),
        )
