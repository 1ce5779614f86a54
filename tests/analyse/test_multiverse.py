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
from ablate.analyse.multiverse import _halves, differ, multiverse, summarised
from ablate.analyse.scorings import AS_DECLARED, BEST, CLONE, DECLARED, FEWER, LAST, SCORING
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
    assert found.unserved["target of score"] == "no other return was asked for"
    assert "the curves hold no score" in found.unserved["checkpoint of score"]
    assert "none of fewer of them" in found.unserved["number of episodes of score"]


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
    table["score_iqm"] = table["score"] + 1.0
    table["score_episodes_100"] = table["score"].where(table["seed"] > 0)  # not of all runs
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
    assert found.axes["checkpoint"] == (DECLARED, BEST, LAST, FEWER)
    assert found.axes["target"] == (DECLARED, "target p50", "target p99", "best target")
    middle = "interquartile mean of the episodes"
    assert set(found.axes["episodes"]) == {DECLARED, "10 episodes", middle, "median score"}
    assert found.unserved["seeds"] == "there are not more than three of them"
    assert found.unserved["anchors of score"] == "the exact clone of its behaviour isn't known"
    crossed = found.rows[list(SCORING[:3])].drop_duplicates()
    assert not ((crossed[["checkpoint", "target", "episodes"]] != DECLARED).sum(axis=1) > 1).any()
    plain = found.rows[(found.rows["summary"] == "mean")].set_index(list(SCORING))["estimate"]
    declared = plain[AS_DECLARED]
    for axis in range(len(SCORING)):
        for option in found.axes[SCORING[axis]]:
            at = tuple(option if i == axis else DECLARED for i in range(len(SCORING)))
            value = 0.0 if option == "target p50" else declared
            assert plain[at] == pytest.approx(value, abs=1.0 if value == 0.0 else 1e-9)
    # An error is better when it is lower: the best checkpoint is its minimum.
    errors = table[["trial", *tidy(effect, seeds=1).columns[1:-2], "score"]]
    errors = errors.rename(columns={"score": "sample.error"})
    less = claim(metric="sample.error")
    found = multiverse(
        errors, [less], levels_of(errors), curves.rename(columns={"score": "sample.error"})
    )
    rows = found.rows[found.rows["summary"] == "mean"].set_index("checkpoint")
    assert rows.loc[BEST, "estimate"] == pytest.approx(rows.loc[DECLARED, "estimate"])


def judged(table, hypotheses, **rest):
    """The verdicts of a table by themselves."""
    named = {h.id: True for h in hypotheses}
    options = {"alpha": 0.05, "margin": 3.0, "registered": named, **rest}
    return {v.hypothesis: v for v in judge(table, hypotheses, levels_of(table), **options)}


def test_an_effect_of_two_checkpoints_out_of_three_stands_in_two_thirds():
    late = tidy(effect, seeds=3, noise=0.5).assign(budget=900)
    middle = late.assign(budget=500, score=late["score"] + 1.0)
    early = tidy(lambda cell: 40.0, seeds=3, noise=0.5, draw=1).assign(budget=100)
    table = pd.concat([early, middle, late], ignore_index=True)
    table["trial"] = [f"t{i}" for i in range(len(table))]
    sure = claim(threshold=0.5, primary=True)
    found = multiverse(table, [sure], levels_of(table))
    assert found.axes["checkpoint"] == (DECLARED, "after 100 updates", "after 500 updates", BEST)
    rows = found.rows[found.rows["checkpoint"] != BEST]
    assert rows["stands"].mean() == pytest.approx(2 / 3)
    assert set(rows.loc[~rows["stands"], "checkpoint"]) == {"after 100 updates"}
    for budget, option in ((100, "after 100 updates"), (500, "after 500 updates"), (900, DECLARED)):
        own = judged(table[table["budget"] == budget], [sure])["memory"]
        row = rows[(rows["checkpoint"] == option) & (rows["summary"] == "mean")].iloc[0]
        assert row["verdict"] == own.verdict
        assert row["estimate"] == pytest.approx(own.estimate)


def test_a_capped_regret_takes_a_scores_place_in_differences_alone():
    table = tidy(effect, seeds=3, noise=1.0).rename(columns={"score": "rollout.score"})
    table["rollout.regret"] = 100.0 - np.maximum(table["rollout.score"], 45.0)
    memory = claim(metric="rollout.score")
    share = claim(
        "share",
        "",
        metric="rollout.score",
        estimator={"ratio": {"of": "context[20] - context[1]", "over": "context[20]"}},
    )
    found = multiverse(table, [memory, share], levels_of(table))
    rows = found.rows[found.rows["summary"] == "mean"].set_index(["hypothesis", "episodes"])
    regret = judged(table, [claim("r", "context[1] - context[20]", metric="rollout.regret")])["r"]
    assert rows.loc[("memory", "capped regret"), "estimate"] == pytest.approx(regret.estimate)
    assert ("share", "capped regret") not in rows.index
    assert "differences alone" in found.unserved["regret and score of share"]


def test_other_lists_and_targets_are_those_that_were_run_unless_the_claim_is_about_them():
    own = tidy(effect, seeds=3, noise=1.0).rename(columns={"score": "rollout.score"})
    own["measure.rollout.target"], own["measure.rollout.episodes_of"] = 6, "seed"
    other = own.assign(**{"measure.rollout.target": 9, "rollout.score": own["rollout.score"] * 2})
    lists = own.assign(
        **{"measure.rollout.episodes_of": "study", "rollout.score": own["rollout.score"] * 3}
    )
    table = pd.concat([own, other, lists], ignore_index=True)
    table["trial"] = [f"t{i}" for i in range(len(table))]
    where = {"measure.rollout.target": 6, "measure.rollout.episodes_of": "seed"}
    pinned = claim(metric="rollout.score", where=where)
    about = claim(
        "about",
        "measure.rollout.target[9] - measure.rollout.target[6]",
        metric="rollout.score",
        where={"measure.rollout.episodes_of": "seed"},
    )
    found = multiverse(table, [pinned, about], levels_of(table), clones={"lq-mix/episode": 50.0})
    rows = found.rows[(found.rows["summary"] == "mean") & (found.rows["hypothesis"] == "memory")]
    plain = rows.set_index(list(SCORING))["estimate"]
    declared = plain[AS_DECLARED]
    assert plain[(DECLARED, "asked for 9", *[DECLARED] * 3)] == pytest.approx(2 * declared)
    assert plain[(DECLARED, *[DECLARED] * 2, "of the study", DECLARED)] == pytest.approx(
        3 * declared
    )
    why = "the hypothesis is about the return that is asked for"
    assert found.unserved["target of about"] == why
    assert found.unserved["anchors of rollout.score"] == (
        "the exact clone of its behaviour isn't known"  # of the other data set
    )
    clones = dict.fromkeys(table["data"].unique(), 50.0)
    scaled = multiverse(table, [pinned], levels_of(table), clones=clones).rows
    rows = scaled[(scaled["anchors"] == CLONE) & (scaled["summary"] == "mean")]
    plain = rows.set_index(list(SCORING))["estimate"]
    assert plain[(*AS_DECLARED[:-1], CLONE)] == pytest.approx(2 * declared)


def test_two_halves_of_an_arm_of_noise_differ_about_as_often_as_the_level_says():
    noise = np.random.default_rng(0).normal(size=(2_000, 10))
    assert differ(noise, _halves(10), "mean", 0.05).mean() == pytest.approx(0.05, abs=0.015)
    assert differ(noise[:, :5], _halves(5), "mean", 0.05).mean() == pytest.approx(0.035, abs=0.01)
    own = [stats.ttest_ind(noise[0][h], noise[0][~h], equal_var=False) for h in _halves(10)]
    claimed = differ(noise[:1], _halves(10), "mean", 0.05)[0]
    assert claimed.tolist() == [bool(one.pvalue < 0.05) for one in own]
    assert len(_halves(4)) == 3
    assert len(_halves(5)) == 10
    table = tidy(effect, seeds=8)
    control = multiverse(table, [MEMORY], levels_of(table)).control
    assert control.share is not None
    assert control.share < 0.15
    assert (control.arms, control.splits) == (12, 20)
    few = multiverse(table[table["seed"] < 3], [MEMORY], levels_of(table)).control
    assert (few.share, few.reason) == (None, "no arm has four seeds, which two halves need")


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
