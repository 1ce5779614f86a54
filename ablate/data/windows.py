"""Which targets a batch holds, and the windows that end at them.

A batch is a set of target timesteps drawn from a named random stream that no variant can touch: every
variant of a seed is trained on the same targets in the same order, and the context K only says how far
back a window looks. Windows are left-aligned: position 0 is the oldest visible timestep, the target is
the last valid position, and what lies right of it is padding that a causal mixer never sees.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ablate import streams

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


def gather_windows(
    table: Tensor, timestep: Tensor, visible: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Windows ending at `targets`, by one indexed gather.

    table: (T, F) tokens; timestep: (T,); visible: (K + 1, K, F), what a window of each length shows;
    targets: (...,) rows. Returns tokens (..., K, F), hidden entries zero; rows (..., K); lengths (...,).
    """
    rows, lengths = window_rows(targets, timestep, visible.shape[1])
    gathered = table.index_select(0, rows.flatten()).view(*rows.shape, -1)  # (..., K, F)
    return gathered * visible[lengths], rows, lengths
