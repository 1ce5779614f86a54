"""Decision Transformer pickles: of every protocol and numpy, and those that would run something."""

import collections
import json
import os
import pickle
import struct
import time

import numpy as np
import pytest
from data_samples import make
from format_samples import dt_pickle, full, genuine

from ablate.data.formats.pickles import inspect_pickle, read_pickle, write_pickle
from ablate.errors import UserError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
EPISODE = ("observations", "actions", "rewards", "terminals")


@pytest.fixture
def canary(tmp_path):
    """A file that no pickle may bring into being."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


def refused(path, match):
    start = time.perf_counter()
    with pytest.raises(UserError, match=match) as caught:
        read_pickle(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - start < 5  # about 0.001 s on an idle core


@pytest.mark.parametrize("data", [full(), make([2, 5], extras=False), full([1])])
def test_what_is_written_is_read_back(tmp_path, data):
    path = tmp_path / "deeper" / "a.pkl"
    write_pickle(path, data, {"anchor_low": 1.5})
    found = inspect_pickle(path)
    assert found.trajectories.content_hash == data.content_hash
    assert found.about == {"name": "sample", "anchor_low": 1.5}
    assert found.notes == []


def test_pickle_itself_reads_what_is_written(tmp_path):
    data = full()
    write_pickle(tmp_path / "a.pkl", data)
    content = (tmp_path / "a.pkl").read_bytes()
    episodes = pickle.loads(content)
    assert [len(episode["rewards"]) for episode in episodes] == [3, 4, 1]
    for index, episode in enumerate(episodes):
        rows = slice(*data.episode_starts[index : index + 2])
        np.testing.assert_array_equal(episode["observations"], data.observations[rows])
        np.testing.assert_array_equal(episode["terminals"], data.terminations[rows])
        np.testing.assert_array_equal(episode["timeouts"], data.truncations[rows])
        np.testing.assert_array_equal(episode["behaviour_id"], data.behaviour_id[rows])
        assert episode["rewards"].dtype == np.float32
        assert episode["rewards"].flags.writeable
        after = np.concatenate([data.observations[rows][1:], data.final_observations[[index]]])
        np.testing.assert_array_equal(episode["next_observations"], after)
    # Readable by numpy 1, which has no numpy._core.
    assert b"numpy._core" not in content
    # What was seen last isn't made up.
    write_pickle(tmp_path / "b.pkl", make([3, 4]))
    assert "next_observations" not in pickle.loads((tmp_path / "b.pkl").read_bytes())[0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_and_way_to_hold_numbers(tmp_path, protocol):
    path = tmp_path / "a.pkl"
    data = full()
    write_pickle(path, data)
    episodes = pickle.loads(path.read_bytes())
    single = np.float32
    ways = {
        "arrays": lambda array: array,
        "big": lambda array: array.astype(array.dtype.newbyteorder(">")),
        "wide": lambda array: array.astype(float) if array.dtype == single else array,
        "fortran": np.asfortranarray,
        "lists": lambda array: array.tolist(),
        "rows": list,
        "tuples": lambda array: tuple(map(tuple, array.tolist())) if array.ndim == 2 else array,
        "strided": lambda array: np.repeat(array, 2, axis=0)[::2],
        "read-only": lambda array: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape),
    }
    for change in ways.values():
        changed = [{key: change(array) for key, array in each.items()} for each in episodes]
        for container in (dict, collections.OrderedDict):
            path.write_bytes(pickle.dumps([container(each) for each in changed], protocol))
            assert read_pickle(path).content_hash == data.content_hash


def test_pickles_that_numpy_1_made(tmp_path):
    folder = genuine(tmp_path) / "pickles"
    wanted = np.load(folder / "numpy1.npz")
    for protocol in range(6):
        data = read_pickle(folder / f"numpy1-protocol{protocol}.pkl")
        assert data.lengths.tolist() == [3, 4]
        for index in range(2):
            rows = slice(*data.episode_starts[index : index + 2])
            for key in ("observations", "actions", "rewards"):
                np.testing.assert_array_equal(getattr(data, key)[rows], wanted[f"{index}/{key}"])
            last = wanted[f"{index}/next_observations"][-1]
            np.testing.assert_array_equal(data.final_observations[index], last)
        assert data.terminations.nonzero()[0].tolist() == [2]
        assert data.truncations.nonzero()[0].tolist() == [6]


def test_the_layout_of_the_decision_transformer(tmp_path):
    path = dt_pickle(tmp_path / "hopper-medium-v2.pkl")
    found = inspect_pickle(path)
    data, episodes = found.trajectories, pickle.loads(path.read_bytes())
    assert data.name == "hopper-medium-v2.pkl"
    for key in ("observations", "actions", "rewards"):
        wanted = np.concatenate([episode[key] for episode in episodes])
        np.testing.assert_array_equal(getattr(data, key), wanted)
    # The first ends in a terminal state; the second was cut, which nothing else says.
    assert data.terminations.nonzero()[0].tolist() == [2]
    assert data.truncations.nonzero()[0].tolist() == [6]
    assert found.notes == ["no timeouts: episodes whose last step isn't terminal count as cut"]


def test_other_keys_and_names(tmp_path):
    path = dt_pickle(tmp_path / "a.pkl")
    plain = read_pickle(path)
    episodes = pickle.loads(path.read_bytes())
    for episode in episodes:
        episode["dones"] = episode.pop("terminals")
        episode["rewards"] = episode["rewards"][:, None]
        episode["strategy"] = ["text", {"a": None}]
    path.write_bytes(pickle.dumps(episodes))
    assert read_pickle(path).content_hash == plain.content_hash


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def touch(path):
    return f"touch {path}"


HARMFUL = {
    "os.system": lambda path: Calls(os.system, touch(path)),
    "eval": lambda path: Calls(eval, f"open({str(path)!r}, 'w')"),
    "exec": lambda path: Calls(exec, f"open({str(path)!r}, 'w')"),
    "open": lambda path: Calls(open, str(path), "w"),
    "numpy.save": lambda path: Calls(np.save, str(path), [1]),
    "numpy.load": lambda path: Calls(np.load, str(path), None, True),
    "reconstruct": lambda path: Calls(np.zeros(1).__reduce__()[0], Calls(os.system, touch(path)), (0,)),
    "dtype": lambda path: Calls(np.dtype, Calls(os.system, touch(path))),
    "defaultdict": lambda path: Calls(collections.defaultdict, Calls(os.system, touch(path))),
    "object array": lambda path: np.array([Calls(os.system, touch(path))], dtype=object),
    "a class": lambda path: collections.Counter,
    "complex": lambda path: 1j,
    "a set": lambda path: {1, 2},
}  # fmt: skip


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", HARMFUL)
@pytest.mark.parametrize("where", ["alone", "in a list", "as an array", "as another key"])
def test_nothing_is_ever_run(tmp_path, canary, kind, protocol, where):
    harm = HARMFUL[kind](canary)
    path = dt_pickle(tmp_path / "bad.pkl")
    episodes = pickle.loads(path.read_bytes())
    if where == "in a list":
        episodes.append(harm)
    elif where != "alone":
        episodes[1]["rewards" if where == "as an array" else "extra"] = harm
    path.write_bytes(pickle.dumps(harm if where == "alone" else episodes, protocol))
    refused(
        path, r"only arrays of numbers and plain containers|damaged or incomplete|no list of ep"
    )


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
FLOAT = b"cnumpy\ndtype\n" + text("f4") + b"\x89\x88\x87R"
BYTES = b"C\x04abcd"
BY_HAND = {
    "extension": (b"\x80\x04\x82\x01.", "the pickle instruction EXT1"),
    "extension 4": (b"\x80\x04\x84\x01\x00\x00\x00.", "the pickle instruction EXT4"),
    "persistent": (b"Pos.system\n.", "the pickle instruction PERSID"),
    "persistent 2": (b"\x80\x04K\x01Q.", "the pickle instruction BINPERSID"),
    "instance": (b"(S'touch x'\nios\nsystem\n.", "the pickle instruction INST"),
    "object": (b"(cos\nsystem\nS'touch x'\no.", "asks for os.system"),
    "new object": (b"\x80\x04cnumpy\nndarray\n)\x81.", "the pickle instruction NEWOBJ"),
    "buffer": (b"\x80\x05\x97.", "the pickle instruction NEXT_BUFFER"),
    "copyreg": (b"ccopyreg\n_reconstructor\n.", "asks for copyreg._reconstructor"),
    "dotted": (b"\x80\x04" + text("numpy") + text("dtype.__class__") + b"\x93.", "asks for numpy.dtype"),
    "not a name": (b"\x80\x04K\x01K\x02\x93.", "asks for 1.2"),
    "getattr": (
        b"cbuiltins\ngetattr\n(c__builtin__\n__import__\n(S'os'\ntRS'system'\ntR(S'touch x'\ntR.",
        "asks for builtins.getattr",
    ),
    "call a list": (b"\x80\x04])R.", "calls what is no array"),
    "call an array": (ARRAY + b")R.", "calls what is no array"),
    "build a name": (b"cnumpy\ndtype\n}b.", "sets the state of what is no array"),
    "build a list": (b"\x80\x04]}b.", "sets the state of what is no array"),
    "no state": (b"\x80\x04]}(" + text("rewards") + ARRAY + b"ua.", "'observations' is missing; found: rewards"),
    "two states": (
        ARRAY + (b"(K\x01K\x01\x85" + FLOAT + b"\x89" + BYTES + b"tb") * 2 + b".",
        "sets the state of what is no array",
    ),
    "huge": (ARRAY + b"(K\x01\x8a\x06\x00\x00\x00\x00\x00\x10\x85" + FLOAT + b"\x89" + BYTES + b"tb.",
             "damaged or incomplete"),
    "negative": (ARRAY + b"(K\x01J\xff\xff\xff\xff\x85" + FLOAT + b"\x89" + BYTES + b"tb.",
                 "damaged or incomplete"),
    "objects": (b"cnumpy\ndtype\n" + text("O8") + b"\x89\x88\x87R.", "holds an array of type O8"),
    "records": (b"cnumpy\ndtype\n" + text("V8") + b"\x89\x88\x87R.", "holds an array of type V8"),
    "dates": (b"cnumpy\ndtype\n" + text("M8[ns]") + b"\x89\x88\x87R.", "holds an array of type M8"),
    "list state": (ARRAY + b"(K\x01K\x01\x85" + FLOAT + b"\x89]tb.", "isn't of numbers"),
    "other class": (ARRAY.replace(b"cnumpy\nndarray\n", b"cnumpy\ndtype\n") + b".", "damaged"),
    "far memo": (b"\x80\x04]r\xff\xff\xff\x7f.", "it holds no list of episodes"),
    "far memo, protocol 0": (b"lp99999999999999\n.", "damaged or incomplete"),
    "long text": (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 50) + b"abc.", "damaged or incomplete"),
    "long bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"abc.", "damaged or incomplete"),
    "long array": (b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"abc.", "damaged or incomplete"),
    "long number": (b"\x80\x04\x8b\xff\xff\xff\x7fabc.", "damaged or incomplete"),
    "long frame": (b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"].", "no list of episodes"),
    "digits": (b"L" + b"9" * 10_000 + b"L\n.", "damaged or incomplete"),
    "empty": (b"", "damaged or incomplete"),
    "no end": (b"\x80\x04]", "damaged or incomplete"),
    "nothing": (b"\x80\x04.", "damaged or incomplete"),
    "no mark": (b"\x80\x04e.", "damaged or incomplete"),
    "a mark": (b"\x80\x04((\x85.", "damaged or incomplete"),
    "no memo": (b"\x80\x04h\x05.", "damaged or incomplete"),
    "not a dict": (b"\x80\x04]K\x01K\x02s.", "damaged or incomplete"),
    "key": (b"\x80\x04}K\x01K\x02s.", "damaged or incomplete"),
    "instruction": (b"\x80\x04\xff.", "damaged or incomplete"),
    "a number": (b"\x80\x04K\x01.", "holds no list of episodes"),
    "no episodes": (b"\x80\x04].", "holds no list of episodes"),
    "numbers": (b"\x80\x04]K\x01a.", "episode 0 is no dict of arrays"),
}  # fmt: skip


@pytest.mark.parametrize("case", BY_HAND)
def test_instructions_written_by_hand(tmp_path, canary, case):
    content, message = BY_HAND[case]
    (tmp_path / "bad.pkl").write_bytes(content.replace(b"touch x", touch(canary).encode()))
    refused(tmp_path / "bad.pkl", message)


def test_an_array_that_is_named_many_times(tmp_path):
    rows = np.zeros((1000, 3), dtype=np.float32)
    column = np.zeros(1000, dtype=np.float32)
    episode = dict(zip(EPISODE, (rows, rows, column, column > 0), strict=True))
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps([episode] * 100_000))
    refused(tmp_path / "bad.pkl", "more numbers are named than the file holds")


def test_lists_that_double_at_every_level(tmp_path):
    lists = [0.0, 0.0]
    for _ in range(60):
        lists = [lists, lists]
    rows = np.zeros((2, 1))
    episode = dict(zip(EPISODE, (lists, rows, rows[:, 0], rows[:, 0]), strict=True))
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps([episode]))
    refused(tmp_path / "bad.pkl", "'observations' isn't an array of numbers")


def test_lists_that_hold_themselves(tmp_path):
    itself = []
    itself.append(itself)
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(itself))
    refused(tmp_path / "bad.pkl", "episode 0 is no dict of arrays")
    (tmp_path / "bad.pkl").write_bytes(b"\x80\x04" + b"]" * 50_000 + b"a" * 49_999 + b".")
    refused(tmp_path / "bad.pkl", "episode 0 is no dict of arrays")


NAN = np.zeros((4, 3), dtype=np.float32)
NAN[1, 2] = np.nan
REFUSED = {
    "missing": ({"rewards": None}, "episode 1: the array 'rewards' is missing; found: observ"),
    "others": ({"next_observations": None}, "episode 1 has other arrays than the episodes before"),
    "rows": ({"rewards": np.zeros(3)}, r"differ in length or are empty: .*rewards \(3,\)"),
    "columns": ({"observations": np.zeros((4, 2))}, "episodes differ in shape"),
    "wide": ({"rewards": np.zeros((4, 2))}, r"'rewards' has shape \(4, 2\); \(T,\) is needed"),
    "scalar": ({"rewards": 1.0}, r"'rewards' has shape \(\)"),
    "nan": ({"observations": NAN}, "observations row 4, column 2 is nan"),
    "too large": ({"rewards": np.full(4, 1e39)}, "rewards row 3 is inf"),
    "bounds": ({"actions": np.full((4, 2), 2.0)}, "actions row 3, column 0 is 2.0"),
    "early": (
        {"terminals": np.ones(4, bool)},
        "terminations row 3 is True; only an episode's last",
    ),
    "flags": ({"terminals": np.full(4, np.nan)}, "terminals row 3 is nan; only 0 and 1"),
    "ragged": ({"rewards": [1.0, [2.0], 3.0, 4.0]}, "'rewards' differs in shape from row to row"),
    "text": ({"rewards": ["a"] * 4}, "'rewards' isn't an array of numbers"),
    "text array": ({"rewards": np.array(["a"] * 4)}, "holds an array of type U1"),
    "large numbers": ({"rewards": [10**400] * 4}, "isn't an array of numbers|differs in shape"),
    "image": ({"observations": np.zeros((4, 3, 3))}, "episodes differ in shape"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_files_are_refused_in_one_line(tmp_path, case):
    changes, message = REFUSED[case]
    refused(dt_pickle(tmp_path / "bad.pkl", **changes), message)


def test_ids_must_be_whole(tmp_path):
    path = dt_pickle(tmp_path / "bad.pkl")
    episodes = pickle.loads(path.read_bytes())
    for episode in episodes:
        episode["behaviour_id"] = episode["rewards"]
    path.write_bytes(pickle.dumps(episodes))
    refused(path, "'behaviour_id' has type float32; whole numbers are needed")


def test_altered_content_is_noticed(tmp_path):
    path = tmp_path / "own.pkl"
    write_pickle(path, full())
    whole = bytearray(path.read_bytes())
    at = whole.index(full().rewards[:3].tobytes())
    whole[at] ^= 1
    path.write_bytes(whole)
    refused(path, "its content has changed since it was written")
    path.write_bytes(whole[:-1])
    refused(path, "what is behind the pickle is damaged")


def test_what_our_files_say_of_themselves_is_plain(tmp_path):
    path = tmp_path / "own.pkl"
    write_pickle(path, full())
    pickled, _, trailer = path.read_bytes().partition(b"\n#ablate ")
    said = {**json.loads(trailer), "name": "two\nlines", "more": [1], "half": 0.5}
    path.write_bytes(pickled + b"\n#ablate " + json.dumps(said).encode())
    assert inspect_pickle(path).about == {"name": "two?lines", "half": 0.5}
    unhashed = json.dumps({"name": "sample"}).encode()
    for wrong in (b"3", b"{", b"[" * 100_000, b'{"content_hash": "a"}', unhashed):
        path.write_bytes(pickled + b"\n#ablate " + wrong)
        refused(path, "what is behind the pickle is damaged")
    path.write_bytes(pickled + pickled)  # more than one
    refused(path, "what is behind the pickle is damaged")
    path.write_bytes(pickled)
    assert inspect_pickle(path).about == {"name": "own.pkl"}


def test_missing_files(tmp_path):
    refused(tmp_path / "none.pkl", "there is no such file")
    refused(tmp_path, "is no file")
