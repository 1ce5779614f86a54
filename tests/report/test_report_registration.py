"""A study of a user's own file with a switch as its factor: run, reported, and what is declared after a look."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
from tiny_study import Tiny

from ablate.report.commands import ours
from ablate.report.story import Story
from ablate.study.load import load

TEXT = """\
study: tiny
question: Does a norm of the tokens help?
factors:
  mixer: [mlp]
  context: [2]
  model.token_norm: [true, false]
data: [file/own.hdf5]
designs: {all: {data: all, model.token_norm: all}}
model: {width: 8, layers: 1}
train: {updates: 4, targets_per_update: 16, warmup: 1, points: 2}
measure: {held-out: {}}
seeds: 3
hypotheses:
  - {id: helps, says: It helps., contrast: "model.token_norm[true] - model.token_norm[false]", test: difference,
     metric: held-out.action_error, primary: true}
"""
LATER = """\
  - {id: equal, says: It matters little., contrast: "model.token_norm[true] - model.token_norm[false]",
     test: equivalence, margin: 1, metric: held-out.action_error}
"""


@pytest.fixture
def finished(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The study, run; made once, then copied."""
    rng = np.random.default_rng(0)
    ends = np.arange(120) % 10 == 9
    with h5py.File(tiny.folder / "own.hdf5", "w") as file:
        file["observations"] = rng.standard_normal((120, 3)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (120, 2)).astype(np.float32)
        file["rewards"] = rng.standard_normal(120).astype(np.float32)
        file["terminals"], file["timeouts"] = np.zeros_like(ends), ends
    tiny.file.write_text(TEXT)
    kept = tmp_path_factory.getbasetemp() / "registered"
    if not kept.exists():
        ended = tiny.run()
        assert ended.code == 0, ended.err
        shutil.copytree(tiny.results, kept)
    else:
        shutil.copytree(kept, tiny.results)
    return tiny


def story(tiny: Tiny, *sets: str, seeds: int | None = None) -> Story:
    study = load(tiny.file, None, sets)
    return ours(study.model_copy(update={"seeds": seeds or study.seeds}), tiny.results).story


def statuses(told: Story) -> dict[str, str]:
    return {one.id: one.standing for one in told.findings}


def test_a_switch_is_reported_by_the_names_it_was_declared_with(finished: Tiny) -> None:
    ended = finished.command(*finished.arguments("report", "--paper", str(finished.folder / "out")))
    assert ended.code == 0, ended.err
    assert "exploratory" not in ended.out
    (finding,) = story(finished).findings
    assert statuses(story(finished)) == {"helps": "confirmatory"}
    assert np.isfinite(finding.estimate)
    page = next(finished.root.glob("*.html")).read_text()
    assert "own.hdf5" in page
    assert "so the verdicts are confirmatory" in " ".join(page.split())


def test_a_hypothesis_that_is_added_after_the_run_leaves_the_others_confirmatory(
    finished: Tiny,
) -> None:
    finished.file.write_text(TEXT + LATER)
    told = story(finished)
    assert statuses(told) == {"helps": "confirmatory", "equal": "exploratory"}
    assert "equal (not registered in this form before the runs)" in told.standing
    ended = finished.run()
    assert "6 are done, 0 to run" in ended.out
    told = story(finished)
    assert statuses(told) == {"helps": "confirmatory", "equal": "exploratory"}
    assert "equal (registered when 6 results were there" in told.standing


def test_seeds_that_are_added_after_a_look_are_noticed_and_said(finished: Tiny) -> None:
    ended = finished.run("--seeds", "4")
    assert ended.code == 0, ended.err
    assert "6 are done, 2 to run" in ended.out
    assert statuses(story(finished)) == {"helps": "confirmatory"}
    more = story(finished, seeds=4)
    assert statuses(more) == {"helps": "exploratory"}
    assert "the seeds were raised from 3 to 4 when 6 results were there" in more.standing
    assert "`sequential` had declared no such look" in more.standing
