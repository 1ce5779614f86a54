"""Hundreds of damaged copies of good files: a refusal in one line or a correct load, nothing else.

The copies are read in a process of their own, which tells after each how it went: if HDF5 crashes or
hangs there, the case is known and the tests go on.
"""

import gzip
import multiprocessing
import os
import pickle
import random
import re
import shutil
import struct
import time
import warnings

import h5py
import numpy as np
import pytest
from format_samples import d4rl_file, dt_pickle, full, minari_04

from ablate.data.formats.files import read, write
from ablate.errors import UserError

FAST, SLOW = 84, 2000  # copies of each kind of file
LIMIT = 10.0  # seconds a case; about 0.005 on an idle core
EXTREMES = [0, 1, -1, -2, 96, 800, 2**31 - 1, 2**32 - 1, 2**40, 2**62, 2**63 - 1]
SIGNATURES = [b"GCOL", b"OHDR", b"TREE", b"SNOD", b"HEAP", b"FRHP", b"BTHD", b"FHDB", b"\x89HDF"]


def good_files(folder):
    """Kind of file -> (path to read, file that is damaged)."""
    data = full([6, 9, 5])
    write(folder / "own.hdf5", data, "hdf5", about={"anchor_low": 1.5, "recipe": "x" * 300})
    d4rl_file(
        folder / "d4rl.hdf5",
        **{"infos/qvel": np.zeros((10, 2)), "next_observations": np.zeros((10, 3))},
    )
    with h5py.File(folder / "d4rl.hdf5", "r+") as file:
        rewards = file["rewards"][()]
        del file["rewards"]
        file.create_dataset("rewards", data=rewards, compression="gzip", shuffle=True)
        file.attrs["note"] = "of free length"
    write(folder / "own-v0", data, "minari")
    minari_04(folder / "old-v0")
    write(folder / "own.pkl", data, "pickle")
    dt_pickle(folder / "dt.pkl")
    inside = "data/main_data.hdf5"
    with h5py.File(folder / "d4rl.hdf5") as file:
        arrays = {key: file[key][()] for key in file if isinstance(file[key], h5py.Dataset)}
    np.savez(folder / "a.npz", **arrays)
    (folder / "dt.pkl.gz").write_bytes(gzip.compress((folder / "dt.pkl").read_bytes()))
    with h5py.File(folder / "demos.hdf5", "w") as file:
        for demo in range(2):
            for key in ("actions", "rewards"):
                file[f"data/demo_{demo}/{key}"] = arrays[key][:8]
            file[f"data/demo_{demo}/dones"] = np.arange(8) == 7 * demo
            file[f"data/demo_{demo}/obs/a"] = arrays["observations"][:8]
            file[f"data/demo_{demo}/obs/b"] = arrays["rewards"][:8]
    return {
        "npz": (folder / "a.npz", folder / "a.npz"),
        "gzipped pickle": (folder / "dt.pkl.gz", folder / "dt.pkl.gz"),
        "robomimic": (folder / "demos.hdf5", folder / "demos.hdf5"),
        "own hdf5": (folder / "own.hdf5", folder / "own.hdf5"),
        "d4rl hdf5": (folder / "d4rl.hdf5", folder / "d4rl.hdf5"),
        "own minari": (folder / "own-v0", folder / "own-v0" / inside),
        "minari's description": (folder / "own-v0", folder / "own-v0/data/metadata.json"),
        "older minari": (folder / "old-v0", folder / "old-v0" / inside),
        "own pickle": (folder / "own.pkl", folder / "own.pkl"),
        "dt pickle": (folder / "dt.pkl", folder / "dt.pkl"),
    }


def damaged_bytes(content, rng):
    """Cut, changed or copied over at random, with a liking for sizes and for HDF5's structures."""
    content = bytearray(content)
    size, how = len(content), rng.randrange(6)
    if how == 0:
        return bytes(content[: rng.randrange(size)])
    if how == 1:
        for _ in range(rng.randint(1, 8)):
            content[rng.randrange(size)] = rng.randrange(256)
    elif how == 2:
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif how == 3:
        at = rng.randrange(size - 8)
        content[at : at + 8] = struct.pack("<q", rng.choice([*EXTREMES, size]))
    elif how == 4:
        length = rng.randint(1, 64)
        start, at = rng.randrange(size), rng.randrange(size - length)
        content[start : start + length] = content[at : at + length]
    else:
        places = [at for mark in SIGNATURES for at in range(size) if content.startswith(mark, at)]
        for _ in range(rng.randint(1, 4)):
            at = min(size - 1, rng.choice(places or [0]) + rng.randrange(200))
            content[at] = rng.choice([0, 1, 255, rng.randrange(256)])
    return bytes(content)


def damaged_hdf5(path, rng, secret):
    """A copy whose structure is sound and whose content isn't: types, shapes, sizes, links."""
    with h5py.File(path, "r+") as file:
        found = []
        file.visititems(
            lambda name, item: (
                found.append(name) if isinstance(item, h5py.Dataset) and item.ndim else None
            )
        )
        key = rng.choice(found)
        array = file[key][()]
        if array.dtype.kind == "S":
            array = np.zeros(3)
        how = rng.randrange(13)
        if how == 12:  # offsets, where they are; else the attribute of a file that has none
            starts = np.array(file.attrs.get("episode_starts", [0, 4, 10]))
            rng.shuffle(starts)
            file.attrs["episode_starts"] = starts
            return
        del file[key]
        spoiled = array.astype(float).ravel()
        if len(spoiled):
            spoiled[rng.randrange(len(spoiled))] = rng.choice([np.nan, np.inf, 1e300, -2, 7])
        changes = {
            0: lambda: file.create_dataset(key, data=array[: len(array) // 2]),
            1: lambda: file.create_dataset(key, data=array[..., None]),
            2: lambda: file.create_dataset(key, data=array.ravel()),
            3: lambda: file.create_dataset(key, data=spoiled.reshape(array.shape)),
            4: lambda: file.create_dataset(key, data=array.astype(rng.choice([">f8", ">i2", "u1"]))),
            5: lambda: file.create_dataset(key, data=array.astype("S8")),
            6: lambda: file.create_dataset(key, (10 ** rng.randint(6, 15), 3), "f4"),
            7: lambda: file.create_dataset(key, (10**12, 3), "f4", chunks=(1000, 3)),
            8: lambda: file.__setitem__(key, h5py.ExternalLink(str(secret), "/rewards")),
            9: lambda: file.__setitem__(key, h5py.SoftLink(rng.choice(found))),
            10: lambda: file.create_dataset(key, array.shape, "f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)]),
            11: lambda: file.create_dataset(key, data=np.zeros(array.shape, "f4,i2")),
        }  # fmt: skip
        changes[how]()


class Harm:
    """Makes the canary when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def damaged_pickle(path, rng, canary):
    """A copy with arrays changed, lost or replaced, or with something that would run."""
    episodes = pickle.loads(path.read_bytes())
    episode = rng.choice(episodes)
    key = rng.choice(list(episode))
    array = episode[key]
    changes = [
        lambda: array[:-1],
        lambda: array[..., None],
        lambda: np.where(rng.random() < 0.5, np.nan, 1e300) + array,
        lambda: array.astype(object),
        lambda: array.astype(rng.choice([">f8", ">i2", "u1", "S8", "c16"])),
        lambda: [array, array],
        lambda: Harm(canary),
        lambda: [Harm(canary)],
        lambda: np.array([Harm(canary)] * len(array), dtype=object),
        lambda: None,
        lambda: array.tolist(),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is cast is meant to be wrong
        episode[rng.choice([key, "another"])] = rng.choice(changes)()
    content = pickle.dumps(
        rng.choice([episodes, episodes, episode, {"a": episodes}]), rng.randint(0, 5)
    )
    path.write_bytes(content)


def cases(folder, number, seed, tell):
    """Damages and reads `number` copies of each kind; tells (kind, case, what went wrong or '')."""
    good = good_files(folder)
    whole = {kind: file.read_bytes() for kind, (_, file) in good.items()}
    original = {kind: read(path).content_hash for kind, (path, _) in good.items()}
    secret = d4rl_file(folder / "secret.hdf5", rewards=np.full(10, 7777.0))
    canary = folder / "canary"
    for kind, (path, file) in good.items():
        for case in range(number):
            tell.send((kind, case, None))
            rng = random.Random(f"{seed}/{kind}/{case}")
            own = structural = False
            file.write_bytes(whole[kind])
            if case % 2 and file.suffix == ".hdf5":
                damaged_hdf5(file, rng, secret)
                structural = True
            elif case % 2 and file.suffix == ".pkl":
                damaged_pickle(file, rng, canary)
                structural = True
            else:
                file.write_bytes(damaged_bytes(whole[kind], rng))
                own = kind in ("own hdf5", "own minari", "own pickle")
            tell.send((kind, case, outcome(path, original[kind], own, structural)))
            if canary.exists():
                tell.send((kind, case, "code was run"))
                canary.unlink()
        file.write_bytes(whole[kind])
    tell.send(None)


def outcome(path, original, own, structural):
    """What went wrong, '' if nothing: a load is valid, and the original's where a hash protects it."""
    try:
        found = read(path)
        found.validate()
    except UserError as error:
        return "" if "\n" not in str(error) and len(str(error)) < 2000 else f"message {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    if own and found.content_hash != original:
        return "a load that isn't what was written"
    return "a value from outside the file" if structural and (found.rewards == 7777).any() else ""


def told(folder, number, seed):
    """Runs `cases` in a process of its own; returns the number of cases and what went wrong."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=quiet_cases, args=(folder, number, seed, theirs))
    process.start()
    theirs.close()
    count, wrong, at = 0, [], "the beginning"
    try:
        while True:
            if not ours.poll(LIMIT):
                wrong.append(f"{at}: no answer within {LIMIT:.0f} s")
                break
            try:
                message = ours.recv()
            except EOFError:
                process.join()
                wrong.append(f"{at}: the process ended ({process.exitcode})")
                break
            if message is None:
                break
            kind, case, problem = message
            at = f"{kind} {case}"
            count += problem is not None
            if problem:
                wrong.append(f"{at}: {problem}")
    finally:
        process.kill()
        process.join()
    return count, wrong


def quiet_cases(folder, number, seed, tell):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what HDF5 prints when it crashes
    cases(folder, number, seed, tell)


def test_damaged_copies_are_refused_or_right(tmp_path):
    count, wrong = told(tmp_path, FAST, "fast")
    assert wrong == []
    assert count == 10 * FAST >= 500


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_many_damaged_copies_are_refused_or_right(tmp_path, seed):
    count, wrong = told(tmp_path, SLOW, seed)
    assert wrong == []
    assert count == 10 * SLOW


def test_the_fuzzer_notices_what_it_is_for(tmp_path, monkeypatch):
    """A reader that hangs, crashes, raises, or returns something else."""
    faults = {
        "hang": lambda path: time.sleep(60),
        "crash": lambda path: os._exit(139),
        "raise": lambda path: 1 / 0,
        "wrong": lambda path: full([2]),
    }
    expected = {
        "hang": "no answer within",
        "crash": r"the process ended \(139\)",
        "raise": "ZeroDivisionError",
        "wrong": "a load that isn't what was written",
    }
    good = read
    for kind, fault in faults.items():
        calls = []

        def faulty(path, fault=fault, calls=calls):
            calls.append(path)
            return good(path) if len(calls) <= 10 else fault(path)  # 10: the whole ones

        monkeypatch.setattr(f"{__name__}.read", faulty)
        monkeypatch.setattr(f"{__name__}.LIMIT", 0.5 if kind == "hang" else 10.0)
        folder = tmp_path / kind
        folder.mkdir()
        _, wrong = told(folder, 1, "faulty")
        assert wrong, kind
        assert re.search(expected[kind], " ".join(wrong)), kind
        shutil.rmtree(folder)
