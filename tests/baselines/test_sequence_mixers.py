"""The state-space mixer against its definition, and the convolution of Decision ConvFormer."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch

from ablate.models.mixer import Mixer, set_stacked
from ablate.registry import get
from baselines import ssm
from baselines.convformer import ConvFormer
from baselines.ssm import MODES, Oscillators


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def system(width: int = 3) -> Oscillators:
    torch.manual_seed(5)
    return Oscillators(width).double()


def recurrence(made: Oscillators, u: np.ndarray, channel: int) -> np.ndarray:
    """y (L,) of u (L,) by complex arithmetic, one step after another, discretised by scipy."""
    decay = -np.exp(made.log_decay.detach().numpy()[channel])
    a = decay + 1j * made.frequency.detach().numpy()[channel]
    readout = (
        made.readout.detach().numpy()[0, channel] + 1j * made.readout.detach().numpy()[1, channel]
    )
    step = float(made.log_step.detach().exp()[channel])
    out = float(made.skip.detach()[channel]) * u
    for mode in range(MODES):
        # one complex mode as a real system of two states, for which scipy has the zero-order hold
        re, im = a[mode].real, a[mode].imag
        continuous = (
            np.array([[re, -im], [im, re]]), np.array([[1.0], [0.0]]),
            2 * np.array([[readout[mode].real, -readout[mode].imag]]), np.zeros((1, 1)),
        )  # fmt: skip
        held_a, held_b, held_c, _, _ = scipy.signal.cont2discrete(continuous, step, method="zoh")
        state = np.zeros((2, 1))
        for t, value in enumerate(u):
            state = held_a @ state + held_b * value
            out[t] += (held_c @ state)[0, 0]
    return out


@pytest.mark.parametrize("length", [1, 7, 64, 65, 200])
@torch.no_grad()
def test_the_system_is_the_zero_order_hold_of_its_oscillators(length: int) -> None:
    made, u = system(), draw(1, length, 3)
    found = made(u)[0]
    for channel in range(3):
        expected = recurrence(made, u[0, :, channel].numpy(), channel)
        np.testing.assert_allclose(found[:, channel].numpy(), expected, rtol=0, atol=1e-10)


@torch.no_grad()
def test_modes_start_as_s4d_lin() -> None:
    made = system()
    torch.testing.assert_close(made.log_decay.exp(), torch.full((3, MODES), 0.5).double())
    expected = torch.arange(MODES) * np.pi
    torch.testing.assert_close(made.frequency[0], expected.double(), rtol=1e-6, atol=1e-6)
    steps = made.log_step.exp()
    assert (steps >= 1e-3).all() and (steps <= 1e-1).all()  # noqa: PT018


@pytest.mark.parametrize("chunk", [1, 3, 8])
@pytest.mark.parametrize("stacked", [False, True])
@torch.no_grad()
def test_chunks_of_any_size_give_the_steps_outputs(
    chunk: int, stacked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssm, "CHUNK", chunk)
    torch.manual_seed(1)
    mixer = get("mixer", "ssm")(4, 19, 2).double()
    set_stacked(mixer, stacked)
    x = draw(2, 19, 4)
    state, outputs = mixer.start(2, x), []
    for row in x.unbind(1):
        out, state = mixer.step(row, state)
        outputs.append(out)
    whole = mixer(x, torch.ones(2, 19, dtype=torch.bool))
    torch.testing.assert_close(torch.stack(outputs, 1), whole, rtol=0, atol=1e-12)


def test_long_windows_are_exactly_causal_and_remember() -> None:
    torch.manual_seed(1)
    mixer = get("mixer", "ssm")(4, 300, 1).double()
    x = draw(1, 300, 4).requires_grad_()
    out = mixer(x, torch.ones(1, 300, dtype=torch.bool))
    (grad,) = torch.autograd.grad(out[0, 200].square().sum(), x)
    influence = grad[0].abs().sum(-1)
    assert (influence[:201] > 0).all()
    assert (influence[201:] == 0).all()
    assert influence[0] > 1e-7  # 200 timesteps back


def reference(mixer: ConvFormer, x: torch.Tensor) -> torch.Tensor:
    """As released: a grouped convolution for each kind of token on the padded sequence, interleaved."""
    for block in mixer.blocks:
        normed = torch.nn.functional.pad(
            block.convolution_norm(x), (0, 0, block.window - 1, 0)
        ).transpose(1, 2)
        mixed = torch.zeros_like(x)
        for kind in range(mixer.kinds):
            weight = block.lags[kind].flip(0).t()[:, None]  # (D, 1, window), oldest first
            every = torch.nn.functional.conv1d(
                normed, weight, block.bias[kind], groups=x.shape[-1]
            ).transpose(1, 2)
            place = (kind - mixer.first) % mixer.kinds
            mixed[:, place :: mixer.kinds] = every[:, place :: mixer.kinds]
        x = block._mlp(x + mixed)
    return x


@pytest.mark.parametrize(("kinds", "first"), [(1, 0), (3, 0), (3, 1), (2, 1)])
@torch.no_grad()
def test_the_convolution_is_the_released_one(kinds: int, first: int) -> None:
    torch.manual_seed(2)
    mixer = ConvFormer(4, 40, 2, kinds=kinds, first=first).double().eval()
    x = draw(2, 40, 4)
    mask = torch.ones(2, 40, dtype=torch.bool)
    whole = mixer(x, mask)
    torch.testing.assert_close(whole, reference(mixer, x), rtol=0, atol=1e-12)
    state = mixer.start(2, x)
    for t, row in enumerate(x.unbind(1)):
        out, state = mixer.step(row, state)
        torch.testing.assert_close(out, whole[:, t], rtol=0, atol=1e-12)
    for lengths in ([1, 6], [40, 23], [12, 13]):  # only the tokens within reach are read
        ends = torch.tensor(lengths)
        expected = torch.stack([whole[row, n - 1] for row, n in enumerate(lengths)])
        torch.testing.assert_close(mixer.last(x, ends), expected, rtol=0, atol=1e-12)
    assert mixer.flops() == Mixer.flops(mixer)


def test_the_window_is_that_of_the_release_and_may_be_given() -> None:
    assert ConvFormer(4, 60, 3).blocks[0].lags.shape == (1, 6, 4)
    mixer = ConvFormer(4, 60, 3, window=2)
    assert mixer.reach == 4
    assert mixer.slides
    assert not ConvFormer(4, 10, 3).slides
