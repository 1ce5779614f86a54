"""The Decision Transformer against its forward pass written out in plain torch.

The reference follows the released code's description (Chen et al. 2021, gym/): tokens R_t, s_t, a_t with
the embedding of their timestep, a norm over all of them, GPT-2 blocks without position embeddings, actions
read at the state's token; windows padded on the left and masked.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ablate.audit.audit import audit_config
from ablate.config import SECTIONS
from ablate.data.normalise import Scales
from ablate.data.trajectories import Trajectories
from ablate.learn.train import windows_per_update
from ablate.models.agent import Agent, stored
from ablate.models.assembly import Model, build, count_parameters
from ablate.models.layouts import Fields, Layout
from ablate.models.match import parameters_at
from ablate.models.spec import ModelSpec
from ablate.models.stack import Stack
from ablate.study.presets import configuration, read

N, M, K = 11, 3, 20
LAYOUT = Layout(N, M, 0, "states+actions+returns", "return-to-go", timesteps=True)


def decision_transformer(context: int = K, timesteps: int = 1000) -> ModelSpec:
    """The preset at hopper's sizes."""
    overrides = (f"context={context}", f"model.timesteps={timesteps}")
    return ModelSpec.of(configuration("dt", "mujoco/hopper/medium-v0", overrides), LAYOUT)


def released(
    weights: dict[str, Tensor], states: Tensor, actions: Tensor, returns: Tensor, times: Tensor,
    mask: Tensor,
) -> Tensor:  # fmt: skip
    """Actions (B, K, M) from states (B, K, N), actions (B, K, M), returns (B, K, 1), timesteps (B, K)."""

    def affine(name: str, x: Tensor) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
        scaled = (x - mean) / torch.sqrt(variance + 1e-5)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    batch, length, _ = states.shape
    time = weights["embed.timesteps.weight"][times]
    parts = [
        affine("embed.layers.return-to-go", returns) + time,
        affine("embed.layers.observation", states) + time,
        affine("embed.layers.action", actions) + time,
    ]
    x = norm("embed.norm", torch.stack(parts, 2).reshape(batch, 3 * length, -1))
    causal = torch.ones(3 * length, 3 * length, dtype=torch.bool).tril()
    shown = (1.0 - mask.repeat_interleave(3, 1).to(x.dtype)[:, None]) * -1e4  # (B, 1, 3K)
    for layer in range(3):
        block = f"mixer.blocks.{layer}"
        q, k, v = affine(f"{block}.qkv", norm(f"{block}.attention_norm", x)).chunk(3, -1)
        scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
        scores = torch.where(causal, scores, torch.tensor(-1e4, dtype=x.dtype)) + shown
        x = x + affine(f"{block}.out", scores.softmax(-1) @ v)
        x = x + affine(f"{block}.down", F.relu(affine(f"{block}.up", norm(f"{block}.mlp_norm", x))))
    at_states = norm("norm", x).reshape(batch, length, 3, -1)[:, :, 1]
    return torch.tanh(affine("head.linear", at_states))


def episodes(count: int, steps: int) -> Trajectories:
    generator = np.random.default_rng(0)
    total = count * steps
    return Trajectories(
        name="dt",
        observations=generator.normal(1.0, 2.0, (total, N)).astype(np.float32),
        actions=generator.uniform(-1, 1, (total, M)).astype(np.float32),
        rewards=generator.normal(size=total).astype(np.float32),
        terminations=np.zeros(total, dtype=bool),
        truncations=np.tile(np.arange(steps) == steps - 1, count),
        episode_starts=np.arange(0, total + 1, steps),
    )


def agent(policy: Model, context: int) -> Agent:
    scales = Scales(torch.full((N,), 1.0), torch.full((N,), 2.0), 3.0, 10.0, 100)
    return Agent(Stack([policy]), LAYOUT, scales, context)


def test_every_hyperparameter_is_on_the_page() -> None:
    page = read("dt")
    # For widths that are solved for; and what belongs to a study, not to a method.
    chosen = {"parameters", "tolerance", "checkpoints", "converged", "split"}
    for name, section in SECTIONS.items():
        assert set(section.model_fields) - set(page[name]) <= chosen
    for data, target in (("halfcheetah", 12_000), ("hopper", 3600), ("walker2d", 5000)):
        made = configuration("dt", f"mujoco/{data}/medium-v0")
        assert made["measure"]["rollout"]["target"] == target
        assert windows_per_update(made["train"], made["context"]) == 64
    reacher = configuration("dt", "mujoco/reacher/medium-v0")
    assert windows_per_update(reacher["train"], reacher["context"]) == 64


def test_without_what_is_never_used_it_is_smaller() -> None:
    spec = dataclasses.replace(decision_transformer(), auxiliary=False)
    assert parameters_at(spec, 128) == 726_019


def test_it_passes_the_audit() -> None:
    options = {
        name: value
        for name, value in configuration("dt", "mujoco/hopper/medium-v0")["model"].items()
        if name in {field.name for field in dataclasses.fields(ModelSpec)}
    } | {"width": 16, "layers": 2, "dropout": 0.0}
    result = audit_config(
        "attention", 4, "states+actions+returns", "return-to-go", layout="modality", **options
    )
    assert result.passed, result.findings
    assert result.declared["timestep"] == [0, 1, 2, 3]


def test_it_has_the_published_number_of_parameters() -> None:
    spec = decision_transformer()
    policy = build(spec, torch.Generator())
    assert count_parameters(policy) == parameters_at(spec, 128) == 727_695
    parts = {
        "embed.timesteps": 128_000, "embed.layers.return-to-go": 256,
        "embed.layers.observation": 1_536, "embed.layers.action": 512, "embed.norm": 256,
        "mixer.blocks": 3 * 198_272, "norm": 256, "head": 387, "auxiliary.state": 1_419,
        "auxiliary.return_to_go": 129, "auxiliary.word": 128,
    }  # fmt: skip
    for name, count in parts.items():
        assert count_parameters(policy.get_submodule(name)) == count


@pytest.mark.parametrize("rows", [1000, 12])  # 12: later timesteps share the last entry
@torch.no_grad()
def test_training_shape_gives_what_the_released_forward_pass_gives(rows: int) -> None:
    context, steps = 5, 17
    policy = build(decision_transformer(context, rows), torch.Generator().manual_seed(1)).eval()
    data = episodes(2, steps)
    reader = agent(policy, context)
    read = stored(data, LAYOUT)
    ends = torch.arange(context - 1, steps) + steps  # full windows of the second episode
    windows, lengths = reader.windows(reader.tokens(read.fields), read.timestep, ends[None])
    mask = torch.ones(windows.shape[:3], dtype=torch.bool)
    everywhere = reader.stack(windows, mask, method="everywhere")[0]  # (B, K, M)
    at_targets = reader.stack(windows, lengths)[0]

    index = ends[:, None] + torch.arange(1 - context, 1)
    expected = released(
        policy.state_dict(),
        (torch.from_numpy(data.observations)[index] - 1.0) / 2.0,
        torch.from_numpy(data.actions)[index],
        torch.from_numpy(data.returns_to_go)[index][..., None] / 10.0,
        (index - steps).clamp(max=rows - 1),
        torch.ones(index.shape),
    )
    torch.testing.assert_close(everywhere, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(at_targets, expected[:, -1], rtol=0, atol=1e-5)


@torch.no_grad()
def test_acting_shape_gives_what_the_released_forward_pass_gives() -> None:
    context, steps, count = 4, 11, 3
    policy = build(decision_transformer(context), torch.Generator().manual_seed(2)).eval()
    data = episodes(count, steps)
    shape = (count, steps)
    states = torch.from_numpy(data.observations).view(*shape, N)
    actions = torch.from_numpy(data.actions).view(*shape, M)
    returns = torch.from_numpy(data.returns_to_go).view(*shape)
    actor = agent(policy, context).start(count)
    for t in range(steps):
        before = actions[:, t - 1] if t else torch.zeros(count, M)
        fields = Fields(
            observation=states[:, t],
            action=before,
            reward=torch.zeros(count),
            time=torch.full((count,), float(t)),
            told={"return-to-go": returns[:, t, None]},
        )
        ours = actor.step(fields.map(lambda values: values[None]))

        low = max(0, t + 1 - context)
        pad = context - (t + 1 - low)

        def padded(values: Tensor, low: int = low, pad: int = pad, t: int = t) -> Tensor:
            """The last K of values (E, T, D), with zeros before the episode's start."""
            return F.pad(values[:, low : t + 1], (0, 0, pad, 0))

        expected = released(
            policy.state_dict(),
            padded((states - 1.0) / 2.0),
            # the present action is not taken yet; what stands there comes after the state's token
            padded(torch.where(torch.arange(steps)[:, None] < t, actions, 0.0)),
            padded(returns[..., None] / 10.0),
            padded(torch.arange(steps).expand(count, -1)[..., None])[..., 0],
            padded(torch.ones(*shape, 1))[..., 0],
        )
        torch.testing.assert_close(ours[0], expected[:, -1], rtol=0, atol=1e-5)


def test_what_the_loss_never_reaches_gets_no_gradient() -> None:
    policy = build(decision_transformer(3), torch.Generator().manual_seed(0))
    out = policy(
        torch.randn(2, 3, LAYOUT.features), torch.ones(2, 3, dtype=bool), method="everywhere"
    )
    out.square().sum().backward()
    without = {name for name, p in policy.named_parameters() if p.grad is None}
    assert {name.split(".")[0] for name in without} == {"auxiliary"}


def test_initial_weights_of_the_blocks_are_gpt2s() -> None:
    policy = build(decision_transformer(), torch.Generator().manual_seed(0))
    for name, values in policy.mixer.named_parameters():
        if name.endswith("weight") and values.ndim == 2:
            assert float(values.detach().std()) == pytest.approx(0.02, rel=0.05)
        elif "norm" not in name:
            assert (values == 0).all()
