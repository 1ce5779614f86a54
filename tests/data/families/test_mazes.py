"""The maze families' data: names, controllers, what is held out, what is never seen together."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.data.behaviour import censored_logp
from ablate.data.catalogue import spec
from ablate.data.collect import collect
from ablate.data.families import forkcommit, fourrooms, pointmaze, stitch
from ablate.data.waypoints import REACHED, Walker
from ablate.envs.forkcommit import ACROSS, JUNCTION, ROUTE
from ablate.envs.fourrooms import start_and_goal_room
from ablate.envs.pointmaze import HORIZONS, MAZES, PointMaze
from ablate.envs.stitch import Stitch, goals_of, stitch_map
from ablate.errors import UserError

NAMES = [
    "pointmaze/umaze-20k-v1",
    "pointmaze/open-noiseless-10k-v1",
    "fourrooms/held-out-v0",
    "fourrooms/seen-v0",
    "stitch/apart-1-v0",
    "stitch/whole-1-v0",
    "forkcommit/5-v0",
    "forkcommit/80-v0",
]


@pytest.fixture(scope="module")
def made():
    """The sets, those of four rooms and of stitching a third as large as they are."""
    with pytest.MonkeyPatch.context() as patch:
        for family in (fourrooms, stitch):
            patch.setattr(family, "STEPS", {"train": 50_000, "held_out": 12_000})
        return {name: spec(name).generate() for name in NAMES}


# --- what all new sets promise -----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_array_is_there_and_belongs_to_the_set(made, name):
    found = spec(name)
    env = found.make_env(2)
    for part in made[name]:
        part.validate()
        assert part.name == name
        assert set(part.arrays) == {
            "observations", "actions", "rewards", "terminations", "truncations", "episode_starts",
            "behaviour_id", "behaviour_logp", "behaviour_action", "goal", "simulator_state",
            "final_observations",
        }  # fmt: skip
        assert part.observations.shape[1] == env.observation_dim
        assert part.actions.shape[1] == env.action_dim
        assert part.lengths.max() <= env.horizon
        assert part.behaviour_id.max() == found.num_policies - 1
        last = part.episode_starts[1:] - 1
        assert (part.terminations ^ part.truncations)[last].all()
    train, held_out = made[name]
    assert train.content_hash != held_out.content_hash
    anchors = found.anchors()
    assert anchors.low < anchors.high
    assert anchors.source


@pytest.mark.parametrize("name", ["stitch/apart-1-v0", "forkcommit/5-v0", "pointmaze/umaze-20k-v1"])
def test_generation_is_a_function_of_the_name(made, name, monkeypatch):
    monkeypatch.setattr(stitch, "STEPS", {"train": 50_000, "held_out": 12_000})
    again = spec(name).generate()
    assert [p.content_hash for p in again] == [p.content_hash for p in made[name]]


@pytest.mark.parametrize("name", ["fourrooms/held-out-v0", "stitch/apart-1-v0"])
def test_noise_and_likelihood_are_as_stated(made, name):
    train = made[name][0]
    free = np.abs(train.behaviour_action) < 0.02
    assert 0.4 < (train.actions - train.behaviour_action)[free].std() < 0.5  # clipped at 2 sd
    expected = censored_logp(train.actions, train.behaviour_action, 0.5)
    np.testing.assert_allclose(train.behaviour_logp, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(train.simulator_state, train.observations[:, :4])
    # The last action leads from the last observation to the final one: within a step's reach.
    last = train.episode_starts[1:] - 1
    move = train.final_observations[:, :2] - train.observations[last, :2]
    np.testing.assert_allclose(move, 0.01 * train.final_observations[:, 2:4], atol=1e-3)


# --- point mazes -------------------------------------------------------------------------------------


def test_the_first_sets_are_what_they_were():
    """Committed results are about them."""
    made = pointmaze.walk("pointmaze/umaze-v1", "umaze", "held_out")
    assert made.content_hash == "8855a0ac5da0d04e"
    assert made.final_observations is None


def test_a_size_is_kept_to_by_less_than_a_segment(made):
    for name, size in (
        ("pointmaze/umaze-20k-v1", 20_000),
        ("pointmaze/open-noiseless-10k-v1", 10_000),
    ):
        train, held_out = made[name]
        assert size - train.lengths.max() < len(train.rewards) <= size
        assert 0.7 * size / 10 < len(held_out.rewards) <= size / 10


def test_sized_walks_reach_their_goals_and_say_what_was_seen_last(made):
    train = made["pointmaze/umaze-20k-v1"][0]
    assert not train.terminations.any()
    final, last = train.final_observations, train.episode_starts[1:] - 1
    np.testing.assert_array_equal(final[:, 4:], train.goal[last])
    gap = np.linalg.norm(final[:, :2] - final[:, 4:], axis=1)
    assert ((gap < REACHED + 1e-6) | (train.lengths == HORIZONS["umaze"])).all()
    assert (gap < REACHED).mean() > 0.8
    # Where a walker goes on, it starts where the last segment ended, with another goal.
    onward = (final[:-1, :4] == train.observations[last[:-1] + 1, :4]).all(axis=1)
    assert (~onward).sum() <= 4  # five walkers of about 4,000 steps
    assert (final[:-1, 4:] != train.observations[last[:-1] + 1, 4:]).all()
    # The last action of a segment leads there.
    env = PointMaze(train.num_episodes)
    env.reset(range(train.num_episodes))
    state = train.simulator_state[last].astype(np.float64)
    env._position, env._velocity = state[:, :2], state[:, 2:]
    env._goal = train.goal[last].astype(np.float64)
    observation, rewards, *_ = env.step(train.actions[last])
    np.testing.assert_allclose(observation, final, atol=1e-5)
    clear = np.abs(gap - 0.5) > 1e-3
    np.testing.assert_array_equal(rewards[clear], train.rewards[last][clear])


def test_noise_is_an_option(made):
    train = made["pointmaze/open-noiseless-10k-v1"][0]
    np.testing.assert_array_equal(train.actions, train.behaviour_action)
    np.testing.assert_array_equal(train.behaviour_logp, 0.0)
    quiet = pointmaze.walk("x", "umaze", "train", 0.2, 10_000)
    free = np.abs(quiet.behaviour_action) < 0.3
    assert (quiet.actions - quiet.behaviour_action)[free].std() == pytest.approx(0.2, rel=0.03)
    expected = censored_logp(quiet.actions, quiet.behaviour_action, 0.2)
    np.testing.assert_allclose(quiet.behaviour_logp, expected, rtol=1e-4, atol=1e-4)
    assert spec("pointmaze/umaze-noise0.2-10k-v1").recipe["noise"] == 0.2
    assert spec("pointmaze/umaze-noiseless-1M-v1").recipe["size"] == 1_000_000


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from([*MAZES, "maze"]),
    st.sampled_from(["", "-noiseless", "-noise0.25", "-noise0.5", "-noise0.50", "-noise1.5"]),
    st.sampled_from(
        ["", "-10k", "-9k", "-999k", "-1000k", "-1500k", "-10M", "-11M", "-1e6", "-07k"]
    ),
    st.sampled_from(["-v1", "-v0", ""]),
)
def test_a_name_resolves_or_is_refused_in_one_line(maze, noise, size, version):
    name = f"pointmaze/{maze}{noise}{size}{version}"
    good = (
        maze in MAZES
        and noise in ("", "-noiseless", "-noise0.25")
        and size in ("", "-10k", "-999k", "-1500k", "-10M")
        and version == "-v1"
    )
    if good:
        assert spec(name).name == name
    else:
        with pytest.raises(UserError) as caught:
            spec(name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pointmaze/umaze-noise0.5-v1", "noise 0.5, as every set whose name says nothing"),
        ("pointmaze/umaze-1000k-v1", "size 1000k; it is written 1M"),
        ("pointmaze/umaze-9k-v1", "size 9k; allowed: 10k to 10M"),
        ("pointmaze/umaze-noisless-1M-v1", "Did you mean 'pointmaze/umaze-noiseless-1M-v1'"),
        ("fourrooms/heldout-v0", "Did you mean 'fourrooms/held-out-v0'"),
        ("fourrooms/held-out", "Did you mean 'fourrooms/held-out-v0'"),
        ("stitch/apart-v0", "Did you mean 'stitch/apart-"),
        ("stitch/apart-0-v0", "a corridor of 0 cells; allowed: 1 to 20"),
        ("stitch/apart-02-v0", "a corridor of 02 cells"),
        ("forkcommit/0-v0", "has delay 0; allowed: 1 to 10000"),
        ("forkcommit/010-v0", "has delay 010"),
        ("forkcommit/ten-v0", "is not known"),
        ("forkcommit/" + "9" * 5000 + "-v0", "is not known"),
        ("stitch/apart-" + "9" * 5000 + "-v0", "is not known"),
        ("pointmaze/umaze-" + "9" * 5000 + "k-v1", "is not known"),
        ("forkcommit/20", "Did you mean 'forkcommit/20-v0'"),
    ],
)
def test_wrong_names_are_refused(name, message):
    with pytest.raises(UserError, match=message) as caught:
        spec(name)
    assert "\n" not in str(caught.value)


def test_the_behaviour_walks_to_the_goal_shown_and_stays(made):
    found = spec("pointmaze/umaze-v1")
    walked = collect("x", "train", found.make_env, found.behaviour(), 10_000, batch=50)
    assert (walked.lengths == 200).all()
    assert walked.num_episodes == 50
    assert 90 < found.anchors().score(walked.returns).mean() < 105
    gap = np.linalg.norm(
        walked.final_observations[:, :2] - walked.final_observations[:, 4:], axis=1
    )
    assert (gap < 0.3).mean() > 0.85
    expected = censored_logp(walked.actions, walked.behaviour_action, 0.5)
    np.testing.assert_allclose(walked.behaviour_logp, expected, rtol=1e-4, atol=1e-5)
    quiet = spec("pointmaze/umaze-noiseless-v1")
    still = collect("x", "train", quiet.make_env, quiet.behaviour(), 2000, batch=10)
    np.testing.assert_array_equal(still.actions, still.behaviour_action)
    np.testing.assert_array_equal(still.behaviour_logp, 0.0)


def test_hidden_physics_is_drawn_for_each_episode():
    found = spec("pointmaze/umaze-v1")
    env, plain = found.hidden_physics(500, 0.4), found.make_env(500)
    np.testing.assert_array_equal(env.reset(range(500)), plain.reset(range(500)))  # it isn't seen
    assert env.strength.min() == pytest.approx(0.6, abs=0.01)
    assert env.strength.max() == pytest.approx(1.4, abs=0.01)
    again = found.hidden_physics(1, 0.4)
    again.reset([7])
    assert again.strength == env.strength[[7]]
    push = np.tile([0.5, 0.0], (500, 1))
    pulled, plainly = env.step(push)[0][:, 2], plain.step(push)[0][:, 2]
    assert np.corrcoef(pulled - plainly, env.strength)[0, 1] > 0.99


# --- four rooms --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["held-out", "seen"])
def test_held_out_pairs_never_appear_in_the_training_data(made, kind):
    train, held_out = made[f"fourrooms/{kind}-v0"]
    room, goal = start_and_goal_room(train.observations)  # at every timestep
    seen = set(zip(room.tolist(), goal.tolist(), strict=True))
    assert not seen & set(fourrooms.HELD_OUT)
    first = train.episode_starts[:-1]
    pairs = list(zip(room[first].tolist(), goal[first].tolist(), strict=True))
    assert set(pairs) == set(fourrooms.TRAINED)
    assert min(pairs.count(pair) for pair in fourrooms.TRAINED) > 10
    room, goal = start_and_goal_room(held_out.observations[held_out.episode_starts[:-1]])
    evaluated = fourrooms.HELD_OUT if kind == "held-out" else fourrooms.MIRRORED
    assert set(zip(room.tolist(), goal.tolist(), strict=True)) == set(evaluated)


def test_the_two_sets_share_their_training_data_and_differ_in_evaluation(made):
    (train, _), (same, _) = made["fourrooms/held-out-v0"], made["fourrooms/seen-v0"]
    assert train.content_hash == same.content_hash
    for kind, pairs in (("held-out", fourrooms.HELD_OUT), ("seen", fourrooms.MIRRORED)):
        observation = spec(f"fourrooms/{kind}-v0").make_env(100).reset(range(100))
        room, goal = start_and_goal_room(observation)
        assert set(zip(room.tolist(), goal.tolist(), strict=True)) == set(pairs)
    covered = spec("fourrooms/covered-v0")
    assert covered.recipe["evaluated"] == fourrooms.HELD_OUT
    assert set(covered.recipe["trained"]) == {*fourrooms.TRAINED, *fourrooms.HELD_OUT}


def test_the_controller_never_fails(made):
    train = made["fourrooms/held-out-v0"][0]
    np.testing.assert_array_equal(train.returns, 1.0)
    assert not train.truncations.any()
    np.testing.assert_array_equal(train.goal, train.observations[:, 4:])
    gap = np.linalg.norm(train.final_observations[:, :2] - train.final_observations[:, 4:], axis=1)
    assert gap.max() <= 0.5 + 1e-6
    assert spec("fourrooms/held-out-v0").anchors().score(train.returns).mean() == 100


# --- stitching ---------------------------------------------------------------------------------------


def halves(part):
    """Per episode: starts in A; ends at the good goal."""
    first = part.episode_starts[:-1]
    goal = np.linalg.norm(part.final_observations[:, None, :2] - goals_of(1), axis=-1).argmin(
        axis=1
    )
    return part.observations[first, 1] > 0, goal == 0


def test_nobody_goes_from_a_to_the_good_goal(made):
    for part in made["stitch/apart-1-v0"]:
        from_a, good = halves(part)
        np.testing.assert_array_equal(from_a, ~good)
        assert 0.4 < from_a.mean() < 0.6
        np.testing.assert_array_equal(part.returns, good)
        np.testing.assert_array_equal(part.behaviour_id[part.episode_starts[:-1]], ~good)
        np.testing.assert_allclose(part.goal, goals_of(1)[part.behaviour_id])


def test_the_twin_has_the_whole_way_and_the_same_halves(made):
    apart, whole = made["stitch/apart-1-v0"][0], made["stitch/whole-1-v0"][0]
    from_a, good = halves(whole)
    table = np.histogram2d(from_a, good, bins=2)[0] / len(good)
    assert table.min() > 0.2
    np.testing.assert_array_equal(whole.returns, good)
    # Each half by itself is distributed as in the other set: compare where time is spent, cell by cell.
    share = [
        np.histogram2d(*part.observations[:, :2].T, bins=12, range=[[-2, 2], [-3, 3]])[0]
        / len(part.rewards)
        for part in (apart, whole)
    ]
    assert np.abs(share[0] - share[1]).max() < 0.02


@pytest.mark.parametrize(
    ("aim", "score"), [("apart", 0.0), ("whole", 50.0), ("good", 100.0)], ids=str
)
def test_scores_from_a(aim, score):
    """Of the policy that remembers, of one that has forgotten where it came from, and of one that knows."""
    heading = {
        "apart": stitch.heading("apart", 1),
        "whole": stitch.heading("whole", 1),  # a coin at the junction: nothing before tells
        "good": lambda first, rng: (
            goals_of(1)[np.zeros(len(first), int)],
            np.zeros(len(first), int),
        ),
    }[aim]
    walker = Walker(stitch_map(1), 0.5, heading)
    made = collect("x", "train", lambda n: Stitch(n, 1), walker, 30_000, batch=160)
    found = spec("stitch/apart-1-v0")
    assert isinstance(found.make_env(1), Stitch)
    mean = found.anchors().score(made.returns).mean()
    assert mean == score if score != 50.0 else 35 < mean < 65
    if aim != "good":
        stated = spec(f"stitch/{aim}-1-v0").anchors().source
        assert re.search(rf", {score:.0f} for the policy the data come from", stated)


# --- fork and commit ---------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [5, 80])
def test_routes_are_balanced_kept_and_hidden_in_between(made, delay):
    for part, episodes in zip(made[f"forkcommit/{delay}-v0"], (400, 100), strict=True):
        assert part.num_episodes == episodes
        first = part.episode_starts[:-1]
        route = part.observations[first, ROUTE]
        assert route.sum() == 0
        np.testing.assert_array_equal(part.goal[:, 0], np.repeat(route, part.lengths))
        np.testing.assert_array_equal(part.returns, 1.0)
        assert part.terminations.sum() == episodes
        np.testing.assert_array_equal(part.final_observations[:, ACROSS], route)
        later = part.timestep > 0
        assert not part.observations[later, ROUTE].any()
        corridor = part.timestep < delay
        assert not part.observations[corridor, ACROSS].any()
        np.testing.assert_array_equal(part.observations[:, JUNCTION] > 0, ~corridor)
        np.testing.assert_array_equal(part.behaviour_action[corridor], 0.0)
        np.testing.assert_array_equal(part.behaviour_action[~corridor], part.goal[~corridor])
        # Actions in the corridor tell nothing of the route either.
        mean = (part.actions * part.goal)[corridor].mean()
        assert abs(mean) < 4 * 0.2 / np.sqrt(corridor.sum())
        # One step after the choice, what is seen tells the route.
        after = part.timestep == delay + 1
        np.testing.assert_array_equal(
            np.sign(part.observations[after, ACROSS]), part.goal[after, 0]
        )
        expected = censored_logp(part.actions, part.behaviour_action, forkcommit.ACTION_NOISE)
        np.testing.assert_allclose(part.behaviour_logp, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("cue", "shown"), [("first", 1), ("shown", 8), ("either", 0)])
def test_several_forks_have_their_own_routes_and_the_behaviour_is_right_at_all(cue, shown):
    """Of the routes of two forks every combination is there, and as often as it should be."""
    part = forkcommit.demonstrate("x", forkcommit.Task(4, 2, cue), "train")
    assert part.num_episodes == 400
    np.testing.assert_array_equal(part.returns, 2.0)
    assert part.terminations.sum() == 400
    begins = part.observations[:, forkcommit.PROGRESS] == 0
    assert begins.sum() == 800
    arms = np.sign(part.observations[np.flatnonzero(begins) + 5, ACROSS]).reshape(400, 2)
    assert (np.abs(arms) == 1).all()
    assert abs(arms.prod(1).mean()) < 4 / np.sqrt(400)
    told = np.abs(part.observations[:, ROUTE])
    assert abs(told.sum() / 800 - shown) <= (1 if cue == "shown" else 0)
    if cue == "either":
        assert part.goal is None
    else:
        assert arms[:, 0].sum() == 0
        np.testing.assert_array_equal(part.goal[begins, 0], arms.ravel())


@pytest.mark.parametrize(
    ("member", "said"),
    [("20x1", "has 1 forks"), ("20x04", "has 04 forks"), ("20-never", "is not known")],
)
def test_forks_that_are_not_there(member, said):
    with pytest.raises(UserError, match=said):
        spec(f"forkcommit/{member}-v0")


def test_who_sees_the_route_or_needs_none_has_no_yardstick_that_steps():
    for name, context, score in (
        ("5x4-shown", 2, 100),
        ("5x4-either", 2, 100),
        ("5x4", 5, 50),
        ("5x4", 6, 100),
    ):
        found = spec(f"forkcommit/{name}-v0")
        held_out = found.generate()[1]
        assert found.yardstick(held_out, found.anchors(), context)["score"] == score


def test_the_behaviour_itself_scores_100():
    found = spec("forkcommit/30-v0")
    acted = collect("x", "train", found.make_env, found.behaviour(), 64 * 34, batch=64)
    assert found.anchors().score(acted.returns).min() == 100


@pytest.mark.parametrize(("context", "score"), [(1, 50), (5, 50), (6, 100), (400, 100)])
def test_the_yardstick_steps_at_d(made, context, score):
    held_out = made["forkcommit/5-v0"][1]
    found = spec("forkcommit/5-v0")
    known = found.yardstick(held_out, found.anchors(), context)
    assert known["score"] == score
    # By hand: the mean over both routes errs by 1 at one timestep of each episode, else not at all.
    wanted = held_out.behaviour_action[:, 0].astype(np.float64)
    blind = np.where(held_out.timestep == 5, 0.0, wanted)
    guess = blind if context <= 5 else wanted
    squares = (guess - wanted) ** 2
    assert known["action_error"] == pytest.approx(squares.mean() / wanted.var())
    early = squares[held_out.timestep < 8].mean() / wanted.var()
    assert known["action_error_early"] == pytest.approx(early)
