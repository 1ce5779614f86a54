"""Omega squared and variance components, against statsmodels and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.formula.api as smf
from analyse_samples import tidy
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from ablate.analyse.variance import MOMENTS, REML, SEED, anova, components
from ablate.errors import UserError

PLACE = {"mlp": 0, "gru": 1, "attention": 2}
SUMMED = "score ~ C(data, Sum) * C(mixer, Sum) * C(context, Sum)"


def table(draw=0, seeds=4, data=3, noise=2.0):
    rng = np.random.default_rng(100 + draw)
    shift = {f"d{i}": rng.normal(0, 5) for i in range(data)}
    return tidy(
        lambda cell: shift[cell["data"]] + 6.0 * (cell["context"] == 20) * (cell["mixer"] != "mlp"),
        data=list(shift),
        seeds=seeds,
        noise=noise,
        draw=draw,
    )


@pytest.mark.parametrize("lost", [[], [1, 5, 6, 30, 61]])
def test_omega_squared_is_statsmodels_with_sum_coding(lost):
    rows = table()
    rows = rows.drop(rows.index[lost])
    fit = ols(SUMMED, rows).fit()
    reference = anova_lm(fit, typ=3)
    if not lost:  # balanced: the types agree
        assert anova_lm(fit, typ=2)["sum_sq"].iloc[:-1].to_numpy() == pytest.approx(
            reference["sum_sq"].iloc[1:-1].to_numpy(), rel=1e-8
        )
    error = reference.loc["Residual", "sum_sq"] / reference.loc["Residual", "df"]
    total = float(np.square(rows["score"] - rows["score"].mean()).sum())
    found = anova(rows, "score")
    assert found.ss_total == pytest.approx(total, rel=1e-10)
    assert found.ss_error == pytest.approx(reference.loc["Residual", "sum_sq"], rel=1e-10)
    for effect in found.effects:
        line = reference.loc[":".join(f"C({name}, Sum)" for name in effect.term)]
        assert effect.ss == pytest.approx(line["sum_sq"], abs=1e-8)
        assert effect.df == line["df"]
        credit = line["sum_sq"] - line["df"] * error
        assert effect.omega2 == pytest.approx(credit / (total + error), abs=1e-8)
        below = line["sum_sq"] + (len(rows) - line["df"]) * error
        assert effect.partial == pytest.approx(credit / below, abs=1e-8)
    assert found.effect("context", "mixer").df == 2


def test_components_are_the_mean_squares_of_anova_lm():
    rows = table(draw=2)
    squares = anova_lm(ols(SUMMED, rows).fit(), typ=2)
    ms = squares["sum_sq"] / squares["df"]
    d, m, k = "C(data, Sum)", "C(mixer, Sum)", "C(context, Sum)"
    n = 4
    found = components(rows, "score")
    assert found.method == MOMENTS
    assert found.n_cells == found.n_possible == 18
    assert found.variance[SEED,] == pytest.approx(ms["Residual"], abs=1e-8)
    three = ms[f"{d}:{m}:{k}"]
    assert found.variance["data", "mixer", "context"] == pytest.approx(
        (three - ms["Residual"]) / n, abs=1e-8
    )
    assert found.variance["data", "mixer"] == pytest.approx(
        (ms[f"{d}:{m}"] - three) / (n * 2), abs=1e-8
    )
    main = ms[d] - ms[f"{d}:{m}"] - ms[f"{d}:{k}"] + three
    assert found.variance["data",] == pytest.approx(main / (n * 6), abs=1e-8)


def test_moments_are_unbiased_with_unequal_seeds():
    truth = {"data": 9.0, "mixer × data": 4.0, SEED: 1.0}
    rng = np.random.default_rng(8)
    sums, whole = dict.fromkeys(truth, 0.0), 0
    for draw in range(60):
        shift = rng.normal(0, 3, 8)
        slope = rng.normal(0, 2, (8, 3))
        rows = tidy(
            lambda c, a=shift, b=slope: a[int(c["data"])] + b[int(c["data"]), PLACE[c["mixer"]]],
            data=[str(i) for i in range(8)],
            context=(20,),
            seeds=4,
            noise=1.0,
            draw=draw,
        )
        rows = rows.drop(rows.index[rng.choice(len(rows), 25, replace=False)])
        found = components(rows, "score")
        if found.method == MOMENTS:  # else a cell has lost all its seeds
            sums = {name: sums[name] + found.grouped()[name] for name in truth}
            whole += 1
    assert whole > 40
    for name, tolerance in (("data", 0.25), ("mixer × data", 0.2), (SEED, 0.1)):
        assert sums[name] / whole == pytest.approx(truth[name], rel=tolerance)


def test_restricted_likelihood_is_statsmodels_on_an_incomplete_design():
    rng = np.random.default_rng(4)
    shift, slope = rng.normal(0, 5, 7), rng.normal(0, 4, (7, 3))
    rows = tidy(
        lambda c: shift[int(c["data"])] + slope[int(c["data"]), PLACE[c["mixer"]]],
        data=[str(i) for i in range(7)],
        context=(20,),
        seeds=3,
        noise=1.5,
    )
    rows = rows[~((rows["data"] == "2") & (rows["mixer"] == "gru"))]
    rows = rows.drop(rows.index[[0, 11]])
    found = components(rows, "score")
    assert found.method == REML
    assert (found.n_cells, found.n_possible) == (20, 21)
    parts = {"a": "0 + C(data)", "b": "0 + C(mixer)", "c": "0 + C(data):C(mixer)"}
    reference = smf.mixedlm(
        "score ~ 1", rows.assign(all=1), groups="all", re_formula="0", vc_formula=parts
    ).fit(reml=True, method=["powell", "lbfgs"])
    ours = [found.variance[term] for term in (("data",), ("mixer",), ("data", "mixer"))]
    assert ours == pytest.approx(list(reference.vcomp), rel=2e-2, abs=0.05)
    assert found.variance[SEED,] == pytest.approx(reference.scale, rel=1e-3)


def test_restricted_likelihood_is_anova_on_a_whole_balanced_design():
    from ablate.analyse import variance

    rows = table(draw=7, data=4)
    rows = rows[rows["context"] == 20]
    cells = variance._cells(rows, "score", {})
    moments, likelihood = variance._moments(cells), variance._reml(cells)
    assert min(moments.values()) > 0.0
    for term, value in moments.items():
        assert likelihood[term] == pytest.approx(value, rel=1e-4)


def test_designs_without_an_answer_are_refused():
    rows = table()
    hole = rows[~((rows["data"] == "d1") & (rows["mixer"] == "gru") & (rows["context"] == 1))]
    with pytest.raises(UserError, match="the cell data=d1, mixer=gru, context=1 wasn't run"):
        anova(hole, "score")
    anova(hole, "score", where={"context": [20]})
    with pytest.raises(UserError, match="every cell has a single seed"):
        components(rows[rows["seed"] == 0], "score")
    with pytest.raises(UserError, match="nothing but the seed varies"):
        components(rows, "score", where={"data": ["d0"], "mixer": ["gru"], "context": [1]})
    with pytest.raises(UserError, match="no finished trial"):
        components(rows.assign(status="FAILED"), "score")
    grouped = components(rows, "score").grouped()
    assert list(grouped)[-1] == SEED
    assert "context × data" in grouped
