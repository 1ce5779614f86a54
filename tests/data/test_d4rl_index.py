"""The index of D4RL's data sets against the d4rl package, where it is, and known values."""

import importlib.util
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ablate.data.d4rl_index import entries, entry, folder, normalised_score
from ablate.errors import UserError

EXPECTED = json.loads((Path(__file__).parent / "d4rl_expected.json").read_text())

# Reference scores by id, from D4RL's paper and package.
SCORES = {
    "halfcheetah-medium-v2": (-280.178953, 12135.0),
    "hopper-full-replay-v1": (-20.272305, 3234.3),
    "walker2d-expert-v0": (1.629008, 4592.3),
    "ant-medium-replay-v2": (-325.6, 3879.7),
    "maze2d-open-v0": (0.01, 20.66),
    "maze2d-umaze-v1": (23.85, 161.86),
    "maze2d-large-dense-v1": (30.569041, 303.4857382709002),
    "maze2d-eval-medium-v1": (13.07, 204.93),
    "antmaze-large-diverse-v2": (0.0, 1.0),
    "pen-cloned-v1": (96.262799, 3076.8331017826877),
    "hammer-human-v0": (-274.856578, 12794.134825156867),
    "relocate-expert-v1": (-6.425911, 4233.877797728884),
    "door-human-v0": (-56.512833, 2880.5693087298737),
    "kitchen-mixed-v0": (0.0, 4.0),
    "minigrid-fourrooms-v0": (0.01442, 2.89685),
    "flow-merge-random-v0": (118.67993, 330.03179),
    "carla-town-v0": (-114.81579500772153, 2440.1772022247314),
    "bullet-walker2d-medium-expert-v0": (16.523877, 1623.6476303317536),
}
FILES = {
    "hopper-medium-v2": (
        "gym_mujoco_v2/hopper_medium-v2.hdf5",
        152756557,
        "5bdf1bc4a713c82941de44633df669b36c89850b652a25985166796d25cf71a0",
    ),
    "walker2d-medium-replay-v2": (
        "gym_mujoco_v2/walker2d_medium_replay-v2.hdf5",
        86323963,
        "e75de96a4f77acf7d4e0d6fdf0d7ccb177c26c44bb4388e4fd99f543ccfa18db",
    ),
    "door-human-v0": (
        "hand_dapg/door-v0_demos_clipped.hdf5",
        3118318,
        "9df6345e28fcec8f44c0af4d6dacc6ef996958b39b568f53df85cf41dd03412b",
    ),
    "walker2d-medium-replay-v0": ("gym_mujoco/walker_mixed.hdf5", 8832937, None),
    "kitchen-partial-v0": (
        "kitchen/kitchen_microwave_kettle_light_slider-v0.hdf5",
        None,
        None,
    ),
}


def test_all_155_are_there():
    assert len(entries()) == 155
    assert Counter(each.suite for each in entries().values()) == {
        "gym-mujoco": 69, "maze2d": 14, "antmaze": 12, "adroit": 24, "kitchen": 3,
        "minigrid": 2, "flow": 4, "carla": 3, "bullet": 24,
    }  # fmt: skip
    assert len({each.file for each in entries().values()}) == 155  # no two share a place
    for name, each in entries().items():
        assert each.name == name
        assert each.high > each.low
        assert 50 <= each.horizon <= 1000
        assert each.file.endswith(".hdf5")
        assert (each.size is None) == (each.sha256 is None)
        assert each.sha256 is None or (len(each.sha256) == 64 and int(each.sha256, 16))
    digests = [each.sha256 for each in entries().values() if each.sha256]
    assert len(digests) == len(set(digests)) == 97


@pytest.mark.parametrize("name", SCORES)
def test_reference_scores(name):
    assert (entry(name).low, entry(name).high) == SCORES[name]


@pytest.mark.parametrize("name", FILES)
def test_addresses_and_checksums(name):
    path, size, digest = FILES[name]
    found = entry(name)
    assert found.url == f"http://rail.eecs.berkeley.edu/datasets/offline_rl/{path}"
    assert found.file == path.rpartition("/")[2]
    assert found.size == size
    if digest or size is None:
        assert found.sha256 == digest


def test_normalised_scores_are_those_of_the_package_in_per_cent():
    known = EXPECTED["scores"]  # d4rl.get_normalized_score(name, 1234.5)
    assert {each.name for each in entries().values() if each.scores_from == "infos"} == set(known)
    for name, fraction in known.items():
        assert normalised_score(name, 1234.5) == pytest.approx(100 * fraction, rel=1e-12)
    assert normalised_score("d4rl/hopper-medium-v2", 3000.0) == pytest.approx(92.8009, abs=1e-4)
    low_high = np.array([-20.272305, 3234.3])
    np.testing.assert_allclose(normalised_score("hopper-medium-v2", low_high), [0, 100])
    # The package has no such score, only the environments have.
    assert entry("maze2d-eval-umaze-v1").scores_from == "registration"
    assert normalised_score("maze2d-eval-umaze-v1", 141.4) == pytest.approx(100)


def test_the_index_is_that_of_the_package():
    found = importlib.util.find_spec("d4rl")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the d4rl package isn't installed (pip install --no-deps d4rl)")
    path = Path(found.submodule_search_locations[0]) / "infos.py"
    spec = importlib.util.spec_from_file_location("d4rl_infos", path)
    infos = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(infos)
    assert {each.name: each.url for each in entries().values()} == infos.DATASET_URLS
    for name in infos.REF_MIN_SCORE:
        assert entry(name).low == infos.REF_MIN_SCORE[name]
        assert entry(name).high == infos.REF_MAX_SCORE[name]


def test_where_files_lie(monkeypatch, tmp_path):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    assert folder() == tmp_path
    monkeypatch.delenv("D4RL_DATASET_DIR")
    assert folder() == Path.home() / ".d4rl" / "datasets"


def test_an_unknown_id_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"^here: 'd4rl/pen-humen-v1' .* 'd4rl/pen-human-v1'\?$"):
        entry("d4rl/pen-humen-v1", "here")
    with pytest.raises(UserError, match=r"allowed: the 155 ids of D4RL"):
        entry("")
