"""Every branch of the written rule, on tables whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from analyse_samples import analyse, claim, tidy

from ablate.analyse.claims import PAIRED, TOST_PAIRED, WELCH
from ablate.analyse.randomisation import holm
from ablate.analyse.verdict import by_budget
from ablate.errors import UserError


def memory(gain: float):
    return lambda cell: 50.0 + gain * (cell["context"] == 20)


def one(table, hypothesis, **rest):
    return analyse(table, [hypothesis], registered=True, **rest).verdicts[0]


@pytest.mark.parametrize(
    ("gain", "noise", "rest", "verdict"),
    [
        (8.0, 2.0, {}, "supported"),
        (-8.0, 2.0, {}, "refuted"),
        (0.0, 1.0, {}, "equivalent"),
        (0.0, 20.0, {}, "inconclusive"),
        (8.0, 2.0, {"threshold": 5.0}, "supported"),
        (8.0, 2.0, {"threshold": 12.0}, "refuted"),
        (8.0, 2.0, {"threshold": 8.0}, "inconclusive"),
        (8.0, 2.0, {"test": "difference"}, "supported"),
        (-8.0, 2.0, {"test": "difference"}, "supported"),
        (0.0, 1.0, {"test": "difference"}, "equivalent"),
        (0.0, 20.0, {"test": "difference"}, "inconclusive"),
        (0.0, 1.0, {"test": "equivalence"}, "equivalent"),
        (8.0, 2.0, {"test": "equivalence"}, "refuted"),
        (-8.0, 2.0, {"test": "equivalence"}, "refuted"),
        (0.0, 20.0, {"test": "equivalence"}, "inconclusive"),
        (8.0, 2.0, {"test": "equivalence", "margin": 20.0}, "equivalent"),
        (0.0, 2.0, {"test": "equivalence", "contrast": "context[1]", "around": 50.0}, "equivalent"),
        (0.0, 2.0, {"test": "equivalence", "contrast": "context[1]", "around": 90.0}, "refuted"),
        (0.0, 2.0, {"contrast": "context[1]", "threshold": 40.0}, "supported"),
        (8.0, 2.0, {"where": {"mixer": "bag"}}, "not tested"),
    ],
)
def test_the_rule(gain, noise, rest, verdict):
    table = tidy(memory(gain), noise=noise)
    levels = {"mixer": ["mlp", "gru", "attention", "bag"], "context": [1, 20]}
    found = one(table, claim(**rest), levels=levels)
    assert found.verdict == verdict, found.sentence
    assert found.sentence.startswith(verdict.capitalize())
    if verdict != "not tested":
        assert found.low < found.estimate < found.high
        assert found.n_trials == (30 if rest.get("contrast") == "context[1]" else 60)


def test_an_effect_may_be_both_there_and_too_small_to_matter():
    found = one(tidy(memory(1.0), noise=0.5), claim())
    assert found.verdict == "supported"
    assert "smaller than the margin of 3.0 points" in found.sentence


def test_which_test_decides():
    table = tidy(memory(8.0), condition=("none", "time"), seeds=6)
    product = "(context[20] - context[1]) : (condition[none] - condition[time])"
    hypotheses = [
        claim("factor"),
        claim("interaction", product),
        claim("threshold", threshold=2.0),
        claim("margin", test="equivalence"),
    ]
    verdicts = analyse(table, hypotheses).verdicts
    assert [v.test_name for v in verdicts] == [PAIRED, PAIRED, PAIRED, TOST_PAIRED]
    beside = [v.fixed.randomisation for v in verdicts]
    assert beside == ["sign flips (all 64 arrangements)"] * 2 + [""] * 2
    alone = analyse(table, hypotheses, paired=False).verdicts
    assert alone[0].test_name == WELCH
    assert alone[0].fixed.randomisation.startswith("stratified permutation of labels (10000 draws")
    assert alone[1].fixed.randomisation == ""  # an interaction has no labels to shuffle


def test_what_the_interval_leaves_open_no_test_supports():
    """Two seeds: a randomisation test is at its least, and the interval holds everything."""
    table = tidy(memory(0.0), data=("lq-mix/episode",), mixer=("gru",), seeds=2, noise=0.0)
    table["score"] += 50.0 * (table["context"] == 20) * (1.0 + 5.0 * table["seed"])
    found = one(table, claim())
    assert found.low < 0.0 < found.estimate
    assert found.verdict == "inconclusive"
    # A one-sided p between 2.5 and 5 %: significant alone, but not clear of zero.
    table = tidy(memory(0.0), data=("lq-mix/episode",), mixer=("gru",), seeds=3, noise=0.0)
    table["score"] += table["seed"].map({0: 1.0, 1: 2.0, 2: 3.2}) * (table["context"] == 20)
    found = one(table, claim())
    assert 0.025 < found.p < 0.05
    assert (found.low < 0.0, found.verdict) == (True, "inconclusive")
    assert "isn't clear of it" in found.sentence


def test_an_equivalence_is_told_by_the_interval_of_tost():
    table = tidy(memory(0.0), data=("lq-mix/episode",), mixer=("gru",), seeds=3, noise=0.0)
    table["score"] += table["seed"].map({0: -1.2, 1: 0.0, 2: 1.2}) * (table["context"] == 20)
    found = one(table, claim(test="equivalence", margin=2.5))
    assert found.verdict == "equivalent"
    assert found.high > 2.5
    assert "ithin the margin lies the 90 % interval" in found.sentence


def test_pairing_takes_away_what_cells_share_and_is_said():
    table = tidy(memory(2.0), noise=0.3)
    table["score"] += table["seed"].map(dict(enumerate((0.0, 30.0, -20.0, 10.0, 5.0))))
    paired, alone = one(table, claim()), one(table, claim(), paired=False)
    assert (paired.verdict, alone.verdict) == ("supported", "inconclusive")
    assert paired.estimate == pytest.approx(alone.estimate)
    assert paired.high - paired.low < 0.2 * (alone.high - alone.low)
    assert "Paired within 5 seeds." in paired.sentence
    shifted = table.assign(seed=table["seed"] + 10 * (table["context"] == 20))
    apart = one(shifted, claim())
    assert apart.pairing == "unpaired: the cells share too few seeds"
    assert (apart.low, apart.high) == pytest.approx((alone.low, alone.high))


def test_the_population_is_never_narrower_than_these_data_sets():
    data = [f"d{i}" for i in range(6)]
    for draw in range(20):
        found = one(tidy(memory(5.0), data=data, draw=draw, noise=3.0), claim())
        new = found.population
        assert new.low <= found.low + 1e-12
        assert new.high >= found.high - 1e-12


def test_cells_that_arent_converged():
    table = tidy(memory(8.0))
    assert one(table.assign(converged=np.nan), claim()).verdict == "supported"
    weak = (table["mixer"] == "gru") & (table["context"] == 20)
    some = table.assign(converged=np.where(weak & (table["seed"] < 2), 0.0, 1.0))
    found = one(some, claim())
    assert found.verdict == "supported"
    assert "4 of 60 trials aren't converged" in found.sentence
    most = table.assign(converged=np.where(weak & (table["seed"] < 3), False, True))
    found = one(most, claim())
    assert found.verdict == "not converged"
    assert found.estimate is not None
    assert "mixer gru, context 20" in found.sentence
    assert one(most, claim(where={"mixer": "mlp"})).verdict == "supported"


def test_budgets_are_judged_one_by_one_and_the_last_counts():
    early = tidy(memory(-8.0)).assign(budget=600)
    late = tidy(memory(8.0), draw=1).assign(budget=6000)
    table = pd.concat([early, late], ignore_index=True)
    found = one(table, claim())
    assert (found.verdict, found.n_trials) == ("supported", 60)
    levels = {"mixer": ["mlp", "gru", "attention"], "context": [1, 20]}
    rows = by_budget(table, [claim()], levels, alpha=0.05, margin=None, registered={"memory": True})
    assert rows["budget"].tolist() == [600, 6000]
    assert rows["verdict"].tolist() == ["refuted", "supported"]
    assert rows["last"].tolist() == [False, True]
    assert rows["estimate"].iloc[1] == found.estimate
    assert by_budget(
        late.drop(columns="budget"), [], levels, alpha=0.05, margin=None, registered={}
    ).empty


def test_an_each_hypothesis_needs_every_level():
    def but_the_bag(cell):
        return 50.0 + 8.0 * (cell["context"] == 20) * (cell["mixer"] != "bag")

    table = tidy(but_the_bag, mixer=("mlp", "gru", "bag"))
    each = claim(each="mixer")
    found = one(table, each)
    assert found.verdict == "refuted"
    assert found.decided_by == "mixer bag"
    assert "It fails for mixer bag" in found.sentence
    assert len(found.details) == 3
    assert found.p == max(detail.p_for for detail in found.details)
    kept = one(table[table["mixer"] != "bag"], each)
    assert kept.verdict == "supported"
    wider = {"mixer": ["mlp", "gru", "bag", "lstm"], "context": [1, 20]}
    partly = one(table[table["mixer"] != "bag"], each, levels=wider)
    assert partly.untested == ("mixer bag", "mixer lstm")
    assert "Tested in part" in partly.sentence


def test_each_pair_of_mixers():
    found = one(
        tidy(memory(0.0), noise=1.0), claim(contrast="each pair of mixer", test="equivalence")
    )
    assert found.verdict == "equivalent"
    assert len(found.details) == 3
    odd = tidy(lambda cell: 9.0 * (cell["mixer"] == "gru"), noise=1.0)
    found = one(odd, claim(contrast="each pair of mixer", test="equivalence"))
    assert found.verdict == "refuted"
    assert "gru" in found.sentence.split("for new seeds")[0]


def test_holm_runs_within_families_and_apart_for_exploratory_ones():
    table = tidy(memory(2.0), noise=4.0)
    hypotheses = [
        claim("a", primary=True),
        claim("b", where={"mixer": "gru"}, primary=True),
        claim("c", where={"mixer": "mlp"}),
        claim("d", where={"data": "lq-mix/episode"}, primary=True),
        claim("e", where={"mixer": "bag"}, primary=True),
    ]
    levels = {"mixer": ["mlp", "gru", "attention", "bag"], "context": [1, 20]}
    result = analyse(table, hypotheses, levels, registered={"a": True, "b": True, "e": True})
    a, b, c, d, e = result.verdicts
    assert [a.p_holm, b.p_holm] == pytest.approx(holm([a.p, b.p]))
    assert (c.p_holm, d.p_holm) == (c.p, d.p)
    assert [v.status for v in (a, c, d)] == ["confirmatory", "exploratory", "exploratory"]
    assert (e.verdict, e.p_holm, a.family_size) == ("not tested", None, 2)
    assert "exploratory was written after the runs" in result.answer


def test_the_population_estimand():
    few = one(tidy(memory(8.0)), claim())
    assert few.population.n_datasets == 2
    assert few.population.p_sign_flip is None
    lone = one(tidy(memory(8.0), data=("lq-mix/step",)), claim())
    assert lone.population.estimate is None
    assert "at least two" in lone.population.reason
    between = one(
        tidy(memory(8.0)),
        claim(contrast="data[lq-mix/episode] - data[tmaze/passive-20]", test="difference"),
    )
    assert "compares data sets" in between.population.reason
    assert "Between these data sets, for new seeds" in between.sentence
    many = one(tidy(memory(8.0), data=[f"d{i}" for i in range(6)]), claim())
    assert many.population.estimate == pytest.approx(many.estimate)
    assert many.population.p_sign_flip == pytest.approx(2 / 2**6)
    assert "For new data sets" in many.sentence


def test_runs_without_any_spread_are_said_to_have_none():
    found = one(tidy(memory(8.0), noise=0.0), claim())
    assert found.degenerate
    assert (found.low, found.high) == (found.estimate, found.estimate)
    assert "No cell varies over seeds" in found.sentence
    assert found.verdict == "supported"


def test_failures_are_told():
    table = tidy(memory(8.0))
    table.loc[[1, 2], "status"] = "FAILED"
    table = table.drop(index=20)
    found = one(table, claim())
    assert (found.n_trials, found.n_failed, found.n_missing) == (54, 2, 1)
    assert "54 trials; 2 failed, left out of the means; 1 missing." in found.sentence
    assert "3 trials were left out: some cell to be compared with lacks the seed" in found.sentence


def test_another_metric_has_its_own_margin():
    table = tidy(memory(8.0)).assign(action_error=0.01)
    table["action_error"] += np.random.default_rng(0).normal(0, 1e-3, len(table))
    found = one(table, claim(metric="action_error", test="equivalence", margin=0.005))
    assert found.verdict == "equivalent"
    assert "points" not in found.sentence
    with pytest.raises(UserError, match=r"'memory'.*'action_error' needs a margin"):
        one(table, claim(metric="action_error", test="equivalence", margin=None))
    assert one(table, claim(metric="action_error", margin=None)).verdict == "inconclusive"
