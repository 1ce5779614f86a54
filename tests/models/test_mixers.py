"""What every registered mixer has to satisfy, whoever wrote it."""

import pytest
import torch

from ablate.models.mixer import Mixer, set_stacked
from ablate.registry import get, names

MIXERS = names("mixer")
WIDTH, LAYERS, BATCH = 8, 2, 3


def make(name: str, context: int, layers: int = LAYERS, dropout: float = 0.0) -> Mixer:
    torch.manual_seed(7)
    return get("mixer", name)(WIDTH, context, layers, dropout).double().eval()


def tokens(length: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, length, WIDTH, generator=generator, dtype=torch.float64)


def everywhere(mixer: Mixer, x: torch.Tensor) -> torch.Tensor:
    return mixer(x, torch.ones(x.shape[:2], dtype=torch.bool))


def walk(mixer: Mixer, x: torch.Tensor) -> torch.Tensor:
    state = mixer.start(x.shape[0], x)
    outputs = []
    for row in x.unbind(1):
        out, state = mixer.step(row, state)
        outputs.append(out)
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize(("context", "layers"), [(1, 2), (2, 1), (5, 2), (6, 3)])
@torch.no_grad()
def test_step_path_equals_window_path(name: str, context: int, layers: int) -> None:
    mixer = make(name, context, layers)
    x = tokens(context)
    expected = everywhere(mixer, x)
    assert expected.shape == x.shape
    torch.testing.assert_close(walk(mixer, x), expected, rtol=0, atol=1e-12)
    set_stacked(mixer, True)
    torch.testing.assert_close(everywhere(mixer, x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("context", [1, 4, 5])
@torch.no_grad()
def test_sliding_steps_equal_re_encoded_windows(name: str, context: int) -> None:
    mixer = make(name, context)
    if not mixer.slides:
        pytest.skip("the caller re-encodes this mixer's window")
    x = tokens(3 * context)
    walked = walk(mixer, x)
    for end in range(1, 3 * context + 1):
        window = x[:, max(0, end - context) : end]
        lengths = torch.full((BATCH,), window.shape[1])
        torch.testing.assert_close(
            walked[:, end - 1], mixer.last(window, lengths), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("name", MIXERS)
@torch.no_grad()
def test_last_reads_the_target_and_ignores_what_lies_right_of_it(name: str) -> None:
    mixer = make(name, 6)
    x = tokens(6)
    lengths = torch.tensor([1, 4, 6])
    mask = torch.arange(6) < lengths[:, None]
    full = mixer(x, mask)
    expected = torch.stack([full[row, n - 1] for row, n in enumerate(lengths)])
    torch.testing.assert_close(mixer.last(x, lengths), expected, rtol=0, atol=1e-12)
    alone = [mixer.last(x[r : r + 1, :n], lengths[r : r + 1]) for r, n in enumerate(lengths)]
    torch.testing.assert_close(torch.cat(alone), expected, rtol=0, atol=1e-12)
    padded = torch.where(mask[..., None], x, tokens(6, seed=1) * 1e3)
    torch.testing.assert_close(mixer.last(padded, lengths), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(mixer(padded, mask)[mask], full[mask], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("context", [1, 5])
def test_every_visible_lag_and_nothing_else_has_influence(name: str, context: int) -> None:
    mixer = make(name, context)
    x = tokens(context).requires_grad_()
    for position in range(context):
        (grad,) = torch.autograd.grad(everywhere(mixer, x)[1, position].square().sum(), x)
        influence = grad.abs().sum(-1)
        assert (influence[1, : position + 1] > 1e-9).all()
        assert (influence[1, position + 1 :] == 0).all()
        assert (influence[[0, 2]] == 0).all()


@pytest.mark.parametrize("name", [n for n in MIXERS if get("mixer", n).slides])
@torch.no_grad()
def test_steps_forget_what_lies_beyond_the_context(name: str) -> None:
    context = 4
    mixer = make(name, context)
    x = tokens(10)
    altered = x.clone()
    altered[:, 3] *= -1.0  # adding a constant is what a layer norm undoes
    difference = (walk(mixer, x) - walk(mixer, altered)).abs().amax((0, 2))
    assert (difference[:3] == 0).all()
    assert (difference[3 : 3 + context] > 1e-9).all()
    assert (difference[3 + context :] == 0).all()


@pytest.mark.parametrize("name", MIXERS)
def test_a_window_longer_than_the_context_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="window of 4 timesteps exceeds the context of 3"):
        everywhere(make(name, 3), tokens(4))
    with pytest.raises(ValueError, match="exceeds the context"):
        make(name, 3).last(tokens(4), torch.tensor([1, 2, 4]))


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize(("context", "layers"), [(1, 2), (7, 2), (7, 1)])
def test_the_formula_for_flops_agrees_with_a_count(name: str, context: int, layers: int) -> None:
    mixer = make(name, context, layers)
    counted = Mixer.flops(mixer)
    # the counter leaves out products that are written as sums, such as a target's convolution
    assert mixer.flops() == pytest.approx(counted, rel=1e-9)


@pytest.mark.parametrize("name", MIXERS)
def test_dropout_acts_in_training_only(name: str) -> None:
    mixer = make(name, 5, dropout=0.5)
    x, lengths = tokens(5), torch.tensor([1, 3, 5])
    assert torch.equal(mixer.last(x, lengths), mixer.last(x, lengths))
    mixer.train()
    torch.manual_seed(0)
    first = mixer.last(x, lengths)
    assert not torch.equal(first, mixer.last(x, lengths))
    torch.manual_seed(0)
    assert torch.equal(first, mixer.last(x, lengths))
