"""Cell summaries, pairing, learning curves and effects of context, against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from analyse_samples import tidy
from scipy import stats

from ablate.analyse.descriptive import cell_summary, iqm, learning_curves, pairing
from ablate.analyse.effects import context_by_condition, context_effects


def test_iqm_drops_a_quarter_at_each_end():
    assert iqm(np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0])) == pytest.approx(3.5)


def test_cell_summary():
    table = tidy(lambda cell: 5.0)
    table.loc[0, "status"] = "FAILED"
    table.loc[1, "score"] = np.nan
    cells = cell_summary(table)
    assert len(cells) == 2 * 3 * 2
    one = cells[(cells["mixer"] == "gru") & (cells["context"] == 20)].iloc[0]
    where = (table["mixer"] == "gru") & (table["context"] == 20)
    scores = table[where & (table["data"] == "lq-mix/episode")]["score"]
    bounds = stats.ttest_1samp(scores, 0.0).confidence_interval()
    assert (one["mean"], one["low"], one["high"]) == pytest.approx(
        (scores.mean(), bounds.low, bounds.high)
    )
    first = cells[(cells["mixer"] == "mlp") & (cells["context"] == 1)].iloc[0]
    assert tuple(first[["n", "failed", "missing"]]) == (3, 1, 1)


def test_a_cell_with_nothing_finished_has_a_row_without_numbers():
    table = tidy(lambda cell: 5.0, seeds=2)
    table.loc[table["mixer"] == "gru", "status"] = "FAILED"
    gone = cell_summary(table).query("mixer == 'gru'")
    assert gone["mean"].isna().all()
    assert (gone["failed"] == 2).all()


def test_pairing_measures_the_shared_seed_effect():
    def with_pairs(strength: float) -> pd.DataFrame:
        table = tidy(lambda cell: 5.0, seeds=10, noise=1.0, draw=4)
        shift = np.random.default_rng(1).normal(0, 1, 10) * strength
        return table.assign(score=table["score"] + shift[table["seed"]])

    strong = pairing(with_pairs(3.0))
    assert (strong["correlation"] > 0.7).all()
    assert (strong["p"] < 0.01).all()
    none = pairing(with_pairs(0.0))
    assert (none["correlation"].abs() < 0.25).all()
    assert (none["cells"] == 6).all()
    # The definition: the mean of all pairs' Pearson correlations.
    one = with_pairs(1.0).query("data == 'lq-mix/episode'")
    wide = one.pivot(index="seed", columns=["mixer", "context"], values="score")
    matrix = np.corrcoef(wide.to_numpy().T)
    by_hand = matrix[np.triu_indices(6, 1)].mean()
    assert pairing(one)["correlation"].iloc[0] == pytest.approx(by_hand)


def test_pairing_leaves_out_flat_and_incomplete_cells():
    table = tidy(lambda cell: 5.0, data=("lq-mix/step",))
    table.loc[0, "status"] = "FAILED"
    table.loc[(table["mixer"] == "gru") & (table["context"] == 1), "score"] = 100.0
    row = pairing(table).iloc[0]
    assert (row["cells"], row["left_out"]) == (4, 2)
    lonely = pairing(tidy(lambda cell: 5.0, mixer=("gru",), context=(1,)))
    assert lonely["correlation"].isna().all()


def test_learning_curves_have_a_band_for_each_update():
    table = tidy(lambda cell: 5.0)
    table.loc[0, "status"] = "FAILED"
    rng = np.random.default_rng(0)
    curves = pd.DataFrame(
        [(t, u, rng.normal(u)) for t in table["trial"] for u in (0, 100)],
        columns=["trial", "update", "heldout_loss"],
    )
    bands = learning_curves(curves, table, "heldout_loss", ["mixer"])
    assert list(bands["n"]) == [20, 20, 20, 20, 19, 19]
    assert list(bands["update"]) == [0, 100] * 3
    chosen = table.query("mixer == 'gru'")["trial"]
    values = curves[curves["trial"].isin(chosen) & (curves["update"] == 100)]["heldout_loss"]
    bounds = stats.ttest_1samp(values, 0.0).confidence_interval()
    row = bands.query("mixer == 'gru' and update == 100").iloc[0]
    assert (row["low"], row["high"]) == pytest.approx((bounds.low, bounds.high))


def test_context_effects_are_welchs_intervals_between_the_extremes():
    table = tidy(lambda cell: float(cell["context"]), context=(1, 5, 20))
    table.loc[table["data"] == "tmaze/passive-20", "context"] += 1
    effects = context_effects(table)
    assert len(effects) == 2 * 3
    assert set(effects[effects["data"] == "tmaze/passive-20"]["longest"]) == {21}
    row = effects.query("data == 'lq-mix/episode' and mixer == 'mlp'").iloc[0]
    cells = table.query("data == 'lq-mix/episode' and mixer == 'mlp'").groupby("context")["score"]
    long, short = cells.get_group(20), cells.get_group(1)
    bounds = stats.ttest_ind(long, short, equal_var=False).confidence_interval()
    assert (row["low"], row["high"]) == pytest.approx((bounds.low, bounds.high))
    assert (row["n_shortest"], row["n_longest"]) == (5, 5)


def test_variants_without_both_contexts_have_no_effect():
    table = tidy(lambda cell: 1.0)
    table = table[~((table["mixer"] == "gru") & (table["context"] == 20))]
    assert set(context_effects(table)["mixer"]) == {"mlp", "attention"}
    assert context_effects(table[table["context"] == 1]).empty


def test_context_by_condition_is_a_difference_in_differences():
    def truth(cell):
        helps = cell["condition"] == "none" and cell["data"] == "lq-mix/episode"
        return 10.0 + 7.0 * (helps and cell["context"] == 20)

    table = tidy(truth, condition=("none", "time", "return-to-go"), noise=0.0)
    table = table[~((table["mixer"] == "gru") & (table["condition"] == "time"))]
    found = context_by_condition(table).set_index(["data", "condition"])
    assert found.loc[("lq-mix/episode", "none"), "effect"] == pytest.approx(7.0)
    assert np.isnan(found.loc[("lq-mix/episode", "none"), "change"])
    assert found.loc[("lq-mix/episode", "return-to-go"), "change"] == pytest.approx(-7.0)
    assert found.loc[("tmaze/passive-20", "time"), "change"] == pytest.approx(0.0)
    assert found.loc[("lq-mix/episode", "time"), ["variants", "shared"]].tolist() == [2, 2]
