"""HDF5 files made to do harm: what leads out of the file, what is only declared, what HDF5 trips over."""

import time

import h5py
import numpy as np
import pytest
from format_samples import d4rl_file

from ablate.data.formats import base
from ablate.data.formats.hdf5 import inspect_hdf5, read_hdf5
from ablate.data.formats.hdf5_source import SIGNATURE, shown
from ablate.errors import UserError


@pytest.fixture
def path(tmp_path):
    """A good file whose rewards a test replaces."""
    return d4rl_file(tmp_path / "bad.hdf5")


@pytest.fixture
def secret(tmp_path):
    """Another file with rewards."""
    return d4rl_file(tmp_path / "secret.hdf5", rewards=np.full(10, 7.0))


def refused(path, match):
    start = time.perf_counter()
    with pytest.raises(UserError, match=match) as caught:
        read_hdf5(path)
    assert "bad.hdf5" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - start < 5  # about 0.01 s on an idle core


@pytest.mark.parametrize("key", ["rewards", "infos", "timeouts", "infos/goal"])
@pytest.mark.parametrize("kind", ["external", "soft"])
def test_links_are_not_followed(path, secret, key, kind):
    with h5py.File(path, "r+") as file:
        if key in file:
            del file[key]
        target = "/" if key == "infos" else "/rewards"
        external = h5py.ExternalLink(str(secret), target)
        file[key] = external if kind == "external" else h5py.SoftLink("/actions")
    refused(path, f"'{key}' is a link; arrays must lie in the file itself")


def test_storage_outside_of_the_file_is_not_read(path, secret):
    with h5py.File(path, "r+") as file:
        del file["rewards"]
        file.create_dataset("rewards", (10,), "f4", external=[(str(secret), 0, 40)])
    refused(path, "'rewards' keeps its values outside this file")
    layout = h5py.VirtualLayout((10,), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "rewards", (10,))
    with h5py.File(path, "r+") as file:
        del file["rewards"]
        file.create_virtual_dataset("rewards", layout)
    refused(path, "'rewards' keeps its values outside this file")


@pytest.mark.parametrize(
    "how",
    [
        {"shape": (10**12,)},  # nothing was ever written: 4 TB of zeros
        {"shape": (10**12,), "chunks": (1000,)},
        {"shape": (10**12,), "chunks": (1000,), "compression": "gzip"},
        {"shape": (10,), "chunks": (4,)},  # an interrupted writer: zeros in some places
    ],
)
def test_sizes_that_are_only_declared_are_refused(path, how):
    with h5py.File(path, "r+") as file:
        del file["rewards"]
        rewards = file.create_dataset("rewards", dtype="f4", **how)
        if how["shape"] == (10,):
            rewards[:2] = 1
    refused(path, "'rewards' declares .* bytes in shape .*, which the file doesn't hold")


def test_a_bomb_is_not_unpacked(path):
    with h5py.File(path, "r+") as file:
        del file["rewards"]
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((1 << 22,))
        for _ in range(2):  # deflate's output of zeros deflates once more
            plan.set_deflate(9)
        space = h5py.h5s.create_simple((1 << 22,))
        rewards = h5py.h5d.create(file.id, b"rewards", h5py.h5t.NATIVE_FLOAT, space, plan)
        rewards.write(h5py.h5s.ALL, h5py.h5s.ALL, np.zeros(1 << 22, dtype="f4"))
    assert path.stat().st_size < 20_000
    refused(path, "'rewards' declares 16,777,216 bytes")


def test_more_than_memory_holds_is_refused(path, monkeypatch):
    monkeypatch.setattr(base, "memory", lambda: 600)
    refused(
        path, "'actions' takes 160 bytes, and all of it more than half of this machine's memory"
    )
    monkeypatch.setattr(base, "memory", lambda: 100_000)
    with h5py.File(path, "r+") as file:
        del file["rewards"]
        how = {"chunks": (100_000,), "maxshape": (None,), "compression": "gzip"}
        file.create_dataset("rewards", data=np.zeros(10, "f4"), **how)
    refused(path, "'rewards' takes 400,000 bytes")


def test_filters_that_come_from_elsewhere_are_refused(path):
    with h5py.File(path, "r+") as file:
        del file["rewards"]
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((10,))
        plan.set_filter(305, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((10,))
        rewards = h5py.h5d.create(file.id, b"rewards", h5py.h5t.NATIVE_FLOAT, space, plan)
        rewards.write(h5py.h5s.ALL, h5py.h5s.ALL, np.zeros(10, dtype="f4"))
    refused(path, "'rewards' needs HDF5 filter 305")


@pytest.mark.parametrize("how", [{"compression": "gzip", "shuffle": True}, {"compression": "lzf"},
                                 {"fletcher32": True}, {"scaleoffset": 3, "data": np.arange(10)}])  # fmt: skip
def test_filters_that_every_hdf5_has_are_read(path, how):
    with h5py.File(path, "r+") as file:
        del file["rewards"]
        file.create_dataset("rewards", **{"data": np.arange(10.0), "chunks": (4,), **how})
    np.testing.assert_array_equal(read_hdf5(path).rewards, np.arange(8))


def test_a_damaged_chunk_is_noticed_where_it_has_a_checksum(path):
    with h5py.File(path, "r+") as file:
        del file["rewards"]
        rewards = file.create_dataset(
            "rewards", data=np.arange(10.0), chunks=(10,), fletcher32=True
        )
        at = rewards.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[at + 3] ^= 1
    path.write_bytes(content)
    refused(path, "damaged or incomplete")


def test_truth_values_are_zero_or_one(path):
    with h5py.File(path) as file:
        at = file["terminals"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[at] = 7
    path.write_bytes(content)
    refused(path, "'terminals' holds truth values that are neither 0 nor 1")


def test_groups_that_hold_themselves_are_read(path):
    with h5py.File(path, "r+") as file:
        file["infos/infos"] = file["infos"]
        file["infos/root"] = file["/"]
    assert read_hdf5(path).num_episodes == 2


def test_texts_that_hdf5_would_read_forever(path):
    """HDF5 2.0.0 walks a heap of texts in steps of their sizes: a free space of size 0 is no step."""
    with h5py.File(path, "r+") as file:
        file.attrs["note"] = "of free length, in a heap"
    assert inspect_hdf5(path).about["note"] == "of free length, in a heap"
    content = bytearray(path.read_bytes())
    at = content.index(b"GCOL") + 16
    content[at : at + 2] = bytes(2)
    content[at + 8 : at + 16] = bytes(8)
    path.write_bytes(content)
    refused(path, "its texts are damaged")


def test_attributes_are_numbers_and_texts(path):
    with h5py.File(path, "r+") as file:
        file.attrs["whole"], file.attrs["part"], file.attrs["yes"] = 3, 0.5, True
        file.attrs["text"] = np.bytes_("größe".encode())
        file.attrs["many"] = ["a", "b"]
        file.attrs["record"] = np.zeros((), "f4,f4")
        file.attrs["nothing"] = h5py.Empty("f4")
        file.attrs["reference"] = file.ref
        file.attrs["name"] = "two\nlines\x1b[31m"
    found = inspect_hdf5(path)
    assert found.about == {
        "whole": 3, "part": 0.5, "yes": True, "text": "größe", "name": "two\nlines\x1b[31m",
    }  # fmt: skip
    assert found.trajectories.name == "two?lines?[31m"


def test_other_layouts_of_the_first_bytes(path):
    whole = path.read_bytes()
    for at, value in ((13, 4), (14, 2), (8, 9)):
        path.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
        refused(path, "damaged or incomplete")
    path.write_bytes(SIGNATURE)
    refused(path, "damaged or incomplete")


def test_names_from_a_file_stay_on_a_line(path):
    with h5py.File(path, "r+") as file:
        del file["rewards"]
        for index in range(20):
            file[f"a\n{index:02}"] = 0
    refused(path, r"'rewards' is missing; found: a\?00, a\?01, .* and 14 more")
    assert shown(["b" * 100]) == "b" * 37 + "..."
