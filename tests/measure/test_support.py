"""What plans bring and where they lie: against closed forms, known simulators and brute force over neighbours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from ablate.config import complete
from ablate.data.catalogue import Anchors, DataSet, spec
from ablate.data.collect import collect
from ablate.data.families.lq import simulate
from ablate.data.families.shortcut import ACTION_NOISE, around
from ablate.envs.lq import ACTION_SCALE, A, B
from ablate.envs.shortcut import FINE, Shortcut
from ablate.errors import UserError
from ablate.learn.joint import JointSettings
from ablate.measure import support
from ablate.measure.base import Trained
from ablate.measure.openloop import Asked
from ablate.registry import checked
from ablate.systems.joint import JointSystem

ANCHORS = Anchors(0.0, 1.0, "these tests")
PLAIN = JointSettings(penalty=None, discount=0.9, bins=8)


@pytest.fixture(scope="module")
def lq() -> DataSet:
    found = spec("lq-mix/episode")
    parts = [
        simulate("lq-mix/test", "episode", count, part, 2)
        for count, part in ((12, "train"), (40, "held_out"))
    ]
    return DataSet(found, parts[0], parts[1], ANCHORS)


@pytest.fixture(scope="module")
def maze() -> DataSet:
    found = spec("shortcut/umaze-v0")
    parts = [
        collect("shortcut/test", part, Shortcut, around(ACTION_NOISE), steps, batch=10)
        for part, steps in (("train", 600), ("held_out", 600))
    ]
    return DataSet(found, parts[0], parts[1], ANCHORS)


# --- what plans bring ---


def test_runs_of_the_simulator_agree_with_the_closed_form(lq: DataSet) -> None:
    """Promise and tail apart, each within its sampling error, of plans that were drawn."""
    rows = np.array([30, 1234, 2350, 3950])
    actions = np.random.default_rng(0).uniform(-0.2, 0.2, (4, 3, 2))
    exact = support.worth(lq, rows, actions, 1, PLAIN, 0)
    found = [support.executed(lq, rows, actions, 150, PLAIN, seed) for seed in range(4)]
    assert exact is not None
    assert exact.after is not None
    for wanted, each in (
        (exact.rewards, [one.rewards for one in found if one]),
        (exact.after, [one.after for one in found if one]),
    ):
        error = np.std(each, axis=0, ddof=1) / 2.0
        assert (np.abs(np.mean(each, axis=0) - wanted) < 6 * error + 5e-3).all()
    assert not exact.ended.any()


def test_behaviour_brings_what_the_data_brought(maze: DataSet) -> None:
    """Logged actions from logged states, and the behaviour after them, bring the logged values on average."""
    truth = maze.held_out
    rows = np.flatnonzero(truth.timestep == 30)
    actions = truth.actions[rows[:, None] + np.arange(4)]
    found = support.executed(maze, rows, actions, 2, PLAIN, 0)
    assert found is not None
    assert found.after is not None
    left = truth.rewards[rows[:, None] + np.arange(30)] * 0.9 ** np.arange(30)
    np.testing.assert_allclose(found.rewards, left[:, :4].sum(1), atol=1e-6)  # no noise
    assert found.after.mean() == pytest.approx(left[:, 4:].sum(1).mean(), abs=0.8)


def test_a_plan_into_the_shortcut_ends_there(maze: DataSet) -> None:
    rows = np.flatnonzero(maze.held_out.timestep == 0)
    south = np.tile([0.0, -1.0], (len(rows), 30, 1))
    found = support.executed(maze, rows, south, 2, PLAIN, 0)
    assert found is not None
    assert found.after is not None
    assert (found.ended == 1.0).all()
    steps = np.log(found.rewards / FINE) / np.log(0.9)  # nothing but the fine, once
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-6)
    assert not found.after.any()
    fined = support.executed(maze, rows, south, 2, PLAIN.model_copy(update={"penalty": -3.0}), 0)
    assert fined is not None
    np.testing.assert_allclose(fined.rewards, 0.3 * found.rewards)


def test_without_a_simulator_nothing_is_known(lq: DataSet) -> None:
    blind = replace(lq, held_out=replace(lq.held_out, simulator_state=None))
    rows, actions = np.array([5]), np.zeros((1, 2, 2))
    assert support.worth(blind, rows, actions, 1, PLAIN, 0) is None
    assert support.true_steps(blind, rows, np.zeros((1, 2, 4)), actions, 1, 0) is None


def test_true_steps_follow_the_system(lq: DataSet) -> None:
    rng, rows = np.random.default_rng(1), np.array([10, 500])
    states = rng.normal(size=(2, 3, 4))
    actions = rng.uniform(-1, 1, (2, 3, 2))
    found = support.true_steps(lq, rows, states, actions, 200, 0)
    assert found is not None
    after, which = found
    np.testing.assert_array_equal(which, [0, 1, 2])
    states[:, 0] = lq.held_out.observations[rows]  # where plans begin is known
    wanted = states @ A.T + ACTION_SCALE * actions @ B.T
    np.testing.assert_allclose(after, wanted, atol=0.02)


# --- where plans lie ---


def test_percentiles_are_those_of_brute_force(lq: DataSet) -> None:
    points = np.random.default_rng(2).normal(size=(2, 5, 6))
    found = support.neighbourhood(Asked(lq)).percentiles(points)
    train, held = (
        np.concatenate([part.observations, part.actions], 1).astype(np.float64)
        for part in (lq.train, lq.held_out)
    )
    centre, unit = train.mean(0), train.std(0)
    held = held[:: -(-len(held) // support.REFERENCE)]

    def far(some: np.ndarray) -> np.ndarray:
        apart = np.sort(cdist((some - centre) / unit, (train - centre) / unit), axis=1)
        return apart[:, [k - 1 for k in support.NEIGHBOURS]]

    wanted = 100.0 * (far(held)[None] <= far(points.reshape(-1, 6))[:, None]).mean(1)
    np.testing.assert_allclose(found.reshape(-1, 3), wanted, atol=0.11)
    own = support.neighbourhood(Asked(lq)).percentiles(held)
    np.testing.assert_allclose(own.mean(0), 50, atol=1)


# --- the measurement ---


def system(data: DataSet, **settings: Any) -> JointSystem:
    config = complete(
        {
            "data": data.spec.name, "mixer": "attention", "context": 3, "condition": "none",
            "history": "states+actions+rewards", "head": "categorical", "layout": "modality",
            "algorithm": "joint", "settings": {"bins": 8, "penalty": None, **settings},
            "model": {"width": 8, "layers": 1}, "measure": {"support": {}},
        }
    )  # fmt: skip
    return JointSystem.prepare(config, data, "cpu")


def measured(made: JointSystem, **options: Any) -> dict[str, np.ndarray]:
    asked = checked(support.Support.Options, {"beginnings": 6, "horizon": 2, **options}, "options")
    models = [made.model("test", seed).eval() for seed in range(2)]
    found = support.Support()(Trained(made, models, "test", [0, 1], 1), asked)
    return dict(found)


@pytest.mark.parametrize("sharing", ["joint", "separate", "transplanted", "stopped"])
def test_all_responses_are_given(lq: DataSet, sharing: str) -> None:
    found = measured(system(lq, sharing=sharing), candidates=(1, 4, 8), proposals="uniform")
    for response in support.Support.responses:
        shape = (2, 3) if response.index else (2,)
        assert found[response.name].shape == shape
        assert np.isfinite(found[response.name]).all()
    np.testing.assert_array_equal(found["candidates"], [1, 4, 8])
    slope = [np.polyfit([0, 2, 3], gap, 1)[0] for gap in found["gap"]]
    np.testing.assert_allclose(found["slope"], slope)
    np.testing.assert_allclose(found["gap"], found["promise"] - found["realised"])


def test_more_candidates_promise_more_and_none_chosen_the_same(lq: DataSet) -> None:
    made = system(lq)
    end = measured(made, candidates=(1, 64), proposals="uniform", selection="end")
    assert (end["promise"][:, 1] > end["promise"][:, 0]).all()
    none = measured(made, candidates=(1, 64), proposals="uniform", selection="none", beginnings=300)
    gained = end["promise"][:, 1] - end["promise"][:, 0]
    assert (np.abs(none["promise"][:, 1] - none["promise"][:, 0]) < 0.3 * gained).all()


def test_where_the_behaviour_is_unknown_rewards_remain(lq: DataSet) -> None:
    alone = replace(lq, spec=replace(lq.spec, behaviour=None, law=None))
    found = measured(system(alone), candidates=(1, 2))
    assert np.isnan(found["gap"]).all()
    assert np.isnan(found["log_density"]).all()
    assert np.isfinite(found["reward_gap"]).all()


@pytest.mark.parametrize("given", [(4,), (8, 4), (2, 2)])
def test_candidates_that_give_no_slope_are_refused(given: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="two numbers or more, that increase"):
        checked(support.Support.Options, {"candidates": given}, "options")


def test_only_what_is_read_is_an_option() -> None:
    config: dict[str, Any] = {"measure": {"support": {"proposals": "uniform"}}}
    assert not {"temperature", "spread"} & support.Support.reads(config)
    config["measure"]["support"]["proposals"] = "inflated"
    assert "spread" in support.Support.reads(config)
    assert "temperature" not in support.Support.reads(config)
