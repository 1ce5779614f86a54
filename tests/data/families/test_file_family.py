"""`file/...`: any file of the user's as a data set."""

from dataclasses import replace

import numpy as np
import pytest
from data_samples import make

from ablate.data import catalogue
from ablate.data.catalogue import PLAIN
from ablate.data.formats import files
from ablate.errors import UserError

NAMES = {"hdf5": "a.hdf5", "minari": "a-v0", "pickle": "a.pkl"}


def episodes(observed=4, acted=2):
    """Twenty episodes of lq-mix's dimensions, or of others."""
    data = make([5] * 20, extras=False)
    rng = np.random.default_rng(1)
    return replace(
        data,
        observations=rng.standard_normal((100, observed)).astype(np.float32),
        actions=rng.uniform(-1, 1, (100, acted)).astype(np.float32),
    )


@pytest.mark.parametrize("format", files.FORMATS)
def test_any_format_is_a_data_set(tmp_path, format):
    data, path = episodes(), tmp_path / NAMES[format]
    files.write(path, data, format, environment="lq-mix/episode")
    found = catalogue.load(f"file/{path}", tmp_path / "cache")  # file//...: an absolute path
    base = catalogue.spec("lq-mix/episode")
    assert found.spec.name == found.train.name == f"file/{path}"
    assert (found.train.num_episodes, found.held_out.num_episodes) == (18, 2)
    assert found.anchors == base.anchors()
    env, wanted = found.spec.make_env(2), base.make_env(2)
    np.testing.assert_array_equal(env.reset([1, 2]), wanted.reset([1, 2]))


def test_paths_may_be_relative_and_the_split_is_the_same_anywhere(tmp_path, monkeypatch):
    for folder in ("x", "y"):
        files.write(tmp_path / folder / "a.hdf5", episodes(), "hdf5")
    monkeypatch.chdir(tmp_path / "x")
    here = catalogue.load("file/a.hdf5", tmp_path)
    there = catalogue.load(f"file/{tmp_path}/y/a.hdf5", tmp_path)
    assert here.content_hash == there.content_hash
    monkeypatch.setenv("HOME", str(tmp_path / "y"))
    assert catalogue.load("file/~/a.hdf5", tmp_path).content_hash == here.content_hash
    assert not [name for name in catalogue.known_names() if name.startswith("file/")]


@pytest.mark.parametrize("format", files.FORMATS)
def test_a_gymnasium_environment(tmp_path, format):
    path = tmp_path / NAMES[format]
    data = episodes(3, 1)
    files.write(path, data, format, environment="Pendulum-v1")
    found = catalogue.load(f"file/{path}", tmp_path)
    assert found.spec.make_env(2).observation_dim == 3
    assert found.anchors == PLAIN  # nobody has said which returns are good and bad
    np.testing.assert_array_equal(found.anchors.score(data.returns), data.returns)


def test_anchors_of_the_file(tmp_path):
    about = {"anchor_low": -1.5, "anchor_high": 9, "anchor_source": "measured"}
    files.write(tmp_path / "a.hdf5", episodes(), "hdf5", about=about)
    anchors = catalogue.spec(f"file/{tmp_path}/a.hdf5").anchors()
    assert (anchors.low, anchors.high, anchors.source) == (-1.5, 9, "measured")


@pytest.mark.parametrize("format", files.FORMATS)
def test_without_an_environment_it_trains_and_is_not_evaluated(tmp_path, format):
    path = tmp_path / NAMES[format]
    files.write(path, episodes(), format)
    found = catalogue.load(f"file/{path}", tmp_path)
    with pytest.raises(UserError, match=r"no environment") as caught:
        found.spec.make_env(1)
    assert path.name in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ("lq-mix/episodes", "Did you mean 'lq-mix/episode'"),
        ("os:system", "the environment 'os:system' is not allowed"),
        ("Pendulam-v1", "'Pendulam-v1' is not registered"),
        ("CartPole-v1", "the data have 3 and 1"),
        ("file/a.hdf5", "'file/a.hdf5' is not registered"),
    ],
)
def test_environments_that_cannot_be_made(tmp_path, environment, message):
    files.write(tmp_path / "a.hdf5", episodes(3, 1), "hdf5", environment=environment)
    with pytest.raises(UserError, match=message):
        catalogue.spec(f"file/{tmp_path}/a.hdf5").make_env(1)


def test_files_that_are_not_there_or_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"none.hdf5: there is no such file or folder"):
        catalogue.spec(f"file/{tmp_path}/none.hdf5")
    (tmp_path / "a.txt").write_text("observations")
    with pytest.raises(UserError, match="it is none of the formats that can be read"):
        catalogue.spec(f"file/{tmp_path}/a.txt")
    files.write(tmp_path / "a.pkl", episodes(), "pickle")
    (tmp_path / "a.pkl").write_bytes((tmp_path / "a.pkl").read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged or incomplete"):
        catalogue.load(f"file/{tmp_path}/a.pkl", tmp_path)
