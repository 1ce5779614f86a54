"""The benchmark measures what it says it measures; how fast it is, no test asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peer_samples import CORL, checkout

from ablate.bench import transformer, update
from ablate.bench.transformer import ACTIONS, OBSERVATIONS, training
from ablate.bench.update import cohort_throughput, update_operations, update_rows
from ablate.models.assembly import count_parameters
from ablate.study import presets


def test_what_is_timed_is_the_preset_itself() -> None:
    made = training("dt")
    said: dict[str, Any] = presets.configuration("dt", "mujoco/hopper/medium-v0")
    assert made.train == said["train"]
    spec = made.stack.spec
    assert (spec.layers, spec.width, spec.context, spec.dropout) == (3, 128, 20, 0.1)
    assert count_parameters(made.stack.model) == 727_695
    assert (made.source.table.shape[1], made.source.actions.shape[1]) == (
        OBSERVATIONS + ACTIONS + 2, ACTIONS,
    )  # fmt: skip


def test_operations_are_near_the_formula() -> None:
    tokens, width, targets = 64 * 59, 128, 64 * 20
    # two whole blocks; keys and values everywhere and the rest at the state tokens in the third
    forward = 2 * width**2 * (2 * 12 * tokens + 2 * tokens + 10 * targets)
    assert 1.0 < update_operations("dt") / (3 * forward) < 1.12


def test_rows_are_complete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def tiny(preset: str, *overrides: str) -> Any:
        return training(preset, "model.width=16", "train.targets_per_update=80", *overrides)

    monkeypatch.setattr(update, "training", tiny)
    rows = update_rows(chunks=1, repeats=1)
    assert [row["precision"] for row in rows] == ["float32", "bfloat16"]
    for row in rows:
        assert row["seconds"] > row["products"] > 0
        assert "ratio" not in row
    for row in update_rows(checkout(tmp_path, CORL), chunks=2, repeats=1):
        assert row["peer, float32"] == "CORL's Decision Transformer"
        assert row["least"] <= row["ratio"] <= row["most"]
    (row,) = cohort_throughput(mixers=("mlp",), replicas=2, parameters=4000, context=3, chunks=1)
    assert row["ratio"] == row["single seconds"] / row["stack seconds"]
    assert torch.get_num_threads() >= 1


def test_made_up_episodes_are_valid() -> None:
    made = transformer.hopper(2)
    assert made.train.num_episodes == 2
    assert made.spec.dimensions == (OBSERVATIONS, ACTIONS)
