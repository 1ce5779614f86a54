"""The benchmark of error rates: its procedures are those of the verdicts, and it reads tables."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ablate.analyse import batch
from ablate.analyse.answer import analyse
from ablate.analyse.randomisation import generator
from ablate.analyse.simulate import CONTRASTS, Factorial, table
from ablate.bench import inference
from ablate.errors import UserError
from ablate.study.hypotheses import Hypothesis


@pytest.fixture(scope="module")
def benchmark():
    return inference.inference(repetitions=400, popular=60, splits=20)


def alarm_rates(rows, kind: str) -> dict[str, float]:
    return {r["procedure"]: r["false alarms %"] for r in rows if r["for"] == kind}


def test_every_row_says_what_it_is_about(benchmark):
    assert [r["for"] for r in benchmark[:4]] == ["population"] * 4
    for row in benchmark:
        assert set(row) == set(benchmark[0])
        assert (row["within"] == "") == (row["for"] == "popular")
        assert 0.0 <= row["false alarms %"] <= 100.0
        assert row["s.e."] >= 0.0


def test_ours_keep_their_level_where_popular_ones_dont(benchmark):
    """Bounds are the .999 quantile of the count at 5 % (splits share runs: wider)."""
    most = 100.0 * stats.binom.ppf(0.999, 400, 0.05) / 400
    assert max(alarm_rates(benchmark, "population").values()) <= most
    assert max(alarm_rates(benchmark, "fixed").values()) <= 10.0
    theirs = alarm_rates(benchmark, "popular")
    assert theirs["stratified bootstrap of paired means"] > 20.0
    assert theirs["any data set by Welch's t"] > 20.0


def test_the_mixed_models_z_is_looser_than_its_t(benchmark):
    z = alarm_rates(benchmark, "popular")["mixed model, random slopes, Wald z"]
    assert z > alarm_rates(benchmark, "population")["mixed model, random slopes, t"]


def test_its_procedures_are_those_of_the_verdicts():
    """Simulated studies with and without an effect: an alarm here is a verdict there."""
    rng = generator("h")
    seen = set()
    for draw in range(0, 12, 2):
        scores = Factorial(slope_sd=2.0, memory=draw).draw(np.random.default_rng(draw), 1)[0][0]
        hypothesis = Hypothesis(
            id="h",
            says="So.",
            contrast=CONTRASTS["memory"],
            test="difference",
            estimand="population",
        )
        (found,) = analyse(table(scores), [hypothesis], margin=1e-9, metric="score").verdicts
        alarms = inference.population_alarms(scores, rng)
        assert alarms["t over data sets"] == (found.verdict == "supported")
        assert alarms["mixed model, random slopes, t"] == (found.population.mixed_p <= 0.05)
        assert alarms["exact sign flips over data sets"] == (found.population.p_sign_flip <= 0.05)
        seen.add(found.verdict)
    assert len(seen) == 2


def test_a_list_of_episodes_that_all_share_is_an_alarm_and_a_list_a_seed_is_none():
    rows = inference.shared_rows(4000)
    rates = {(r["runs"], r["procedure"]): r for r in rows}
    for (runs, procedure), row in rates.items():
        if procedure == "one list for all, Welch-Satterthwaite t":
            assert row["false alarms %"] > 50.0, runs
        if row["for"] == "fixed":
            assert row["within"] == "yes", (runs, procedure, row)
    apart = rates[
        "shared episodes: 2 data sets x 5 seeds", "a list a seed, paired, data sets independent"
    ]
    assert apart["false alarms %"] > 8.0


def test_the_bench_pairs_as_the_verdicts_do():
    scores = inference.memory_effects(np.random.default_rng(1), 3, 2, 5, lists=5)
    for r in range(3):
        runs = table(np.moveaxis(scores[..., r, :], 2, 0))
        for paired, estimate in ((True, inference._paired), (False, inference._unpaired)):
            hypothesis = Hypothesis(
                id="memory",
                says="memory helps",
                contrast=CONTRASTS["memory"],
                test="difference",
                metric="score",
            )
            verdict = analyse(runs, [hypothesis], metric="score", paired=paired).verdicts[0]
            found = estimate(scores)
            assert verdict.p == pytest.approx(batch.p_value(found)[r])
            assert verdict.estimate == pytest.approx(found.value[r])


def test_least_squares_by_hand_is_statsmodels():
    import statsmodels.formula.api as smf

    alarms, known = [], []
    for draw in range(12):
        scores = Factorial().draw(np.random.default_rng(draw), 1)[0][0]
        fit = smf.ols("score ~ C(data) + C(context)", table(scores)).fit()
        known.append(bool(fit.pvalues["C(context)[T.20]"] <= 0.05))
        found = inference._popular_factorial(scores, np.random.default_rng(0))
        alarms.append(found["least squares with data-set dummies"])
    assert alarms == known
    assert any(known)


def test_the_iqm_is_scipys_trimmed_mean():
    x = np.random.default_rng(3).normal(size=(4, 30))
    assert inference._iqm(x) == pytest.approx(stats.trim_mean(x, 0.25, axis=1))


def written(folder, data=("d4rl/hopper-medium-v0", "a", "b", "c", "d", "e"), **columns):
    rng = np.random.default_rng(5)
    rows = [
        {"data": d, "algo": a, "seed": s, "score": rng.normal()}
        for d, a, s in itertools.product(data, "xyz", range(5))
    ]
    frame = pd.DataFrame(rows).assign(**columns)
    path = folder / "runs.csv"
    frame.to_csv(path, index=False)
    return path, frame


def test_a_users_table_is_split(tmp_path):
    path, _ = written(tmp_path)
    rows = inference.inference(path, repetitions=2, popular=1, splits=3)
    assert sum(r["runs"].endswith("runs.csv") for r in rows) > 10
    assert [len(cells) for cells in inference.real(path)] == [6, 6, 6]


def test_raw_returns_of_d4rl_become_points_and_others_stay(tmp_path):
    path, frame = written(tmp_path)
    mine = frame[(frame["algo"] == "x") & (frame["data"] == "a")]
    assert inference.real(path)[0][0] == pytest.approx(mine["score"].to_numpy())
    frame.loc[frame["data"].str.startswith("d4rl"), "score"] = 3234.3  # the expert's
    frame.to_csv(path, index=False)
    cells = inference.real(path)[0]
    assert cells[4] == pytest.approx(np.full(5, 100.0))
    assert np.abs(np.concatenate(cells[:4])).max() < 10.0


def test_unequal_seeds_are_split_data_set_by_data_set_only(tmp_path):
    path, frame = written(tmp_path)
    frame.drop(index=0).to_csv(path, index=False)
    cells = inference.real(path)
    assert sorted(len(c) for c in cells[0]) == [4, 5, 5, 5, 5, 5]
    rows = inference.fixed_rows(cells[:1], 4, "runs", together=True)
    assert rows == []
    assert len(inference.fixed_rows(cells[:1], 4, "runs")) > 5


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: t.drop(columns="seed"), "the column: 'seed' is not known"),
        (lambda t: t.drop(columns="data"), "the column: 'dataset' is not known"),
        (lambda t: t.assign(score="x"), "column 'score' holds text"),
        (lambda t: t[t["data"] == "a"], "0 variants have 6 data sets"),
        (lambda t: t[t["seed"] < 3], "0 variants have 6 data sets"),
    ],
)
def test_a_table_that_cannot_be_split_is_refused(tmp_path, spoil, words):
    path, frame = written(tmp_path)
    spoil(frame).to_csv(path, index=False)
    with pytest.raises(UserError, match=words):
        inference.real(path)


def test_a_file_that_is_no_table_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read as CSV"):
        inference.real(tmp_path / "nowhere.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(UserError, match="cannot be read as CSV"):
        inference.real(tmp_path / "empty.csv")


def test_made_up_runs_scatter_as_real_ones_do():
    runs = inference.heavy_tailed(np.random.default_rng(0), variants=40, data_sets=40, seeds=200)
    sd = np.array([[cell.std(ddof=1) for cell in cells] for cells in runs])
    assert np.median(sd) == pytest.approx(2.7, rel=0.15)
    assert math.sqrt((sd**2).mean()) == pytest.approx(10.7, rel=0.25)
