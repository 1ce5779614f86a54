"""Reading and writing D4RL's HDF5 layout, the genuine file included."""

import errno
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from data_samples import make
from format_samples import d4rl_file, full

from ablate.data.formats.hdf5 import inspect_hdf5, read_hdf5, read_own, write_hdf5
from ablate.data.reading import Reading
from ablate.errors import UserError

# Genuine D4RL files lie beside a checkout where somebody put them; they aren't part of the project.
GENUINE = sorted((Path(__file__).parents[4] / "shared" / "data" / "d4rl").glob("*.hdf5"))
genuine = pytest.mark.skipif(not GENUINE, reason="no D4RL file in ../shared/data/d4rl")


def test_what_is_written_is_read_back(tmp_path):
    for data in (full(), make([3, 4, 1]), make([3, 4, 1], extras=False)):
        path = tmp_path / "deeper" / f"{len(data.arrays)}.hdf5"
        write_hdf5(path, data, {"note": "of the writer"})
        again, attributes = read_own(path)
        assert again.content_hash == data.content_hash == read_hdf5(path).content_hash
        assert list(again.arrays) == list(data.arrays)
        assert (again.name, attributes["note"]) == ("sample", "of the writer")
        assert inspect_hdf5(path).about == {"name": "sample", "note": "of the writer"}
    assert not list(tmp_path.rglob("*.tmp"))


def test_every_array_of_our_files_has_a_row_a_timestep(tmp_path):
    # D4RL's sequence_dataset takes row i of every array that the file holds.
    data = full()
    write_hdf5(tmp_path / "a.hdf5", data)
    found = {}
    with h5py.File(tmp_path / "a.hdf5") as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    assert {len(array) for array in found.values()} == {8}
    assert {"observations", "actions", "rewards", "terminals", "timeouts"} <= set(found)
    np.testing.assert_array_equal(found["infos/simulator_state"], data.simulator_state)
    np.testing.assert_array_equal(found["terminals"], data.terminations)


def test_large_per_episode_arrays_fit(tmp_path):
    data = full([1] * 40_000)  # offsets of 320 kB: more than HDF5's older attributes hold
    write_hdf5(tmp_path / "a.hdf5", data)
    assert read_own(tmp_path / "a.hdf5")[0].content_hash == data.content_hash


def test_a_d4rl_file_is_split_and_its_unfinished_tail_left_out(tmp_path):
    data = read_hdf5(d4rl_file(tmp_path / "a.hdf5"), "d4rl/a")
    np.testing.assert_array_equal(data.episode_starts, [0, 4, 8])
    np.testing.assert_array_equal(data.returns, [6, 22])
    assert data.terminations.nonzero()[0].tolist() == [3]
    assert data.truncations.nonzero()[0].tolist() == [7]
    assert data.name == "d4rl/a"
    notes = inspect_hdf5(tmp_path / "a.hdf5").notes
    assert notes == ["an unfinished episode of 2 steps was left out"]


def test_what_version_2_records_besides(tmp_path):
    rng = np.random.default_rng(1)
    more = {
        "next_observations": rng.standard_normal((10, 3)),
        "infos/qpos": rng.standard_normal((10, 4)),
        "infos/qvel": rng.standard_normal((10, 2)),
        "infos/action_log_probs": rng.standard_normal((10, 1)),
        "infos/goal": rng.standard_normal((10, 2)),
        "metadata/policy/fc0/weight": rng.standard_normal((256, 3)),
    }
    data = read_hdf5(d4rl_file(tmp_path / "a.hdf5", **more))
    single = {key: array.astype(np.float32) for key, array in more.items()}
    np.testing.assert_array_equal(data.final_observations, single["next_observations"][[3, 7]])
    np.testing.assert_array_equal(data.simulator_state[:, :4], single["infos/qpos"][:8])
    np.testing.assert_array_equal(data.simulator_state[:, 4:], single["infos/qvel"][:8])
    np.testing.assert_array_equal(data.behaviour_logp, single["infos/action_log_probs"][:8, 0])
    np.testing.assert_array_equal(data.goal, single["infos/goal"][:8])


def test_files_of_version_0_without_timeouts(tmp_path):
    path = d4rl_file(tmp_path / "a.hdf5", timeouts=None)
    with pytest.raises(UserError, match=r"has no 'timeouts'.*--horizon N"):
        read_hdf5(path)
    np.testing.assert_array_equal(read_hdf5(path, published=True).episode_starts, [0, 4])
    # A time limit of 3 counts from each start: rows 0-2, 3 (terminal), 4-6, 7-9.
    data = read_hdf5(path, reading=Reading(horizon=3))
    np.testing.assert_array_equal(data.episode_starts, [0, 3, 4, 7, 10])
    assert data.truncations.nonzero()[0].tolist() == [2, 6, 9]
    assert data.terminations.nonzero()[0].tolist() == [3]
    # One that falls on the terminal is the terminal.
    np.testing.assert_array_equal(
        read_hdf5(path, reading=Reading(horizon=4)).episode_starts, [0, 4, 8]
    )
    assert read_hdf5(path, reading=Reading(horizon=4)).truncations.nonzero()[0].tolist() == [7]


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
    assert "float64 numbers were rounded to float32" in inspect_hdf5(path).notes


def test_a_step_that_is_both_is_a_termination(tmp_path):
    both = np.arange(10) == 9
    data = read_hdf5(d4rl_file(tmp_path / "a.hdf5", terminals=both, timeouts=both))
    assert data.terminations[9]
    assert not data.truncations.any()


def test_time_limits_inside_demonstrations_end_nothing(tmp_path):
    terminals, timeouts = np.isin(np.arange(12), [5, 11]), np.isin(np.arange(12), [2, 8])
    walk = np.concatenate([np.arange(6), np.arange(6)])[:, None] + np.zeros((1, 3))
    changes = {"terminals": terminals, "timeouts": timeouts}
    path = d4rl_file(tmp_path / "a.hdf5", 12, observations=walk, **changes)
    true_ends = Reading(terminals="as-is")
    data = read_hdf5(path, reading=true_ends)
    np.testing.assert_array_equal(data.lengths, [6, 6])
    assert not data.truncations.any()
    assert "2 timeouts inside demonstrations" in inspect_hdf5(path, reading=true_ends).notes[0]
    np.testing.assert_array_equal(read_hdf5(path, timeouts="ends").lengths, [3, 3, 3, 3])
    ignored = read_hdf5(path, reading=true_ends, timeouts="ignore")
    np.testing.assert_array_equal(ignored.lengths, [6, 6])
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
    # D4RL's own sequence_dataset yields 50 pieces of it.
    assert read_hdf5(GENUINE[0], timeouts="ends").num_episodes == 50
    with h5py.File(GENUINE[0]) as file:
        state = np.concatenate([file["infos/qpos"][()], file["infos/qvel"][()]], axis=1)
    np.testing.assert_array_equal(data.simulator_state, state.astype(np.float32))


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
HALF = np.zeros(10)
HALF[4] = 0.5
REFUSED = {
    "missing": ({"rewards": None}, "the array 'rewards' is missing; found: actions, infos"),
    "group": ({"rewards": None, "rewards/a": np.zeros(3)}, "the array 'rewards' is missing"),
    "nan": ({"observations": NAN}, "observations row 5, column 2 is nan; every value must be"),
    "too large": ({"observations": NAN.astype(float) * 0 + 1e39}, "observations row 0, column 0 is inf"),
    "bounds": ({"actions": np.full((10, 2), 2.0)}, "actions row 0, column 0 is 2.0"),
    "lengths": ({"rewards": np.zeros(9)}, r"differ in length: .*rewards \(9,\)"),
    "infos": ({"infos/qvel": np.zeros((9, 2))}, r"differ in length: .*infos/qvel \(9, 2\)"),
    "scalar": ({"rewards": 1.0}, "differ in length"),
    "wide rewards": ({"rewards": np.zeros((10, 2))}, r"'rewards' has shape \(10, 2\); one number"),
    "wide flags": ({"terminals": np.zeros((10, 2))}, r"'terminals' has shape \(10, 2\); one number"),
    "flags": ({"terminals": HALF}, "terminals row 4 is 0.5; only 0 and 1"),
    "nan flags": ({"timeouts": HALF * np.nan}, "timeouts row 0 is nan; only 0 and 1"),
    "no ends": ({"terminals": np.zeros(10), "timeouts": np.zeros(10)}, "neither 'terminals' nor"),
    "no rows": ({"terminals": None, **{k: np.zeros(0) for k in ("terminals", "rewards")}}, "differ"),
    "text": ({"rewards": np.array([b"a"] * 10)}, "'rewards' isn't of numbers"),
    "complex": ({"rewards": np.zeros(10, complex)}, "'rewards' isn't of numbers"),
    "records": ({"rewards": np.zeros(10, "f4,f4")}, "'rewards' isn't of numbers"),
    "long double": ({"rewards": np.zeros(10, np.longdouble)}, "'rewards' isn't of numbers"),
    "axes": ({"actions": np.zeros((10, 2, 2))}, r"actions has shape \(8, 2, 2\); 2 axes"),
    "image": ({"observations": np.zeros((10, 4, 4))}, r"observations has shape \(8, 4, 4\); 2 axes"),
    "float ids": ({"infos/behaviour_id": np.zeros(10)}, "behaviour_id' has type float64; whole"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_files_are_refused_in_one_line(tmp_path, case):
    changes, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        read_hdf5(d4rl_file(tmp_path / "bad.hdf5", **changes))
    assert "bad.hdf5" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_of_any_width_and_byte_order(tmp_path):
    plain = read_hdf5(d4rl_file(tmp_path / "a.hdf5"))
    with h5py.File(tmp_path / "a.hdf5") as file:
        actions, rewards = file["actions"][()], file["rewards"][()]
    for observations in (">f8", ">f4", "<f8"):
        with h5py.File(tmp_path / "a.hdf5") as file:
            seen = file["observations"][()].astype(observations)
        changes = {
            "observations": seen,
            "actions": actions.astype(">f4"),
            "rewards": rewards.astype(">i2"),  # whole numbers below 10
            "terminals": (np.arange(10) == 3).astype(">u4"),
            "timeouts": (np.arange(10) == 7).astype(np.float16),
        }
        data = read_hdf5(d4rl_file(tmp_path / "b.hdf5", **changes))
        assert data.content_hash == plain.content_hash


OFFSETS = {
    "beyond": ([0, 4, 12], "row 2 is 12; it must be 7"),
    "short": ([0, 3, 4], "row 2 is 4; it must be 7"),
    "back": ([0, 6, 3, 7], "row 2 is 3 after 6"),
    "none": (np.array([], dtype=int), "has 0 entries"),
    "negative": ([0, -3, 7], "row 1 is -3 after 0"),
    "unsigned": (np.array([0, 2**64 - 1, 7], dtype=np.uint64), "row 1 is -1 after 0"),
    "broken": ([0.0, 3.0, 7.0], "whole numbers are needed"),
    "two axes": ([[0, 3, 7]], r"has shape \(1, 3\); 1 axes"),
}


@pytest.mark.parametrize("case", OFFSETS)
def test_offsets_out_of_order_are_refused(tmp_path, case):
    path = tmp_path / "own.hdf5"
    write_hdf5(path, make([3, 4]))
    offsets, rule = OFFSETS[case]
    with h5py.File(path, "r+") as file:
        file.attrs["episode_starts"] = np.asarray(offsets)
    with pytest.raises(UserError, match=rule) as caught:
        read_hdf5(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"content has changed|whole numbers"):
        read_own(path)


def test_missing_file_and_other_formats(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        read_hdf5(tmp_path / "none.hdf5")
    with pytest.raises(UserError, match="is no file"):
        read_hdf5(tmp_path)
    (tmp_path / "text.hdf5").write_text("observations, actions\n")
    with pytest.raises(UserError, match="damaged or incomplete"):
        read_hdf5(tmp_path / "text.hdf5")


def test_altered_content_is_noticed(tmp_path):
    path = tmp_path / "own.hdf5"
    write_hdf5(path, make([3, 4]))
    with h5py.File(path, "r+") as file:
        file["rewards"][2] += 1
    for reader in (read_own, read_hdf5):
        with pytest.raises(UserError, match="its content has changed"):
            reader(path)


@pytest.mark.parametrize("where", ["create_dataset", "replace", "wrapped"])
def test_a_full_disk_leaves_no_partial_file(tmp_path, monkeypatch, where):
    def full_disk(*args, **kwargs):
        if where == "wrapped":  # h5py raises some errors without an errno
            raise OSError("Can't write data (No space left on device)")
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "replace":
        monkeypatch.setattr(os, "replace", full_disk)
    else:
        monkeypatch.setattr(h5py.File, "create_dataset", full_disk)
    with pytest.raises(UserError, match=r"a.hdf5: can't be written \(no space left on device\)"):
        write_hdf5(tmp_path / "a.hdf5", make([3]))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="can't be written") as caught:
        write_hdf5(tmp_path / "file" / "a.hdf5", make([3]))
    assert "\n" not in str(caught.value)
