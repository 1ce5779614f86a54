"""A fit is trained once, whatever is measured of it, before or after."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pandas as pd
import pytest
from tiny_study import Tiny

from ablate import registry
from ablate.track.store import attempts
from ablate.track.table import read_series, read_table

TEXT = """\
study: tiny
question: What does it matter what is asked for?
factors:
  mixer: [mlp, gru]
  context: [2]
  condition: [return-to-go]
  measure.rollout.target: [p10, p50, p90, 1.0]
data: [tmaze/passive-3]
designs:
  targets: {data: all, mixer: mlp, measure.rollout.target: all}
  plain: {data: all, mixer: gru}
model: {width: 8, layers: 1}
train: {updates: 4, targets_per_update: 16, warmup: 1, points: 2, checkpoints: [2]}
measure: {rollout: {episodes: 2}, held-out: {}}
seeds: 2
"""
# mlp at four targets and gru at one, two seeds, two budgets
FITS, TRIALS, ROLLOUTS, HELD_OUT = 4, 20, 20, 8
MINE = '''\
"""How far the policies are from where they started."""

import numpy as np
import torch

from ablate.measure.base import Measurement
from ablate.registry import register
from ablate.words import Response


@register("measurement", "norms")
class Norms(Measurement):
    responses = (Response("largest"), Response("by_power", index="power"))

    def __call__(self, trained, options):
        flat = [torch.cat([p.detach().flatten() for p in m.parameters()]) for m in trained.models]
        powers = np.arange(1, 4)
        found = [[float(each.abs().pow(p).mean()) for p in powers] for each in flat]
        return {
            "largest": np.array([float(each.abs().max()) for each in flat]),
            "by_power": np.array(found),
            "power": powers,
        }
'''
CLAIM = """\
hypotheses:
  - {id: small, says: So., contrast: "mixer[gru] - mixer[mlp]", test: difference,
     metric: norms.by_power@2}
"""
MEASURED = ("held-out: {}}", "held-out: {}, norms: {}}\ncode: mine.py")


@pytest.fixture
def finished(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The study, run; made once, then copied."""
    kept = tmp_path_factory.getbasetemp() / "measured"
    tiny.file.write_text(TEXT)
    (tiny.folder / "mine.py").write_text(MINE)
    if not kept.exists():
        ended = tiny.run()
        assert ended.code == 0, ended.err
        assert f"{FITS} fits to train and {ROLLOUTS + HELD_OUT} measurements" in ended.out
        shutil.copytree(tiny.results, kept)
    else:
        shutil.copytree(kept, tiny.results)
    return tiny


def table(tiny: Tiny) -> pd.DataFrame:
    return read_table(tiny.root / "trials.csv")


def ran(tiny: Tiny) -> Counter[str]:
    """Completed runs in the store: fits, and each measurement."""
    return Counter(
        str(one.config().get("measurement", "fit")) for one in attempts(tiny.root / "runs")
    )


def changed(tiny: Tiny, *pairs: tuple[str, str], extra: str = "") -> None:
    text = TEXT
    for old, new in pairs:
        assert text.count(old) == 1
        text = text.replace(old, new)
    tiny.file.write_text(text + extra)


def test_four_targets_and_two_budgets_cost_one_training_a_seed(finished: Tiny) -> None:
    found = table(finished)
    assert ran(finished) == {"fit": FITS, "rollout": ROLLOUTS, "held-out": HELD_OUT}
    assert len(found) == TRIALS
    for mixer, targets in (("mlp", 4), ("gru", 1)):
        mine = found[found["mixer"] == mixer]
        assert len(mine) == targets * 2 * 2
        assert mine["fit"].nunique() == 2
        assert (mine.groupby(["seed", "budget"])["held-out.row"].nunique() == 1).all()
        assert mine["rollout.row"].is_unique
    files = sorted((finished.root / "checkpoints").glob("*/*.safetensors"))
    assert {f.parent.name for f in files} == set(found["fit"])
    assert Counter(f.stem for f in files) == {"2": FITS, "4": FITS}
    # What was trained for longer predicts otherwise; what was asked for isn't part of a prediction.
    loss = found.groupby(["fit", "budget"])["held-out.loss"].nunique()
    assert (loss == 1).all()
    assert found["held-out.loss"].nunique() == HELD_OUT


def test_the_last_budget_is_what_it_is_without_checkpoints(finished: Tiny) -> None:
    before = table(finished)
    shutil.rmtree(finished.results)
    ended = finished.run("--set", "train.checkpoints=[]")
    assert ended.code == 0, ended.err
    alone = table(finished)
    last = before[before["budget"] == 4].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, last)


def test_another_level_of_an_option_trains_nothing(finished: Tiny) -> None:
    before = table(finished)
    changed(finished, ("p90, 1.0]", "p90, 1.0, 2.0]"))
    ended = finished.run()
    assert f"{TRIALS} are done, 4 to run" in ended.out
    assert "0 fits to train and 4 measurements" in ended.out
    assert ran(finished) == {"fit": FITS, "rollout": ROLLOUTS + 4, "held-out": HELD_OUT}
    after = table(finished).set_index("trial")
    pd.testing.assert_frame_equal(after.loc[before["trial"]], before.set_index("trial"))


def test_another_measurement_trains_nothing_and_measures_nothing_else(finished: Tiny) -> None:
    before = table(finished)
    changed(finished, MEASURED, extra=CLAIM)
    with registry.scope():  # as in a process of its own
        ended = finished.run()
    assert "0 fits to train and 8 measurements" in ended.out, ended.err
    assert ran(finished) == {"fit": FITS, "rollout": ROLLOUTS, "held-out": HELD_OUT, "norms": 8}
    after = table(finished)
    assert len(after) == TRIALS  # what a row lacked is added to it
    shared = [name for name in before.columns if name != "trial"]
    pd.testing.assert_frame_equal(after[shared], before[shared])
    # Values over the index, and the one that a hypothesis is about in a column of its own.
    series = read_series(finished.root / "series.csv")
    assert set(series["response"]) == {"norms.by_power"}
    assert len(series) == TRIALS * 3
    second = series[series["index"] == 2].set_index("trial")["value"]
    at = after.set_index("trial")["norms.by_power@2"]
    pd.testing.assert_series_equal(at, second.loc[at.index], check_names=False)
    assert "norms.by_power" not in after.columns

    # Its code changes: its rows are measured again, and nothing else.
    (finished.folder / "mine.py").write_text(MINE.replace("arange(1, 4)", "arange(1, 5)"))
    ended = finished.run()
    assert "0 fits to train and 8 measurements" in ended.out, ended.err
    assert ran(finished) == {"fit": FITS, "rollout": ROLLOUTS, "held-out": HELD_OUT, "norms": 16}
    again = table(finished)
    assert len(again) == TRIALS
    assert set(again["norms.row"]).isdisjoint(after["norms.row"])
    assert list(again["rollout.row"]) == list(after["rollout.row"])
    assert len(read_series(finished.root / "series.csv")) == TRIALS * 4

    # A clone that holds no runs and no checkpoints has nothing to do.
    for name in ("runs", "checkpoints"):
        shutil.rmtree(finished.root / name)
    (finished.root / "series.csv").unlink()
    assert "0 to run" in finished.run().out
    pd.testing.assert_frame_equal(table(finished), again)


def test_a_clone_trains_again_only_what_a_new_measurement_needs(finished: Tiny) -> None:
    kept = {
        name: (finished.root / name).read_bytes()
        for name in ("trials.csv", "curves.csv", "study.json")
    }
    shutil.rmtree(finished.root)
    finished.root.mkdir()
    for name, content in kept.items():
        (finished.root / name).write_bytes(content)
    ended = finished.run()
    assert (ended.code, f"{TRIALS} are done, 0 to run" in ended.out) == (0, True)
    assert all((finished.root / name).read_bytes() == content for name, content in kept.items())
    assert attempts(finished.root / "runs") == []

    before = table(finished)
    changed(finished, ("p90, 1.0]", "p90, 1.0, 2.0]"))
    ended = finished.run()
    assert "2 fits to train and 4 measurements" in ended.out
    assert ran(finished) == {"fit": 2, "rollout": 4}
    after = table(finished)
    fits = {path.name for path in (finished.root / "checkpoints").iterdir()}
    assert fits == set(after.loc[after["mixer"] == "mlp", "fit"])
    old = after.set_index("trial").loc[before["trial"]]
    pd.testing.assert_frame_equal(old, before.set_index("trial"))


def test_a_checkpoint_that_is_lost_is_made_again_with_the_same_result(finished: Tiny) -> None:
    before = table(finished)
    for name in ("runs", "checkpoints"):
        shutil.rmtree(finished.root / name)
    for name in ("trials.csv", "curves.csv"):
        (finished.root / name).unlink()
    assert finished.run().code == 0
    whole = table(finished)
    # Whether seeds train as one stack is measured anew; either way the results agree to rounding.
    pd.testing.assert_frame_equal(whole, before, rtol=1e-3)
    shutil.rmtree(finished.root / "checkpoints")
    changed(finished, ("p90, 1.0]", "p90, 1.0, 2.0]"))
    assert "2 fits to train and 4 measurements" in finished.run().out
    assert [one.number for one in attempts(finished.root / "runs")].count(2) == 2
    after = table(finished).set_index("trial")
    pd.testing.assert_frame_equal(after.loc[whole["trial"]], whole.set_index("trial"))


def test_other_streams_redraw_everything_into_a_folder_of_their_own(finished: Tiny) -> None:
    before = (finished.root / "trials.csv").read_bytes()
    ended = finished.run("--set", "streams=second", "--only", "mixer=gru")
    assert ended.code == 0, ended.err
    assert (finished.root / "trials.csv").read_bytes() == before
    folder = finished.root / "streams-second"
    first, second = table(finished), read_table(folder / "trials.csv")
    assert len(second) == 4
    assert set(second["fit"]).isdisjoint(first["fit"])
    assert set(second["held-out.loss"]).isdisjoint(first["held-out.loss"])
    noted = [json.loads((f / "study.json").read_text()) for f in (finished.root, folder)]
    assert set(noted[0]["hypotheses"]) == set(noted[1]["hypotheses"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'np.array([float(each.abs().max()) for each in flat])',
            "np.zeros(3)",
            "measurement 'norms', response 'largest': found shape (3,); allowed: (2,).",
        ),
        (
            '"power": powers,',
            '"power": powers[1:],',
            "response 'by_power': found shape (2, 3); allowed: (2, 2), a value for each 'power'.",
        ),
        ('"power": powers,', "", "response 'by_power': its index 'power' was not given."),
        ('"largest": np', '"smallest": np', "'largest': it was not given; found: smallest, by_power"),
    ],
)  # fmt: skip
def test_a_measurement_that_gives_something_else_is_refused_in_one_line(
    finished: Tiny, old: str, new: str, message: str
) -> None:
    assert MINE.count(old) == 1
    (finished.folder / "mine.py").write_text(MINE.replace(old, new))
    changed(finished, MEASURED)
    before = (finished.root / "trials.csv").read_bytes()
    assert message in finished.run("--only", "mixer=gru").line
    assert (finished.root / "trials.csv").read_bytes() == before


@pytest.mark.parametrize("missing", ["code", "file"])
def test_the_study_s_own_file_has_to_be_there(finished: Tiny, missing: str) -> None:
    changed(finished, ("held-out: {}}", MEASURED[1].replace("mine.py", "yours.py")))
    if missing == "code":
        changed(finished, ("held-out: {}}", "held-out: {}, norms: {}}"))
        assert "the measurement: 'norms' is not known" in finished.run().line
    else:
        assert "code: there is no file" in finished.run().line


@pytest.mark.parametrize("named", ["../mine.py", "[mine.py, 3]", "{mine.py: yes}", '""'])
def test_its_own_file_has_a_name_beside_it(finished: Tiny, named: str) -> None:
    changed(finished, ("held-out: {}}", MEASURED[1].replace("mine.py", named)))
    said = finished.run().line
    assert "code: found" in said
    assert "the name of a Python file beside this one, or a list of such" in said


def test_several_files_of_its_own_train_and_measure_nothing_anew(finished: Tiny) -> None:
    changed(finished, MEASURED)
    assert finished.run().code == 0
    before = (finished.root / "trials.csv").read_bytes()
    (finished.folder / "more.py").write_text("drawn = True\n")
    changed(finished, (MEASURED[0], MEASURED[1].replace("mine.py", "[mine.py, more.py]")))
    assert finished.run().code == 0
    assert (finished.root / "trials.csv").read_bytes() == before
    (finished.folder / "more.py").unlink()
    assert "code: there is no file" in finished.run().line


def test_streams_that_the_file_names_are_the_studys_own(tiny: Tiny) -> None:
    tiny.write("seeds: 2", "streams: second\nseeds: 2")
    assert tiny.run("--only", "mixer=gru").code == 0
    assert (tiny.root / "trials.csv").is_file()
    assert not (tiny.root / "streams-second").exists()
    assert tiny.run("--set", "streams=third", "--only", "mixer=gru").code == 0
    assert (tiny.root / "streams-third" / "trials.csv").is_file()
