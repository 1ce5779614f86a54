"""Checkpoints come back as they were, and what is no checkpoint is refused in one line."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from learn_samples import STUDY, nothing, policies, stack_and_source, train_config
from safetensors.torch import save_file

from ablate.errors import UserError
from ablate.learn import checkpoint
from ablate.learn.checkpoint import load_policy, load_training_state, save_policy
from ablate.learn.objective import Supervised
from ablate.learn.train import Trained, train_cohort

ABOUT = {"mixer": "lstm", "train": {"updates": 3}, "seed": 1}


def state() -> dict[str, torch.Tensor]:
    ((policy,), _) = policies("lstm", 4, [1], head="categorical")
    return policy.state_dict()


def test_a_policy_comes_back_with_its_configuration(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "policy.safetensors"
    save_policy(path, state(), ABOUT)
    found, about = load_policy(path)
    assert about == ABOUT
    assert found.keys() == state().keys()
    assert all(torch.equal(found[name], value) for name, value in state().items())
    assert [p.name for p in path.parent.iterdir()] == ["policy.safetensors"]


def test_views_and_gradients_can_be_saved(tmp_path: Path) -> None:
    stack, _ = stack_and_source(seeds=[0, 1])
    values = {name: p[1].transpose(0, -1) for name, p in stack.named_parameters().items()}
    save_policy(tmp_path / "p", values, {})
    found, _ = load_policy(tmp_path / "p")
    assert all(torch.equal(found[name], value) for name, value in values.items())


def one_line(caught: pytest.ExceptionInfo[UserError], path: Path) -> str:
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_policy(tmp_path / "none")
    assert "there is no such checkpoint" in one_line(caught, tmp_path / "none")


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "foreign", "no json"])
def test_a_damaged_checkpoint_is_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    save_policy(path, state(), ABOUT)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "foreign":
        save_file({"x": torch.zeros(1)}, str(path))
    elif damage == "no json":
        save_file({"x": torch.zeros(1)}, str(path), metadata={"about": "{"})
    else:
        path.write_text("" if damage == "empty" else "hello, this is not a checkpoint")
    with pytest.raises(UserError) as caught:
        load_policy(path)
    assert "is damaged" in one_line(caught, path)


@pytest.mark.parametrize("place", ["save_file", "os.replace"])
def test_a_full_disk_is_refused_and_the_old_checkpoint_stays(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "policy.safetensors"
    save_policy(path, state(), ABOUT)
    before = path.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    holder, name = (checkpoint, place) if place == "save_file" else (checkpoint.os, "replace")
    monkeypatch.setattr(holder, name, full)
    with pytest.raises(UserError) as caught:
        save_policy(path, {"x": torch.zeros(1)}, {})
    assert "No space left on device" in one_line(caught, path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        save_policy(tmp_path / "file" / "policy.safetensors", state(), ABOUT)


def saved_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("ablate.learn.train.SAVE_EVERY", -1.0)
    stack, source = stack_and_source(seeds=[0, 1])
    path = tmp_path / "training.safetensors"
    train_cohort(stack, source, train_config(), STUDY, [0, 1], [12], nothing, path)
    return path


def test_a_training_state_of_other_seeds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved_training(tmp_path, monkeypatch)
    stack, source = stack_and_source(seeds=[0, 2])
    with pytest.raises(UserError) as caught:
        train_cohort(stack, source, train_config(), STUDY, [0, 2], [12], nothing, path)
    assert "holds seeds [0, 1], not [0, 2]" in one_line(caught, path)


def test_a_damaged_training_state_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved_training(tmp_path, monkeypatch)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    stack, source = stack_and_source(seeds=[0, 1])
    with pytest.raises(UserError) as caught:
        train_cohort(stack, source, train_config(), STUDY, [0, 1], [12], nothing, path)
    assert "is damaged" in one_line(caught, path)


def test_a_policys_checkpoint_is_no_training_state(tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    save_policy(path, state(), ABOUT)
    stack, source = stack_and_source()
    objective = Supervised(stack, source, train_config(), {}, STUDY, [0])
    with pytest.raises(UserError, match="is not a checkpoint"):
        load_training_state(path, objective, [0], Trained())
