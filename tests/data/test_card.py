"""The card says what is in the data."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_samples import make

from ablate.data.card import autocorrelation, card, clipped, facts, histogram
from ablate.data.catalogue import load


def test_a_histogram_has_the_shape_of_the_counts() -> None:
    bars = histogram(np.concatenate([np.zeros(8), np.full(2, 29.0), [30.0]]))
    assert len(bars) == 30
    assert bars[0] == "█"
    assert bars[-1] == "▃"
    assert set(bars[1:-1]) == {" "}


def test_autocorrelation_is_within_episodes() -> None:
    data = make([500, 500])
    rng = np.random.default_rng(0)
    noise, actions = rng.standard_normal((1000, 2)), np.zeros((1000, 2))
    for t in range(1, 1000):
        actions[t] = np.array([0.9, 0.0]) * actions[t - 1] + noise[t]
    actions = (actions / np.abs(actions).max()).astype(np.float32)
    text = autocorrelation(replace(data, actions=actions))
    low, high = (float(each) for each in text.split("(")[1].rstrip(")").split(" to "))
    assert abs(low) < 0.1
    assert 0.85 < high < 0.95


def test_clipped_coordinates_are_found_and_others_arent() -> None:
    data = make([400, 600])
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((1000, 3)).astype(np.float32)
    rows[:, 1] = np.clip(rows[:, 1], -np.inf, 1.645)
    rows[:, 2] = rng.integers(2, size=1000)  # a flag isn't clipped
    text = clipped(replace(data, observations=rows))
    share = float(text.split("%")[0])
    assert 3 < share < 7
    assert "coordinates 1 (" in text
    assert " 2 (" not in text


def test_a_card_tells_of_returns_policies_and_hiding(cache: Path) -> None:
    data = load("lq-mix/step@mask-velocity", cache)
    found = facts(data)
    assert found["hidden"].startswith("mask-velocity: 2 of 4 coordinates shown")
    assert found["content"] == data.content_hash
    assert f"{np.median(data.train.returns):.4g}" in found["returns"]
    sections = card(data, dose=False)
    shares = [float(row[1].rstrip("%")) for row in sections[1].rows]
    stays = [float(row[2].rstrip("%")) for row in sections[1].rows]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert all(abs(each - 50) < 2 for each in stays)


def test_the_exact_values_stand_on_the_card(cache: Path) -> None:
    sections = card(load("chain/gamble-episode-v0", cache), dose=False)
    table = sections[-1]
    assert table.title == "Exact values"
    optimal = dict(
        zip(table.columns, next(r for r in table.rows if r[0] == "optimal"), strict=True)
    )
    assert (optimal["return"], optimal["score"]) == ("6", "100")


@pytest.mark.slow
def test_the_dose_meter_tells_who_acts_only_where_the_past_does(cache: Path) -> None:
    rows = {}
    for mixing in ("episode", "step"):
        data = load(f"lq-mix/{mixing}", cache)
        rows[mixing] = card(data)[-1].rows
    of_state, of_action = rows["episode"]
    low, high = of_action[2].split("(")[1].rstrip(")").split(" to ")
    assert 0 < float(low) < float(high)
    assert abs(float(of_state[2].split(" ")[0])) < 0.005
    assert abs(float(rows["step"][1][2].split(" ")[0])) < 0.005
