"""`power` and `report --calibrate` find what they are about, or say what is lacking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ablate.errors import UserError
from ablate.launch import design

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "studies" / "memory_vs_arch_locomotion.yaml"
FOREIGN = """\
study: theirs
question: Does B beat A?
table: {columns: {data: task}}
factors: {algo: [A, B]}
data: [x, y, z]
margin: 3
hypotheses:
  - {id: b, says: B beats A., contrast: "algo[B] - algo[A]", test: superiority, primary: true}
"""


@pytest.fixture
def theirs(tmp_path: Path) -> tuple[Path, Path]:
    """A study about somebody else's runs, and their table."""
    rng = np.random.default_rng(0)
    rows = [
        {"task": task, "algo": algo, "seed": seed, "score": 50.0 + rng.normal(0.0, 4.0)}
        for task in "xyz"
        for algo in "AB"
        for seed in range(6)
    ]
    study, table = tmp_path / "theirs.yaml", tmp_path / "runs.csv"
    study.write_text(FOREIGN)
    pd.DataFrame(rows).to_csv(table, index=False)
    return study, table


def test_somebody_elses_runs(theirs: tuple[Path, Path], tmp_path: Path):
    study, table = theirs
    made = design.power(study, tmp_path, pilot=table)
    one = made.forecasts[0]
    assert (made.seeds, one.data_sets, one.cells) == (6, 3, 6)
    assert 0.0 < one.fixed.planned < 1.0
    assert "No costs" in made.text()
    written = design.save(made, tmp_path)
    assert [path.name for path in written] == ["power.csv", "power.json"]
    assert len(pd.read_csv(written[0])) == 2
    found = design.calibration(study, tmp_path, table=table)
    assert (found.variants, found.cells) == (2, 6)


def test_what_is_lacking_is_said(theirs: tuple[Path, Path], tmp_path: Path):
    study, table = theirs
    with pytest.raises(UserError, match="is about runs from elsewhere"):
        design.power(study, tmp_path)
    with pytest.raises(UserError, match="there are no results yet"):
        design.calibration(STUDY, tmp_path)
    with pytest.raises(UserError, match="found both --pilot and --published"):
        design.power(STUDY, tmp_path, pilot=table, published="d3rlpy")
    pd.read_csv(table).drop(columns="seed").to_csv(table, index=False)
    with pytest.raises(UserError, match="seed"):
        design.calibration(study, tmp_path, table=table)
