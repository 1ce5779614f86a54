"""An algorithm's settings, its state on disk, and supervised learning's windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from learn_samples import STUDY, nothing, parameters, stack_and_source, train_config

from ablate import registry
from ablate.errors import UserError
from ablate.learn import objective
from ablate.learn import train as trainer
from ablate.learn.objective import Batch, Objective, Supervised
from ablate.learn.train import train_cohort
from ablate.registry import checked, get

ALGORITHMS = {"bc": "mse", "td3+bc": "mse", "iql": "gaussian", "cql": "tanh-gaussian"}


def run(
    algorithm: str, settings: dict[str, Any], path: Path | None = None, **changes: Any
) -> list[torch.Tensor]:
    stack, source = stack_and_source("mlp", 1, [0], head=changes.pop("head", "mse"))
    train_cohort(
        stack, source, train_config(**changes), STUDY, [0], [12], nothing, path, algorithm, settings
    )
    return parameters(stack)


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(UserError, match=r"algorithm: 'iqll' is not known.*Did you mean 'iql'"):
        run("iqll", {})


@pytest.mark.parametrize(
    ("algorithm", "settings", "says"),
    [
        ("iql", {"expectil": 0.7}, "settings: 'expectil' is not known.*Did you mean 'expectile'"),
        ("iql", {"expectile": 1.5}, "settings.expectile: found '1.5'; input should be less than 1"),
        ("td3+bc", {"policy_every": 0}, "settings.policy_every: found '0'; input should be"),
        ("cql", {"actions": "many"}, "settings.actions: found 'many'; input should be a valid int"),
        ("bc", {"alpha": 1.0}, "settings: 'alpha' is not known"),
    ],
)
def test_settings_that_it_does_not_have_are_refused(
    algorithm: str, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says) as caught:
        run(algorithm, settings, head=ALGORITHMS[algorithm])
    assert "\n" not in str(caught.value)


def test_settings_come_with_their_defaults() -> None:
    found = checked(get("algorithm", "iql").Settings, {"beta": 10}, "settings")
    assert found.beta == 10.0
    assert found.expectile == 0.7
    assert not get("algorithm", "bc").Settings.model_fields


def test_a_head_or_a_loss_that_it_cannot_train_is_refused() -> None:
    with pytest.raises(UserError, match="head: the algorithm's policy: 'mixture' is not known"):
        run("td3+bc", {}, head="mixture")
    with pytest.raises(UserError, match=r"train\.loss: the algorithm's loss: 'all' is not known"):
        run("iql", {}, loss="all")


def test_a_users_own_algorithm_is_trained_like_ours() -> None:
    """`update` is all it must have; here half a step of cloning is one of half the learning rate."""

    class Half(Supervised):
        def update(self, batch: Batch, rate: float) -> torch.Tensor:
            return super().update(batch, rate / 2)

    with registry.scope():
        registry.register("algorithm", "half")(Half)
        same = run("bc", {}, learning_rate=0.005)
        assert all(map(torch.equal, run("half", {}, learning_rate=0.01), same))


@pytest.mark.parametrize("seeds", [[4], [4, 5]])
@pytest.mark.parametrize(("algorithm", "head"), ALGORITHMS.items())
@pytest.mark.parametrize("context", [1, 3])
def test_an_interrupted_training_ends_with_the_same_bits(
    algorithm: str, head: str, seeds: list[int], context: int, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(trainer, "SAVE_EVERY", -1.0)
    settings: dict[str, Any] = {} if algorithm == "bc" else {"critic_width": 8}
    config = train_config(updates=9, targets_per_update=4)

    class Killed(BaseException):
        pass

    def once(die_at: int, path: Path | None) -> list[torch.Tensor]:
        stack, source = stack_and_source("mlp", context, seeds, head=head)

        def die(update: int, loss: torch.Tensor) -> None:
            if update == die_at:
                raise Killed

        try:
            train_cohort(
                stack, source, config, STUDY, seeds, [5, 8, 9], die, path, algorithm, settings
            )
        except Killed:
            return []
        return parameters(stack)

    whole = once(0, None)
    path = tmp_path / "state"
    assert once(8, path) == []
    assert path.exists()
    assert all(map(torch.equal, once(0, path), whole))


def test_a_state_of_another_algorithm_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "SAVE_EVERY", -1.0)
    path = tmp_path / "state"
    run("bc", {}, path)
    with pytest.raises(UserError, match="another algorithm wrote it") as caught:
        run("td3+bc", {}, path)
    assert str(path) in str(caught.value)


def test_windows_that_start_at_the_target_are_those_of_slices() -> None:
    """The released Decision Transformer: a timestep drawn uniformly, K timesteps from there or to the end."""
    stack, source = stack_and_source("mlp", 4)
    starts = torch.arange(30)[None]
    features, rows, lengths = source.starting(starts)
    timestep = source.timestep.tolist()
    for start in range(30):
        held = [start]
        while len(held) < 4 and held[-1] + 1 < 30 and timestep[held[-1] + 1] > 0:
            held.append(held[-1] + 1)
        assert int(lengths[0, start]) == len(held)
        assert rows[0, start].tolist() == (held + [held[-1]] * 4)[:4]
        shown = source.table[held].clone()
        shown[0, 3:] = 0.0  # the action before the window
        torch.testing.assert_close(features[0, start, : len(held)], shown)
        assert not features[0, start, len(held) :].any()
    assert stack.size == 1


@pytest.mark.parametrize("loss", ["last", "all"])
def test_they_are_trained_on_where_asked_for(loss: str) -> None:
    stack, source = stack_and_source("gru", 4)
    config = train_config(windows="start", loss=loss)
    made = Supervised(stack, source, config, {}, STUDY, [0])
    targets = torch.tensor([[0, 7, 8, 20, 29]])
    features, rows, lengths = source.starting(targets)
    if loss == "last":
        params = stack(features, lengths)
        wanted = stack.head.loss(params, source.actions[rows[..., -1]]).mean(1)
    else:
        mask = torch.arange(4) < lengths.unsqueeze(-1)
        each = stack.head.loss(stack(features, mask, method="everywhere"), source.actions[rows])
        wanted = each[mask].mean()[None]
    torch.testing.assert_close(made.update(Batch(0, targets), 0.0), wanted.detach())


def test_gradients_are_not_clipped_where_the_limit_is_null() -> None:
    free = run("bc", {}, clip=None)
    assert all(map(torch.equal, free, run("bc", {}, clip=1e9)))
    assert not all(map(torch.equal, free, run("bc", {}, clip=1e-3)))


def test_the_optimiser_is_the_one_asked_for() -> None:
    stack, source = stack_and_source()
    made = Supervised(
        stack, source, train_config(optimiser="adam", betas=[0.9, 0.95]), {}, STUDY, [0]
    )
    assert not made.optimiser.decoupled
    assert made.optimiser.betas == (0.9, 0.95)
    stack, source = stack_and_source()
    made = Supervised(stack, source, train_config(), {}, STUDY, [0])
    assert made.optimiser.decoupled
    assert made.optimiser.groups[0][1] == 0.1


def test_an_algorithm_that_needs_transitions_says_so() -> None:
    stack, source = stack_and_source(head="mse")
    bare = objective.Source(source.table, source.timestep, source.actions, source.visible)
    made: type[Objective] = registry.get("algorithm", "td3+bc")
    assert made.transitions
    with pytest.raises(ValueError, match="no transitions"):
        made(stack, bare, train_config(), {}, STUDY, [0])
