"""Dropout from sixteen random bits an element."""

import pytest
import torch

from ablate.models.dropout import Dropout, keep_mask


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_the_share_and_the_scale_are_right(probability: float) -> None:
    torch.manual_seed(0)
    values = torch.ones(1000, 401, requires_grad=True)
    out = Dropout(probability)(values)
    kept = out != 0
    assert float(kept.float().mean()) == pytest.approx(1 - probability, abs=0.003)
    torch.testing.assert_close(out[kept], torch.full_like(out[kept], 1 / (1 - probability)))
    out.sum().backward()
    assert torch.equal(values.grad, out.detach())
    # neighbours come from one 64-bit draw and must not be tied
    left, right = kept[:, :-1].double().flatten(), kept[:, 1:].double().flatten()
    assert abs(float(torch.corrcoef(torch.stack([left, right]))[0, 1])) < 0.01


def test_masks_follow_the_seed_and_cover_any_shape() -> None:
    for shape in [(1,), (3, 5), (7, 1, 2)]:
        torch.manual_seed(1)
        first = keep_mask(torch.zeros(shape), 0.5)
        torch.manual_seed(1)
        assert first.shape == shape
        assert torch.equal(first, keep_mask(torch.zeros(shape), 0.5))


def test_nothing_happens_outside_training_or_at_zero() -> None:
    values = torch.randn(4, 4)
    assert Dropout(0.5).eval()(values) is values
    assert Dropout(0.0)(values) is values


def test_a_probability_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"found 1\.0; allowed: 0 <= p < 1"):
        Dropout(1.0)
