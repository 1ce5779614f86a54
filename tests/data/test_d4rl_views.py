"""D4RL's two views of a file against what the d4rl package gives (d4rl_expected.json says how)."""

import hashlib
import json
import os
from pathlib import Path

import d4rl_files
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.data.d4rl_views import qlearning_view, rows, sequence_views
from ablate.errors import UserError

EXPECTED = json.loads((Path(__file__).parent / "d4rl_expected.json").read_text())
PLACES = [
    Path(__file__).parents[3] / "shared" / "data" / "d4rl",
    Path(os.environ.get("D4RL_DATASET_DIR") or "none"),
]
DOOR = next(
    (p for p in (place / "door-v0_demos_clipped.hdf5" for place in PLACES) if p.is_file()), None
)
genuine = pytest.mark.skipif(
    DOOR is None, reason="door-v0_demos_clipped.hdf5 is neither beside the project nor fetched"
)


@pytest.mark.parametrize("name", d4rl_files.FILES)
def test_views_are_those_of_the_package(name, tmp_path):
    path = d4rl_files.write(name, tmp_path / "a.hdf5")
    expected = EXPECTED["files"][name]
    pieces = list(sequence_views(path, d4rl_files.HORIZON))
    assert [list(piece) for piece in pieces] == [list(piece) for piece in expected["pieces"]]
    assert [d4rl_files.summary(piece) for piece in pieces] == expected["pieces"]
    for key, flag in (("transitions", False), ("transitions-terminating", True)):
        view = qlearning_view(path, d4rl_files.HORIZON, terminate_on_end=flag)
        assert d4rl_files.summary(view) == expected[key]


@genuine
def test_views_of_a_genuine_file():
    expected = EXPECTED["door-human-v0"]
    found = rows(DOOR)
    assert list(found) == expected["keys"]
    pieces = list(sequence_views(found))
    assert len(pieces) == 50
    digests = [
        hashlib.sha256(json.dumps(d4rl_files.summary(piece)).encode()).hexdigest()[:16]
        for piece in pieces
    ]
    lengths = [len(piece["rewards"]) for piece in pieces]
    assert [list(each) for each in zip(lengths, digests, strict=True)] == expected["pieces"]
    np.testing.assert_array_equal(
        pieces[0]["rewards"][:3], np.float32(expected["first_piece_rewards"])
    )
    last = pieces[-1]["rewards"].sum(dtype=np.float64)
    assert last == expected["last_piece_return"]
    view = qlearning_view(found)
    assert len(view["rewards"]) == 6703
    assert d4rl_files.summary(view) == expected["transitions"]
    terminating = qlearning_view(found, terminate_on_end=True)
    assert d4rl_files.summary(terminating) == expected["transitions-terminating"]


def test_counting_goes_on_past_ends(tmp_path):
    """The package's lengths: a first piece of 5, later ones of 4 at most; 4 and 5 for transitions."""
    lengths = [
        len(piece["rewards"])
        for piece in sequence_views(d4rl_files.FILES["version-0"], d4rl_files.HORIZON)
    ]
    assert lengths == [5, 2, 2, 4, 4, 1, 1, 4, 1]  # the tail of 3 is gone


def test_what_is_no_row_a_timestep_is_left_out(tmp_path):
    """Here the package's sequence_dataset raises IndexError."""
    weights = {"metadata/algorithm": np.bytes_("SAC"), "metadata/policy/fc0/bias": np.zeros(3)}
    path = d4rl_files.write("version-2", tmp_path / "a.hdf5", count=np.arange(7), **weights)
    plain = EXPECTED["files"]["version-2"]
    pieces = [d4rl_files.summary(piece) for piece in sequence_views(path)]
    assert pieces == plain["pieces"]
    assert d4rl_files.summary(qlearning_view(path)) == plain["transitions"]


def test_pieces_are_copies():
    found = {key: array.copy() for key, array in d4rl_files.FILES["version-2"].items()}
    next(sequence_views(found))["rewards"][:] = 7
    assert not (found["rewards"] == 7).any()


def test_refusals(tmp_path):
    with pytest.raises(UserError, match=r"no 'timeouts'; the task's time limit .* is needed"):
        list(sequence_views(d4rl_files.write("version-0", tmp_path / "a.hdf5")))
    with pytest.raises(UserError, match="no 'timeouts'"):
        qlearning_view(tmp_path / "a.hdf5")
    for changes, message in [
        ({"rewards": None}, "'rewards' is missing; found: actions, infos"),
        ({"rewards": np.zeros(19)}, r"'rewards' has shape \(19,\); observations has 20 rows"),
        ({"actions": np.zeros(20)}, r"'actions' has shape \(20,\)"),
        ({"observations": np.zeros((0, 3))}, "observations has 0 rows"),
        ({"terminals": np.array([b"no"] * 20)}, "isn't of numbers"),
    ]:
        path = d4rl_files.write("version-2", tmp_path / "bad.hdf5", **changes)
        with pytest.raises(UserError, match=message) as caught:
            rows(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="there is no such file"):
        rows(tmp_path / "none.hdf5")


def by_counting(terminals, timeouts, horizon):
    """Last rows of `sequence_dataset`'s pieces, and rows that `qlearning_dataset` leaves out."""
    ends, left_out = [], []
    in_sequence = in_transitions = 0
    for row, terminal in enumerate(terminals):
        if timeouts is None:
            cut, skipped = in_sequence == horizon - 1, in_transitions == horizon - 1
        else:
            cut = skipped = timeouts[row]
        if terminal or cut:
            ends.append(row)
        in_sequence = 1 if terminal or cut else in_sequence + 1
        if skipped:
            left_out.append(row)
            in_transitions = 0
        else:
            in_transitions = 1 if terminal else in_transitions + 1
    return ends, left_out


@given(
    flags=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40),
    horizon=st.integers(1, 7),
    counted=st.booleans(),
)
def test_any_flags(flags, horizon, counted):
    terminals, timeouts = (np.array(each) for each in zip(*flags, strict=True))
    steps = len(flags)
    found = {
        "observations": np.arange(steps, dtype=np.float32)[:, None],
        "actions": np.zeros((steps, 1), dtype=np.float32),
        "rewards": np.arange(steps, dtype=np.float32),
        "terminals": terminals,
    }
    if not counted:
        found["timeouts"] = timeouts
    ends, left_out = by_counting(terminals, None if counted else timeouts, horizon)
    pieces = list(sequence_views(found, horizon))
    assert [int(piece["rewards"][-1]) for piece in pieces] == ends
    assert sum(len(piece["rewards"]) for piece in pieces) == (ends[-1] + 1 if ends else 0)
    view = qlearning_view(found, horizon)
    expected = np.setdiff1d(np.arange(steps - 1), left_out)
    np.testing.assert_array_equal(view["rewards"], expected)
    np.testing.assert_array_equal(view["next_observations"][:, 0], expected + 1)
    np.testing.assert_array_equal(view["terminals"], terminals[expected])
