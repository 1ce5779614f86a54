"""The trainer is plain supervised learning, the same for one policy and for a stack of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learn_samples import (
    STUDY,
    nothing,
    parameters,
    policies,
    stack_and_source,
    train_config,
    trajectories,
)

from ablate.data.windows import BLOCK, draw_targets
from ablate.learn import objective
from ablate.learn import train as trainer
from ablate.learn.train import learning_rate, train_cohort
from ablate.models.stack import Stack

MIXERS = ("attention", "bag", "conv", "gru", "lstm", "mlp")


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_learning_rate_is_that_of_torchs_schedulers(schedule: str) -> None:
    settings = train_config(updates=40, warmup=8, schedule=schedule)
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=settings["learning_rate"])
    lrs = torch.optim.lr_scheduler
    later: Any = lrs.ConstantLR(optimiser, 1.0)
    if schedule == "cosine":
        later = lrs.CosineAnnealingLR(optimiser, T_max=32)
    warm = lrs.LinearLR(optimiser, start_factor=1 / 8, total_iters=7)
    scheduler = lrs.SequentialLR(optimiser, [warm, later], milestones=[8])
    for update in range(40):
        expected = optimiser.param_groups[0]["lr"]
        assert learning_rate(update, settings) == pytest.approx(expected, rel=1e-9)
        optimiser.step()
        scheduler.step()


def test_the_learning_rate_without_warm_up_starts_at_its_peak() -> None:
    settings = train_config(warmup=0)
    assert learning_rate(0, settings) == settings["learning_rate"]


@pytest.mark.parametrize(
    ("loss", "least", "balanced"),
    [("last", 1, False), ("all", 1, False), ("all", 3, False), ("all", 2, True)],
)
def test_the_trainer_equals_a_loop_written_by_hand(loss: str, least: int, balanced: bool) -> None:
    """Windows by Python slices, torch's own clipping and AdamW; double precision, so 1e-9 apart."""
    context = 4
    settings = train_config(loss=loss, least_visible=least, balanced=balanced)
    stack, source = stack_and_source("gru", context, [5], dtype=torch.float64)
    ((policy,), _) = policies("gru", context, [5], dtype=torch.float64)
    train_cohort(stack, source, settings, STUDY, [5], [12], nothing)

    data = trajectories()
    exact = data.observations.astype(
        np.float64
    )  # scales are summed so and kept in single precision
    mean, std = (values.astype(np.float32) for values in (exact.mean(0), exact.std(0)))
    seen = (data.observations - mean) / std

    def window(target: int) -> list[np.ndarray]:
        first = max(target - int(data.timestep[target]), target - context + 1)
        rows = []
        for row in range(first, target + 1):
            led_here = data.actions[row - 1] if row > first else np.zeros(2)
            rows.append(np.concatenate([seen[row], led_here]))
        return rows

    def counts(row: int, end: int) -> bool:
        seen = row - max(end - int(data.timestep[end]), end - context + 1) + 1
        return seen >= least or seen == int(data.timestep[row]) + 1

    ends = [int(e) for e in data.episode_starts[1:]]
    share = np.ones(30)
    if balanced:
        last = [next(e for e in ends if e > row) - 1 for row in range(30)]
        within = [range(row, min(row + context, last[row] + 1)) for row in range(30)]
        share = np.array([1 / sum(counts(row, e) for e in within[row]) for row in range(30)])
    optimiser = torch.optim.AdamW(policy.parameters(), weight_decay=0.1)
    count = 16 if loss == "last" else round(16 / (context - least + 1))
    for update, targets in enumerate(draw_targets(STUDY, 5, 0, count, 30)[:12]):
        each, weights = [], []
        for target in targets.tolist():
            rows = torch.tensor(np.array(window(target)))[None]  # (1, L, F): no padding at all
            valid = rows.shape[1]
            if loss == "last":
                params = policy(rows, torch.tensor([valid]))
                wanted = torch.from_numpy(data.actions[target : target + 1]).double()
            else:
                params = policy(rows, torch.ones(1, valid, dtype=torch.bool), method="everywhere")[
                    0
                ]
                wanted = torch.from_numpy(data.actions[target - valid + 1 : target + 1]).double()
            each.append(policy.head.loss(params, wanted))
            shown = [target] if loss == "last" else range(target - valid + 1, target + 1)
            weights += [share[row] * counts(row, target) for row in shown]
        optimiser.zero_grad()
        weight = torch.tensor(np.array(weights))
        ((torch.cat(each) * weight).sum() / weight.sum()).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
        optimiser.param_groups[0]["lr"] = learning_rate(update, settings)
        optimiser.step()
    for ours, plain in zip(stack.parameters(), policy.parameters(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-9)


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("loss", ["last", "all"])
def test_a_cohort_equals_its_policies_trained_one_by_one(mixer: str, loss: str) -> None:
    """In double precision, so that only a real difference shows; float32 agrees to rounding."""
    seeds, settings = [0, 1, 7], train_config(loss=loss)
    stack, source = stack_and_source(mixer, seeds=seeds, dtype=torch.float64)
    together: list[torch.Tensor] = []
    train_cohort(
        stack, source, settings, STUDY, seeds, [6, 12], lambda _, loss: together.append(loss)
    )
    for place, seed in enumerate(seeds):
        alone, source = stack_and_source(mixer, seeds=[seed], dtype=torch.float64)
        single: list[torch.Tensor] = []
        train_cohort(
            alone,
            source,
            settings,
            STUDY,
            [seed],
            [6, 12],
            lambda _, loss, s=single: s.append(loss),
        )
        for all_, one in zip(stack.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(all_[place], one, rtol=0, atol=1e-8)
        for losses, own in zip(together, single, strict=True):
            torch.testing.assert_close(losses[place], own[0], rtol=0, atol=1e-8)


class Spy:
    """Records the targets of every update."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ends: list[torch.Tensor] = []
        self.shown = objective.gather_windows
        monkeypatch.setattr(objective, "gather_windows", self.gather)

    def gather(self, table: Any, timestep: Any, visible: Any, targets: torch.Tensor) -> Any:
        self.ends.append(targets.clone())
        return self.shown(table, timestep, visible, targets)

    def take(self) -> torch.Tensor:
        """Targets (updates, S, B) since the last call."""
        seen, self.ends = torch.stack(self.ends), []
        return seen


def test_every_variant_sees_the_same_targets_in_the_same_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spy, settings = Spy(monkeypatch), train_config(updates=BLOCK + 2)
    variants: list[dict[str, Any]] = [
        {"context": 1, "mixer": "mlp"},
        {"context": 5, "mixer": "bag", "condition": "return-to-go+time"},
        {"context": 20, "mixer": "mlp", "head": "mse", "history": "states"},
        {"context": 5, "mixer": "conv", "dropout": 0.3, "head": "categorical"},
    ]
    seen = []
    for variant in variants:
        stack, source = stack_and_source(seeds=[2, 3], **variant)
        train_cohort(stack, source, settings, STUDY, [2, 3], [], nothing)
        seen.append(spy.take())
    assert seen[0].shape == (BLOCK + 2, 2, 16)
    assert not torch.equal(seen[0][:, 0], seen[0][:, 1])
    assert all(torch.equal(seen[0], other) for other in seen[1:])


@pytest.mark.parametrize("context", [1, 4, 8])
def test_loss_at_every_position_keeps_the_number_of_targets(
    context: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    stack, source = stack_and_source("mlp", context)
    train_cohort(stack, source, train_config(updates=3, loss="all"), STUDY, [0], [], nothing)
    assert spy.take().shape[2] * context == 16


def test_points_report_the_mean_loss_since_the_last_one() -> None:
    told: list[tuple[int, float]] = []

    def run(points: list[int]) -> list[tuple[int, float]]:
        told.clear()
        stack, source = stack_and_source(dtype=torch.float64)
        train_cohort(
            stack, source, train_config(), STUDY, [0], points,
            lambda update, loss: told.append((update, float(loss[0]))),
        )  # fmt: skip
        return list(told)

    each = [loss for _, loss in run(list(range(1, 13)))]
    assert run([3, 12]) == [
        (3, pytest.approx(np.mean(each[:3]))),
        (12, pytest.approx(np.mean(each[3:]))),
    ]
    assert np.mean(each[-3:]) < np.mean(each[:3])


class Faulty(Stack):
    """Replica 1 answers `factor` times what it should from the 71st update on."""

    factor = float("nan")
    calls = 0

    def __call__(self, *args: Any, method: str = "last") -> Any:
        params = super().__call__(*args, method=method)
        self.calls += 1
        if self.calls <= 70:
            return params
        scale = torch.ones(self.size, *[1] * (params.ndim - 1), dtype=params.dtype)
        scale[min(1, self.size - 1)] = self.factor
        return params * scale


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 1e4])
def test_a_diverged_policy_keeps_its_last_good_parameters_and_stops_nobody(factor: float) -> None:
    seeds, settings = [0, 1, 2], train_config(updates=90, schedule="constant", warmup=0)
    good, source = stack_and_source("mlp", seeds=seeds)
    kept: list[list[torch.Tensor]] = []
    result = train_cohort(
        good, source, settings, STUDY, seeds, [64, 90], lambda *_: kept.append(parameters(good))
    )
    assert result.diverged == {}
    made = type("Made", (Faulty,), {"factor": factor})
    stack, source = stack_and_source("mlp", seeds=seeds, made=made)
    result = train_cohort(stack, source, settings, STUDY, seeds, [90], nothing)
    assert list(result.diverged) == [1]
    assert result.diverged[1].startswith("diverged: loss ")
    assert result.diverged[1].endswith(" at update 90")
    for ours, at_64, at_90 in zip(parameters(stack), *kept, strict=True):
        assert torch.equal(ours[1], at_64[1])
        assert torch.equal(ours[[0, 2]], at_90[[0, 2]])


def test_a_single_policy_that_diverges_keeps_its_last_good_parameters() -> None:
    settings = train_config(updates=90, schedule="constant", warmup=0)
    good, source = stack_and_source("mlp")
    train_cohort(good, source, settings | {"updates": 64}, STUDY, [0], [], nothing)
    stack, source = stack_and_source("mlp", made=Faulty)
    result = train_cohort(stack, source, settings, STUDY, [0], [90], nothing)
    assert list(result.diverged) == [0]
    assert all(map(torch.equal, parameters(stack), parameters(good)))


class Undefined(Stack):
    """The loss is finite, and its gradient isn't, at update 12."""

    calls = 0

    def __call__(self, *args: Any, method: str = "last") -> Any:
        params = super().__call__(*args, method=method)
        self.calls += 1
        return params + (params - params.detach()).sqrt() if self.calls == 12 else params


def test_parameters_that_are_no_longer_finite_are_not_kept() -> None:
    stack, source = stack_and_source("mlp", made=Undefined)
    result = train_cohort(stack, source, train_config(), STUDY, [0], [6, 12], nothing)
    assert list(result.diverged) == [0]
    assert all(p.isfinite().all() for p in stack.parameters())


class Killed(BaseException):
    """Stands for the end of the process."""


def interrupted(
    path: Path, settings: dict[str, Any], points: list[int], die_at: int, **options: Any
) -> tuple[Stack, trainer.Trained]:
    """Train until the point `die_at`, then again with a fresh stack from what lies on disk."""

    def die(update: int, loss: torch.Tensor) -> None:
        if update == die_at:
            raise Killed

    seeds = options["seeds"]
    stack, source = stack_and_source(**options)
    with pytest.raises(Killed):
        train_cohort(stack, source, settings, STUDY, seeds, points, die, path)
    assert path.exists()
    stack, source = stack_and_source(**options)
    return stack, train_cohort(stack, source, settings, STUDY, seeds, points, nothing, path)


@pytest.mark.parametrize("seeds", [[4], [4, 5, 6]])
@pytest.mark.parametrize("mixer", ["gru", "attention"])
def test_an_interrupted_training_ends_with_the_same_bits(
    mixer: str, seeds: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "SAVE_EVERY", -1.0)
    settings, points = train_config(updates=100), [30, 80, 100]
    whole, source = stack_and_source(mixer, seeds=seeds)
    train_cohort(whole, source, settings, STUDY, seeds, points, nothing)
    stack, result = interrupted(
        tmp_path / "state.safetensors", settings, points, 80, mixer=mixer, seeds=seeds
    )
    assert all(map(torch.equal, parameters(stack), parameters(whole)))
    assert [update for update, _ in result.points] == points
    assert result.diverged == {}


@pytest.mark.parametrize("left_at", [1, 29, 30, BLOCK, 97, 129])
@pytest.mark.parametrize("seeds", [[1], [0, 1, 2]])
def test_a_training_that_is_asked_to_leave_anywhere_ends_with_the_same_bits(
    seeds: list[int], left_at: int, tmp_path: Path
) -> None:
    """The curve is the same too, though it was left between two points, and so is a policy that diverges before."""
    options: dict[str, Any] = {"mixer": "mlp", "seeds": seeds, "dropout": 0.2}
    if left_at > 70:
        options["made"] = Faulty
    settings, points = train_config(updates=130, schedule="constant", warmup=0), [30, 100, 130]

    def train(resume: Path | None, asked: Iterator[bool]) -> tuple[Stack, trainer.Trained]:
        stack, source = stack_and_source(**options)
        losses = lambda update, loss: loss.tolist()  # noqa: E731
        answer = lambda: next(asked, False)  # noqa: E731
        return stack, train_cohort(
            stack, source, settings, STUDY, seeds, points, losses, resume, leave=answer
        )

    whole, expected = train(None, iter(()))
    path = tmp_path / "state"
    with pytest.raises(trainer.Left):
        train(path, iter([False] * (left_at - 1) + [True]))
    stack, result = train(path, iter(()))
    assert all(map(torch.equal, parameters(stack), parameters(whole)))
    assert str(result) == str(expected)  # where NaN is NaN


@pytest.mark.parametrize("saved_at", [BLOCK, 30])
def test_with_dropout_too(saved_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "SAVE_EVERY", -1.0)
    settings, points = train_config(updates=90), [saved_at, 80, 90]
    options: dict[str, Any] = {"mixer": "mlp", "seeds": [4, 5], "dropout": 0.3}
    whole, source = stack_and_source(**options)
    train_cohort(whole, source, settings, STUDY, [4, 5], points, nothing)
    stack, _ = interrupted(tmp_path / "state.safetensors", settings, points, 80, **options)
    assert all(map(torch.equal, parameters(stack), parameters(whole)))


def test_a_policy_that_had_diverged_keeps_its_last_good_parameters_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "SAVE_EVERY", -1.0)
    seeds, settings = [0, 1, 2], train_config(updates=130, schedule="constant", warmup=0)
    points = [100, 120, 130]
    whole, source = stack_and_source("mlp", seeds=seeds, made=Faulty)
    train_cohort(whole, source, settings, STUDY, seeds, points, nothing)
    stack, result = interrupted(
        tmp_path / "state", settings, points, 120, mixer="mlp", seeds=seeds, made=Faulty
    )
    assert list(result.diverged) == [1]
    for ours, theirs in zip(parameters(stack), parameters(whole), strict=True):
        assert torch.equal(ours[[0, 2]], theirs[[0, 2]])
        assert torch.equal(ours[1], theirs[1])


def test_what_is_kept_are_the_parameters_after_so_many_updates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint changes no training, is whole whatever points there are, and comes again after a resume."""
    monkeypatch.setattr(trainer, "SAVE_EVERY", -1.0)
    settings = train_config(updates=40)
    plain, source = stack_and_source("mlp", seeds=[4, 5])
    train_cohort(plain, source, settings, STUDY, [4, 5], [40], nothing)
    kept: dict[int, list[torch.Tensor]] = {}

    def run(stop_at: int = 0) -> Stack:
        stack, source = stack_and_source("mlp", seeds=[4, 5])

        def on_point(update: int, loss: torch.Tensor) -> None:
            if update == stop_at:
                raise Killed

        keep = ((7, 25, 40), lambda update: kept.update({update: parameters(stack)}))
        train_cohort(
            stack,
            source,
            settings,
            STUDY,
            [4, 5],
            [20, 30, 40],
            on_point,
            tmp_path / "state",
            keep=keep,
        )
        return stack

    with pytest.raises(Killed):
        run(stop_at=30)
    assert list(kept) == [7, 25]
    first = kept.copy()
    stack = run()  # from the state at 20
    assert list(kept) == [7, 25, 40]
    assert all(map(torch.equal, kept[25], first[25]))
    for found in (kept[40], parameters(stack)):
        assert all(map(torch.equal, found, parameters(plain)))
    kept.clear()
    assert all(map(torch.equal, parameters(run()), parameters(plain)))
    assert list(kept) == [40]  # a finished training that is taken up keeps its end once more


@pytest.mark.parametrize("mixer", ["gru", "attention"])
@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_bfloat16_trains_float32_parameters_about_as_well(mixer: str, seeds: list[int]) -> None:
    losses: dict[str, torch.Tensor] = {}
    for precision in ("float32", "bfloat16"):
        stack, source = stack_and_source(mixer, seeds=seeds, head="mse")
        settings = train_config(precision=precision)
        train_cohort(
            stack, source, settings, STUDY, seeds, [12],
            lambda _, loss, p=precision: losses.update({p: loss}),
        )  # fmt: skip
        assert all(p.dtype == torch.float32 and p.isfinite().all() for p in stack.parameters())
    assert not torch.equal(losses["float32"], losses["bfloat16"])
    torch.testing.assert_close(losses["float32"], losses["bfloat16"], rtol=0.05, atol=0)
