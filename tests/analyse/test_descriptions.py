"""Intervals of means and the measured pairing, against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from analyse_samples import tidy
from scipy import stats

from ablate.analyse.descriptive import mean_interval, pairing


def test_the_interval_of_a_mean_is_students():
    scores = np.random.default_rng(3).normal(5.0, 2.0, 10)
    bounds = stats.ttest_1samp(scores, 0.0).confidence_interval()
    assert mean_interval(scores) == pytest.approx((bounds.low, bounds.high))
    assert np.isnan(mean_interval(scores[:1])).all()


def test_pairing_measures_the_shared_seed_effect():
    def with_pairs(strength: float) -> pd.DataFrame:
        table = tidy(lambda cell: 5.0, seeds=10, noise=1.0, draw=4)
        shift = np.random.default_rng(1).normal(0, 1, 10) * strength
        return table.assign(score=table["score"] + shift[table["seed"]])

    strong = pairing(with_pairs(3.0), "score")
    assert (strong["correlation"] > 0.7).all()
    assert (strong["p"] < 0.01).all()
    none = pairing(with_pairs(0.0), "score")
    assert (none["correlation"].abs() < 0.25).all()
    assert (none["cells"] == 6).all()
    # The definition: the mean of all pairs' Pearson correlations.
    one = with_pairs(1.0).query("data == 'lq-mix/episode'")
    wide = one.pivot(index="seed", columns=["mixer", "context"], values="score")
    matrix = np.corrcoef(wide.to_numpy().T)
    by_hand = matrix[np.triu_indices(6, 1)].mean()
    assert pairing(one, "score")["correlation"].iloc[0] == pytest.approx(by_hand)


def test_pairing_leaves_out_flat_and_incomplete_cells():
    table = tidy(lambda cell: 5.0, data=("lq-mix/step",))
    table.loc[0, "status"] = "FAILED"
    table.loc[(table["mixer"] == "gru") & (table["context"] == 1), "score"] = 100.0
    row = pairing(table, "score").iloc[0]
    assert (row["cells"], row["left_out"]) == (4, 2)
    lonely = pairing(tidy(lambda cell: 5.0, mixer=("gru",), context=(1,)), "score")
    assert lonely["correlation"].isna().all()
