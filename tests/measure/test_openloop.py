"""Open-loop rollouts: whose actions, how the window slides, and errors against closed forms."""

import numpy as np
import pytest
import torch
from data_samples import make
from scipy.stats import norm

from ablate.data.trajectories import Trajectories
from ablate.errors import UserError
from ablate.learn.joint import JointSettings, fit_model, joint_spec
from ablate.measure.openloop import JointDynamics, beginnings, errors
from ablate.models.assembly import Model
from ablate.models.layouts import Layout
from ablate.study import presets


def made(mixer: str, layout: str) -> tuple[Model, Trajectories]:
    data = make([30, 25], extras=False)
    config = presets.configuration("tt", "lq-mix/episode") | {
        "context": 4,
        "mixer": mixer,
        "layout": layout,
    }
    config["model"] = {
        "width": 16,
        "layers": 1,
        "heads": 2 if mixer == "attention" else 1,
        "dropout": 0.0,
    }
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
    greedy = JointDynamics(model, greedy=True)
    high = greedy.imagine(context, now, 6, 1, torch.ones(2, 6, m), seed=0)
    external = greedy.imagine(context, now, 6, 1, lambda seen: torch.ones(len(seen), m), seed=0)
    assert torch.equal(high, external)


def test_beginnings_have_what_comes_before_and_after() -> None:
    data = make([30, 25, 4], extras=False)
    rows = beginnings(data, 5, 10, 8, "test")
    assert len(set(rows.tolist())) == 8
    assert (data.timestep[rows] >= 5).all()
    ends = np.repeat(data.episode_starts[1:], data.lengths)
    assert (rows + 10 < ends[rows]).all()
    with pytest.raises(UserError, match="timesteps have 5 before and 10 after"):
        beginnings(data, 5, 10, 1000, "test")


def test_errors_of_gaussian_samples_are_the_closed_forms() -> None:
    torch.manual_seed(0)
    samples = torch.randn(40, 400, 2, 1) * 2.0 + 1.0
    found = errors(samples, torch.zeros(40, 2, 1), torch.tensor([1.0]))
    assert found["spread"].numpy() == pytest.approx(2.0, rel=0.02)
    assert found["rmse"].numpy() == pytest.approx(1.0, rel=0.05)
    # E|X| - E|X - X'| / 2 for X ~ N(1, 2^2): the folded normal's mean, and 2 / sqrt(pi) times the spread
    z = 0.5
    folded = 2.0 * (2 * norm.pdf(z) + z * (2 * norm.cdf(z) - 1))
    expected = folded - 2.0 / np.sqrt(np.pi)
    assert found["energy_score"].numpy() == pytest.approx(expected, rel=0.03)
