"""Calibration of the values that a joint model predicts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_samples import make

from ablate.data.formats import files
from ablate.errors import UserError
from ablate.launch import single
from ablate.measure.values import _calibration
from ablate.study import presets


def test_the_line_and_the_errors_are_numpys() -> None:
    rng = np.random.default_rng(0)
    observed, predicted = rng.normal(3, 2, 500), rng.normal(1, 4, (3, 500))
    predicted[1] = observed
    found = _calibration(predicted, observed)
    for i, each in enumerate(predicted):
        assert found["slope"][i] == pytest.approx(np.polyfit(each, observed, 1)[0])
        assert found["error"][i] == pytest.approx(
            np.sqrt(np.mean((each - observed) ** 2)) / observed.std()
        )
    assert found["bias"][1] == found["error"][1] == 0
    # Twice as far apart as they should be.
    assert _calibration(2 * observed[None], observed)["slope"][0] == pytest.approx(0.5)
    assert all(np.isnan(v).all() for v in _calibration(predicted, np.ones(500)).values())


def test_a_joint_model_learns_values_without_a_simulator(tmp_path: Path) -> None:
    # The state says what every later reward of the episode will be, and how many there are.
    data = make([12] * 40, extras=False)
    sign = np.repeat(np.resize([-1.0, 1.0], 40), 12).astype(np.float32)
    seen = np.stack([sign, data.timestep / 12], axis=1).astype(np.float32)
    ends = data.terminations | data.truncations
    data = replace(
        data, observations=seen, rewards=sign, terminations=np.zeros_like(ends), truncations=ends
    )
    files.write(tmp_path / "signs.hdf5", data, "hdf5")
    small = (
        *("context=3", "model.width=32", "model.layers=1", "model.heads=2", "settings.bins=16", "train.points=1"),
        *("settings.discount=0.9", "train.learning_rate=0.005", "train.warmup=5", "measure.values={}"),
        *("measure.open-loop={horizon: 2, samples: 2, beginnings: 8}", "train.targets_per_update=96"),
    )  # fmt: skip
    found = []
    for updates in (1, 100):
        config = presets.configuration(
            "tt", f"file/{tmp_path}/signs.hdf5", [*small, f"train.updates={updates}"]
        )
        made = single.train(config, 0, tmp_path, tmp_path)
        found.append(made.metrics)
        assert made.remark.startswith("plan can't be measured on file/")
    before, after = found
    assert after["values.error"] < 0.5 < before["values.error"]
    assert abs(after["values.bias"]) < 0.3
    assert 0.7 < after["values.slope"] < 1.3
    assert not any(name.startswith("plan.") for name in after)


def test_policies_have_no_values(tmp_path: Path) -> None:
    files.write(tmp_path / "a.hdf5", make([5] * 4, extras=False), "hdf5")
    config = presets.configuration("bc", f"file/{tmp_path}/a.hdf5", ["measure.values={}"])
    with pytest.raises(
        UserError, match="'values' reads predicted values, which the algorithm 'bc'"
    ):
        single.train(config, 0, tmp_path, tmp_path)
