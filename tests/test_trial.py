"""One cohort from configuration to metrics."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_trials import GOLDEN, config, measure

from ablate import trial
from ablate.data import catalogue
from ablate.errors import UserError
from ablate.learn import train as trainer
from ablate.learn.checkpoint import load_policy
from ablate.study.identity import CODE_VERSION
from ablate.trial import Outcome, measure_ways, prepare, run_cohort, target_return

METRICS = {
    "score", "score_median", "return_mean", "return_std", "success", "jerk",
    "action_error", "action_error_early", "action_nll", "heldout_loss",
    "width", "parameters", "parameter_mismatch", "flops_per_target", "targets",
}  # fmt: skip
CURVE = {
    "update", "train_loss", "heldout_loss", "action_error", "action_error_early", "action_nll",
}  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the data sets lie; each is generated once."""
    return tmp_path_factory.mktemp("data")


def run(
    cache: Path, seeds: tuple[int, ...] = (0,), stacked: bool = False, folder: Path | None = None,
    **changes: Any,
) -> list[Outcome]:  # fmt: skip
    return run_cohort(
        "trial-tests", seeds, config(**changes), cache=cache, stacked=stacked, folder=folder
    )


def same(one: dict[str, float], other: dict[str, float], rel: float = 0.0) -> bool:
    assert one.keys() == other.keys()
    return all(
        math.isclose(one[k], other[k], rel_tol=rel, abs_tol=rel) or one[k] != one[k] != other[k]
        for k in one
    )


@pytest.mark.parametrize("mixer", ["gru", "attention", "mlp"])
def test_with_the_cue_in_sight_the_maze_is_solved(mixer: str, cache: Path) -> None:
    for outcome in run(cache, (0, 1), stacked=True, mixer=mixer, updates=200):
        assert outcome.metrics["success"] == 1.0
        assert outcome.metrics["score"] == pytest.approx(100.0)
        assert outcome.metrics["return_std"] == 0.0
        assert outcome.metrics["action_error"] < 0.02


@pytest.mark.parametrize("mixer", ["gru", "attention", "bag"])
def test_without_memory_half_the_mazes_are(mixer: str, cache: Path) -> None:
    """The policy always turns the same way, and the goals are balanced: one half exactly."""
    for outcome in run(cache, (0, 1), stacked=True, mixer=mixer, updates=200, context=1):
        assert outcome.metrics["success"] == 0.5


def test_every_metric_and_every_point_of_the_curve_is_there(cache: Path, tmp_path: Path) -> None:
    told: list[tuple[int, dict[str, float]]] = []
    fractions: list[float] = []
    outcomes = run_cohort(
        "trial-tests", [3, 1], config(head="mixture", updates=7, points=3), cache=cache,
        stacked=True, folder=tmp_path,
        watch=trial.Watch(fractions.append, lambda index, row: told.append((index, row))),
    )  # fmt: skip
    for index, outcome in enumerate(outcomes):
        assert set(outcome.metrics) == METRICS
        assert all(math.isfinite(value) for value in outcome.metrics.values())
        assert outcome.failure == ""
        assert [row["update"] for row in outcome.curve] == [2, 5, 7]
        assert all(set(row) == CURVE for row in outcome.curve)
        assert outcome.curve == [row for place, row in told if place == index]
        assert outcome.metrics["targets"] == 7 * 32
        assert abs(outcome.metrics["parameter_mismatch"]) <= 5.0
        assert outcome.seconds > 0
        for name in (
            "heldout_loss",
            "action_nll",
        ):  # 100 episodes of 4: the curve sees every target
            assert outcome.curve[-1][name] == pytest.approx(outcome.metrics[name])
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] <= fractions[-1] == pytest.approx(0.9)
    assert outcomes[0].metrics["heldout_loss"] != outcomes[1].metrics["heldout_loss"]


@pytest.mark.parametrize("data", ["tmaze/passive-3", "lq-mix/episode"])
def test_a_stacked_cohort_equals_single_trainings(data: str, cache: Path) -> None:
    """To rounding: float32, summed in another order, over 20 updates and an episode of 100 steps."""
    options: dict[str, Any] = {"data": data, "head": "mixture", "seeds": (0, 5)}
    together = run(cache, stacked=True, **options)
    singly = run(cache, stacked=False, **options)
    for one, other in zip(together, singly, strict=True):
        assert same(one.metrics, other.metrics, rel=1e-3)
        assert all(same(a, b, 1e-3) for a, b in zip(one.curve, other.curve, strict=True))


@pytest.mark.parametrize("stacked", [False, True])
def test_a_trial_gives_the_same_bits_again(stacked: bool, cache: Path) -> None:
    options: dict[str, Any] = {"mixer": "attention", "head": "categorical", "dropout": 0.2}
    first = run(cache, (0, 1), stacked, **options)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - nothing may depend on it
    again = run(cache, (0, 1), stacked, **options)
    for one, other in zip(first, again, strict=True):
        assert same(one.metrics, other.metrics)
        assert all(same(a, b) for a, b in zip(one.curve, other.curve, strict=True))


def test_a_seed_gives_the_same_result_beside_other_seeds(cache: Path) -> None:
    (alone,) = run(cache, (2,), head="mixture")
    beside = run(cache, (7, 2), head="mixture")[1]
    assert same(alone.metrics, beside.metrics, rel=1e-3)


def test_a_condition_changes_the_tokens_and_not_the_batches(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[np.ndarray]] = []
    draw = trainer.draw_targets

    def spied(*arguments: Any) -> np.ndarray:
        seen[-1].append(draw(*arguments))
        return seen[-1][-1]

    monkeypatch.setattr(trainer, "draw_targets", spied)
    found = []
    for changes in ({}, {"condition": "time"}, {"context": 1}, {"mixer": "mlp", "head": "mixture"}):
        seen.append([])
        found.append(run(cache, (4,), updates=3, **changes)[0].metrics["heldout_loss"])
    assert len(set(found)) == 4
    for draws in seen[1:]:
        assert all(map(np.array_equal, draws, seen[0]))


def test_the_checkpoint_is_what_was_evaluated(cache: Path, tmp_path: Path) -> None:
    (outcome,) = run(cache, (6,), folder=tmp_path, head="mixture")
    assert outcome.checkpoint == tmp_path / "seed-6.safetensors"
    state, about = load_policy(outcome.checkpoint)
    assert about["seed"] == 6
    assert about["study"] == "trial-tests"
    assert about["mixer"] == "gru"
    cell = prepare(config(head="mixture"), cache)
    policy = cell.policy("another", 0)
    policy.load_state_dict(state)
    held = cell.held("trial-tests", [policy])
    again = trial.Cohort("trial-tests", [6], [policy], [Outcome()], held)
    trial.evaluate(cell, again)
    assert all(outcome.metrics[name] == value for name, value in again.outcomes[0].metrics.items())


class Killed(BaseException):
    """Stands for the end of the process."""


def killed_at(update: float, place: int) -> Any:
    def on_point(index: int, row: dict[str, float]) -> None:
        if row["update"] == update and index == place:
            raise Killed

    return on_point


@pytest.mark.parametrize("stacked", [False, True])
def test_an_interrupted_cohort_goes_on_and_ends_alike(
    stacked: bool, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "SAVE_EVERY", -1.0)
    changes: dict[str, Any] = {"points": 4, "head": "mixture"}
    expected = run(cache, (0, 1), stacked, **changes)
    with pytest.raises(Killed):
        run_cohort(
            "trial-tests", (0, 1), config(**changes), cache=cache, stacked=stacked,
            folder=tmp_path, watch=trial.Watch(on_point=killed_at(15, 1)),
        )  # fmt: skip
    found = run(cache, (0, 1), stacked, tmp_path, **changes)
    for one, other in zip(found, expected, strict=True):
        assert same(one.metrics, other.metrics)


def test_its_learning_curve_is_whole(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "SAVE_EVERY", -1.0)
    (expected,) = run(cache, points=4)
    with pytest.raises(Killed):
        run_cohort(
            "trial-tests", (0,), config(points=4), cache=cache, stacked=False,
            folder=tmp_path, watch=trial.Watch(on_point=killed_at(15, 0)),
        )  # fmt: skip
    (found,) = run(cache, folder=tmp_path, points=4)
    assert [row["update"] for row in found.curve] == [row["update"] for row in expected.curve]
    assert all(same(a, b) for a, b in zip(found.curve, expected.curve, strict=True))


@pytest.mark.parametrize("stacked", [False, True])
def test_a_trial_that_diverges_fails_and_the_others_go_on(
    stacked: bool, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (expected,) = run(cache, (1,), stacked)
    made = trial.Cell.policy

    def broken(cell: trial.Cell, study: str, seed: int) -> Any:
        policy = made(cell, study, seed)
        if seed == 0:
            policy.embed.weight.data.fill_(float("nan"))
        return policy

    monkeypatch.setattr(trial.Cell, "policy", broken)
    bad, good = run(cache, (0, 1), stacked)
    assert bad.failure.startswith("diverged: loss nan at update ")
    assert good.failure == ""
    assert same(good.metrics, expected.metrics, rel=1e-3)


def test_the_return_asked_for(cache: Path) -> None:
    data = catalogue.load("lq-mix/episode", cache)
    assert target_return(data, -3) == -3.0
    assert target_return(data, 2.5) == 2.5
    assert target_return(data, "p90") == pytest.approx(np.percentile(data.train.returns, 90))
    assert target_return(data, "p0") == pytest.approx(data.train.returns.min())
    assert target_return(data, "p100") == pytest.approx(data.train.returns.max())


@pytest.mark.parametrize("rule", ["best", "p101", "p", "p-1", "p9.5", "90"])
def test_another_rule_for_it_is_refused(rule: str, cache: Path) -> None:
    data = catalogue.load("tmaze/passive-3", cache)
    with pytest.raises(UserError, match=r"allowed: a number, or p0 \.\.\. p100"):
        target_return(data, rule)


def test_an_oracle_needs_recorded_policies(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = catalogue.load("tmaze/passive-3", cache)
    without = dataclasses.replace(data, spec=dataclasses.replace(data.spec, num_policies=0))
    monkeypatch.setattr(catalogue, "load", lambda *_: without)
    with pytest.raises(
        UserError, match="needs data that says which policy acted; 'tmaze/passive-3' does not"
    ):
        prepare(config(condition="policy-id"), cache)


def test_a_width_that_cannot_be_matched_is_refused(cache: Path) -> None:
    with pytest.raises(UserError):
        prepare(config(parameters=20), cache)


def test_both_ways_of_training_are_measured(cache: Path) -> None:
    found = measure_ways("trial-tests", [0, 1], config(), cache)
    assert found.keys() == {"stacked", "single"}
    assert all(0 < seconds < 10 for seconds in found.values())


def test_results_are_what_they_were(cache: Path) -> None:
    golden = json.loads(GOLDEN.read_text())
    write = "write tests/golden.json anew with `python -m tests.golden_trials`"
    assert golden["code_version"] == CODE_VERSION, f"CODE_VERSION was raised: {write}"
    for name, metrics in measure(cache).items():
        expected = golden["trials"][name]
        changed = {
            key: (expected.get(key), value)
            for key, value in metrics.items()
            if value != pytest.approx(expected.get(key), rel=1e-3, abs=1e-6)
        }
        assert not changed and metrics.keys() == expected.keys(), (  # noqa: PT018
            f"results changed: raise ablate.study.identity.CODE_VERSION, then {write};"
            f" {name}: {changed} (before, now)"
        )


@pytest.mark.gpu
@pytest.mark.parametrize("mixer", ["gru", "attention", "mlp"])
def test_a_gpu_gives_what_the_cpu_gives(mixer: str, cache: Path) -> None:
    """To rounding of float32 over 20 updates; run with `python -m pytest -m gpu`."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    options: dict[str, Any] = {"cache": cache, "stacked": True}
    there = run_cohort("trial-tests", (0, 1), config(mixer=mixer), device="cuda", **options)
    here = run_cohort("trial-tests", (0, 1), config(mixer=mixer), **options)
    for one, other in zip(there, here, strict=True):
        assert same(one.metrics, other.metrics, rel=1e-2)
