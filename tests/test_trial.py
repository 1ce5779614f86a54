"""One cell from configuration to numbers: fitted once, measured at each budget."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ablate import trial
from ablate.data import catalogue
from ablate.errors import UserError
from ablate.learn import train as trainer
from ablate.learn.checkpoint import load_policy
from ablate.measure.acting import target_return
from ablate.systems.policy import PolicySystem
from ablate.trial import Fitted, prepare

STUDY = "trial-tests"
SIZES = {"width", "parameters", "parameter_mismatch", "flops_per_target", "targets", "loss_fall"}
CURVE = {
    "update", "train_loss", "heldout_loss", "action_error", "action_error_early", "action_nll",
}  # fmt: skip
Numbers = dict[str, float]


def config(**changes: Any) -> dict[str, Any]:
    """A small configuration; keys of `model`, `train` and `measure.rollout` may be given directly."""
    made: dict[str, Any] = {
        "data": "tmaze/passive-3",
        "mixer": "gru",
        "context": 4,
        "condition": "none",
        "history": "states+actions",
        "head": "mse",
        "model": {"parameters": 2500, "layers": 1, "dropout": 0.0},
        "train": {
            "updates": 20,
            "targets_per_update": 32,
            "learning_rate": 5e-3,
            "warmup": 5,
            "points": 2,
            "checkpoints": [],
            "loss": "last",
        },
        "measure": {"rollout": {"episodes": 10}, "held-out": {}},
    }
    parts = [made["model"], made["train"], made["measure"]["rollout"]]
    for name, value in changes.items():
        [made, *(part for part in parts if name in part)][-1][name] = value
    return made


class Run:
    """A cell fitted in a folder, and what its measurements give for its models."""

    def __init__(
        self, cache: Path, folder: Path, seeds: Iterable[int] = (0,), stacked: bool = False,
        watch: trial.Watch | None = None, device: str = "cpu", **changes: Any,
    ) -> None:  # fmt: skip
        self.folder, self.names = folder, {seed: f"fit{seed}" for seed in seeds}
        self.system = prepare(config(**changes), cache, device)
        self.fitted: list[Fitted] = trial.fit(
            self.system, STUDY, self.names, folder, stacked=stacked, resume=folder, watch=watch
        )

    def measured(self, name: str, budget: int | None = None, **options: Any) -> list[Numbers]:
        """One dict of responses a seed, from the checkpoints."""
        budget = budget or self.system.config["train"]["updates"]
        models = trial.trained(self.system, STUDY, self.names, self.folder, budget)
        options = self.system.config["measure"].get(name, {}) | options
        return [each.values for each in trial.measure(models, name, options)]

    def numbers(self) -> list[Numbers]:
        """All that is known of each seed."""
        parts = zip(self.fitted, self.measured("rollout"), self.measured("held-out"), strict=True)
        return [fitted.metrics | acted | predicted for fitted, acted, predicted in parts]


def same(one: Numbers, other: Numbers, rel: float = 0.0) -> bool:
    assert one.keys() == other.keys()
    return all(
        math.isclose(one[k], other[k], rel_tol=rel, abs_tol=rel) or one[k] != one[k] != other[k]
        for k in one
    )


def alike(one: Run, other: Run, rel: float = 0.0) -> bool:
    """Numbers and learning curves agree."""
    curves = [(a.curve, b.curve) for a, b in zip(one.fitted, other.fitted, strict=True)]
    return all(
        same(a, b, rel) for a, b in zip(one.numbers(), other.numbers(), strict=True)
    ) and all(same(p, q, rel) for a, b in curves for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("mixer", "context"), [("gru", 4), ("attention", 4), ("mlp", 4), ("gru", 1)]
)
def test_the_maze_is_solved_with_the_cue_in_sight_and_else_in_half(
    mixer: str, context: int, cache: Path, tmp_path: Path
) -> None:
    """Without memory a policy always turns the same way, and the goals are balanced: one half exactly."""
    made = Run(cache, tmp_path, (0, 1), stacked=True, mixer=mixer, context=context, updates=200)
    for found in made.numbers():
        assert found["success"] == (1.0 if context > 1 else 0.5)
        if context > 1:
            assert found["score"] == pytest.approx(100.0)
            assert found["return_std"] == 0.0
            assert found["action_error"] < 0.02


def test_every_number_and_every_point_of_the_curve_is_there(cache: Path, tmp_path: Path) -> None:
    told: list[tuple[int, Numbers]] = []
    fractions: list[float] = []
    watch = trial.Watch(fractions.append, lambda index, row: told.append((index, row)))
    made = Run(cache, tmp_path, (3, 1), True, watch, head="mixture", updates=7, points=3)
    held = made.measured("held-out")
    for index, fitted in enumerate(made.fitted):
        assert set(fitted.metrics) == SIZES
        assert all(math.isfinite(value) for value in fitted.metrics.values())
        assert fitted.failure == ""
        assert [row["update"] for row in fitted.curve] == [2, 5, 7]
        assert all(set(row) == CURVE for row in fitted.curve)
        assert fitted.curve == [row for place, row in told if place == index]
        assert fitted.metrics["targets"] == 7 * 32
        assert abs(fitted.metrics["parameter_mismatch"]) <= 5.0
        assert fitted.seconds > 0
        # 100 episodes of 4: the curve sees every target.
        for name, own in (("loss", "heldout_loss"), ("action_nll", "action_nll")):
            assert fitted.curve[-1][own] == pytest.approx(held[index][name])
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] <= fractions[-1] == pytest.approx(1.0)
    assert held[0]["loss"] != held[1]["loss"]
    assert set(made.measured("rollout")[0]) == {
        r.name for r in trial.registry.get("measurement", "rollout").responses if not r.index
    }


@pytest.mark.parametrize("data", ["tmaze/passive-3", "lq-mix/episode"])
def test_a_stacked_cohort_equals_single_trainings(data: str, cache: Path, tmp_path: Path) -> None:
    """To rounding: float32, summed in another order, over 20 updates and an episode of 100 steps."""
    options: dict[str, Any] = {"data": data, "head": "mixture", "seeds": (0, 5)}
    together = Run(cache, tmp_path / "a", stacked=True, **options)
    assert alike(together, Run(cache, tmp_path / "b", stacked=False, **options), rel=1e-3)


@pytest.mark.parametrize("stacked", [False, True])
def test_a_fit_gives_the_same_bits_again(stacked: bool, cache: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"mixer": "attention", "head": "categorical", "dropout": 0.2}
    first = Run(cache, tmp_path / "a", (0, 1), stacked, **options)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - nothing may depend on it
    assert alike(first, Run(cache, tmp_path / "b", (0, 1), stacked, **options))


def test_a_seed_gives_the_same_result_beside_other_seeds(cache: Path, tmp_path: Path) -> None:
    (alone,) = Run(cache, tmp_path / "a", (2,), head="mixture").numbers()
    beside = Run(cache, tmp_path / "b", (7, 2), head="mixture").numbers()[1]
    assert same(alone, beside, rel=1e-3)


def test_a_condition_changes_the_tokens_and_not_the_batches(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[np.ndarray]] = []
    draw = trainer.draw_targets

    def spied(*arguments: Any) -> np.ndarray:
        seen[-1].append(draw(*arguments))
        return seen[-1][-1]

    monkeypatch.setattr(trainer, "draw_targets", spied)
    found = []
    cells = ({}, {"condition": "time"}, {"context": 1}, {"mixer": "mlp", "head": "mixture"})
    for number, changes in enumerate(cells):
        seen.append([])
        made = Run(cache, tmp_path / str(number), (4,), updates=3, **changes)
        found.append(made.fitted[0].curve[-1]["heldout_loss"])
    assert len(set(found)) == 4
    for draws in seen[1:]:
        assert all(map(np.array_equal, draws, seen[0]))


def test_checkpoints_change_no_training_and_are_what_a_shorter_one_would_not_be(
    cache: Path, tmp_path: Path
) -> None:
    """The schedule ends with the last update, so a checkpoint is not a training of as many updates."""
    plain = Run(cache, tmp_path / "a", (0, 1), head="mixture")
    kept = Run(cache, tmp_path / "b", (0, 1), head="mixture", checkpoints=[1, 5, 20])
    assert alike(plain, kept)
    assert sorted(path.name for path in (tmp_path / "b" / "fit1").iterdir()) == [
        f"{budget}.safetensors" for budget in (1, 20, 5)
    ]
    assert [path.name for path in (tmp_path / "a" / "fit1").iterdir()] == ["20.safetensors"]
    losses = [kept.measured("held-out", budget)[0]["loss"] for budget in (1, 5, 20)]
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == 3
    first, _ = load_policy(trial.checkpoint(tmp_path / "b", "fit0", 1))
    made = Run(cache, tmp_path / "c", (0,), head="mixture", updates=1, points=1, warmup=5)
    alone, about = load_policy(trial.checkpoint(made.folder, "fit0", 1))
    # Both are within the warm-up, where the rate is the same.
    assert all(torch.equal(first[name], alone[name]) for name in first)
    assert (about["seed"], about["study"], about["mixer"], about["budget"]) == (0, STUDY, "gru", 1)


def test_options_are_measured_apart_and_a_missing_checkpoint_is_said(
    cache: Path, tmp_path: Path
) -> None:
    made = Run(cache, tmp_path, condition="return-to-go", data="lq-mix/episode", updates=60)
    asked = [made.measured("rollout", target=target)[0] for target in ("p10", "p90", "p10")]
    assert same(asked[0], asked[2])
    assert asked[0]["score"] != asked[1]["score"]
    with pytest.raises(UserError, match=r"fit0/7\.safetensors"):
        made.measured("rollout", 7)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("stacked", [False, True])
def test_an_interrupted_fit_goes_on_and_ends_alike(
    stacked: bool, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its numbers, its whole curve, and its checkpoints before and after the interruption."""
    monkeypatch.setattr(trainer, "SAVE_EVERY", -1.0)
    changes: dict[str, Any] = {"points": 4, "head": "mixture", "checkpoints": [3, 12, 18]}
    expected = Run(cache, tmp_path / "whole", (0, 1), stacked, **changes)

    def kill(index: int, row: Numbers) -> None:
        if row["update"] == 15 and index == 1:
            raise Killed

    with pytest.raises(Killed):
        Run(cache, tmp_path / "cut", (0, 1), stacked, trial.Watch(on_point=kill), **changes)
    assert list((tmp_path / "cut").glob("training-*"))
    found = Run(cache, tmp_path / "cut", (0, 1), stacked, **changes)
    assert alike(found, expected)
    assert [row["update"] for row in found.fitted[0].curve] == [5, 10, 15, 20]
    for name in expected.names.values():
        for budget in (3, 12, 18, 20):
            states = [
                load_policy(trial.checkpoint(folder, name, budget))[0]
                for folder in (tmp_path / "whole", tmp_path / "cut")
            ]
            assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("stacked", [False, True])
def test_a_fit_that_diverges_fails_and_the_others_go_on(
    stacked: bool, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (expected,) = Run(cache, tmp_path / "a", (1,), stacked).numbers()
    made = PolicySystem.model

    def broken(system: PolicySystem, study: str, seed: int) -> Any:
        policy = made(system, study, seed)
        if seed == 0:
            policy.embed.weight.data.fill_(float("nan"))
        return policy

    monkeypatch.setattr(PolicySystem, "model", broken)
    both = Run(cache, tmp_path / "b", (0, 1), stacked)
    assert both.fitted[0].failure.startswith("diverged: loss nan at update ")
    assert both.fitted[1].failure == ""
    with pytest.raises(UserError, match=r"fit0/20\.safetensors: 'embed\.weight' holds NaN"):
        both.numbers()
    del both.names[0]
    metrics, acted, predicted = (
        both.fitted[1].metrics, *both.measured("rollout"), *both.measured("held-out")
    )  # fmt: skip
    assert same(metrics | acted | predicted, expected, rel=1e-3)


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


@pytest.mark.parametrize(
    ("changes", "seeds", "expected"),
    [
        ({"mixer": "mlp"}, 5, True),
        ({"mixer": "mlp"}, 1, False),
        ({"mixer": "lstm"}, 5, False),  # one seed has a kernel of its own
        ({"mixer": "gru"}, 5, True),
        ({"mixer": "gru", "parameters": 200_000}, 5, False),
        ({"mixer": "mlp", "dropout": 0.1}, 5, False),  # a stack draws other masks
    ],
)
def test_how_seeds_train_is_a_rule_and_not_a_measurement(
    changes: dict[str, Any], seeds: int, expected: bool, cache: Path
) -> None:
    system = prepare(config(**changes), cache)
    assert trial.stacked(system, seeds) is expected
    assert 0 < trial.pace(system, STUDY, list(range(seeds))) < 10


@pytest.mark.gpu
@pytest.mark.parametrize("mixer", ["gru", "attention", "mlp"])
def test_a_gpu_gives_what_the_cpu_gives(mixer: str, cache: Path, tmp_path: Path) -> None:
    """To rounding of float32 over 20 updates; run with `python -m pytest -m gpu`."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    there = Run(cache, tmp_path / "a", (0, 1), True, device="cuda", mixer=mixer)
    assert alike(there, Run(cache, tmp_path / "b", (0, 1), True, mixer=mixer), rel=1e-2)
