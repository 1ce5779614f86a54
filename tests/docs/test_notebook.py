"""The notebook of the examples runs as a script, and what it asks is answered as scipy answers it."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location

import pandas as pd
import pytest
from scipy import stats
from tiny_study import ROOT

NOTEBOOK = ROOT / "examples" / "ask_more.py"


def test_it_runs_from_its_first_cell_to_its_last() -> None:
    pytest.importorskip("marimo", reason="marimo isn't installed, so the notebook isn't run")
    spec = spec_from_file_location("ask_more", NOTEBOOK)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(module := module_from_spec(spec))
    _, made = module.app.run()
    assert made["picture"].startswith(b"\x89PNG")

    rows = pd.read_csv(ROOT / "results" / "loss_told" / "trials.csv")
    rows = rows[rows["budget"] == rows["budget"].max()]
    cells = rows.pivot_table(
        index="seed", columns=["condition", "train.loss"], values="rollout.regret"
    )
    change = cells.xs("all", axis=1, level=1) - cells.xs("last", axis=1, level=1)
    apart = change["return-to-go+time"] - change["time"]
    low, high = stats.t.interval(0.95, len(apart) - 1, apart.mean(), stats.sem(apart))
    asked = made["asked"].loc[0]
    assert (asked["estimate"], asked["low"], asked["high"]) == pytest.approx(
        (apart.mean(), low, high)
    )
    assert asked["status"] == "exploratory"


def test_marimo_leaves_it_as_it_is() -> None:
    pytest.importorskip("marimo", reason="marimo isn't installed, so the notebook isn't checked")
    line = [sys.executable, "-m", "marimo", "check", "--strict", str(NOTEBOOK)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
