"""How timesteps become tokens: every layout with every mixer."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from ablate.audit.audit import audit_config
from ablate.errors import UserError
from ablate.models.assembly import build, count_parameters, flops_per_target
from ablate.models.layouts import Layout
from ablate.models.match import given_width, parameters_at, solve_width
from ablate.models.spec import ModelSpec
from ablate.models.stack import Stack
from ablate.models.tokens import BINS, fit_bins, tokenizer
from ablate.registry import names

MIXERS = names("mixer")
LAYOUTS = ("step", "modality", "dimension", "chunk-2")
N, M, Z, K = 3, 2, 2, 4
TOKENS = {  # of a timestep: (action, reward), return-to-go, time, observation
    "modality": ["action", "reward", "return-to-go", "time", "observation"],
    "dimension": [
        *("action_0", "action_1", "reward", "return-to-go", "time"),
        *("observation_0", "observation_1", "observation_2"),
    ],
    "chunk-2": ["action", "reward", "return-to-go", "time", "observation_0", "observation_1"],
    "step": ["row"],
}


def spec(layout: str = "modality", mixer: str = "attention", **options: object) -> ModelSpec:
    timesteps = int(options.get("timesteps", 0))  # type: ignore[call-overload]
    rows = Layout(N, M, Z, "states+actions+rewards", "return-to-go+time", timesteps=timesteps > 0)
    made = ModelSpec(
        mixer, "mse", K, rows.features, M, 8, columns=tuple(rows.columns), layout=layout
    )
    return dataclasses.replace(made, **options)  # type: ignore[arg-type]


def windows(model: ModelSpec, batch: int = 3, length: int = K, seed: int = 0) -> Tensor:
    """Rows (B, L, F); where the model has a table of timesteps they count up from 0, 1, ... ."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(batch, length, model.features, generator=generator, dtype=torch.float64)
    if model.timesteps:
        rows[..., -1] = torch.arange(batch)[:, None] + torch.arange(length)
    rows[:, 0, N : N + M + 1] = 0.0  # what led to the window's first timestep is hidden
    return rows


def make(model: ModelSpec, seed: int = 0):  # type: ignore[no-untyped-def]
    return build(model, torch.Generator().manual_seed(seed)).double().eval()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tokens_stand_in_the_order_before_condition_observation(layout: str) -> None:
    model = spec(layout)
    made = tokenizer(layout)(model)
    assert [token.name for token in made.tokens] == TOKENS[layout]
    before = [token.name for token in made.tokens if token.before]
    assert before == [name for name in TOKENS[layout] if name.startswith(("action", "reward"))]
    assert made.hidden == len(before)
    assert made.length(K) == K * made.per_step - made.hidden
    columns = [n for token in made.tokens for n in range(token.start, token.stop)]
    assert sorted(columns) == list(range(model.features))


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "step"])
@torch.no_grad()
def test_each_token_shows_its_columns_and_its_timestep(layout: str) -> None:
    model = spec(layout, timesteps=6)
    made = tokenizer(layout)(model).double()
    rows = windows(model, batch=4)  # timesteps up to 6, beyond the table
    tokens = made(rows)
    expected = []
    for position in range(K):
        for token in made.tokens:
            if position == 0 and token.before:
                continue
            shown = rows[:, position, token.start : token.stop]
            time = (rows[:, position, -1].long() - int(token.before)).clamp(0, 5)
            expected.append(made.layers[token.name](shown) + made.timesteps.weight[time])
    torch.testing.assert_close(tokens, torch.stack(expected, 1))
    mask = torch.arange(K) < torch.tensor([1, 2, 4, 4])[:, None]
    assert made.mask(mask).sum(1).tolist() == [made.length(n) for n in (1, 2, 4, 4)]
    last = torch.stack([tokens[:, made.length(n) - 1] for n in range(1, K + 1)], 1)
    first, step = made.read
    assert torch.equal(tokens[:, first::step], last)


@torch.no_grad()
def test_the_tokens_of_step_are_one_linear_layer_called_embed() -> None:
    model = dataclasses.replace(spec("step"), columns=())
    policy = make(model)
    assert {"embed.weight", "embed.bias"} <= policy.state_dict().keys()
    rows = windows(model)
    torch.testing.assert_close(policy.embed(rows), rows @ policy.embed.weight.T + policy.embed.bias)


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", [{}, {"timesteps": 5, "token_norm": True}], ids=["", "table"])
@torch.no_grad()
def test_the_three_paths_agree(mixer: str, layout: str, options: dict[str, int]) -> None:
    model = spec(layout, mixer, **options)
    policy = make(model)
    rows = windows(model)
    mask = torch.ones(3, K, dtype=torch.bool)
    everywhere = policy(rows, mask, method="everywhere")
    assert everywhere.shape == (3, K, M)
    state = policy.start(3, rows)
    for index in range(K):
        lengths = torch.full((3,), index + 1)
        torch.testing.assert_close(policy(rows, lengths), everywhere[:, index], rtol=0, atol=1e-12)
        params, state = policy(rows[:, index], state, method="step")
        torch.testing.assert_close(params, everywhere[:, index], rtol=0, atol=1e-12)


@pytest.mark.parametrize("layout", ["modality", "dimension", "chunk-2"])
@torch.no_grad()
def test_what_led_to_the_first_timestep_is_left_out(layout: str) -> None:
    model = spec(layout)
    policy = make(model)
    rows = windows(model)
    altered = rows.clone()
    altered[:, 0, N : N + M + 1] = 7.0
    lengths = torch.tensor([1, 3, 4])
    assert torch.equal(policy(rows, lengths), policy(altered, lengths))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mixer", ["attention", "gru"])
@pytest.mark.parametrize("input_", ["continuous", "discretised"])
def test_a_stack_gives_what_its_policies_give(layout: str, mixer: str, input_: str) -> None:
    model = spec(layout, mixer, timesteps=5, token_norm=True, auxiliary=True, input=input_)
    made = [make(model, seed) for seed in range(3)]
    stack = Stack(copy.deepcopy(made)).eval()
    rows = torch.stack([windows(model, seed=seed) for seed in range(3)])
    lengths = torch.tensor([[1, 2, 4], [4, 4, 3], [2, 1, 1]])
    together = stack(rows, lengths)
    together.square().sum().backward()
    state = stack.start(3, rows)
    with torch.no_grad():
        acted = []
        for index in range(K):
            params, state = stack(rows[:, :, index], state, method="step")
            acted.append(params)
    for replica, policy in enumerate(made):
        alone = policy(rows[replica], lengths[replica])
        torch.testing.assert_close(together[replica], alone, rtol=0, atol=1e-12)
        alone.square().sum().backward()
        for name, parameter in policy.named_parameters():
            grad = stack.named_parameters()[name].grad
            if parameter.grad is None:
                assert grad is None
            else:
                torch.testing.assert_close(grad[replica], parameter.grad, rtol=0, atol=1e-9)
        full = torch.full((3,), K)
        torch.testing.assert_close(acted[-1][replica], policy(rows[replica], full).detach())


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_discretised_input_is_the_embedding_of_each_numbers_bin(layout: str) -> None:
    model = spec(layout, input="discretised")
    generator = torch.Generator().manual_seed(3)
    data = torch.randn(500, model.features, generator=generator)
    bins = fit_bins(data, model)
    policy = build(model, torch.Generator(), discretiser=bins)
    made = policy.embed
    rows = data[: 2 * K].view(2, K, -1)
    tokens = made.group(rows)  # (2, K, n, D)
    for place, token in enumerate(made.tokens):
        table = made.layers[token.name].weight.view(-1, BINS, 8)
        expected = torch.zeros(2, K, 8)
        for slot, column in enumerate(range(token.start, token.stop)):
            rank = (data[:, column] <= rows[..., column, None]).sum(-1) - 1  # of 500, five a bin
            expected += table[slot][rank // 5]
        torch.testing.assert_close(tokens[:, :, place], expected)
    # a nudge within a bin changes nothing
    middle = bins.decode(bins.encode(rows))
    assert torch.equal(made(middle), made(rows))


def test_the_bins_travel_with_the_weights() -> None:
    model = spec(input="discretised", timesteps=5)
    data = torch.randn(300, model.features)
    bins = fit_bins(data, model)
    one = build(model, torch.Generator().manual_seed(0), discretiser=bins)
    other = build(model, torch.Generator().manual_seed(1))
    rows = windows(model).float()
    assert not torch.equal(one(rows, torch.tensor([4, 4, 4])), other(rows, torch.tensor([4, 4, 4])))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(rows, torch.tensor([4, 4, 4])), other(rows, torch.tensor([4, 4, 4])))
    with pytest.raises(ValueError, match="8 columns have bins, not 3"):
        build(
            ModelSpec("gru", "mse", 2, 3, 1, 4, input="discretised"), torch.Generator(), None, bins
        )


@pytest.mark.parametrize("input_", ["continuous", "discretised"])
def test_asking_for_derivatives_of_the_input_changes_no_output(input_: str) -> None:
    model = spec("modality", timesteps=6, input=input_)
    policy, rows = make(model), windows(model, batch=4)
    lengths = torch.tensor([4, 4, 4, 4])
    plain = policy(rows, lengths)
    asked = rows.clone().requires_grad_()
    out = policy(asked, lengths)
    assert torch.equal(plain, out)
    (grad,) = torch.autograd.grad(out.square().sum(), asked)
    seen = grad != 0
    seen[:, 0, N : N + M + 1] = True  # hidden
    assert seen[:3].all()
    assert seen[3, :, :-1].all()  # the fourth window ends at timestep 6, beyond the table's 0 ... 5


@pytest.mark.parametrize("options", [{"timesteps": 60}, {"input": "discretised"}])
def test_a_recurrence_passes_the_audit_over_many_lookups(options: dict[str, int]) -> None:
    result = audit_config(
        "gru", 10, "states+actions+returns", "return-to-go", layout="modality", **options
    )
    assert result.passed, result.findings


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", [{}, {"timesteps": 100, "auxiliary": True}, {"heads": 4}])
def test_widths_are_solved_for_in_every_layout(layout: str, options: dict[str, int]) -> None:
    model = spec(layout, **options)
    matched = solve_width(model, 40_000, 0.05)
    assert matched.width % model.heads == 0
    policy = build(model.at(matched.width), torch.Generator())
    assert count_parameters(policy) == matched.parameters == parameters_at(model, matched.width)
    assert given_width(model.at(matched.width)).parameters == matched.parameters


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match=r"model.width: found 10; .* multiples of 4 are allowed"):
        given_width(spec(heads=4, width=10))


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_flops_per_target_agrees_with_a_count(layout: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from ablate.models.mixer import set_stacked

    model = spec(layout, "gru")
    policy = build(model, torch.Generator()).eval()
    set_stacked(policy, True)
    with FlopCounterMode(display=False) as counter:
        policy(torch.zeros(1, K, model.features), torch.tensor([K]))
    assert flops_per_target(model) == counter.get_total_flops()


@pytest.mark.parametrize("mixer", ["attention", "gru"])
def test_tokens_are_dropped_in_training_only(mixer: str) -> None:
    model = spec("modality", mixer, embedding_dropout=0.5)
    policy = make(model)
    rows, lengths = windows(model), torch.tensor([1, 3, 4])
    assert torch.equal(policy(rows, lengths), policy(rows, lengths))
    policy.train()
    assert not torch.equal(policy(rows, lengths), policy(rows, lengths))
    # once: a mixer that drops its input by itself isn't given dropped tokens
    dropping = [policy.embed.drop.probability, getattr(policy.mixer.drop, "probability", 0.0)]
    assert sorted(dropping) == [0.0, 0.5]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"layout": "modlity"}, "layout: 'modlity' is not known; .* Did you mean 'modality'"),
        ({"layout": "chunk-0"}, "layout: 'chunk-0' is not known"),
        ({"mixer": "gru", "heads": 2}, "model.heads: found '2', but the mixer 'gru' has no such"),
        ({"mixer": "mlp", "positions": "rotary"}, "model.positions: found 'rotary'"),
        ({"mixer": "lstm", "activation": "relu"}, "model.activation: .*; allowed: gelu."),
        ({"mixer": "gru", "window": 2}, "model.window: "),
    ],
)
def test_what_a_model_does_not_have_is_refused_in_one_line(
    options: dict[str, object], line: str
) -> None:
    with pytest.raises(UserError, match=line) as refusal:
        build(spec(**options), torch.Generator())
    assert "\n" not in str(refusal.value)


def test_a_row_of_nameless_numbers_can_be_cut_too() -> None:
    model = ModelSpec("gru", "mse", 2, 5, 1, 4, layout="dimension")
    assert len(tokenizer("dimension")(model).tokens) == 5
    assert np.isfinite(
        build(model, torch.Generator())(torch.ones(1, 2, 5), torch.tensor([2])).item()
    )


def test_the_table_of_timesteps_starts_as_wide_as_asked() -> None:
    released = make(spec("modality", timesteps=2000)).embed.timesteps
    small = make(spec("modality", timesteps=2000, timestep_std=0.02)).embed.timesteps
    assert released is not None
    assert small is not None
    assert float(released.weight.std()) == pytest.approx(1.0, rel=0.02)
    assert float(small.weight.std()) == pytest.approx(0.02, rel=0.02)
    assert abs(float(small.weight.mean())) < 1e-3
