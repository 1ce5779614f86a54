"""Named random streams.

Each stream is derived from (study, seed, name) by hash, never from call order, so that adding or
removing a component of one variant leaves every other stream of the trial as it was.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def entropy(study: str, seed: int, name: str) -> int:
    """A 128-bit integer that identifies the stream."""
    text = f"{study}\x1f{seed}\x1f{name}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:16], "big")


def stream(study: str, seed: int, name: str) -> np.random.Generator:
    """NumPy generator of the stream `name`, e.g. `batches`, `eval-env`, `generate`."""
    return np.random.Generator(np.random.PCG64(entropy(study, seed, name)))


def seed_default(study: str, seed: int, name: str, device: torch.device) -> None:
    """Start PyTorch's default generators, which dropout draws from, at the stream `name`.

    Those of the CPU and of `device` only: `torch.manual_seed` asks every other backend too, at a hundred times the
    cost of this one.
    """
    start = entropy(study, seed, name) % (1 << 63)
    torch.default_generator.manual_seed(start)
    if device.type == "cuda":
        torch.cuda.manual_seed(start)


def torch_stream(
    study: str, seed: int, name: str, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Torch generator of the stream `name`, e.g. `init`, `dropout`."""
    generator = torch.Generator(device=device)
    generator.manual_seed(entropy(study, seed, name) % (1 << 63))
    return generator
