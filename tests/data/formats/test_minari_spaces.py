"""Flattening as gymnasium does it."""

import json

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.data.formats import minari_spaces
from ablate.data.formats.minari import _as_json
from ablate.errors import UserError

ROWS = 4


def box(low, high, shape):
    return spaces.Box(low, high, shape, np.float32)


leaves = st.one_of(
    st.tuples(st.integers(1, 3), st.integers(1, 3)).map(lambda shape: box(-3, 5, shape)),
    st.tuples(st.integers(1, 4), st.integers(-2, 2)).map(
        lambda of: spaces.Discrete(of[0], start=of[1])
    ),
    st.lists(st.integers(1, 3), min_size=1, max_size=3).map(spaces.MultiDiscrete),
    st.integers(1, 3).map(spaces.MultiBinary),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
        st.dictionaries(st.sampled_from("abcde"), inner, min_size=1, max_size=3).map(spaces.Dict),
    ),
    max_leaves=5,
)


def stored(space, samples, key):
    """The arrays below a key as Minari stores them."""
    if isinstance(space, spaces.Dict):
        parts = {name: (part, [s[name] for s in samples]) for name, part in space.spaces.items()}
    elif isinstance(space, spaces.Tuple):
        parts = {f"_index_{i}": (p, [s[i] for s in samples]) for i, p in enumerate(space.spaces)}
    else:
        return {key: np.stack([np.asarray(sample) for sample in samples])}
    arrays = {}
    for name, (part, inside) in parts.items():
        arrays |= stored(part, inside, f"{key}/{name}")
    return arrays


@given(trees, st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_observations_are_flattened_in_gymnasiums_order(space, seed):
    space.seed(seed)
    samples = [space.sample() for _ in range(ROWS)]
    arrays = stored(space, samples, "observations")
    parsed = minari_spaces.parse("here", json.dumps(_as_json(space)))
    flat = minari_spaces.observations("here", parsed, "observations", arrays.__getitem__, ROWS)
    assert parsed.width == spaces.flatdim(space)
    wanted = np.stack([spaces.flatten(space, sample) for sample in samples])
    np.testing.assert_array_equal(flat, wanted.astype(np.float32))


@pytest.mark.parametrize("name", ["Pendulum-v1", "CartPole-v1"])
def test_actions_are_what_the_environment_adapter_turns_back(name):
    from ablate.envs.gymnasium_env import Gymnasium

    space = gymnasium.make(name).action_space
    space.seed(3)
    samples = np.stack([np.asarray(space.sample()) for _ in range(20)])
    parsed = minari_spaces.parse("here", _as_json(space))
    minari_spaces.check_actions("here", parsed)
    scaled = minari_spaces.actions("here", parsed, "actions", {"actions": samples}.__getitem__, 20)
    assert scaled.dtype == np.float32
    assert np.abs(scaled).max() <= 1
    env = Gymnasium(1, name)
    for sample, action in zip(samples, scaled, strict=True):
        np.testing.assert_allclose(env._to_action(action), sample, atol=1e-6)


def test_several_choices_at_once():
    space = spaces.MultiDiscrete([2, 3], start=[1, 5])
    parsed = minari_spaces.parse("here", _as_json(space))
    logged = {"actions": np.array([[1, 5], [2, 7]])}
    scaled = minari_spaces.actions("here", parsed, "actions", logged.__getitem__, 2)
    np.testing.assert_array_equal(scaled, [[1, -1, 1, -1, -1], [-1, 1, -1, -1, 1]])


BOX = {"type": "Box", "shape": [2], "low": [-1, -1], "high": [1, 1]}
UNREADABLE = {
    "no JSON": ("{", "can't be understood"),
    "no mapping": ("3", "can't be understood"),
    "no type": ("{}", "can't be understood"),
    "text": ({"type": "Text", "max_length": 3}, "a space of type Text has no fixed number"),
    "deep": ('{"type": "Tuple", "subspaces": [' * 10_000, "can't be understood"),
    "bounds": ({**BOX, "low": [-1]}, "the bounds differ in shape"),
    "empty": ({**BOX, "shape": [0], "low": [], "high": []}, "can't be understood"),
    "ragged": ({**BOX, "low": [[1], [1, 2]]}, "can't be understood"),
    "choices": ({"type": "Discrete", "n": 10**12}, "choices; 1 to 65536 are allowed"),
    "no choice": ({"type": "Discrete", "n": 0}, "choices; 1 to 65536 are allowed"),
    "half": ({"type": "Discrete", "n": 2.5}, "whole numbers"),
    "starts": ({"type": "MultiDiscrete", "nvec": [2, 2], "start": [0]}, "differ in length"),
    "no parts": ({"type": "Dict", "subspaces": {}}, "without parts"),
    "names": ({"type": "Dict", "subspaces": {"a/b": BOX}}, "without a name"),
    "a list": ({"type": "Dict", "subspaces": [BOX]}, "can't be understood"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_spaces_that_cannot_be_read_are_refused(case):
    found, message = UNREADABLE[case]
    with pytest.raises(UserError, match=message) as caught:
        minari_spaces.parse("here", found)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"type": "MultiBinary", "n": 3}, "actions of MultiBinary; allowed: Box"),
        ({"type": "Dict", "subspaces": {"a": BOX}}, "actions of Dict; allowed: Box"),
        ({**BOX, "high": [1, np.inf]}, "actions without bounds"),
        ({**BOX, "high": [1, -1]}, "a lower bound of the actions isn't below"),
    ],
)
def test_actions_need_bounds(found, message):
    with pytest.raises(UserError, match=message):
        minari_spaces.check_actions("here", minari_spaces.parse("here", found))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([0, 1, 2, 3]), r"row 3 is 3, which is none of the 3 choices"),
        (np.array([0, -1, 2, 3]), r"row 1 is -1, which is none of the 3 choices"),
        (np.zeros(4), "has type float64 and 1 numbers a row; the space has 1 whole"),
        (np.zeros((4, 2), int), "has type int64 and 2 numbers a row; the space has 1 whole"),
        (np.zeros(3, int), r"'x' has shape \(3,\); 4 rows are needed"),
        (np.array(3), r"'x' has shape \(\); 4 rows are needed"),
    ],
)
def test_arrays_must_fit_their_space(array, message):
    space = minari_spaces.parse("here", {"type": "Discrete", "n": 3})
    with pytest.raises(UserError, match=message):
        minari_spaces.observations("here", space, "x", lambda key: array, ROWS)
