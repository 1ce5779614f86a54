"""The benchmark measures what it says it measures; how fast it is, no test asks."""

import torch

from ablate.bench.transformer import BATCH, TIMESTEPS, DecisionTransformer
from ablate.bench.update import (
    _batch,
    cohort_throughput,
    decision_transformer_update,
    transformer_operations,
)
from ablate.models.mixer import set_stacked


@torch.no_grad()
def test_the_final_blocks_shortcut_gives_the_whole_blocks_predictions() -> None:
    torch.manual_seed(0)
    model = DecisionTransformer().eval()
    returns, states, actions, time = (values[:4] for values in _batch())
    when = model.timesteps(time)
    parts = [model.returns(returns), model.states(states), model.actions(actions)]
    x = model.norm(torch.stack([part + when for part in parts], 2).flatten(1, 2))
    for block in model.blocks:
        x = block(x)
    whole = torch.tanh(model.predict(model.final_norm(x[:, 1::3])))
    torch.testing.assert_close(model(returns, states, actions, time), whole)


def test_a_prediction_sees_its_state_and_what_came_before() -> None:
    torch.manual_seed(0)
    model = DecisionTransformer().eval()
    set_stacked(model, True)
    *inputs, time = _batch()
    inputs = [values[:1].clone().requires_grad_() for values in inputs]
    out = model(*inputs, time[:1])[0, 7].sum()
    returns, states, actions = torch.autograd.grad(out, inputs)
    for grad, seen in ((returns, 8), (states, 8), (actions, 7)):
        influence = grad[0].abs().sum(-1)
        assert (influence[:seen] > 0).all()
        assert (influence[seen:] == 0).all()


def test_operations_are_near_the_formula() -> None:
    tokens, width = BATCH * (3 * TIMESTEPS - 1), 128
    targets = BATCH * TIMESTEPS
    # two whole blocks; keys and values everywhere and the rest at the state tokens in the third
    forward = 2 * width**2 * (2 * 12 * tokens + 2 * tokens + 10 * targets)
    assert 1.0 < transformer_operations() / (3 * forward) < 1.12


def test_rows_are_complete() -> None:
    rows = decision_transformer_update(chunks=1)
    assert [row["precision"] for row in rows] == ["float32", "bfloat16"]
    for row in rows:
        assert row["seconds"] > row["products"] > 0
        assert row["ratio to public"] == row["seconds"] / row["public seconds"]
    (row,) = cohort_throughput(mixers=("mlp",), replicas=2, parameters=4000, context=3, chunks=1)
    assert row["ratio"] == row["single seconds"] / row["stack seconds"]
    assert torch.get_num_threads() >= 1
