"""Which response a hypothesis is about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from study_samples import TEXT, changed, line_of, loaded, made_up_lab, refusal

from ablate import registry
from ablate.measure.base import Measurement
from ablate.study import identity
from ablate.words import Response


@pytest.fixture(autouse=True)
def lab() -> Iterator[None]:
    """A measurement `drift` beside ours, with a response over an index and one that another has too."""
    responses = (Response("success"), Response("error", index="horizon"), Response("bias"))
    drift = type("Drift", (Measurement,), {"responses": responses})
    with made_up_lab():
        registry.register("measurement", "drift")(drift)
        yield


def about(metric: str, measured: bool = True) -> str:
    text = changed("    threshold: 3", f"    metric: {metric}")
    return (
        text.replace("seeds: 4", "measure: {rollout: {}, drift: {}}\nseeds: 4")
        if measured
        else text
    )


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("score", "rollout.score"),
        ("rollout.success", "rollout.success"),
        ("drift.success", "drift.success"),
        ("bias", "drift.bias"),
        ("error@5", "drift.error@5"),
        ("drift.error@5", "drift.error@5"),
    ],
)
def test_a_metric_is_named_in_full(tmp_path: Path, written: str, meant: str) -> None:
    study = loaded(tmp_path, about(written))
    assert study.hypotheses[0].metric == meant
    in_full = loaded(tmp_path, about(meant))
    assert identity.hypotheses_hash(study) == identity.hypotheses_hash(in_full)


def test_without_a_metric_it_is_the_score(tmp_path: Path) -> None:
    assert {h.metric for h in loaded(tmp_path).hypotheses} == {"rollout.score"}


@pytest.mark.parametrize(
    ("metric", "fragments"),
    [
        ("success", ["several measurements: rollout.success, drift.success; name one in full"]),
        ("error", ["'error'", "allowed: drift.error@VALUE, as it runs over horizon"]),
        ("drift.error", ["allowed: drift.error@VALUE"]),
        ("bias@5", ["'bias@5'", "allowed: drift.bias"]),
        ("drift.eror@5", ["'drift.eror@5' is not known", "Did you mean 'drift.error'?"]),
        ("held-out.loss", ["'held-out.loss' is not known"]),  # it isn't measured
    ],
)
def test_what_isnt_clear_is_refused_with_its_line(
    tmp_path: Path, metric: str, fragments: list[str]
) -> None:
    text = about(metric)
    message = refusal(tmp_path, text)
    assert message.startswith(f"small.yaml:{line_of(text, f'metric: {metric}')}: "), message
    for fragment in fragments:
        assert fragment in message, message


def test_what_is_not_measured_has_no_responses(tmp_path: Path) -> None:
    assert "'bias' is not known" in refusal(tmp_path, about("bias", measured=False))
    assert "drift.bias" in loaded(tmp_path, about("bias")).responses
    assert "drift.bias" not in loaded(tmp_path, TEXT).responses
