"""From claims and tables to cells, blocks, per-seed terms and what is left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from analyse_samples import claim, tidy

from ablate.analyse.answer import levels_of
from ablate.analyse.pairing import Resolved, Untestable, resolve, shuffled_factor
from ablate.study.contrast import parse
from ablate.study.hypotheses import claims


def resolved(table: pd.DataFrame, **rest) -> Resolved | Untestable:
    return resolve(claims(claim(**rest), levels_of(table))[0], table, "score")


def exact(cell) -> float:
    """A table without noise: every mean is known."""
    return 10.0 * cell["context"] + {"mlp": 0.0, "gru": 3.0, "attention": 6.0}[cell["mixer"]]


@pytest.mark.parametrize(
    ("contrast", "factor"),
    [
        ("context[20] - context[1]", "context"),
        ("mixer[attention] - mixer[gru, lstm]", "mixer"),
        ("(context[20] - context[1]) : condition[time]", "context"),
        ("(context[20] - context[1]) : (condition[time] - condition[none])", None),
        ("context[1]", None),
        ("0.2 context[1] - context[20]", None),
        ("(context[20] - context[1]) : condition[time, none]", "context"),
        ("(context[1] - context[20]) : (0.2 condition[time] - condition[none])", None),
        ("mixer[gru, mlp] : (context[20] - context[1]) - 0.5 mixer[mlp] : context[1]", None),
    ],
)
def test_which_factors_labels_are_shuffled(contrast, factor):
    assert shuffled_factor(parse(contrast)) == factor


def test_estimate_blocks_and_terms_agree_on_the_estimate():
    table = tidy(lambda cell: float(cell["context"]), noise=3.0)
    found = resolved(table)
    assert isinstance(found, Resolved)
    means = table.groupby(["data", "context"])["score"].mean().unstack()
    by_hand = (means[20] - means[1]).mean()
    assert found.fixed.value == pytest.approx(by_hand)
    assert found.terms.sum() == pytest.approx(by_hand)
    assert len(found.terms) == 5  # a seed is one unit, on whatever data sets
    assert found.pairing == "paired within 5 seeds"
    assert found.blocks is not None
    assert len(found.blocks) == 2 * 3  # data sets x mixers
    from_blocks = sum(
        w * arm.mean() for b in found.blocks for w, arm in zip(b.weights, b.arms, strict=True)
    )
    assert from_blocks == pytest.approx(by_hand)
    assert list(found.by_data_set) == ["lq-mix/episode", "tmaze/passive-20"]
    assert len(found.trials) == len(table)


def test_an_unbalanced_contrast_weighs_levels_not_trials():
    found = resolved(
        tidy(exact, noise=0.0), contrast="mixer[attention] - mixer[gru, mlp]", where={"context": 20}
    )
    assert isinstance(found, Resolved)
    assert found.fixed.value == pytest.approx(6.0 - 1.5)
    assert found.fixed.degenerate


def test_failed_and_missing_trials_are_left_out_and_counted():
    table = tidy(exact, noise=0.0)
    table.loc[3, ["status", "score"]] = ["FAILED", np.nan]
    table.loc[4, "status"] = "RUNNING"
    table.loc[8, "score"] = np.nan
    table = table.drop(index=12)
    found = resolved(table)
    assert isinstance(found, Resolved)
    assert found.fixed.value == pytest.approx(190.0)
    assert found.pairing == "paired within 3 to 5 seeds"
    # Two seeds are there in one of the cells that are compared only.
    assert (len(found.trials), len(found.failed), len(found.missing)) == (54, 1, 3)
    assert "2 trials were left out" in found.notes[0]


def test_a_failed_trials_leftover_metric_isnt_used():
    table = tidy(exact, noise=0.0)
    table.loc[0, ["status", "score"]] = ["FAILED", -1e9]
    assert resolved(table).fixed.value == pytest.approx(190.0)


def test_a_cell_with_one_seed_takes_its_combination_along():
    table = tidy(exact, noise=0.0)
    thin = (table["data"] == "tmaze/passive-20") & (table["mixer"] == "gru")
    table = table[~(thin & (table["context"] == 20) & (table["seed"] > 0))]
    found = resolved(table)
    assert isinstance(found, Resolved)
    assert found.fixed.value == pytest.approx(190.0)
    assert len(found.weights) == 2 * 6 - 2
    assert any("single finished seed" in note for note in found.notes)
    assert any(note.startswith("left out: tmaze/passive-20") for note in found.notes)


def test_a_data_set_without_the_contrast_is_named():
    table = tidy(exact, noise=0.0)
    table = table[~((table["data"] == "tmaze/passive-20") & (table["context"] == 20))]
    found = resolved(table)
    assert isinstance(found, Resolved)
    assert found.names == ("lq-mix/episode",)
    assert "no complete contrast on tmaze/passive-20" in found.notes


def test_seeds_that_arent_shared_leave_no_terms_but_an_estimate():
    table = tidy(exact, noise=1.0)
    table.loc[table["context"] == 20, "seed"] += 100
    found = resolved(table)
    assert isinstance(found, Resolved)
    assert len(found.terms) == 0
    assert found.fixed.value == pytest.approx(190.0, abs=2.0)


def test_why_nothing_can_be_tested():
    table = tidy(exact, seeds=1)
    found = resolved(table)
    assert isinstance(found, Untestable)
    assert "fewer than two finished trials" in found.reason
    failed = tidy(exact).assign(status="FAILED")
    found = resolved(failed)
    assert isinstance(found, Untestable)
    assert len(found.failed) == 60
    found = resolve(
        claims(claim(where={"context": 1, "mixer": "bag"}, contrast="context[1]"), {})[0],
        table,
        "score",
    )
    assert isinstance(found, Untestable)
    assert found.reason == "no trial is about it"


def test_a_contrast_between_data_sets_is_one_stratum():
    found = resolved(
        tidy(lambda cell: 5.0 if cell["data"] == "lq-mix/episode" else 1.0, noise=0.0),
        contrast="data[lq-mix/episode] - data[tmaze/passive-20]",
    )
    assert isinstance(found, Resolved)
    assert found.fixed.value == pytest.approx(4.0)
    assert len(found.names) == 1
    assert found.blocks is not None
    assert len(found.blocks) == 3 * 2
