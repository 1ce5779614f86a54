"""What the study of foresight brings along: the exact filter against conditioning by hand, and its figures."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ablate import registry
from ablate.data import exact
from ablate.data.families.lq import simulate
from ablate.envs.lq import ACTION_SCALE, PROCESS_NOISE, A, B
from ablate.report.results import Results
from ablate.study.load import load

STUDY = Path(__file__).parents[2] / "studies" / "foresight.yaml"
DATA = ("lq-mix/single-3000", "pendulum/double-v0")


@pytest.fixture(scope="module")
def own() -> Any:
    """The study's own file, forgotten after these tests."""
    with registry.scope():
        registry.load_plugin(str(STUDY.with_suffix(".py")))
        yield sys.modules[registry.get("measurement", "filter").__module__]


def conditioned(start: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The law of x_h given x_0 and u_0 .. u_{h-1}, by conditioning one large Gaussian vector."""
    gain, steps = exact.controllers(2)[0], len(actions)
    force = ACTION_SCALE * actions
    # x_t = sum of what is known and of noises w_0 .. w_{t-1}, as the actions are given; their evidence is that
    # u_t + G x_t is noise of the exploration.
    means, noises = [start], [np.zeros((4, 4 * steps))]
    for t in range(steps):
        means.append(A @ means[-1] + B @ force[t])
        noises.append(A @ noises[-1])
        noises[-1][:, 4 * t : 4 * t + 4] += PROCESS_NOISE * np.eye(4)
    seen = np.concatenate([gain @ noises[t] for t in range(1, steps)])
    apart = np.concatenate([-force[t] - gain @ means[t] for t in range(1, steps)])
    spread = seen @ seen.T + exact.EXPLORATION**2 * np.eye(len(seen))
    weight = noises[-1] @ seen.T @ np.linalg.inv(spread)
    return means[-1] + weight @ apart, noises[-1] @ noises[-1].T - weight @ seen @ noises[-1].T


def test_the_filter_is_the_conditional_law(own: Any) -> None:
    data = simulate("lq-mix/test", "single", 3, "held_out", 1)
    rows = np.array([20, 120, 220])
    actions = data.actions[rows[:, None] + np.arange(6)]
    mean, spread = own.filtered(data.observations[rows], actions)
    assert (mean.shape, spread.shape) == ((3, 6, 4), (6, 4, 4))
    for steps, row in itertools.product((1, 2, 6), range(3)):
        start = data.observations[rows[row]].astype(np.float64)
        if steps == 1:
            expected = A @ start + B @ (ACTION_SCALE * actions[row, 0])
            covariance = PROCESS_NOISE**2 * np.eye(4)
        else:
            expected, covariance = conditioned(start, actions[row, :steps].astype(np.float64))
        np.testing.assert_allclose(mean[row, steps - 1], expected, atol=1e-9)
        np.testing.assert_allclose(spread[steps - 1], covariance, atol=1e-12)


def test_logged_actions_tell_of_the_noise(own: Any) -> None:
    """Under logged actions of a controller the filter errs as it says, and less than the simulator."""
    data = simulate("lq-mix/test", "single", 300, "held_out", 1)
    rows = np.arange(300) * 100 + 20
    actions = data.actions[rows[:, None] + np.arange(50)]
    mean, spread = own.filtered(data.observations[rows], actions)
    apart = data.observations[rows + 50] - mean[:, -1]
    np.testing.assert_allclose(apart.std(0), np.sqrt(np.diag(spread[-1])), rtol=0.1)
    alone = np.zeros((4, 4))
    for _ in range(50):
        alone = A @ alone @ A.T + PROCESS_NOISE**2 * np.eye(4)
    assert np.trace(spread[-1]) < 0.5 * np.trace(alone)


# --- the figures ---


@pytest.fixture(scope="module")
def results(own: Any) -> Results:
    """Made-up trials of the path on two data sets, two seeds, and their series."""
    study = load(STUDY)
    rows, series = [], []
    other = {"algorithm": "joint", "mixer": "mlp", "layout": "modality", "head": "gaussian", "context": 2,
             "settings.members": 1, "settings.unroll": 1, "condition": "none", "model.parameters": 64000,
             "history": "states+actions+rewards"}  # fmt: skip
    for data, seed, source in itertools.product(DATA, (0, 1, 2), ("logged", "behaviour")):
        for place, levels in enumerate(own.MODELS.values()):
            trial = f"{data}-{seed}-{source}-{place}"
            rows.append(
                {
                    **other,
                    **levels,
                    "trial": trial,
                    "status": "COMPLETED",
                    "budget": 1200,
                    "data": data,
                    "seed": seed,
                    "measure.open-loop.actions": source,
                    "measure.open-loop.sampling": "draw",
                    "measure.open-loop.propagation": "ts-inf",
                    "open-loop.area": 2.0 - 0.25 * place + 0.01 * seed * place,
                }
            )
            for response, h in itertools.product(("rmse", "simulator_rmse", "floor_rmse"), (1, 10)):
                value = np.nan if response == "floor_rmse" and place < 2 else 0.1 * h
                series.append((trial, f"open-loop.{response}", h, value))
            if data == DATA[0]:
                series.append((trial, "filter.rmse", 1, 0.05))
    table = pd.DataFrame(series, columns=["trial", "response", "index", "value"])
    return Results(study, pd.DataFrame(rows), series=table)


def test_the_steps_of_the_path_add_up(own: Any, results: Results) -> None:
    rows = own.at(results.table, {"data": DATA[1], "measure.open-loop.actions": "logged"})
    found = own.contributions(rows)
    assert list(found) == [*own.STEPS, "together"]
    assert [found[step].mean for step in own.STEPS] == pytest.approx([0.24] * 3)
    assert found["together"].mean == pytest.approx(0.72)
    assert found["together"].n == 3
    assert own.contributions(rows[rows["head"] != "categorical"]) == {}


def test_figures(own: Any, results: Results) -> None:
    drawn = own.foresight(results)
    assert [axes.get_title("left") or axes.get_title() for axes in drawn.figure.axes][:2]
    assert len(drawn.trials) == 2 * 3 * 5
    assert own.contributed(results) is not None
    bare = Results(results.study, results.table[results.table["mixer"] != "attention"])
    assert own.foresight(bare) is None
    assert own.contributed(bare) is None


def test_every_profile_of_the_study_stands() -> None:
    for profile in ("standard", "quick", "gpu"):
        study = load(STUDY, profile)
        assert study.hypotheses
        assert study.seeds >= 2
