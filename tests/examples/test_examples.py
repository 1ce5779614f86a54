"""Every example, run by the commands that its docstring names: nothing of ours is edited for it."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from tiny_study import ROOT, Ran, Tiny

import ablate
from ablate import registry
from ablate.data import catalogue
from ablate.registry import load_plugin
from ablate.study.load import load
from ablate.track.table import read_series, read_table

FOLDER = ROOT / "examples"
PROGRAMS = {"ask_more", "long_rollouts"}  # which use what is there: a notebook and pictures
NAMES = sorted({path.stem for path in FOLDER.glob("*.py")} - PROGRAMS)
# A few seconds instead of half a minute; what is asked for stays as it stands in the file.
SMALL = (
    "train.updates=4",
    "train.warmup=1",
    "train.points=1",
    "train.targets_per_update=8",
    "measure.rollout.episodes=10",
)


def run(tiny: Tiny, name: str, *changes: str, only: str = "") -> pd.DataFrame:
    """The example's study, run in this process by the launcher of the examples, from copies of its files."""
    for path in FOLDER.iterdir():
        if path.is_file():
            shutil.copy(path, tiny.folder)
    here = ("--launcher", "serial", "--plugin", "serial.py", "--only", only)
    found = tiny.command(*command("run", name, *changes), *here)
    assert found.code == 0, found.err
    table = read_table(tiny.results / name / "trials.csv")
    assert set(table["status"]) == {"COMPLETED"}, list(table["failure"])
    return table


def report(tiny: Tiny, name: str, *changes: str) -> Ran:
    return tiny.command(*command("report", name, *changes))


def command(verb: str, name: str, *changes: str) -> list[str]:
    small = [word for text in (*SMALL, *changes) for word in ("--set", text)]
    return [verb, f"{name}.yaml", "--results", "results", "--seeds", "2", *small]


@pytest.fixture(autouse=True)
def _no_latex(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is_and_how_it_is_run(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text("utf-8")
    said = ast.get_docstring(ast.parse(text)) or ""
    assert "of one's own" in said.splitlines()[0]
    assert "python -m ablate run examples/" in said
    assert len(text.splitlines()) <= (60 if name == "quantiles" else 90)


def test_a_measurement_over_an_index_in_a_hypothesis_and_a_figure(tiny: Tiny) -> None:
    table = run(tiny, "quantiles", "measure.quantiles.episodes=20")
    series = read_series(tiny.results / "quantiles" / "series.csv")
    deciles = series[series["response"] == "quantiles.score"].pivot(
        index="trial", columns="index", values="value"
    )
    assert list(deciles.columns) == list(range(1, 10))
    assert (deciles.diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)
    by_trial = table.set_index("trial")
    assert np.allclose(by_trial["quantiles.score@5"], deciles[5].loc[by_trial.index])
    assert (by_trial["quantiles.worst_tenth"] <= deciles[1].loc[by_trial.index]).all()
    told = report(tiny, "quantiles", "measure.quantiles.episodes=20")
    assert told.code == 0, told.err
    assert "* worst" in told.out
    assert "  median" in told.out
    assert "Scores of single episodes" in next(tiny.folder.rglob("report.html")).read_text("utf-8")
    assert list(tiny.folder.rglob("quantiles.pdf"))
    assert any("quantiles.pdf" in path.read_text("utf-8") for path in tiny.folder.rglob("*.tex"))


def test_a_mixer(tiny: Tiny) -> None:
    table = run(tiny, "ema", only="mixer=ema")
    assert set(table["context"]) == {1, 10}
    assert (abs(table["parameters"] - 4000) <= 400).all()
    shown = tiny.command("audit", "ema", "--plugin", "ema.py", "--context", "3")
    assert shown.out.rstrip().endswith("PASSED")


def test_a_head_in_a_policy_and_in_a_joint_model(tiny: Tiny) -> None:
    table = run(tiny, "laplace", only="head=laplace")
    assert set(table["algorithm"]) == {"bc", "joint"}
    assert np.isfinite(table["rollout.score"]).all()


def test_the_head_is_a_laplace_distribution() -> None:
    with registry.scope():
        load_plugin(str(FOLDER / "laplace.py"))
        head = registry.get("head", "laplace")(3, 2, None, bounded=False)
    params = head(torch.zeros(3)).detach()
    mean, scale = head.mean(params).numpy(), np.exp(-1.0)
    values = np.array([0.3, -2.0], np.float32)
    known = stats.laplace(mean, scale)
    found = head.log_prob(params, torch.from_numpy(values))
    assert float(found) == pytest.approx(known.logpdf(values).sum(), abs=1e-5)
    noise = np.array([0.1, 0.7], np.float32)
    assert head.sample(params, torch.from_numpy(noise)).numpy() == pytest.approx(
        known.ppf(noise), abs=1e-5
    )


def test_a_condition(tiny: Tiny) -> None:
    table = run(tiny, "so_far")
    assert set(table["condition"]) == {"time", "so-far+time"}
    assert np.isfinite(table["held-out.action_error"]).all()


def test_a_data_family_with_its_environment(tiny: Tiny) -> None:
    table = run(tiny, "wind", only="context=5")
    assert set(table["data"]) == {"wind/calm", "wind/gale"}
    assert table["rollout.score"].notna().all()
    shown = tiny.command("data", "list", "--plugin", "wind.py")
    assert shown.code == 0, shown.err
    assert "wind/gale" in shown.out


def test_episodes_of_the_environment_can_be_put_back() -> None:
    with registry.scope():
        load_plugin(str(FOLDER / "wind.py"))
        env = catalogue.spec("wind/gale").make_env(3)
    env.reset([0, 1, 2])
    actions = np.array([[0.5], [0.0], [-1.0]])
    env.step(actions)
    kept = env.state()
    once = [env.step(actions)[:2] for _ in range(3)]
    env.set_state(kept)
    again = [env.step(actions)[:2] for _ in range(3)]
    assert all(
        np.array_equal(a, b)
        for x, y in zip(once, again, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_an_algorithm_whose_factors_are_those_that_it_reads(tiny: Tiny) -> None:
    table = run(tiny, "noisy")
    scores = table.groupby("settings.noise")["rollout.return_mean"].mean()
    assert scores.nunique() == len(scores) == 3
    text = (tiny.folder / "noisy.yaml").read_text("utf-8")
    text = text.replace(
        "settings.noise: [0, 0.1, 0.3]",
        "settings.noise: [0, 0.1, 0.3]\n  train.windows: [end, start]",
    )
    text = text.replace("settings.noise: all", "settings.noise: all, train.windows: all")
    (tiny.folder / "noisy.yaml").write_text(text, "utf-8")
    line = tiny.command("plan", "noisy.yaml").line
    assert "noisy.yaml:" in line
    assert "the levels end and start of train.windows lead to the same model" in line


def test_an_estimator_in_a_hypothesis(tiny: Tiny) -> None:
    table = run(tiny, "percent")
    means = table.pivot(index="seed", columns="context", values="held-out.action_error")
    change = 100 * (means[10] / means[1] - 1)
    small = {**dict(text.split("=") for text in SMALL), "seeds": 2}
    changes = {name: int(value) for name, value in small.items()}
    (found,) = ablate.verdicts(ablate.results("percent.yaml", changes=changes)).to_dict("records")
    assert (found["estimator"], found["unit"]) == ("percent-change", "%")
    low, high = stats.t.interval(0.95, 1, change.mean(), stats.sem(change))
    assert (found["estimate"], found["low"], found["high"]) == pytest.approx(
        (change.mean(), low, high)
    )


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_of_the_examples_loads(path: Path) -> None:
    with registry.scope():
        study = load(path)
    assert study.study == path.stem
    assert study.code is not None
