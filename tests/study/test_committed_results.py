"""The committed results are those of the committed studies: a change of what is hashed would leave them without one."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from ablate.study import identity
from ablate.study.expand import trials
from ablate.study.load import load

ROOT = Path(__file__).parents[2]
THERE = sorted(path.parent.name for path in (ROOT / "results").glob("*/study.json"))


@pytest.mark.parametrize("name", THERE)
def test_a_study_knows_its_committed_trials(name: str) -> None:
    study = load(ROOT / "studies" / f"{name}.yaml")
    kept = json.loads((ROOT / "results" / name / "study.json").read_text("utf-8"))
    with (ROOT / "results" / name / "trials.csv").open(encoding="utf-8", newline="") as file:
        found = {row["trial"] for row in csv.DictReader(file)}
    assert kept["study_hash"] == identity.study_hash(study)
    assert found
    assert found <= {trial.id for trial in trials(study, kept["data"])}


def test_there_are_committed_results() -> None:
    assert "memory_vs_arch" in THERE
