"""The share of approaches that gain, against counts by hand and Student's interval by scipy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ablate import registry
from ablate.analyse.estimators import Asked, Untold
from ablate.study import load

STUDIES = Path(__file__).parents[2] / "studies"
OPTIONS = {"over": "context", "low": 1, "high": 20, "average": ["mixer"]}
ASKED = Asked("rollout.regret")


@pytest.fixture(scope="module")
def own() -> Any:
    """The study's own file, forgotten after these tests."""
    with registry.scope():
        registry.load_plugin(str(STUDIES / "approaches.py"))
        yield sys.modules[registry.get("estimator", "share-that-gains").__module__]


def table(gains: dict[tuple[str, float, str], list[float]]) -> pd.DataFrame:
    """Runs of two mixers, of which one gains and the other loses as much beside the gain of their approach."""
    return pd.DataFrame(
        [
            {
                "data": data,
                "algorithm": algorithm,
                "train.keep": keep,
                "mixer": mixer,
                "context": context,
                "seed": seed,
                "rollout.regret": 50.0 - (gain + apart if context == 20 else 0.0),
            }
            for (algorithm, keep, data), each in gains.items()
            for seed, gain in enumerate(each)
            for mixer, apart in (("gru", 30.0), ("mlp", -30.0))
            for context in (1, 20)
        ]
    )


def test_the_share_is_counted_within_seeds(own: Any) -> None:
    rows = table(
        {
            ("bc", 1.0, "a"): [1.0, 2.0, 3.0],
            ("bc", 0.1, "a"): [-1.0, -2.0, 3.0],
            ("iql", 1.0, "a"): [0.1, -9.0, -9.0],
            ("bc", 1.0, "b"): [1.0, 1.0, 1.0],
            ("bc", 0.1, "b"): [1.0, 1.0, 1.0],
            ("iql", 1.0, "b"): [1.0, 1.0, -1.0],
        }
    )
    found = own.ShareThatGains(OPTIONS)(rows, ASKED)
    shares = [(2 / 3 + 1) / 2, (1 / 3 + 1) / 2, (2 / 3 + 2 / 3) / 2]
    assert found.value == pytest.approx(np.mean(shares))
    expected = stats.t.interval(0.95, 2, np.mean(shares), stats.sem(shares))
    assert found.interval(0.95) == pytest.approx(expected)
    # More is better of a score.
    scores = rows.rename(columns={"rollout.regret": "rollout.score"})
    turned = own.ShareThatGains(OPTIONS)(scores, Asked("rollout.score"))
    assert turned.value == pytest.approx(1.0 - found.value)


def test_a_seed_without_an_approach_is_left_out(own: Any) -> None:
    rows = table({("bc", 1.0, "a"): [1.0, 1.0, 1.0], ("iql", 1.0, "a"): [1.0, -1.0, 1.0]})
    lost = rows[~((rows["algorithm"] == "iql") & (rows["seed"] == 1))]
    found = own.ShareThatGains(OPTIONS)(lost, ASKED)
    assert (found.value, found.n) == (1.0, 2)
    with pytest.raises(Untold, match="a single approach"):
        own.ShareThatGains(OPTIONS)(rows[rows["algorithm"] == "bc"], ASKED)


def test_the_study_asks_for_four_approaches() -> None:
    with registry.scope():
        study = load.load(STUDIES / "approaches.yaml")
        asked = next(h for h in study.hypotheses if h.id == "any")
        assert asked.primary
        assert asked.threshold == 0.8
        assert set(study.levels["algorithm"]) == {"bc", "iql", "td3+bc"}
