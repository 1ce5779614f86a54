"""A Decision Transformer of the published size, made of the blocks of `ablate.models.attention`.

Sizes and training settings as in the public Gym code of Chen et al. (2021): tokens (return-to-go,
state, action) for each of 20 timesteps, three blocks of width 128 with one head and ReLU, dropout
0.1, hopper's 11 observations and 3 actions, squared error of the actions at the state tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ablate.models.attention import Block
from ablate.models.dropout import Dropout

OBSERVATIONS, ACTIONS = 11, 3
TIMESTEPS, BATCH = 20, 64
LAYERS, WIDTH, RATIO = 3, 128, 4
DROPOUT = 0.1
LONGEST = 1000  # timesteps of an episode


class DecisionTransformer(nn.Module):
    """Predicted actions from returns-to-go, states and earlier actions.

    The final block is computed at the state tokens only, since no other prediction is trained; the
    window's last action is not a token, since no prediction may look at it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.returns = nn.Linear(1, WIDTH)
        self.states = nn.Linear(OBSERVATIONS, WIDTH)
        self.actions = nn.Linear(ACTIONS, WIDTH)
        self.timesteps = nn.Embedding(LONGEST, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.blocks: Any = nn.ModuleList(
            Block(WIDTH, 1, DROPOUT, RATIO, activation="relu") for _ in range(LAYERS)
        )
        self.final_norm = nn.LayerNorm(WIDTH)
        self.predict = nn.Linear(WIDTH, ACTIONS)
        self.drop = Dropout(DROPOUT)
        tokens = 3 * TIMESTEPS - 1
        visible = torch.ones(tokens, tokens, dtype=torch.bool).tril()[1::3]  # (K, 3K-1)
        self.visible: Tensor
        self.register_buffer("visible", visible, persistent=False)

    def forward(self, returns: Tensor, states: Tensor, actions: Tensor, time: Tensor) -> Tensor:
        """(B, K, 3) from returns (B, K, 1), states (B, K, 11), actions (B, K, 3), time (B, K)."""
        when = self.timesteps(time)
        tokens = torch.stack(
            [
                self.returns(returns) + when,
                self.states(states) + when,
                self.actions(actions) + when,
            ],
            dim=2,
        )
        x = self.drop(self.norm(tokens.flatten(1, 2)[:, :-1]))  # (B, 3K-1, D)
        for block in self.blocks[:-1]:
            x = block(x)
        x = self.blocks[-1].targets(x, x[:, 1::3], self.visible)  # (B, K, D)
        return torch.tanh(self.predict(self.final_norm(x)))
