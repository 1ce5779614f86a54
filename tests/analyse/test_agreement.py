"""What the verdicts rest on, against scipy's and statsmodels' own, to 1e-8."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from analyse_samples import analyse, claim
from scipy import stats
from statsmodels.stats.anova import AnovaRM
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_ind, ttost_paired

from ablate.analyse.intervals import combine, equivalence_p, interval, p_value
from ablate.analyse.randomisation import (
    Block,
    generator,
    holm,
    over_data_sets,
    permutation,
    sign_flip,
)
from ablate.analyse.simulate import CONTRASTS, Factorial, table

CLOSE = 1e-8
RNG = np.random.default_rng(21)
X, Y = RNG.normal(2.0, 3.0, 6), RNG.normal(0.0, 1.0, 9)
SCORES = Factorial(memory=3.0, interaction=2.0).draw(np.random.default_rng(22), 1)[0][0]


def close(value: float):
    return pytest.approx(value, abs=CLOSE, rel=CLOSE)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_students_and_welchs_t(alternative):
    one = stats.ttest_1samp(X, 1.0, alternative=alternative)
    assert p_value(combine([1.0], [X]), 1.0, alternative) == close(one.pvalue)
    two = stats.ttest_ind(X, Y, equal_var=False, alternative=alternative)
    estimate = combine([1.0, -1.0], [X, Y])
    assert p_value(estimate, 0.0, alternative) == close(two.pvalue)
    assert estimate.df == close(two.df)
    bounds = two.confidence_interval(0.95)
    side = {"two-sided": "two", "greater": "lower", "less": "upper"}[alternative]
    assert interval(estimate, 0.95, side) == close((bounds.low, bounds.high))


def test_tost_of_two_samples_and_of_pairs():
    known = ttost_ind(X, Y, -4.0, 4.0, usevar="unequal")[0]
    assert equivalence_p(combine([1.0, -1.0], [X, Y]), 4.0) == close(known)
    known = ttost_paired(X, Y[:6], -4.0, 4.0)[0]
    estimate, _ = over_data_sets(X - Y[:6])
    assert equivalence_p(estimate, 4.0) == close(known)


def test_holm():
    p = RNG.random(12) ** 2
    assert holm(p) == close(multipletests(p, method="holm")[1])


def test_permutation_and_sign_flips_on_small_cases():
    def welch(x, y, axis=-1):
        v = x.var(axis=axis, ddof=1) / x.shape[axis] + y.var(axis=axis, ddof=1) / y.shape[axis]
        return (x.mean(axis=axis) - y.mean(axis=axis)) / np.sqrt(v)

    block = Block(np.array([1.0, -1.0]), (X[:4], Y[:5]))
    for alternative in ("greater", "less"):  # two-sided scipy doubles these, we count |t|
        known = stats.permutation_test(
            (X[:4], Y[:5]), welch, vectorized=True, n_resamples=np.inf, alternative=alternative
        )
        assert permutation([block], generator("h")).p(alternative) == close(known.pvalue)
    known = stats.permutation_test(
        (X,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert sign_flip(X / 6, generator("h")).two_sided == close(known.pvalue)


@pytest.mark.parametrize("effect", ["memory", "architecture", "interaction"])
def test_a_verdict_on_new_data_sets_is_repeated_measures_anova(effect):
    """F = t^2 for factors of two levels, on means over seeds; an interaction included."""
    runs = table(SCORES)
    hypothesis = claim(effect, CONTRASTS[effect], test="difference", estimand="population")
    verdict = analyse(runs, [hypothesis]).verdicts[0]
    anova = AnovaRM(runs, "score", "data", within=["context", "mixer"], aggregate_func="mean").fit()
    name = {"memory": "context", "architecture": "mixer", "interaction": "context:mixer"}[effect]
    row = anova.anova_table.loc[name]
    assert verdict.df == row["Den DF"] == 5
    assert verdict.p == close(row["Pr > F"])
    t = stats.t.isf(verdict.p / 2.0, verdict.df)
    assert t**2 == pytest.approx(row["F Value"], rel=1e-7)


def test_a_fixed_verdict_is_the_paired_t_test_of_the_seeds():
    """On one data set, and on all with the seeds as units."""
    runs = table(SCORES)
    for some in (runs[runs["data"] == "d1"], runs):
        for estimand, hypothesis in (("two-sided", "difference"), ("greater", "superiority")):
            verdict = analyse(some, [claim(test=hypothesis)]).verdicts[0]
            arms = [
                some[some["context"] == k].groupby("seed")["score"].mean().to_numpy()
                for k in (20, 1)
            ]
            known = stats.ttest_rel(*arms, alternative=estimand)
            assert verdict.p == close(known.pvalue)
            assert verdict.df == 4
            bounds = stats.ttest_rel(*arms).confidence_interval()
            assert (verdict.low, verdict.high) == close((bounds.low, bounds.high))
            assert verdict.pairing == "paired within 5 seeds"
        tost = analyse(some, [claim(test="equivalence", margin=4.0)]).verdicts[0]
        assert tost.p == close(ttost_paired(*arms, -4.0, 4.0)[0])


def test_an_unpaired_verdict_on_one_data_set_is_welchs_test():
    runs = table(SCORES)
    one = runs[(runs["data"] == "d1") & (runs["mixer"] == "gru")]
    verdict = analyse(one, [claim(threshold=1.0)], paired=False).verdicts[0]
    assert verdict.pairing.startswith("unpaired: ")
    arms = [one.loc[one["context"] == k, "score"].to_numpy() for k in (20, 1)]
    known = stats.ttest_ind(arms[0] - 1.0, arms[1], equal_var=False, alternative="greater")
    assert verdict.p == close(known.pvalue)
    bounds = stats.ttest_ind(*arms, equal_var=False).confidence_interval()
    assert (verdict.low, verdict.high) == close((bounds.low, bounds.high))
    assert verdict.fixed.p_randomised is None  # the null isn't 0, so labels can't be shuffled


def test_a_verdicts_other_estimand_is_the_same_as_if_it_had_been_declared():
    runs = table(SCORES)
    pair = [
        claim(estimand, CONTRASTS["memory"], test="difference", estimand=estimand, family=estimand)
        for estimand in ("fixed", "population")
    ]
    fixed, new = analyse(runs, pair).verdicts
    assert fixed.population.p == close(new.p)
    assert (fixed.population.low, fixed.population.high) == close((new.low, new.high))
    assert (
        (fixed.low, fixed.high) == (new.fixed.low, new.fixed.high) == (fixed.fixed.low, fixed.high)
    )
    assert fixed.population.mixed_p == new.population.mixed_p
    assert pd.notna(new.population.mixed_p)
