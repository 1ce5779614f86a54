"""What only the studies of memory and architecture estimate and show."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import report_samples as samples
from scipy import stats

from ablate import registry
from ablate.analyse.estimators import Asked, Untold
from ablate.report import figures, style, summaries, tables
from ablate.report.results import Results

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture(scope="module")
def own() -> Any:
    """The study's own file, forgotten after these tests."""
    with registry.scope():
        registry.load_plugin(str(STUDIES / "memory_vs_arch.py"))
        yield sys.modules[registry.get("figure", "interaction").__module__]


@pytest.fixture(scope="module")
def results(study) -> Results:
    """The sample results."""
    return samples.results(study)


def shortened(results: Results) -> Results:
    """Only the shortest context of these."""
    return replace(results, table=results.table[results.table["context"] == 1])


def test_every_group_with_two_contexts_has_a_row(own, results):
    grid = own.effects(results)
    assert grid is not None
    shown = [row for row in grid.rows if len(row) > 1]
    assert len(shown) == len(own.groups(results.rows)) == 6
    assert [row[0] for row in grid.rows if len(row) == 1] == [
        *("LQ, mixed by episode", "LQ, one policy", "T-Maze, 20 steps"),
    ]
    assert all(len(row) == len(grid.head) for row in shown)
    assert own.effects(shortened(results)) is None


def test_the_effect_is_the_mean_over_the_mixers_run_at_both(own, results):
    rows = results.rows
    here = {"data": "lq-mix/episode", "condition": "time", "head": "mixture"}
    change = own.context_change(summaries.at(rows, here), "rollout.score")
    assert change is not None
    assert (change.ends, change.mixers) == ((1, 20), ("gru", "mlp"))
    assert change.long - change.short == pytest.approx(change.estimate.value)
    row = next(r for r in own.effects(results).rows if "mixture head" in r[0])
    assert row[1:3] == ("1 → 20", "2")
    assert row[5].startswith(f"+{change.estimate.value:.1f} ± ")
    means = rows[rows["data"] == "lq-mix/single"]
    means = summaries.at(means, {"condition": "time", "head": "mse"})
    by_hand = means.groupby(["mixer", "context"])["rollout.score"].mean().unstack()
    effect = own.context_effect(means, "rollout.score")
    assert effect.mean == pytest.approx((by_hand[20] - by_hand[1]).mean())
    assert effect.low < effect.mean < effect.high
    assert own.context_effect(means[means["seed"] == 0], "rollout.score") is None


def test_figures_and_tables_of_the_study_stand_among_ours(own, results):
    assert figures.chosen(results)[:5] == ["memory", "forest", "lines", "levels", "interaction"]
    with style.paper_style():
        effect = own.interaction(results)
        assert own.interaction(shortened(results)) is None
    assert [panel.get_xlabel() for panel in effect.figure.axes] == [
        "change in score\n(points)",
        "change in action error\n(fraction of the action variance)",
    ]
    assert {"context_effect"} <= {grid.name for grid in tables.grids(results)}


def test_memory_is_compared_with_the_widest_gap_between_architectures(own):
    rng = np.random.default_rng(0)
    means = {("gru", 1): 10.0, ("mlp", 1): 11.0, ("gru", 20): 3.0, ("mlp", 20): 6.0}
    rows = pd.DataFrame(
        [
            {"data": "a", "mixer": m, "context": k, "seed": s, "rollout.regret": x + e}
            for (m, k), x in means.items()
            for s, e in enumerate(rng.normal(0.0, 0.1, 8))
        ]
    )
    options = {"factor": "mixer", "over": "context", "low": 1, "high": 20}
    found = own.BeyondGaps(options)(rows, Asked("rollout.regret"))
    noise = rows["rollout.regret"].groupby([rows["mixer"], rows["context"]]).mean()
    assert found.value == pytest.approx(
        abs(noise[:, 20].mean() - noise[:, 1].mean()) - (noise["mlp", 20] - noise["gru", 20])
    )
    assert found.value == pytest.approx(6.0 - 3.0, abs=0.3)

    # Where one pair is the widest throughout, the estimate is a mean over seeds, and so is its error.
    wide = rows.pivot_table(index="seed", columns=["mixer", "context"], values="rollout.regret")
    each = (
        (wide["gru", 1] + wide["mlp", 1]) / 2
        - (wide["gru", 20] + wide["mlp", 20]) / 2
        - (wide["mlp", 20] - wide["gru", 20])
    )
    low, high = stats.t.interval(0.95, 7, each.mean(), stats.sem(each))
    assert found.interval(0.95) == pytest.approx((low, high))
    lone = rows[~((rows["mixer"] == "mlp") & (rows["context"] == 20))]
    with pytest.raises(Untold, match="not every mixer was run at context 1 and 20"):
        own.BeyondGaps(options)(lone, Asked("rollout.regret"))
