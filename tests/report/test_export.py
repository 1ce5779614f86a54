"""Exports of committed results, read back by the packages whose formats they are."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
from tiny_study import ROOT, Tiny

STUDY = str(ROOT / "studies" / "loss.yaml")
RESULTS = ("--results", str(ROOT / "results"))


def absent(*_: object, **__: object) -> None:
    raise ImportError


@pytest.mark.parametrize("kind", ["parquet", "tensorboard"])
def test_a_format_whose_package_is_missing_is_refused(
    tiny: Tiny, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pd.DataFrame, "to_parquet", absent)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    line = tiny.command("export", STUDY, "--format", kind, *RESULTS).line
    assert line.endswith(f"not installed: pip install 'ablate-sequence-rl[{kind}]'.")
    assert not Path("export").exists()


def test_an_unknown_format_and_a_study_without_results_are_refused(tiny: Tiny) -> None:
    line = tiny.command("export", STUDY, "--format", "parkett", *RESULTS).line
    assert "the format: 'parkett' is not known; allowed: parquet, tensorboard." in line
    assert "there are no results yet" in tiny.command(*tiny.arguments("export")).line


def test_parquet_holds_the_tables(tiny: Tiny) -> None:
    pytest.importorskip("pyarrow")
    assert tiny.command("export", STUDY, *RESULTS).out == "export/loss: 4 tables written.\n"
    trials = pd.read_parquet("export/loss/trials.parquet")
    lies = pd.read_csv(ROOT / "results" / "loss" / "trials.csv").drop(columns="row_hash")
    assert trials[["trial", "rollout.regret", "seed"]].equals(
        lies[["trial", "rollout.regret", "seed"]]
    )
    verdicts = pd.read_parquet("export/loss/verdicts.parquet")
    assert list(verdicts["hypothesis"][:2]) == ["act-all", "predict-all"]


def test_tensorboard_holds_the_curves(tiny: Tiny) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    asked = ("export", STUDY, "--format", "tensorboard", "--to", "events", *RESULTS)
    assert tiny.command(*asked).out == "events: 90 fits written.\n"
    folder = Path(
        "events", "data=lq-mix-step,mixer=gru,train.loss=last,train.least_visible=1", "seed=3"
    )
    read = EventAccumulator(str(folder))
    read.Reload()
    table = pd.read_csv(ROOT / "results" / "loss" / "trials.csv").query(
        "data == 'lq-mix/step' and mixer == 'gru' and `train.loss` == 'last' and seed == 3"
    )
    curves = pd.read_csv(ROOT / "results" / "loss" / "curves.csv")
    mine = curves[curves["fit"] == table["fit"].iloc[0]]
    points = read.Scalars("heldout_loss")
    assert [point.step for point in points] == mine["update"].tolist()
    assert [point.value for point in points] == pytest.approx(mine["heldout_loss"].tolist())
    assert "events: it holds event files already" in tiny.command(*asked).line
