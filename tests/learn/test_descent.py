"""The optimiser gives what PyTorch's own gives, to the last bit, and doesn't load its compiler."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.learn.descent import Adam

OWN = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@pytest.mark.parametrize("kind", ["adam", "adamw"])
@given(
    seed=st.integers(0, 1000),
    decay=st.sampled_from([0.0, 0.01, 1.0]),
    betas=st.sampled_from([(0.9, 0.999), (0.0, 0.5)]),
)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_the_same_bits_as_pytorchs(kind, seed, decay, betas):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, 4), (5,), (), (2, 1, 3)]
    mine = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    theirs = [tensor.detach().clone().requires_grad_() for tensor in mine]

    def groups(tensors):
        return [{"params": tensors[:2]}, {"params": tensors[2:], "weight_decay": 0.0}]

    ours = Adam(kind, groups(mine), lr=0.1, betas=betas, weight_decay=decay)
    other = OWN[kind](groups(theirs), lr=0.1, betas=betas, weight_decay=decay, fused=True)
    for step in range(6):
        ours.zero_grad()
        other.zero_grad()
        assert all(tensor.grad is None for tensor in mine)
        for index, (a, b) in enumerate(zip(mine, theirs, strict=True)):
            if index != step % 5:  # one of them has no gradient, now and then
                a.grad = torch.randn(a.shape, generator=generator)
                b.grad = a.grad.clone()
        for group, same in zip(ours.param_groups, other.param_groups, strict=True):
            group["lr"] = same["lr"] = 0.1 / (step + 1)
        ours.step()
        other.step()
    for a, b in zip(mine, theirs, strict=True):
        assert torch.equal(a, b)
        state = other.state[b]
        assert ours.state[a].keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in ours.state[a].items())


def test_it_loads_no_compiler():
    code = (
        "import sys, torch; from ablate.learn.descent import Adam; x = torch.ones(2, requires_grad=True);"
        "a = Adam('adamw', [{'params': [x]}], lr=0.1); x.sum().backward(); a.step();"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
