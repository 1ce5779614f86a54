"""The joint model: released sizes and forward pass, causality, densities against closed forms."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from ablate.models.trajectory import (
    COMPONENTS,
    HEADS,
    INPUTS,
    TrajectoryModel,
    TrajectorySpec,
    bounded,
    build_trajectory_model,
)
from torch import Tensor

from ablate.errors import UserError
from ablate.models.discretise import Discretiser

N, M, BINS, WINDOW = 3, 2, 7, 4
D = N + M + 2
LAYOUTS = ("dimension", "chunk-2", "modality", "step")
DATA = np.random.default_rng(0).normal(size=(600, D)) * np.linspace(0.5, 3, D) + 1.0


def make(dtype: torch.dtype = torch.float64, **changes: Any) -> TrajectoryModel:
    shape = {"window": WINDOW, "bins": BINS, "width": 16, "heads": 2, "layers": 2, "dropout": 0.0}
    spec = TrajectorySpec(N, M, **(shape | changes))
    model = build_trajectory_model(
        spec,
        torch.Generator().manual_seed(1),
        Discretiser.fit(DATA, BINS),
        DATA.mean(0),
        DATA.std(0),
    )
    with torch.no_grad():  # away from the small initial weights, so that every part tells
        for parameter in model.parameters():
            parameter.add_(
                0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
            )
    return model.to(dtype).eval()


def rows(batch: int = 2, length: int = WINDOW, seed: int = 5) -> Tensor:
    index = np.random.default_rng(seed).integers(len(DATA), size=(batch, length))
    return torch.from_numpy(DATA[index])


@pytest.mark.parametrize(
    ("observation", "action", "block", "parameters"),
    [(11, 3, 159, 1_225_472), (17, 6, 249, 1_468_544)],
)
def test_released_sizes(observation: int, action: int, block: int, parameters: int) -> None:
    data = np.random.default_rng(0).normal(size=(500, observation + action + 2))
    model = TrajectoryModel(TrajectorySpec(observation, action), Discretiser.fit(data, 100))
    assert model.spec.block == block
    assert sum(p.numel() for p in model.parameters()) == parameters


def plain_forward(model: TrajectoryModel, tokens: Tensor) -> Tensor:
    """The released forward pass, restated: tokens (T,) of one sequence to logits (T, N+1)."""
    weights = dict(model.named_parameters())
    slots, bins, heads = D, BINS, model.spec.heads
    stop = slots * bins
    x = []
    for place, token in enumerate(tokens.tolist()):
        index = stop if token == bins else token + bins * (place % slots)
        x.append(weights["embed.weight"][index] + weights["positions"][place])
    x = torch.stack(x)
    length, width = x.shape

    def norm(values: Tensor, name: str) -> Tensor:
        mean, var = values.mean(-1, keepdim=True), values.var(-1, unbiased=False, keepdim=True)
        scaled = (values - mean) / torch.sqrt(var + 1e-5)
        return scaled * weights[name + ".weight"] + weights[name + ".bias"]

    mask = torch.tril(torch.ones(length, length))
    mask[:, slots - 1 :: slots] = 0
    for number in range(model.spec.layers):
        name = f"blocks.{number}."
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
    return torch.stack([weights["head"][place % slots] @ x[place] for place in range(length)])


def test_the_forward_pass_is_the_released_one() -> None:
    model = make()
    tokens = model.encode(rows(2))
    tokens[1, 2:] = BINS  # an early end
    params = model(tokens).flatten(1, 2)  # (B, L D, N+1): of the slot itself
    for row in range(2):
        flat = tokens[row].flatten()
        # The released head of slot i is applied to the token of slot i and predicts the one after it.
        released = plain_forward_with_next_head(model, flat[:-1])
        torch.testing.assert_close(params[row, 1:], released)


def plain_forward_with_next_head(model: TrajectoryModel, tokens: Tensor) -> Tensor:
    """Here the output matrix of a slot is stored with the slot predicted, there with the slot read."""
    turned = make()
    turned.load_state_dict(model.state_dict())
    with torch.no_grad():
        turned.head.copy_(model.head.roll(-1, 0))
    return plain_forward(turned, tokens)


CASES = list(product(LAYOUTS, HEADS, INPUTS))


@pytest.mark.parametrize(("layout", "head", "given"), CASES)
def test_no_slot_depends_on_later_ones_and_nothing_on_past_values(
    layout: str, head: str, given: str
) -> None:
    model = make(layout=layout, head=head, input=given)
    one = rows(1)
    order = stream_order(layout)
    base = model(model.encode(one), model.discretiser.encode(one))  # type: ignore[union-attr]
    for place in range(0, len(order), 3):
        t, slot = order[place]
        other = one.clone()
        other[0, t, slot] = (
            DATA[:, slot].max() if one[0, t, slot] < DATA[:, slot].mean() else DATA[:, slot].min()
        )
        moved = model(model.encode(other), model.discretiser.encode(other))  # type: ignore[union-attr]
        changed = (moved - base).abs().amax(-1)[0] > 1e-12  # (L, D)
        for earlier in order[: place + 1]:
            assert not changed[earlier]
        later = [entry for entry in order[place + 1 :] if changed[entry]]
        if slot == D - 1:  # a value: read by its own token alone, for what follows at once
            assert all(entry[0] == t + 1 and entry[1] < N for entry in later)
        elif t < WINDOW - 1:
            assert later


def stream_order(layout: str) -> list[tuple[int, int]]:
    """(timestep, slot) in the order of prediction, the same for all layouts."""
    return [(t, slot) for t in range(WINDOW) for slot in range(D)]


@pytest.mark.parametrize(("layout", "head", "given"), CASES)
def test_slots_from_one_token_at_a_time_are_those_of_the_window(
    layout: str, head: str, given: str
) -> None:
    model = make(layout=layout, head=head, input=given)
    entries = model.encode(rows(2))
    whole = model(entries, entries if given == "discretised" else model.discretiser.encode(rows(2)))  # type: ignore[union-attr]
    shown = model.predicted(WINDOW)
    if head == "autoregressive":
        assert whole.shape == (2, WINDOW, D, BINS + 1)
        return
    features = model._features_of_slots(model.features(entries), WINDOW)
    for slot in range(D):
        params = model.slot_parameters(features[:, :, slot], slot)
        torch.testing.assert_close(params[:, shown[:, slot]], whole[:, shown[:, slot], slot])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gaussian_density_is_scipys(layout: str) -> None:
    model = make(layout=layout, head="gaussian", input="continuous")
    some = rows(2)
    params = model(model.encode(some))
    mean = params[..., 0] * model.std + model.mean
    std = bounded(params[..., 1]).exp() * model.std
    expected = torch.from_numpy(
        scipy.stats.norm.logpdf(some, mean.detach().numpy(), std.detach().numpy())
    )
    each = model.log_density(some)
    torch.testing.assert_close(each[:, 1:], expected[:, 1:])
    torch.testing.assert_close(each[:, 0, N:], expected[:, 0, N:])
    assert (each[:, 0, :N] == 0).all()
    total = expected[:, :-1, N:].sum(-1) + expected[:, 1:, :N].sum(-1)
    torch.testing.assert_close(model.per_timestep(each), total)


@pytest.mark.parametrize("layout", ["modality", "step"])
def test_mixture_density_is_the_mixture_of_products(layout: str) -> None:
    model = make(layout=layout, head="mixture", input="continuous")
    some = rows(1)
    params = model(model.encode(some))[0]
    means, scales, logits = (part.detach().numpy() for part in params.split([COMPONENTS] * 3, -1))
    values = ((some[0] - model.mean) / model.std).numpy()
    stds = bounded(torch.from_numpy(scales)).exp().numpy()
    jacobian = model.std.log().numpy()
    tokens = {
        "modality": [[(1, slot) for slot in range(N)], [(1, N), (1, N + 1)]],
        "step": [[(1, slot) for slot in range(N, D)] + [(2, slot) for slot in range(N)]],
    }[layout]
    each = model.log_density(some)[0].detach()
    for token in tokens:
        first = token[0]
        log_weights = torch.from_numpy(logits[first]).log_softmax(-1).numpy()
        parts = log_weights + sum(
            scipy.stats.norm.logpdf(values[entry], means[entry], stds[entry]) for entry in token
        )
        expected = scipy.special.logsumexp(parts) - sum(jacobian[entry[1]] for entry in token)
        assert sum(float(each[entry]) for entry in token) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("layout", "head", "given"), [c for c in CASES if c[1] != "mse"])
def test_densities_integrate_to_one(layout: str, head: str, given: str) -> None:
    model = make(layout=layout, head=head, input=given)
    one = rows(1)
    slot, t = D - 2, WINDOW - 1  # a reward
    assert model.discretiser is not None
    if model.spec.discrete:
        grid = model.discretiser.centres[slot][model.discretiser.valid[slot]]
        weight = model.discretiser.widths[slot][model.discretiser.valid[slot]]
    else:
        grid = torch.linspace(-60, 60, 6001) * model.std[slot] + model.mean[slot]
        weight = grid.diff()[0].expand(len(grid))
    many = one.expand(len(grid), -1, -1).clone()
    many[:, t, slot] = grid
    density = model.log_density(many)[:, t, slot].exp()
    total = float((density * weight).sum().detach())
    if model.spec.discrete:  # the stop token has the rest
        params = model(model.encode(many[:1]), model.discretiser.encode(many[:1]))[0, t, slot]
        total += float(model.log_probabilities(params, slot)[-1].exp().detach())
    assert total == pytest.approx(1.0, abs=1e-3 if not model.spec.discrete else 1e-9)


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
        spec = TrajectorySpec(
            1,
            1,
            layout,
            head,
            given,
            window=length,
            bins=16,
            width=32,
            layers=1,
            heads=2,
            dropout=0.0,
        )
        model = build_trajectory_model(
            spec,
            torch.Generator().manual_seed(0),
            Discretiser.fit(flat, 16, "uniform"),
            flat.mean(0),
            flat.std(0),
        )
        optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
        entries = model.encode(table)
        tokens = model.discretiser.encode(table)  # type: ignore[union-attr]
        mask = model.predicted(length)
        generator = torch.Generator().manual_seed(0)
        for _ in range(250):
            pick = torch.randint(2048, (48,), generator=generator)
            loss = model.loss(model(entries[pick], tokens[pick]), table[pick], tokens[pick])
            optimiser.zero_grad()
            loss[:, mask].mean().backward()
            optimiser.step()
        with torch.no_grad():
            found = float(model.per_timestep(model.log_density(fresh)).mean())
        below = {"gaussian": 0.3}.get(head, 0.75)  # bins lose what the density varies within them
        assert truth - below < found < truth + 0.02, (layout, head)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("given", INPUTS)
def test_a_goal_stands_before_the_sequence_under_the_unchanged_mask(
    layout: str, given: str
) -> None:
    model = make(layout=layout, input=given, goal=(0, 2))
    entries = model.encode(rows(1))
    goal = model.encode_goal(rows(1)[:, 2, [0, 2]])
    assert torch.equal(goal, entries[:, 2, [0, 2]])
    other = goal.flip(-1) if given == "continuous" else (goal + 1) % BINS
    base, moved = model(entries, goal=goal), model(entries, goal=other)
    if given == "discretised":
        assert ((moved - base).abs().amax(-1)[0] > 1e-9)[model.predicted(WINDOW)].all()
    changed = entries.clone()
    changed[0, 0, D - 1] = 0 if entries[0, 0, D - 1] else 1
    seen = (model(changed, goal=goal) - base).abs().amax(-1)[0] > 1e-12
    assert not seen[2:].any()  # the value mask lies where the values are
    with pytest.raises(ValueError, match="goal"):
        model(entries)


def test_rotary_positions_hold_windows_longer_than_trained() -> None:
    model = make(positions="rotary")
    assert model(model.encode(rows(1, length=9))).shape == (1, 9, D, BINS + 1)
    with pytest.raises(ValueError, match="exceed the window"):
        make()(model.encode(rows(1, length=9)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "chunk-0"}, "layout"),
        ({"layout": "modal"}, "Did you mean 'modality'"),
        ({"head": "gauss"}, "Did you mean 'gaussian'"),
        ({"input": "discrete"}, "Did you mean 'discretised'"),
        ({"positions": "rope"}, "positions"),
        ({"window": 0}, "at least 1"),
        ({"goal": (0, N)}, "goal"),
        ({"width": 6, "heads": 2}, "even number"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrajectorySpec(N, M, **changes)


def test_missing_parts_are_refused() -> None:
    with pytest.raises(UserError, match="needs a discretiser"):
        TrajectoryModel(TrajectorySpec(N, M))
    with pytest.raises(UserError, match="needs mean and std"):
        TrajectoryModel(
            TrajectorySpec(N, M, head="gaussian", bins=BINS), Discretiser.fit(DATA, BINS)
        )
    with pytest.raises(UserError, match="7 of 9"):
        TrajectoryModel(TrajectorySpec(N, M, bins=9), Discretiser.fit(DATA, BINS))
    with pytest.raises(TypeError, match="no density"):
        make(head="mse").log_density(rows(1))
