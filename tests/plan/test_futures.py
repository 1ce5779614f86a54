"""Futures of joint models: whose actions, how the window slides, and how a future is taken from what is predicted."""

import numpy as np
import pytest
import torch
from data_samples import make

from ablate.data.trajectories import Trajectories
from ablate.learn.joint import JointSettings, fit_model, joint_spec
from ablate.models.assembly import Model
from ablate.models.layouts import Layout
from ablate.plan.futures import JointDynamics
from ablate.plan.imagine import imagine
from ablate.study import presets


def made(
    mixer: str, layout: str, context: int = 4, head: str = "categorical"
) -> tuple[Model, Trajectories]:
    data = make([30, 25], extras=False)
    config = presets.configuration("tt", "lq-mix/episode") | {
        "context": context,
        "mixer": mixer,
        "layout": layout,
        "head": head,
    }
    config["model"] = {
        "width": 16,
        "layers": 1,
        "heads": 2 if mixer == "attention" else 1,
        "dropout": 0.0,
    }
    config["input"] = "continuous" if head == "gaussian" else "discretised"
    settings = JointSettings(bins=8, cosine=None)
    spec = joint_spec(
        config | {"settings": {"bins": 8}},
        Layout(data.observations.shape[1], data.actions.shape[1], 0, "states+actions", "none"),
    )
    return fit_model(spec, data, settings, torch.Generator().manual_seed(0)).eval(), data


@pytest.mark.parametrize("layout", ["dimension", "step"])
@pytest.mark.parametrize("mixer", ["attention", "gru", "lstm", "ssm", "conv", "mlp"])
def test_shapes_determinism_and_the_effect_of_the_actions(mixer: str, layout: str) -> None:
    model, data = made(mixer, layout)
    dynamics = JointDynamics(model)
    n, m = data.observations.shape[1], data.actions.shape[1]
    context, now = torch.zeros(2, 3, n + m + 2), torch.zeros(2, n)
    one = dynamics.imagine(context, now, 6, 5, None, seed=1)
    assert one.shape == (2, 5, 6, n)
    assert torch.equal(one, dynamics.imagine(context, now, 6, 5, None, seed=1))
    assert not torch.equal(one, dynamics.imagine(context, now, 6, 5, None, seed=2))
    greedy = JointDynamics(model, "greedy")
    high = greedy.imagine(context, now, 6, 1, torch.ones(2, 6, m), seed=0)
    external = greedy.imagine(context, now, 6, 1, lambda seen: torch.ones(len(seen), m), seed=0)
    assert torch.equal(high, external)


@pytest.mark.parametrize("layout", ["dimension", "modality", "step"])
def test_a_window_of_two_is_markov(layout: str) -> None:
    model, data = made("attention", layout, context=2)
    n, m = data.observations.shape[1], data.actions.shape[1]
    rows, now = torch.randn(3, 5, n + m + 2), torch.randn(3, n)
    acted = torch.rand(3, 4, m)
    whole = JointDynamics(model).imagine(rows, now, 4, 2, acted, seed=0)
    bare = JointDynamics(model).imagine(rows[:, :0], now, 4, 2, acted, seed=0)
    assert torch.equal(whole, bare)
    # with four timesteps the last three count
    longer, _ = made("attention", layout, context=4)
    assert not torch.equal(
        *(JointDynamics(longer).imagine(x, now, 4, 2, acted, 0) for x in (rows, -rows))
    )


@pytest.mark.parametrize("layout", ["dimension", "modality"])
@pytest.mark.parametrize("context", [2, 4])
def test_every_number_of_the_next_observation_is_predicted_from_the_whole_present(
    context: int, layout: str
) -> None:
    model, data = made("attention", layout, context)
    n, m = data.observations.shape[1], data.actions.shape[1]
    rows, now = torch.randn(3, context - 2, n + m + 2), torch.randn(3, n)
    acted, dynamics = torch.rand(3, 1, m), JointDynamics(model)
    found = dynamics.imagine(rows, now, 1, 2, acted, seed=0)
    # All of this fits into a window of training, so that nothing has to be dropped.
    running, generator = imagine(model, rows, now, None), torch.Generator().manual_seed(0)
    running.branch(2)
    running.tell(acted[:, :1].expand(-1, 2, -1))
    dynamics._draw(running, 2, generator)
    assert torch.equal(found[:, :, 0], dynamics._draw(running, n, generator))


@pytest.mark.parametrize("layout", ["modality", "step"])
def test_only_a_chain_knows_the_action_in_a_token_of_everything(layout: str) -> None:
    model, data = made("attention", layout, context=2, head="gaussian")
    n, m = data.observations.shape[1], data.actions.shape[1]
    now, acted = torch.randn(3, n), torch.ones(3, 1, m)
    mean = JointDynamics(model, "mean")
    high, low = (
        mean.imagine(torch.zeros(3, 0, n + m + 2), now, 1, 1, a, 0) for a in (acted, -acted)
    )
    assert torch.equal(high, low) == (layout == "step")


def test_the_mean_of_a_gaussian_is_what_its_draws_are_about() -> None:
    model, data = made("mlp", "modality", context=2, head="gaussian")
    n, m = data.observations.shape[1], data.actions.shape[1]
    context, now, acted = torch.zeros(1, 0, n + m + 2), torch.randn(1, n), torch.zeros(1, 1, m)
    drawn = JointDynamics(model).imagine(context, now, 1, 4000, acted, 0)[0, :, 0]
    mean = JointDynamics(model, "mean").imagine(context, now, 1, 1, acted, 0)[0, 0, 0]
    assert torch.allclose(drawn.mean(0), mean, atol=0.1)
    greedy = JointDynamics(model, "greedy").imagine(context, now, 1, 1, acted, 0)[0, 0, 0]
    assert torch.allclose(greedy, mean)
    assert np.isfinite(mean.numpy()).all()
