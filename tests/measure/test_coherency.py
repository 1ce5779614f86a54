"""What the study of coherency brings along: its curves against statsmodels and closed forms, and its figures."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import optimize
from statsmodels.tools.numdiff import approx_fprime, approx_hess

from ablate import registry
from ablate.analyse.estimators import Asked, Untold
from ablate.report.results import Results
from ablate.study.load import load

STUDY = Path(__file__).parents[2] / "studies" / "coherency.yaml"
ONE, OTHER = {"layout": "dimension"}, {"layout": "step"}
SUCCESS = Asked("plans.success")


@pytest.fixture(scope="module")
def own() -> Any:
    """The study's own file, forgotten after these tests."""
    with registry.scope():
        registry.load_plugin(str(STUDY.with_suffix(".py")))
        yield sys.modules[registry.get("estimator", "reach").__module__]


def design(count: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.stack([np.ones(count), rng.normal(size=count), rng.choice([-0.5, 0.5], count)], 1)
    return x, rng.uniform(0.05, 0.95, count)


def test_without_chance_or_prior_it_is_the_logistic_regression_of_statsmodels(own: Any) -> None:
    x, y = design()
    known = sm.GLM(y, x, family=sm.families.Binomial()).fit()
    found, twice = own.fitted(x, y, 0.0, prior=False)
    np.testing.assert_allclose(found, known.params, rtol=1e-7)
    _, without = own.fitted(x[:, :2], y, 0.0, prior=False)
    nested = sm.GLM(y, x[:, :2], family=sm.families.Binomial()).fit()
    assert (twice - without) / own.TRIALS == pytest.approx(
        nested.deviance - known.deviance, rel=1e-7
    )


def test_the_information_is_the_expected_curvature(own: Any) -> None:
    """At a response that is what is expected, the likelihood's second derivative is the information."""
    x, _ = design()
    b = np.array([0.3, 1.4, 0.5])
    y = own.shares(b, x, 0.5)
    hessian = approx_hess(b, lambda c: own.likelihood(c, x, y, 0.5, False))
    np.testing.assert_allclose(own.information(b, x, 0.5), -hessian, rtol=1e-3, atol=0.05)


def test_from_chance_on_it_finds_the_top_of_the_likelihood(own: Any) -> None:
    x, _ = design(80)
    rng = np.random.default_rng(1)
    y = np.clip(own.shares(np.array([0.5, 2.0, -0.6]), x, 0.5) + rng.normal(0, 0.03, 80), 0.4, 1.0)
    found, twice = own.fitted(x, y, 0.5)
    np.testing.assert_allclose(own.score(found, x, y, 0.5, True), 0.0, atol=1e-8)
    away = np.array([0.1, 1.2, 0.4])
    slope = approx_fprime(away, lambda c: own.likelihood(c, x, y, 0.5, True), centered=True)
    np.testing.assert_allclose(own.score(away, x, y, 0.5, True), slope, rtol=1e-5)
    again, _ = own.fitted(x, y, 0.5, begin=away)
    np.testing.assert_allclose(again, found, rtol=1e-11)  # whatever the way there
    other = optimize.minimize(lambda c: -own.likelihood(c, x, y, 0.5, True), [0.0, 1.0, 0.0])
    assert twice == pytest.approx(-2 * other.fun, abs=1e-3)
    np.testing.assert_allclose(found, [0.5, 2.0, -0.6], atol=0.3)


def test_the_prior_adds_half_a_success_and_half_a_failure(own: Any) -> None:
    """Firth's estimate of one probability, also where all succeed."""
    for right in (7.0, 10.0):
        trials = 10 * own.TRIALS
        successes = own.TRIALS * right
        y = np.array([1.0] * int(right) + [0.0] * (10 - int(right)))
        found, _ = own.fitted(np.ones((10, 1)), y, 0.0)
        assert found[0] == pytest.approx(
            np.log((successes + 0.5) / (trials - successes + 0.5)), rel=1e-9
        )


def table(
    shift: float = 0.0, seeds: int = 5, step: bool = False, noise: float = 0.02
) -> pd.DataFrame:
    """Success of two layouts on two distances, the first `shift` later along log(K / D)."""
    rng = np.random.default_rng(3)
    rows = []
    for layout, d, ratio, seed in itertools.product(
        ("dimension", "step"), (5, 10), (0.4, 1.0, 1.2, 2.0, 4.0), range(seeds)
    ):
        late = shift if layout == "dimension" else 0.0
        x = np.log(ratio) - 0.3 - late
        truth = 0.5 + 0.5 * (float(ratio > 1) if step else 1 / (1 + np.exp(-3.0 * x)))
        rows.append(
            {
                "trial": str(len(rows)), "status": "COMPLETED", "data": f"forkcommit/{d}x4-v0", "layout": layout,
                "head": "autoregressive" if layout == "step" else "categorical", "seed": seed,
                "plans.timesteps": ratio * d, "plans.success": np.clip(truth + rng.normal(0, noise), 0, 1),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def estimate(own: Any, rows: pd.DataFrame) -> Any:
    return own.Reach({"one": ONE, "other": OTHER})(rows, SUCCESS)


def test_the_offset_in_the_middle_is_that_of_the_curves(own: Any) -> None:
    same = estimate(own, table())
    low, high = same.interval(0.9)
    assert -0.05 < low < 0.0 < high < 0.05
    assert "K / D = 1.3" in same.notes[0]
    apart = estimate(own, table(shift=0.4))
    # halfway between both places the curves are at logits of -0.6 and 0.6
    assert apart.value == pytest.approx(-0.5 * np.tanh(3.0 * 0.4 / 4.0), abs=0.02)
    assert apart.interval(0.95)[1] < 0.0
    assert "p < 0.001" in apart.notes[0]
    assert own.Reach({"one": OTHER, "other": ONE})(
        table(shift=0.4), SUCCESS
    ).value == pytest.approx(-apart.value, abs=1e-3)


def test_a_step_has_an_offset_too(own: Any) -> None:
    found = estimate(own, table(step=True, noise=0.03))
    assert abs(found.value) < 0.05
    low, high = found.interval(0.9)
    assert np.isfinite([low, high]).all()


def test_what_has_no_curve_is_said(own: Any) -> None:
    rows = table()
    with pytest.raises(Untold, match="an arm has no finished run"):
        estimate(own, rows[rows["layout"] == "step"])
    with pytest.raises(Untold, match="the table has no column"):
        estimate(own, rows.drop(columns="plans.timesteps"))
    with pytest.raises(Untold, match="no distance"):
        estimate(own, rows.assign(data="pointmaze/umaze-v1"))


def test_interval_covers_as_often_as_it_says(own: Any) -> None:
    """Seeds that share their episodes: what moves all cells of a seed moves no offset."""
    hits = 0
    for draw in range(6):
        rng = np.random.default_rng(draw)
        rows = table(noise=0.0)
        common = rows["seed"].map(dict(enumerate(rng.normal(0, 0.03, 5))))
        each = rng.normal(0, 0.02, len(rows))
        rows["plans.success"] = np.clip(rows["plans.success"] + common + each, 0.0, 1.0)
        low, high = estimate(own, rows).interval(0.95)
        hits += low <= 0.0 <= high
    assert hits >= 4  # of 6 at 95 %, fewer have a probability of 0.002


# --- the figures ---


@pytest.fixture(scope="module")
def results(own: Any) -> Results:
    rng = np.random.default_rng(0)
    rows = []
    common = {
        "algorithm": "joint", "input": "discretised", "mixer": "attention", "status": "COMPLETED",
        "history": "states+actions+rewards", "condition": "none", "model.positions": "rotary", "budget": 250,
        "train.updates": 250, "train.points": 6, "train.targets_per_update": 256, "measure.plans.mode": "reference",
        "measure.plans.visible": 0, "measure.plans.objective": "draw", "measure.plans.between": "behaviour",
        "measure.plans.episodes": 24,
    }  # fmt: skip
    contexts = [4, 10, 12, 20, 40, "64 tokens", "256 tokens"]
    for levels, context, seed in itertools.product(own.ARMS.values(), contexts, range(3)):
        k = (
            context
            if isinstance(context, int)
            else int(context.split()[0]) // own.EACH[levels["layout"]]
        )
        rows.append(
            {
                **common, **levels, "context": context, "seed": seed, "trial": str(len(rows)),
                "data": "forkcommit/10x4-v0", "plans.timesteps": k,
                "plans.success": (0.97 if k > 10 else 0.5) + rng.normal(0, 0.01),
                "plans.switches": 0.05 if k > 10 else 0.2, "plans.coherent": 0.95,
                "plans.violation": 0.3, "plans.floor_violation": 0.1,
            }
        )  # fmt: skip
    return Results(load(STUDY), pd.DataFrame(rows))


def test_figures(own: Any, results: Results) -> None:
    tokens = own.bought(results)
    assert tokens.title == "What tokens buy in each layout"
    shown = [text.get_text() for text in tokens.figure.axes[0].texts]
    assert {"73 timesteps", "128 timesteps", "512 timesteps"} <= set(shown)
    assert tokens.trials
    assert len(own.collapsed(results).trials) == len(results.table)
    numbers = results.table["context"].map(lambda context: isinstance(context, int))
    assert own.bought(Results(results.study, results.table[numbers])) is None
    one = results.table[results.table["plans.timesteps"] == 4]
    assert own.collapsed(Results(results.study, one)) is None
    assert (
        own.collapsed(Results(results.study, results.table.assign(data="pointmaze/umaze-v1")))
        is None
    )


def test_every_profile_of_the_study_stands() -> None:
    for profile in ("standard", "quick", "gpu"):
        study = load(STUDY, profile)
        assert study.hypotheses
        assert study.seeds >= 3
