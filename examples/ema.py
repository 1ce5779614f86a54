"""A mixer of one's own: a moving average of the past, with a rate of forgetting learnt for each channel.

python -m ablate audit ema --plugin examples/ema.py
python -m ablate run examples/ema.yaml
"""

import torch
from torch import nn

from ablate.models.mixer import Mixer
from ablate.registry import register


@register("mixer", "ema", label="EMA")
class EMA(Mixer):
    """y_t = x_t + MLP(x_t, m_t), where m_t = r m_(t-1) + (1 - r) x_t."""

    def __init__(self, width, context, layers, dropout=0.0):
        super().__init__(width, context, layers, dropout)
        self.rate = nn.Parameter(torch.linspace(-1, 4, width))
        self.mix = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, width))

    def start(self, batch, like):
        """The state before the first timestep."""
        return (like.new_zeros(batch, self.width),)

    def step(self, token, state):
        """One timestep: token (B, D) to feature (B, D), and the state after it."""
        average = torch.lerp(token, state[0], torch.sigmoid(self.rate))
        return token + self.mix(torch.cat([token, average], dim=-1)), (average,)

    def forward(self, tokens, mask):
        """A window: tokens (B, L, D), mask (B, L) to features (B, L, D)."""
        state, features = self.start(len(tokens), tokens), []
        for token in tokens.unbind(1):
            feature, state = self.step(token, state)
            features.append(feature)
        return torch.stack(features, dim=1)
