"""The head of discrete actions against scipy and its own samples."""

import numpy as np
import torch
from scipy.special import log_softmax

from ablate.models.heads.softmax import Softmax

CHOICES = 4


def made() -> tuple[Softmax, torch.Tensor]:
    torch.manual_seed(0)
    head = Softmax(3, CHOICES)
    return head, head(torch.randn(5, 3))  # (5, M)


def vectors() -> torch.Tensor:
    return 2.0 * torch.eye(CHOICES) - 1.0


def test_the_log_probability_is_the_softmax_of_the_choice() -> None:
    head, params = made()
    found = head.log_prob(params[:, None], vectors()[None])  # (5, M)
    expected = log_softmax(params.detach().numpy(), axis=-1)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5)
    assert torch.allclose(found.exp().sum(-1), torch.ones(5))


def test_samples_follow_the_probabilities_and_the_mode_is_the_likeliest() -> None:
    head, params = made()
    noise = (torch.arange(20_000) + 0.5)[:, None] / 20_000
    drawn = head.sample(params[0].expand(20_000, -1), noise)
    share = (drawn > 0).float().mean(0)
    assert torch.allclose(share, params[0].softmax(-1), atol=1e-4)
    assert torch.equal(head.mode(params).argmax(-1), params.argmax(-1))
    assert torch.allclose(drawn.mean(0), head.mean(params[0]), atol=2e-4)
