"""A stack of S replicas equals S single ones."""

import copy

import numpy as np
import pytest
import torch

from ablate.models.assembly import Model, ModelSpec, build
from ablate.models.stack import Stack
from ablate.registry import names

MIXERS, HEADS = names("mixer"), names("head")
SIZE, BATCH, CONTEXT, FEATURES, ACTIONS = 3, 8, 4, 5, 2
SEEN = np.random.default_rng(0).normal(0, 1, (200, ACTIONS)).clip(-1, 1)


def policies(
    mixer: str, head: str, dtype: torch.dtype = torch.float64, dropout: float = 0.0
) -> list[Model]:
    spec = ModelSpec(mixer, head, CONTEXT, FEATURES, ACTIONS, width=6, dropout=dropout)
    generator = torch.Generator().manual_seed(0)
    return [build(spec, generator, SEEN).to(dtype) for _ in range(SIZE)]


def batch(seed: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(SIZE, BATCH, CONTEXT, FEATURES, generator=generator, dtype=dtype)
    lengths = torch.randint(1, CONTEXT + 1, (SIZE, BATCH), generator=generator)
    actions = torch.rand(SIZE, BATCH, ACTIONS, generator=generator, dtype=dtype) * 2 - 1
    return features, lengths, actions


def train(stack: Stack, part: slice, dtype: torch.dtype, method: str) -> list[torch.Tensor]:
    """Five updates on the replicas `part` of the batches; the gradient norms of each."""
    # eps above rounding error: Adam turns noise in a gradient that should be zero into a full step
    optimiser = torch.optim.AdamW(stack.parameters(), 1e-2, eps=1e-5)
    norms = []
    for update in range(5):
        features, lengths, actions = (values[part] for values in batch(update, dtype))
        if method == "last":
            loss = stack.head.loss(stack(features, lengths), actions)
        else:
            mask = torch.arange(CONTEXT) < lengths[..., None]
            losses = stack.head.loss(stack(features, mask, method=method), actions[:, :, None])
            loss = (losses * mask).sum(2) / mask.sum(2)
        optimiser.zero_grad()
        loss.mean(1).sum().backward()
        norms.append(stack.clip_(0.5))
        optimiser.step()
    return norms


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("dtype", "method", "tolerance"),
    [
        (torch.float64, "last", 1e-10),
        (torch.float32, "last", 1e-5),
        (torch.float64, "everywhere", 1e-10),
    ],
)
def test_training_a_stack_equals_training_single_policies(
    mixer: str, head: str, dtype: torch.dtype, method: str, tolerance: float
) -> None:
    made = policies(mixer, head, dtype)
    stack = Stack(copy.deepcopy(made))
    together = train(stack, slice(0, SIZE), dtype, method)
    states = stack.state_dicts()
    for replica, policy in enumerate(made):
        alone = Stack([policy])
        norms = train(alone, slice(replica, replica + 1), dtype, method)
        for one, all_ in zip(norms, together, strict=True):
            torch.testing.assert_close(one[0], all_[replica], rtol=1e-4, atol=tolerance)
        for name, values in alone.state_dicts()[0].items():
            torch.testing.assert_close(states[replica][name], values, rtol=0, atol=tolerance)


@pytest.mark.parametrize("mixer", MIXERS)
@torch.no_grad()
def test_acting_as_a_stack_equals_acting_singly(mixer: str) -> None:
    made = policies(mixer, "mixture")
    stack = Stack(made).eval()
    features, _, _ = batch(0)
    state = stack.start(BATCH, features)
    singly = [policy.start(BATCH, features) for policy in made]
    for index in range(CONTEXT):
        params, state = stack(features[:, :, index], state, method="step")
        for replica, policy in enumerate(made):
            row = features[replica, :, index]
            alone, singly[replica] = policy(row, singly[replica], method="step")
            torch.testing.assert_close(params[replica], alone, rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_stack_of_one_takes_the_plain_path_with_the_same_shapes() -> None:
    (policy, *_) = policies("gru", "mse")
    stack = Stack([policy])
    assert stack.parameters()[0] is next(iter(policy.parameters()))
    features, lengths, _ = batch(0)
    assert torch.equal(stack(features[:1], lengths[:1])[0], policy(features[0], lengths[0]))
    state = stack.start(BATCH, features)
    assert state[0].shape == (1, BATCH, 6)
    params, state = stack(features[:1, :, 0], state, method="step")
    assert params.shape == (1, BATCH, ACTIONS)
    assert state[0].shape == (1, BATCH, 6)


def test_clipping_is_torchs_own_for_each_replica() -> None:
    made = policies("mlp", "mse")
    stack = Stack(copy.deepcopy(made))
    features, lengths, actions = batch(0)
    scale = torch.tensor([100.0, 1e-4, 1.0])  # one clipped, one not
    losses = stack.head.loss(stack(features, lengths), actions).mean(1) * scale
    losses.sum().backward()
    norms = stack.clip_(0.25)
    for replica, policy in enumerate(made):
        out = policy.head.loss(policy(features[replica], lengths[replica]), actions[replica])
        (out.mean() * scale[replica]).backward()
        expected = torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.25)
        torch.testing.assert_close(norms[replica], expected)
        for ours, theirs in zip(stack.parameters(), policy.parameters(), strict=True):
            torch.testing.assert_close(ours.grad[replica], theirs.grad)


def test_gradients_do_not_leak_between_replicas() -> None:
    stack = Stack(policies("attention", "mixture"))
    features, lengths, actions = batch(0)
    stack.head.loss(stack(features, lengths), actions)[1].sum().backward()
    for parameter in stack.parameters():
        assert (parameter.grad[[0, 2]] == 0).all()


@pytest.mark.parametrize("mixer", MIXERS)
def test_every_replica_draws_its_own_dropout(mixer: str) -> None:
    policy = policies(mixer, "mse", dropout=0.5)[0]
    stack = Stack([copy.deepcopy(policy) for _ in range(SIZE)]).train()
    features, lengths, _ = (values[:1].expand(SIZE, *values.shape[1:]) for values in batch(0))
    torch.manual_seed(0)
    out = stack(features, lengths)
    assert not torch.allclose(out[0], out[1])
    torch.manual_seed(0)
    assert torch.equal(out, stack(features, lengths))
    still = stack.eval()(features, lengths)
    torch.testing.assert_close(still[0], still[1])


def test_states_travel_between_stacks_of_any_size() -> None:
    made = policies("lstm", "categorical")
    stack = Stack(copy.deepcopy(made))
    for policy, state in zip(made, stack.state_dicts(), strict=True):
        assert state.keys() == policy.state_dict().keys()
        policy.load_state_dict(state)
    other = Stack(made)
    features, lengths, _ = batch(0)
    assert torch.equal(other(features, lengths), stack(features, lengths))
    single = Stack([made[2]])
    torch.testing.assert_close(
        single(features[2:], lengths[2:])[0], stack(features, lengths)[2], rtol=0, atol=1e-12
    )


def test_refusals() -> None:
    made = policies("mlp", "categorical")
    with pytest.raises(ValueError, match="at least one"):
        Stack([])
    with pytest.raises(ValueError, match="shapes differ"):
        Stack([made[0], policies("gru", "categorical")[0]])
    odd = build(made[0].spec, torch.Generator(), SEEN * 0.5).double()
    with pytest.raises(ValueError, match="heads' 'edges' differ"):
        Stack([made[0], odd])
