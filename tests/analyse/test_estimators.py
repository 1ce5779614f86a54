"""Estimators beyond the linear contrast, against closed forms, statsmodels and planted truth."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from analyse_samples import analyse, claim, tidy
from scipy import stats
from statsmodels.formula.api import ols

from ablate import registry
from ablate.analyse import estimators, power
from ablate.analyse.curves import logit_fit
from ablate.analyse.estimators import Asked, Estimator, make, over_seeds
from ablate.analyse.expressions import evaluate
from ablate.bench.inference import made_up_curves
from ablate.errors import UserError
from ablate.registry import Section, register
from ablate.study.contrast import level_text
from ablate.words import Response

SCORE = Asked("score")
RATIO = {"of": "context[5] - context[1]", "over": "context[20] - context[1]"}
LOGISTIC = {"of": "success", "in": "log(context / 5)", "by": "mixer"}


def curves(seeds: int = 8, draw: int = 0) -> pd.DataFrame:
    return made_up_curves(np.random.default_rng(draw), seeds)


def judged(table: pd.DataFrame, **rest):
    return analyse(table, [claim(contrast="", **rest)], registered=True).verdicts[0]


def test_a_contrast_by_its_long_name_is_the_same():
    table = tidy(lambda cell: 8.0 * (cell["context"] == 20))
    short = analyse(table, [claim()]).verdicts[0]
    long = judged(table, estimator={"contrast": {"of": "context[20] - context[1]"}})
    for name in ("estimate", "low", "high", "p", "p_holm", "verdict", "pairing", "n_trials"):
        assert getattr(long, name) == pytest.approx(getattr(short, name)), name


def test_a_ratio_has_fiellers_interval():
    table = curves()
    found = make("ratio", RATIO)(table, SCORE)
    by_seed = table.groupby(["seed", "context"])["score"].mean().unstack()
    a, b = (by_seed[5] - by_seed[1]).to_numpy(), (by_seed[20] - by_seed[1]).to_numpy()
    n = len(a)
    cov = np.cov(a, b) / n
    t2 = stats.t.isf(0.025, n - 1) ** 2
    mean_a, mean_b = a.mean(), b.mean()
    roots = np.sort(
        np.roots(
            [
                mean_b**2 - t2 * cov[1, 1],
                -2.0 * (mean_a * mean_b - t2 * cov[0, 1]),
                mean_a**2 - t2 * cov[0, 0],
            ]
        )
    )
    assert found.interval(0.95) == pytest.approx(tuple(roots))
    assert found.value == pytest.approx(mean_a / mean_b)
    known = stats.ttest_1samp(a - 0.4 * b, 0.0)
    assert found.p_value(0.4, "two-sided") == pytest.approx(known.pvalue)
    assert found.p_value(roots[0], "two-sided") == pytest.approx(0.05)
    assert found.n == n


def test_fieller_and_bootstrap_agree():
    found = make("ratio", RATIO)(curves(seeds=60), SCORE)
    low, high = found.interval(0.95)
    other = found.bootstrap(0.95, np.random.default_rng(0))
    assert other == pytest.approx((low, high), abs=0.12 * (high - low))
    assert any(note.startswith("bootstrap over seeds") for note in found.notes)


def test_a_ratio_to_what_may_be_nothing_is_unbounded():
    found = make("ratio", {"of": "context[20] - context[1]", "over": "mixer[gru] - mixer[mlp]"})
    table = curves()
    assert found(table, SCORE).interval(0.95) == (-math.inf, math.inf)
    verdict = judged(table, estimator={"ratio": found.options.model_dump()}, test="difference")
    assert verdict.verdict in ("inconclusive", "equivalent")
    assert "nothing bounds the ratio" in verdict.sentence


def test_unpaired_contrasts_on_the_same_runs_still_share_them():
    found = make("ratio", {"of": "context[20]", "over": "context[20]"})
    for paired in (True, False):
        same = found(curves(), Asked("score", paired))
        assert same.value == 1.0
        assert same.remainder(1.0).variance == pytest.approx(0.0, abs=1e-20)


@pytest.mark.parametrize("log", [False, True])
def test_a_difference_of_slopes_is_least_squares_interaction(log):
    table = curves()
    options = {"over": "context", "between": "mixer[gru] - mixer[mlp]", "log": log}
    found = make("slope-difference", options)(table, SCORE)
    x = np.log(table["context"]) if log else table["context"]
    fit = ols("score ~ x * C(mixer, Treatment('mlp'))", table.assign(x=x)).fit()
    assert found.value == pytest.approx(fit.params.iloc[-1])
    slopes = [
        np.polyfit(np.log(one["context"]) if log else one["context"], one["score"], 1)[0]
        for _, one in table.groupby(["seed", "mixer"])
    ]  # by seed, gru before mlp
    known = stats.ttest_rel(slopes[::2], slopes[1::2])
    assert found.p_value(0.0, "two-sided") == pytest.approx(known.pvalue)


def test_the_logistic_fit_is_statsmodels():
    table = curves()
    x = np.stack([np.ones(len(table)), np.log(table["context"] / 5.0)], axis=1)
    y = table["success"].to_numpy()
    b, deviance, covariance = logit_fit(x, y)
    known = sm.GLM(y, x, family=sm.families.Binomial()).fit()
    assert b == pytest.approx(known.params)
    assert deviance == pytest.approx(known.deviance)
    assert covariance == pytest.approx(known.cov_params(), rel=1e-4)


def test_an_offset_along_x_is_found_and_none_is_equivalent():
    table = curves(seeds=6)
    same = judged(table, estimator={"logistic": LOGISTIC}, test="equivalence", margin=0.5)
    assert same.verdict == "equivalent"
    assert same.estimator == "logistic"
    assert "ikelihood-ratio test of no offset" in same.sentence
    moved = table.copy()
    late = moved["mixer"] == "mlp"
    logit = np.log(moved["context"] / 5.0) - 1.0 * late
    moved["success"] = 1.0 / (1.0 + np.exp(-logit + 0.05 * (moved["seed"] - 2.5)))
    moved["success"] += np.random.default_rng(0).normal(0.0, 0.005, len(moved))
    apart = judged(moved, estimator={"logistic": LOGISTIC}, test="difference", margin=0.1)
    assert apart.verdict == "supported"
    # Pairs are in the order of the levels: how much later the first one gets there.
    assert abs(apart.estimate) == pytest.approx(1.0, abs=0.05)
    assert apart.low < apart.estimate < apart.high


def test_three_levels_are_three_claims_that_must_all_hold():
    table = pd.concat([curves(), curves(draw=1).query("mixer == 'gru'").assign(mixer="lstm")])
    found = judged(
        table.reset_index(drop=True),
        estimator={"logistic": LOGISTIC},
        test="equivalence",
        margin=5.0,
    )
    assert [c.label for c in found.details] == ["gru - lstm", "gru - mlp", "lstm - mlp"]
    assert found.verdict == "equivalent"


def test_a_step_has_no_logistic_curve():
    table = curves().assign(success=lambda t: (t["context"] > 1).astype(float))
    found = judged(table, estimator={"logistic": LOGISTIC}, test="difference")
    assert found.verdict == "not tested"
    assert "doesn't settle" in found.sentence


def test_a_monotone_curve_against_a_constant_one():
    rising = make("isotonic", {"over": "context"})(curves(), SCORE)
    assert rising.value == pytest.approx(20.0, abs=6.0)
    assert rising.p_value(0.0, "greater") < 0.01
    assert rising.p_value(0.0, "less") > 0.5
    low, high = rising.interval(0.95)
    assert low < 20.0 < high
    flat = judged(curves(), estimator={"isotonic": {"over": "context", "of": "flat"}})
    assert flat.verdict != "supported"
    verdict = judged(curves(), estimator={"isotonic": {"over": "context"}})
    assert verdict.verdict == "supported"
    assert "the nearest rising curve" in verdict.sentence.lower()


def test_a_studys_own_estimator_takes_a_few_lines():
    @register("estimator", "median-gap")
    class MedianGap(Estimator):
        class Options(Section):
            factor: str
            more: str
            less: str

        def __call__(self, rows, asked):
            o = self.options

            def gap(one):
                at = one.groupby(one[o.factor].map(level_text))[asked.metric].median()
                return at[o.more] - at[o.less]

            return over_seeds(rows, gap)

    options = {"factor": "context", "more": "20", "less": "1"}
    found = judged(curves(), estimator={"median-gap": options})
    table = curves()
    by_seed = table.groupby(["seed", "context"])["score"].median().unstack()
    known = stats.ttest_rel(by_seed[20], by_seed[1], alternative="greater")
    assert found.p == pytest.approx(known.pvalue)
    assert found.pairing == "paired within 8 seeds"
    assert found.verdict == "supported"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ratoi": RATIO}, "'ratoi' is not known; allowed: .*Did you mean 'ratio'"),
        ({"ratio": {"of": "context[20]"}}, "the estimator 'ratio': 'over': field required"),
        ({"ratio": {**RATIO, "x": 1}}, "'x': extra inputs"),
    ],
)
def test_options_without_sense_are_refused(given, words):
    with pytest.raises(UserError, match=words):
        judged(curves(), estimator=given)


def test_a_hypothesis_has_one_thing_to_estimate():
    for rest in ({"contrast": ""}, {"estimator": {"ratio": RATIO}}):
        with pytest.raises(ValueError, match="either 'contrast' or 'estimator'"):
            claim(**rest)
    with pytest.raises(ValueError, match="about these data sets"):
        claim(contrast="", estimator={"ratio": RATIO}, estimand="population")
    assert "estimator" not in claim().model_dump()


def test_power_on_a_pilot_grows_with_seeds():
    weak = curves(seeds=12).assign(score=lambda t: t["flat"] + 0.15 * t["score"])
    hypothesis = claim(contrast="", estimator={"isotonic": {"over": "context"}})
    found = [
        power.on_pilot(
            hypothesis,
            {"context": [1, 5, 20]},
            weak,
            seeds=seeds,
            alpha=0.05,
            margin=None,
            repetitions=12,
        )
        for seeds in (4, 16)
    ]
    assert found[0] < found[1] <= 1.0


def test_arithmetic_on_columns():
    rows = pd.DataFrame({"context": ["1", "20"], "measure.plan.horizon": [2, 5], "data": "d"})
    assert evaluate("log(context / measure.plan.horizon) - 2 ** -1", rows) == pytest.approx(
        [math.log(0.5) - 0.5, math.log(4.0) - 0.5]
    )
    for text, words in (
        ("log(contxt)", "Did you mean 'context'"),
        ("lgo(context)", "Did you mean 'log'"),
        ("context.real()", "has no meaning here"),
        ("data", "holds no numbers"),
        ("context +", "isn't arithmetic"),
        ("log(context - 1)", "no finite number at context=1"),
    ):
        with pytest.raises(UserError, match=words):
            evaluate(text, rows)


def test_few_seeds_are_told():
    with pytest.raises(estimators.Untold, match="three are needed"):
        make("isotonic", {"over": "context"})(curves(seeds=2), SCORE)


def test_a_share_is_not_in_the_unit_of_what_it_is_a_share_of():
    points = Response("score", unit="points", direction="higher", digits=1, points=True)
    share = registry.get("estimator", "ratio").gives(points)
    assert (share.said, share.quantity(0.5)) == ("share of score", "0.50")
    assert registry.get("estimator", "contrast").gives(points) == points
