"""D4RL's files from the user's folder."""

import shutil
from dataclasses import replace
from pathlib import Path

import d4rl_files
import gymnasium
import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.data import d4rl_index
from ablate.data.catalogue import fingerprint, known_names, load, spec
from ablate.data.d4rl_index import entry
from ablate.data.families.d4rl import D4RL, read, until_goal
from ablate.data.trajectories import Trajectories
from ablate.errors import UserError

DOOR = Path(__file__).parents[4] / "shared" / "data" / "d4rl" / "door-v0_demos_clipped.hdf5"
genuine = pytest.mark.skipif(not DOOR.is_file(), reason="no D4RL file in ../shared/data/d4rl")


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


def test_all_155_are_known_and_locomotion_is_what_it_was():
    names = D4RL().names()
    assert len(names) == 155
    assert set(names) <= set(known_names())
    assert {spec(name).name for name in names} == set(names)
    # As it was before the other families were there.
    assert spec("d4rl/hopper-medium-v2").recipe == {
        "reader": 1, "file": "hopper-medium-v2", "held_out": 0.1, "seed": 0
    }  # fmt: skip
    with pytest.raises(UserError, match=r"Did you mean 'd4rl/maze2d-umaze-v1'"):
        spec("d4rl/maze2d-umaze-v2")
    with pytest.raises(UserError, match=r"'d4rl/hopper-medium-v2/aligned' is not known"):
        spec("d4rl/hopper-medium-v2/aligned")


def put(folder, name, file, **changes):
    """One of d4rl_files' FILES as the file of a data set; returns its entry."""
    found = entry(name)
    d4rl_files.write(file, folder / found.file, **changes)
    return found


def test_version_2_of_locomotion(tmp_path):
    every, notes = read(put(tmp_path, "hopper-medium-v2", "version-2"), tmp_path)
    raw = d4rl_files.FILES["version-2"]
    np.testing.assert_array_equal(every.episode_starts, [0, 4, 7, 10, 15])
    np.testing.assert_array_equal(every.final_observations, raw["next_observations"][[3, 6, 9, 14]])
    np.testing.assert_array_equal(every.behaviour_logp, raw["infos/action_log_probs"][:15])
    assert any("unfinished episode of 5 steps was left out" in note for note in notes)


def test_version_0_is_cut_at_the_time_limit(tmp_path, monkeypatch):
    found = put(tmp_path, "hopper-medium-v0", "version-0")
    every, _ = read(replace(found, horizon=d4rl_files.HORIZON), tmp_path)
    # Terminals at 6, 8, 17, 18, 23, and never more than 5 steps.
    np.testing.assert_array_equal(every.episode_starts, [0, 5, 7, 9, 14, 18, 19, 24])
    np.testing.assert_array_equal(np.flatnonzero(every.truncations), [4, 13])
    assert found.horizon == 1000
    np.testing.assert_array_equal(read(found, tmp_path)[0].lengths, [7, 2, 9, 1, 5])


def test_a_fall_at_the_time_limit_is_a_termination(tmp_path):
    every, _ = read(put(tmp_path, "walker2d-medium-v2", "both"), tmp_path)
    np.testing.assert_array_equal(np.flatnonzero(every.terminations), [3, 7, 11])
    np.testing.assert_array_equal(np.flatnonzero(every.truncations), [5])


def test_replay_files_are_rounded_to_float32(tmp_path):
    every, notes = read(put(tmp_path, "hopper-medium-replay-v2", "replay"), tmp_path)
    np.testing.assert_array_equal(every.lengths, [3, 4, 4])
    raw = d4rl_files.FILES["replay"]
    np.testing.assert_array_equal(every.rewards, raw["rewards"][:, 0].astype(np.float32))
    wide = raw["observations"].astype(np.float64)
    put(tmp_path, "hopper-medium-replay-v2", "replay", observations=wide)
    every, notes = read(entry("hopper-medium-replay-v2"), tmp_path)
    assert any("float64" in note for note in notes)


def test_maze2d_rewards_as_they_are_or_aligned(tmp_path, monkeypatch):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    target = np.array([1.0, 1.0])
    rng = np.random.default_rng(0)
    walk = 1.2 + np.cumsum(0.05 * rng.standard_normal((14, 4)), axis=0)
    near = (np.linalg.norm(walk[:, :2] - target, axis=1) <= 0.3).astype(np.float32)
    found = put(tmp_path, "maze2d-umaze-v1", "maze2d", observations=walk, rewards=near)
    every, notes = read(found, tmp_path)
    np.testing.assert_array_equal(every.rewards, near[:11])  # of the same row's observation
    np.testing.assert_array_equal(every.lengths, [5, 6])
    assert every.goal.shape == (11, 2)
    assert any("one step before" in note for note in notes)
    assert 0 < near.sum() < 14
    train, held_out = spec("d4rl/maze2d-umaze-v1/aligned").generate()
    outcome = np.linalg.norm(walk[1:, :2] - target, axis=1) <= 0.3  # of what followed
    for part in (train, held_out):
        first = np.flatnonzero((walk.astype(np.float32) == part.observations[0]).all(axis=1))[0]
        known = min(len(part.rewards), 10 - first)
        np.testing.assert_array_equal(part.rewards[:known], outcome[first : first + known])
    plain = spec("d4rl/maze2d-umaze-v1")
    aligned = spec("d4rl/maze2d-umaze-v1/aligned")
    assert plain.recipe == {k: v for k, v in aligned.recipe.items() if k != "rewards"}
    assert fingerprint(plain.name) != fingerprint(aligned.name)


def ant(lengths, reached, version):
    """Rows of ants that walk 0.3 a step along x, trajectory after trajectory, as read_hdf5 gives them.

    reached: for each trajectory the step from which on it is near the goal. Version 0's timeouts come
    every 7 rows, version 2's at the ends of trajectories.
    """
    steps = sum(lengths)
    seen = np.zeros((steps, 3), dtype=np.float32)
    terminals, timeouts = np.zeros(steps, dtype=bool), np.zeros(steps, dtype=bool)
    start = 0
    for number, (length, goal) in enumerate(zip(lengths, reached, strict=True)):
        seen[start : start + length, 0] = 10 * number + 0.3 * np.arange(length)
        terminals[start + goal : start + length] = True
        start += length
        timeouts[start - 1] = version == 2
    if version == 0:
        timeouts[6::7] = True
    terminals[-1] |= version == 0  # the reader stops at the last end
    last = np.flatnonzero(terminals | timeouts)
    return Trajectories(
        name="ant",
        observations=seen,
        actions=np.zeros((steps, 2), dtype=np.float32),
        rewards=terminals.astype(np.float32),
        terminations=terminals,
        truncations=timeouts & ~terminals,
        episode_starts=np.concatenate([[0], last + 1]),
    ).validate()


@pytest.mark.parametrize("version", [0, 2])
def test_antmaze_ends_at_the_goal(version):
    lengths, reached = [9, 6, 8, 5], [9, 4, 8, 2]
    every = until_goal(ant(lengths, reached, version), trust_timeouts=version == 2)
    np.testing.assert_array_equal(every.lengths, [9, 5, 8, 3])
    np.testing.assert_array_equal(every.returns, [0, 1, 0, 1])
    starts = every.episode_starts
    np.testing.assert_array_equal(every.terminations[starts[1:] - 1], [False, True, False, True])
    np.testing.assert_array_equal(every.truncations[starts[1:] - 1], [True, False, True, False])
    np.testing.assert_array_equal(every.observations[starts[:-1], 0], [0, 10, 20, 30])


def test_antmaze_files(tmp_path):
    raw = ant([9, 6, 8], [9, 4, 8], 2)
    arrays = {
        "observations": raw.observations,
        "actions": raw.actions,
        "rewards": raw.rewards,
        "terminals": raw.terminations,
        "timeouts": np.isin(np.arange(23), [8, 14, 22]),
    }
    found = put(tmp_path, "antmaze-medium-play-v2", "antmaze", **arrays)
    every, notes = read(found, tmp_path)
    np.testing.assert_array_equal(every.lengths, [9, 5, 8])
    assert any("within 0.5 of the goal" in note for note in notes)


@genuine
def test_the_genuine_demonstrations_are_whole(tmp_path, monkeypatch):
    shutil.copy(DOOR, tmp_path / entry("door-human-v0").file)
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    data = load("d4rl/door-human-v0", tmp_path / "cache")
    assert (data.train.num_episodes, data.held_out.num_episodes) == (23, 2)  # of 25, not 50
    lengths = np.concatenate([data.train.lengths, data.held_out.lengths])
    assert lengths.sum() == 6729
    assert lengths.min() >= 223
    with h5py.File(DOOR) as file:
        whole = file["rewards"][()].astype(np.float64).sum()
        terminals = file["terminals"][()].sum()
    assert data.train.returns.sum() + data.held_out.returns.sum() == pytest.approx(whole)
    assert data.train.terminations.sum() + data.held_out.terminations.sum() == terminals == 25
    assert not data.train.truncations.any()
    assert data.train.simulator_state.shape[1] == 60  # qpos and qvel
    env = data.spec.make_env(1)
    assert env.observation_dim == data.train.observations.shape[1]
    assert env.action_dim == data.train.actions.shape[1]
    assert data.anchors.score(2880.5693087298737) == pytest.approx(100)


SIZES = {
    "hopper-medium-v0": (11, 3, 1000),
    "halfcheetah-full-replay-v1": (17, 6, 1000),
    "walker2d-random-v2": (17, 6, 1000),
    "ant-medium-v2": (111, 8, 1000),
    "maze2d-open-v0": (4, 2, 150),
    "maze2d-umaze-v1": (4, 2, 300),
    "maze2d-medium-dense-v1": (4, 2, 600),
    "maze2d-eval-large-v1": (4, 2, 800),
    "antmaze-umaze-v0": (29, 8, 700),
    "antmaze-large-diverse-v2": (29, 8, 1000),
    "pen-human-v1": (45, 24, 100),
    "hammer-cloned-v1": (46, 26, 200),
    "door-expert-v1": (39, 28, 200),
    "relocate-human-v0": (39, 30, 200),
}


@pytest.mark.parametrize("name", SIZES)
def test_environments_have_the_datas_sizes(name):
    env = spec(f"d4rl/{name}").make_env(2)
    assert (env.observation_dim, env.action_dim, env.horizon) == SIZES[name]
    assert env.reset([0, 1]).shape == (2, env.observation_dim)
    env.step(np.zeros((2, env.action_dim)))
    assert getattr(env, "dense", False) == ("-dense" in name)


def test_every_locomotion_maze_and_hand_set_has_an_environment():
    suites = {"gym-mujoco", "maze2d", "antmaze", "adroit"}
    tasks = {(each.suite, each.task): each.name for each in d4rl_index.entries().values()}
    for (suite, _), name in tasks.items():
        if suite in suites - {"adroit", "gym-mujoco"}:
            assert spec(f"d4rl/{name}").make_env(1).num_envs == 1
        elif suite not in suites:
            with pytest.raises(UserError, match="no environment to evaluate in: ") as caught:
                spec(f"d4rl/{name}").make_env(1)
            assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*out of date.*")
def test_an_ant_with_no_contact_forces():
    env = spec("d4rl/ant-expert-v2").make_env(2)
    plain = gymnasium.make("Ant-v4")
    first, _ = plain.reset(seed=3)
    seen = env.reset([5, 3])
    np.testing.assert_array_equal(seen[1, :27], first.astype(np.float32))
    action = np.full((2, 8), 0.25)
    observation, reward, *_ = plain.step(action[0])
    seen, rewards, *_ = env.step(action)
    np.testing.assert_array_equal(seen[1, :27], observation.astype(np.float32))
    assert rewards[1] == reward
    assert not seen[:, 27:].any()
    np.testing.assert_array_equal(env.full_observation(), seen)
    assert env.simulator_state().shape == (2, 29)


def test_scores_that_only_the_environments_have():
    anchors = spec("d4rl/maze2d-eval-umaze-v1").anchors()
    assert (anchors.low, anchors.high) == (36.63, 141.4)
    assert "not in d4rl/infos.py" in anchors.source
    assert spec("d4rl/ant-random-expert-v0").anchors().high == 3879.7
    assert "infos.py" in spec("d4rl/pen-human-v1").anchors().source


def test_data_without_an_environment_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    put(tmp_path, "kitchen-mixed-v0", "version-0")
    data = load("d4rl/kitchen-mixed-v0", tmp_path)
    assert data.train.num_episodes + data.held_out.num_episodes == 5
    assert (data.anchors.low, data.anchors.high) == (0.0, 4.0)


@given(
    steps=st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=40)
)
def test_any_antmaze_recording(steps):
    """steps: whether the ant is at the goal, a timeout is flagged, and it is elsewhere afterwards."""
    goal, timeout, jump = (np.array(each) for each in zip(*steps, strict=True))
    count = len(steps)
    seen = np.zeros((count, 3), dtype=np.float32)
    seen[:, 0] = 5.0 * (np.cumsum(jump) - jump)
    seen[:, 2] = np.arange(count)
    flagged = goal | timeout
    flagged[-1] = True
    raw = Trajectories(
        name="ant",
        observations=seen,
        actions=np.zeros((count, 2), dtype=np.float32),
        rewards=goal.astype(np.float32),
        terminations=goal,
        truncations=flagged & ~goal,
        episode_starts=np.concatenate([[0], np.flatnonzero(flagged) + 1]),
    )
    every = until_goal(raw, trust_timeouts=False)
    ends = np.flatnonzero(np.append(jump[:-1], True)) + 1
    trajectories = np.split(np.arange(count), ends[:-1])
    expected = []
    for rows in trajectories:
        at_goal = np.flatnonzero(goal[rows])
        expected.append(rows[: at_goal[0] + 1] if len(at_goal) else rows)
    np.testing.assert_array_equal(every.lengths, [len(rows) for rows in expected])
    np.testing.assert_array_equal(every.observations[:, 2], np.concatenate(expected))
    np.testing.assert_array_equal(every.returns, [goal[rows].any() for rows in expected])
