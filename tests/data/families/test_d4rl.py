"""D4RL's locomotion files from the user's folder."""

import h5py
import numpy as np
import pytest

from ablate.data.catalogue import load, spec
from ablate.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    rng, steps = np.random.default_rng(0), 400
    with h5py.File(tmp_path / "hopper_medium_replay-v2.hdf5", "w") as file:
        file["observations"] = rng.standard_normal((steps, 11))
        file["actions"] = rng.uniform(-1, 1, (steps, 3))
        file["rewards"] = rng.random(steps)
        file["terminals"] = np.arange(steps) % 20 == 19
        file["timeouts"] = np.zeros(steps, dtype=bool)
    return tmp_path


def test_a_tenth_of_the_episodes_is_held_out(folder, tmp_path):
    data = load("d4rl/hopper-medium-replay-v2", tmp_path / "cache")
    assert (data.train.num_episodes, data.held_out.num_episodes) == (18, 2)
    rewards = np.concatenate([data.train.returns, data.held_out.returns])
    assert len(set(rewards)) == 20  # no episode is in both
    assert data.content_hash == load("d4rl/hopper-medium-replay-v2", tmp_path).content_hash
    assert not (tmp_path / "cache").exists()  # the user's file isn't copied
    # Reference scores of D4RL: 100 * (3000 - min) / (max - min).
    assert data.anchors.score(3000.0) == pytest.approx(92.8009, abs=1e-4)
    env = data.spec.make_env(1)
    assert (env.observation_dim, env.action_dim, env.horizon) == (11, 3, 1000)


def test_a_missing_file_says_where_it_was_looked_for(folder):
    found = spec("d4rl/walker2d-medium-expert-v2")
    with pytest.raises(UserError, match=r"walker2d_medium_expert-v2.hdf5: there is no") as caught:
        found.generate()
    assert "D4RL_DATASET_DIR" in str(caught.value)


def test_one_episode_cannot_be_split(folder):
    path = folder / "hopper_expert-v2.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"] = np.zeros((5, 11)), np.zeros((5, 3))
        file["rewards"], file["terminals"] = np.zeros(5), np.arange(5) == 4
    with pytest.raises(UserError, match="1 episode; at least 2"):
        spec("d4rl/hopper-expert-v2").generate()


@pytest.mark.parametrize("task", ["hopper", "halfcheetah", "walker2d"])
def test_sizes_of_the_environments(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = spec(f"d4rl/{task}-medium-v2").make_env(1)
    assert env.observation_dim == {"hopper": 11, "halfcheetah": 17, "walker2d": 17}[task]
    assert env.action_dim == {"hopper": 3, "halfcheetah": 6, "walker2d": 6}[task]
    assert not list(tmp_path.iterdir())  # no log of MuJoCo's beside the user's files
