"""The dose meter against processes whose law is known."""

from dataclasses import replace

import numpy as np
import pytest
from data_samples import make

from ablate.data import exact
from ablate.data.catalogue import load
from ablate.data.dose import FOLDS, measure
from ablate.data.trajectories import Trajectories
from ablate.errors import UserError


def autoregression(
    first: float, second: float, episodes: int = 60, steps: int = 100
) -> Trajectories:
    """x' = first x + second x_before + N(0, 1), stationary; actions are noise."""
    rng = np.random.default_rng(0)
    x = np.zeros((episodes, steps + 200))
    noise = rng.standard_normal(x.shape)
    for t in range(2, x.shape[1]):
        x[:, t] = first * x[:, t - 1] + second * x[:, t - 2] + noise[:, t]
    rows = episodes * steps
    base = make([steps] * episodes)
    return replace(
        base,
        observations=x[:, -steps:].reshape(rows, 1).astype(np.float32),
        actions=rng.uniform(-1, 1, (rows, 1)).astype(np.float32),
        behaviour_action=None,
    )


def gain(first: float, second: float) -> float:
    """What x_before adds in R2 to predicting x' - x, from the Yule-Walker equations."""
    variance = (1 - second) / ((1 + second) * ((1 - second) ** 2 - first**2))
    correlation = first / (1 - second)
    return (variance * (1 - correlation**2) - 1) / (2 * variance * (1 - correlation))


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.4), (0.3, -0.6)])
def test_a_second_lag_is_worth_what_theory_says(first: float, second: float) -> None:
    found = measure(autoregression(first, second), "dynamics", history=4)
    truth = gain(first, second)
    assert 0.85 * truth < found.gain.estimate < 1.1 * truth
    assert found.gain.low < found.gain.estimate < found.gain.high
    # In nats: half the logarithm of the ratio of the residuals' variances, of which the better is 1.
    variance = (1 - second) / ((1 + second) * ((1 - second) ** 2 - first**2))
    ratio = variance * (1 - (first / (1 - second)) ** 2)
    assert 0.85 * np.log(ratio) / 2 < found.nats.estimate < 1.1 * np.log(ratio) / 2


def test_a_markov_process_gains_nothing() -> None:
    data = autoregression(0.7, 0.0, episodes=30)
    for question in ("dynamics", "behaviour"):
        found = measure(data, question, history=4)
        assert abs(found.gain.estimate) < 0.005
        assert found.gain.low <= 0.002


def test_it_finds_part_of_what_the_exact_posterior_knows(cache) -> None:
    data = load("lq-mix/episode", cache)
    found = measure(data.train, "behaviour", targets=10_000)
    held = data.held_out
    without = exact.posterior_action_error(held, 1, "episode").all
    known = exact.posterior_action_error(held, 65, "episode").all

    truth = (without - known) / held.actions.var()
    assert 0.3 * truth < found.gain.estimate < 1.3 * truth


def test_the_same_numbers_every_time() -> None:
    data = autoregression(0.5, 0.3, episodes=20, steps=40)
    assert measure(data, "dynamics", history=3) == measure(data, "dynamics", history=3)


def test_an_offset_changes_nothing() -> None:
    data = autoregression(0.5, 0.4, episodes=20, steps=30)
    moved = replace(data, observations=data.observations + np.float32(4096))
    here, there = (measure(each, "dynamics", history=3).gain.estimate for each in (data, moved))
    assert there == pytest.approx(here, rel=0.02)


def test_choices_are_predicted_as_probabilities() -> None:
    data = autoregression(0.0, 0.0, episodes=40)
    rng = np.random.default_rng(1)
    first = np.repeat(rng.integers(2, size=40), 100)  # fixed within an episode, and unseen
    chosen = np.where(rng.random(4000) < 0.9, first, 1 - first)
    actions = np.where(np.arange(2) == chosen[:, None], 1.0, -1.0).astype(np.float32)
    found = measure(replace(data, actions=actions), "behaviour", history=16)
    assert found.discrete
    entropy = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    assert 0.6 * (np.log(2) - entropy) < found.nats.estimate < np.log(2) - entropy + 0.01


def test_refusals() -> None:
    data = make([5] * 10)
    with pytest.raises(UserError, match="dynamics"):
        measure(data, "dynamic")
    with pytest.raises(UserError, match="at least 1"):
        measure(data, "dynamics", history=0)
    with pytest.raises(UserError, match=f"at least {2 * FOLDS}"):
        measure(make([5, 5]), "dynamics")
    constant = replace(data, actions=np.zeros_like(data.actions), behaviour_action=None)
    with pytest.raises(UserError, match="never varies"):
        measure(constant, "behaviour")
