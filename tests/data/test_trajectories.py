"""Trajectories: derived quantities, selection, and every rule of `validate`."""

from dataclasses import replace

import numpy as np
import pytest
from data_samples import make
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.errors import UserError

lengths = st.lists(st.integers(1, 7), min_size=1, max_size=8)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(lengths, st.integers(0, 5))
def test_derived_quantities_match_a_loop(lengths, seed):
    data = make(lengths, seed).validate()
    assert data.num_episodes == len(lengths)
    np.testing.assert_array_equal(data.lengths, lengths)
    for e, (a, b) in enumerate(zip(data.episode_starts, data.episode_starts[1:], strict=False)):
        np.testing.assert_array_equal(data.timestep[a:b], np.arange(b - a))
        rewards = data.rewards[a:b].astype(np.float64)
        np.testing.assert_allclose(data.returns[e], rewards.sum(), atol=1e-12)
        to_go = [rewards[i:].sum() for i in range(b - a)]
        np.testing.assert_allclose(data.returns_to_go[a:b], to_go, atol=1e-6)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(lengths, st.data())
def test_selection_is_the_episodes_one_after_the_other(lengths, draw):
    data = make(lengths)
    chosen = draw.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=6))
    part = data.select(chosen).validate()
    np.testing.assert_array_equal(part.lengths, np.array(lengths)[chosen])
    for name, array in part.arrays.items():
        if name != "episode_starts":
            whole = data.arrays[name]
            pieces = [whole[data.episode_starts[e] : data.episode_starts[e + 1]] for e in chosen]
            np.testing.assert_array_equal(array, np.concatenate(pieces))


def test_long_sums_of_rewards_stay_exact():
    data = make([3, 4], extras=False)
    big = replace(data, rewards=np.array([1e7, 1, 1, 0.5, 0.25, 0.25, 1], dtype=np.float32))
    np.testing.assert_array_equal(big.returns_to_go[3:], [2.0, 1.5, 1.25, 1.0])


def test_the_content_hash_sees_everything_but_the_name():
    data = make([3, 4])
    assert data.content_hash == make([3, 4]).content_hash
    assert data.content_hash == replace(make([3, 4]), name="other").content_hash
    assert len(data.content_hash) >= 12
    seen = {data.content_hash, replace(data, goal=None).content_hash}
    for name, array in data.arrays.items():
        changed = array.copy()
        changed[0] = ~changed[0] if changed.dtype == bool else changed[0] + 1
        seen.add(replace(data, **{name: changed}).content_hash)
    assert len(seen) == 2 + len(data.arrays)


def test_observing_fewer_coordinates_changes_nothing_else():
    data = make([3, 4])
    shown = data.observe([2, 0], "twin").validate()
    assert shown.name == "twin"
    np.testing.assert_array_equal(shown.observations, data.observations[:, [2, 0]])
    for name in ("actions", "rewards", "behaviour_action", "simulator_state"):
        np.testing.assert_array_equal(getattr(shown, name), getattr(data, name))


def put(array, index, value):
    changed = array.copy()
    changed[index] = value
    return changed


BASE = make([3, 4, 2])
RULES = {
    "type": ({"rewards": BASE.rewards.astype(np.float64)}, "rewards has type float64; float32"),
    "not an array": ({"rewards": [0.0] * 9}, "rewards has type list"),
    "axes": ({"observations": BASE.observations[:, 0].copy()}, r"observations has shape \(9,\)"),
    "no column": ({"actions": BASE.actions[:, :0]}, r"actions has shape \(9, 0\); at least one"),
    "length": ({"rewards": BASE.rewards[:-1]}, "rewards has 8 rows; observations has 9"),
    "extra length": ({"goal": BASE.goal[:-1]}, "goal has 8 rows"),
    "nan": ({"observations": put(BASE.observations, (4, 1), np.nan)}, "row 4, column 1 is nan"),
    "inf": ({"rewards": put(BASE.rewards, 2, np.inf)}, "rewards row 2 is inf; every value"),
    "extra nan": ({"behaviour_logp": put(BASE.behaviour_logp, 1, np.nan)}, "behaviour_logp row 1"),
    "bounds": (
        {"actions": put(BASE.actions, (5, 0), 1.5)},
        r"actions row 5, column 0 is 1.5; actions must",
    ),
    "mean bounds": (
        {"behaviour_action": put(BASE.behaviour_action, (8, 1), -2)},
        r"behaviour_action row 8, column 1 is -2.0; actions must lie in \[-1, 1\]",
    ),
    "no offsets": ({"episode_starts": np.array([0])}, "episode_starts has 1 entries"),
    "first offset": ({"episode_starts": np.array([1, 3, 7, 9])}, "row 0 is 1; it must be 0"),
    "last offset": ({"episode_starts": np.array([0, 3, 7, 8])}, "row 3 is 8; it must be 9"),
    "order": ({"episode_starts": np.array([0, 3, 3, 9])}, "row 2 is 3 after 3; offsets must incr"),
    "early end": ({"terminations": put(BASE.terminations, 1, True)}, "terminations row 1 is True"),
    "early limit": ({"truncations": put(BASE.truncations, 3, True)}, "truncations row 3 is True"),
    "ids": ({"behaviour_id": put(BASE.behaviour_id, 6, -1)}, "behaviour_id row 6 is -1"),
    "shapes": (
        {"behaviour_action": BASE.behaviour_action[:, :1].copy()},
        r"behaviour_action has shape \(9, 1\); actions has \(9, 2\)",
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_names_the_array_and_the_row(rule):
    change, message = RULES[rule]
    with pytest.raises(UserError, match=message) as caught:
        replace(BASE, **change).validate()
    assert str(caught.value).startswith("sample: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("chosen", "found"), [([], "no episode"), ([3], "episode 3"), ([-1], "-1")]
)
def test_a_wrong_selection_is_refused(chosen, found):
    with pytest.raises(UserError, match=found):
        BASE.select(chosen)
