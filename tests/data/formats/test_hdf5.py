"""Reading and writing D4RL's HDF5 layout, the genuine file included."""

import errno
from pathlib import Path

import h5py
import numpy as np
import pytest
from data_samples import make

from ablate.data.formats import hdf5
from ablate.data.formats.hdf5 import read_hdf5, read_own, write_hdf5
from ablate.errors import UserError

# Genuine D4RL files lie beside a checkout where somebody put them; they aren't part of the project.
GENUINE = sorted((Path(__file__).parents[3] / "shared" / "data" / "d4rl").glob("*.hdf5"))
genuine = pytest.mark.skipif(not GENUINE, reason="no D4RL file in ../shared/data/d4rl")


def d4rl_file(path, steps=10, **changes):
    """A small file as D4RL writes them: episodes of 4 and 4 steps and an unfinished tail of 2."""
    rng = np.random.default_rng(0)
    arrays = {
        "observations": rng.standard_normal((steps, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        "rewards": np.arange(steps, dtype=np.float32),
        "terminals": np.arange(steps) == 3,
        "timeouts": np.arange(steps) == 7,
        "infos/qpos": rng.standard_normal((steps, 4)),
        "metadata/algorithm": np.bytes_("SAC"),
    }
    arrays.update(changes)
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            if value is not None:
                file[key] = value
    return path


def test_what_is_written_is_read_back(tmp_path):
    for extras in (True, False):
        data = make([3, 4, 1], extras=extras)
        path = tmp_path / "deeper" / f"{extras}.hdf5"
        write_hdf5(path, data, {"note": "of the writer"})
        again, attributes = read_own(path)
        assert again.content_hash == data.content_hash == read_hdf5(path).content_hash
        assert list(again.arrays) == list(data.arrays)
        assert (again.name, attributes["note"]) == ("sample", "of the writer")
        with h5py.File(path) as file:
            assert {"observations", "actions", "rewards", "terminals", "timeouts"} <= set(file)
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_d4rl_file_is_split_and_its_unfinished_tail_left_out(tmp_path):
    data = read_hdf5(d4rl_file(tmp_path / "a.hdf5"), "d4rl/a")
    np.testing.assert_array_equal(data.episode_starts, [0, 4, 8])
    np.testing.assert_array_equal(data.returns, [6, 22])
    assert data.terminations.nonzero()[0].tolist() == [3]
    assert data.truncations.nonzero()[0].tolist() == [7]
    assert data.name == "d4rl/a"


def test_files_of_version_0_without_timeouts(tmp_path):
    data = read_hdf5(d4rl_file(tmp_path / "a.hdf5", timeouts=None))
    np.testing.assert_array_equal(data.episode_starts, [0, 4])


def test_medium_replay_is_float64_and_maze2d_has_no_terminals(tmp_path):
    path = d4rl_file(
        tmp_path / "a.hdf5",
        observations=np.zeros((10, 3)),
        rewards=np.ones((10, 1)),
        terminals=np.zeros(10),
        timeouts=np.array([0, 1, 0, 1, 0, 0, 0, 0, 0, 1.0]),
    )
    data = read_hdf5(path)
    assert data.observations.dtype == np.float32
    np.testing.assert_array_equal(data.lengths, [2, 2, 6])


def test_time_limits_inside_demonstrations_end_nothing(tmp_path):
    terminals, timeouts = np.isin(np.arange(12), [5, 11]), np.isin(np.arange(12), [2, 8])
    walk = np.concatenate([np.arange(6), np.arange(6)])[:, None] + np.zeros((1, 3))
    changes = {"terminals": terminals, "timeouts": timeouts}
    data = read_hdf5(d4rl_file(tmp_path / "a.hdf5", 12, observations=walk, **changes))
    np.testing.assert_array_equal(data.lengths, [6, 6])
    assert not data.truncations.any()
    # The same flags, but the observation jumps behind the timeouts too: those are ends of episodes.
    reset = np.concatenate([np.arange(3)] * 4)[:, None] + np.zeros((1, 3))
    data = read_hdf5(d4rl_file(tmp_path / "b.hdf5", 12, observations=reset, **changes))
    np.testing.assert_array_equal(data.lengths, [3, 3, 3, 3])


@genuine
def test_a_genuine_d4rl_file():
    data = read_hdf5(GENUINE[0], "door-human-v0")
    assert data.num_episodes == 25
    assert len(data.rewards) == 6729
    assert (data.observations.shape[1], data.actions.shape[1]) == (39, 28)
    assert data.terminations.sum() == 25
    assert (data.lengths[:5] == 300).all()


@genuine
def test_a_truncated_copy_of_it_is_refused(tmp_path):
    whole = GENUINE[0].read_bytes()
    for part in (0, 100, len(whole) // 2, len(whole) - 1):
        path = tmp_path / "cut.hdf5"
        path.write_bytes(whole[:part])
        with pytest.raises(UserError, match=r"cut.hdf5: .*damaged or incomplete") as caught:
            read_hdf5(path)
        assert "\n" not in str(caught.value)


NAN = np.zeros((10, 3), dtype=np.float32)
NAN[5, 2] = np.nan
REFUSED = {
    "missing": ({"rewards": None}, "the array 'rewards' is missing; found: actions, infos"),
    "group": ({"rewards": None, "rewards/a": np.zeros(3)}, "the array 'rewards' is missing"),
    "nan": ({"observations": NAN}, "observations row 5, column 2 is nan; every value must be"),
    "bounds": ({"actions": np.full((10, 2), 2.0)}, "actions row 0, column 0 is 2.0"),
    "lengths": ({"rewards": np.zeros(9)}, r"differ in length: .*rewards \(9,\)"),
    "scalar": ({"rewards": 1.0}, "differ in length"),
    "no ends": ({"terminals": np.zeros(10), "timeouts": None}, "neither 'terminals' nor"),
    "text": ({"rewards": np.array([b"a"] * 10)}, "isn't of numbers"),
    "axes": ({"actions": np.zeros(10)}, r"actions has shape \(8,\); 2 axes"),
    "offsets beyond": (
        {"infos/episode_starts": np.array([0, 4, 12])},
        "row 2 is 12; it must be 10",
    ),
    "offsets short": ({"infos/episode_starts": np.array([0, 4, 8])}, "row 2 is 8; it must be 10"),
    "offsets back": ({"infos/episode_starts": np.array([0, 8, 4, 10])}, "row 2 is 4 after 8"),
    "offsets none": ({"infos/episode_starts": np.array([], dtype=int)}, "has 0 entries"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_files_are_refused_in_one_line(tmp_path, case):
    changes, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        read_hdf5(d4rl_file(tmp_path / "bad.hdf5", **changes))
    assert "bad.hdf5" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_other_formats(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        read_hdf5(tmp_path / "none.hdf5")
    (tmp_path / "text.hdf5").write_text("observations, actions\n")
    with pytest.raises(UserError, match="damaged or incomplete"):
        read_hdf5(tmp_path / "text.hdf5")


def test_altered_content_is_noticed(tmp_path):
    path = tmp_path / "own.hdf5"
    write_hdf5(path, make([3, 4]))
    with h5py.File(path, "r+") as file:
        file["rewards"][2] += 1
    with pytest.raises(UserError, match="its content has changed"):
        read_own(path)


@pytest.mark.parametrize("where", ["create_dataset", "replace", "wrapped"])
def test_a_full_disk_leaves_no_partial_file(tmp_path, monkeypatch, where):
    def full(*args, **kwargs):
        if where == "wrapped":  # h5py raises some errors without an errno
            raise OSError("Can't write data (No space left on device)")
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "replace":
        monkeypatch.setattr(hdf5.os, "replace", full)
    else:
        monkeypatch.setattr(h5py.File, "create_dataset", full)
    with pytest.raises(UserError, match=r"a.hdf5: can't be written \(no space left on device\)"):
        write_hdf5(tmp_path / "a.hdf5", make([3]))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="can't be written") as caught:
        write_hdf5(tmp_path / "file" / "a.hdf5", make([3]))
    assert "\n" not in str(caught.value)
