"""`minari/...`: local Minari sets as data sets."""

import json
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from data_samples import make

from ablate.data import catalogue
from ablate.data.catalogue import PLAIN
from ablate.data.formats.hdf5 import write_hdf5
from ablate.data.formats.minari import write_minari
from ablate.data.split import hold_out
from ablate.data.streams import stream
from ablate.data.trajectories import Trajectories
from ablate.errors import UserError


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty folder of Minari sets."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    return tmp_path / "sets"


def swings(episodes=20, steps=30):
    """Random actions in Pendulum-v1, as the environment itself ran them."""
    env = gymnasium.make("Pendulum-v1", max_episode_steps=steps)
    rng = np.random.default_rng(0)
    seen, done, rewards, last = [], [], [], []
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        for _ in range(steps):
            action = rng.uniform(-1, 1, 1).astype(np.float32)
            seen.append(observation)
            done.append(action)
            observation, reward, *_ = env.step(2 * action)
            rewards.append(reward)
        last.append(observation)
    starts = np.arange(episodes + 1) * steps
    ends = np.zeros(episodes * steps, dtype=bool)
    ends[starts[1:] - 1] = True
    return Trajectories(
        name="swings",
        observations=np.array(seen, dtype=np.float32),
        actions=np.array(done),
        rewards=np.array(rewards, dtype=np.float32),
        terminations=np.zeros_like(ends),
        truncations=ends,
        episode_starts=starts,
        final_observations=np.array(last, dtype=np.float32),
    )


def alter(folder, **changes):
    path = folder / "data" / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_local_set_is_a_data_set(root, tmp_path):
    data = swings()
    assert catalogue.spec("lq-mix/episode")  # other families don't mind that there is no root
    folder = write_minari(root, "toy/swings-v0", data, "Pendulum-v1")
    assert "minari/toy/swings-v0" in catalogue.known_names()
    found = catalogue.load("minari/toy/swings-v0", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    # The same split as D4RL's files: a tenth, by a stream of the name.
    order = stream("data", 0, "minari/toy/swings-v0/split").permutation(20)
    np.testing.assert_array_equal(found.held_out.returns, data.returns[np.sort(order[:2])])
    np.testing.assert_array_equal(found.train.returns, data.returns[np.sort(order[2:])])
    assert found.train.name == found.held_out.name == found.spec.name == "minari/toy/swings-v0"
    assert found.anchors == PLAIN
    alter(folder, ref_min_score=-300.0, ref_max_score=-20)
    found = catalogue.load("minari/toy/swings-v0", tmp_path / "cache")
    assert (found.anchors.low, found.anchors.high) == (-300, -20)
    assert "ref_min_score" in found.anchors.source
    assert catalogue.spec("minari/toy/swings-v0").anchors().low == -300  # without its data


def test_it_is_evaluated_in_its_environment(root):
    data = swings()
    write_minari(root, "swings-v0", data, "Pendulum-v1")
    env = catalogue.spec("minari/swings-v0").make_env(2)
    assert (env.observation_dim, env.action_dim, env.horizon) == (3, 1, 200)
    np.testing.assert_array_equal(env.reset([0, 1]), data.observations[data.episode_starts[:2]])
    # The logged actions bring the logged rewards: they are in the units that the data has.
    rewards = np.stack([env.step(data.actions[[t, 30 + t]])[1] for t in range(30)])
    np.testing.assert_allclose(rewards.sum(axis=0), data.returns[:2], rtol=1e-5)


def test_the_recorded_time_limit_and_arguments_count(root):
    folder = write_minari(root, "swings-v0", swings(), "Pendulum-v1")
    spec = {"id": "Pendulum-v1", "kwargs": {"g": 0.0}, "max_episode_steps": 30}
    alter(folder, eval_env_spec=json.dumps(spec))
    env = catalogue.spec("minari/swings-v0").make_env(1)
    assert env.horizon == 30
    assert env._envs[0].unwrapped.g == 0.0


def test_names_that_are_not_there(root, monkeypatch):
    with pytest.raises(UserError, match=r"no Minari set lies in .*sets\. Fetch one"):
        catalogue.spec("minari/toy/swings-v0")
    write_minari(root, "toy/swings-v0", swings(2, 3))
    with pytest.raises(UserError, match="Did you mean 'minari/toy/swings-v0'"):
        catalogue.spec("minari/toy/swing-v0")
    write_hdf5(root.parent / "outside-v0" / "data" / "main_data.hdf5", swings(2, 3))
    for name in ("../outside-v0", "toy", "toy/", "/etc/passwd-v0"):
        with pytest.raises(UserError, match="is not known"):
            catalogue.spec(f"minari/{name}")


def test_what_cannot_be_evaluated_says_so(root):
    folder = write_minari(root, "swings-v0", swings(2, 3))
    spec = catalogue.spec("minari/swings-v0")
    assert spec.generate()[0].num_episodes == 1
    with pytest.raises(UserError, match="no policy can act on it, since it names no environment"):
        spec.make_env(1)
    alter(folder, env_spec='{"id": "Pendulam-v1"}')
    with pytest.raises(UserError, match="'Pendulam-v1' is not registered"):
        spec.make_env(1)
    alter(folder, env_spec='{"id": "os:system", "entry_point": "os:system"}')
    with pytest.raises(UserError, match="the environment 'os:system' is not allowed"):
        spec.make_env(1)
    alter(folder, env_spec='{"id": "CartPole-v1"}')
    with pytest.raises(
        UserError, match="observes 4 numbers and acts with 2; the data have 3 and 1"
    ):
        spec.make_env(1)


def test_our_own_sets_name_our_environments(root):
    data = make([5] * 20, extras=False)
    data = replace(data, observations=np.repeat(data.observations[:, :1], 4, axis=1))
    write_minari(root, "ours-v0", data, "lq-mix/episode")
    spec, base = catalogue.spec("minari/ours-v0"), catalogue.spec("lq-mix/episode")
    assert spec.anchors() == base.anchors()
    np.testing.assert_array_equal(spec.make_env(2).reset([1, 2]), base.make_env(2).reset([1, 2]))


def test_too_little_data(root):
    write_minari(root, "one-v0", swings(1, 3))
    with pytest.raises(UserError, match="1 episode; at least 2 are needed to hold one out"):
        catalogue.spec("minari/one-v0").generate()


def test_holding_out_takes_whole_episodes():
    data = swings(7, 3)
    train, held_out = hold_out(data)
    assert (train.num_episodes, held_out.num_episodes) == (6, 1)
    both = sorted([*train.returns, *held_out.returns])
    np.testing.assert_array_equal(both, np.sort(data.returns))
