"""Any format into any other, and back, unchanged; files that appear whole or not at all."""

import os
import pickle
import shutil

import h5py
import numpy as np
import pytest
from data_samples import make
from format_samples import d4rl_file, dt_pickle, full, genuine, minari_04, trajectories
from hypothesis import given, settings

from ablate.data.formats import base, files
from ablate.data.formats.files import FORMATS, check, convert, detect, inspect, read, write
from ablate.errors import UserError

NAMES = {"hdf5": "a.hdf5", "minari": "a-v0", "pickle": "a.pkl"}


@pytest.mark.parametrize("format", FORMATS)
@given(data=trajectories())
@settings(deadline=None, max_examples=40)
def test_anything_valid_is_read_back_the_same(tmp_path_factory, format, data):
    path = tmp_path_factory.mktemp("files") / NAMES[format]
    write(path, data, format)
    again = read(path)
    assert again.content_hash == data.content_hash
    assert list(again.arrays) == list(data.arrays)
    assert again.name == (data.name if len(data.name) <= 200 else data.name[:197] + "...")


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_every_array_survives_every_conversion(tmp_path, first, second):
    data = full()
    start, middle, end = (tmp_path / folder / NAMES[first] for folder in "abc")
    middle = middle.with_name(NAMES[second])
    about = {"anchor_low": 1.5, "anchor_source": "by hand"}
    write(start, data, first, environment="lq-mix/episode", about=about)
    assert convert(start, middle, second) == []
    assert convert(middle, end, first) == []
    for path, format in ((start, first), (middle, second), (end, first)):
        found = inspect(path)
        assert detect(path) == format
        assert found.trajectories.content_hash == data.content_hash
        assert found.about == {**about, "name": "sample", "environment": "lq-mix/episode"}


@pytest.mark.parametrize("target", FORMATS)
def test_files_of_others_are_converted(tmp_path, target):
    made = genuine(tmp_path / "made")
    sources = [
        d4rl_file(tmp_path / "x.hdf5"),
        dt_pickle(tmp_path / "x.pkl"),
        minari_04(tmp_path / "x-v0"),
        made / "0.5.4" / "pendulum-v0",
        made / "0.4.3" / "lake-v0",
    ]
    for index, source in enumerate(sources):
        path = tmp_path / str(index) / NAMES[target]
        remarks = convert(source, path, target)
        assert read(path).content_hash == read(source).content_hash
        wanted = inspect(source).about.get("environment")
        assert inspect(path).about.get("environment") == wanted
        if target == "minari" and wanted == "Toy-v0":  # which nobody can make here
            assert remarks[-1].startswith("Minari can't make the environment again: ")


def test_no_module_is_imported_because_a_file_says_so(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path / "a.hdf5", full(), "hdf5", environment="evil:Evil-v0")
    remarks = convert(tmp_path / "a.hdf5", tmp_path / "a-v0", "minari")
    assert "the environment 'evil:Evil-v0' is not allowed" in remarks[-1]
    check(tmp_path / "a-v0")
    assert not (tmp_path / "canary").exists()


def test_the_format_is_told_from_the_content(tmp_path):
    shutil.copy(d4rl_file(tmp_path / "a.hdf5"), tmp_path / "a.pkl")
    assert detect(tmp_path / "a.pkl") == "hdf5"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert detect(dt_pickle(tmp_path / "b.hdf5", protocol)) == "pickle"
    folder = minari_04(tmp_path / "c-v0")
    for path in (folder, folder / "data", folder / "data" / "main_data.hdf5"):
        assert detect(path) == "minari"
        assert read(path).num_episodes == 2
    (tmp_path / "d").write_text("observations, actions\n")
    with pytest.raises(UserError, match="d: it is none of the formats that can be read"):
        detect(tmp_path / "d")
    for empty in (b"", b"\x89HDF"):
        (tmp_path / "d").write_bytes(empty)
        with pytest.raises(UserError, match="none of the formats"):
            detect(tmp_path / "d")
    os.mkfifo(tmp_path / "pipe")  # would be waited for
    with pytest.raises(UserError, match="pipe: is no file"):
        detect(tmp_path / "pipe")
    for missing in (tmp_path / "none", tmp_path / "nul\0byte"):
        with pytest.raises(UserError, match="there is no such file or folder"):
            detect(missing)


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_is_overwritten_unless_that_is_said(tmp_path, format):
    path = tmp_path / NAMES[format]
    write(path, full(), format)
    with pytest.raises(UserError, match="is there already; say that it may be overwritten"):
        write(path, make([2]), format)
    assert read(path).content_hash == full().content_hash
    write(path, make([2]), format, overwrite=True)
    assert read(path).content_hash == make([2]).content_hash
    convert(path, path, format, overwrite=True)
    assert read(path).content_hash == make([2]).content_hash
    assert [each.name for each in tmp_path.iterdir()] == [NAMES[format]]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("how", [KeyboardInterrupt, OSError])
def test_an_interrupted_writer_leaves_what_was_there(tmp_path, monkeypatch, format, there, how):
    path = tmp_path / NAMES[format]
    if there:
        write(path, full(), format)

    real, calls = os.replace, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) < 1 + (there and format == "minari"):
            return real(*args)  # a folder that is in the way is put aside first
        if len(calls) > 1 + (there and format == "minari"):
            return real(*args)  # and put back
        raise how("interrupted")

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt if how is KeyboardInterrupt else UserError):
        write(path, make([2]), format, overwrite=True)
    monkeypatch.undo()
    if there:
        assert read(path).content_hash == full().content_hash
    assert [each.name for each in tmp_path.iterdir()] == [NAMES[format]] * there


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match=r"format: 'hdf6' is not known.* Did you mean 'hdf5'"):
        write(tmp_path / "a", full(), "hdf6")
    with pytest.raises(UserError, match=r"'a\.b' is no dataset id; allowed"):
        write(tmp_path / "a.b", full(), "minari")
    (tmp_path / "file").write_text("in the way")
    for format, name in NAMES.items():
        with pytest.raises(UserError, match="can't be written") as caught:
            write(tmp_path / "file" / name, full(), format)
        assert "\n" not in str(caught.value)


def test_minari_sets_below_their_root_have_a_namespace(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    write(tmp_path / "ours" / "a-v0", full(), "minari")
    assert '"dataset_id": "ours/a-v0"' in (tmp_path / "ours/a-v0/data/metadata.json").read_text()


def test_a_file_that_may_not_be_opened(tmp_path, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    path = dt_pickle(tmp_path / "a.pkl")
    monkeypatch.setattr("builtins.open", forbidden)
    with pytest.raises(UserError, match=r"a.pkl: can't be opened \(.*Permission denied\)"):
        detect(path)


def test_the_memory_of_machines_that_do_not_say(monkeypatch):
    assert base.memory() > 1 << 28
    monkeypatch.delattr(os, "sysconf")
    assert base.memory() == 1 << 34


def test_check_says_what_is_there(tmp_path):
    path = d4rl_file(tmp_path / "a.hdf5", observations=np.zeros((10, 3)))
    assert check(path) == [
        str(path),
        "format: hdf5",
        "name: a.hdf5",
        "environment: not recorded",
        "episodes: 2, of 4 to 4 steps",
        "steps: 8",
        "ends: 1 terminations, 1 truncations",
        "observation: 3 numbers",
        "action: 2 numbers in [-1, 1]",
        "returns: min 6, median 14, max 22",
        "also known: nothing",
        f"content: {read(path).content_hash}",
        "note: an unfinished episode of 2 steps was left out",
        "note: float64 numbers were rounded to float32",
        "no problem found",
    ]
    with h5py.File(path, "r+") as file:
        file["actions"][3, 1] = 2
    problem = f"problem: {path}: actions row 3, column 1 is 2.0; actions must lie in [-1, 1]. "
    assert check(path)[:2] == [str(path), "format: hdf5"]
    assert check(path)[2].startswith(problem)
    assert check(path)[3:] == []
    missing = tmp_path / "none"
    assert check(missing) == [
        str(missing),
        f"problem: {missing}: there is no such file or folder.",
    ]


def test_reading_names_the_trajectories(tmp_path):
    for format, name in NAMES.items():
        write(tmp_path / name, full(), format)
        assert files.read(tmp_path / name, "another").name == "another"
