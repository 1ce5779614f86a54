"""Shapley shares: closed forms, planted effects, Fieller's theorem, refusals."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import pytest
from analyse_samples import claim, tidy
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ablate.analyse import attribution
from ablate.analyse.attribution import Change, declared, shapley_weights
from ablate.analyse.intervals import interval
from ablate.errors import UserError

attribute = partial(attribution.attribute, metric="score")
MEMORY = Change("memory", "context", (1,), (20,))
ARCHITECTURE = Change("architecture", "mixer", ("mlp",), ("gru",))
OBJECTIVE = Change("objective", "head", ("mse",), ("mixture",))


def planted(cell):
    """Memory 6, architecture 0, and 3 when both."""
    memory, architecture = cell["context"] == 20, cell["mixer"] == "gru"
    return 40.0 + 6.0 * memory + 3.0 * memory * architecture


def noisy(draw=0, noise=2.0, data=6, **rest):
    names = [f"lq-mix/d{i}" for i in range(data)]
    return tidy(planted, data=names, mixer=("mlp", "gru"), noise=noise, draw=draw, **rest)


@given(st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_weights_are_the_mean_over_all_orders_and_sum_to_the_total(k, seed):
    value = np.random.default_rng(seed).normal(size=2**k)
    by_order = np.zeros(k)
    for order in itertools.permutations(range(k)):
        subset = 0
        for i in order:
            by_order[i] += value[subset | 1 << i] - value[subset]
            subset |= 1 << i
    shares = shapley_weights(k) @ value
    assert shares == pytest.approx(by_order / math.factorial(k), abs=1e-12)
    assert shares.sum() == pytest.approx(value[-1] - value[0], abs=1e-12)


def test_an_interaction_is_split_in_half():
    found = attribute(noisy(noise=0.0, data=2), [MEMORY, ARCHITECTURE])
    assert [share.fixed.value for share in found.shares] == pytest.approx([7.5, 1.5])
    assert [share.first.value for share in found.shares] == pytest.approx([6.0, 0.0])
    assert [share.last.value for share in found.shares] == pytest.approx([9.0, 3.0])
    assert found.total.value == pytest.approx(9.0)
    # The classic table of ablations credits 12 of 9 points.
    assert sum(share.last.value for share in found.shares) == pytest.approx(12.0)
    assert found.means[()] == pytest.approx(40.0)
    assert found.means["memory", "architecture"] == pytest.approx(49.0)


def test_with_two_factors_the_share_is_the_main_effect_of_anova():
    table = noisy(draw=5)
    found = attribute(table, [MEMORY, ARCHITECTURE])
    means = table.groupby("context")["score"].mean()
    assert found.shares[0].fixed.value == pytest.approx(means[20] - means[1], abs=1e-10)


def test_planted_shares_lie_in_their_intervals_as_often_as_they_say():
    truth = {"memory": 7.5, "architecture": 1.5}
    inside = {(name, kind): 0 for name in truth for kind in ("fixed", "population", "percent")}
    runs = 60
    for draw in range(runs):
        found = attribute(noisy(draw=draw, seeds=4, data=4), [MEMORY, ARCHITECTURE])
        assert sum(s.fixed.value for s in found.shares) == pytest.approx(found.total.value)
        for share in found.shares:
            name = share.change.name
            low, high = interval(share.fixed)
            inside[name, "fixed"] += low <= truth[name] <= high
            low, high = interval(share.population)
            inside[name, "population"] += low <= truth[name] <= high
            part = 100.0 * truth[name] / 9.0
            inside[name, "percent"] += share.percent.low <= part <= share.percent.high
    # 95 % of 60, and no more than three standard errors below
    for counted in inside.values():
        assert counted / runs > 0.95 - 3.0 * math.sqrt(0.95 * 0.05 / runs)


def test_percentages_over_data_sets_follow_fiellers_closed_form():
    table = noisy(draw=3, data=7)
    slope = 3.0 * table["data"].str[-1].astype(float)  # more than seeds leave open
    table["score"] += slope * ((table["context"] == 20) + (table["mixer"] == "gru"))
    found = attribute(table, [MEMORY, ARCHITECTURE])
    mean = table.pivot_table(index="data", columns=["context", "mixer"], values="score")
    total = (mean[20, "gru"] - mean[1, "mlp"]).to_numpy()
    share = 0.5 * (mean[20, "mlp"] - mean[1, "mlp"] + mean[20, "gru"] - mean[1, "gru"]).to_numpy()
    n, t2 = 7, stats.t.isf(0.025, 6) ** 2
    va, vb = share.var(ddof=1) / n, total.var(ddof=1) / n
    cab = np.cov(share, total)[0, 1] / n
    a, b = share.mean(), total.mean()
    roots = np.sort(np.roots([b * b - t2 * vb, -2 * (a * b - t2 * cab), a * a - t2 * va]))
    percent = found.shares[0].percent_population
    assert [percent.low, percent.high] == pytest.approx(list(100 * roots), abs=1e-6)
    assert percent.value == pytest.approx(100 * a / b)


def test_a_total_that_may_be_nothing_gets_no_percentages():
    table = tidy(lambda cell: 40.0, data=("lq-mix/step",), mixer=("mlp", "gru"), noise=5.0)
    found = attribute(table, [MEMORY, ARCHITECTURE])
    assert "includes zero" in found.refusal
    assert all(share.percent is None for share in found.shares)
    assert "one data set" in found.refusal_population
    assert all(share.population is None for share in found.shares)


def test_three_factors_and_levels_that_are_averaged():
    def truth(cell):
        on = (cell["context"] == 20, cell["mixer"] != "mlp", cell["head"] == "mixture")
        return 2.0 * on[0] + 4.0 * on[2] + 6.0 * (on[0] and on[1] and on[2])

    table = tidy(truth, head=("mse", "mixture"), noise=0.0)
    several = Change("architecture", "mixer", ("mlp",), ("gru", "attention"))
    found = attribute(table, [MEMORY, several, OBJECTIVE])
    assert [share.fixed.value for share in found.shares] == pytest.approx([4.0, 2.0, 6.0])
    assert found.n_trials == len(table)
    assert found.data_sets == ("lq-mix/episode", "tmaze/passive-20")


def test_a_missing_cell_is_named():
    table = noisy(data=2)
    lost = (table["data"] == "lq-mix/d1") & (table["mixer"] == "gru") & (table["context"] == 20)
    with pytest.raises(UserError, match=r"data=lq-mix/d1.*context=20, mixer=gru has 0 finished"):
        attribute(table[~lost], [MEMORY, ARCHITECTURE])
    thin = table.assign(status=np.where(lost & (table["seed"] > 0), "FAILED", "COMPLETED"))
    with pytest.raises(UserError, match="has 1 finished trials"):
        attribute(thin, [MEMORY, ARCHITECTURE])
    whole = attribute(table, [MEMORY, ARCHITECTURE])
    parts = [share.by_data_set["lq-mix/d0"] for share in whole.shares]
    rest = attribute(table[~lost], [MEMORY, ARCHITECTURE], {"data": ("lq-mix/d0",)})
    assert rest.data_sets == ("lq-mix/d0",)
    assert [share.fixed for share in rest.shares] == parts


@pytest.mark.parametrize(
    ("changes", "where", "said"),
    [
        ([MEMORY], {}, "found 1 factors"),
        ([MEMORY, MEMORY], {}, "'memory' stands twice"),
        ([MEMORY, Change("other", "context", (1,), (5,))], {}, "'context' stands twice"),
        ([MEMORY, Change("same", "mixer", ("gru",), ("gru",))], {}, "'gru' on both sides"),
        ([MEMORY, Change("none", "mixer", (), ("gru",))], {}, "no level on a side"),
        ([MEMORY, Change("odd", "mixr", ("a",), ("b",))], {}, "Did you mean 'mixer'"),
        ([MEMORY, ARCHITECTURE], {"data": ("nowhere",)}, "no trial is at the levels"),
    ],
)
def test_changes_without_sense_are_refused(changes, where, said):
    with pytest.raises(UserError, match=said):
        attribute(noisy(data=1), changes, where)


def test_primary_hypotheses_declare_the_changes():
    hypotheses = [
        claim(primary=True, where={"data": "lq-mix/episode", "condition": "none", "mixer": "gru"}),
        claim("architecture", "mixer[attention] - mixer[gru, mlp]", primary=True),
        claim("again", "mixer[gru] - mixer[mlp]", primary=True),
        claim("mean", "head[mse]", primary=True),
        claim("odd", "condition[time] - 0.5 condition[none]", primary=True),
        claim("secondary", "condition[time] - condition[none]"),
    ]
    changes, where, metric = declared(hypotheses)
    assert [change.name for change in changes] == ["memory", "architecture"]
    assert changes[1].words == "mixer gru, mlp → attention"
    assert where == {"data": ("lq-mix/episode",), "condition": ("none",)}
    assert metric == "score"
    assert "fewer than two" in declared(hypotheses[:1])
