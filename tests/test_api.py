"""What `import ablate` offers, on results that are committed and on models of a second."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tiny_study import ROOT, Tiny

import ablate
from ablate.api import Tables
from ablate.registry import process
from ablate.report.export import VERDICT

LOSS = ROOT / "studies" / "loss.yaml"
PAGE = (ROOT / "docs" / "python.md").read_text("utf-8")


@pytest.fixture(scope="module")
def found() -> Tables:
    """The committed results of the study `loss`."""
    return ablate.results(LOSS, folder=ROOT / "results")


def test_importing_it_brings_nothing_along() -> None:
    code = "import sys, ablate; print([m for m in ('torch', 'pandas', 'numpy', 'typer') if m in sys.modules])"
    _, environment = process("ablate")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "[]"
    assert set(ablate.__all__) <= set(dir(ablate))
    with pytest.raises(AttributeError, match="no attribute 'result'"):
        ablate.result  # type: ignore[attr-defined]  # noqa: B018


def test_tables_are_those_that_lie_there(found: Tables) -> None:
    lies = pd.read_csv(ROOT / "results" / "loss" / "trials.csv")
    trials = found.trials.set_index("trial").loc[lies["trial"]]
    for name in ("rollout.regret", "held-out.action_error", "seed", "budget"):
        assert np.allclose(trials[name], lies[name])
    curves = pd.read_csv(ROOT / "results" / "loss" / "curves.csv")
    assert len(found.curves) == len(lies.merge(curves, on="fit"))
    assert list(found.yardsticks["data"]) == ["lq-mix/episode", "lq-mix/step"]
    assert found.series.empty
    assert found.tuning.empty


def test_a_verdict_is_the_paired_t_of_its_seeds(found: Tables) -> None:
    assert list(found.verdicts.columns) == list(VERDICT)
    lies = pd.read_csv(ROOT / "results" / "loss" / "trials.csv")
    at = lies[(lies["budget"] == 2000) & (lies["train.least_visible"] == 1)]
    means = at.groupby(["seed", "data", "mixer", "train.loss"])["held-out.action_error"].mean()
    apart = means.unstack("train.loss").eval("all - last").groupby("seed").mean()
    low, high = stats.t.interval(0.95, len(apart) - 1, apart.mean(), stats.sem(apart))
    row = found.verdicts.set_index("hypothesis").loc["predict-all"]
    assert (row["estimate"], row["low"], row["high"]) == pytest.approx((apart.mean(), low, high))
    assert row["verdict"] in found.answer


def test_one_question_more(found: Tables) -> None:
    question = {
        "id": "mine",
        "says": "They differ.",
        "contrast": "mixer[gru] - mixer[conv]",
        "metric": "rollout.regret",
        "test": "difference",
    }
    (row,) = ablate.verdicts(found, [question]).to_dict("records")
    assert row["status"] == "exploratory"
    part = found.found.rows[found.found.rows["data"] == "lq-mix/episode"]
    (less,) = ablate.verdicts(found, [question], trials=part).to_dict("records")
    assert less["n_trials"] * 2 == row["n_trials"]
    for wrong, said in (
        ({"metric": "rollout.regert"}, "Did you mean 'rollout.regret'"),
        ({"tset": "difference"}, "hypothesis 'mine': 'tset' is not known"),
        ({"contrast": "mixer[gru] - mixer[lstm]"}, "lstm"),
    ):
        with pytest.raises(ablate.UserError, match=re.escape(said)):
            ablate.verdicts(found, [question | wrong])


def test_a_model_of_a_study_is_the_one_that_the_study_trains(tiny: Tiny) -> None:
    tiny.write("seeds: 2", "seeds: 1")
    assert tiny.run("--only", "mixer=gru,context=2").code == 0
    (row,) = ablate.results("tiny.yaml", folder=tiny.results).trials.to_dict("records")
    study = ablate.load_study("tiny.yaml", changes={"seeds": 1})
    levels = {"mixer": "gru", "context": 2}
    model = ablate.fit(study, levels=levels, folder=tiny.folder / "apart")
    for name in ("rollout.return_mean", "held-out.action_error", "parameters"):
        assert model.metrics[name] == row[name]
    kept = tiny.root / "checkpoints" / row["fit"]
    opened = ablate.load_model(kept, folder=tiny.results)
    assert opened.measure("held-out").values["action_error"] == row["held-out.action_error"]
    assert 0 <= opened.measure("rollout", episodes=3).values["success"] <= 1
    with pytest.raises(ablate.UserError, match="'episode' is not known"):
        opened.measure("rollout", episode=3)
    with pytest.raises(ablate.UserError, match=r"the measurement 'open-loop' .* allowed: joint"):
        opened.measure("open-loop")
    with pytest.raises(ablate.UserError, match=r"the measurement 'open-loop' .* allowed: joint"):
        opened.imagine()


def test_refusals_say_what_is_allowed(tiny: Tiny) -> None:
    study = ablate.load_study("tiny.yaml")
    for call, said in (
        (lambda: ablate.fit(study, levels={"mixer": "lstm"}), "the level of mixer: 'lstm'"),
        (lambda: ablate.fit(study, levels={"mixr": "gru"}), "Did you mean 'mixer'"),
        (lambda: ablate.fit(study, "tmaze/passive-4"), "the data set: 'tmaze/passive-4'"),
        (lambda: ablate.fit(study, changes={"seeds": 1}), "those of a study go to load_study"),
        (lambda: ablate.fit("bc"), "needs a data set"),
        (lambda: ablate.fit("bc", "tmaze/passive-3", levels={"mixer": "mlp"}), "changes="),
        (lambda: ablate.results(study), "there are no results yet"),
        (lambda: ablate.results(study, profile="quick"), "has its profile"),
        (lambda: ablate.load_study("losss"), "Did you mean 'loss'"),
    ):
        with pytest.raises(ablate.UserError, match=re.escape(said)):
            call()


def test_the_page_runs(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(ROOT / "results" / "loss", Path("results", "loss"))
    text = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    small = '{"train.updates": 4, "train.warmup": 1, "train.points": 1}'
    text = text.replace('{"train.updates": 1000}', small)
    changes = f'"loss", changes={small[:-1]}, "train.checkpoints": []}}, profile="quick"'
    text = text.replace('"loss", profile="quick"', changes)
    exec(compile(text, "python.md", "exec"), {})
    out = capsys.readouterr().out
    assert "(exploratory): A GRU regrets less than a convolution." in out
