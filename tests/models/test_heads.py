"""Heads: densities integrate to one, samples follow them, odd data is handled."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import vmap

from ablate.models.heads import BINS, NARROWEST, bin_edges
from ablate.registry import get, names

HEADS = names("head")
DENSITY = [name for name in HEADS if get("head", name).density]
RNG = np.random.default_rng(0)
KINDS = {
    "none": None,
    "smooth": RNG.uniform(-1, 1, (400, 2)).astype(np.float32),
    "clipped": RNG.normal(0, 1, (400, 2)).clip(-1, 1).astype(np.float32),
    "one-hot": (2 * np.eye(2)[RNG.integers(0, 2, 400)] - 1).astype(np.float32),
    "constant": np.full((400, 2), 0.25, np.float32),
}


def make(name: str, kind: str = "clipped"):  # type: ignore[no-untyped-def]
    torch.manual_seed(3)
    head = get("head", name)(6, 2, KINDS[kind])
    return head, head(2 * torch.randn(4, 6))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_bounds_and_gradients(name: str, kind: str) -> None:
    head, params = make(name, kind)
    noise = torch.rand(4, head.noise_dim)
    for action in (head.mean(params), head.mode(params), head.sample(params, noise)):
        assert action.shape == (4, 2)
        assert (action.abs() <= 1).all()
    for actions in (torch.rand(4, 2) * 2 - 1, torch.ones(4, 2), -torch.ones(4, 2)):
        loss = head.loss(params, actions)
        assert loss.shape == (4,)
        head.zero_grad()
        loss.sum().backward(retain_graph=True)
        assert torch.isfinite(loss).all()
        assert torch.isfinite(head.linear.weight.grad).all()


@pytest.mark.parametrize("name", HEADS)
def test_methods_broadcast_and_run_under_vmap(name: str) -> None:
    head, params = make(name)
    many = torch.stack([params, params.flip(0), 2 * params])
    noise = torch.rand(3, 4, head.noise_dim)
    actions = torch.rand(3, 4, 2) * 2 - 1
    torch.testing.assert_close(vmap(head.sample)(many, noise), head.sample(many, noise))
    torch.testing.assert_close(vmap(head.loss)(many, actions), head.loss(many, actions))
    torch.testing.assert_close(vmap(head.mode)(many), head.mode(many))
    torch.testing.assert_close(vmap(head.mean)(many), head.mean(many))
    assert torch.equal(head.sample(many, noise)[1], head.sample(many[1], noise[1]))
    every = head.loss(many, actions[:, :1])  # (3, 4) parameters, (3, 1) actions
    assert torch.equal(every, head.loss(many, actions[:, :1].expand(3, 4, 2)))
    assert head.loss(many[:, :1], actions).shape == (3, 4)


@pytest.mark.parametrize("name", DENSITY)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_densities_integrate_to_one(name: str, kind: str) -> None:
    head, params = make(name, kind)
    # a mixture has mass beyond [-1, 1], where the action would be clipped
    reach = 1.0 if name == "categorical" else 12.0
    steps = 900
    axis = (torch.arange(steps) + 0.5) / steps * 2 * reach - reach
    grid = torch.cartesian_prod(axis, axis)
    mass = head.log_prob(params[0], grid).exp().sum() * (2 * reach / steps) ** 2
    assert float(mass) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("name", DENSITY)
@pytest.mark.parametrize("kind", ["smooth", "clipped", "one-hot"])
@torch.no_grad()
def test_samples_follow_the_density(name: str, kind: str) -> None:
    head, params = make(name, kind)
    noise = torch.rand(40000, head.noise_dim, generator=torch.Generator().manual_seed(1))
    drawn = head.sample(params[:1].expand(40000, -1), noise)
    if name == "categorical":
        torch.testing.assert_close(drawn.mean(0), head.mean(params)[0], atol=0.02, rtol=0)
        # the probability of the left half, from samples and from the density
        axis = (torch.arange(4000) + 0.5) / 2000 - 1
        for m in (0, 1):
            grid = torch.zeros(4000, 2)
            grid[:, m] = axis
            density = head.log_prob(params[0], grid).exp()
            left = density[:2000].sum() / density.sum()
            assert float((drawn[:, m] < 0).float().mean()) == pytest.approx(float(left), abs=0.02)
    else:
        weights, means, log_std = head._split(params[0])
        reference = torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(logits=weights),
            torch.distributions.Independent(torch.distributions.Normal(means, log_std.exp()), 1),
        )
        torch.testing.assert_close(reference.log_prob(drawn), head.log_prob(params[0], drawn))
        clipped = reference.sample((40000,)).clamp(-1, 1)
        torch.testing.assert_close(drawn.mean(0), clipped.mean(0), atol=0.02, rtol=0)
        torch.testing.assert_close(drawn.std(0), clipped.std(0), atol=0.02, rtol=0)


def test_squared_error_has_no_density() -> None:
    head, params = make("mse")
    with pytest.raises(TypeError, match="has no density"):
        head.log_prob(params, params)


@pytest.mark.parametrize("name", DENSITY)
def test_a_head_learns_two_modes(name: str) -> None:
    """A squared error would say 0; a density puts its mass at both."""
    torch.manual_seed(0)
    actions = torch.where(torch.rand(512, 1) < 0.5, -0.6, 0.6) + 0.05 * torch.randn(512, 1)
    head = get("head", name)(4, 1, actions.numpy())
    features = torch.ones(512, 4)
    optimiser = torch.optim.Adam(head.parameters(), 0.05)
    for _ in range(150):
        optimiser.zero_grad()
        head.loss(head(features), actions).mean().backward()
        optimiser.step()
    params = head(features)
    drawn = head.sample(params, torch.rand(512, head.noise_dim)).detach()
    assert ((drawn.abs() - 0.6).abs() < 0.2).float().mean() > 0.95
    assert 0.4 < float((drawn > 0).float().mean()) < 0.6
    assert ((head.mode(params).abs() - 0.6).abs() < 0.2).all()
    truth = torch.distributions.Normal(0.6, 0.05).entropy() + np.log(2)
    assert head.loss(params, actions).mean().item() == pytest.approx(float(truth), abs=0.25)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(-1.5, 1.5, width=32) | st.sampled_from([-1.0, 0.0, 1.0]), min_size=1),
    st.integers(1, 30),
)
def test_edges_are_sorted_cover_the_range_and_are_never_needles(
    values: list[float], copies: int
) -> None:
    edges = bin_edges(np.repeat(np.array(values), copies), BINS)
    widths = np.diff(edges)
    assert edges.shape == (BINS + 1,)
    assert (edges[0], edges[-1]) == (-1.0, 1.0)
    assert (widths >= 0).all()
    positive = widths[widths > 0]
    assert (positive > NARROWEST / 2 - 1e-9).all()
    # bins without width stand at the end
    assert (widths[len(positive) :] == 0).all()


def test_repeated_actions_get_a_bin_of_their_own() -> None:
    edges = bin_edges(np.array([-1.0, 1.0] * 50), BINS)
    np.testing.assert_allclose(edges[:4], [-1, -1 + NARROWEST, 1 - NARROWEST, 1])
    edges = bin_edges(np.full(100, 0.25), BINS)
    np.testing.assert_allclose(
        edges[:4], [-1, 0.25 - NARROWEST / 2, 0.25 + NARROWEST / 2, 1], atol=1e-12
    )
