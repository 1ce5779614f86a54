"""Files as d3rlpy, robomimic and people's own scripts write them."""

import gzip
import json
import pickle
import zipfile

import h5py
import numpy as np
import pytest

from ablate.data.formats import base, pickles
from ablate.data.formats.files import check, detect, inspect, read
from ablate.data.reading import Reading
from ablate.errors import UserError

LENGTHS = (3, 5, 4)
MIXED = np.isin(np.arange(12), [2, 11])  # the second episode was cut


def steps(seed=0):
    """Arrays of three episodes, the first and the last of which end as terminal."""
    rng = np.random.default_rng(seed)
    return {
        "observations": rng.standard_normal((12, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (12, 2)).astype(np.float32),
        "rewards": rng.standard_normal(12).astype(np.float32),
        "terminals": MIXED.copy(),
    }


def episodes(**names):
    """The same as a list of dicts, with other names."""
    arrays, ends = steps(), np.cumsum(LENGTHS)
    return [
        {names.get(key, key): array[end - length : end] for key, array in arrays.items()}
        for end, length in zip(ends, LENGTHS, strict=True)
    ]


def same(found, **changes):
    """Whether trajectories hold what `steps` does."""
    wanted = {**steps(), **changes}
    np.testing.assert_array_equal(found.observations, wanted["observations"])
    np.testing.assert_array_equal(found.actions, wanted["actions"])
    np.testing.assert_array_equal(found.rewards, wanted["rewards"])
    np.testing.assert_array_equal(found.lengths, LENGTHS)
    assert found.terminations.nonzero()[0].tolist() == [2, 11]
    assert found.truncations.nonzero()[0].tolist() == [7]


def refused(path, match, reading=None):
    with pytest.raises(UserError, match=match) as caught:
        read(path, reading=reading or Reading())
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def hdf5(path, arrays, attributes=()):
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            file[key] = value
        file.attrs.update(dict(attributes))
    return path


def d3rlpy_1(path, **changes):
    """As MDPDataset.dump wrote them (d3rlpy 1.x)."""
    ends = np.isin(np.arange(12), np.cumsum(LENGTHS) - 1)
    arrays = {
        **steps(),
        "terminals": MIXED.astype(np.float32),
        "episode_terminals": ends.astype(np.float32),
        "discrete_action": False,
        "version": "1.0",
    }
    arrays.update(changes)
    return hdf5(path, {key: value for key, value in arrays.items() if value is not None})


def test_d3rlpy_1(tmp_path):
    same(read(d3rlpy_1(tmp_path / "a.h5")))
    # Without the field an older file joins what the time limit ended.
    refused(d3rlpy_1(tmp_path / "b.h5", episode_terminals=None), r"no 'timeouts'.*--horizon N")
    chosen = np.arange(12) % 3
    found = read(d3rlpy_1(tmp_path / "c.h5", actions=chosen[:, None], discrete_action=True))
    np.testing.assert_array_equal(found.actions, 2 * np.eye(3)[chosen] - 1)


def d3rlpy_2(path, tuples=False):
    """As ReplayBuffer.dump writes them (d3rlpy 2.x)."""
    arrays = {}
    for index, each in enumerate(episodes()):
        seen = each["observations"]
        if tuples:
            arrays[f"observations_{index}_0"] = seen[:, :1]
            arrays[f"observations_{index}_1"] = seen[:, 1:]
        else:
            arrays[f"observations_{index}"] = seen
        arrays[f"actions_{index}"] = each["actions"]
        arrays[f"rewards_{index}"] = each["rewards"][:, None]
        arrays[f"terminated_{index}"] = bool(each["terminals"][-1])
    columns = ["observations", "actions", "rewards", "terminated"]
    return hdf5(path, {**arrays, "columns": columns, "num_episodes": 3, "version": "2.1"})


@pytest.mark.parametrize("tuples", [False, True])
def test_d3rlpy_2(tmp_path, tuples):
    path = d3rlpy_2(tmp_path / "a.h5", tuples)
    same(read(path))
    with h5py.File(path, "r+") as file:
        del file["actions_1"]
    refused(path, "episode 1: the array 'actions' is missing")


def robomimic(path, **changes):
    """As robomimic's datasets are: a group a demonstration, observations by name, images among them."""
    arrays = {}
    for index, each in enumerate(episodes()):
        seen, group = each["observations"], f"data/demo_{(index + 9)}"  # demo_9 before demo_10
        for where in ("obs", "next_obs"):
            arrays[f"{group}/{where}/b_pos"] = seen[:, 1:]
            arrays[f"{group}/{where}/a_grip"] = seen[:, :1]
            arrays[f"{group}/{where}/image"] = np.zeros((len(seen), 4, 4, 3), np.uint8)
        arrays[f"{group}/actions"] = each["actions"]
        arrays[f"{group}/rewards"] = each["rewards"]
        arrays[f"{group}/dones"] = each["terminals"].astype(np.int64)
        arrays[f"{group}/states"] = np.zeros((len(seen), 7))
    arrays["mask/train"] = np.array([b"demo_0"])
    arrays.update(changes)
    hdf5(path, {key: value for key, value in arrays.items() if value is not None})
    with h5py.File(path, "r+") as file:
        file["data"].attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1})
    return path


def test_robomimic(tmp_path):
    path = robomimic(tmp_path / "low_dim.hdf5")
    found = inspect(path)
    same(found.trajectories)
    assert found.about["env_name"] == "Lift"
    assert "observations are a_grip, b_pos, side by side" in found.notes
    assert "images in 'obs' were left out" in found.notes
    last = steps()["observations"][[2, 7, 11]]  # of next_obs, which the sample gives as obs
    np.testing.assert_array_equal(found.trajectories.final_observations, last)
    # In an order of the user's own, of observations that come next as well.
    order = {"obs/b_pos": "observations", "obs/a_grip": "observations"}
    turned = read(path, reading=Reading(map=order))
    np.testing.assert_array_equal(turned.observations, steps()["observations"][:, [1, 2, 0]])
    np.testing.assert_array_equal(turned.final_observations, last[:, [1, 2, 0]])
    early = robomimic(tmp_path / "early.hdf5", **{"data/demo_9/dones": [0, 1, 1]})
    same(read(early))
    assert "1 terminals inside demonstrations that go on were dropped" in inspect(early).notes
    raw = {f"data/demo_{i}/{key}": None for i in (9, 10, 11) for key in ("rewards", "dones")}
    refused(robomimic(tmp_path / "raw.hdf5", **raw), r"demo_9: the array 'rewards' is missing")


def test_npz(tmp_path):
    arrays = {**steps(), "timeouts": np.arange(12) == 7}
    np.savez(tmp_path / "a.npz", **arrays)
    assert detect(tmp_path / "a.npz") == "npz"
    same(read(tmp_path / "a.npz"))
    np.savez_compressed(tmp_path / "b.npz", **{key[:-1]: each for key, each in arrays.items()})
    same(read(tmp_path / "b.npz"))  # observation, action, ...
    assert "'observation' was read as observations" in inspect(tmp_path / "b.npz").notes
    np.savez(tmp_path / "c.npz", episodes=np.array(episodes(), dtype=object))
    refused(tmp_path / "c.npz", r"'observations' is missing; found: episodes")
    objects = np.array([{}] * 12, dtype=object)
    np.savez(tmp_path / "d.npz", **{**arrays, "rewards": objects})
    refused(tmp_path / "d.npz", r"'rewards' isn't of numbers \(object\); write arrays .*np\.savez")
    (tmp_path / "e.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-40])
    refused(tmp_path / "e.npz", "can't be read as .npz, it is damaged")
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive:
        archive.writestr("archive/data.pkl", b"a checkpoint")
    refused(tmp_path / "f.npz", "'observations' is missing; found: archive/data.pkl")


def lists(value):
    return value.tolist() if isinstance(value, np.ndarray) else value


def by_step(episode):
    return [
        {key: each[i] for key, each in episode.items()}
        for i in range(len(next(iter(episode.values()))))
    ]


SINGULAR = {key: key[:-1] for key in ("observations", "actions", "rewards", "terminals")}
PICKLES = {
    "list of dicts": episodes(),
    "singular keys": episodes(**SINGULAR),
    "of gymnasium": episodes(observations="obs", terminals="terminated"),
    "dict of dicts": {f"episode_{i}": each for i, each in enumerate(episodes())},
    "dict of lists of arrays": {
        key: [each[key] for each in episodes()] for key in episodes()[0]
    },
    "dict of nested lists": {
        key: [lists(each[key]) for each in episodes()] for key in episodes()[0]
    },
    "dict of arrays": {**steps(), "timeouts": np.arange(12) == 7},
    "lists of steps": [by_step(each) for each in episodes()],
    "lists of singular steps": [by_step(each) for each in episodes(**SINGULAR)],
    "a list of steps": [
        {**step, "timeout": bool(i == 7)}
        for i, step in enumerate(by_step(steps()))
    ],
    "a flag an episode": [{**each, "terminals": bool(each["terminals"][-1])} for each in episodes()],
}  # fmt: skip


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("kind", PICKLES)
def test_pickles_of_every_shape(tmp_path, kind, zipped):
    content = pickle.dumps(PICKLES[kind])
    path = tmp_path / "a.pkl.gz"
    path.write_bytes(gzip.compress(content) if zipped else content)
    assert detect(path) == "pickle"
    same(read(path))


def test_names_are_mapped_where_they_are_not_known(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(episodes(observations="sensors", actions="u")))
    refused(path, r"'observations' is missing; found: sensors, u, .* --map ")
    names = {"sensors": "observations", "u": "actions"}
    same(read(path, reading=Reading(map=names)))
    refused(path, "map: 'sensor' is not known.* Did you mean", Reading(map={"sensor": "actions"}))
    refused(path, "' is not known; allowed: ", Reading(map={"u": "action"}))
    # Two names for one thing aren't guessed between.
    both = [{**each, "state": each["obs"]} for each in episodes(observations="obs")]
    path.write_bytes(pickle.dumps(both))
    refused(path, "'obs' and 'state' could both be the observations; say which, --map ")
    same(read(path, reading=Reading(map={"state": "observations"})))
    wide = Reading(map={"obs": "observations", "state": "observations"})
    assert read(path, reading=wide).observations.shape == (12, 6)


def test_flags_that_are_missing(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps([{**each, "terminals": None} for each in episodes()]))
    refused(path, "'terminals' isn't an array of numbers")
    for each in (found := episodes()):
        del each["terminals"]
    path.write_bytes(pickle.dumps(found))
    assert read(path).truncations.sum() == 3
    assert "no terminals: every episode counts as cut" in inspect(path).notes
    arrays = steps()
    del arrays["terminals"]
    path.write_bytes(pickle.dumps(arrays))
    refused(path, "'terminals' is missing")


def test_a_set_of_torch_or_of_text_is_told_what_works(tmp_path):
    (tmp_path / "a.csv").write_text("observation,action\n")
    refused(tmp_path / "a.csv", r"none of the formats .* np\.savez\(FILE, observations=")
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(np.array(episodes(), dtype=object)))
    refused(path, r"only arrays of numbers and plain containers.* np\.savez\(FILE")


# --- what fills the memory or takes for ever ---


def test_zeros_that_pack_too_well(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "ROOM", 1 << 18)
    rows = 20_000
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        for key, shape in {"observations": (rows, 30), "actions": (rows, 4)}.items():
            file.create_dataset(key, data=np.zeros(shape, "f4"), compression="gzip")
        for key in ("rewards", "terminals", "timeouts"):
            file.create_dataset(key, data=np.zeros(rows, "i1"), compression="gzip")
    assert path.stat().st_size < 40_000
    refused(path, "more than 64 times the file's size")
    with h5py.File(path, "w") as file:
        for key, array in steps().items():
            how = {"chunks": (1 << 20,), "maxshape": (None,), "compression": "gzip"}
            file.create_dataset(key, data=array, **(how if key == "rewards" else {}))
        file["timeouts"] = ~MIXED
    refused(path, r"'rewards' takes 4,194,304 bytes.* smaller chunks")
    packed = tmp_path / "b.npz"
    np.savez_compressed(packed, **{**steps(), "rewards": np.zeros(1 << 17)})
    refused(packed, "'rewards' takes .* more than 64 times")
    pickled = tmp_path / "c.pkl.gz"
    pickled.write_bytes(gzip.compress(bytes(1 << 20)))
    refused(pickled, "what it unpacks to takes .* more than 64 times")


@pytest.mark.parametrize("instruction", [b"2", b"N0", b"]0", b"N\x940", b"(t0", b"h\x000"])
def test_pickles_of_nothing_but_instructions(tmp_path, monkeypatch, instruction):
    monkeypatch.setattr(pickles, "INSTRUCTIONS", 1000)
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x04N\x94" + instruction * (50_000 // len(instruction)) + b".")
    refused(path, "more instructions than data of its size need")


def test_check_says_what_was_done(tmp_path):
    lines = check(robomimic(tmp_path / "a.hdf5"))
    assert lines[-1] == "no problem found"
    assert "note: recorded in robomimic's 'Lift'" in lines
