"""Tables that cannot be analysed: one readable line, or a verdict that says why there is none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from analyse_samples import analyse, claim, tidy

from ablate.analyse.answer import levels_of
from ablate.errors import UserError

TABLE = tidy(lambda cell: 40.0 + 9.0 * (cell["context"] == 20), seeds=3)
CLAIMS = [claim("memory", primary=True), claim("same", test="equivalence", estimand="population")]


def text_in_one_cell(table: pd.DataFrame) -> pd.DataFrame:
    scores = table["score"].astype(object)
    scores.iloc[6] = "12,5"
    return table.assign(score=scores)


def twice_by_value(table: pd.DataFrame) -> pd.DataFrame:
    again = table.iloc[[0]].assign(context="1.0")
    return pd.concat([table.astype({"context": object}), again], ignore_index=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="data"), "column 'data' is missing; found: trial, "),
        (lambda t: t.drop(columns="seed"), "column 'seed' is missing"),
        (lambda t: t.drop(columns="score"), "metric of a hypothesis: 'score' is not known"),
        (lambda t: t[t["context"] == 1].drop(columns="context"), "'context' is not known; allowed"),
        (lambda t: pd.concat([t, t[["score"]]], axis=1), "the column 'score' stands twice"),
        (lambda t: pd.concat([t, t.iloc[[3]]]), r"two rows for the same trial \(data=lq-mix"),
        (twice_by_value, "two rows for the same trial"),
        (text_in_one_cell, "column 'score' holds text, e.g. '12,5' in row 7; a metric is a"),
        (lambda t: t.assign(score=t["score"].astype(str)), "column 'score' holds text"),
        (lambda t: t.assign(score=t["score"].where(t.index != 2, np.inf)), "row 3: 'score' is inf"),
        (lambda t: t.assign(score=t["score"].where(t.index != 2, -np.inf)), "row 3: 'score' is"),
        (lambda t: t.assign(seed=t["seed"].where(t.index != 4)), "row 5: 'seed' is empty"),
        (lambda t: t.assign(data=t["data"].where(t.index != 4, "")), "row 5: 'data' is empty"),
    ],
)
def test_it_is_refused_in_one_line(change, words):
    with pytest.raises(UserError, match=words) as refusal:
        analyse(change(TABLE), CLAIMS)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "fixed", "population"),
    [
        # one data set: these ones can be spoken of, others cannot
        (lambda t: t[t["data"] == "tmaze/passive-20"], "", "at least two are needed"),
        # one seed: the reverse
        (lambda t: t[t["seed"] == 0], "fewer than two finished trials", ""),
        (lambda t: t.assign(status="FAILED"), "fewer than two finished", "no finished trial"),
        (lambda t: t.assign(status="RUNNING"), "fewer than two finished", "no finished trial"),
        (lambda t: t.assign(score=np.nan), "has no value in any of its", "has no value in any"),
        (lambda t: t[t["context"] == 1], "wasn't run or has fewer than two", "wasn't run or has"),
        (lambda t: t.iloc[:0], "no trial is about it", "no trial is about it"),
    ],
)
def test_the_verdict_says_why_it_cannot_be_decided(change, fixed, population):
    table = change(TABLE).reset_index(drop=True)
    for verdict, why in zip(analyse(table, CLAIMS).verdicts, (fixed, population), strict=True):
        if why:
            assert verdict.verdict == "not tested"
            assert "It cannot be decided, because " in verdict.sentence
            assert why in verdict.sentence
            assert verdict.estimate is None
        else:
            assert verdict.verdict != "not tested", verdict.sentence
        assert verdict.n_failed == (len(table) if (table["status"] == "FAILED").all() else 0) or (
            len(table) == 0
        )


def test_a_seed_that_failed_everywhere_is_counted():
    table = TABLE.copy()
    lost = table["seed"] == 2
    table.loc[lost, "status"] = "FAILED"
    verdict = analyse(table, CLAIMS).verdicts[0]
    assert verdict.verdict == "supported"
    assert (verdict.n_trials, verdict.n_failed) == (24, 12)
    assert "12 failed, left out of the means" in verdict.sentence


def test_an_infinite_score_of_a_failed_trial_doesnt_matter():
    table = TABLE.copy()
    table.loc[0, ["status", "score"]] = ["FAILED", np.inf]
    assert analyse(table, CLAIMS).verdicts[0].verdict == "supported"


def test_levels_of_mixed_kinds_are_sorted():
    table = TABLE.assign(context=TABLE["context"].astype(object).replace(20, "long"))
    assert levels_of(table)["context"] == [1, "long"]
    wanted = claim(contrast="context[long] - context[1]")
    assert analyse(table, [wanted]).verdicts[0].verdict == "supported"
