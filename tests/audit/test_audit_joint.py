"""The audit of joint models: every mixer, layout and head passes, and planted faults are found."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ablate.audit.audit import Audit, audit_config
from ablate.models.assembly import Model
from ablate.models.attention import Attention
from ablate.models.mixer import State
from ablate.models.slots import Slots
from baselines.recurrent import Recurrent

LAYOUTS = ("dimension", "chunk-2", "modality", "step")
HEADS = [
    ("categorical", "discretised"),
    ("autoregressive", "discretised"),
    ("gaussian", "continuous"),
    ("mixture", "continuous"),
    ("mse", "continuous"),
]


def examined(mixer: str = "attention", head: str = "categorical", **options: Any) -> Audit:
    history, condition = "states+actions+rewards", options.pop("condition", "none")
    options = {"input": "discretised", "layout": "dimension", "context": 6} | options
    return audit_config(
        mixer, options.pop("context"), history, condition, head, predicts="all", **options
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("head", "read"), HEADS)
def test_every_layout_and_head_passes(layout: str, head: str, read: str) -> None:
    result = examined(layout=layout, head=head, input=read, heads=2)
    assert result.findings == []
    assert result.declared["action"] == list(range(1, 6))


@pytest.mark.parametrize("layout", ["dimension", "modality", "step"])
@pytest.mark.parametrize("mixer", ["gru", "lstm", "ssm", "conv", "convformer", "mlp"])
def test_every_mixer_passes(mixer: str, layout: str) -> None:
    assert examined(mixer, "autoregressive", layout=layout, input="continuous").findings == []


@pytest.mark.parametrize("condition", ["goal", "return-to-go"])
@pytest.mark.parametrize("mixer", ["attention", "gru"])
def test_what_is_told_first_is_seen(mixer: str, condition: str) -> None:
    assert examined(mixer, condition=condition, layout="modality").findings == []


def test_a_look_ahead_and_a_seen_value_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def everything(self: Attention, position: Tensor) -> Tensor:
        return torch.ones_like(position, dtype=torch.bool)

    monkeypatch.setattr(Attention, "seen", everything)
    assert "an action depends on a value" in " ".join(examined().findings)
    monkeypatch.undo()
    tokens = Model.tokens
    monkeypatch.setattr(Model, "tokens", lambda self, rows: tokens(self, rows).flip(1))
    assert "future (training)" in " ".join(examined().findings)


def test_a_carried_state_that_differs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Recurrent.step

    def halved(self: Recurrent, token: Tensor, state: State) -> tuple[Tensor, State]:
        found, state = step(self, token, state)
        return 0.5 * found, state

    monkeypatch.setattr(Recurrent, "step", halved)
    assert "paths-differ (step)" in " ".join(examined("gru").findings)


def test_a_model_that_doesnt_run_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such shape")

    monkeypatch.setattr(Slots, "each", broken)
    assert examined().findings == ["does-not-run (joint): RuntimeError: no such shape."]
