"""Open-loop futures: errors against closed forms and scipy, the simulator against the laws of its noise, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from data_samples import make
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import energy_distance, norm, wasserstein_distance

from ablate.config import complete
from ablate.data.behaviour import Acted, Behaviour
from ablate.data.catalogue import DataSet, spec
from ablate.data.families.lq import simulate
from ablate.envs.lq import ACTION_SCALE, PROCESS_NOISE, A, B
from ablate.envs.pointmaze import PointMaze
from ablate.errors import UserError
from ablate.measure.base import Trained
from ablate.measure.openloop import (
    LEAST,
    Asked,
    OpenLoop,
    Playing,
    area,
    beginnings,
    errors,
    happened,
    impossible,
    simulated,
    sliced,
    valid_steps,
)
from ablate.plan.futures import JointDynamics
from ablate.systems import prepare


@pytest.fixture(scope="module")
def lq() -> DataSet:
    """A small linear-quadratic data set."""
    found = spec("lq-mix/single")
    parts = (
        simulate("lq-mix/test", "single", number, name, 1)
        for number, name in ((12, "train"), (40, "held_out"))
    )
    return DataSet(found, *parts, found.anchors())


# --- against closed forms and scipy ---


def test_errors_of_gaussian_samples_are_the_closed_forms() -> None:
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((60, 300, 2, 1)) * 2.0 + 1.0
    found = errors(samples, np.zeros((60, 2, 1)))
    assert found["spread"] == pytest.approx(2.0, rel=0.02)
    assert found["rmse"] == pytest.approx(1.0, rel=0.05)
    assert found["spread_skill"] == pytest.approx(2.0, rel=0.05)
    # E|X| - E|X - X'| / 2 for X ~ N(1, 2^2): the folded normal's mean, and 2 / sqrt(pi) times the spread
    z = 0.5
    folded = 2.0 * (2 * norm.pdf(z) + z * (2 * norm.cdf(z) - 1))
    expected = folded - 2.0 / np.sqrt(np.pi)
    assert found["energy_score"] == pytest.approx(expected, rel=0.03)


def test_of_samples_of_the_truths_law_the_mean_errs_by_the_truth_and_its_own_share() -> None:
    rng = np.random.default_rng(1)
    truth = rng.standard_normal((4000, 1, 3))
    for samples in (2, 16):
        found = errors(rng.standard_normal((4000, samples, 1, 3)), truth)
        assert found["rmse"] == pytest.approx(np.sqrt(1 + 1 / samples), rel=0.02)
        assert found["spread_skill"] == pytest.approx(1.0, rel=0.03)
    alone = errors(truth[:, None] + 0.5, truth)
    assert alone["rmse"] == pytest.approx(0.5)
    assert alone["spread"] == pytest.approx(0.0)
    assert alone["error_p90"] == pytest.approx(0.5)


@given(seed=st.integers(0, 1000), samples=st.integers(2, 6), beginnings_=st.integers(1, 5))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_the_energy_score_and_the_distance_are_scipys(
    seed: int, samples: int, beginnings_: int
) -> None:
    rng = np.random.default_rng(seed)
    futures = rng.standard_normal((beginnings_, samples, 1, 1))
    truth = rng.standard_normal((beginnings_, 1, 1))
    found = errors(futures, truth)
    # scipy's distance of samples and a point is sqrt(2 E|X - y| - E|X - X'|) with all pairs, the equal ones too
    among = samples / (samples - 1)
    expected = []
    for each, point in zip(futures[:, :, 0, 0], truth[:, 0, 0], strict=True):
        to_truth = np.abs(each - point).mean()
        pairs = 2.0 * to_truth - energy_distance(each, [point]) ** 2
        expected.append(to_truth - 0.5 * among * pairs)
    assert found["energy_score"][0] == pytest.approx(np.mean(expected), abs=1e-9)
    # in one dimension every direction is +1 or -1, but for its length
    plain = wasserstein_distance(futures.ravel(), truth.ravel())
    assert found["wasserstein"][0] == pytest.approx(plain, abs=1e-9)


def test_the_sliced_distance_of_a_shift_is_the_mean_length_along_directions() -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((200, 1, 3))
    found = sliced(np.repeat(points, 2, axis=0) + np.array([3.0, 0.0, 0.0]), points)
    # the mean |cos| of a uniform direction in three dimensions is 1/2
    assert found[0] == pytest.approx(1.5, rel=0.1)
    assert sliced(points, points)[0] == 0.0


def test_area_and_valid_steps_by_hand() -> None:
    twice = np.full(60, 0.2)
    assert area(twice, twice / 2) == pytest.approx(np.log(2))
    assert (
        area(np.zeros(60), np.full(60, LEAST / 9)) == 0.0
    )  # what is below the least counts as that
    assert area(np.r_[np.full(50, 0.1), np.full(50, 9.0)], np.full(100, 0.1)) == pytest.approx(0)
    truth = np.zeros((2, 5, 1))
    futures = np.zeros((2, 1, 5, 1))
    futures[0, 0, 3:] = 0.5  # wrong from the fourth timestep on
    assert valid_steps(futures, truth) == (3 + 5) / 2


# --- beginnings and the simulator ---


def test_beginnings_have_what_comes_before_and_after() -> None:
    data = make([30, 25, 4], extras=False)
    rows = beginnings(data, 5, 10, 8, "test", 0)
    assert len(set(rows.tolist())) == 8
    assert (data.timestep[rows] >= 5).all()
    ends = np.repeat(data.episode_starts[1:], data.lengths)
    assert (rows + 10 < ends[rows]).all()
    assert not np.array_equal(rows, beginnings(data, 5, 10, 8, "test", 1))  # the seed's own
    assert len(beginnings(data, 5, 10, 1000, "test", 0)) == 15 + 10
    with pytest.raises(UserError, match="no timestep has 20 before and 10 after"):
        beginnings(data, 20, 10, 1, "test", 0)


def test_the_simulator_follows_the_law_of_the_linear_system(lq: DataSet) -> None:
    rows = beginnings(lq.held_out, 19, 6, 30, "test", 0)
    actions = lq.held_out.actions[rows[:, None] + np.arange(6)]
    futures = simulated(lq, rows, 6, 400, actions, 3)
    assert futures is not None
    mean = lq.held_out.observations[rows].astype(np.float64)
    covariance = np.zeros((4, 4))
    for h in range(6):
        mean = mean @ A.T + ACTION_SCALE * actions[:, h] @ B.T
        covariance = A @ covariance @ A.T + PROCESS_NOISE**2 * np.eye(4)
        apart = futures[:, :, h] - mean[:, None]
        std = np.sqrt(np.diag(covariance))
        assert np.abs(apart.mean((0, 1)) / std).max() < 0.05
        np.testing.assert_allclose(apart.std((0, 1)), std, rtol=0.05)


def test_logged_actions_from_a_logged_state_of_the_maze_lead_where_they_led() -> None:
    env = PointMaze(6)
    env.reset(range(6))
    rng = np.random.default_rng(0)
    for _ in range(10):
        seen = env.step(rng.uniform(-1, 1, (6, 2)))[0]
    state, goals = env.simulator_state(), env.goals()
    actions = rng.uniform(-1, 1, (5, 6, 2))
    led = [env.step(action)[0] for action in actions]
    other = PointMaze(6)
    other.reset(range(6, 12))
    np.testing.assert_array_equal(other.set_simulator_state(state, goals), seen)
    for action, expected in zip(actions, led, strict=True):
        np.testing.assert_array_equal(other.step(action)[0], expected)
    assert not other.impossible(seen).any()
    assert other.impossible(np.full((2, 6), 99.0)).all()


def test_what_cannot_be(lq: DataSet) -> None:
    low, high = lq.train.observations.min(0), lq.train.observations.max(0)
    found = impossible(np.stack([low, high, high + 0.6 * (high - low), high * np.nan]), lq)
    assert found.tolist() == [False, False, True, True]


class Halves(Behaviour):
    """Does half of the first number, and less by 0.1 without its noise."""

    begun = 0

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        self.begun += 1

    def act(self, observation: np.ndarray) -> Acted:
        mean = 0.5 * observation[:, :1]
        ids = np.zeros(len(mean), dtype=np.int64)
        return Acted(mean + 0.1, ids, mean=mean)


def test_a_behaviour_plays_on_what_is_imagined() -> None:
    seen = torch.tensor([[0.4, 9.0], [0.2, 9.0]])
    for settled, expected in ((False, [0.3, 0.2]), (True, [0.2, 0.1])):
        behaviour = Halves()
        playing = Playing(behaviour, np.random.default_rng(0), settled)
        assert torch.allclose(
            playing(playing(seen).repeat(1, 2) * 0 + seen)[:, 0], torch.tensor(expected)
        )
        assert behaviour.begun == 1


# --- the measurement ---


def config(**changes: Any) -> dict[str, Any]:
    return complete(
        {
            "data": "lq-mix/single",
            "mixer": "mlp",
            "context": 3,
            "condition": "none",
            "history": "states+actions+rewards",
            "head": "autoregressive",
            "layout": "modality",
            "algorithm": "joint",
            "settings": {"bins": 8, "penalty": None},
            "model": {"width": 8},
            "train": {"loss": "all"},
            "measure": {"open-loop": {}},
        }
        | changes
    )


@pytest.fixture(scope="module")
def measured(lq: DataSet) -> Any:
    from ablate.systems.joint import JointSystem

    system = JointSystem.prepare(config(), lq, "cpu")
    trained = Trained(system, [system.model("test", s) for s in (0, 1)], "test", [0, 1], 1)

    def run(**options: Any) -> Any:
        asked = {"horizon": 4, "samples": 3, "beginnings": 7, **options}
        return OpenLoop()(trained, OpenLoop.Options.model_validate(asked))

    return run


@pytest.mark.parametrize("actions", ["logged", "own", "behaviour"])
def test_every_response_is_given_whoever_acts(measured: Any, actions: str) -> None:
    found = measured(actions=actions)
    for response in OpenLoop.responses:
        values = found[response.name]
        assert values.shape == ((2, 4) if response.index else (2,)), response.name
        assert np.isfinite(values).all(), response.name
    again = measured(actions=actions)
    assert all(np.array_equal(found[name], again[name]) for name in found)
    # The simulator is the same for all models of a seed, and another for another seed.
    assert not np.array_equal(found["simulator_rmse"][0], found["simulator_rmse"][1])
    assert (found["area_energy"] > 0.5).all()  # they are not trained


def test_short_episodes_leave_a_shorter_past(lq: DataSet) -> None:
    found = [happened(Asked(lq), "logged", past, 95, 5, 2, "test", 0) for past in (19, 2)]
    assert [one.past for one in found] == [4, 2]
    assert (lq.held_out.timestep[found[0].rows] == 4).all()


def test_one_future_is_enough_where_nothing_is_drawn(measured: Any) -> None:
    for sampling in ("greedy", "mean"):
        assert (measured(sampling=sampling)["spread"] == 0).all()
        read = OpenLoop.reads(config(measure={"open-loop": {"sampling": sampling}}))
        assert "samples" not in read
    assert "samples" in OpenLoop.reads(config())
    assert "propagation" not in OpenLoop.reads(config())


def test_a_model_that_is_the_truth_has_no_excess(lq: DataSet) -> None:
    """The simulator in place of a model: areas of 0, and states that can be."""

    class Truth(JointDynamics):
        def __init__(self) -> None:
            pass

        def imagine(self, context, observation, horizon, samples, actions, seed):  # type: ignore[no-untyped-def]
            played = Playing(lq.spec.behaviour(), np.random.default_rng(9), False)  # type: ignore[misc]
            rows = beginnings(lq.held_out, 19, horizon, 400, "test", 0)
            return torch.from_numpy(simulated(lq, rows, horizon, samples, played, 5))

    system = SimpleNamespace(
        data=lq,
        context=2,
        device=torch.device("cpu"),
        rows=lambda part: (torch.zeros(len(part.rewards), 8), None),
        dynamics=lambda *_: Truth(),
    )
    trained: Any = Trained(system, [torch.nn.Module()], "test", [0], 1)  # type: ignore[arg-type, list-item]
    options = OpenLoop.Options(horizon=20, samples=8, beginnings=400, actions="behaviour")
    found = OpenLoop()(trained, options)
    assert abs(found["area"][0]) < 0.06
    assert abs(found["area_energy"][0]) < 0.03
    assert found["spread_skill"] == pytest.approx(1.0, abs=0.12)
    assert found["invalid"].max() < 0.01
    assert np.isnan(found["floor_area"]).all()  # it has no bins


def test_without_a_simulator_only_what_needs_one_is_missing(lq: DataSet) -> None:
    from ablate.systems.joint import JointSystem

    bare = replace(lq, held_out=replace(lq.held_out, simulator_state=None))
    system = JointSystem.prepare(config(), bare, "cpu")
    trained = Trained(system, [system.model("test", 0)], "test", [0], 1)
    found = OpenLoop()(trained, OpenLoop.Options(horizon=4, samples=2, beginnings=5))
    missing = {name for name, values in found.items() if np.isnan(values).all()}
    assert missing == {
        *("area", "area_energy", "floor_area", "simulator_valid_steps", "simulator_distance"),
        *("simulator_rmse", "simulator_energy", "simulator_wasserstein"),
    }
    with pytest.raises(UserError, match="can't be put into a logged state"):
        OpenLoop()(trained, OpenLoop.Options(horizon=4, beginnings=5, actions="behaviour"))


def test_refusals(tmp_path: Path) -> None:
    def refusal(**changes: Any) -> str:
        return OpenLoop.refusal(config(**changes))

    assert refusal() == ""
    assert "allowed: joint, one-step" in refusal(algorithm="bc", settings={})
    assert "found the condition 'time'" in refusal(condition="time")
    assert "a window of one timestep never predicts" in refusal(context=1)
    own = {"open-loop": {"actions": "own"}}
    assert refusal(measure=own) == ""
    assert "predicts no actions of its own" in refusal(
        measure=own, algorithm="one-step", settings={}
    )
    system = prepare(config(data="lq-mix/single@mask-velocity"), tmp_path)
    trained = Trained(system, [system.model("test", 0)], "test", [0], 1)
    with pytest.raises(UserError, match="its behaviour can't act on what is imagined"):
        OpenLoop()(trained, OpenLoop.Options(actions="behaviour"))


def test_what_it_costs_grows_with_what_is_imagined() -> None:
    options = OpenLoop.Options().model_dump()
    base = OpenLoop.seconds(config(model={"parameters": 1000}), options, lambda: 4)
    more = options | {"samples": 16}
    assert OpenLoop.seconds(config(model={"parameters": 1000}), more, lambda: 4) == 2 * base
    assert OpenLoop.seconds(config(model={"parameters": 1000}), options, lambda: 8) == 2 * base
