"""The tables of a study: what was committed, what the store holds, and what comes in."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ablate.config import complete, fit_part
from ablate.study.expand import Fit, Trial
from ablate.study.hypotheses import Hypothesis
from ablate.track.book import Book, Summary, tabled
from ablate.track.folder import StudyFolder
from ablate.track.recorder import Entry, Outcome, record
from ablate.track.table import read_series, read_table, write_table


@dataclasses.dataclass(frozen=True)
class Study:
    """As much of a study as the book asks for."""

    factors: Mapping[str, Any]
    hypotheses: tuple[Hypothesis, ...] = ()


STUDY = Study({"mixer": ("gru",), "context": (1, 20), "measure.rollout.episodes": (1, 2)})


def trial(seed: int, budget: int = 800, episodes: int = 1, **changes: Any) -> Trial:
    config = complete(
        {
            "data": "lq-mix/single", "mixer": "gru", "context": 20, "condition": "none",
            "history": "states+actions", "head": "mse",
            "train": {"checkpoints": [400], "converged": {"loss_fall": 0.1}},
            "measure": {"rollout": {"episodes": episodes}, "held-out": {}},
        }
        | changes
    )  # fmt: skip
    return Trial(Fit("s", seed, fit_part(config), "aa"), config, budget)


def folder(tmp_path: Path) -> StudyFolder:
    made = StudyFolder(tmp_path / "s", "s")
    made.register("h", {})
    return made


def put(tmp_path: Path, name: str, outcome: Outcome) -> None:
    record([Entry(name, {"seed": 0})], lambda logs: [outcome], tmp_path / "s" / "runs")


def finish(tmp_path: Path, one: Trial, score: float = 1.0) -> None:
    """Record its fit, and its measurements."""
    curve = [{"update": 400, "heldout_loss": 1 / 3}, {"update": 800, "heldout_loss": 0.1}]
    sizes = {"parameters": 9.0, "loss_fall": 0.05}
    put(tmp_path, one.fit.id, Outcome(sizes, curve=curve))
    series = [{"response": "by_time", "index": i, "value": score + i} for i in (1, 2)]
    put(
        tmp_path,
        one.rows["rollout"],
        Outcome({"score": score / 3, "jerk": math.nan}, series=series),
    )
    put(tmp_path, one.rows["held-out"], Outcome({"action_error": 0.25}))


def book(tmp_path: Path, *trials: Trial, study: Any = STUDY) -> Book:
    made = Book(folder(tmp_path), study, trials)
    made.write()
    return made


def test_a_row_needs_the_fit_and_all_that_is_measured_of_it(tmp_path: Path) -> None:
    one = trial(0)
    assert book(tmp_path, one).summary() == Summary(1, 0, 0, 1)
    put(tmp_path, one.fit.id, Outcome({"parameters": 9.0}))
    put(tmp_path, one.rows["rollout"], Outcome({"score": 1.0}))
    made = book(tmp_path, one)
    assert made.todo(False) == [one]
    assert not made.folder.table.exists()
    put(tmp_path, one.rows["held-out"], Outcome({"action_error": 0.25}))
    made.take([one.rows["held-out"]])
    assert made.summary() == Summary(1, 1, 0, 0)
    (row,) = read_table(made.folder.table).to_dict("records")
    assert (row["trial"], row["fit"], row["status"]) == (one.id, one.fit.id, "COMPLETED")
    assert (row["rollout.row"], row["held-out.row"]) == tuple(one.rows.values())
    assert (row["rollout.score"], row["held-out.action_error"], row["parameters"]) == (1, 0.25, 9)


def test_columns_come_in_order_and_tell_factors_from_responses(tmp_path: Path) -> None:
    one = trial(0)
    finish(tmp_path, one)
    table = read_table(book(tmp_path, one).folder.table)
    assert list(table.columns) == [
        *("trial", "fit", "status", "data", "mixer", "context", "condition", "history", "head"),
        *("train.updates", "train.targets_per_update", "model.parameters"),
        *("measure.rollout.episodes", "budget", "seed"),
        *("held-out.row", "held-out.action_error", "rollout.row", "rollout.jerk", "rollout.score"),
        *("converged", "loss_fall", "parameters", "failure"),
    ]
    assert table["rollout.jerk"].isna().all()


def test_the_table_does_not_depend_on_the_way_there(tmp_path: Path) -> None:
    trials = [trial(1), trial(0), trial(0, 400), trial(0, episodes=2), trial(1, context=1)]
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    for one in trials:
        finish(straight, one, one.seed + 0.1)
    expected = book(straight, *trials).folder
    put(broken, trials[1].fit.id, Outcome(failure="NaN loss"))
    part = book(broken, *trials)
    assert [row["failure"] for row in part.lines()] == ["NaN loss"] * 3
    assert part.summary() == Summary(5, 0, 3, 2)
    assert len(part.todo(False)) == 2
    assert len(part.todo(True)) == 5
    for one in reversed(trials):
        finish(broken, one, one.seed + 0.1)
    found = book(broken, *reversed(trials)).folder
    for name in ("trials.csv", "curves.csv", "series.csv"):
        assert (found.root / name).read_bytes() == (expected.root / name).read_bytes()
    table = read_table(found.table)
    assert list(table["budget"]) == [800, 400, 800, 800, 800]
    assert len(read_series(found.series)) == 10


def test_what_a_table_knows_is_not_asked_for_again(tmp_path: Path) -> None:
    """A clone without a run store; a measurement that two trials share is known to both."""
    here, there = tmp_path / "here", tmp_path / "there"
    one, other = trial(0), trial(0, episodes=2)
    finish(here, one)
    made = book(here, one).folder
    clone = folder(there)
    for name in ("trials.csv", "curves.csv"):
        (clone.root / name).write_bytes((made.root / name).read_bytes())
    again = book(there, one, other)
    assert again.todo(False) == [other]
    assert again.known.rows.keys() == set(one.rows.values())
    assert other.rows["held-out"] in again.known.rows
    assert (clone.root / "trials.csv").read_bytes() == made.table.read_bytes()
    put(there, other.rows["rollout"], Outcome({"score": 2.0}))
    done = book(there, one, other)
    assert done.todo(False) == []
    table = read_table(done.folder.table)
    assert list(table["held-out.action_error"]) == [0.25, 0.25]


def test_results_of_other_profiles_stay_and_those_of_other_code_are_replaced(
    tmp_path: Path,
) -> None:
    one, far = trial(0), trial(0, context=1)
    for each in (one, far):
        finish(tmp_path, each)
    book(tmp_path, one, far)
    config = one.config | {"train": one.config["train"] | {"clip": 0.5}}
    newer = Trial(Fit("s", 0, fit_part(config), "aa"), config, 800)
    made = book(tmp_path, newer)
    assert made.outdated() == 1
    assert set(read_table(made.folder.table)["trial"]) == {one.id, far.id}
    finish(tmp_path, newer)
    assert set(read_table(book(tmp_path, newer).folder.table)["trial"]) == {newer.id, far.id}


def test_a_later_failure_does_not_undo_a_result(tmp_path: Path) -> None:
    one = trial(0)
    finish(tmp_path, one)
    before = book(tmp_path, one).folder.table.read_bytes()
    put(tmp_path, one.fit.id, Outcome(failure="out of memory"))
    put(tmp_path, one.rows["rollout"], Outcome(failure="out of memory"))
    assert book(tmp_path, one).folder.table.read_bytes() == before


def test_a_measurement_that_fails_fails_its_trials_alone(tmp_path: Path) -> None:
    one, other = trial(0), trial(0, episodes=2)
    finish(tmp_path, one)
    put(tmp_path, other.rows["rollout"], Outcome(failure="no such body"))
    made = book(tmp_path, one, other)
    assert [made.status(each) for each in (one, other)] == [
        ("COMPLETED", ""), ("FAILED", "rollout: no such body"),
    ]  # fmt: skip


def test_whether_a_fit_has_converged_is_said_at_its_last_budget(tmp_path: Path) -> None:
    trials = [trial(0, 400), trial(0)]
    for one in trials:
        finish(tmp_path, one)
    table = read_table(book(tmp_path, *trials).folder.table).set_index("budget")
    assert math.isnan(table.loc[400, "converged"])
    # The loss fell by 0.05 of its whole fall, and 0.1 is asked for.
    assert table.loc[800, "converged"] == 1


def test_a_value_at_one_place_of_an_index_has_a_column_where_a_hypothesis_needs_it(
    tmp_path: Path,
) -> None:
    claim = Hypothesis(
        id="h", says="So.", contrast="context[20]", test="difference", metric="rollout.by_time@2"
    )
    one, study = trial(0), dataclasses.replace(STUDY, hypotheses=(claim,))
    finish(tmp_path, one, 0.5)
    made = book(tmp_path, one, study=study)
    assert read_table(made.folder.table)["rollout.by_time@2"].tolist() == [2.5]
    made.folder.series.unlink()
    shutil.rmtree(made.folder.runs)  # as in a clone
    again = book(tmp_path, one, study=study)
    assert read_table(again.folder.table)["rollout.by_time@2"].tolist() == [2.5]
    assert "rollout.by_time@2" not in read_table(book(tmp_path, one).folder.table)


TOLD = {"condition": "time", "history": "states+actions"}  # what the exact posterior knows


@pytest.mark.parametrize("budget", [400, 800])
def test_the_exact_posterior_s_error_is_the_yardstick_of_convergence(
    tmp_path: Path, budget: int
) -> None:
    one = trial(0, budget)
    criterion = {"converged": {"loss_fall": None, "excess_error": 0.04}}
    config = one.config | TOLD | {"train": one.config["train"] | criterion}
    one = Trial(one.fit, config, budget)
    finish(tmp_path, one)  # an action error of 0.25
    where = folder(tmp_path).root / "yardsticks.csv"
    for best, expected in ((0.22, 1), (0.2, 0)):
        row = {"data": "lq-mix/single", "content": "aa", "context": 20, "action_error": best}
        write_table(pd.DataFrame([row]), where)
        table = read_table(book(tmp_path, one).folder.table)
        if budget == 800:
            assert table["converged"].tolist() == [expected]
        else:
            assert "converged" not in table


@pytest.mark.parametrize(
    "other", [{"condition": "return-to-go+time"}, {"condition": "none"}, {"history": "states"}]
)
def test_who_is_told_something_else_isn_t_measured_by_the_exact_posterior(
    tmp_path: Path, other: dict[str, str]
) -> None:
    one = trial(0, 800)
    criterion = {"converged": {"loss_fall": None, "excess_error": 0.04}}
    config = one.config | TOLD | other | {"train": one.config["train"] | criterion}
    one = Trial(one.fit, config, 800)
    finish(tmp_path, one)
    row = {"data": "lq-mix/single", "content": "aa", "context": 20, "action_error": 0.2}
    write_table(pd.DataFrame([row]), folder(tmp_path).root / "yardsticks.csv")
    assert read_table(book(tmp_path, one).folder.table)["converged"].isna().all()


def test_a_table_holds_some_places_of_a_long_index() -> None:
    """The first, the last and others at equal ratios, where there is a value; once more makes no difference."""
    made = [{"response": "rmse", "index": h, "value": 0.1 * h} for h in range(1, 51)]
    untold = [{"response": "invalid", "index": h, "value": 0.0} for h in range(1, 51)]
    undefined = [{"response": "floor_rmse", "index": h, "value": math.nan} for h in range(1, 51)]
    found = tabled("open-loop", made + untold + undefined)
    assert [p["index"] for p in found] == [1, 2, 3, 4, 6, 8, 12, 17, 25, 35, 50]
    assert all(p["response"] == "rmse" and p["value"] == 0.1 * p["index"] for p in found)
    assert tabled("open-loop", found) == found


def test_a_clone_without_runs_keeps_one_copy_of_what_trials_share(tmp_path: Path) -> None:
    """Two trials that differ in a measurement's option share the rows of the other: its values over an index too."""
    one, other = trial(0), trial(0)
    other.config["measure"] = {**other.config["measure"], "held-out": {"more": 1}}
    object.__setattr__(other, "id", "another")
    finish(tmp_path, one)
    study = dataclasses.replace(STUDY, factors={"mixer": ("gru",)})
    first = read_series(book(tmp_path, one, other, study=study).folder.series)
    assert len(first) == 4  # two values of two trials
    shutil.rmtree(tmp_path / "s" / "runs")
    for _ in range(2):
        again = book(tmp_path, one, other, study=study)
        assert len(again.known.series[one.rows["rollout"]]) == 2
        assert read_series(again.folder.series).equals(first)


def test_failures_of_a_committed_table_are_done_until_they_are_asked_for_again(
    tmp_path: Path,
) -> None:
    fit_failed, row_failed, fine = trial(0), trial(1), trial(2)
    put(tmp_path, fit_failed.fit.id, Outcome(failure="diverged: loss 9 at update 3"))
    finish(tmp_path, fine)
    put(tmp_path, row_failed.fit.id, Outcome({"parameters": 9.0, "loss_fall": 0.05}))
    put(tmp_path, row_failed.rows["rollout"], Outcome(failure="it fell over: badly"))
    trials = (fit_failed, row_failed, fine)
    before = read_table(book(tmp_path, *trials).folder.table)
    shutil.rmtree(tmp_path / "s" / "runs")
    made = book(tmp_path, *trials)
    assert made.summary() == Summary(3, 1, 2, 0)
    assert read_table(made.folder.table).equals(before)
    assert row_failed.fit.id in made.known.fits  # trained: only what failed is measured again
    assert [one.seed for one in made.todo(retry_failed=True)] == [0, 1]
