"""The joint model: the released forward pass, densities against closed forms, heads of one's own."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from ablate import registry
from ablate.models.assembly import Model, build
from ablate.models.discretise import Discretiser
from ablate.models.heads import Head
from ablate.models.heads.continuous import COMPONENTS
from ablate.models.spec import ModelSpec

N, M, BINS, WINDOW = 3, 2, 7, 4
D = N + M + 2
NAMES = [
    *(f"observation_{i}" for i in range(N)),
    *(f"action_{i}" for i in range(M)),
    "reward",
    "value",
]
LAYOUTS = ("dimension", "chunk-2", "modality", "step")
DATA = np.random.default_rng(0).normal(size=(600, D)) * np.linspace(0.5, 3, D) + 1.0


def shape(n: int = N, m: int = M, **changes: Any) -> ModelSpec:
    config = {
        "mixer": "attention", "head": "categorical", "context": WINDOW, "layout": "dimension",
        "input": "discretised", "model": {"width": 16, "layers": 2, "heads": 2, "initialisation": "mingpt"},
    }  # fmt: skip
    return dataclasses.replace(ModelSpec.joint(config, n, m, bins=BINS), **changes)


def make(dtype: torch.dtype = torch.float64, **changes: Any) -> Model:
    spec = shape(**changes)
    model = build(spec, torch.Generator().manual_seed(1), DATA, Discretiser.fit(DATA, BINS))
    with torch.no_grad():  # away from the small initial weights, so that every part tells
        for parameter in model.parameters():
            parameter.add_(
                0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
            )
    return model.to(dtype).eval()


def rows(batch: int = 2, length: int = WINDOW, seed: int = 5) -> Tensor:
    index = np.random.default_rng(seed).integers(len(DATA), size=(batch, length))
    return torch.from_numpy(DATA[index])


def said(model: Model, some: Tensor) -> Tensor:
    """What the heads say of every slot of rows, (B, L, D, Q)."""
    found: Tensor = model.head.each(model.features(some), some, "number")
    return found.detach()


def plain_forward(model: Model, tokens: Tensor) -> Tensor:
    """The released forward pass, restated: tokens (T,) of one sequence to logits (T, N+1)."""
    weights = dict(model.named_parameters())
    slots, bins, heads = D, BINS, model.spec.heads
    x = []
    for place, token in enumerate(tokens.tolist()):
        name = f"embed.layers.{NAMES[place % slots]}.weight"
        row = weights["embed.end"] if token == bins else weights[name][token]
        x.append(row + weights["mixer.positions"][place])
    x = torch.stack(x)
    length, width = x.shape

    def norm(values: Tensor, name: str) -> Tensor:
        mean, var = values.mean(-1, keepdim=True), values.var(-1, unbiased=False, keepdim=True)
        scaled = (values - mean) / torch.sqrt(var + 1e-5)
        return scaled * weights[name + ".weight"] + weights[name + ".bias"]

    mask = torch.tril(torch.ones(length, length))
    mask[:, slots - 1 :: slots] = 0
    for number in range(model.spec.layers):
        name = f"mixer.blocks.{number}."
        h = norm(x, name + "attention_norm")
        three = h @ weights[name + "qkv.weight"].T + weights[name + "qkv.bias"]
        q, k, v = three.split(width, dim=-1)
        size = width // heads
        merged = []
        for head in range(heads):
            cut = slice(head * size, (head + 1) * size)
            scores = q[:, cut] @ k[:, cut].T / math.sqrt(size)
            scores = scores.masked_fill(mask == 0, float("-inf"))
            merged.append(scores.softmax(-1) @ v[:, cut])
        x = x + torch.cat(merged, -1) @ weights[name + "out.weight"].T + weights[name + "out.bias"]
        h = norm(x, name + "mlp_norm") @ weights[name + "up.weight"].T + weights[name + "up.bias"]
        h = 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))
        x = x + h @ weights[name + "down.weight"].T + weights[name + "down.bias"]
    x = norm(x, "norm")
    # The released head of slot i is applied to the token of slot i and predicts the one after it.
    after = [f"head.heads.{place % slots}.linear.weight" for place in range(1, length + 1)]
    return torch.stack([weights[name] @ x[place] for place, name in enumerate(after)])


def test_the_forward_pass_is_the_released_one() -> None:
    model = make()
    some = rows(2)
    some[1, 2:] = torch.nan  # an early end
    tokens = model.encode(some)
    assert (tokens[1, 2:] == BINS).all()
    found = said(model, some).flatten(1, 2)  # (B, L D, N+1): of the slot itself
    for row in range(2):
        released = plain_forward(model, tokens[row].flatten()[:-1])
        valid = torch.nn.functional.pad(model.head.bins.valid, (0, 1), value=True)
        valid = valid.repeat(WINDOW, 1)[1:]
        released = released.masked_fill(~valid, -torch.inf).log_softmax(-1)
        torch.testing.assert_close(found[row, 1:], released)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gaussian_density_is_scipys(layout: str) -> None:
    model = make(layout=layout, head="gaussian", input="continuous")
    some = rows(2)
    params = said(model, some)
    heads = model.head
    low, high = -5.0, 2.0
    mean = params[..., 0] * heads.std + heads.mean
    std = (low + (high - low) * torch.sigmoid(params[..., 1])).exp() * heads.std
    expected = torch.from_numpy(scipy.stats.norm.logpdf(some, mean.numpy(), std.numpy()))
    each = model.log_density(some).detach()
    torch.testing.assert_close(each[:, 1:], expected[:, 1:])
    torch.testing.assert_close(each[:, 0, N:], expected[:, 0, N:])
    assert (each[:, 0, :N] == 0).all()
    total = expected[:, :-1, N:].sum(-1) + expected[:, 1:, :N].sum(-1)
    torch.testing.assert_close(heads.per_timestep(each), total)


@pytest.mark.parametrize("layout", ["modality", "step"])
def test_mixture_density_is_the_mixture_of_products(layout: str) -> None:
    model = make(layout=layout, head="mixture", input="continuous")
    some = rows(1)
    heads = model.head
    group = 1 if layout == "modality" else 0  # the action's token, or the only one
    number, slots = heads.groups[group][0]
    place = N - 1 if layout == "dimension" else 0
    features = model.features(some)[:, place].detach()
    params = heads.heads[number](features)[0]
    logits, means, scales = params.split(
        [COMPONENTS, COMPONENTS * len(slots), COMPONENTS * len(slots)]
    )
    means, scales = (part.view(COMPONENTS, -1).detach() for part in (means, scales))
    std = (-5.0 + 7.0 * torch.sigmoid(scales)).exp()
    raw = [some[0, 0 if slot >= N else 1, slot] for slot in slots]
    z = (torch.stack(raw) - heads.mean[list(slots)]) / heads.std[list(slots)]
    parts = logits.detach().log_softmax(-1) + torch.from_numpy(
        scipy.stats.norm.logpdf(z, means, std).sum(-1)
    )
    wanted = torch.logsumexp(parts, 0) - heads.std[list(slots)].log().sum()
    each = model.log_density(some)[0].detach()
    found = sum(each[0 if slot >= N else 1, slot] for slot in slots)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("layout", ["dimension", "modality", "step"])
@pytest.mark.parametrize("head", ["categorical", "autoregressive", "gaussian", "mixture"])
def test_each_slots_density_is_one(layout: str, head: str) -> None:
    model = make(layout=layout, head=head, input="continuous")
    one, t, slot, heads = rows(1), 1, N + M, model.head
    grid = torch.linspace(-60, 60, 6001, dtype=torch.float64) * heads.std[slot] + heads.mean[slot]
    weight = grid.diff()[0].expand(len(grid))
    if heads.binned:
        valid = heads.bins.valid[slot]
        grid, weight = heads.bins.centres[slot][valid], heads.bins.widths[slot][valid]
    many = one.expand(len(grid), -1, -1).clone()
    many[:, t, slot] = grid
    total = float((model.log_density(many)[:, t, slot].exp() * weight).sum().detach())
    if heads.binned:  # the end has the rest
        total += float(said(model, one)[0, t, slot, -1].exp())
    assert total == pytest.approx(1.0, abs=1e-9 if heads.binned else 1e-3)


def test_a_head_of_ones_own_predicts_actions_and_trajectories() -> None:
    class Laplace(Head):
        density: ClassVar[bool] = True

        def __init__(self, width: int, action_dim: int, actions: np.ndarray | None = None) -> None:
            super().__init__(width, action_dim, action_dim)
            self.noise_dim = action_dim
            assert actions is None or np.abs(actions).max() <= 1.0 + 1e-9

        def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
            return (-(actions - params).abs() / 0.3 - math.log(0.6)).sum(-1)

        def mean(self, params: Tensor) -> Tensor:
            return params

        def mode(self, params: Tensor) -> Tensor:
            return params

        def sample(self, params: Tensor, noise: Tensor) -> Tensor:
            away = torch.sign(noise - 0.5) * (1 - 2 * (noise - 0.5).abs()).clamp(min=1e-6).log()
            return params - 0.3 * away

    with registry.scope():
        registry.register("head", "laplace-test")(Laplace)
        policy = build(
            ModelSpec("gru", "laplace-test", 3, 4, M, width=8), torch.Generator(), DATA[:, :M] / 9.0
        )
        assert policy(torch.zeros(2, 3, 4), torch.tensor([3, 3])).shape == (2, M)
        for layout in LAYOUTS:
            model = make(layout=layout, head="laplace-test", input="continuous")
            some, heads = rows(2), model.head
            assert heads.numbers(torch.from_numpy(DATA)).abs().max() <= 1.0 + 1e-6
            each = model.log_density(some).detach()
            wanted = -(heads.numbers(some) - said(model, some)[..., 0]).abs() / 0.3 - math.log(0.6)
            wanted = wanted - heads.scale.log()
            torch.testing.assert_close(each[:, 1:], wanted[:, 1:])
            params = heads.heads[0](model.features(some)[:, 0])
            drawn = heads.draw(
                params, heads.stream[0][0], torch.tensor([0.5, 0.9]).double(), None, None
            )
            assert drawn.shape == (2,)


def test_models_of_every_kind_reach_the_density_of_a_linear_gaussian_process() -> None:
    """x' = 0.8 x + 0.5 a + w, a = -0.4 x + v, r = a, V = x: per timestep what scipy says of w and v."""
    rng = np.random.default_rng(0)
    episodes, length, noise = 3072, 4, (0.3, 0.5)
    x = np.zeros((episodes, length + 1))
    data = np.zeros((episodes, length, 4))
    x[:, 0] = rng.normal(size=episodes)
    for t in range(length):
        a = -0.4 * x[:, t] + noise[1] * rng.normal(size=episodes)
        x[:, t + 1] = 0.8 * x[:, t] + 0.5 * a + noise[0] * rng.normal(size=episodes)
        extra = 0.5 * rng.normal(size=(episodes, 2))
        data[:, t] = np.stack([x[:, t], a, a + extra[:, 0], x[:, t] + extra[:, 1]], 1)
    scale = np.array([noise[1], 0.5, 0.5, noise[0]])
    truth = -scipy.stats.norm(scale=scale).entropy().sum()  # expected log-density of a timestep
    table = torch.tensor(data, dtype=torch.float32)
    flat, fresh = data.reshape(-1, 4), table[2048:]
    for layout, head, given in (
        ("modality", "gaussian", "continuous"),
        ("step", "autoregressive", "discretised"),
        ("dimension", "categorical", "discretised"),
    ):
        spec = shape(
            1, 1, layout=layout, head=head, input=given, context=length, bins=16, width=32, layers=1,
        )  # fmt: skip
        bins = Discretiser.fit(flat, 16, "uniform")
        model = build(spec, torch.Generator().manual_seed(0), flat, bins)
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
        mask = model.head.predicted(length)
        generator = torch.Generator().manual_seed(0)
        for _ in range(120):
            pick = torch.randint(2048, (48,), generator=generator)
            loss = model.losses(table[pick])
            optimiser.zero_grad()
            loss[:, mask].mean().backward()
            optimiser.step()
        with torch.no_grad():
            found = float(model.head.per_timestep(model.log_density(fresh)).mean())
        below = {"gaussian": 0.3}.get(head, 0.75)  # bins lose what the density varies within them
        assert truth - below < found < truth + 0.02, (layout, head)


def test_a_head_without_a_density_has_none() -> None:
    with pytest.raises(TypeError, match="no density"):
        make(head="mse").log_density(rows(1))
