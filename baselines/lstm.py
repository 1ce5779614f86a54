"""Long short-term memory (Hochreiter & Schmidhuber 1997, with forget gates)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ablate.models.mixer import State
from ablate.registry import register
from baselines.recurrent import Recurrent


@register("mixer", "lstm", version="2", label="LSTM", order=2)  # 2: forget gates start open
class LSTM(Recurrent):
    """Stacked LSTM; its weights are those of `torch.nn.LSTM`.

    Forget gates start open, with a bias larger by 1 (Gers et al. 2000; Jozefowicz et al. 2015, section 2.3).
    At PyTorch's own start a cue is halved at every step, and a T-Maze of length 20 isn't learnt.
    """

    parts = 2
    stacks = 0  # PyTorch has a kernel for one

    def __init__(self, width: int, context: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__(width, context, layers, dropout)
        between = dropout if layers > 1 else 0.0
        self.network = nn.LSTM(width, width, layers, dropout=between, batch_first=True)
        with torch.no_grad():
            for layer in range(layers):
                self._weights("hh", layer)[1][width : 2 * width] += 1.0

    def cell(self, projected: Tensor, recurrent: Tensor, state: State) -> State:
        """c' = f c + i g, h' = o tanh(c') with gates in PyTorch's order i, f, g, o."""
        gates = projected + recurrent
        enter, forget, new, out = gates.chunk(4, dim=-1)
        memory = torch.sigmoid(forget) * state[1] + torch.sigmoid(enter) * torch.tanh(new)
        return torch.sigmoid(out) * torch.tanh(memory), memory
