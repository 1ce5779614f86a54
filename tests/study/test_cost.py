"""The estimate of how long a study takes."""

from pathlib import Path

import pytest
from study_samples import loaded, made_up_lab

from ablate.study.cost import Calibration, estimate, seconds
from ablate.study.expand import Trial, trials

HASHES = {"lab/mixed": "aa", "lab/plain": "bb"}


@pytest.fixture
def every(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    made_up_lab(monkeypatch)
    return trials(loaded(tmp_path), HASHES)


def test_a_trial_costs_updates_times_timesteps_and_its_episodes(every: list[Trial]) -> None:
    trial = next(t for t in every if t.config["mixer"] == "gru" and t.config["context"] == 20)
    rates = Calibration({"gru": 16e-6}, seconds_per_update=0.25, seconds_per_episode=0.5)
    timesteps = 100 * 128 * 20  # updates, targets, context; a rate for 16 times the parameters
    assert seconds(trial, rates) == pytest.approx(timesteps * 1e-6 + 100 * 0.25 + 50 * 0.5)


def test_workers_share_the_work(every: list[Trial]) -> None:
    one, four = estimate(every, 1), estimate(every, 4)
    assert one.work == one.wall == pytest.approx(4 * four.wall)
    assert sum(one.by_mixer.values()) == pytest.approx(one.work)


def test_the_longest_trial_is_waited_for(every: list[Trial]) -> None:
    cost = estimate(every[:2], 64)
    assert cost.wall == max(seconds(t, Calibration()) for t in every[:2])


def test_a_mixer_that_was_not_measured_costs_the_mean(every: list[Trial]) -> None:
    trial = next(t for t in every if t.config["mixer"] == "mlp")
    mean = seconds(trial, Calibration({"gru": 1e-6, "attention": 3e-6}))
    assert mean == pytest.approx(seconds(trial, Calibration({"mlp": 2e-6})))
