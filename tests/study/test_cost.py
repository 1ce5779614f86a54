"""The estimate of how long a study takes."""

import copy
from typing import Any

import pytest

from ablate.study.cost import fit_seconds, measure_seconds, spell, trial_seconds, wall_seconds

CONFIG: dict[str, Any] = {
    "mixer": "gru",
    "context": 20,
    "model": {"parameters": 16_000},
    "train": {"updates": 100, "targets_per_update": 128},
    "measure": {"rollout": {"episodes": 50}, "held-out": {}},
}


def test_a_measured_pace_is_used() -> None:
    slow, fast = trial_seconds(CONFIG, 0.25), trial_seconds(CONFIG, 0.05)
    assert slow - fast == pytest.approx(100 * 0.2)


def test_a_trial_is_its_fit_and_what_is_measured_of_it() -> None:
    parts = [measure_seconds(CONFIG, n, o) for n, o in CONFIG["measure"].items()]
    assert trial_seconds(CONFIG) == pytest.approx(fit_seconds(CONFIG) + sum(parts))
    twice = measure_seconds(CONFIG, "rollout", {"episodes": 100})
    assert twice == pytest.approx(2 * parts[0])
    searched = {"episodes": 50, "beam": 64, "horizon": 15}
    assert measure_seconds(CONFIG, "plan", searched) > parts[0]


def test_without_a_measurement_cost_grows_with_context_and_parameters() -> None:
    base = trial_seconds(CONFIG)
    assert trial_seconds({**CONFIG, "context": 5}) < base
    larger = copy.deepcopy(CONFIG)
    larger["model"]["parameters"] = 160_000
    assert trial_seconds(larger) > base


def test_an_unknown_mixer_costs_the_mean_of_the_known_ones() -> None:
    cheap = trial_seconds({**CONFIG, "mixer": "mlp"})
    assert cheap < trial_seconds({**CONFIG, "mixer": "my-own"}) < trial_seconds(CONFIG)


def test_workers_share_the_work_and_the_longest_job_is_waited_for() -> None:
    assert wall_seconds([1.0, 2.0, 3.0], 2) == 3.0
    assert wall_seconds([1.0] * 8, 2) == 4.0
    assert wall_seconds([5.0, 1.0], 8) == 5.0
    assert wall_seconds([], 2) == 0.0


@pytest.mark.parametrize(("seconds", "words"), [(12, "12 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations_are_said_in_the_right_size(seconds: float, words: str) -> None:
    assert spell(seconds) == words


def test_a_measurement_may_say_what_it_costs() -> None:
    config = {
        **CONFIG,
        **{"algorithm": "joint", "data": "lq-mix/single", "reading": {}, "condition": "none"},
        **{
            "layout": "dimension",
            "head": "categorical",
            "history": "states",
            "input": "continuous",
        },
        **{"settings": {}, "model": {"parameters": 16_000, "timesteps": 0, "width": None}},
    }
    options = {"beginnings": 10, "samples": 2, "horizon": 5, "sampling": "draw"}
    once = measure_seconds(config, "open-loop", options)
    assert once > 0
    assert measure_seconds(config, "open-loop", options | {"horizon": 10}) == 2 * once
