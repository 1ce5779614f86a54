"""Where episodes end and in what units actions are, of files that leave it open."""

import gymnasium
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.data import catalogue
from ablate.data.families.file import File
from ablate.data.formats.files import check, convert, inspect, read, write
from ablate.data.reading import Reading
from ablate.errors import UserError


def flat(path, lengths, ended=(), environment=None, **changes):
    """A file of D4RL's layout whose episodes are cut, but for those in `ended`."""
    steps, last = sum(lengths), np.cumsum(lengths) - 1
    rng = np.random.default_rng(0)
    arrays = {
        "observations": rng.standard_normal((steps, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (steps, 1)).astype(np.float32),
        "rewards": np.ones(steps, dtype=np.float32),
        "terminals": np.isin(np.arange(steps), last[list(ended)]),
        "timeouts": np.isin(np.arange(steps), np.delete(last, list(ended))),
    }
    arrays.update(changes)
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            if value is not None:
                file[key] = value
        if environment is not None:
            file.attrs["environment"] = environment
    return path


def refused(path, match, **reading):
    with pytest.raises(UserError, match=match) as caught:
        read(path, reading=Reading(**reading))
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def notes(path, **reading):
    return " | ".join(inspect(path, reading=Reading(**reading)).notes)


# --- where episodes end ---


def test_episodes_that_a_file_joins_are_cut_at_the_time_limit(tmp_path):
    # Pendulum-v1 ends after 200 steps. One terminal at row 499, and no timeouts.
    ended = np.arange(700) == 499
    changes = {"terminals": ended, "timeouts": None}
    path = flat(tmp_path / "a.hdf5", (700,), environment="Pendulum-v1", **changes)
    assert read(path).lengths.tolist() == [200, 200, 100, 200]
    assert "cut after 200 steps, the time limit of Pendulum-v1" in notes(path)
    assert read(path, reading=Reading(horizon=300)).lengths.tolist() == [300, 200]
    assert "cut after 300 steps, the horizon" in notes(path, horizon=300)
    for environment in (None, "NoSuch-v0", "os:system"):  # whose limit isn't known
        path = flat(tmp_path / "b.hdf5", (700,), environment=environment, **changes)
        refused(path, r"no 'timeouts', so that .* --horizon N .* --env ID")
        assert read(path, reading=Reading(environment="Pendulum-v1")).num_episodes == 4
    with pytest.raises(UserError, match="'NoSuch-v1' is not registered"):
        read(path, reading=Reading(environment="NoSuch-v1"))


def test_timeouts_that_are_not_all_marked(tmp_path):
    zeros = np.zeros(700, bool)
    path = flat(tmp_path / "a.hdf5", (700,), environment="Pendulum-v1", timeouts=zeros)
    assert read(path).lengths.tolist() == [200, 200, 200]
    assert "longer than 200 steps, the time limit of Pendulum-v1, were cut there (3 cuts)" in notes(
        path
    )
    path = flat(tmp_path / "b.hdf5", (150, 450), environment="Pendulum-v1")
    assert read(path).lengths.tolist() == [150, 200, 200, 50]


def test_what_was_seen_next_tells_where_the_next_episode_begins(tmp_path):
    path = flat(tmp_path / "a.hdf5", (5, 7, 4), ended=(0,), timeouts=None)
    with h5py.File(path, "r+") as file:
        seen = file["observations"][()]
        after = np.concatenate([seen[1:], seen[:1]])
        after[[4, 11]] += 1.0  # the last ones of the first two episodes
        file["next_observations"] = after
    found = read(path)
    assert found.lengths.tolist() == [5, 7]  # where the third ends isn't known
    np.testing.assert_array_equal(found.final_observations, after[[4, 11]])
    with h5py.File(path, "r+") as file:
        order = np.random.default_rng(0).permutation(16)
        for key in file:
            file[key][:] = file[key][()][order]
    refused(path, "its rows aren't in the order of time")


@settings(deadline=None, derandomize=True, max_examples=20)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    horizon=st.integers(1, 12),
    joined=st.booleans(),
)
def test_no_piece_is_longer_than_the_horizon_and_no_row_is_lost(
    tmp_path_factory, lengths, horizon, joined
):
    path = tmp_path_factory.mktemp("rows") / "a.hdf5"
    ends = range(len(lengths)) if joined else ()  # without timeouts only terminals are marked
    flat(path, lengths, ended=ends, **({"timeouts": None} if joined else {}))
    found = read(path, reading=Reading(horizon=horizon, terminals="as-is"))
    wanted = [n for each in lengths for n in [horizon] * (each // horizon) + [each % horizon] if n]
    assert found.lengths.tolist() == wanted
    last = found.episode_starts[1:] - 1
    true_ends = np.isin(last, np.cumsum(lengths) - 1) if joined else np.zeros(len(last), bool)
    np.testing.assert_array_equal(found.terminations[last], true_ends)


def test_a_time_limit_that_is_marked_as_terminal_is_asked_about(tmp_path):
    path = flat(tmp_path / "a.hdf5", (9, 9, 9), ended=(0, 1, 2))
    refused(path, r"every one of the 3 episodes ends as terminal after 9 steps; say whether .*"
                  r"--terminals time-limit .* --terminals as-is")  # fmt: skip
    assert read(path, reading=Reading(terminals="as-is")).terminations.sum() == 3
    cut = read(path, reading=Reading(terminals="time-limit"))
    assert (cut.terminations.sum(), cut.truncations.sum()) == (0, 3)
    # Some of them, at the limit that is known; an early one stays what it is.
    path = flat(tmp_path / "b.hdf5", (9, 9, 4, 9), ended=(0, 1, 2))
    refused(path, "2 of the 4 episodes ends as terminal after 9 steps, the horizon", horizon=9)
    cut = read(path, reading=Reading(horizon=9, terminals="time-limit"))
    assert (cut.terminations.sum(), cut.truncations.sum()) == (1, 3)
    assert "2 of 4 episodes end as terminal after 9 steps, the longest there are" in notes(path)
    # One may fall there by chance; different lengths are no limit.
    assert "terminal" not in notes(flat(tmp_path / "c.hdf5", (9, 5, 4), ended=(0, 1, 2)))


# --- actions ---


def test_actions_in_units_of_their_own(tmp_path):
    own = np.linspace(-2, 2, 12, dtype=np.float32)[:, None]
    path = flat(tmp_path / "a.hdf5", (5, 7), environment="Pendulum-v1", actions=own)
    refused(path, r"row 0, column 0 is -2.0; .* units of Pendulum-v1, \[-2, 2\], say --rescale")
    np.testing.assert_array_equal(
        read(path, reading=Reading(rescale_actions=True)).actions, own / 2
    )
    clipped = read(path, reading=Reading(clip_actions=True))
    np.testing.assert_array_equal(clipped.actions, np.clip(own, -1, 1))
    assert "6 numbers of actions beyond [-1, 1] were put onto the bound" in notes(
        path, clip_actions=True
    )
    # Beyond the environment's own bounds, too.
    path = flat(tmp_path / "b.hdf5", (5, 7), environment="Pendulum-v1", actions=own * 2.55)
    refused(path, "is -5.09.* own, say --rescale-actions .* else put .* --clip-actions")
    refused(path, "is -2.5.*Beyond their own bounds: .*--clip-actions", rescale_actions=True)
    both = read(path, reading=Reading(rescale_actions=True, clip_actions=True))
    np.testing.assert_array_equal(both.actions, np.clip(own * 2.55 / 2, -1, 1).astype("f4"))
    # Inside [-1, 1] they are fractions of the bounds, as said.
    path = flat(tmp_path / "c.hdf5", (5, 7), environment="Pendulum-v1")
    assert "taken as fractions of the bounds [-2, 2] of Pendulum-v1" in notes(path)
    # Without an environment the data's own extremes are their bounds.
    path = flat(tmp_path / "d.hdf5", (5, 7), actions=own * 30 + 7)
    refused(path, "say --rescale-actions .* and the environment, --env ID")
    found = read(path, reading=Reading(rescale_actions=True))
    np.testing.assert_allclose(found.actions, own / 2, atol=1e-6)


def test_a_density_is_of_the_actions_in_their_new_units(tmp_path):
    changes = {"infos/action_log_probs": np.zeros(12), "actions": np.full((12, 1), 1.5)}
    path = flat(tmp_path / "a.hdf5", (5, 7), environment="Pendulum-v1", **changes)
    found = read(path, reading=Reading(rescale_actions=True))
    np.testing.assert_allclose(found.behaviour_logp, np.log(2.0), rtol=1e-6)


def test_rounding_is_no_excess(tmp_path):
    near = np.full((12, 1), np.nextafter(np.float32(1), np.float32(2)))
    assert np.abs(read(flat(tmp_path / "a.hdf5", (5, 7), actions=near)).actions).max() < 1 + 1e-6
    refused(flat(tmp_path / "b.hdf5", (5, 7), actions=near * 1.001), "row 0, column 0 is 1.001")


CHOSEN = np.arange(12) % 2
HOT = np.eye(2)[CHOSEN]
SHAPES = {
    "(T,) integers": CHOSEN,
    "(T, 1) integers": CHOSEN[:, None],
    "bytes": CHOSEN.astype(np.uint8),
    "truth values": CHOSEN.astype(bool),
    "floats": CHOSEN.astype(np.float32),
    "(T, 1) floats": CHOSEN[:, None].astype(np.float64),
    "one-hot": HOT,
    "one-hot integers": HOT.astype(int),
    "as -1 and 1": 2 * HOT - 1,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_choices_in_every_usual_form(tmp_path, shape):
    path = flat(tmp_path / "a.hdf5", (5, 7), environment="CartPole-v1", actions=SHAPES[shape])
    np.testing.assert_array_equal(read(path).actions, 2 * HOT - 1)
    # Nothing names an environment: integers and one-hot rows are choices, whole floats may be either.
    path = flat(tmp_path / "b.hdf5", (5, 7), actions=SHAPES[shape])
    if "floats" in shape:
        refused(path, r"may be choices or magnitudes; .* --env ID, .* --choices N .* 0 for magn")
        assert read(path, reading=Reading(choices=0)).actions.shape == (12, 1)
        assert read(path, reading=Reading(choices=2)).actions.shape == (12, 2)
    else:
        np.testing.assert_array_equal(read(path).actions, 2 * HOT - 1)
        if "hot" not in shape and "as" not in shape:
            assert read(path, reading=Reading(choices=4)).actions.shape == (12, 4)


def test_whole_numbers_that_are_no_choices(tmp_path):
    path = flat(tmp_path / "a.hdf5", (5, 7), environment="CartPole-v1", actions=CHOSEN + 1)
    refused(path, "actions row 1 is 2, none of the choices 0 to 1")
    path = flat(tmp_path / "b.hdf5", (5, 7), environment="CartPole-v1", actions=HOT * 0.5)
    refused(path, "actions row 0 is no choice: one of its 2 numbers must be 1")
    path = flat(tmp_path / "c.hdf5", (5, 7), environment="CartPole-v1", actions=np.zeros((12, 3)))
    refused(path, "actions have 3 numbers a row; the environment takes 1 choices of 2")
    path = flat(tmp_path / "d.hdf5", (5, 7), actions=CHOSEN - 1)
    refused(path, "actions are whole numbers from -1 to 0 .* may be choices or magnitudes")
    path = flat(tmp_path / "e.hdf5", (5, 7), actions=np.stack([CHOSEN, CHOSEN + 1], axis=1))
    refused(path, "actions are whole numbers from 0 to 2 .* 2 a row")
    refused(path, "4 choices were asked for; .* one a row, or one-hot", choices=4)


class Shelves(gymnasium.Env):
    """Two choices at once, the second from 1 on."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.MultiDiscrete([2, 3], start=[0, 1])


def test_several_choices_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(gymnasium, "registry", {**gymnasium.registry})
    monkeypatch.setattr(gymnasium.envs.registration, "registry", gymnasium.registry)
    gymnasium.register("Shelves-v0", entry_point=Shelves, max_episode_steps=9)
    pairs = np.stack([CHOSEN, 1 + np.arange(12) % 3], axis=1)
    path = flat(tmp_path / "a.hdf5", (5, 7), environment="Shelves-v0", actions=pairs)
    wanted = 2 * np.concatenate([HOT, np.eye(3)[np.arange(12) % 3]], axis=1) - 1
    np.testing.assert_array_equal(read(path).actions, wanted)


# --- what float32 can't hold, what is said of our own files, what is held out ---


def test_offsets_that_float32_cannot_resolve_are_refused(tmp_path):
    small = np.random.default_rng(0).standard_normal((12, 3))
    path = flat(tmp_path / "a.hdf5", (5, 7), observations=small + np.array([0, 1.7e9, 0]))
    refused(path, r"column 1 lies around 1.7e\+09 with a deviation of .* subtract an offset")
    flat(path, (5, 7), observations=small + np.array([0, 1e4, 0]))
    assert read(path).num_episodes == 2
    flat(path, (5, 7), observations=small * [1, 0, 1] + [0, 1.7e9 + 0.1, 0])  # a constant
    assert read(path).num_episodes == 2
    flat(path, (5, 7), observations=small * [1, 1e-8, 1])
    assert "column 1 varies by less than 1e-06 and counts as constant" in notes(path)


def test_a_file_of_ours_is_read_as_it_was_written(tmp_path):
    own = tmp_path / "own.hdf5"
    source = flat(tmp_path / "a.hdf5", (9, 9), ended=(0, 1))
    convert(source, own, "hdf5", reading=Reading(terminals="time-limit"))
    assert read(own).truncations.sum() == 2
    for name, format in {"a.pkl": "pickle", "a-v0": "minari", "b.hdf5": "hdf5"}.items():
        convert(own, tmp_path / name, format)
        assert read(tmp_path / name).content_hash == read(own).content_hash
        refused(tmp_path / name, "clip_actions can't be said of a file that was written here",
                clip_actions=True)  # fmt: skip
        read(tmp_path / name, reading=Reading(environment="Pendulum-v1", held_out=0.0))


def test_a_share_that_is_held_out(tmp_path):
    path = flat(tmp_path / "a.hdf5", (5, 7), environment="Pendulum-v1")

    def parts(share):
        found = File().read_as(str(path), f"file/{path}", Reading(held_out=share))
        train, held_out = found.generate()
        return found.recipe["held_out"], train.num_episodes, held_out.num_episodes

    assert parts(0.1) == (0.1, 1, 1)
    assert parts(0.9) == (0.9, 1, 1)
    assert parts(0.0) == (0.0, 2, 2)  # all are trained on, and nothing is left to be held out
    one = flat(tmp_path / "b.hdf5", (5,))
    with pytest.raises(UserError, match=r"1 episode; at least 2 .*--held-out 0"):
        catalogue.load(f"file/{one}", tmp_path)


def test_the_environment_and_its_horizon_are_what_was_said(tmp_path):
    path = flat(tmp_path / "a.hdf5", (5, 7))
    with pytest.raises(UserError, match=r"names no environment.*--env ID"):
        catalogue.spec(f"file/{path}").make_env(1)
    said = Reading(environment="Pendulum-v1", horizon=50)
    spec = File().read_as(str(path), f"file/{path}", said)
    assert spec.make_env(1).horizon == 50
    assert spec.recipe["environment"] == "Pendulum-v1"


@pytest.mark.parametrize("wrong", [{"horizon": 0}, {"held_out": 1.0}, {"held_out": float("nan")}, {"horizon": True},
                                   {"terminals": "maybe"}, {"rescale": True}, {"choices": -1}])  # fmt: skip
def test_what_cannot_be_said(wrong):
    with pytest.raises(ValueError, match="validation error"):
        Reading(**wrong)


def test_check_takes_what_is_said(tmp_path):
    path = flat(tmp_path / "a.hdf5", (9, 9), ended=(0, 1))
    assert check(path)[-1].startswith("problem: ")
    assert check(path, Reading(terminals="as-is"))[-1] == "no problem found"
    write(tmp_path / "b.hdf5", read(path, reading=Reading(terminals="as-is")), "hdf5")
    assert check(tmp_path / "b.hdf5")[-1] == "no problem found"
