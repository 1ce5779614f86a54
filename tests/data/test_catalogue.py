"""Finding data sets by name, generating and caching them."""

import errno
import multiprocessing
import time
from dataclasses import replace

import h5py
import numpy as np
import pytest
from data_samples import make

from ablate import registry
from ablate.data import catalogue
from ablate.data.catalogue import Anchors, DataSpec, Family, fingerprint, known_names, load, spec
from ablate.envs.lq import LinearQuadratic
from ablate.errors import UserError

OURS = [
    "lq-mix/episode",
    "lq-mix/step",
    "lq-mix/single",
    "tmaze/passive-20",
    "tmaze/active-10",
    "key-to-door/expert-v0",
    "pointmaze/umaze-v1",
    "pointmaze/umaze-noiseless-v1",
    "fourrooms/held-out-v0",
    "stitch/apart-1-v0",
    "forkcommit/20-v0",
    "chain/gamble-episode-v0",
    "grid/cliff-step-v0",
    "mujoco/hopper/medium-10k-v0",  # known, but not listed
]


@pytest.fixture
def counted():
    """A family of one data set that counts how often it is generated."""
    calls = []

    class Counted(Family):
        def resolve(self, member, name):
            def generate():
                calls.append(member)
                return make([3, 4]), make([2], seed=1)

            return DataSpec(
                name=f"counted/{member}",
                family="counted",
                recipe={"member": member},
                generate=generate,
                make_env=LinearQuadratic,
                anchors=lambda: Anchors(1.0, 3.0, "by hand"),
            )

        def names(self):
            return ["counted/a"]

        def coordinates(self, member):
            return {"rest": [1, 2, 3]}

    with registry.scope():
        registry.register("data", "counted")(Counted)
        yield calls


def test_every_known_name_resolves():
    names = known_names()
    assert set(OURS[:-1]) <= set(names)
    assert not any("@" in name for name in names)
    for name in names:
        found = spec(name)
        assert (found.name, found.family) == (name, name.split("/")[0])
    assert len({fingerprint(name) for name in names}) == len(names)
    assert fingerprint("tmaze/passive-37") != fingerprint("tmaze/passive-38")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("lq-mix/episodes", "lq-mix/episode"),
        ("lqmix/episode", "lq-mix/episode"),
        ("lq-mix", "lq-mix/s"),
        ("lq-mix/step@mask-velocities", "lq-mix/step@mask-velocity"),
        ("pointmaze/umaze", "pointmaze/umaze-v1"),
        ("pointmaze/maze-v1", "pointmaze/umaze-v1"),
        ("tmaze/pasive-20", "tmaze/passive-20"),
        ("d4rl/hoper-medium-v2", "d4rl/hopper-medium-v2"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name, near):
    with pytest.raises(UserError, match=f"Did you mean '{near}") as caught:
        spec(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["tmaze/passive-0", "tmaze/passive-020", "tmaze/passive-", "tmaze/passive-²", "lq-mix/step@",
     "tmaze/passive-20@mask-velocity", "d4rl/hopper-medium-v2@mask", "", "/", "@"],
)  # fmt: skip
def test_malformed_names_are_refused(name):
    with pytest.raises(UserError):
        spec(name)


def test_it_is_generated_once_and_read_back_the_same(tmp_path, counted):
    first, again = load("counted/a", tmp_path), load("counted/a", tmp_path)
    assert counted == ["a"]
    assert first.content_hash == again.content_hash
    assert first.train.content_hash == make([3, 4]).content_hash
    assert again.held_out.content_hash == make([2], seed=1).content_hash
    assert again.anchors == Anchors(1.0, 3.0, "by hand")
    np.testing.assert_allclose(again.anchors.score(np.array([1.0, 2.0, 3.0])), [0, 50, 100])
    assert again.spec.name == "counted/a"
    assert {p.parent.name for p in tmp_path.rglob("*.hdf5")} == {fingerprint("counted/a")}


def test_a_twin_shows_less_of_the_same(tmp_path, counted):
    whole, twin = load("counted/a", tmp_path), load("counted/a@mask-rest", tmp_path)
    np.testing.assert_array_equal(twin.train.observations, whole.train.observations[:, :1])
    np.testing.assert_array_equal(twin.train.actions, whole.train.actions)
    assert twin.spec.observable == [0]
    assert twin.spec.make_env(2).observation_dim == 1
    assert twin.content_hash != whole.content_hash


def test_a_changed_recipe_is_generated_anew(tmp_path, counted, monkeypatch):
    load("counted/a", tmp_path)
    changed = replace(spec("counted/a"), recipe={"member": "a", "version": 2})
    monkeypatch.setattr(catalogue, "spec", lambda name, reading: changed)
    load("counted/a", tmp_path)
    assert counted == ["a", "a"]


@pytest.mark.parametrize("damage", ["cut", "empty", "altered", "attribute"])
@pytest.mark.parametrize("part", ["train", "held_out"])
def test_a_damaged_cache_names_the_file_and_the_remedy(tmp_path, counted, damage, part):
    load("counted/a", tmp_path)
    folder = tmp_path / fingerprint("counted/a")
    path = folder / f"{part}.hdf5"
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        with h5py.File(path, "r+") as file:
            if damage == "altered":
                file["actions"][0, 0] = 0.125
            else:
                del file.attrs["content_hash"]
    with pytest.raises(UserError) as caught:
        load("counted/a", tmp_path)
    assert str(path) in str(caught.value)
    assert f"Delete the folder {folder} to generate it again." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cache_without_anchors_is_damaged(tmp_path, counted):
    load("counted/a", tmp_path)
    with h5py.File(tmp_path / fingerprint("counted/a") / "train.hdf5", "r+") as file:
        del file.attrs["anchor_low"]
    with pytest.raises(UserError, match=r"anchor_low.*Delete the folder"):
        load("counted/a", tmp_path)


def test_an_interrupted_generation_is_done_again(tmp_path, counted):
    load("counted/a", tmp_path)
    (tmp_path / fingerprint("counted/a") / "held_out.hdf5").unlink()
    assert load("counted/a", tmp_path).held_out.num_episodes == 1
    assert counted == ["a", "a"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, counted, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(h5py.File, "create_dataset", full)
    with pytest.raises(UserError, match=r"train.hdf5: can't be written \(no space left on device"):
        load("counted/a", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def _load_hash(arguments):
    name, cache = arguments
    return load(name, cache).content_hash


def test_two_processes_at_once(tmp_path):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        hashes = pool.map(_load_hash, [("lq-mix/step", tmp_path)] * 4, chunksize=1)
    assert len(set(hashes)) == 1
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("name", [*OURS, "lq-mix/episode@mask-velocity"])
def test_our_data_sets_hold_what_they_promise(tmp_path, name):
    data = load(name, tmp_path)
    start = time.perf_counter()
    again = load(name, tmp_path)
    assert time.perf_counter() - start < 1.0  # about 0.01 s on an idle core
    assert again.content_hash == data.content_hash
    env = data.spec.make_env(3)
    for part in (data.train, data.held_out):
        part.validate()
        assert part.name == name
        assert part.observations.shape[1] == env.observation_dim
        assert part.actions.shape[1] == env.action_dim
        assert part.lengths.max() <= env.horizon
        assert part.behaviour_id.max() < data.spec.num_policies
        assert part.behaviour_logp is not None
        assert part.behaviour_action is not None
    assert data.anchors.low < data.anchors.high
    assert 0 <= data.spec.best_policy < data.spec.num_policies


def test_a_mask_hides_the_velocities(cache):
    whole = load("pointmaze/umaze-v1", cache)
    twin = load("pointmaze/umaze-v1@mask-velocity", cache)
    np.testing.assert_array_equal(
        twin.train.observations, whole.train.observations[:, [0, 1, 4, 5]]
    )
    np.testing.assert_array_equal(twin.train.behaviour_action, whole.train.behaviour_action)
    assert twin.anchors == whole.anchors
    assert twin.spec.make_env(2).reset([0, 1]).shape == (2, 4)
    masked = load("lq-mix/episode@mask-velocity", cache)
    full = load("lq-mix/episode", cache)
    np.testing.assert_array_equal(masked.train.observations, full.train.observations[:, :2])
