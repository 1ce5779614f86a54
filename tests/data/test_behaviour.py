"""The censored Gaussian of clipped exploration noise."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from ablate.data.behaviour import censored_logp, explore


@pytest.mark.parametrize("mean", [-1.0, -0.3, 0.0, 0.9])
@pytest.mark.parametrize("std", [0.1, 0.5, 2.0])
def test_it_is_a_distribution(mean, std):
    def density(a):
        return float(np.exp(censored_logp(np.array([a]), np.array([mean]), std)))

    inside = quad(density, -1 + 1e-12, 1 - 1e-12, points=[mean], limit=200)[0]
    assert inside + density(-1.0) + density(1.0) == pytest.approx(1.0, abs=1e-6)


def test_values_by_hand_and_axes():
    action = np.array([[0.5, 1.0], [-1.0, 0.0]], dtype=np.float32)
    mean = np.array([[0.25, 0.5], [-0.9, 0.0]])
    expected = [
        norm.logpdf(0.5, 0.25, 0.5) + norm.logsf(1.0, 0.5, 0.5),
        norm.logcdf(-1.0, -0.9, 0.5) + norm.logpdf(0.0, 0.0, 0.5),
    ]
    np.testing.assert_allclose(censored_logp(action, mean, 0.5), expected, rtol=1e-12)


def test_exploration_matches_its_likelihood():
    rng = np.random.default_rng(0)
    mean = np.full((200_000, 1), 0.8)
    action = explore(mean, 0.5, rng)
    assert action.dtype == np.float32
    assert (action == 1).mean() == pytest.approx(norm.sf(1, 0.8, 0.5), abs=0.005)
    assert (action < 0).mean() == pytest.approx(norm.cdf(0, 0.8, 0.5), abs=0.005)
