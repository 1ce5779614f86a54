"""The Q-function beside a joint model: exact values, kept with the model, read by its search, refused where absent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from data_samples import make
from test_joint import SMALL, TRAIN, objective, shape

from ablate.errors import UserError
from ablate.learn.joint import Joint, JointSettings, fit_model, joint_source
from ablate.learn.objective import Batch
from ablate.learn.train import train_cohort
from ablate.models.assembly import count_parameters
from ablate.models.layouts import Layout
from ablate.models.stack import Stack
from ablate.plan.agent import TrajectoryAgent
from ablate.plan.options import PlanOptions
from ablate.plan.search import search
from ablate.registry import checked

CRITIC: dict[str, Any] = {"width": 16, "batch": 32, "updates": 2}


def trained(updates: int, critic: dict[str, Any] | None) -> Joint:
    made = objective(shape(), [6, 5, 7], critic=critic)
    for number in range(updates):
        torch.manual_seed(number)  # of dropout's masks, as the trainer does
        made.update(Batch(number, torch.arange(4)[None]), 1e-3)
    return made


def test_it_is_no_parameter_of_the_model_and_comes_back_with_it() -> None:
    made, plain = trained(3, CRITIC), trained(0, None)
    assert count_parameters(made.stack.model) == count_parameters(plain.stack.model)
    data, settings = make([6, 5, 7]), JointSettings(**SMALL, critic=CRITIC)
    again = fit_model(shape(), data, settings, torch.Generator().manual_seed(9))
    again.load_state_dict(made.stack.model.state_dict())
    assert again.critic is not None
    assert made.stack.model.critic is not None
    seen = torch.randn(2, 3, 3), torch.randn(2, 3, 2)
    assert torch.equal(again.critic(*seen), made.stack.model.critic(*seen))


def test_the_model_trains_as_it_does_without() -> None:
    """Its weights, its batches and its dropout are untouched by the critic's."""
    made, plain = trained(4, CRITIC), trained(4, None)
    for ours, other in zip(
        made.stack.model.parameters(), plain.stack.model.parameters(), strict=True
    ):
        assert torch.equal(ours, other)


def test_it_learns_the_behaviours_values_at_expectile_one_half() -> None:
    """Actions that never repeat, in episodes that truly end: Q is the discounted penalised return from there on."""
    data = make([5, 4, 6])
    data.terminations[data.episode_starts[1:] - 1] = True
    data.truncations[:] = False
    settings = JointSettings(
        **SMALL,
        critic={
            "width": 64, "batch": 64, "updates": 1, "expectile": 0.5, "tau": 0.1, "learning_rate": 5e-3,
        },
    )  # fmt: skip
    spec = shape()
    model = fit_model(spec, data, settings, torch.Generator().manual_seed(0))
    source = joint_source(data, spec, settings)
    made = Joint(Stack([model]), source, TRAIN, settings.model_dump(), "test", [0])
    assert made.critic is not None
    for number in range(1500):
        made.critic.update(number)
    assert model.critic is not None
    found = model.critic(source.table[None, :, :3], source.table[None, :, 3:5])[0]
    wanted = source.table[:, 5] + 0.9 * source.table[:, 6]  # r + gamma V, Monte Carlo
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), atol=0.2)
    assert float(wanted.std()) > 1.0


def test_an_interrupted_training_goes_on_with_it(tmp_path: Any) -> None:
    def run(updates: int, resume: Any) -> Joint:
        made = objective(shape(), [6, 5, 7], critic=CRITIC)
        train = TRAIN | {"updates": updates, "schedule": "constant"}
        settings = SMALL | {"critic": CRITIC}
        train_cohort(
            made.stack, made.data, train, "test", [0], [updates], lambda u, loss: {}, resume, "joint", settings
        )  # fmt: skip
        return made

    whole = run(8, None)
    run(5, tmp_path / "state.safetensors")
    rest = run(8, tmp_path / "state.safetensors")
    assert whole.stack.model.critic is not None
    assert rest.stack.model.critic is not None
    for one, other in zip(
        whole.stack.model.critic.buffers(), rest.stack.model.critic.buffers(), strict=True
    ):
        assert torch.equal(one, other)


def test_a_critic_that_diverges_takes_its_model_with_it() -> None:
    made = trained(1, CRITIC)
    assert made.critic is not None
    made.critic.values.value.dense.biases[-1].data.fill_(torch.inf)
    assert not torch.isfinite(made.update(Batch(1, torch.arange(4)[None]), 1e-3)).any()


def test_a_search_asks_it() -> None:
    model = trained(2, CRITIC).stack.model.eval()
    options = PlanOptions(
        horizon=2, beam=3, max_context_transitions=2, value="critic", discount=0.9
    )
    context, observation = torch.randn(1, 2, 7), torch.randn(1, 3)
    noise = torch.rand(1, 2, 6, 7)
    plan = search(model, context, observation, options, noise, value=model.critic)
    assert model.critic is not None
    last = model.critic(plan.rows[:, 1:, :3], plan.rows[:, 1:, 3:5])[:, 0]
    tokens = search(model, context, observation, options, noise)
    assert not torch.equal(plan.rows, tokens.rows)
    # The reward that a plan counts is the expected one, not that of the drawn bin: a bound, not an equality.
    lowest, highest = joint_rewards(model)
    rest = float(plan.score - 0.9 * last)
    assert lowest - 1e-4 <= rest <= highest + 1e-4


def joint_rewards(model: Any) -> tuple[float, float]:
    """The least and the largest reward that a bin of the model stands for."""
    bins = model.head.bins.decode(torch.arange(6)[:, None].expand(-1, 7))[:, 5]
    return float(bins.min()), float(bins.max())


def test_refusals() -> None:
    with pytest.raises(UserError, match=r"settings\.critic\.width: found '0'"):
        checked(JointSettings, {"critic": {"width": 0}}, "settings")
    with pytest.raises(UserError, match=r"plan\.value"):
        checked(PlanOptions, {"value": "q"}, "plan")
    layout = Layout(3, 2, 0, "states+actions", "none")
    with pytest.raises(UserError, match=r"settings\.critic"):
        TrajectoryAgent(
            [objective(shape(), [6]).stack.model], layout, PlanOptions(value="critic", horizon=2)
        )
