"""Adam against PyTorch's own, bit for bit."""

from __future__ import annotations

import pytest
import torch

from ablate.learn.adam import Adam

KINDS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


def tensors() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(shape, generator=generator) for shape in ((33, 17), (5,), (2, 3, 4))]
    return [values.requires_grad_() for values in drawn]


@pytest.mark.parametrize("kind", KINDS)
def test_it_moves_as_pytorchs_own(kind: str) -> None:
    ours, theirs = tensors(), tensors()
    one = Adam([(ours[:2], 0.1), (ours[2:], 0.0)], 1.0, (0.8, 0.95), decoupled=kind == "adamw")
    groups = [
        {"params": theirs[:2], "weight_decay": 0.1},
        {"params": theirs[2:], "weight_decay": 0},
    ]
    other = KINDS[kind](groups, lr=1.0, betas=(0.8, 0.95), fused=True)
    for update in range(7):
        rate = 1e-2 / (update + 1)
        one.set_rate(torch.tensor(rate, dtype=torch.float64) if update % 2 else rate)
        for group in other.param_groups:
            group["lr"] = rate
        for made, used in ((one, ours), (other, theirs)):
            made.zero_grad()
            # the second tensor has no gradient at first, and is left alone
            moved = used if update > 2 else [used[0], used[2]]
            sum((values.sin() * values).sum() for values in moved).backward()
            made.step()
        assert all(map(torch.equal, ours, theirs))
    assert float(one.state[ours[1]]["step"]) == 4.0
