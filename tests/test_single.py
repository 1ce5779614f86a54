"""`train` and `evaluate`: one model, without a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ablate.cli import main
from ablate.data import catalogue
from ablate.errors import UserError
from ablate.launch import single
from ablate.study import presets
from ablate.systems import remarks

SMALL = (
    "model.width=16", "model.layers=1", "train.updates=12", "train.warmup=2",
    "train.targets_per_update=64", "train.points=1",
)  # fmt: skip


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


ACTS = ("measure.rollout.episodes=3", "measure.rollout.target=p90")
SEARCHES = (
    "model.heads=2", "context=3", "settings.bins=4", "settings.cosine=null", "measure.plan.episodes=3",
    "measure.plan.horizon=2", "measure.plan.beam=4", "measure.plan.max_context_transitions=2",
)  # fmt: skip


def trained(preset: str, cache: Path, folder: Path, data: str = "tmaze/passive-3") -> single.Model:
    config = presets.configuration(preset, data, [*SMALL, *ACTS, "context=2"])
    return single.train(config, 0, folder, cache)


def test_train_and_evaluate_agree_and_nothing_is_trained_twice(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setenv("ABLATE_CACHE", str(cache))
    options = [part for text in (*SMALL, *ACTS, "context=2") for part in ("--set", text)]
    line = ["--preset", "dt", "--data", "tmaze/passive-3", "--seed", "0", *options]
    place = ["--results", str(tmp_path)]
    code, out, _ = command(capsys, "train", *line, *place)
    assert code == 0
    run = out.split("python -m ablate evaluate ")[1].strip()
    assert "score" in out
    again = command(capsys, "train", *line, *place)[1]
    assert "was trained before" in again
    code, out, _ = command(
        capsys, "evaluate", run, "--target", "1", "--target", "p10", "--episodes", "4", *place
    )
    assert code == 0
    assert out.count("\n") > 4
    # The same episodes, asked for the same: the same score as at the end of training.
    (score,) = single.evaluate(Path(run), cache, [], 3, [])
    known = single.train(
        presets.configuration("dt", "tmaze/passive-3", [*SMALL, *ACTS, "context=2"]),
        0,
        tmp_path,
        cache,
    )
    assert known.known
    assert score.scores.mean() == pytest.approx(known.metrics["rollout.score"])


def test_the_trajectory_transformer_trains_plans_and_is_evaluated(
    cache: Path, tmp_path: Path
) -> None:
    config = presets.configuration("tt", "tmaze/passive-3", [*SMALL, *SEARCHES])
    made = single.train(config, 0, tmp_path, cache)
    assert made.metrics["parameters"] > 0
    assert "held-out.timestep_nll" in made.metrics
    (direct,) = single.evaluate(made.checkpoint, cache, [], 3, ["objective=direct"])
    assert direct.returns.shape == (3,)


def test_a_search_reads_a_critic_that_was_trained_beside_the_model(
    cache: Path, tmp_path: Path
) -> None:
    asked = (
        *SMALL,
        *SEARCHES,
        "settings.critic={width: 8, batch: 16}",
        "measure.plan.value=critic",
    )
    config = presets.configuration("tt", "tmaze/passive-3", asked)
    made = single.train(config, 0, tmp_path, cache)
    assert made.metrics["plan.score"] == made.metrics["plan.score"]
    # What was kept plans as it did at the end of training.
    (score,) = single.evaluate(made.checkpoint, cache, [], 3, [])
    assert score.scores.mean() == pytest.approx(made.metrics["plan.score"])
    config["settings"].pop("critic")
    with pytest.raises(UserError, match=r"measure\.plan\.value: critic needs one that is trained"):
        single.train(config, 0, tmp_path, cache)


def test_a_film_is_written(cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("imageio")
    made = trained("bc", cache, tmp_path, "pointmaze/umaze-10k-v1")
    film = tmp_path / "film.gif"
    try:
        single.evaluate(made.checkpoint, cache, [], 1, [], video=film)
    except UserError as error:
        if "can't be drawn or written here" in str(error):
            pytest.skip(f"no way to draw on this machine: {error}")
        raise
    assert film.read_bytes()[:3] == b"GIF"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--preset", "iqll", "--data", "tmaze/passive-3"], "Did you mean 'iql'"),
        (["train", "--preset", "mine.yaml", "--data", "tmaze/passive-3"], "there is no such file"),
        (["train", "--preset", "dt", "--data", "tmaze/passive-3", "--set", "train.update=3"], "'update' is not known"),
        (["train", "--preset", "dt", "--data", "tmaze/passive-3", "--set", "x"], "expected KEY=VALUE"),
        (["train", "--preset", "dt", "--data", "nowhere/x"], "nowhere"),
        (["evaluate", "nothing"], "there is no such checkpoint"),
    ],
)  # fmt: skip
def test_refusals_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = command(capsys, *arguments, "--results", str(tmp_path))
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_a_choice_among_numbers_is_refused(cache: Path, tmp_path: Path) -> None:
    changes = [*SMALL, *ACTS, "context=2", "head=softmax"]
    config = presets.configuration("dt", "lq-mix/episode", changes)
    with pytest.raises(
        UserError, match=r"softmax draws one choice .* the actions aren't: they are"
    ):
        single.train(config, 0, tmp_path, cache)


def test_a_scale_that_hardly_fits_the_returns_is_said(cache: Path, tmp_path: Path) -> None:
    said: list[str] = []
    changes = [*SMALL, *ACTS, "context=2"]
    config = presets.configuration("dt", "lq-mix/episode", [*changes, "train.return_scale=1000"])
    single.train(config, 0, tmp_path, cache, note=said.append)
    (line,) = said
    assert "train.return_scale is 1000, and returns reach" in line
    assert "--set train.return_scale=null" in line
    for fits in ("train.return_scale=null", "condition=none"):
        asked = [*changes, "train.return_scale=1000", fits]
        config = presets.configuration("dt", "lq-mix/episode", asked)
        assert remarks(config, catalogue.load("lq-mix/episode", cache)) == []
