"""Key-to-Door: the rules of its rooms, what it hides, and exact chances of random moves."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.data.families.keytodoor import KeyToDoorExpert
from ablate.envs.keytodoor import CELLS, PAIRS, KeyToDoor, pair, place, random_success
from ablate.errors import UserError

MOVES = [(1, 0), (0, 1), (-1, 0), (0, -1)]  # right, up, left, down


def one_hot(moves):
    return np.where(np.arange(4) == np.asarray(moves)[:, None], 1.0, -1.0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**40), st.integers(0, 4), st.data())
def test_an_episode_follows_the_rules(seed, empty, data):
    """One episode against the rules in words; where things lie is read from the simulator's state."""
    env = KeyToDoor(1, empty)
    assert env.horizon == 16 + empty
    moves = data.draw(st.lists(st.integers(0, 3), min_size=env.horizon, max_size=env.horizon))
    observation = env.reset([seed])[0]
    x, y, key_x, key_y = env.simulator_state()[0, 1:5].astype(int)
    assert (x, y) != (key_x, key_y)
    thing, key, opened = (key_x, key_y), False, False
    for t, move in enumerate(moves):
        room = 0 if t < 8 else 1 if t < 8 + empty else 2
        if t in (8, 8 + empty):  # placed anew
            _, x, y, *thing, _ = env.simulator_state()[0].astype(int)
            thing = tuple(thing)
            assert room == 1 or thing != (x, y)
        lies = (room == 0 and not key) or room == 2
        way = [(thing[0] - x) / 4, (thing[1] - y) / 4] if lies else [0, 0]
        expected = [room == 0, room == 1, room == 2, (x - 2) / 2, (y - 2) / 2, lies, *way]
        np.testing.assert_array_equal(observation, np.array(expected, dtype=np.float32))
        assert env.full_observation()[0, 8] == (key and not opened)
        (observation,), reward, done, truncated, info = env.step(one_hot([move]))
        dx, dy = MOVES[move]
        x, y = min(max(x + dx, 0), 4), min(max(y + dy, 0), 4)
        key |= room == 0 and (x, y) == thing
        earned = room == 2 and (x, y) == thing and key and not opened
        opened |= earned
        assert (reward[0], info["key"][0], info["success"][0]) == (earned, key, opened)
        assert done[0] == (t == env.horizon - 1)
        assert not truncated[0]
    np.testing.assert_array_equal(observation[3:5], [(x - 2) / 2, (y - 2) / 2])


def test_the_expert_is_perfect_from_everywhere():
    first, second = pair(np.arange(PAIRS))
    assert len({*zip(first.tolist(), second.tolist(), strict=True)}) == PAIRS
    assert (first != second).all()
    env, expert = KeyToDoor(PAIRS, 0), KeyToDoorExpert()
    observation = env.reset(range(PAIRS))
    # Every pair of cells in the first room, and in another order in the last.
    for room, order in ((0, np.arange(PAIRS)), (2, np.arange(PAIRS)[::-1])):
        env._starts[:, room], env._objects[:, room] = place(first[order]), place(second[order])
    env._place = env._starts[:, 0].copy()
    observation = env._observe(0).astype(np.float32)
    distance = np.abs(env._objects[:, 0] - env._starts[:, 0]).sum(axis=1)
    expert.start(observation, np.random.default_rng(0))
    total = np.zeros(PAIRS)
    for t in range(env.horizon):
        observation, rewards, _, _, info = env.step(expert.act(observation).actions)
        total += rewards
        if t < 8:
            np.testing.assert_array_equal(info["key"], distance <= t + 1)
    np.testing.assert_array_equal(total, 1.0)


def exact_chance():
    """Probability that 8 random moves reach a random other cell, by counting in whole numbers."""
    cells = list(itertools.product(range(5), repeat=2))
    found = Fraction(0)
    for goal in cells:
        walks = {cell: int(cell != goal) for cell in cells}  # walks that haven't been there
        for _ in range(8):
            step = dict.fromkeys(cells, 0)
            for (x, y), count in walks.items():
                for dx, dy in MOVES:
                    step[min(max(x + dx, 0), 4), min(max(y + dy, 0), 4)] += count
            step[goal] = 0
            walks = step
        found += Fraction(4**8 * 24 - sum(walks.values()), 4**8 * 24)
    return found / 25


def test_random_moves_succeed_as_often_as_the_markov_chain_says():
    room = float(exact_chance())
    assert random_success() == pytest.approx(room**2, rel=1e-12)
    assert 0.031 < random_success() < 0.032  # published: 3.1 %
    episodes = 20_000
    env, rng = KeyToDoor(episodes), np.random.default_rng(1)
    env.reset(range(episodes))
    at_door = np.zeros(episodes, dtype=bool)
    for _ in range(env.horizon):
        observation, *_, info = env.step(one_hot(rng.integers(4, size=episodes)))
        at_door |= (observation[:, 2] == 1) & (observation[:, 6:] == 0).all(axis=1)
    for found, chance in ((info["success"], room**2), (info["key"], room), (at_door, room)):
        spread = np.sqrt(chance * (1 - chance) / episodes)
        assert abs(found.mean() - chance) < 4 * spread
    # At the door nothing but the past tells whether it opens.
    held = info["key"][at_door].mean()
    assert abs(held - room) < 4 * np.sqrt(room * (1 - room) / at_door.sum())
    np.testing.assert_array_equal(info["success"], at_door & info["key"])


def test_the_key_is_hidden_once_it_is_in_the_pocket():
    """The same moves in the later rooms look the same with and without the key, but for the reward."""
    seeds = list(range(300))
    with_key, without = KeyToDoor(300, 5), KeyToDoor(300, 5)
    expert = KeyToDoorExpert()
    observation = with_key.reset(seeds)
    without.reset(seeds)
    key_room = without.simulator_state()
    totals = np.zeros((2, 300))
    for t in range(with_key.horizon):
        actions = expert.act(observation).actions
        away = one_hot(np.where(key_room[:, 3] > key_room[:, 1], 2, 0))  # left or right
        other, reward, _, _, info = without.step(away if t < 8 else actions)
        observation, rewards, *_ = with_key.step(actions)
        totals += [rewards, reward]
        if t >= 7:
            np.testing.assert_array_equal(observation, other)
    missed = ~info["key"]
    assert missed.mean() > 0.7  # the others had it on their way
    np.testing.assert_array_equal(totals[0], 1.0)
    np.testing.assert_array_equal(totals[1], np.where(missed, 0.0, 1.0))


def test_placements_are_uniform():
    env = KeyToDoor(20_000, 1)
    env.reset(range(20_000))
    cells = env._starts @ [1, 5], env._objects @ [1, 5]
    assert (cells[0][:, [0, 2]] != cells[1][:, [0, 2]]).all()
    for column in (*cells[0].T, cells[1][:, 0], cells[1][:, 2]):
        counts = np.bincount(column, minlength=CELLS)
        expected = 20_000 / CELLS
        assert ((counts - expected) ** 2 / expected).sum() < 60  # chi squared, 24 degrees: p 6e-5


def test_an_empty_room_has_no_negative_length():
    with pytest.raises(UserError, match="the empty room lasts -1 steps; 0 or more are needed"):
        KeyToDoor(1, -1)
