"""Verdicts at every budget and in replications, as page and chapter show them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import report_samples as samples
from scipy import stats

from ablate.analyse import replication
from ablate.report import again, provenance
from ablate.report.render import render
from ablate.report.results import Results
from ablate.report.tables import plain
from ablate.study.load import load


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> Results:
    """The small study, of which every fit is measured after 200 and after 600 updates."""
    file = samples.write_study(tmp_path_factory.mktemp("study"))
    study = load(file, overrides=["train.updates=600", "train.checkpoints=[200]"])
    table = samples.table(study)
    early = table["budget"] == 200
    longest = table["context"] == 20
    table.loc[early & longest, "rollout.score"] -= 30.0
    return samples.results(study, table)


def blocks(rows) -> dict[str, list[tuple[str, ...]]]:
    """The lines below each heading."""
    out: dict[str, list[tuple[str, ...]]] = {}
    for row in rows:
        if len(row) == 1:
            lines = out.setdefault(row[0], [])
        else:
            lines.append(row)
    return out


def test_verdicts_at_all_budgets_stand_below_each_other(several):
    grid = again.budgets(several)
    found = blocks(grid.rows)
    assert list(found) == [finding.id for finding in several.findings]
    assert all([row[0] for row in rows] == ["200", "600"] for rows in found.values())
    early, late = found["memory"]
    assert (early[-1], late[-1]) == ("refuted", "supported")
    finding = next(one for one in several.findings if one.id == "memory")
    assert late[1:3] == (finding.shown_estimate, finding.shown_interval)
    rows = several.budgets
    at = rows[
        (rows["budget"] == 200)
        & (rows["data"] == "lq-mix/episode")
        & (rows["condition"] == "time")
        & (rows["head"] == "mse")
        & (rows["status"] == "COMPLETED")
    ]
    means = at.pivot_table(index="mixer", columns="context", values="rollout.score")
    assert float(early[1].replace("−", "-")) == pytest.approx(
        float((means[20] - means[1]).mean()), abs=0.06
    )
    assert set(grid.trials) <= set(rows["trial"])
    assert "200 &" in plain(grid).body


def test_nothing_stands_below_a_study_with_one_budget(study):
    one = samples.results(study)
    assert again.budgets(one) is None
    assert again.replications(one) is None


def test_parts_of_a_claim_are_counted_each_and_their_verdict_once() -> None:
    """Two parts that move in opposite directions: a mean over both would say nothing of either."""
    rows = [
        (f"s-{n}", "pairs", part, sign * 9.0 + n, sign * 9.0 + n - 1.5, sign * 9.0 + n + 1.5, 0.95, "refuted")
        for n in range(3)
        for part, sign in (("a - b", 1), ("a - c", -1))
    ]  # fmt: skip
    found = replication.coverage(pd.DataFrame(rows, columns=list(replication.COLUMNS)))
    assert found["part"].tolist() == ["a - b", "a - c"]
    assert found["estimate"].tolist() == pytest.approx([10.0, -8.0])
    assert found["between"].tolist() == pytest.approx([1.0, 1.0])
    # 0, 1, 2 against 1.5, 1, 0.5 of the others, within 1.5 each.
    assert found["covered"].tolist() == [3, 3]
    alike = provenance._same(
        pd.DataFrame(rows, columns=list(replication.COLUMNS)), "pairs", "refuted"
    )
    assert alike == [3, 3]


def test_trials_are_planned_at_the_last_budget(several):
    assert len(several.rows) * 2 == len(several.budgets)
    assert several.subject.planned == len(several.rows)
    assert several.story.unfinished == 0
    assert "not run yet" not in several.story.incomplete
    lost = several.table[several.table["trial"] != several.rows["trial"].iloc[-1]]
    assert replace(several, table=lost).story.unfinished == 1


def test_replications_count_the_intervals_that_cover_the_mean_of_the_others(several, no_figures):
    rng = np.random.default_rng(5)
    rows = []
    for number in range(1, 9):
        sample = rng.normal(9.0 if number == 8 else 4.0, 1.0, 5)
        low, high = stats.ttest_1samp(sample, 0.0).confidence_interval(0.95)
        for claim, low_, high_ in (("memory", low, high), ("gone", -1.0, 1.0)):
            rows.append(
                (f"small-{number}", claim, "", sample.mean(), low_, high_, 0.95, "supported")
            )
    found = pd.DataFrame(rows, columns=list(several.replications.columns))
    results = replace(several, replications=found)
    grid = again.replications(results)
    ((claim, count, same, covered, mean, between, half),) = grid.rows
    own = next(f.verdict for f in several.findings if f.id == "memory")
    alike = 8 if own == "supported" else 0
    assert same == f"{alike} of 8"
    memory = found[found["hypothesis"] == "memory"]
    others = [memory["estimate"].drop(index).mean() for index in memory.index]
    inside = memory["low"].le(others) & memory["high"].ge(others)
    assert (claim, count, covered) == ("memory", "8", f"{inside.sum()} of 8")
    assert 0 < inside.sum() < 8
    assert mean == f"{memory['estimate'].mean():+.1f}"
    assert between == f"{memory['estimate'].std():.1f}"
    assert half == f"{((memory['high'] - memory['low']) / 2).mean():.1f}"
    made = render(results, "arxiv")
    for name, title in (
        ("budgets", "Verdicts by budget"),
        ("replications", "Replications under other streams"),
    ):
        assert f"tables/small/{name}.tex" in made.files
        assert f"tables/small/{name}" in made.part.chapter
        assert title in made.page.decode()
