"""Assembly, initialisation, matching, counting."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ablate.errors import UserError
from ablate.models.assembly import build, count_parameters, flops_per_target
from ablate.models.match import parameters_at, solve_width
from ablate.models.mixer import set_stacked
from ablate.models.spec import ModelSpec
from ablate.registry import names

MIXERS, HEADS = names("mixer"), names("head")
SPEC = ModelSpec("attention", "mse", context=4, features=5, action_dim=2, width=8)


def test_initial_weights_come_from_the_generator_alone() -> None:
    one = build(SPEC, torch.Generator().manual_seed(1)).state_dict()
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    two = build(SPEC, torch.Generator().manual_seed(1)).state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    other = build(SPEC, torch.Generator().manual_seed(2)).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["embed.weight"], other["embed.weight"])


def test_one_generator_builds_different_policies_in_turn() -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = build(SPEC, generator), build(SPEC, generator)
    assert not torch.equal(first.embed.weight, second.embed.weight)


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_the_three_paths_agree(mixer: str, head: str) -> None:
    spec = ModelSpec(mixer, head, context=4, features=5, action_dim=2, width=8)
    policy = build(spec, torch.Generator().manual_seed(0)).double().eval()
    features = torch.randn(3, 4, 5, dtype=torch.float64)
    lengths = torch.tensor([4, 4, 4])
    everywhere = policy(features, torch.ones(3, 4, dtype=torch.bool), method="everywhere")
    torch.testing.assert_close(policy(features, lengths), everywhere[:, -1], rtol=0, atol=1e-12)
    state = policy.start(3, features)
    for index in range(4):
        params, state = policy(features[:, index], state, method="step")
        torch.testing.assert_close(params, everywhere[:, index], rtol=0, atol=1e-12)


def test_an_unknown_path_is_refused() -> None:
    policy = build(SPEC, torch.Generator())
    with pytest.raises(ValueError, match="unknown method 'forward'; allowed: last, everywhere"):
        policy(method="forward")


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("context", [1, 5, 20, 21])
@pytest.mark.parametrize("budget", [16_000, 727_000])
def test_parameters_match_within_five_per_cent(mixer: str, context: int, budget: int) -> None:
    for head in HEADS if mixer == "attention" else ("mse", "mixture"):
        for features, action_dim in [(11, 2), (14, 3), (20, 4)]:
            spec = ModelSpec(mixer, head, context, features, action_dim)
            matched = solve_width(spec, budget, 0.05)
            assert abs(matched.mismatch) <= 0.05
            assert matched.mismatch == (matched.parameters - budget) / budget
            assert parameters_at(spec, matched.width) == matched.parameters


@pytest.mark.parametrize("context", [1, 2, 3, 7, 20, 64, 255, 256])
@pytest.mark.parametrize("budget", [8_000, 40_000, 300_000, 2_000_000])
def test_the_mlp_matches_at_any_context(context: int, budget: int) -> None:
    assert abs(solve_width(ModelSpec("mlp", "mse", context, 14, 3), budget, 0.05).mismatch) <= 0.05


@pytest.mark.parametrize("mixer", MIXERS)
def test_counting_on_paper_equals_counting_weights(mixer: str) -> None:
    spec = ModelSpec(mixer, "mixture", 5, 11, 3)
    matched = solve_width(spec, 16_000, 0.05)
    policy = build(spec.at(matched.width), torch.Generator())
    assert count_parameters(policy) == matched.parameters
    nearest = min(
        range(matched.width - 2, matched.width + 3),
        key=lambda width: abs(parameters_at(spec, width) - 16_000),
    )
    assert nearest == matched.width


def test_an_impossible_number_of_parameters_is_refused_in_one_line() -> None:
    with pytest.raises(UserError) as refusal:
        solve_width(ModelSpec("attention", "mse", 20, 11, 3), 100, 0.05)
    assert "cannot have 100 parameters to within 5.0%; nearest: " in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("mixer", MIXERS)
@torch.no_grad()
def test_flops_per_target_agrees_with_a_count(mixer: str) -> None:
    spec = ModelSpec(mixer, "mixture", 6, 11, 3, width=10)
    policy = build(spec, torch.Generator()).eval()
    set_stacked(policy, True)
    with FlopCounterMode(display=False) as counter:
        policy(torch.zeros(1, 6, 11), torch.tensor([6]))
    assert flops_per_target(spec) == counter.get_total_flops()
