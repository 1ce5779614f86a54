"""Heads: densities integrate to one, samples follow them, odd data is handled."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import vmap

from ablate.models.heads.binned import BINS, NARROWEST, Binned, bin_edges, lattice
from ablate.models.heads.continuous import STD_RANGE
from ablate.registry import get, names

HEADS = names("head")
# softmax gives probabilities of a choice
DENSITY = [name for name in HEADS if get("head", name).density and name != "softmax"]
BINNED = [name for name in HEADS if issubclass(get("head", name), Binned)]
MULTIMODAL = [name for name in DENSITY if not name.endswith("gaussian")]
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


def masses(head, params: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[no-untyped-def]
    """Points (n, 2) that fill the plane, and the probability around each by the density there."""
    if isinstance(head, Binned):  # constant within a cell of bins
        cells = torch.cartesian_prod(*head._centres())
        return cells, head.log_prob(params, cells).exp() * torch.cartesian_prod(*head.widths).prod(
            1
        )
    # Gaussians have mass beyond [-1, 1], where the action would be clipped
    reach, steps = 12.0, 900
    axis = (torch.arange(steps) + 0.5) / steps * 2 * reach - reach
    grid = torch.cartesian_prod(axis, axis)
    return grid, head.log_prob(params, grid).exp() * (2 * reach / steps) ** 2


@pytest.mark.parametrize("name", DENSITY)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_densities_integrate_to_one(name: str, kind: str) -> None:
    head, params = make(name, kind)
    _, mass = masses(head, params[0])
    tolerance = 1e-4 if name in BINNED else 0.02
    assert float(mass.sum()) == pytest.approx(1.0, abs=tolerance)


@pytest.mark.parametrize("name", DENSITY)
@pytest.mark.parametrize("kind", ["smooth", "clipped", "one-hot"])
@torch.no_grad()
def test_samples_follow_the_density(name: str, kind: str) -> None:
    head, params = make(name, kind)
    noise = torch.rand(40000, head.noise_dim, generator=torch.Generator().manual_seed(1))
    drawn = head.sample(params[:1].expand(40000, -1), noise)
    points, mass = masses(head, params[0])
    torch.testing.assert_close(drawn.mean(0), mass @ points.clamp(-1, 1), atol=0.03, rtol=0)
    # the probability of each quadrant; clipping doesn't move a sample to another one
    middle = head.edges[:, 1] if name in BINNED else torch.zeros(2)
    for sides in torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]]):
        inside = float(mass[((points - middle) * sides > 0).all(-1)].sum())
        found = float(((drawn - middle) * sides > 0).all(-1).float().mean())
        assert found == pytest.approx(inside, abs=0.03)
    if name in BINNED:
        cell = head.index(drawn) @ torch.tensor([BINS, 1])
        found = torch.bincount(cell, minlength=BINS**2) / len(drawn)
        torch.testing.assert_close(found, mass, atol=0.005, rtol=0)
        torch.testing.assert_close(head.mean(params)[0], mass @ points, atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["gaussian", "mixture"])
@torch.no_grad()
def test_gaussian_densities_are_torchs(name: str) -> None:
    head, params = make(name)
    if name == "mixture":
        weights, means, log_std = head._split(params[0])
        reference: torch.distributions.Distribution = torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(logits=weights),
            torch.distributions.Independent(torch.distributions.Normal(means, log_std.exp()), 1),
        )
    else:
        low, high = np.log(STD_RANGE)
        std = torch.exp(low + (high - low) * torch.sigmoid(head.scales))
        torch.testing.assert_close(std, torch.full((2,), 0.5))  # at the start
        normal = torch.distributions.Normal(params[0, :2], std)
        reference = torch.distributions.Independent(normal, 1)
    noise = torch.rand(40000, head.noise_dim, generator=torch.Generator().manual_seed(1))
    drawn = head.sample(params[:1].expand(40000, -1), noise)
    torch.testing.assert_close(reference.log_prob(drawn), head.log_prob(params[0], drawn))
    clipped = reference.sample((40000,)).clamp(-1, 1)
    torch.testing.assert_close(drawn.mean(0), clipped.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.std(0), clipped.std(0), atol=0.02, rtol=0)


def test_squared_error_has_no_density() -> None:
    head, params = make("mse")
    with pytest.raises(TypeError, match="has no density"):
        head.log_prob(params, params)


@pytest.mark.parametrize("name", MULTIMODAL)
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
    assert ((drawn.abs() - 0.6).abs() < 0.2).float().mean() > 0.93  # bins span the gap
    assert 0.4 < float((drawn > 0).float().mean()) < 0.6
    assert ((head.mode(params).abs() - 0.6).abs() < 0.2).all()
    truth = torch.distributions.Normal(0.6, 0.05).entropy() + np.log(2)
    assert head.loss(params, actions).mean().item() == pytest.approx(float(truth), abs=0.25)


def test_only_the_autoregressive_head_learns_how_dimensions_depend_on_each_other() -> None:
    """Two dimensions that are equal: each on its own has one bit more to tell."""
    torch.manual_seed(0)
    actions = torch.where(torch.rand(512, 1) < 0.5, -1.0, 1.0).expand(-1, 2).contiguous()
    losses = {}
    for name in BINNED:
        head = get("head", name)(4, 2, actions.numpy())
        optimiser = torch.optim.Adam(head.parameters(), 0.03)
        for _ in range(150):
            optimiser.zero_grad()
            loss = head.loss(head(torch.ones(512, 4)), actions).mean()
            loss.backward()
            optimiser.step()
        losses[name] = loss.item()
        if name == "autoregressive":
            drawn = head.sample(head(torch.ones(512, 4)), torch.rand(512, 2)).sign()
            assert (drawn[:, 0] == drawn[:, 1]).float().mean() > 0.98
            assert 0.4 < float((drawn[:, 0] > 0).float().mean()) < 0.6
            assert (head.mean(head(torch.ones(1, 4))).abs() < 0.1).all()
    gained = losses["categorical"] - losses["autoregressive"]
    assert gained == pytest.approx(np.log(2), abs=0.05)


def test_an_autoregressive_mean_is_that_of_every_combination_of_bins() -> None:
    torch.manual_seed(5)
    head = get("head", "autoregressive")(6, 3, None)
    with torch.no_grad():
        head.out.mul_(20)
        head.earlier.weight.mul_(60)
        params = head(torch.randn(2, 6))
        centres = head._centres()
        cells = torch.cartesian_prod(*centres)  # (BINS^3, 3)
        volume = float(head.widths[:, 0].prod())
        mass = head.log_prob(params[:, None], cells).exp() * volume  # (2, BINS^3)
        torch.testing.assert_close(mass.sum(1), torch.ones(2), atol=1e-4, rtol=0)
        torch.testing.assert_close(head.mean(params), mass @ cells, atol=0.06, rtol=0)
        torch.testing.assert_close(head.mean(params)[:, 0], (mass @ cells)[:, 0])
        greedy = head.mode(params)  # the densest first dimension, then the densest given it
        first = mass.view(2, BINS, -1).sum(-1).argmax(1)
        torch.testing.assert_close(greedy[:, 0], centres[0][first])
        row = torch.arange(2)
        second = mass.view(2, BINS, BINS, BINS)[row, first].sum(-1).argmax(1)
        torch.testing.assert_close(greedy[:, 1], centres[1][second])


@torch.no_grad()
def test_a_softmax_is_torchs_over_choices() -> None:
    torch.manual_seed(0)
    head = get("head", "softmax")(6, 4, None)
    params = head(torch.randn(1, 6))
    choices = 2 * torch.eye(4) - 1
    reference = torch.distributions.Categorical(logits=params[0])
    torch.testing.assert_close(head.log_prob(params[0], choices), reference.logits)
    cross_entropy = torch.nn.functional.cross_entropy(params.expand(4, -1), torch.arange(4))
    torch.testing.assert_close(head.loss(params, choices).mean(), cross_entropy)
    drawn = head.sample(params.expand(40000, -1), torch.rand(40000, 1))
    torch.testing.assert_close(drawn.mean(0), head.mean(params)[0], atol=0.02, rtol=0)
    assert torch.equal(head.mode(params)[0], choices[reference.probs.argmax()])


@pytest.mark.parametrize("dimensions", [1, 3, 24])
def test_the_lattice_fills_the_cube_evenly(dimensions: int) -> None:
    points = lattice(512, dimensions)
    assert points.shape == (512, dimensions)
    assert ((points >= 0) & (points < 1)).all()
    np.testing.assert_allclose(points.mean(0), 0.5, atol=0.02)
    np.testing.assert_allclose((points < 0.25).mean(0), 0.25, atol=0.02)


def test_a_gaussian_has_one_deviation_for_all_states() -> None:
    torch.manual_seed(0)
    head = get("head", "gaussian")(3, 1, None)
    features = torch.randn(2000, 3)
    actions = torch.tanh(features[:, :1]) + 0.2 * torch.randn(2000, 1)
    optimiser = torch.optim.Adam(head.parameters(), 0.05)
    for _ in range(200):
        optimiser.zero_grad()
        loss = head.loss(head(features), actions).mean()
        loss.backward()
        optimiser.step()
    truth = torch.distributions.Normal(0.0, 0.2).entropy()
    assert loss.item() == pytest.approx(float(truth), abs=0.05)
    assert (head(features)[:, 1] == head.scales).all()


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
