"""Value networks are plain perceptrons, many at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from learn_samples import STUDY, stack_and_source, train_config
from torch import nn

from ablate.learn import values
from ablate.learn.values import Perceptrons, ValueNetworks, View, follow_, frozen_copy
from ablate.registry import get


def perceptrons(count: int, actions: int = 2, width: int = 8, layers: int = 2) -> Perceptrons:
    generators = [torch.Generator().manual_seed(seed) for seed in range(count)]
    made = Perceptrons(generators, 5, actions, width, layers)
    made.apply(lambda tensor: tensor.double().requires_grad_())
    return made


def as_module(made: Perceptrons, index: int) -> nn.Sequential:
    """The same network in PyTorch's own parts."""
    parts: list[nn.Module] = []
    for layer, (weight, bias) in enumerate(zip(made.weights, made.biases, strict=True)):
        whole = weight[index].detach()
        if layer == 0 and made.of_action is not None:
            whole = torch.cat([whole, made.of_action[index].detach()], dim=-1)
        linear = nn.Linear(whole.shape[1], whole.shape[0]).double()
        linear.weight.data.copy_(whole)
        linear.bias.data.copy_(bias[index].detach())
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def test_they_are_what_pytorch_makes_of_the_same_weights() -> None:
    made, inputs = perceptrons(3), torch.randn(3, 7, 5, dtype=torch.float64)
    actions = torch.randn(3, 7, 2, dtype=torch.float64)
    found = made(inputs, actions, 3, False)
    for index in range(3):
        plain = as_module(made, index)(torch.cat([inputs[index], actions[index]], -1))
        torch.testing.assert_close(found[index], plain.squeeze(-1))
    torch.testing.assert_close(made(inputs, actions, 2, True), found[:2])
    without = perceptrons(1, actions=0)
    plain = as_module(without, 0)(inputs[:1]).squeeze(-1)
    torch.testing.assert_close(without(inputs[:1], None, 1, False), plain)


def test_many_actions_of_one_input_are_valued_as_one_by_one() -> None:
    made, inputs = perceptrons(2), torch.randn(2, 7, 5, dtype=torch.float64)
    actions = torch.randn(2, 7, 4, 2, dtype=torch.float64)
    found = made(inputs, actions, 2, False)
    assert found.shape == (2, 7, 4)
    for place in range(4):
        torch.testing.assert_close(found[..., place], made(inputs, actions[:, :, place], 2, False))


@pytest.mark.parametrize("many", [False, True])
def test_the_form_for_a_gpu_gives_the_same_values_and_gradients(many: bool) -> None:
    made, inputs = perceptrons(3), torch.randn(3, 7, 5, dtype=torch.float64)
    shape = (3, 7, 4, 2) if many else (3, 7, 2)
    actions = torch.randn(shape, dtype=torch.float64)
    found = made(inputs, actions, 3, False)
    other = values._values(made.parameters(), inputs, actions, values._batched)
    torch.testing.assert_close(other, found)
    for one, two in zip(
        torch.autograd.grad(found.square().sum(), made.parameters()),
        torch.autograd.grad(other.square().sum(), made.parameters()),
        strict=True,
    ):
        torch.testing.assert_close(one, two)


def test_as_constants_only_the_action_gets_a_gradient() -> None:
    made = perceptrons(2)
    actions = torch.zeros(2, 7, 2, dtype=torch.float64, requires_grad=True)
    made(torch.ones(2, 7, 5, dtype=torch.float64), actions, 2, True).sum().backward()
    assert actions.grad is not None
    assert actions.grad.any()
    assert all(parameter.grad is None for parameter in made.parameters())


def test_weights_start_as_those_of_a_linear_layer() -> None:
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    made = Perceptrons(generators, 5, 2, 400, 2)
    for weight, inputs in zip([*made.weights, made.of_action], [7, 400, 400, 7], strict=True):
        assert weight is not None
        bound = inputs**-0.5
        assert float(weight.abs().max()) <= bound
        assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.15)


def test_orthogonal_weights_are_orthogonal() -> None:
    made = Perceptrons([torch.Generator().manual_seed(1)], 5, 2, 16, 2)
    made.make_orthogonal([torch.Generator().manual_seed(2)])
    assert made.of_action is not None
    first = torch.cat([made.weights[0], made.of_action], -1)[0]  # (16, 7)
    torch.testing.assert_close(first.T @ first, 2.0 * torch.eye(7), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        made.weights[1][0] @ made.weights[1][0].T, 2.0 * torch.eye(16), atol=1e-5, rtol=0
    )
    assert float(made.weights[2].norm()) == pytest.approx(0.01)
    assert not any(bias.any() for bias in made.biases)


def networks(seeds: list[int], context: int, mixer: str = "gru") -> tuple[ValueNetworks, View]:
    stack, source = stack_and_source(mixer, context, seeds, head="mse", dtype=torch.float64)
    made = ValueNetworks(
        stack.spec, STUDY, seeds, "critic", networks=2, actions=2, width=8, layers=2,
        device=torch.device("cpu"), dtype=torch.float64,
    )  # fmt: skip
    targets = torch.tensor([3, 9, 10, 21]).expand(len(seeds), -1)
    features, _, lengths = source.ending(targets)
    return made, View(features, lengths)


@pytest.mark.parametrize("context", [1, 3])
def test_seeds_at_once_are_valued_as_each_alone(context: int) -> None:
    together, view = networks([0, 3], context)
    actions = torch.randn(2, 4, 2, dtype=torch.float64)
    found = together(view, actions)
    assert found.shape == (2, 2, 4)
    assert not torch.equal(found[0], found[1])
    for place, seed in enumerate([0, 3]):
        alone, own = networks([seed], context)
        torch.testing.assert_close(
            alone(own, actions[place : place + 1])[:, 0], found[:, place], rtol=0, atol=1e-12
        )


def test_the_present_row_is_the_last_of_the_window() -> None:
    _, view = networks([0], 3)
    for place, length in enumerate(view.lengths[0].tolist()):
        assert torch.equal(view.row[0, place], view.features[0, place, length - 1])


def test_a_target_network_moves_by_tau_and_nothing_else_does() -> None:
    made, view = networks([0, 1], 3)
    target = made.frozen_copy()
    before = [parameter.detach().clone() for parameter in target.parameters()]
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter))
    now = [parameter.detach().clone() for parameter in made.parameters()]
    follow_(target.parameters(), made.parameters(), 0.25)
    for moved, old, new in zip(target.parameters(), before, now, strict=True):
        torch.testing.assert_close(moved, 0.75 * old + 0.25 * new, rtol=0, atol=1e-12)
        assert not moved.requires_grad
    assert all(map(torch.equal, made.parameters(), now))
    assert not target(view, torch.zeros(2, 4, 2, dtype=torch.float64)).requires_grad


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_a_frozen_policy_is_a_copy(seeds: list[int]) -> None:
    stack, _ = stack_and_source("gru", 3, seeds)
    copied = frozen_copy(stack)
    kept = [parameter.clone() for parameter in copied.parameters()]
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.add_(1.0)
    assert all(map(torch.equal, copied.parameters(), kept))
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    assert all(parameter.requires_grad for parameter in stack.parameters())


def made_objective(seeds: list[int], **settings: Any) -> Any:
    stack, source = stack_and_source("mlp", 1, seeds, head="mse")
    return get("algorithm", "td3+bc")(stack, source, train_config(), settings, STUDY, seeds)


def test_noise_is_each_seeds_own_and_can_be_drawn_again_from_any_update() -> None:
    both, one = made_objective([0, 5]), made_objective([5])
    first = both.noise(3, "normal", 16, 2).clone()
    assert torch.equal(first[1:], one.noise(3, "normal", 16, 2))
    assert not torch.equal(first, both.noise(4, "normal", 16, 2))
    later = both.noise(70, "normal", 16, 2).clone()
    assert torch.equal(first, both.noise(3, "normal", 16, 2))
    assert torch.equal(later, made_objective([0, 5]).noise(70, "normal", 16, 2))
    uniform = both.noise(0, "uniform", 500, 2)
    assert 0.0 <= float(uniform.min()) < 0.01
    assert 0.99 < float(uniform.max()) < 1.0


def test_rewards_are_scaled_by_the_range_of_returns() -> None:
    plain, scaled = (
        made_objective([0]),
        made_objective([0], return_range=1000.0, reward_shift=-1.0),
    )
    returns = plain.backup.seen.returns
    factor = 1000.0 / float(returns.max() - returns.min())
    torch.testing.assert_close(scaled.backup.rewards, plain.backup.rewards * factor - 1.0)


def test_transitions_without_a_known_successor_do_not_count() -> None:
    made = made_objective([0])
    assert made.backup.seen.counted is not None  # the sample's episodes end by time-out
    targets = torch.tensor([[7, 8, 9]])  # row 8 ends the first episode
    assert float(made.backup.mean(torch.tensor([[1.0, 50.0, 3.0]]), targets)) == 2.0
    alone = torch.tensor([[8]])
    assert float(made.backup.mean(torch.tensor([[50.0]]), alone)) == 0.0
