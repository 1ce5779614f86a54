"""Contrasts over full, nested and incomplete designs: what is estimated, and what is said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from analyse_samples import analyse, claim, tidy
from statsmodels.formula.api import ols

GAIN = "(context[20] - context[1])"
BOTH = {"mixer": ("mlp", "gru"), "condition": ("none", "time"), "head": ("mse", "mixture")}


def one(table: pd.DataFrame, **rest):
    return analyse(table, [claim(**rest)], registered=True).verdicts[0]


def threefold(cell) -> float:
    """A three-way interaction of 8 on top of main effects and a two-way one."""
    m, c, t = cell["context"] == 20, cell["condition"] == "time", cell["mixer"] == "gru"
    return 30.0 + 4.0 * m + 3.0 * c - 2.0 * t + 5.0 * m * c + 8.0 * m * c * t


FULL = tidy(threefold, **BOTH, noise=1.0, seeds=4, draw=2)


@pytest.mark.parametrize(
    ("contrast", "where", "truth"),
    [
        (GAIN[1:-1], {}, 4.0 + 5.0 / 2 + 8.0 / 4),  # main effect
        (GAIN[1:-1], {"condition": "none"}, 4.0),  # simple effect
        (f"{GAIN} : condition[time] : mixer[gru]", {}, 17.0),  # the same, in the contrast
        (f"{GAIN} : (condition[time] - condition[none])", {}, 5.0 + 8.0 / 2),
        (
            f"{GAIN} : (condition[time] - condition[none]) : (mixer[gru] - mixer[mlp])",
            {},
            8.0,
        ),
        ("0.25 context[20] - 0.25 context[1]", {"condition": "none"}, 1.0),  # custom weights
    ],
)
@pytest.mark.parametrize("estimand", ["fixed", "population"])
def test_a_full_crossing(contrast, where, truth, estimand):
    found = one(FULL, contrast=contrast, where=where, test="difference", estimand=estimand)
    assert found.estimate == pytest.approx(truth, abs=1.3)
    assert found.low < truth < found.high


@pytest.mark.parametrize(
    ("contrast", "term", "scale"),
    [
        (GAIN[1:-1], "a", 2.0),
        (f"{GAIN} : (condition[time] - condition[none])", "a:b", 4.0),
        (f"{GAIN} : (condition[time] - condition[none]) : (mixer[gru] - mixer[mlp])", "a:b:c", 8.0),
    ],
)
def test_balanced_contrasts_are_those_of_sum_coded_least_squares(contrast, term, scale):
    coded = FULL.assign(
        a=np.where(FULL["context"] == 20, 1, -1),
        b=np.where(FULL["condition"] == "time", 1, -1),
        c=np.where(FULL["mixer"] == "gru", 1, -1),
    )
    fit = ols("score ~ a * b * c * C(head) + C(data)", coded).fit()
    by_head = scale * (fit.params[term] + fit.params.get(f"{term}:C(head)[T.mse]", 0.0) / 2.0)
    assert one(FULL, contrast=contrast).estimate == pytest.approx(by_head, abs=1e-8)


def test_a_nested_factor_is_compared_where_it_exists():
    """Only mixers with memory have more than one context; the MLP takes no part."""
    table = tidy(
        lambda c: {"mlp": 0.0, "gru": 6.0, "attention": 8.0}[c["mixer"]] * (c["context"] > 1)
    )
    table = table[(table["mixer"] != "mlp") | (table["context"] == 1)]
    found = one(table)
    assert found.estimate == pytest.approx(7.0, abs=1.5)
    assert found.n_trials == 2 * 2 * 2 * 5
    assert any("lacks context[20]" in note for note in found.notes)
    level = one(table, contrast="mixer[gru] - mixer[mlp]", test="difference", threshold=0.0)
    assert level.n_trials == 2 * 2 * 5  # at context 1, where both exist
    assert level.estimate == pytest.approx(0.0, abs=2.0)


def test_an_incomplete_design_averages_over_what_there_is():
    """Every data set lacks another mixer; the mean over data sets keeps equal weights."""
    table = tidy(
        lambda c: (10.0 if c["data"] == "a" else 2.0) * (c["context"] == 20),
        data=("a", "b"),
        noise=0.5,
    )
    table = table[~((table["data"] == "a") & (table["mixer"] != "gru"))]
    found = one(table)
    assert found.estimate == pytest.approx(6.0, abs=0.5)  # not weighed by cells or trials
    assert found.n_trials == 10 + 30
    assert found.population.n_datasets == 2


def test_half_a_factorial_has_no_pairs_and_says_so():
    """Where a level occurs only with another factor's level, nothing can be told apart."""
    table = FULL[(FULL["context"] == 20) == (FULL["condition"] == "time")]
    found = one(table)
    assert found.verdict == "not tested"
    assert "It cannot be decided, because some cell that it needs wasn't run" in found.sentence
