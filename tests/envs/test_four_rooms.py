"""Four rooms: where episodes start and end, what is rewarded, and that opposite pairs are mirror images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.data.families.fourrooms import HELD_OUT, MIRRORED
from ablate.data.waypoints import Walker, next_cells
from ablate.envs.fourrooms import (
    ALL_PAIRS,
    HORIZON,
    MAP,
    NORTH_EAST,
    NORTH_WEST,
    SOUTH_EAST,
    SOUTH_WEST,
    FourRooms,
    room_of,
    start_and_goal_room,
)
from ablate.envs.pointmaze import free_cells
from ablate.errors import UserError


def test_rooms_are_where_their_names_say():
    corners = np.array([[-3, 3], [3, 3], [3, -3], [-3, -3]])
    np.testing.assert_array_equal(
        room_of(corners), [NORTH_WEST, NORTH_EAST, SOUTH_EAST, SOUTH_WEST]
    )
    cells = free_cells(MAP)
    room = room_of(cells)
    assert [int((room == r).sum()) for r in (-1, 0, 1, 2, 3)] == [4, 9, 9, 9, 9]
    doors = cells[room == -1]
    np.testing.assert_array_equal(np.abs(doors).sum(axis=1), 2.0)


def test_opposite_rooms_are_two_doors_apart():
    """Along the shortest paths; no path between neighbours leaves the two rooms."""
    cells, table = free_cells(MAP), next_cells(MAP)
    room = room_of(cells)
    for start in np.flatnonzero(room >= 0):
        for goal in np.flatnonzero(room >= 0):
            seen, cell = [room[start]], start
            while cell != goal:
                cell = table[goal, cell]
                seen.append(room[cell])
            doors = sum(r == -1 for r in seen)
            apart = (room[goal] - room[start]) % 4
            assert doors == {0: 0, 1: 1, 2: 2, 3: 1}[apart]
            if apart % 2:
                assert set(seen) == {room[start], room[goal], -1}


def test_what_is_held_out_is_the_mirror_image_of_what_is_seen():
    """Left and right exchanged, paths and all."""
    mirror = {NORTH_WEST: NORTH_EAST, NORTH_EAST: NORTH_WEST, SOUTH_EAST: SOUTH_WEST}
    mirror[SOUTH_WEST] = SOUTH_EAST
    assert {(mirror[a], mirror[b]) for a, b in HELD_OUT} == set(MIRRORED)
    cells, table = free_cells(MAP), next_cells(MAP)
    flipped = [int(np.flatnonzero((cells == [-x, y]).all(axis=1))[0]) for x, y in cells]
    for start_room, goal_room in HELD_OUT:
        for goal in np.flatnonzero(room_of(cells) == goal_room):
            for cell in np.flatnonzero(room_of(cells) == start_room):
                while cell != goal:
                    after = table[goal, cell]
                    assert flipped[after] == table[flipped[goal], flipped[cell]]
                    cell = after


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(ALL_PAIRS), min_size=1, max_size=5, unique=True),
    st.integers(0, 10**12),
)
def test_starts_and_goals_lie_in_the_rooms_asked_for(pairs, first):
    env = FourRooms(40, pairs)
    observation = env.reset(range(first, first + 40)).astype(np.float64)
    start, goal = start_and_goal_room(observation)
    assert set(zip(start.tolist(), goal.tolist(), strict=True)) <= set(pairs)
    gap = np.linalg.norm(observation[:, :2] - observation[:, 4:], axis=1)
    assert gap.min() > 0.75  # different cells
    for points in (observation[:, :2], observation[:, 4:]):
        near = np.abs(points[:, None] - env.cells).max(axis=-1).min(axis=1)
        assert near.max() <= 0.1 + 1e-6


def test_every_pair_is_drawn_and_equally_often():
    start, goal = start_and_goal_room(FourRooms(3200).reset(range(3200)))
    counts = np.bincount(4 * start + goal, minlength=16)
    assert counts.sum() == 3200
    assert (
        np.square(counts - 200).sum() / 200 < 37.7
    )  # chi-squared, 15 degrees of freedom, p = 0.001


def test_reaching_the_goal_ends_the_episode_with_reward_1():
    env, walker = FourRooms(100), Walker(MAP, 0.5)
    observation = env.reset(range(100))
    walker.start(observation, np.random.default_rng(0))
    total = np.zeros(100)
    for _ in range(HORIZON):
        before = env.simulator_state()
        observation, rewards, terminations, truncations, info = env.step(
            walker.act(observation).actions
        )
        gap = np.linalg.norm(observation[:, :2] - observation[:, 4:], axis=1)
        np.testing.assert_allclose(info["distance"], gap, atol=1e-5)
        np.testing.assert_array_equal(info["success"], terminations)
        np.testing.assert_array_equal(rewards > 0, terminations & (total == 0))
        total += rewards
        if terminations.all():
            break
    assert before.shape == (100, 4)
    assert not truncations.any()
    np.testing.assert_array_equal(total, 1.0)


def test_random_actions_hardly_ever_cross_to_the_opposite_room():
    env, rng = FourRooms(100, (*HELD_OUT, *MIRRORED)), np.random.default_rng(0)
    env.reset(range(100))
    for _ in range(HORIZON):
        *_, truncations, info = env.step(rng.uniform(-1, 1, (100, 2)))
    assert info["success"].mean() < 0.03
    assert truncations[~info["success"]].all()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: FourRooms(1, ()), "at least one is needed"),
        (lambda: FourRooms(1, ((0, 4),)), r"\(0, 4\) is no pair of rooms; each is a number from 0"),
        (lambda: FourRooms(1, spread=1.0), "spread of the motors' strength is 1.0"),
        (lambda: FourRooms(1, spread=-0.1), "at least 0 and less than 1"),
        (lambda: FourRooms(1, spread=float("nan")), "spread of the motors' strength is nan"),
        (lambda: FourRooms(0), "num_envs is 0"),
    ],
)
def test_four_rooms_refuses(act, message):
    with pytest.raises(UserError, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)
