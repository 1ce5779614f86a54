"""A table from elsewhere of very many rows: the verdicts are those of a computation by hand, within bounded memory."""

import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ablate.bench.scale import LEVELS, theirs
from ablate.report import provenance
from ablate.report.commands import elsewhere

BYTES = 1_500  # of memory for each row, so that a million rows take less than 2 GB with all that is imported
MARGIN = 3.0


@pytest.mark.parametrize("rows", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_verdicts_are_those_of_a_computation_by_hand(rows: int, tmp_path: Path) -> None:
    study, table = theirs(tmp_path, rows)
    tracemalloc.start()
    results = elsewhere(study, table, tmp_path)
    better, alike = results.analysis.verdicts
    hashed = provenance.row_hashes(results.budgets, provenance.written(results.table))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < BYTES * rows
    assert len(hashed) == len(set(hashed.values())) == rows
    cells = pd.read_csv(table).groupby(["algo", "data"])["score"].agg(["mean", "var", "size"])
    for verdict, first, second in ((better, "a9", "a0"), (alike, "a2", "a1")):
        one, other = cells.loc[first], cells.loc[second]
        parts = np.concatenate([one["var"] / one["size"], other["var"] / other["size"]]) / LEVELS**2
        size = np.concatenate([one["size"], other["size"]])
        # Welch-Satterthwaite over the cells, data sets counting equally.
        estimate = float((one["mean"] - other["mean"]).mean())
        error = float(parts.sum()) ** 0.5
        df = float(parts.sum()) ** 2 / float((parts**2 / (size - 1)).sum())
        half = stats.t.isf(0.025, df) * error
        assert verdict.estimate == pytest.approx(estimate, rel=1e-9)
        assert (verdict.low, verdict.high) == pytest.approx((estimate - half, estimate + half))
        assert verdict.n_trials == int(size.sum())
        if verdict is better:
            assert verdict.p == pytest.approx(stats.t.sf(estimate / error, df))
        else:
            beyond = stats.t.sf((MARGIN - abs(estimate)) / error, df)
            assert verdict.p == pytest.approx(beyond)
    assert (better.verdict, alike.verdict) == ("supported", "equivalent")
