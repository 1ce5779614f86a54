"""Plans held against what happens: hand-made plans of known divergence, the simulator by hand, counts by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.config import complete
from ablate.data.catalogue import DataSet, spec
from ablate.data.families.forkcommit import Task, demonstrate
from ablate.envs.base import State
from ablate.envs.forkcommit import ACROSS, JUNCTION, PROGRESS, ROUTE, SPEED, ForkCommit
from ablate.errors import UserError
from ablate.measure.base import Trained, split
from ablate.measure.plans import (
    Acted,
    Made,
    Planner,
    Plans,
    Scales,
    act,
    committed,
    executed,
    replanned,
    stepped,
    telescoping,
    violation,
    ways,
)
from ablate.plan.options import PlanOptions
from ablate.plan.search import search
from ablate.systems import prepare

DELAY = 3


@pytest.fixture(scope="module")
def fork() -> DataSet:
    found = spec(f"forkcommit/{DELAY}x2-v0")
    task = Task(DELAY, 2)
    parts = (demonstrate(f"{found.name}/test", task, part) for part in ("train", "held_out"))
    return DataSet(found, *parts, found.anchors())


def config(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "data": f"forkcommit/{DELAY}x2-v0", "mixer": "attention", "context": 5, "condition": "none",
        "history": "states+actions+rewards", "head": "categorical", "algorithm": "joint",
        "layout": "dimension", "input": "discretised",
        "settings": {"bins": 8, "discretiser": "uniform", "penalty": None, "first_observation": False},
        "model": {"width": 8, "layers": 1, "positions": "rotary"},
        "train": {"loss": "all"}, "measure": {"plans": {"horizon": 4, "samples": 2, "episodes": 4}},
    }  # fmt: skip
    return complete(made | changes)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return prepare(config(), tmp_path_factory.mktemp("data"))


def options(**changes: Any) -> Any:
    return Plans.Options.model_validate({"horizon": 4, "samples": 2, "episodes": 4} | changes)


# --- numbers by hand ---


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(2, 9), st.floats(0.5, 1.0), st.integers(0, 10**6))
def test_what_really_happens_telescopes(steps: int, discount: float, seed: int) -> None:
    rewards = np.random.default_rng(seed).normal(size=40)
    after = np.array([(discount ** np.arange(39 - t) * rewards[t + 1 :]).sum() for t in range(40)])
    rows = np.stack([np.zeros(40), rewards, after], -1)[3 : 3 + steps]
    np.testing.assert_allclose(telescoping(rows, discount), 0.0, atol=1e-9)
    rows[0, -1] += 0.25  # a value that promises more
    np.testing.assert_allclose(telescoping(rows, discount), 0.25)


def test_commitment_is_when_the_last_doubt_is_over() -> None:
    told = {
        (0, 4): 1,
        (0, 5): -1,
        (0, 6): -1,
        (1, 4): 1,
        (1, 5): 1,
        (2, 9): 1,
        (2, 10): -1,
        (3, 1): 1,
    }
    taken = {
        (0, 4): 0,
        (0, 5): -1,
        (0, 6): -1,
        (1, 4): 1,
        (1, 5): 1,
        (2, 9): 1,
        (2, 10): 1,
        (3, 1): 0,
    }
    # the first doubts once, the second never, the third to its end; the fourth ends nowhere
    assert committed(told, taken) == pytest.approx((1 + 0 + 2) / 3)
    assert np.isnan(committed({}, {}))


def test_draws_of_one_law_replan_at_one_and_a_plan_that_is_kept_at_less() -> None:
    rng = np.random.default_rng(0)
    scales = Scales(np.ones(2), np.ones(2, dtype=bool), np.ones(6))
    episodes = np.arange(4000)
    drawn = [Made(t, episodes, rng.normal(size=(4000, 2, 6, 2)), None) for t in (3, 4)]
    assert replanned(scales, drawn, 2) == pytest.approx(1.0, abs=0.02)
    later = rng.normal(size=(4000, 2, 6, 2))
    later[:, 0, :-1] = drawn[0].rows[:, 0, 1:]
    assert replanned(scales, [drawn[0], Made(4, episodes, later, None)], 2) == pytest.approx(0.0)
    assert np.isnan(replanned(scales, [drawn[0], Made(5, episodes, later, None)], 2))
    alone = [Made(t, episodes, rng.normal(size=(4000, 1, 6, 2)), None) for t in (3, 4)]
    assert np.isnan(replanned(scales, alone, 2))


def test_only_the_overlap_of_the_same_episodes_counts() -> None:
    scales = Scales(np.ones(1), np.ones(1, dtype=bool), np.ones(4))
    old = Made(
        0,
        np.array([2, 5]),
        np.array([[[0, 9, 1, 2.0], [0, 9, 3, 4]], [[7.0] * 4, [8] * 4]])[..., None],
        None,
    )
    new = Made(1, np.array([5, 6]), np.array([[[99, 9, 6, 99.0], [0.0] * 4]] * 2)[..., None], None)
    # episode 5: (7, 7) against (9, 6) at timesteps 2 and 3, and (7, 7) against (8, 8)
    expected = np.mean([2.0, 1.0]) / np.mean([abs(1 - 3), abs(2 - 4), 1, 1])
    only = np.mean([2.0, 1.0]) / 1.0
    assert replanned(scales, [old, new], 1) == pytest.approx(only)
    assert only != expected


def test_displacements_of_the_data_are_those_of_every_pair(fork: DataSet) -> None:
    scales = Scales.of(fork, 4, (ROUTE,))
    truth = fork.train
    np.testing.assert_array_equal(scales.kept, [True, True, True, False])
    spread = truth.observations.astype(np.float64).std(0)
    for h in (1, 3):
        apart = [
            np.sqrt(np.mean((((one[t + h] - one[t]) / spread)[:ROUTE]) ** 2))
            for begin, end in zip(truth.episode_starts, truth.episode_starts[1:], strict=False)
            for one in [truth.observations[begin:end].astype(np.float64)]
            for t in range(len(one) - h)
        ]
        assert scales.moved[h] == pytest.approx(np.mean(apart), rel=1e-4)


# --- a plan of known divergence ---


def at_the_junction(count: int) -> ForkCommit:
    env = ForkCommit(count, DELAY, 2)
    env.reset(list(range(count)))
    for _ in range(DELAY):
        env.step(np.zeros((count, 1)))
    return env


def test_a_plan_diverges_by_what_it_is_wrong() -> None:
    env = at_the_junction(3)
    actions = np.tile([[0.4], [0.8], [-0.4]], (3, 1, 1)) * np.array([1.0, 0.5, 2.0])[:, None, None]
    elsewhere = ForkCommit(2, DELAY, 2)  # of another size, and begun elsewhere
    elsewhere.reset([40, 41])
    seen, going = executed(elsewhere, env.state(), actions)
    across = SPEED * np.cumsum(np.clip(actions[..., 0], -1, 1), axis=1)
    np.testing.assert_allclose(seen[..., ACROSS], across, atol=1e-6)
    assert going.all()
    assert seen.shape == (3, 3, 4)
    scales = Scales(np.array([1.0, 1.0, 0.5, 1.0]), np.array([True, True, True, False]), np.ones(4))
    wrong = seen.copy()
    wrong[..., ACROSS] += 0.1
    wrong[..., ROUTE] = 5.0  # chance: doesn't count
    np.testing.assert_allclose(scales.apart(wrong, seen), 0.2 / np.sqrt(3), rtol=1e-5)


def test_an_episode_that_ends_is_no_part_of_the_plan() -> None:
    env = ForkCommit(2, 1)
    env.reset([0, 1])
    env.step(np.zeros((2, 1)))
    seen, going = executed(ForkCommit(2, 1), env.state(), np.ones((2, 6, 1)))
    np.testing.assert_array_equal(going, [[True] * 3 + [False] * 3] * 2)
    np.testing.assert_array_equal(seen[:, 3:, ACROSS], 1.0)


def test_every_imagined_timestep_is_asked_for_by_itself() -> None:
    env = ForkCommit(2, DELAY)
    env.reset([0, 1])
    states = np.zeros((3, 3, 4), dtype=np.float32)
    states[..., PROGRESS], states[..., JUNCTION] = 1.0, 1.0
    states[..., ACROSS] = [[0.0, 0.25, 0.5], [0.0, 0.35, 0.6], [0.0, -0.3, -0.2]]
    actions = np.array([[[1.0], [1.0]], [[1.0], [1.0]], [[-1.0], [1.0]]])
    after = stepped(env, states[:, :-1].reshape(-1, 4), actions.reshape(-1, 1))
    assert after is not None
    np.testing.assert_allclose(after[:, ACROSS], [0.25, 0.5, 0.25, 0.6, -0.25, -0.05], atol=1e-6)
    scales = Scales(np.ones(4), np.array([False, False, True, False]), np.array([np.nan, 0.5, 1.0]))
    off = np.array([0.0, 0.0, 0.1, 0.0, 0.05, 0.15])
    assert violation(env, scales, states, actions) == pytest.approx(off.mean() / 0.5, rel=1e-5)


# --- ways ---


def trajectory(across: list[float], horizon: int = 4) -> np.ndarray:
    made = np.zeros((horizon, 4))
    made[:, PROGRESS], made[:, JUNCTION] = 1.0, 1.0
    made[:, ACROSS] = across
    return made


def test_ways_are_counted_as_by_hand() -> None:
    """Two episodes at the junction; the first goes up after a plan down, the second is planned through both arms."""
    up, down = [0, 0.25, 0.5, 0.75], [0, -0.25, -0.5, -0.75]
    both, none = [0, 0.25, -0.25, -0.5], [0, 0, 0, 0]
    drawn = {
        3: [[down, up], [both, none]],
        4: [[up, up], [down, down]],
    }
    plans = [
        Made(t, np.arange(2), np.array([[trajectory(one) for one in two] for two in each]), None)
        for t, each in drawn.items()
    ]
    observations = np.zeros((9, 2, 4))
    observations[3:, :, JUNCTION] = 1.0
    observations[3:, 0, ACROSS] = [0, 0.2, 0.4, 0.6, 0.8, 0.9]
    observations[3:, 1, ACROSS] = [0, -0.2, -0.4, -0.6, -0.8, -0.9]
    acted = Acted(observations, np.zeros(2), np.zeros(2), np.zeros(2), plans)
    found = ways(ForkCommit(1, DELAY), acted, 4, 4)
    assert found.switches == pytest.approx(1 / 2)  # down -> up; both ends down -> down
    assert found.apart == pytest.approx(1 / 3)  # down and up; up and up; down and down
    assert found.kept == pytest.approx(3 / 4)
    assert found.commitment == pytest.approx((1 + 0) / 2)
    assert found.coherent == pytest.approx(
        6 / 8
    )  # not the one through both arms, not the one that stays
    share = np.array([4, 3]) / 7
    assert found.coverage == pytest.approx(-(share * np.log2(share)).sum())


def test_states_of_several_timesteps_are_joined() -> None:
    env = at_the_junction(2)
    first = env.state()
    env.step(np.ones((2, 1)))
    joined = State.joined([first.take([1]), env.state()])
    again = ForkCommit(3, DELAY, 2)
    seen = again.set_state(joined)
    np.testing.assert_allclose(seen[:, ACROSS], [0.0, 0.25, 0.25])


# --- making plans ---


def beginning(system: Any, count: int, past: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = system.rows(system.data.held_out)[0]
    at = system.data.held_out.episode_starts[:count, None] + np.arange(past + 1)
    return rows[at[:, :-1]], rows[at[:, -1]][:, :4]


@pytest.mark.parametrize("mode", ["reference", "full"])
def test_a_plan_depends_on_its_window_and_on_nothing_before(system: Any, mode: str) -> None:
    model = system.model("test", 0)
    planner = Planner(model, options(mode=mode), 3)
    context, now = beginning(system, 3, 6)

    def made(rows: torch.Tensor) -> torch.Tensor:
        return planner.make(rows, now, torch.Generator().manual_seed(1))

    plans = made(context)
    assert plans.shape == (3, 2, 4, 7)
    torch.testing.assert_close(plans[:, :, 0, :4], now[:, None].expand(-1, 2, -1))
    other = context.clone()
    other[:, :4, :5] = 0.9  # before the window of the present timestep and two before it
    torch.testing.assert_close(made(other), plans)
    with torch.no_grad():  # an untrained model hardly minds what it sees
        for parameter in model.parameters():
            parameter.mul_(6.0)
    plans = made(context)
    torch.testing.assert_close(made(other), plans)
    other[:, 5, :5] = 0.9
    assert not torch.equal(made(other), plans)


def test_the_likeliest_plan_is_that_of_the_search(system: Any) -> None:
    model = system.model("test", 0)
    context, now = beginning(system, 2, 3)
    planner = Planner(model, options(objective="likelihood", beam=3), 5)
    plans = planner.make(context, now, torch.Generator())
    asked = PlanOptions(objective="likelihood", horizon=4, beam=3, max_context_transitions=5)
    torch.testing.assert_close(plans[:, 0], search(model, context, now, asked).rows)
    assert planner.positions > 0


def test_a_window_of_fixed_length_cannot_keep_everything(tmp_path: Path) -> None:
    made = prepare(config(model={"width": 8, "layers": 1}), tmp_path)
    with pytest.raises(UserError, match="full needs a window of 8 timesteps"):
        Planner(made.model("test", 0), options(mode="full"), 5)


def test_of_long_windows_fewer_are_held_out(system: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = system.model("test", 0)
    assert len(system.held("test", [model]).rows) == 512
    assert len(system.held("test", [model], 600).rows) == 600
    for tokens, count in ((34 * 70, 70), (34, 64)):  # a window has 34 tokens
        monkeypatch.setattr("ablate.systems.joint.TOKENS", tokens)
        assert len(system.held("test", [model]).rows) == count


# --- the whole measurement ---


def test_who_knows_the_route_succeeds_and_who_plans_by_chance_does_half(
    system: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plans made by hand in place of the model's: of the arm that the row's goal says, or of a coin."""
    model = system.model("test", 0)
    data, count = system.data, 16
    coin = np.random.default_rng(0)

    def plans(self: Any, context: Any, observation: Any, generator: Any, one: bool = False) -> Any:
        y = observation[:, ACROSS].numpy()
        shown = context[:, :, ROUTE].numpy()
        last = np.array([row[np.flatnonzero(row)[-1]] if row.any() else 0.0 for row in shown])
        blind = last if self.knows else coin.choice([-1.0, 1.0], len(y))
        route = np.where(y == 0, blind, np.sign(y))
        made = np.zeros((len(y), 2, 4, 7), dtype=np.float32)
        made[..., PROGRESS], made[..., JUNCTION] = 1.0, 1.0
        made[..., 4] = route[:, None, None]
        made[..., ACROSS] = y[:, None, None] + SPEED * route[:, None, None] * np.arange(4)
        return torch.from_numpy(made)

    monkeypatch.setattr(Planner, "make", plans)
    found = {}
    for knows in (True, False):
        planner = Planner(model, options(), 5)
        planner.knows = knows  # type: ignore[attr-defined]
        found[knows] = act(planner, data, options(episodes=count, between="behaviour"), "test", 0)
        taken = ways(data.spec.make_env(1), found[knows], 4, 4)
        assert taken.coherent == 1.0
        if knows:
            assert (taken.switches, taken.kept, taken.commitment) == (0.0, 1.0, 0.0)
        else:
            assert taken.switches > 0.1
    assert (found[True].success == 1.0).all()
    np.testing.assert_array_equal(found[True].returns, 2.0)
    assert 0.2 < found[False].success.mean() < 0.8


def test_the_measurement_gives_all_that_it_says_and_the_same_again(system: Any) -> None:
    models = [system.model("test", seed) for seed in (0, 1)]
    trained = Trained(system, models, "test", [0, 1], 0)
    asked = options(between="behaviour")
    found = [split("plans", Plans(), Plans()(trained, asked), 2) for _ in range(2)]
    one, again = (each[1].values for each in found)
    for name in one.keys() - {"latency"}:
        assert one[name] == again[name] or np.isnan(one[name]), name
    assert all(
        np.isfinite(one[name])
        for name in ("violation", "floor_violation", "divergence_mean", "telescoping")
    )
    assert (one["best"], one["timesteps"]) == (100.0, 5.0)
    assert 0 < one["floor_violation"] < one["violation"]
    assert found[0][0].series["divergence"][0].tolist() == [1, 2, 3]


def test_what_cannot_be_planned_is_said() -> None:
    assert "doesn't predict" in Plans.refusal({"algorithm": "bc", "condition": "none"})
    wide = {
        "algorithm": "joint",
        "condition": "none",
        "context": 4,
        "measure": {"plans": {"visible": 6}},
    }
    assert "found 6" in Plans.refusal(wide)
    short = {"algorithm": "joint", "condition": "none", "context": 1, "timesteps": 0}
    assert "a window of one timestep" in Plans.refusal(short)
    nobody = SimpleNamespace(
        name="file/x", behaviour=None, hiding=None, make_env=lambda n: ForkCommit(n, 2)
    )
    planner = SimpleNamespace(
        model=SimpleNamespace(
            spec=SimpleNamespace(slots=7), head=SimpleNamespace(mean=torch.zeros(1))
        )
    )
    with pytest.raises(UserError, match="nobody knows how file/x was acted in"):
        act(planner, SimpleNamespace(spec=nobody), options(between="behaviour"), "test", 0)  # type: ignore[arg-type]
