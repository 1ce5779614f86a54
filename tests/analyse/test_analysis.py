"""The one call: what it refuses, what it doesn't depend on, and its words."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from analyse_samples import claim, tidy
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.analyse.analysis import analyse
from ablate.analyse.sentences import procedure, theme_of
from ablate.errors import UserError

CLAIMS = [
    claim("memory", primary=True),
    claim("architecture", "mixer[attention] - mixer[gru, mlp]", test="equivalence", primary=True),
    claim(
        "objective",
        "(context[20] - context[1]) : (condition[none] - condition[time])",
        primary=True,
    ),
    claim("heads", "condition[time] - condition[none]", test="difference"),
]


def truth(cell) -> float:
    return 40.0 + 9.0 * (cell["context"] == 20) * (cell["condition"] == "none")


TABLE = tidy(truth, condition=("none", "time"))


def test_the_answer_speaks_of_each_theme():
    result = analyse(TABLE, CLAIMS, registered=True)
    assert [v.verdict for v in result.verdicts[:3]] == ["supported", "equivalent", "supported"]
    assert [theme_of(v) for v in result.verdicts] == [
        *("memory", "architecture", "interplay", "conditioning"),
    ]
    assert result.answer.startswith(
        "Memory: yes, +4.2 points (95 % interval 3.6 to 4.9) for context 20 against 1."
    )
    memory = result.answer.index("Memory holds: supported.")
    assert memory < result.answer.index("Architecture: no difference that matters, ")
    assert "Architecture holds: equivalent to zero within 3 points." in result.answer
    assert "How they depend on each other: Objective holds: supported, +8.8" in result.answer
    assert result.answer.endswith("Verdicts on 3 primary hypotheses: 2 supported, 1 equivalent.")
    assert "heads" not in result.answer
    assert result.verdict("heads").hypothesis == "heads"
    with pytest.raises(KeyError):
        result.verdict("nobody")


def test_the_paragraph_on_methods_tells_what_was_used():
    more = [
        *CLAIMS,
        claim("rise", "trend(context[1, 20])", test="trend", family="new"),
        claim("over", estimand="population", family="new"),
        claim("nowhere", where={"mixer": "bag"}),
    ]
    told = procedure(analyse(TABLE, more).verdicts)
    assert told.startswith("Every hypothesis is decided at level 5 % after Holm's correction")
    assert "(hypotheses tested: primary 3, secondary 1 and new 2)" in told
    for words in (
        "permuting its labels",
        "Jonckheere",
        "flipping the signs",
        "(TOST)",
        "Student's t",
    ):
        assert words in told
    assert "a threshold" not in told
    few = procedure(analyse(TABLE, CLAIMS[:1]).verdicts)
    assert "a difference within one factor" in few
    for words in ("Jonckheere", "flipping", "TOST)", "population"):
        assert words not in few
    assert procedure(analyse(TABLE, more[-1:]).verdicts) == ""


def test_counts_and_pairing_come_along():
    table = TABLE.copy()
    table.loc[[0, 1], "status"] = ["FAILED", "RUNNING"]
    result = analyse(table, CLAIMS)
    assert (result.n_trials, result.n_failed, result.n_unfinished) == (120, 1, 1)
    assert len(result.pairing) == 2


def test_a_study_without_hypotheses_or_primary_ones():
    assert "no hypotheses" in analyse(TABLE, []).answer
    assert analyse(TABLE, CLAIMS[3:]).verdicts[0].verdict == "supported"
    assert "Verdicts on 1 hypothesis: 1 supported." in analyse(TABLE, CLAIMS[3:]).answer


def test_a_table_that_we_didnt_write_needs_no_status_and_no_context():
    table = TABLE[["data", "mixer", "seed", "score"]].groupby(["data", "mixer", "seed"]).mean()
    result = analyse(table.reset_index(), [claim(contrast="mixer[gru] - mixer[mlp]")])
    assert result.verdicts[0].verdict in ("inconclusive", "equivalent")


def same(a, b) -> None:
    """Equal but for rounding: sums may be taken in another order."""
    for name in ("verdict", "p", "p_holm", "n_trials", "estimate", "low", "high", "df"):
        first, second = getattr(a, name), getattr(b, name)
        assert first == (pytest.approx(second) if isinstance(second, float) else second), name


@settings(max_examples=5, deadline=None, derandomize=True)
@given(st.permutations(range(len(TABLE))))
def test_the_order_of_rows_doesnt_matter(order):
    before, after = analyse(TABLE, CLAIMS), analyse(TABLE.iloc[list(order)], CLAIMS)
    assert before.answer == after.answer
    for a, b in zip(before.verdicts, after.verdicts, strict=True):
        assert a == b


def test_verdicts_dont_depend_on_the_order_of_hypotheses_or_on_the_table_given():
    kept = TABLE.copy()
    forth = analyse(TABLE, CLAIMS).verdicts
    back = analyse(TABLE, CLAIMS[::-1]).verdicts
    assert forth == back[::-1]
    assert TABLE.equals(kept)


@settings(max_examples=5, deadline=None, derandomize=True)
@given(shift=st.floats(-50, 50), scale=st.floats(0.1, 10))
def test_a_shift_changes_nothing_and_a_scale_only_the_units(shift, scale):
    moved = TABLE.assign(score=shift + scale * TABLE["score"])
    before = analyse(TABLE, CLAIMS, margin=3.0)
    after = analyse(moved, CLAIMS, margin=3.0 * scale)
    for a, b in zip(before.verdicts, after.verdicts, strict=True):
        rescaled = dataclasses.replace(
            b, **{n: getattr(b, n) / scale for n in ("estimate", "low", "high")}
        )
        same(a, rescaled)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="data"), "column 'data' is missing"),
        (lambda t: t.drop(columns="seed"), "column 'seed' is missing"),
        (lambda t: t.drop(columns="score"), "'score' is not known; allowed"),
        (lambda t: t.assign(score="12.5"), "column 'score' holds text"),
        (lambda t: t.assign(seed=0), "two rows for the same trial"),
        (lambda t: t.assign(score=np.inf), "row 1: 'score' is infinite"),
        (lambda t: t.assign(mixer=t["mixer"].where(t.index != 4)), "row 5: 'mixer' is empty"),
        (lambda t: t.assign(mixer=t["mixer"].where(t.index != 4, "")), "row 5: 'mixer' is empty"),
        (lambda t: t.drop(columns="condition").iloc[::2], "'condition' is not known"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_in_one_line(change, words):
    table = change(TABLE)
    if "condition" not in table.columns:
        table = table.drop_duplicates(["data", "mixer", "context", "seed"])
    with pytest.raises(UserError, match=words) as refusal:
        analyse(table, CLAIMS)
    assert "\n" not in str(refusal.value)


def test_a_level_of_error_is_a_probability():
    with pytest.raises(UserError, match="alpha: found 5"):
        analyse(TABLE, CLAIMS, alpha=5.0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"threshold": 20.0, "margin": 0.1}, "Memory: no, +4.2 points"),
        ({"threshold": 4.2, "margin": 0.1}, "Memory: not settled, +4.2 points"),
        ({"margin": 30.0, "threshold": 20.0}, "Memory: no difference that matters, +4.2 points"),
        ({"test": "equivalence", "margin": 1.0}, "Memory: yes, it makes a difference, +4.2 points"),
        ({"where": {"mixer": "bag"}}, "Memory: not tested, exploratory (claim: Memory holds)."),
    ],
)
def test_the_answer_in_plain_words(given, words):
    assert analyse(TABLE, [claim("memory", primary=True, **given)]).answer.startswith(words)
