"""Verdicts in other universes, without a data set, and with failed trials as the worst."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from analyse_samples import claim, tidy
from scipy import stats

from ablate.analyse.answer import levels_of
from ablate.analyse.intervals import combine
from ablate.analyse.leave_out import (
    ALL,
    WORST,
    with_failed_as_worst,
    without_each_data_set,
    worst_for_failed,
)
from ablate.analyse.multiverse import multiverse, summarised
from ablate.analyse.verdict import judge
from ablate.errors import UserError

MEMORY = claim(threshold=3.0, primary=True)
SAME = claim("architecture", "mixer[gru] - mixer[mlp]", test="equivalence", primary=True)


def effect(cell):
    return 40.0 + 10.0 * (cell["context"] == 20)


def test_iqm_and_median_carry_their_standard_errors():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, 11), rng.normal(1, 3, 8)
    moved = summarised(x, "IQM"), summarised(y, "IQM")
    assert moved[0].mean() == pytest.approx(stats.trim_mean(x, 0.25))
    yuen = stats.ttest_ind(x, y, equal_var=False, trim=0.25)
    estimate = combine([1.0, -1.0], moved)
    assert estimate.value / np.sqrt(estimate.variance) == pytest.approx(yuen.statistic, abs=1e-10)
    middle = summarised(x, "median")
    assert middle.mean() == pytest.approx(np.median(x))
    medians = np.median(rng.choice(x, (200_000, 11)), axis=1)
    assert middle.var(ddof=1) / 11 == pytest.approx(medians.var(), rel=0.02)
    assert (summarised(np.full(5, 3.0), "median") == 3.0).all()
    assert (summarised(x, "mean") == x).all()
    assert summarised(x[:1], "IQM") == x[:1]


def test_a_clear_verdict_stands_in_every_universe():
    table = tidy(effect, seeds=10)
    found = multiverse(table, [MEMORY, SAME], levels_of(table))
    assert found.axes["seeds"] == ("all 10", "3", "5")
    assert found.axes["summary"] == ("mean", "IQM", "median")
    assert found.universes == 3 + 3 * 2 + 2 * 3
    first = found.rows[found.rows["universe"] == 0]
    own = judge(
        table,
        [MEMORY, SAME],
        levels_of(table),
        alpha=0.05,
        margin=3.0,
        registered={"memory": True, "architecture": True},
    )
    assert first["verdict"].tolist() == [one.verdict for one in own]
    assert first["estimate"].tolist() == pytest.approx([one.estimate for one in own])
    shares = found.shares.set_index("hypothesis")
    assert shares.loc["memory", "verdict"] == "supported"
    assert shares.loc["memory", "stands"] == pytest.approx(1.0)
    assert shares.loc["memory", "same_sign"] == pytest.approx(1.0)
    assert np.allclose(shares[["stands", "otherwise", "undecided"]].sum(axis=1), 1.0)
    by_size = found.rows[found.rows["hypothesis"] == "memory"].groupby("seeds")["weight"].sum()
    assert by_size["5"] == pytest.approx(by_size["all 10"])
    assert "target of score" in found.unserved
    assert "the curves hold no score" in found.unserved["checkpoint of score"]


def test_blocks_of_seeds_are_counted_within_data_sets():
    table = tidy(effect, seeds=6)
    shifted = table["data"] == "tmaze/passive-20"
    table["seed"] = table["seed"].where(~shifted, table["seed"] + 100)
    table = table[~(shifted & (table["seed"] == 105))]
    found = multiverse(table, [MEMORY], levels_of(table))
    assert found.axes["seeds"] == ("all 5 to 6", "3", "5")
    rows = found.rows[found.rows["summary"] == "mean"].set_index("seeds")
    assert (rows["verdict"] == "supported").all()
    kept = table[table["seed"] % 100 < 3]
    own = judge(
        kept, [MEMORY], levels_of(kept), alpha=0.05, margin=3.0, registered={"memory": True}
    )[0]
    assert rows.loc["3", "estimate"] == pytest.approx(own.estimate)
    assert rows.loc["3", "weight"] == pytest.approx(rows.loc["all 5 to 6", "weight"])


def test_every_way_of_scoring_that_the_table_has_is_taken():
    table = tidy(effect, seeds=3, noise=1.0)
    rng = np.random.default_rng(1)
    table["score_median"] = table["score"] + 1.0
    table["score_target_p50"] = 20.0 + rng.normal(0, 0.5, len(table))
    table["score_target_p99"] = table["score"] - 5.0
    table["score_episodes_10"] = table["score"] + 2.0
    points = np.arange(1, 11)
    curves = pd.DataFrame(
        {
            "trial": np.repeat(table["trial"].to_numpy(), 10),
            "update": np.tile(100 * points, len(table)),
            "score": np.repeat(table["score"], 10).to_numpy()
            + np.tile([0.0] * 9 + [-4.0], len(table)),
        }
    )
    found = multiverse(table, [MEMORY], levels_of(table), curves)
    assert found.axes["score"] == (
        *("as declared", "mean of the last 20 %", "best checkpoint", "target p50", "target p99"),
        *("best target", "10 episodes", "median episode"),
    )
    assert found.unserved == {"seeds": "there are not more than three of them"}
    rows = found.rows[found.rows["summary"] == "mean"].set_index("score")
    declared = rows.loc["as declared", "estimate"]
    for same in ("best checkpoint", "mean of the last 20 %", "target p99", "median episode"):
        assert rows.loc[same, "estimate"] == pytest.approx(declared)
    assert rows.loc["target p50", "estimate"] == pytest.approx(0.0, abs=1.0)
    assert rows.loc["target p50", "verdict"] == "equivalent"
    shares = found.shares.iloc[0]
    assert shares["otherwise"] == pytest.approx(1 / 8)
    # An error is better when it is lower: the best checkpoint is its minimum.
    errors = table.rename(columns={"score": "sample.error"})
    less = claim(metric="sample.error")
    found = multiverse(
        errors, [less], levels_of(errors), curves.rename(columns={"score": "sample.error"})
    )
    rows = found.rows[found.rows["summary"] == "mean"].set_index("score")
    last = judge(
        errors, [less], levels_of(errors), alpha=0.05, margin=None, registered={"memory": True}
    )[0]
    assert rows.loc["best checkpoint", "estimate"] == pytest.approx(last.estimate)


def test_a_data_set_that_carries_an_effect_is_found():
    table = tidy(
        lambda cell: 40.0 + 30.0 * (cell["context"] == 20) * (cell["data"] == "b"),
        data=("a", "b", "c"),
        noise=1.0,
    )
    alone = claim("alone", where={"data": "b"})
    found = without_each_data_set(table, [MEMORY, alone], levels_of(table))
    assert found["setting"].tolist() == [ALL, "a", "b", "c"]
    by = found.set_index("setting")
    assert by.loc[ALL, "verdict"] == "supported"
    assert by.loc["b", "verdict"] == "equivalent"
    assert by["changed"].tolist() == [False, False, True, False]
    again = judge(
        table[table["data"] != "a"],
        [MEMORY],
        levels_of(table),
        alpha=0.05,
        margin=3.0,
        registered={"memory": True},
    )[0]
    assert by.loc["a", "estimate"] == pytest.approx(again.estimate)
    assert without_each_data_set(table, [alone], levels_of(table)).empty


def test_failed_trials_count_as_the_worst_of_their_data_set():
    table = tidy(effect, noise=1.0)
    assert with_failed_as_worst(table, [MEMORY], levels_of(table)).empty
    lost = (table["context"] == 20) & (table["seed"] < 2)
    table["sample.error"] = -table["score"]
    broken = table.assign(
        status=np.where(lost, "FAILED", "COMPLETED"),
        score=table["score"].where(~lost),
        **{"sample.error": table["sample.error"].where(~lost)},
    )
    filled = worst_for_failed(broken, ["score", "sample.error"])
    assert (filled["status"] == "COMPLETED").all()
    for data, rows in filled.groupby("data"):
        done = broken[(broken["data"] == data) & ~lost]
        assert (rows.loc[lost.loc[rows.index], "score"] == done["score"].min()).all()
        assert (rows.loc[lost.loc[rows.index], "sample.error"] == done["sample.error"].max()).all()
    found = with_failed_as_worst(broken, [MEMORY], levels_of(table))
    left_out, worst = found.to_dict("records")
    assert left_out["verdict"] == "supported"
    assert worst["setting"] == WORST
    assert worst["estimate"] < left_out["estimate"] - 2.0
    assert worst["verdict"] == "inconclusive"  # two of five seeds say the opposite
    high = claim(threshold=8.5)
    assert with_failed_as_worst(broken, [high], levels_of(table))["changed"].tolist() == [
        False,
        True,
    ]
    dead = broken.assign(status=np.where(broken["data"] == "lq-mix/episode", "FAILED", "COMPLETED"))
    kept = worst_for_failed(dead.assign(score=dead["score"].fillna(0.0)), ["score"])
    assert (kept.loc[kept["data"] == "lq-mix/episode", "status"] == "FAILED").all()


def test_what_was_run_may_hold_none_of_the_data_sets_of_the_hypotheses():
    table = tidy(effect, seeds=3)
    elsewhere = claim(where={"data": "elsewhere"}, primary=True)
    with pytest.raises(UserError, match="no trial is on a data set"):
        multiverse(table, [elsewhere], levels_of(table))
