"""Figures and tables: what is chosen, what is left out, and one look for each mixer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import report_samples as samples

from ablate.report import style, summaries, tables
from ablate.report.figures import (
    audit,
    curves,
    errors,
    every,
    forest,
    interaction,
    replication,
    scores,
)


def test_nothing_to_show_is_no_figure(written):
    table = written.results.table
    empty = pd.DataFrame(columns=["trial", "update"])
    assert curves.draw(table, empty) is None
    assert audit.draw([]) is None
    assert audit.draw([{"mixer": "gru", "context": 5, "findings": ["does not run"]}]) is None
    assert forest.draw([]) is None
    assert interaction.draw(table[table["context"] == 1]) is None
    assert replication.draw([], 3.0) is None
    assert errors.draw(table.drop(columns=["action_error", "action_error_early"])) is None
    assert scores.draw(table.assign(score=np.nan)) is None


def test_a_table_without_mixers_has_the_forest_and_the_levels(written):
    table = written.results.table.drop(columns=["mixer"])
    drawn = every.draw(
        table, written.results.findings, pd.DataFrame(columns=["trial"]), [], None, 3.0
    )
    assert [figure.name for figure, _ in drawn] == ["forest", "levels", "forest_means"]


def test_the_slice_is_where_most_cells_are(study):
    table = samples.table(study)
    chosen = summaries.core(table)
    assert chosen["lq-mix/episode"]["condition"] == "time"
    assert chosen["lq-mix/episode"]["head"] == "mse"
    assert chosen["tmaze/passive-20"]["condition"] == "none"


def test_a_mixer_looks_the_same_in_every_figure():
    alone, together = style.mixers(["gru"]), style.mixers(["mine", "bag", "gru", "attention"])
    assert alone["gru"] == together["gru"]
    assert list(together) == ["attention", "gru", "bag", "mine"]
    looks = style.mixers(["attention", "lstm", "gru", "conv", "mlp", "bag", "a", "b"])
    assert len({look.marker for look in looks.values()}) == len(looks)
    assert len({look.colour for look in looks.values()}) == len(looks)


def test_the_effect_of_context_is_that_of_the_cells(study):
    table = samples.table(study)
    here = {"data": "lq-mix/single", "condition": "time", "head": "mse"}
    rows = summaries.at(summaries.finished(table), here)
    effect = summaries.context_effect(rows, "score")
    means = rows.groupby(["mixer", "context"])["score"].mean().unstack()
    assert effect is not None
    assert effect.mean == pytest.approx((means[20] - means[1]).mean())
    assert effect.low < effect.mean < effect.high
    assert summaries.context_effect(rows[rows["seed"] == 0], "score") is None


def test_a_single_seed_has_no_interval():
    one = summaries.mean_interval(np.array([3.0, np.nan]))
    assert (one.mean, one.n) == (3.0, 1)
    assert np.isnan(one.low)


def test_tables_count_failures_and_mismatch(written):
    failures = tables.failures(written.results.table)
    assert failures is not None
    assert "loss is NaN at update 130" in failures.body
    assert failures.body.count(r"\\") == len(written.results.table["data"].unique()) + 2
    matching = tables.matching(written.results.table)
    assert matching is not None
    assert r"2.25\,\%" in matching.body
    assert tables.matching(written.results.table.drop(columns=["parameters"])) is None


def test_the_exact_posterior_is_drawn_where_it_is_known(study):
    table = samples.table(study)
    with style.paper_style():
        with_it = errors.draw(table, samples.yardsticks())
        without = errors.draw(table)
    assert with_it is not None
    assert without is not None
    assert "posterior" in with_it.caption
    assert "posterior" not in without.caption
