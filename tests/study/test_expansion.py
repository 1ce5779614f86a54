"""Cells, trials and cohorts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from study_samples import TEXT, changed, loaded, made_up_lab

from ablate.config import complete, settled
from ablate.errors import UserError
from ablate.study.expand import cells, cohorts, frame, lookup, only, trials

HASHES = {"lab/mixed": "aa", "lab/plain": "bb"}


@pytest.fixture(autouse=True)
def lab() -> Iterator[None]:
    with made_up_lab():
        yield


def test_cells_that_designs_share_are_one_cell(tmp_path: Path) -> None:
    study = loaded(tmp_path)
    found = cells(study)
    core, extra, shared = 2 * 3 * 2 * 2, 2 * 2 * 2, 2 * 2
    assert len(found) == core + extra - shared
    both = [c for c in found if c.designs == ("core", "extra")]
    assert len(both) == shared
    assert not frame(found, study).duplicated().any()


def test_a_factor_that_a_design_does_not_name_stays_at_its_first_level(tmp_path: Path) -> None:
    for cell in cells(loaded(tmp_path)):
        assert (cell.levels["history"], cell.levels["head"]) == ("states+actions", "mse")


def test_cells_come_in_declared_order_whatever_the_order_of_designs(tmp_path: Path) -> None:
    start, middle, end = (TEXT.index(t) for t in ("  core:\n", "  extra:\n", "model:"))
    swapped = TEXT[:start] + TEXT[middle:end] + TEXT[start:middle] + TEXT[end:]
    study = loaded(tmp_path)
    table = frame(cells(study), study)
    assert table.equals(frame(cells(loaded(tmp_path, swapped)), study))
    assert list(table["data"].unique()) == ["lab/mixed", "lab/plain"]
    assert list(table["mixer"].unique()) == ["attention", "gru", "mlp"]


def test_the_configuration_is_complete_plain_json(tmp_path: Path) -> None:
    config = cells(loaded(tmp_path))[0].config
    assert config == complete(config)
    assert (config["algorithm"], config["layout"], config["settings"]) == ("bc", "step", {})
    assert config["train"]["targets_per_update"] == 128
    assert settled(config)["model"] == {
        "parameters": 1000, "tolerance": 0.05, "layers": 2, "dropout": 0.0,
    }  # fmt: skip


def test_a_setting_may_be_a_factor(tmp_path: Path) -> None:
    text = changed("  head: [mse", "  train.learning_rate: [1e-3, 0.01]\n  head: [mse")
    text = text.replace("    mixer: all\n", "    mixer: all\n    train.learning_rate: all\n")
    study = loaded(tmp_path, text)
    assert study.factors["train.learning_rate"] == (0.001, 0.01)
    rates = [lookup(c.config, "train.learning_rate") for c in cells(study)]
    assert sorted(set(rates)) == [0.001, 0.01]
    assert "train.learning_rate" in frame(cells(study), study).columns
    assert "train.learning_rate" not in cells(study)[0].config


def test_trials_are_cells_times_seeds_and_a_cohort_is_a_cell(tmp_path: Path) -> None:
    study = loaded(tmp_path)
    every = trials(study, HASHES)
    assert len(every) == len(cells(study)) * 4
    assert len({t.id for t in every}) == len(every)
    groups = cohorts(every)
    assert len(groups) == len(cells(study))
    assert len({c.id for c in groups}) == len(groups)
    assert all(c.seeds == (0, 1, 2, 3) for c in groups)
    assert {t.id for c in groups for t in c.trials} == {t.id for t in every}


def test_a_cohort_keeps_its_id_when_some_of_its_trials_are_done(tmp_path: Path) -> None:
    every = trials(loaded(tmp_path), HASHES)
    assert cohorts(every)[0].id == cohorts(every[1:3])[0].id


def test_only_keeps_what_it_names(tmp_path: Path) -> None:
    study = loaded(tmp_path)
    every = trials(study, HASHES)
    kept = only(study, every, "mixer=gru, context=20, mixer=mlp")
    assert {t.config["mixer"] for t in kept} == {"gru", "mlp"}
    assert {t.config["context"] for t in kept} == {20}
    for text, fragment in {
        "mixer": "expected FACTOR=LEVEL",
        "mixr=gru": "Did you mean 'mixer'",
        "mixer=gruu": "Did you mean 'gru'",
        "context=5": "no such cell",
    }.items():
        with pytest.raises(UserError, match=fragment):
            only(study, every, text)
