"""What the study of constraint draws, and that its profiles stand."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ablate import registry
from ablate.report.results import Results
from ablate.study.load import load

STUDY = Path(__file__).parents[2] / "studies" / "constraint.yaml"
CANDIDATES = (1, 8, 64, 512)


@pytest.fixture(scope="module")
def own() -> Any:
    """The study's own file, forgotten after these tests."""
    with registry.scope():
        registry.load_plugin(str(STUDY.with_suffix(".py")))
        yield sys.modules[registry.get("figure", "constraint").__module__]


@pytest.fixture(scope="module")
def results(own: Any) -> Results:
    """Made-up trials of two arms on two data sets, and one of another horizon, which isn't drawn."""
    rows, series = [], []
    for data, seed, proposals, arm, horizon in itertools.product(
        ("lq-mix/single", "shortcut/umaze-v0"), range(3), own.PROPOSALS, own.NETS, (5, 15)
    ):
        trial = f"{data}-{seed}-{proposals}-{arm}-{horizon}"
        levels = {**own.USUAL, **own.NETS[arm], "measure.support.proposals": proposals}
        levels["measure.support.horizon"] = horizon
        rows.append(
            {"trial": trial, "status": "COMPLETED", "budget": 600, "data": data, "seed": seed,
             "head": "categorical", "mixer": "attention", "context": 5, **levels}
        )  # fmt: skip
        for place, count in enumerate(CANDIDATES):
            series.append((trial, "support.gap", count, 0.1 * place + 0.01 * seed))
            series.append((trial, "support.percentile_5", count, 90.0 - 5 * place))
    table = pd.DataFrame(series, columns=["trial", "response", "index", "value"])
    return Results(load(STUDY), pd.DataFrame(rows), series=table)


def test_the_figure_holds_every_arm_once(own: Any, results: Results) -> None:
    drawn = own.constraint(results)
    assert len(drawn.trials) == 2 * 3 * 2 * len(own.NETS)
    assert not any(trial.endswith("-15") for trial in drawn.trials)
    first = drawn.figure.axes[0]
    lines = [line for line in first.get_lines() if len(line.get_xdata()) == len(CANDIDATES)]
    assert len(lines) == 2 * len(own.NETS)
    assert list(lines[0].get_ydata()) == pytest.approx([0.01, 0.11, 0.21, 0.31])
    assert [axes.get_title("left") or axes.get_title() for axes in drawn.figure.axes[:2]]


def test_without_candidates_nothing_is_drawn(own: Any, results: Results) -> None:
    bare = Results(results.study, results.table, series=results.series.iloc[:0])
    assert own.constraint(bare) is None


def test_every_profile_of_the_study_stands() -> None:
    for profile in ("standard", "quick", "gpu"):
        study = load(STUDY, profile)
        assert {claim.family for claim in study.hypotheses} >= {"controls"}
        assert sum(claim.primary for claim in study.hypotheses) == 6
        assert study.seeds >= 2
