"""The joint algorithm: values, windows with stop tokens, the learning rate, training through the common trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_samples import make
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.errors import UserError
from ablate.learn.joint import (
    Joint,
    JointSettings,
    JointStack,
    fit_model,
    joint_rate,
    joint_rows,
    joint_source,
    joint_spec,
    values_to_go,
)
from ablate.learn.train import train_cohort
from ablate.models.trajectory import TrajectorySpec
from ablate.presets import configuration

TRAIN: dict[str, Any] = {
    "updates": 20, "targets_per_update": 24, "loss": "all", "learning_rate": 3e-3, "schedule": "cosine",
    "warmup": 2, "weight_decay": 0.1, "clip": 1.0, "precision": "float32", "betas": (0.9, 0.95),
}  # fmt: skip
SMALL: dict[str, Any] = {"bins": 6, "penalty": -7.0, "discount": 0.9}


def shape(**changes: Any) -> TrajectorySpec:
    return TrajectorySpec(
        3, 2, **({"window": 4, "bins": 6, "width": 16, "layers": 1, "heads": 2} | changes)
    )


def objective(spec: TrajectorySpec, lengths: list[int], **options: Any) -> Joint:
    data, chosen = make(lengths), JointSettings(**(SMALL | options))
    model = fit_model(spec, data, chosen, torch.Generator().manual_seed(0))
    source = joint_source(data, spec, chosen)
    return Joint(JointStack([model]), source, TRAIN, SMALL | options, "test", [0])


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), discount=st.floats(0, 1))
def test_values_are_the_discounted_rewards_after_this_one(
    lengths: list[int], discount: float
) -> None:
    data = make(lengths)
    rewards, values = values_to_go(data, discount, -50.0)
    for e in range(data.num_episodes):
        rows = range(data.episode_starts[e], data.episode_starts[e + 1])
        own = [-50.0 if data.terminations[t] else float(data.rewards[t]) for t in rows]
        for i, t in enumerate(rows):
            assert rewards[t] == pytest.approx(own[i])
            later = sum(discount ** (j - i - 1) * own[j] for j in range(i + 1, len(own)))
            assert values[t] == pytest.approx(later, abs=1e-9)


def test_rows_are_states_actions_rewards_and_values() -> None:
    data = make([5, 3])
    rows = joint_rows(data, 0.9, None)
    assert rows.shape == (8, 7)
    np.testing.assert_array_equal(rows[:, :3], data.observations)
    np.testing.assert_array_equal(rows[:, 3:5], data.actions)
    np.testing.assert_array_equal(rows[:, 5], data.rewards)


@pytest.mark.parametrize("given_as", ["discretised", "continuous"])
def test_windows_stop_after_true_ends_and_fade_after_time_outs(given_as: str) -> None:
    made = objective(shape(input=given_as), [3, 4, 3, 5, 4])
    data = make([3, 4, 3, 5, 4])
    starts = torch.arange(len(data.rewards))
    rows, tokens, entries, counted = made.windows(starts)
    assert tokens is not None
    for start in starts.tolist():
        episode = int(np.searchsorted(data.episode_starts, start, side="right")) - 1
        end = int(data.episode_starts[episode + 1])
        true_end = bool(data.terminations[end - 1])
        for k in range(4):
            inside = start + k < end
            assert bool(counted[start, k]) == (inside or true_end)
            assert bool((tokens[start, k] == 6).all()) == (not inside and true_end)
            if inside:
                assert torch.equal(rows[start, k], made.data.table[start + k])
    if given_as == "discretised":
        assert torch.equal(entries, tokens)


def test_the_loss_is_the_weighted_cross_entropy_of_the_release() -> None:
    spec = shape(dropout=0.0)
    made = objective(spec, [6, 5])
    made.model.eval()
    starts = torch.tensor([0, 3, 7])
    _, tokens, entries, counted = made.windows(starts)
    assert tokens is not None
    logits = made.model(entries).flatten(1, 2)[:, 1:]
    valid = torch.nn.functional.pad(made.model.discretiser.valid, (0, 1), value=True)  # type: ignore[union-attr]
    logits = logits.masked_fill(~valid.repeat(4, 1)[1:], -torch.inf)
    each = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), tokens.flatten(1)[:, 1:].flatten(), reduction="none"
    )
    weights = torch.tensor([1.0, 1, 1, 5, 5, 1, 1]).repeat(4)[1:].repeat(3)
    mask = counted.repeat_interleave(7, 1)[:, 1:].flatten()
    torch.testing.assert_close(made.loss(starts), (each * weights * mask).mean())
    assert not mask.all()


def test_weight_decay_acts_on_linear_layers_and_heads_only() -> None:
    made = objective(shape(), [5])
    names = {id(p): name for name, p in made.model.named_parameters()}
    decayed = {names[id(p)] for p in made.optimiser.param_groups[0]["params"]}
    block = {f"blocks.0.{part}.weight" for part in ("qkv", "out", "up", "down")}
    assert decayed == block | {"head"}
    assert made.optimiser.param_groups[1]["weight_decay"] == 0.0


def test_the_cosine_stops_at_its_floor_or_climbs_again_as_released() -> None:
    train = TRAIN | {"updates": 400, "warmup": 10, "learning_rate": 1.0}
    clamped = JointSettings(cosine=200)
    released = JointSettings(cosine=200, clamped=False)
    assert joint_rate(4, train, clamped) == pytest.approx(0.5)
    assert joint_rate(105, train, clamped) == pytest.approx(0.5)
    assert joint_rate(399, train, clamped) == pytest.approx(0.1)
    assert joint_rate(390, train, released) == pytest.approx(1.0)
    assert joint_rate(200, train, released) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("layout", "head", "given_as"),
    [
        ("dimension", "categorical", "discretised"),
        ("step", "autoregressive", "continuous"),
        ("modality", "mixture", "continuous"),
        ("chunk-2", "mse", "discretised"),
    ],
)
def test_training_lowers_the_loss_and_goes_on_after_an_interruption(
    layout: str, head: str, given_as: str, tmp_path: Path
) -> None:
    spec, chosen = (
        shape(layout=layout, head=head, input=given_as, dropout=0.1),
        JointSettings(**SMALL),
    )
    data = make([9, 7, 8, 6])

    def trained(
        updates: list[int], resume: Path | None
    ) -> tuple[list[float], dict[str, torch.Tensor]]:
        losses: list[float] = []
        for count in updates:
            model = fit_model(spec, data, chosen, torch.Generator().manual_seed(0))
            stack = JointStack([model])
            train_cohort(
                stack, joint_source(data, spec, chosen), TRAIN | {"updates": count, "schedule": "constant"},
                "test", [3], [1, 10, 20], lambda _, loss: losses.append(float(loss)), resume,
                algorithm="joint", settings=SMALL,
            )  # fmt: skip
        return losses, stack.state_dicts()[0]

    losses, whole = trained([20], None)
    assert losses[-1] < losses[0]
    _, again = trained([10, 20], tmp_path / "state.safetensors")
    for name, values in whole.items():
        torch.testing.assert_close(again[name], values)


def test_the_preset_is_the_released_model() -> None:
    config = configuration("tt", "mujoco/hopper/medium-v0")
    spec = joint_spec(config, 11, 3)
    assert spec == TrajectorySpec(11, 3)
    assert config["evaluate"]["plan"]["horizon"] == 15
    other = configuration("tt", "mujoco/halfcheetah/medium-v0")
    assert other["evaluate"]["plan"]["beam_width"] == 32
    Joint.Settings.model_validate(config["settings"])


def test_refusals() -> None:
    model = objective(shape(), [5]).model
    with pytest.raises(UserError, match="one after another"):
        JointStack([model, model])
    config = configuration("tt", "mujoco/hopper/medium-v0")
    config["model"]["width"] = None
    with pytest.raises(UserError, match="needs a width"):
        joint_spec(config, 11, 3)
