"""Reports of runs that somebody else made: from a file to the page, and honest where nothing can be
said."""

from __future__ import annotations

import json
import os
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ablate.errors import UserError
from ablate.report.commands import elsewhere, make, stale
from ablate.report.provenance import trials

ROOT = Path(__file__).parents[2]
BENCHMARK = Path(
    os.environ.get("D3RLPY_BENCHMARK", ROOT.parent / "shared/data/d3rlpy_bench_final.csv")
)
STUDY = """\
study: theirs
question: Does A beat B?
table:
  columns: {data: task, algo: Algorithm}
  finished: [done]
  failed: [crashed]
factors: {algo: [A, B], width: [16, 64]}
data: [hop, run]
margin: 3
hypotheses:
  - {id: ab, says: A beats B., contrast: "algo[A] - algo[B]", test: superiority, primary: true}
  - {id: width, says: Width is nothing., contrast: "width[64] - width[16]", test: equivalence}
"""


def rows(seeds: int = 4) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    lines = [
        {
            "task": task,
            "Algorithm": algo,
            "width": width,
            "seed": seed,
            "score": 50 + 20 * (algo == "A") + rng.normal(),
            "status": "done",
        }
        for task in ("hop", "run")
        for algo in ("A", "B")
        for width in (16, 64)
        for seed in range(seeds)
    ]
    return pd.DataFrame(lines)


class Files:
    """A study, a table and where the report goes."""

    def __init__(self, folder: Path, table: pd.DataFrame, study: str = STUDY) -> None:
        self.study, self.table = folder / "theirs.yaml", folder / "runs.csv"
        self.results, self.paper = folder / "results", folder / "results/theirs/paper"
        self.study.write_text(study)
        table.to_csv(self.table, index=False)

    def make(self, **options: object) -> str:
        asked = elsewhere(self.study, self.table, self.results)
        return make(asked, self.results, **options)

    def stale(self) -> list[str]:
        return stale(elsewhere(self.study, self.table, self.results), self.results)

    def content(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.results)): path.read_bytes()
            for path in sorted(self.results.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def no_latex(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)


def test_a_table_from_elsewhere_becomes_a_page_and_a_paper(tmp_path, no_latex):
    files = Files(tmp_path, rows())
    said = files.make()
    assert "* ab" in said
    assert "supported" in said
    assert "nothing shows that the hypotheses were written before them" in " ".join(said.split())
    assert "runs.csv: 32 rows" in said
    assert files.stale() == []
    before = files.content()
    names = set(before)
    for name in ("forest", "levels"):
        assert {f"theirs/paper/figures/theirs/{name}.{k}" for k in ("pdf", "png")} <= names
    for name in ("verdicts", "scores", "failures"):
        assert f"theirs/paper/tables/theirs/{name}.tex" in names
    page = before["theirs/report.html"].decode()
    assert "exploratory" in page
    assert "32 rows" in page
    source = before["theirs/paper/supplement.tex"].decode()
    assert "Decision Transformer" not in source
    assert not re.search(r"\bprofile\b", source)
    shutil.rmtree(files.results)
    files.make()
    assert files.content() == before
    changed = rows()
    changed.loc[0, "score"] += 1
    changed.to_csv(files.table, index=False)
    assert any("scores.tex: stale" in line for line in files.stale())


def test_the_manifest_names_the_rows_of_the_table(tmp_path, no_latex):
    files = Files(tmp_path, rows())
    files.make()
    entry = json.loads((files.paper / "manifest.json").read_text())["studies"]["theirs"]
    shown = trials(entry, entry["shown"]["figures/theirs/levels"]["trials"])
    assert set(shown) == {f"row-{n + 1}" for n in range(32)}
    assert {"TheirsAbEstimate", "TheirsWidthEstimate"} <= set(entry["numbers"])


@pytest.mark.parametrize("case", ["one data set", "one seed", "a cell missing", "unequal seeds"])
def test_what_cannot_be_decided_is_said(tmp_path, no_latex, no_figures, case):
    table = rows()
    if case == "one data set":
        table = table[table["task"] == "hop"]
    elif case == "one seed":
        table = rows(seeds=1)
    elif case == "a cell missing":
        gone = (table["task"] == "run") & (table["Algorithm"] == "B")
        table = table[~gone]
    else:
        table = table.drop(index=[0, 1, 9])
    files = Files(tmp_path, table)
    said = " ".join(files.make().split())
    page = (files.results / "theirs/report.html").read_text()
    if case == "one data set":
        assert "no row of the data set run" in said
        assert "one data set says nothing about others" in page
    elif case == "one seed":
        assert "not tested" in said
        assert "fewer than two finished trials" in page
    elif case == "a cell missing":
        assert "No complete contrast on run" in page
        assert "supported" in said
    else:
        assert "supported" in said
        assert "29 finished trials" in page


def test_nothing_finished_is_one_honest_line(tmp_path):
    files = Files(tmp_path, rows().assign(status="crashed"))
    with pytest.raises(UserError, match=r"cannot decide anything.*32 failed") as refusal:
        files.make()
    assert "\n" not in str(refusal.value)
    assert not files.results.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop(columns="score"), "'score'"),
        (lambda t: t.assign(score="good"), "'score' is 'good'"),
        (lambda t: t.assign(score=np.inf), "infinite"),
        (lambda t: pd.concat([t, t.iloc[[0]]]), "two finished rows for the same trial"),
    ],
)
def test_a_bad_table_is_one_line_and_leaves_the_last_report(
    tmp_path, no_latex, no_figures, change, said
):
    files = Files(tmp_path, rows())
    files.make()
    before = files.content()
    change(rows()).to_csv(files.table, index=False)
    with pytest.raises(UserError, match=said) as refusal:
        files.make()
    assert "\n" not in str(refusal.value)
    assert files.content() == before


def test_a_study_of_ours_takes_a_table_with_our_columns(written, tmp_path, no_figures, no_latex):
    import report_samples as samples

    path = samples.write_study(tmp_path)
    table = tmp_path / "table.csv"
    written.results.table.drop(columns=["trial"]).to_csv(table, index=False)
    results = tmp_path / "results"
    said = make(elsewhere(path, table, results), results)
    assert "memory" in said
    assert (tmp_path / "results/small/paper/supplement.tex").exists()


def test_another_venue_is_kept_until_another_is_asked_for(tmp_path, no_latex, no_figures):
    files = Files(tmp_path, rows())
    files.make(venue="icml2024")
    assert r"{\PaperWidth}{6.75in}" in (files.paper / "macros.tex").read_text()
    assert files.stale() == []
    files.make()
    assert json.loads((files.paper / "manifest.json").read_text())["venue"] == "icml2024"
    with pytest.raises(UserError, match="Did you mean 'neurips2024'"):
        files.make(venue="neurips2025")


@pytest.mark.skipif(
    not BENCHMARK.exists(), reason="d3rlpy's benchmark is not here; D3RLPY_BENCHMARK says where"
)
def test_the_benchmark_of_d3rlpy(tmp_path, no_latex, no_figures):
    results = elsewhere(ROOT / "studies/d3rlpy.yaml", BENCHMARK, tmp_path)
    said = make(results, tmp_path)
    assert "1,780 rows" in said
    assert "240 rows left out, as the study doesn't declare their algo: SAC (120), TD3 (120)" in (
        " ".join(said.split())
    )
    table, story = results.table, results.story
    assert len(table) == 12 * 9 * 10
    means = table.groupby(["data", "algo"], observed=True)["score"].mean().unstack()
    # The spreads that reference/tooling.md measured on these runs.
    spread = table.groupby(["data", "algo"], observed=True)["score"].std()
    assert np.sqrt((spread**2).mean()) == pytest.approx(10.7, abs=0.05)
    assert spread.median() == pytest.approx(2.7, abs=0.05)
    for name, a, b in (
        *(("td3bc-cql", "TD3PlusBC", "CQL"), ("iql-cql", "IQL", "CQL")),
        ("crr-awac", "CRR", "AWAC"),
    ):
        contrasts = (means[a] - means[b]).to_numpy(dtype=float)
        finding = next(f for f in story.findings if f.id == name)
        assert finding.estimate == pytest.approx(contrasts.mean())
        reference = stats.ttest_1samp(contrasts, 0.0).confidence_interval(0.95)
        assert finding.population is not None
        assert finding.population.low == pytest.approx(reference.low)
        assert finding.population.high == pytest.approx(reference.high)
        assert finding.standing == "exploratory"
    # 29 of the 36 pairs differ on these data sets, few on new ones: so do the verdicts here.
    verdicts = {finding.id: finding.verdict for finding in story.findings}
    assert verdicts["td3bc-cql"] == verdicts["iql-cql"] == "supported"
    assert verdicts["td3bc-cql-new"] == verdicts["iql-cql-new"] == "inconclusive"


@pytest.mark.parametrize("paired", [False, True])
def test_contrasts_are_within_seeds_only_where_the_study_says_so(tmp_path, paired):
    """A common shift of each seed widens Welch's interval and is no part of the paired one."""
    rng = np.random.default_rng(3)
    shift = rng.normal(0.0, 9.0, 6)
    scores = {algo: 50.0 + 4.0 * (algo == "A") + shift + rng.normal(0, 1, 6) for algo in "AB"}
    table = pd.DataFrame(
        [
            {"task": "hop", "Algorithm": algo, "seed": seed, "score": score, "status": "done"}
            for algo, found in scores.items()
            for seed, score in enumerate(found)
        ]
    )
    text = STUDY.replace("{algo: [A, B], width: [16, 64]}", "{algo: [A, B]}")
    text = text.replace("[hop, run]", "[hop]").rpartition("  - {id: width")[0]
    files = Files(tmp_path, table, text + ("paired: true\n" if paired else ""))
    (verdict,) = elsewhere(files.study, files.table, files.results).analysis.verdicts
    test = stats.ttest_rel if paired else partial(stats.ttest_ind, equal_var=False)
    expected = test(scores["A"], scores["B"]).confidence_interval(0.95)
    assert (verdict.low, verdict.high) == pytest.approx(expected, rel=1e-9)
    assert verdict.verdict == ("supported" if paired else "inconclusive")
