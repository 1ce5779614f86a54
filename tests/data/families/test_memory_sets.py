"""T-Maze, Key-to-Door and POPGym data: who acted, what it earned, and what memory is worth."""

import importlib.util

import numpy as np
import pytest

from ablate.data.behaviour import UniformChoice, one_hot
from ablate.data.catalogue import fingerprint, spec
from ablate.data.collect import collect
from ablate.data.families import popgym as family
from ablate.data.families.keytodoor import KeyToDoors
from ablate.data.families.tmaze import TMazes
from ablate.data.popgym_experts import CartPoleFeedback, PendulumSwingUp
from ablate.envs.keytodoor import random_success
from ablate.envs.popgym import CARDS, DIFFICULTIES, PopGym
from ablate.envs.tmaze import DOWN, LEFT, RIGHT, UP, ActiveTMaze
from ablate.errors import UserError

needs_popgym = pytest.mark.skipif(
    importlib.util.find_spec("popgym") is None,
    reason="the optional package popgym is not installed",
)


# --- T-Maze ---


@pytest.mark.parametrize(
    ("name", "train", "held_out"),
    [
        ("tmaze/passive-10", "9b2a3b353190ea6a", "025e9efed7208a29"),
        ("tmaze/passive-20", "03f828fb4d554740", "ad21682a5efafa71"),
        ("tmaze/passive-200", "a90e20c3d8559592", "788cb942a088d7be"),
    ],
)
def test_sets_that_have_results_stay_as_they_are(name, train, held_out):
    found = spec(name)
    assert [part.content_hash for part in found.generate()] == [train, held_out]
    assert (found.anchors().low, found.anchors().high) == (0.0, 1.0)


@pytest.mark.parametrize("length", [1, 7])
def test_the_active_expert_asks_first(length):
    for part, episodes in zip(spec(f"tmaze/active-{length}").generate(), (400, 100), strict=True):
        part.validate()
        assert part.num_episodes == episodes
        assert (part.lengths == length + 3).all()
        np.testing.assert_array_equal(part.returns, 1.0)
        moves = part.actions.argmax(axis=1).reshape(episodes, -1)
        goal = part.observations[part.episode_starts[:-1] + 1, 1]
        assert goal.sum() == 0  # balanced
        assert (moves[:, 0] == LEFT).all()
        assert (moves[:, 1:-1] == RIGHT).all()
        np.testing.assert_array_equal(moves[:, -1], np.where(goal > 0, UP, DOWN))
        np.testing.assert_array_equal(part.goal[:, 0], np.repeat(goal, length + 3))
        np.testing.assert_array_equal(part.final_observations, np.stack([goal**2, goal], axis=1))
        np.testing.assert_array_equal(part.behaviour_logp, 0.0)
        np.testing.assert_array_equal(part.behaviour_action, part.actions)


@pytest.mark.parametrize("maze", ["passive", "active"])
def test_the_blind_demonstrator_takes_either_arm(maze):
    train, held_out = spec(f"tmaze/{maze}-5-blind").generate()
    expert = spec(f"tmaze/{maze}-5").generate()[0]
    for part in (train, held_out):
        part.validate()
        last = part.episode_starts[1:] - 1
        up = part.actions[last].argmax(axis=1) == UP
        goal_up = part.goal[last, 0] > 0
        assert abs(up.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(up))
        # What was said has no bearing on the arm, and all on the return.
        assert abs((up == goal_up).mean() - 0.5) < 4 * 0.5 / np.sqrt(len(up))
        np.testing.assert_array_equal(part.returns, up == goal_up)
        turning = np.zeros(len(part.rewards), dtype=bool)
        turning[last] = True
        np.testing.assert_allclose(part.behaviour_logp, np.where(turning, np.log(0.5), 0.0))
        np.testing.assert_array_equal(part.behaviour_action[~turning], part.actions[~turning])
        assert (part.behaviour_action[last] == [-1, 0, -1, 0]).all()
    before = np.setdiff1d(np.arange(len(train.rewards)), train.episode_starts[1:] - 1)
    np.testing.assert_array_equal(train.actions[before], expert.actions[before])
    np.testing.assert_array_equal(train.observations, expert.observations)


@pytest.mark.parametrize("name", ["tmaze/passive-12", "tmaze/active-12"])
def test_the_demonstrator_acts_anew(name):
    found = spec(name)
    made = collect(name, "again", found.make_env, found.behaviour(), 30 * 15)
    np.testing.assert_array_equal(made.returns, 1.0)


def test_a_demonstrator_that_was_told_nothing_guesses():
    env, behaviour = ActiveTMaze(400, 3), spec("tmaze/active-3").behaviour()
    observation = env.reset(range(400))
    behaviour.start(observation, np.random.default_rng(0))
    total = np.zeros(400)
    for _ in range(env.horizon):
        acted = behaviour.act(observation * [1.0, 0.0])  # the oracle's word is lost
        observation, rewards, *_ = env.step(acted.actions)
        total += rewards
    assert abs(total.mean() - 0.5) < 4 * 0.5 / 20
    np.testing.assert_allclose(acted.logp, np.log(0.5))


def test_long_corridors_are_known():
    names = TMazes().names()
    for kind in ("passive", "active"):
        assert {f"tmaze/{kind}-10", f"tmaze/{kind}-1500"} <= set(names)
    assert spec("tmaze/active-1500").make_env(1).horizon == 1503
    assert len({fingerprint(name) for name in names}) == len(names)


# --- Key-to-Door ---


@pytest.fixture(scope="module")
def random_moves():
    return spec("key-to-door/random-1k-v0").generate()


def test_random_moves_through_the_rooms(random_moves):
    for part, episodes in zip(random_moves, (1000, 250), strict=True):
        part.validate()
        assert part.num_episodes == episodes
        assert (part.lengths == 46).all()
        assert part.terminations.sum() == episodes
        chance = random_success()
        spread = np.sqrt(chance * (1 - chance) / episodes)
        assert abs(part.returns.mean() - chance) < 4 * spread
        assert set(np.unique(part.returns)) == {0.0, 1.0}
        np.testing.assert_allclose(part.behaviour_logp, np.log(0.25), rtol=1e-6)
        shares = part.actions.mean(axis=0) / 2 + 0.5
        np.testing.assert_allclose(shares, 0.25, atol=4 * np.sqrt(0.19 / len(part.actions)))
        assert part.behaviour_action is None
        np.testing.assert_array_equal(part.simulator_state[:, 0], part.timestep)
    assert random_moves[0].content_hash != random_moves[1].content_hash
    again = spec("key-to-door/random-1k-v0").generate()
    assert [p.content_hash for p in again] == [p.content_hash for p in random_moves]


def test_states_and_observations_belong_together(random_moves):
    part = random_moves[0]
    state, shown = part.simulator_state, part.observations
    np.testing.assert_array_equal(shown[:, 3:5], (state[:, 1:3] - 2) / 2)
    lies = shown[:, 5] == 1
    np.testing.assert_array_equal(shown[lies, 6:], (state[lies, 3:5] - state[lies, 1:3]) / 4)
    # The reward comes with the step onto the door with the key, and takes the key.
    paid = np.flatnonzero(part.rewards)
    assert (shown[paid, 2] == 1).all()
    assert (state[paid, 5] == 1).all()
    inside = paid[part.timestep[paid] < 45]
    np.testing.assert_array_equal(state[inside + 1, 1:3], state[inside, 3:5])
    assert (state[inside + 1, 5] == 0).all()


def test_the_expert_never_fails():
    found = spec("key-to-door/expert-v0")
    for part in found.generate():
        part.validate()
        np.testing.assert_array_equal(part.returns, 1.0)
        np.testing.assert_array_equal(part.behaviour_logp, 0.0)
        # It acts by what it sees: the same observation, the same action.
        seen, first = np.unique(part.observations, axis=0, return_inverse=True)
        for number in range(len(seen)):
            assert len(np.unique(part.actions[first == number], axis=0)) == 1
    assert found.anchors().score(1.0) == 100.0
    assert "3.15 %" in found.anchors().source


def test_credit_goes_further_through_a_longer_room():
    found = spec("key-to-door/empty-300/random-10k-v0")
    assert found.recipe["empty"] == 300
    assert found.recipe["train"] == 10_000
    assert found.make_env(1).horizon == 316
    assert fingerprint(found.name) != fingerprint("key-to-door/random-10k-v0")
    made = collect("x", "y", found.make_env, found.behaviour(), 3000)
    assert (made.lengths == 316).all()
    for name in KeyToDoors().names():
        assert spec(name).name == name


# --- POPGym ---


def test_popgyms_names_and_refusals_need_no_package(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "popgym" else real(name)
    )
    names = family.PopGyms().names()
    assert len(names) == 48
    assert len({fingerprint(name) for name in names}) == 48
    found = spec("popgym/position-only-pendulum-easy/expert-v0")
    for act in (found.generate, lambda: found.make_env(1)):
        with pytest.raises(UserError, match=r"needs the package popgym.*pip install"):
            act()


@needs_popgym
@pytest.mark.parametrize("difficulty", [d.lower() for d in DIFFICULTIES])
@pytest.mark.parametrize("game", ["repeat-first", "repeat-previous", "autoencode", "count-recall"])
def test_the_card_games_experts_remember_everything(game, difficulty):
    found = spec(f"popgym/{game}-{difficulty}/expert-v0")
    for privileged in (False, True):  # what is hidden follows, and is not looked at
        env, behaviour = found.make_env(6), found.behaviour()
        observation = env.reset(range(6))
        behaviour.start(env.full_observation() if privileged else observation, None)
        total = np.zeros(6)
        for _ in range(env.horizon):
            acted = behaviour.act(env.full_observation() if privileged else observation)
            observation, rewards, terminations, _, _ = env.step(acted.actions)
            total += rewards
        assert terminations.all()
        np.testing.assert_allclose(total, 1.0, atol=1e-9)
    assert found.anchors().high == 1.0


@needs_popgym
@pytest.mark.parametrize("game", ["PositionOnlyCartPole", "NoisyPositionOnlyCartPole"])
def test_the_pole_stands_to_the_end(game):
    level = 2
    env, behaviour = PopGym(20, f"{game}Hard"), family.expert(game, level)
    env.reset(range(20))
    behaviour.start(env.full_observation(), None)
    total = np.zeros(20)
    for _ in range(env.horizon):
        total += env.step(behaviour.act(env.full_observation()).actions)[1]
    np.testing.assert_allclose(total, 1.0, atol=1e-9)


@needs_popgym
def test_the_pendulum_is_swung_up():
    env, behaviour = PopGym(20, "PositionOnlyPendulumEasy"), PendulumSwingUp()
    env.reset(range(20))
    behaviour.start(env.full_observation(), None)
    total = np.zeros(20)
    for _ in range(env.horizon):
        total += env.step(behaviour.act(env.full_observation()).actions)[1]
    angle, velocity = env.simulator_state().T
    np.testing.assert_allclose(np.cos(angle), 1.0, atol=1e-3)
    np.testing.assert_allclose(velocity, 0.0, atol=1e-2)
    # 0.915 is the optimum by value iteration over a grid of 181 x 161 states.
    assert 0.87 < total.mean() < 0.93


@needs_popgym
@pytest.mark.parametrize("game", CARDS)
def test_random_answers_earn_what_chance_says(game):
    count, episodes = family.choices(game, 0), 300
    env = PopGym(episodes, f"{game}Easy")
    assert env.action_dim == count
    env.reset(range(episodes))
    behaviour = UniformChoice(count)
    behaviour.start(np.zeros((episodes, 1)), np.random.default_rng(0))
    total = np.zeros(episodes)
    for _ in range(env.horizon):
        total += env.step(behaviour.act(np.zeros((episodes, 1))).actions)[1]
    low = family.anchors(game, 0).low
    assert abs(total.mean() - low) < 4 * total.std() / np.sqrt(episodes)


@needs_popgym
@pytest.mark.parametrize(
    ("game", "answers", "best"),
    [
        # The suit that is shown; any other suit; the suit that is shown (0 after the first).
        ("RepeatFirst", lambda seen: seen.argmax(1), -1 / 2 + 3 / (2 * 51**2)),
        ("RepeatPrevious", lambda seen: (seen.argmax(1) + 1) % 4, -1 / 2 + 1 / (2 * 51)),
        ("Autoencode", lambda seen: seen[:, 2:].argmax(1), -1 / 2 + 3 / (2 * 52)),
    ],
)
def test_the_best_without_memory_is_next_to_chance(game, answers, best):
    episodes = 600
    env = PopGym(episodes, f"{game}Easy")
    observation, total = env.reset(range(episodes)), np.zeros(episodes)
    for _ in range(env.horizon):
        observation, rewards, *_ = env.step(one_hot(answers(observation), 4))
        total += rewards
    assert abs(total.mean() - best) < 4 * total.std() / np.sqrt(episodes)


@needs_popgym
@pytest.mark.parametrize(
    ("name", "privileged"),
    [
        ("popgym/repeat-previous-easy/expert-v0", False),
        ("popgym/count-recall-easy/random-v0", False),
        ("popgym/noisy-position-only-pendulum-easy/expert-v0", True),
        ("popgym/position-only-pendulum-hard/random-v0", False),
        ("popgym/position-only-cartpole-easy/random-v0", False),
    ],
)
def test_popgym_sets(name, privileged, monkeypatch):
    monkeypatch.setattr(family, "STEPS", {"train": 700, "held_out": 300})
    found = spec(name)
    train, held_out = found.generate()
    for part, steps in ((train, 700), (held_out, 300)):
        part.validate()
        assert steps - found.make_env(1).horizon < len(part.rewards) <= steps
        assert part.final_observations is not None
        assert (part.behaviour_id == 0).all()
        assert (part.simulator_state is not None) == ("position-only" in name)
        assert np.abs(part.returns).max() <= 1 + 1e-6
    again = collect(name, "train", found.make_env, found.behaviour(), 700, privileged=privileged)
    assert again.content_hash == train.content_hash
    if "random" in name:
        wide = found.make_env(1).action_dim
        expected = -np.log(2.0) if "pendulum" in name else -np.log(wide)
        np.testing.assert_allclose(train.behaviour_logp, expected, rtol=1e-6)
    else:
        assert (train.behaviour_logp is None) == privileged  # of a torque without noise: no density


@pytest.mark.parametrize("expert", [CartPoleFeedback(), PendulumSwingUp()])
def test_controllers_need_what_is_hidden(expert):
    with pytest.raises(UserError, match=r"shown 2 numbers; .* are needed") as caught:
        expert.start(np.zeros((3, 2), dtype=np.float32), np.random.default_rng(0))
    assert "\n" not in str(caught.value)


# --- refusals ---


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tmaze/active-0", "corridor length 0; allowed: 1 to 10000"),
        ("tmaze/active-10001", "corridor length 10001; allowed: 1 to 10000"),
        ("tmaze/active-07-blind", "corridor length 07; allowed"),
        ("tmaze/activ-20", "Did you mean 'tmaze/active-20'"),
        ("tmaze/passive-20-blnd", "Did you mean 'tmaze/passive-20-blind'"),
        ("key-to-door/random-1k", "Did you mean 'key-to-door/random-1k-v0'"),
        ("key-to-door/random-2k-v0", "Did you mean 'key-to-door/random-1k-v0'"),
        ("key-to-door/empty-10001/expert-v0", "empty room of 10001 steps; allowed: 0 to 10000"),
        ("key-to-door/empty-030/expert-v0", "empty room of 030 steps; allowed"),
        ("key-to-door/empty-²/expert-v0", "Did you mean 'key-to-door/expert-v0'"),
        ("popgym/repeat-first-easy", "is not known"),
        ("popgym/repeat-first-easy/expert", "Did you mean 'popgym/repeat-first-easy/expert-v0'"),
        ("popgym/repeat-frist-easy/expert-v0", "Did you mean 'popgym/repeat-first-easy/expert-v0'"),
        ("popgym/", "is not known"),
    ],
)
def test_refusals(name, message):
    with pytest.raises(UserError, match=message) as caught:
        spec(name)
    assert "\n" not in str(caught.value)
