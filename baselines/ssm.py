"""A diagonal state-space model: a linear recurrence of many decaying oscillators, read nonlinearly."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.models.dropout import Dropout
from ablate.models.linear import Linear
from ablate.models.mixer import Mixer, State, at_targets, delays
from ablate.registry import register

MODES = 16  # complex oscillators a channel: a state of 32 real numbers
STEP_RANGE = (1e-3, 1e-1)  # of the initial step sizes: modes forget within 20 to 2000 timesteps
CHUNK = 64  # tokens that are mixed by one matrix; what came before enters as a state


class Oscillators(nn.Module):
    """One linear system a channel: x' = A x + u, y = 2 Re(C x) + D u with diagonal complex A.

    Initialised as S4D-Lin (Gu et al. 2022): A_n = -1/2 + i pi n. Discretised with a zero-order hold
    and a learned step size, it is the recurrence s_t = a s_{t-1} + u_t read by c = C (a - 1) / A,
    where a = exp(step A); complex numbers are pairs of real ones throughout.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        low, high = (math.log(step) for step in STEP_RANGE)
        self.log_step = nn.Parameter(torch.empty(width, 1).uniform_(low, high))
        self.log_decay = nn.Parameter(torch.full((width, MODES), math.log(0.5)))
        frequency = math.pi * torch.arange(MODES, dtype=torch.get_default_dtype())
        self.frequency = nn.Parameter(frequency.repeat(width, 1))
        self.readout = nn.Parameter(torch.randn(2, width, MODES).mul_(0.5**0.5))
        self.skip = nn.Parameter(torch.randn(width))

    def forward(self, u: Tensor) -> Tensor:
        """Outputs (B, L, D) of inputs (B, L, D) from rest; exactly causal, linear in L.

        Chunks are mixed by a matrix of lags each; from chunk to chunk goes the state, by a parallel
        scan in log2(L / CHUNK) rounds.
        """
        batch, length, width = u.shape
        size = min(CHUNK, length)
        chunks = -(-length // size)
        rows = F.pad(u, (0, 0, 0, chunks * size - length)).view(batch, chunks, size, width)
        rows = rows.permute(3, 0, 1, 2).flatten(1, 2)  # (D, B C, M)
        real, imaginary = self._powers(torch.arange(size, device=u.device))  # (D, N, M)
        read, cross = self._read()  # (D, N)
        lags = 2.0 * (read[..., None] * real - cross[..., None] * imaginary).sum(1)  # (D, M)
        out = rows @ delays(lags, size).transpose(1, 2)
        if chunks > 1:
            # what each chunk leaves behind, as if it had begun from rest
            leave = torch.cat([real, imaginary], dim=1).flip(2).transpose(1, 2)  # (D, M, 2N)
            ends = self._scan((rows @ leave).view(width, batch, chunks, 2 * MODES), size)
            enter = F.pad(ends[:, :, :-1], (0, 0, 1, 0)).flatten(1, 2)  # (D, B C, 2N)
            real, imaginary = self._powers(torch.arange(1, size + 1, device=u.device))
            ahead = (
                read[..., None] * real - cross[..., None] * imaginary,
                -(read[..., None] * imaginary + cross[..., None] * real),
            )
            out = out + enter @ (2.0 * torch.cat(ahead, dim=1))  # (D, 2N, M)
        out = out.view(width, batch, chunks * size).permute(1, 2, 0)[:, :length]
        return out + self.skip * u

    def step(self, u: Tensor, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Output (B, D) of input (B, D) and state (B, D, N) twice; and the next state."""
        turn, lean = (part.squeeze(-1) for part in self._powers(u.new_ones(1)))  # (D, N)
        read, cross = self._read()
        real, imaginary = (
            turn * real - lean * imaginary + u[..., None],
            turn * imaginary + lean * real,
        )
        out = 2.0 * (read * real - cross * imaginary).sum(-1)
        return out + self.skip * u, real, imaginary

    def _powers(self, exponent: Tensor) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of a^exponent for exponents (M,): (D, N, M) each."""
        time = self.log_step.exp()[..., None] * exponent  # (D, 1, M)
        size = (-self.log_decay.exp()[..., None] * time).exp()
        angle = self.frequency[..., None] * time
        return size * angle.cos(), size * angle.sin()

    def _read(self) -> tuple[Tensor, Tensor]:
        """c = C (a - 1) / A, real and imaginary part (D, N)."""
        real, imaginary = (part.squeeze(-1) for part in self._powers(self.skip.new_ones(1)))
        decay, frequency = -self.log_decay.exp(), self.frequency
        norm = decay.square() + frequency.square()
        # (a - 1) / A = (a - 1) conj(A) / |A|^2
        hold = ((real - 1.0) * decay + imaginary * frequency) / norm
        held = (imaginary * decay - (real - 1.0) * frequency) / norm
        into, onto = self.readout.unbind(0)
        return into * hold - onto * held, into * held + onto * hold

    def _scan(self, states: Tensor, size: int) -> Tensor:
        """States (D, B, C, 2N) that chunks of `size` leave by themselves to those with all before."""
        chunks = states.shape[2]
        real, imaginary = states.chunk(2, dim=-1)
        distance = 1
        while distance < chunks:
            powers = self._powers(real.new_full((1,), float(size * distance)))
            turn, lean = (part.squeeze(-1)[:, None, None] for part in powers)  # (D, 1, 1, N)
            before = [
                F.pad(part[:, :, :-distance], (0, 0, distance, 0)) for part in (real, imaginary)
            ]
            real, imaginary = (
                real + turn * before[0] - lean * before[1],
                imaginary + turn * before[1] + lean * before[0],
            )
            distance *= 2
        return torch.cat([real, imaginary], dim=-1)


class SSMBlock(nn.Module):
    """x + gate(gelu(system(norm(x)))), as in S4D: a gated linear unit mixes the channels."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.system = Oscillators(width)
        self.out = Linear(width, 2 * width)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Every position (B, L, D)."""
        return self.finish(x, self.system(self.norm(x)))

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Features (..., D) from the block's input and its system's output."""
        return x + self.drop(F.glu(self.out(self.drop(F.gelu(mixed))), dim=-1))


@register("mixer", "ssm", label="SSM", order=6)
class SSM(Mixer):
    """Blocks of diagonal state-space models (S4D: Gu et al. 2022).

    A recurrence that trains as a convolution: the whole window is mixed at once, in time and memory
    linear in its length, and acting takes one step with the same weights.
    """

    carries = True
    extends = True

    def __init__(self, width: int, context: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__(width, context, layers, dropout)
        self.blocks: Any = nn.ModuleList(SSMBlock(width, dropout) for _ in range(layers))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """See `Mixer.forward`. Padding lies right of the targets, where causality hides it."""
        self.check_window(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens

    def last(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """See `Mixer.last`; the final block's channels are mixed for the targets only."""
        self.check_window(tokens)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        final = self.blocks[-1]
        mixed = final.system(final.norm(tokens))
        return final.finish(at_targets(tokens, lengths), at_targets(mixed, lengths))

    def start(self, batch: int, like: Tensor) -> State:
        """Every system's state (B, D, N), real and imaginary part."""
        return (like.new_zeros(batch, self.width, MODES),) * (2 * self.layers)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        carried: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            parts = state[2 * number : 2 * number + 2]
            mixed, *parts = block.system.step(block.norm(token), *parts)
            token = block.finish(token, mixed)
            carried += parts
        return token, tuple(carried)
