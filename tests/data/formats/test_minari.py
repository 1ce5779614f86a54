"""Minari's layout: sets that Minari made, sets that it opens, sets that are refused."""

import importlib.util
import json
import shutil
from dataclasses import replace

import gymnasium
import h5py
import numpy as np
import pytest
from data_samples import make
from format_samples import full, genuine, minari_04

from ablate.data.formats.minari import (
    Environment,
    environment,
    inspect_minari,
    local_sets,
    misfit,
    read_metadata,
    read_minari,
    write_minari,
)
from ablate.data.reading import Reading
from ablate.errors import UserError

VERSIONS = ("0.3.1", "0.4.3", "0.5.4")
with_minari = pytest.mark.skipif(
    importlib.util.find_spec("minari") is None, reason="the minari package is not installed"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Sets made by minari itself."""
    return genuine(tmp_path_factory.mktemp("genuine"))


@pytest.fixture(autouse=True)
def _goal_environment(monkeypatch):
    """Minari 0.3 leaves the spaces to the environment."""

    class Goal(gymnasium.Env):
        action_space = gymnasium.spaces.Box(np.float32([-2, 0]), np.float32([2, 1]))
        observation_space = gymnasium.spaces.Dict(
            {
                **{
                    key: gymnasium.spaces.Box(-5, 5, (size,), np.float64)
                    for key, size in {
                        "observation": 2,
                        "desired_goal": 1,
                        "achieved_goal": 1,
                    }.items()
                },
                "mode": gymnasium.spaces.Discrete(3),
            }
        )

    monkeypatch.setitem(
        gymnasium.registry, "Goal-v0", gymnasium.envs.registration.EnvSpec("Goal-v0", Goal)
    )


def logged(made, version, name):
    """What the minari package reads from a set: arrays by `episode/key`."""
    return np.load(made / version / f"{name}.npz")


def rows(data, episode):
    return slice(*data.episode_starts[episode : episode + 2])


@pytest.mark.parametrize("version", VERSIONS)
def test_bounded_actions_of_sets_that_minari_made(made, version):
    data = read_minari(made / version / "pendulum-v0")
    wanted = logged(made, version, "pendulum")
    assert data.num_episodes == 3
    for episode in range(3):
        at = rows(data, episode)
        seen = np.concatenate([data.observations[at], data.final_observations[episode][None]])
        np.testing.assert_array_equal(seen, wanted[f"{episode}/observations"])
        np.testing.assert_allclose(data.actions[at], wanted[f"{episode}/actions"] / 2, atol=1e-7)
        np.testing.assert_allclose(data.rewards[at], wanted[f"{episode}/rewards"], rtol=1e-6)
        np.testing.assert_array_equal(data.terminations[at], wanted[f"{episode}/terminations"])
        np.testing.assert_array_equal(data.truncations[at], wanted[f"{episode}/truncations"])


@pytest.mark.parametrize("version", VERSIONS)
def test_choices_of_sets_that_minari_made(made, version):
    data = read_minari(made / version / "lake-v0")
    wanted = logged(made, version, "lake")
    actions = np.concatenate([wanted[f"{episode}/actions"] for episode in range(3)])
    np.testing.assert_array_equal(data.actions, 2 * np.eye(4)[actions] - 1)
    seen = np.concatenate([wanted[f"{episode}/observations"][:-1] for episode in range(3)])
    np.testing.assert_array_equal(data.observations, np.eye(16)[seen])


@pytest.mark.parametrize("version", VERSIONS)
def test_goals_of_sets_that_minari_made(made, version):
    found = inspect_minari(made / version / "goal-v0")
    data, wanted = found.trajectories, logged(made, version, "goal")
    assert found.about["environment"] == "Goal-v0"
    assert data.observations.shape == (12, 7)
    for episode in range(3):
        at = rows(data, episode)
        if version == "0.3.1":  # which flattened it itself
            flat = wanted[f"{episode}/observations"]
        else:
            parts = {
                key: wanted[f"{episode}/observations/{key}"]
                for key in ("achieved_goal", "desired_goal", "mode", "observation")
            }
            parts["mode"] = np.eye(3)[parts["mode"]]
            flat = np.concatenate(list(parts.values()), axis=1)
        seen = np.concatenate([data.observations[at], data.final_observations[episode][None]])
        np.testing.assert_array_equal(seen, flat.astype(np.float32))
        time = np.arange(data.lengths[episode])
        np.testing.assert_array_equal(data.goal[at][:, 0], time)
        # The state before each action: (time, 1) and (time + 0.5).
        state = np.stack([time, np.ones_like(time), time + 0.5], axis=1)
        np.testing.assert_array_equal(data.simulator_state[at], state)


@pytest.mark.parametrize("data", [full(), make([2, 5], extras=False), full([1])])
def test_what_is_written_is_read_back(tmp_path, data):
    folder = write_minari(tmp_path, "ours/deep/sample-v0", data, about={"anchor_low": 1.5})
    assert folder == tmp_path / "ours" / "deep" / "sample-v0"
    found = inspect_minari(folder)
    assert found.trajectories.content_hash == data.content_hash
    assert found.about == {"name": "sample", "anchor_low": 1.5}
    assert local_sets(tmp_path) == ["ours/deep/sample-v0"]
    assert read_minari(folder / "data").content_hash == data.content_hash
    assert read_minari(folder / "data" / "main_data.hdf5").content_hash == data.content_hash


def with_choices(seed=0):
    """Trajectories of CartPole's dimensions."""
    rng = np.random.default_rng(seed)
    data = make([5, 1, 4], extras=False)
    chosen = 2 * np.eye(2, dtype=np.float32)[rng.integers(2, size=10)] - 1
    seen = rng.standard_normal((10, 4)).astype(np.float32)
    return replace(data, observations=seen, actions=chosen)


@pytest.mark.filterwarnings("ignore:.*precision lowered by casting to float32")
def test_the_environment_is_recorded_as_minari_wants_it(tmp_path):
    data = with_choices()
    folder = write_minari(tmp_path, "cart-v0", data, "CartPole-v1")
    metadata = read_metadata(folder)
    assert json.loads(metadata["action_space"]) == {
        "type": "Discrete", "dtype": "int64", "start": 0, "n": 2,
    }  # fmt: skip
    with h5py.File(folder / "data" / "main_data.hdf5") as file:
        np.testing.assert_array_equal(
            file["episode_0/actions"][()], data.actions[:5].argmax(axis=1)
        )
    assert read_minari(folder).content_hash == data.content_hash
    assert environment(folder, metadata) == Environment("CartPole-v1", {}, 500)
    # Actions that are no choices stay as they are.
    mixed = replace(data, actions=data.actions / 2)
    assert read_minari(write_minari(tmp_path, "mixed-v0", mixed, "CartPole-v1")).content_hash == (
        mixed.content_hash
    )
    # Bounds other than [-1, 1]: the environment is recorded with actions in [-1, 1].
    data = full()
    pendulum = replace(data, actions=data.actions[:, :1], behaviour_action=data.actions[:, :1])
    folder = write_minari(tmp_path, "pendulum-v0", pendulum, "Pendulum-v1")
    spec = gymnasium.envs.registration.EnvSpec.from_json(read_metadata(folder)["env_spec"])
    env = gymnasium.make(spec)
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    assert read_minari(folder).content_hash == pendulum.content_hash


def test_environments_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(
        UserError, match="'CartPole-v1' observes 4 numbers and acts with 2; the data"
    ):
        write_minari(tmp_path, "a-v0", full(), "CartPole-v1")
    with pytest.raises(UserError, match="the environment 'CartPoll-v1' can't be made here"):
        write_minari(tmp_path, "a-v0", full(), "CartPoll-v1")
    assert list(tmp_path.iterdir()) == []
    assert misfit(with_choices(), "CartPole-v1") is None
    assert "observes 4" in str(misfit(full(), "CartPole-v1"))
    # Our own data sets are names that only we understand.
    found = inspect_minari(write_minari(tmp_path, "b-v0", full(), "lq-mix/episode"))
    assert found.about["environment"] == "lq-mix/episode"
    assert "env_spec" not in read_metadata(tmp_path / "b-v0")


@pytest.mark.parametrize("name", ["a", "a-v", "../a-v0", "/a-v0", "a//b-v0", "a b-v0", "a-v0/", ""])
def test_names_that_minari_does_not_know_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="is no dataset id; allowed"):
        write_minari(tmp_path / "root", name, full())
    assert list(tmp_path.iterdir()) == []


def test_a_set_is_replaced_only_where_that_is_said(tmp_path, monkeypatch):
    folder = write_minari(tmp_path, "a-v0", full())
    with pytest.raises(UserError, match="is there already"):
        write_minari(tmp_path, "a-v0", make([2]))
    assert read_minari(folder).content_hash == full().content_hash
    write_minari(tmp_path, "a-v0", make([2]), overwrite=True)
    assert read_minari(folder).content_hash == make([2]).content_hash

    def full_disk(*args, **kwargs):
        raise OSError("Can't write data (No space left on device)")

    monkeypatch.setattr(h5py.File, "create_group", full_disk)
    with pytest.raises(UserError, match=r"a-v0: can't be written \(no space left on device\)"):
        write_minari(tmp_path, "a-v0", full(), overwrite=True)
    assert read_minari(folder).content_hash == make([2]).content_hash
    assert [each.name for each in tmp_path.iterdir()] == ["a-v0"]


def alter(folder, change):
    with h5py.File(folder / "data" / "main_data.hdf5", "r+") as file:
        change(file)


def replaced(key, value):
    def change(file):
        del file[key]
        if value is not None:
            file[key] = value

    return change


def nan(file):
    file["episode_1/observations"][2, 1] = np.nan


def grouped(file):
    del file["episode_1/actions"]
    file.create_group("episode_1/actions/a")


BROKEN = {
    "no rewards": (replaced("episode_1/rewards", None), "'episode_1/rewards' is missing"),
    "a group": (grouped, "'episode_1/actions' is missing"),
    "fewer rows": (replaced("episode_1/actions", np.zeros((3, 2))), r"'actions' has shape \(3, 2\); 4"),
    "no last": (replaced("episode_0/observations", np.zeros((4, 3))), r"shape \(4, 3\); 5 rows"),
    "narrow": (replaced("episode_0/observations", np.zeros((5, 2))), "has 2 numbers a row; its space"),
    "wide": (replaced("episode_0/actions", np.zeros((4, 3))), "has 3 numbers a row; its space has 2"),
    "empty": (replaced("episode_0/rewards", np.zeros(0)), r"'rewards' has shape \(0,\)"),
    "wide rewards": (replaced("episode_0/rewards", np.zeros((4, 2))), "a row a step is needed"),
    "flags": (replaced("episode_0/truncations", np.full(4, 2)), "must be 4 truth values"),
    "early": (replaced("episode_0/truncations", np.ones(4, bool)), "truncations row 0 is True; only"),
    "nan": (nan, "observations row 6, column 1 is nan"),
    "bounds": (replaced("episode_0/actions", np.full((4, 2), 9.0)), r"row 0, column 0 is 4.5; actions"),
    "text": (replaced("episode_0/rewards", np.array([b"a"] * 4)), "isn't of numbers"),
    "link": (replaced("episode_0", h5py.SoftLink("/episode_1")), "'episode_0' is a link"),
    "elsewhere": (replaced("episode_0", h5py.ExternalLink("/etc/passwd", "/")), "'episode_0' is a link"),
    "missing": (replaced("episode_1", None), "1 episodes are there and 2 are said to be"),
    "misnamed": (lambda file: file.move("episode_0", "episode_2"), "must be numbered from 0"),
    "spaces": (lambda file: file.attrs.modify("action_space", "{"), "action_space: can't be underst"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_sets_are_refused_in_one_line(tmp_path, case):
    folder = minari_04(tmp_path / "toy-v0")
    assert read_minari(folder).num_episodes == 2
    change, message = BROKEN[case]
    alter(folder, change)
    with pytest.raises(UserError, match=message) as caught:
        read_minari(folder)
    assert "main_data.hdf5" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("total", [7, 9, float("nan"), "8", [8]])
def test_a_number_of_steps_that_disagrees_is_refused(tmp_path, total):
    folder = write_minari(tmp_path, "a-v0", make([4, 4]))
    path = folder / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    assert metadata["total_steps"] == 8
    path.write_text(json.dumps({**metadata, "total_steps": total}))
    with pytest.raises(
        UserError, match=r"8 steps are there and .* are said to be \('total_steps'\)"
    ):
        read_minari(folder)


def test_actions_beyond_the_bounds_of_their_space(tmp_path):
    folder = minari_04(tmp_path / "toy-v0")
    alter(folder, replaced("episode_0/actions", np.full((4, 2), 1.5)))
    with pytest.raises(UserError, match=r"row 0, column 1 is 2.0; .*--clip-actions"):
        read_minari(folder)
    found = inspect_minari(folder, None, Reading(clip_actions=True)).trajectories
    np.testing.assert_array_equal(found.actions[:4], np.tile([0.75, 1.0], (4, 1)))
    with pytest.raises(UserError, match="a Minari set has its own names"):
        inspect_minari(folder, None, Reading(map={"obs": "observations"}))


def test_a_horizon_that_is_asked_for_cuts_and_keeps_what_was_seen_last(tmp_path):
    folder = minari_04(tmp_path / "toy-v0")
    whole = read_minari(folder)
    found = inspect_minari(folder, None, Reading(horizon=3)).trajectories
    assert found.lengths.tolist() == [3, 1, 3, 1]
    assert found.terminations.nonzero()[0].tolist() == whole.terminations.nonzero()[0].tolist()
    np.testing.assert_array_equal(found.final_observations[0], whole.observations[3])
    np.testing.assert_array_equal(found.final_observations[[1, 3]], whole.final_observations)


def test_infos_that_not_every_episode_has_are_left_out(tmp_path):
    folder = minari_04(tmp_path / "toy-v0")
    assert read_minari(folder).simulator_state.shape == (8, 3)
    alter(folder, replaced("episode_1/infos/qpos", None))
    found = inspect_minari(folder)
    assert found.trajectories.simulator_state is None
    assert found.notes[0] == "'simulator_state' was left out: not every episode has it"


def test_altered_content_of_our_sets_is_noticed(tmp_path):
    folder = write_minari(tmp_path, "a-v0", full())

    def change(file):
        file["episode_0/rewards"][1] += 1

    alter(folder, change)
    with pytest.raises(UserError, match="its content has changed since it was written"):
        read_minari(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "metadata.json: can't be understood"),
        ("[]", "metadata.json: can't be understood"),
        ("[" * 100_000, "metadata.json: can't be understood"),
        ('{"data_format": "arrow"}', "the format arrow; allowed: hdf5"),
        ('{"ablate": 3}', "'ablate' must be a mapping"),
        ("{}", "it records no spaces|no environment is recorded"),
        ('{"total_episodes": 3}', "3 are said to be"),
    ],
)
def test_broken_descriptions_are_refused(tmp_path, content, message):
    folder = write_minari(tmp_path, "a-v0", make([3, 4]))
    (folder / "data" / "metadata.json").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_minari(folder)
    assert "\n" not in str(caught.value)


def test_folders_without_a_set(tmp_path):
    with pytest.raises(UserError, match="there is no Minari set here"):
        read_minari(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "metadata.json").write_text('{"data_format": "arrow"}')
    with pytest.raises(UserError, match="isn't stored as HDF5, the only format allowed"):
        read_minari(tmp_path)
    assert local_sets(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"id": "os:system", "entry_point": "os:system"}, "the environment 'os:system' is not allowed"),
        ({"id": 3}, "the environment 3 is not allowed"),
        ({}, "'env_spec' can't be understood"),
        ("{", "'env_spec' can't be understood"),
        ({"id": "A-v0", "kwargs": 3}, "arguments that can't be given"),
        ({"id": "A-v0", "additional_wrappers": [{"name": "Evil", "entry_point": "os:system"}]},
         "the wrapper Evil that can't be given"),
        (None, "no environment is recorded"),
    ],
)  # fmt: skip
def test_a_specification_names_no_code(spec, message):
    with pytest.raises(UserError, match=message):
        environment("here", {"env_spec": spec})


def test_the_environment_for_evaluation_comes_first():
    specs = {
        "env_spec": json.dumps({"id": "A-v0", "max_episode_steps": 5}),
        "eval_env_spec": json.dumps(
            {"id": "B-v0", "kwargs": {"goal": [1], "render_mode": "human"}, "entry_point": "x:y"}
        ),
    }
    assert environment("here", specs) == Environment("B-v0", {"goal": [1]}, None)


def test_reference_scores_are_anchors(made, tmp_path):
    shutil.copytree(made / "0.5.4" / "pendulum-v0", tmp_path / "a-v0")
    path = tmp_path / "a-v0" / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    path.write_text(json.dumps({**metadata, "ref_min_score": -9.5, "ref_max_score": 3}))
    about = inspect_minari(tmp_path / "a-v0").about
    assert (about["anchor_low"], about["anchor_high"]) == (-9.5, 3)
    path.write_text(json.dumps({**metadata, "ref_min_score": 9.5, "ref_max_score": 3}))
    assert "anchor_low" not in inspect_minari(tmp_path / "a-v0").about


@with_minari
def test_the_minari_package_opens_our_sets(tmp_path, monkeypatch):
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    sets = {"ours/plain-v0": (full(), None), "cart-v0": (with_choices(), "CartPole-v1")}
    for name, (data, env_id) in sets.items():
        write_minari(tmp_path, name, data, env_id)
    assert sorted(minari.list_local_datasets()) == sorted(sets)
    for name, (data, env_id) in sets.items():
        opened = minari.load_dataset(name)
        assert (opened.total_episodes, opened.total_steps) == (data.num_episodes, len(data.rewards))
        for index, episode in enumerate(opened.iterate_episodes()):
            at = rows(data, index)
            np.testing.assert_array_equal(episode.observations[:-1], data.observations[at])
            np.testing.assert_array_equal(episode.rewards, data.rewards[at])
            np.testing.assert_array_equal(episode.terminations, data.terminations[at])
            np.testing.assert_array_equal(episode.truncations, data.truncations[at])
            actions = data.actions[at]
            wanted = actions if env_id is None else actions.argmax(axis=1)
            np.testing.assert_array_equal(episode.actions, wanted)
            assert all(opened.action_space.contains(action) for action in episode.actions)
            assert all(opened.observation_space.contains(each) for each in episode.observations)
            if env_id is None:
                np.testing.assert_array_equal(episode.infos["goal"], data.goal[at])
                np.testing.assert_array_equal(
                    episode.observations[-1], data.final_observations[index]
                )
        if env_id is not None:
            assert opened.recover_environment().action_space == opened.action_space
