"""The joint algorithm: values, windows with stop tokens, the learning rate, training through the common trainer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_samples import make
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.config import complete
from ablate.data import catalogue
from ablate.errors import UserError
from ablate.learn.joint import (
    Joint,
    JointSettings,
    decayed_names,
    fit_model,
    joint_rate,
    joint_rows,
    joint_source,
    joint_spec,
    values_to_go,
)
from ablate.learn.train import train_cohort
from ablate.models.assembly import build, count_parameters
from ablate.models.layouts import Layout
from ablate.models.match import match
from ablate.models.spec import ModelSpec
from ablate.models.stack import Stack
from ablate.study.presets import configuration

TRAIN: dict[str, Any] = {
    "updates": 20, "targets_per_update": 24, "loss": "all", "learning_rate": 3e-3, "schedule": "cosine",
    "warmup": 2, "weight_decay": 0.1, "clip": 1.0, "precision": "float32", "betas": (0.9, 0.95),
}  # fmt: skip
SMALL: dict[str, Any] = {"bins": 6, "penalty": -7.0, "discount": 0.9}


def shape(**changes: Any) -> ModelSpec:
    config = {
        "mixer": "attention", "head": "categorical", "context": 4, "layout": "dimension", "input": "discretised",
        "model": {"width": 16, "layers": 1, "heads": 2, "dropout": 0.1, "initialisation": "mingpt"},
    }  # fmt: skip
    return dataclasses.replace(ModelSpec.joint(config, 3, 2, bins=6), **changes)


def objective(spec: ModelSpec, lengths: list[int], seeds: int = 1, **options: Any) -> Joint:
    data, chosen = make(lengths), JointSettings(**(SMALL | options))
    models = [
        fit_model(spec, data, chosen, torch.Generator().manual_seed(seed)) for seed in range(seeds)
    ]
    source = joint_source(data, spec, chosen)
    return Joint(Stack(models), source, TRAIN, SMALL | options, "test", list(range(seeds)))


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


def test_windows_stop_after_true_ends_and_fade_after_time_outs() -> None:
    made = objective(shape(), [3, 4, 3, 5, 4])
    data = make([3, 4, 3, 5, 4])
    starts = torch.arange(len(data.rewards))
    rows, inside = made.data.windows(starts)
    bins = made.stack.model.encode(rows)
    for start in starts.tolist():
        episode = int(np.searchsorted(data.episode_starts, start, side="right")) - 1
        end = int(data.episode_starts[episode + 1])
        true_end = bool(data.terminations[end - 1])
        for k in range(4):
            assert bool(inside[start, k]) == (start + k < end)
            assert bool(rows[start, k].isnan().all()) == (start + k >= end and true_end)
            assert bool((bins[start, k] == 6).all()) == (start + k >= end and true_end)
            if start + k < end:
                assert torch.equal(rows[start, k], made.data.table[start + k])


def test_the_loss_is_the_weighted_cross_entropy_of_the_release() -> None:
    spec = shape(dropout=0.0)
    made = objective(spec, [6, 5])
    model = made.stack.model.eval()
    starts = torch.tensor([0, 3, 7])
    rows, inside = made.data.windows(starts)
    tokens = model.encode(rows).flatten(1)
    features = model.features(rows)
    each = []
    for place in range(1, 28):
        slot = place % 7
        logits = features[:, place - 1] @ model.head.heads[model.head.at[slot][0]].linear.weight.T
        valid = torch.nn.functional.pad(model.head.bins.valid[slot], (0, 1), value=True)
        logits = logits.masked_fill(~valid, -torch.inf)
        each.append(torch.nn.functional.cross_entropy(logits, tokens[:, place], reduction="none"))
    weights = torch.tensor([1.0, 1, 1, 5, 5, 1, 1]).repeat(4)[1:]
    mask = (inside | rows[..., 0].isnan()).repeat_interleave(7, 1)[:, 1:]
    expected = (torch.stack(each, 1) * weights * mask).mean()
    torch.testing.assert_close(made.loss(starts[None])[0], expected)
    assert not mask.all()


@pytest.mark.parametrize("layout", ["dimension", "modality", "step"])
def test_without_the_first_observation_all_layouts_have_the_same_targets(layout: str) -> None:
    """Of each window action, reward and value of all timesteps, and the observations after the first."""
    made = objective(shape(layout=layout, dropout=0.0), [6, 5], first_observation=False)
    starts = torch.tensor([0, 3, 7])
    rows, inside = made.data.windows(starts)
    each = made.stack.model.eval().losses(rows) * torch.tensor([1.0, 1, 1, 5, 5, 1, 1])
    counted = (inside | rows[..., 0].isnan())[..., None]
    each = each * counted
    expected = (each[:, :, 3:].sum() + each[:, 1:, :3].sum()) / (3 * (4 * 4 + 3 * 3))
    torch.testing.assert_close(made.loss(starts[None])[0], expected)


@pytest.mark.parametrize(("mixer", "layout"), [("attention", "dimension"), ("gru", "step")])
def test_a_stack_trains_as_its_seeds_alone(mixer: str, layout: str) -> None:
    spec = shape(mixer=mixer, layout=layout, dropout=0.0, heads=1, initialisation="torch")
    both, alone = objective(spec, [6, 5], seeds=2), objective(spec, [6, 5])
    starts = torch.tensor([[0, 3, 7]])
    torch.testing.assert_close(both.loss(starts.expand(2, -1))[:1], alone.loss(starts))


def test_weight_decay_acts_on_linear_layers_and_heads_only() -> None:
    made = objective(shape(), [5])
    block = {f"mixer.blocks.0.{part}.weight" for part in ("qkv", "out", "up", "down")}
    heads = {f"head.heads.{number}.linear.weight" for number in range(7)}
    assert decayed_names(made.stack.model) == block | heads
    assert made.optimiser.groups[1][1] == 0.0


@pytest.mark.parametrize("layout", ["dimension", "modality", "step"])
@pytest.mark.parametrize("mixer", ["attention", "gru", "lstm", "ssm", "conv", "mlp"])
def test_parameters_are_matched_within_five_percent(mixer: str, layout: str) -> None:
    spec = shape(mixer=mixer, layout=layout, width=0, heads=1)
    matched = match(spec, {"parameters": 30_000, "tolerance": 0.05})
    assert abs(matched.mismatch) < 0.05
    made = build(spec.at(matched.width), torch.Generator())
    assert count_parameters(made) == matched.parameters


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
            stack = Stack([model])
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


@pytest.mark.parametrize("condition", ["goal", "return-to-go"])
def test_a_sequence_is_told_its_condition_first(condition: str) -> None:
    config = configuration("tt", "mujoco/hopper/medium-v0") | {"condition": condition, "context": 3}
    config["model"] |= {"width": 8, "heads": 1, "layers": 1, "dropout": 0.0}
    config["settings"] |= {"bins": 6}
    layout = Layout(3, 2, 0, "states+actions", condition, (0, 2))
    spec, data = joint_spec(config, layout), make([6, 5])
    chosen = JointSettings(**SMALL)
    source = joint_source(data, spec, chosen, layout)
    wanted = data.observations[[5] * 6 + [10] * 5][:, [0, 2]]
    wanted = wanted if condition == "goal" else data.returns_to_go[:, None]
    np.testing.assert_allclose(source.told.numpy(), wanted, rtol=1e-5)
    model = fit_model(spec, data, chosen, torch.Generator().manual_seed(0), layout)
    made = Joint(Stack([model]), source, TRAIN, SMALL, "test", [0])
    assert torch.isfinite(made.loss(torch.arange(4)[None])).all()
    with pytest.raises(ValueError, match="a prefix is given"):
        model.features(source.table[None, :3])


def test_the_preset_is_the_released_model() -> None:
    config = configuration("tt", "mujoco/hopper/medium-v0")
    for size, parameters in (((11, 3), 1_225_472), ((17, 6), 1_468_544)):
        spec = joint_spec(config, Layout(*size, 0, config["history"], config["condition"]))
        assert count_parameters(build(spec, torch.Generator())) == parameters
    assert config["measure"]["plan"]["horizon"] == 15
    other = configuration("tt", "mujoco/halfcheetah/medium-v0")
    assert other["measure"]["plan"]["beam"] == 32
    Joint.Settings.model_validate(config["settings"])


def test_what_it_reads() -> None:
    config = complete(configuration("tt", "mujoco/hopper/medium-v0"))
    uses = Joint.uses(config)
    assert {"mixer", "layout", "head", "condition", "model.heads", "settings.bins"} <= uses
    assert not {"history", "train.windows", "train.loss", "model.parameters"} & uses
    other = Joint.uses(config | {"mixer": "gru", "model": config["model"] | {"width": None}})
    assert "model.parameters" in other
    assert "model.heads" not in other


def test_refusals() -> None:
    config = configuration("tt", "mujoco/hopper/medium-v0")
    with pytest.raises(UserError, match="shows a goal's place"):
        Layout.of(config | {"condition": "goal"}, catalogue.spec("mujoco/hopper/medium-v0"), 11, 3)
    with pytest.raises(UserError, match="one after another"):
        objective(shape(), [5, 6], seeds=2, critic={"width": 8, "batch": 4})
    with pytest.raises(UserError, match="serves no joint model"):
        build(shape(head="softmax"), torch.Generator())
