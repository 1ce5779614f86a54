"""Twins: what the text behind the `@` hides, in the data and in the environment alike."""

import json
from pathlib import Path

import numpy as np
import pytest
from data_samples import make
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ablate.data.catalogue import load, spec
from ablate.data.hidden import drop, nested_order, parse
from ablate.envs.lq import LinearQuadratic
from ablate.errors import UserError

GROUPS = {"position": [0, 1, 2, 3], "velocity": [4, 5, 6]}
STUDY = Path(__file__).parents[2] / "results" / "memory_vs_arch" / "study.json"


def hidden(text: str) -> set[int]:
    return set(range(8)) - set(parse(text, "a@b", 8, GROUPS).observable)


def test_a_group_a_fraction_of_it_and_a_fraction_of_all() -> None:
    assert hidden("mask-velocity") == {4, 5, 6}
    assert hidden("mask-position") == {0, 1, 2, 3}
    assert len(hidden("mask-position-0.5")) == 2
    assert hidden("mask-position-0.5") < {0, 1, 2, 3}
    # Coordinate 7, which is in no group, is never hidden where there are groups.
    assert hidden("mask-1") == set(range(7))
    assert hidden("mask-position-0.25+mask-velocity") > {4, 5, 6}


@given(st.integers(1, 40), st.floats(0.01, 1), st.floats(0.01, 1))
def test_what_is_masked_at_a_fraction_is_masked_at_every_higher_one(
    width: int, one: float, other: float
) -> None:
    low, high = sorted(f"{max(0.01, round(each, 2)):g}" for each in (one, other))
    shown = [parse(f"mask-{f}", "a@b", 2 * width, {"all": list(range(width))}) for f in (low, high)]
    assert set(shown[1].observable) <= set(shown[0].observable)


def test_the_order_is_fixed_and_doesnt_follow_the_coordinates() -> None:
    order = nested_order(list(range(12)), 12)
    assert sorted(order) == list(range(12))
    assert order != list(range(12))
    assert nested_order([3, 4, 5], 12) == [i for i in order if i in (3, 4, 5)]


@pytest.mark.skipif(not STUDY.exists(), reason="the study's results aren't here")
def test_committed_results_are_still_about_these_data(tmp_path: Path) -> None:
    committed = json.loads(STUDY.read_text())["data"]
    for name in ("lq-mix/episode-3000@mask-velocity", "lq-mix/step-3000"):
        assert load(name, tmp_path).content_hash == committed[name]


def test_noise_has_the_declared_size_and_only_changes_its_scale(cache: Path) -> None:
    whole = load("lq-mix/single", cache).train
    seen = {s: load(f"lq-mix/single@noise-{s}", cache) for s in ("0.1", "0.4")}
    std = whole.observations.std(axis=0)
    noise = {s: (d.train.observations - whole.observations) / std for s, d in seen.items()}
    for s, each in noise.items():
        np.testing.assert_allclose(each.std(axis=0), float(s), rtol=0.03)
        assert stats.kstest(each.ravel()[:5000] / float(s), "norm").pvalue > 1e-3
        assert abs(np.corrcoef(each[:-1, 0], each[1:, 0])[0, 1]) < 0.03
    np.testing.assert_allclose(4 * noise["0.1"], noise["0.4"], atol=1e-4)
    np.testing.assert_array_equal(seen["0.1"].train.actions, whole.actions)


def test_dropped_rows_show_the_last_that_was_shown() -> None:
    whole = make([40, 30, 50])
    seen = {p: drop(whole, p, "key") for p in (0.2, 0.6)}
    lost = {}
    for p, made in seen.items():
        made.validate()
        np.testing.assert_array_equal(
            made.observations[whole.episode_starts[:-1]],
            whole.observations[whole.episode_starts[:-1]],
        )
        lost[p] = (made.observations != whole.observations).any(axis=1)
        rows = np.flatnonzero(lost[p])
        np.testing.assert_array_equal(made.observations[rows], made.observations[rows - 1])
        assert abs(lost[p].mean() - p) < 0.12
    assert (lost[0.2] <= lost[0.6]).all()


@pytest.mark.parametrize(
    "twin", ["noise-0.3", "drop-0.4", "mask-velocity-0.5", "mask-0.5+drop-0.3"]
)
def test_data_and_environment_hide_by_the_same_law(cache: Path, twin: str) -> None:
    base, seen = load("lq-mix/single", cache), load(f"lq-mix/single@{twin}", cache)
    episodes = 300
    env = seen.spec.make_env(episodes)
    truth = base.spec.make_env(episodes)
    seeds = list(range(episodes))
    shown, full = [env.reset(seeds)], [truth.reset(seeds)]
    action = np.zeros((episodes, 2))
    for _ in range(20):
        shown.append(env.step(action)[0])
        full.append(truth.step(action)[0])
    columns = seen.spec.observable
    assert columns is not None
    error = np.stack(shown, axis=1) - np.stack(full, axis=1)[:, :, columns]  # (B, T, N)
    rows = base.train.timestep < 21
    logged = (seen.train.observations - base.train.observations[:, columns])[rows]
    assert error.shape[-1] == logged.shape[-1]
    # How often, and by how much, what is shown isn't what is: the first steps and later ones.
    for t in (0, 10):
        at = base.train.timestep[rows] == t
        one, two = (error[:, t] != 0).mean(), (logged[at] != 0).mean()
        assert abs(one - two) < 4 * np.sqrt(0.25 / len(error) + 0.25 / at.sum()) + 1e-9
    if "noise" in twin:
        assert stats.ks_2samp(error.ravel()[:3000], logged.ravel()[:3000]).pvalue > 1e-3


def test_a_delay_executes_each_action_later(cache: Path) -> None:
    made = load("lq-mix/single@delay-3", cache)
    first = made.train.select([0])
    env = LinearQuadratic(1)
    # The same system under the logged actions, three steps late, gives the logged states up to noise,
    # which is independent of them: its residuals have the process noise's size.
    executed = np.concatenate([np.zeros((3, 2)), first.actions[:-3]])
    from ablate.envs.lq import ACTION_SCALE, PROCESS_NOISE, A, B

    states = first.observations.astype(np.float64)
    predicted = states[:-1] @ A.T + ACTION_SCALE * executed[:-1] @ B.T
    residual = (states[1:] - predicted) / PROCESS_NOISE
    assert 0.85 < residual.std() < 1.15
    undelayed = states[:-1] @ A.T + ACTION_SCALE * first.actions[:-1] @ B.T
    assert ((states[1:] - undelayed) / PROCESS_NOISE).std() > 1.2 * residual.std()
    assert env.horizon == made.spec.make_env(1).horizon
    base = load("lq-mix/single", cache)
    assert made.train.returns.mean() < base.train.returns.mean()
    assert made.anchors == base.anchors


def test_a_hidden_parameter_varies_between_episodes_only(cache: Path) -> None:
    made = load("lq-mix/single@physics-0.9", cache).train
    from ablate.envs.lq import ACTION_SCALE, DT, FRICTION, PROCESS_NOISE, A, B

    friction = []
    for episode in range(120):
        one = made.select([episode])
        states = one.observations.astype(np.float64)
        predicted = states[:-1] @ A.T + ACTION_SCALE * one.actions[:-1] @ B.T
        extra = (states[1:] - predicted)[:, 2:].ravel()
        velocity = -DT * FRICTION * states[:-1, 2:].ravel()
        slope = velocity @ extra / (velocity @ velocity)
        error = PROCESS_NOISE / np.sqrt(velocity @ velocity)
        friction.append((slope, error))
    slopes, errors = np.array(friction).T
    # A uniform factor's spread, on top of what the noise does to the estimates.
    expected = np.sqrt(0.9**2 / 3 + (errors**2).mean())
    assert abs(slopes.std() / expected - 1) < 0.25


def test_a_masked_behaviour_doesnt_use_what_is_hidden(cache: Path) -> None:
    privileged = load("lq-mix/single@mask-velocity", cache)
    masked = load("lq-mix/single@mask-velocity:masked", cache)
    assert masked.train.observations.shape[1] == 2
    explained = []
    for data in (privileged.train, masked.train):
        x, y = data.observations, data.behaviour_action
        assert y is not None
        inside = (np.abs(y) < 1).all(axis=1)
        inputs = np.column_stack([x[inside], np.ones(inside.sum())])
        left = y[inside] - inputs @ np.linalg.lstsq(inputs, y[inside], rcond=None)[0]
        explained.append(1 - left.var() / y[inside].var())
    assert explained[1] > 0.9999  # a linear function of what is shown
    assert explained[0] < 0.9
    assert masked.train.returns.mean() < privileged.train.returns.mean()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lq-mix/single@mask-velocities", "Groups here: mask-position, mask-velocity"),
        ("lq-mix/single@", "hides nothing known"),
        ("lq-mix/single@mask-1.5", "above 0, at most 1"),
        ("lq-mix/single@mask-0", "above 0, at most 1"),
        ("lq-mix/single@delay-0.5", "whole number of steps"),
        ("lq-mix/single@drop-1", "above 0, below 1"),
        ("lq-mix/single@noise-0", "above 0"),
        ("lq-mix/single@noise-0.10", "hides nothing known"),
        ("lq-mix/single@noise--1", "hides nothing known"),
        ("lq-mix/single@mask-velocity-", "hides nothing known"),
        ("lq-mix/single@mask-velocity-1", "is written 'mask-velocity'"),
        (
            "lq-mix/single@noise-0.1+mask-velocity",
            "write it as 'lq-mix/single@mask-velocity[+]noise",
        ),
        ("lq-mix/single@noise-0.1+noise-0.2", "hide the same; one is allowed"),
        ("lq-mix/single@mask-0.5+mask-velocity", "hide the same; one is allowed"),
        ("lq-mix/single@physics-0.2+physics-0.5", "hide the same; one is allowed"),
        ("lq-mix/single@delay-1001", "1 to 1000"),
        ("lq-mix/single@delay-2:masked", ":masked changes nothing"),
        ("lq-mix/single@mask-position+mask-velocity", "at least one must be shown"),
        ("tmaze/passive-20@physics-0.1", "no physical parameter"),
        ("fourrooms/seen-v0@delay-2", "no behaviour policy"),
        ("chain/gamble-sticky10-hidden-step-v0@drop-0.2:masked", "itself shows a part only"),
    ],
)
def test_what_cant_be_hidden_is_refused_in_a_line(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        spec(name)
    assert "\n" not in str(refusal.value)
    assert name in str(refusal.value)
