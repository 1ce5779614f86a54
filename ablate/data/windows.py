"""Which targets a batch holds, and the windows that end at them.

A batch is a set of target timesteps drawn from a named random stream that no variant can touch: every
variant of a seed is trained on the same targets in the same order, and the context K only says how far
back a window looks. Windows are left-aligned: position 0 is the oldest visible timestep, the target is
the last valid position, and what lies right of it is padding that a causal mixer never sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ablate.data import streams

# Where in a window columns of the present timestep may stand. `first`: before the sequence, in the oldest timestep that
# the window holds, whichever that is. `start`: in the episode's first timestep, which the window loses as it slides.
# `behind`: in every past timestep, as if it stood behind each, where the present can't see its own.
PLACES = ("everywhere", "first", "start", "behind")
BLOCK = 64  # updates drawn at once; any block can be redrawn alone, so a resumed run sees the same batches


def draw_targets(study: str, seed: int, block: int, targets: int, timesteps: int) -> np.ndarray:
    """Target timesteps of one block of updates, (BLOCK, targets) int64 in [0, timesteps).

    Uniform over timesteps, hence over episodes in proportion to their length, as the released Decision
    Transformer samples (gym/experiment.py, `p_sample`). Depends on (study, seed, block) only.
    """
    generator = streams.stream(study, seed, f"batches/{block}")
    return generator.integers(0, timesteps, size=(BLOCK, targets))


def window_rows(targets: Tensor, timestep: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """Rows of the flat arrays that each window holds.

    targets: (...,) int64 rows; timestep: (T,) int64, the index within its episode of each row.
    Returns rows (..., K) int64, left-aligned (padding repeats the target's row), and lengths (...,).
    """
    lengths = torch.clamp(timestep[targets] + 1, max=context)  # (...,)
    offset = torch.arange(context, device=targets.device)  # (K,)
    rows = (targets - lengths + 1).unsqueeze(-1) + offset  # (..., K)
    return torch.minimum(rows, targets.unsqueeze(-1)), lengths


def last_rows(timestep: Tensor) -> Tensor:
    """The last row of each row's episode, (T,), by the index within its episode of each row (T,)."""
    starts = torch.nonzero(timestep == 0).flatten()
    ends = torch.cat([starts[1:], starts.new_tensor([len(timestep)])])
    return (ends - 1).repeat_interleave(ends - starts)


def counted(oldest: Tensor, lengths: Tensor, context: int, least: int) -> Tensor:
    """Which positions of windows are supervised where all may be, (..., K) bool.

    One that sees at least `least` timesteps (K, where that is more than K), or all that its episode has so far.
    oldest: (...,) index within its episode of a window's first timestep. lengths: (...,).
    """
    position = torch.arange(context, device=lengths.device)
    enough = position + 1 >= min(least, context)
    return (enough | (oldest == 0).unsqueeze(-1)) & (position < lengths.unsqueeze(-1))


def windows_that_count(timestep: Tensor, context: int, least: int, by: str) -> Tensor:
    """In how many of the data's windows each row is supervised, (T,) int64 >= 1; see `counted`.

    timestep: (T,) index within its episode of each row. by: whether windows are drawn by their "end" or "start".
    """
    least = min(least, context)
    if by == "start":
        return (timestep - least + 1).clamp(min=0) - (timestep - context + 1).clamp(min=0) + 1
    row = torch.arange(len(timestep), device=timestep.device)
    ahead = (context - least + torch.zeros_like(timestep)).maximum(context - 1 - timestep)
    return ahead.minimum(last_rows(timestep) - row) + 1


@dataclass(frozen=True)
class Visibility:
    """What of a window's timesteps a model is shown; memory grows with F only, whatever the context.

    context: K, timesteps that a window holds at most. first: (F,) floats, 1 where a column is shown in the
    window's oldest timestep, 0 where it belongs to the timestep before. stays: (F,) floats, 1 where a
    column is still shown once its timestep is past. placed: columns (start, stop) whose value at the present timestep
    stands elsewhere, by the place, one of PLACES.
    """

    context: int
    first: Tensor
    stays: Tensor
    placed: tuple[tuple[str, int, int], ...] = ()

    @classmethod
    def of(
        cls,
        context: int,
        first: list[bool],
        stays: list[bool],
        device: torch.device | str = "cpu",
        placed: tuple[tuple[str, int, int], ...] = (),
    ) -> Visibility:
        """The same from lists, so that nothing has to be asked of the device."""
        shown, kept = (torch.tensor(each, device=device).float() for each in (first, stays))
        made = cls(context, shown, kept, placed)
        vars(made).update(_all_first=all(first), _all_stay=all(stays))
        return made

    @property
    def device(self) -> torch.device:
        """Where windows are cut."""
        return self.first.device

    def mask(self, lengths: Tensor) -> Tensor:
        """1 where windows of `lengths` (...,) show something, else 0: (..., K, F)."""
        return self.show(
            self.first.new_ones(*lengths.shape, self.context, len(self.first)), lengths
        )

    def show(self, windows: Tensor, lengths: Tensor, started: Tensor | None = None) -> Tensor:
        """Left-aligned windows (..., K, F) of `lengths` (...,) with what they don't show at zero.

        started: (...,) bool, the windows that begin with their episode; those shorter than K where it isn't said.
        """
        position = torch.arange(windows.shape[-2], device=windows.device)
        last = lengths.unsqueeze(-1) - 1  # (..., 1)
        seen = (position <= last).to(windows.dtype).unsqueeze(-1)  # (..., K, 1)
        if not self._all_stay:
            past = (position < last).unsqueeze(-1)
            seen = torch.where(past, self.stays.to(windows.dtype), seen)  # (..., K, F)
        shown = windows * seen
        if not self._all_first:
            shown[..., 0, :] *= self.first
        if self.placed:
            begins = lengths < self.context if started is None else started
            self._place(shown, windows, last, begins.unsqueeze(-1))
        return shown

    def _place(self, shown: Tensor, windows: Tensor, last: Tensor, begins: Tensor) -> None:
        """Put what stands elsewhere into `shown` (..., K, F); last, begins: (..., 1)."""
        position = torch.arange(windows.shape[-2], device=windows.device)
        for place, start, stop in self.placed:
            there = {
                "everywhere": position <= last,
                "first": (position == 0).expand(*last.shape[:-1], -1),
                "start": (position == 0) & begins,
                "behind": position < last,
            }[place]  # (..., K)
            index = last.unsqueeze(-1).expand(*last.shape, stop - start)
            # A copy, as an actor's rows are written over in place, which a gradient would meet.
            present = windows[..., start:stop].clone().gather(-2, index)  # (..., 1, columns)
            shown[..., start:stop] = present * there.unsqueeze(-1).to(shown.dtype)

    def newest(self, row: Tensor, length: int) -> Tensor:
        """The present timestep's row (..., F) as the last of a window of `length` shows it."""
        return row * self.first if length == 1 else row

    # Asked once, not at every batch: reading a value stops a GPU's queue.

    @cached_property
    def _all_first(self) -> bool:
        return bool(self.first.all())

    @cached_property
    def _all_stay(self) -> bool:
        return bool(self.stays.all())


def gather_windows(
    table: Tensor, timestep: Tensor, visible: Visibility, targets: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Windows ending at `targets`, by one indexed gather.

    table: (T, F) tokens; timestep: (T,); targets: (...,) rows. Returns tokens (..., K, F), hidden entries
    zero; rows (..., K); lengths (...,).
    """
    rows, lengths = window_rows(targets, timestep, visible.context)
    gathered = table.index_select(0, rows.flatten()).view(*rows.shape, -1)  # (..., K, F)
    started = timestep[rows[..., 0]] == 0 if visible.placed else None
    return visible.show(gathered, lengths, started), rows, lengths
