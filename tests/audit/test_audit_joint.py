"""The audit of the joint model: every layout and head passes, and planted faults are found."""

from typing import Any

import pytest
import torch

from ablate import presets
from ablate.audit.joint import audit_joint
from ablate.models.trajectory import TrajectoryModel


def config(**changes: Any) -> dict[str, Any]:
    return presets.configuration("tt", "lq-mix/episode") | changes


@pytest.mark.parametrize("layout", ["dimension", "chunk-4", "modality", "step"])
@pytest.mark.parametrize(
    ("head", "read"),
    [
        ("categorical", "discretised"),
        ("autoregressive", "discretised"),
        ("gaussian", "continuous"),
        ("mixture", "continuous"),
        ("mse", "continuous"),
    ],
)
def test_every_layout_and_head_passes(layout: str, head: str, read: str) -> None:
    result = audit_joint(config(layout=layout, head=head, input=read))
    assert result.findings == []
    assert result.declared["action"] == list(range(1, 8))


def test_a_look_ahead_and_a_seen_value_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = TrajectoryModel.mask

    def ahead(self: TrajectoryModel, length: int, goal: int = 0) -> torch.Tensor:
        return torch.ones_like(mask(self, length, goal))

    monkeypatch.setattr(TrajectoryModel, "mask", ahead)
    findings = " ".join(audit_joint(config()).findings)
    assert "future (training)" in findings
    assert "an action depends on a value" in findings


def test_a_model_that_doesnt_run_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such shape")

    monkeypatch.setattr(TrajectoryModel, "features", broken)
    assert audit_joint(config()).findings == ["does-not-run: RuntimeError: no such shape"]
