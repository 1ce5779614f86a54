"""Data sets of the catalogue, and files, from one format to another."""

from pathlib import Path

import numpy as np
import pytest
from data_samples import make

from ablate.data import catalogue
from ablate.data.commands import convert, is_name
from ablate.data.formats import files
from ablate.errors import UserError


@pytest.mark.parametrize("format", files.FORMATS)
def test_a_set_of_the_catalogue_is_exported_with_all_its_episodes(
    tmp_path: Path, format: str
) -> None:
    cache = tmp_path / "cache"
    target = tmp_path / "tmaze-v0"
    convert("tmaze/passive-3", target, format, cache, overwrite=False)
    data = catalogue.load("tmaze/passive-3", cache)
    found = files.read(target)
    assert found.num_episodes == data.train.num_episodes + data.held_out.num_episodes
    np.testing.assert_array_equal(found.actions[: len(data.train.actions)], data.train.actions)
    assert files.inspect(target).about["environment"] == "tmaze/passive-3"


def test_a_file_is_converted_and_not_lost(tmp_path: Path) -> None:
    first, second = tmp_path / "a.hdf5", tmp_path / "b.pkl"
    sample = make([3, 4, 5])
    files.write(first, sample, "hdf5")
    convert(str(first), second, "pickle", tmp_path, overwrite=False)
    assert files.read(second).content_hash == sample.content_hash
    with pytest.raises(UserError, match=r"b\.pkl"):
        convert(str(first), second, "pickle", tmp_path, overwrite=False)
    assert files.read(second).content_hash == sample.content_hash


def test_a_name_is_told_from_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_name("tmaze/passive-3")
    assert not is_name("some/where.hdf5")
    (tmp_path / "tmaze").mkdir()
    (tmp_path / "tmaze" / "passive-3").touch()
    assert not is_name("tmaze/passive-3")


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        convert("nothing.hdf5", tmp_path / "a", "hdf5", tmp_path, overwrite=False)
    with pytest.raises(UserError, match="hdf5"):
        convert("tmaze/passive-3", tmp_path / "a", "hdf", tmp_path, overwrite=False)
