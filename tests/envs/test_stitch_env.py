"""The stitching maze: starts, goals, and a corridor at whose end nobody knows whence one came."""

import numpy as np
import pytest

from ablate.data.waypoints import Walker, next_cells
from ablate.envs.pointmaze import free_cells
from ablate.envs.stitch import Stitch, goals_of, start_of, stitch_map
from ablate.errors import UserError


@pytest.mark.parametrize("shared", [1, 2, 5])
def test_the_map(shared):
    cells, table = free_cells(stitch_map(shared)), next_cells(stitch_map(shared))

    def index(point):
        return int(np.flatnonzero((cells == point).all(axis=1))[0])

    corridor = []
    for start in start_of(shared).values():
        for goal in goals_of(shared):
            cell, path = index(start), []
            while cell != index(goal):
                cell = int(table[index(goal), cell])
                path.append(cell)
            assert len(path) == 2 + shared + 1 + 2
            corridor.append(set(path[1:-2]))
    # All four ways have the corridor and its ends in common.
    assert len(set.intersection(*corridor)) == shared + 2
    assert len(cells) == shared + 2 + 8


@pytest.mark.parametrize("starts", ["A", "B", "AB"])
def test_starts(starts):
    env = Stitch(200, 2, starts)
    observation = env.reset(range(200))
    centres = np.stack([start_of(2)[start] for start in starts])
    gap = np.abs(observation[:, None, :2] - centres).max(axis=-1)  # (B, starts)
    assert gap.min(axis=1).max() <= 0.1 + 1e-6
    share = np.bincount(gap.argmin(axis=1), minlength=len(starts)) / 200
    assert (share > 0.4).all()
    assert 0.05 < observation[:, 2:].std() < 0.15


def walked(shared, aims, seeds=400, starts="AB", noise=0.5):
    """Observations (B, T + 1, 4), rewards (B,), flags and info of the controller on its way to `aims`."""
    env = Stitch(seeds, shared, starts)
    observation = env.reset(range(seeds))
    ids = np.resize(aims, seeds)
    walker = Walker(stitch_map(shared), noise, lambda first, rng: (goals_of(shared)[ids], ids))
    walker.start(observation, np.random.default_rng(0))
    every, total = [observation], np.zeros(seeds)
    for _ in range(env.horizon):
        step = env.step(walker.act(observation).actions)
        observation = step[0]
        every.append(observation)
        total += step[1]
        if (step[2] | step[3]).all():
            break
    return np.stack(every, axis=1), total, step[2], step[3], step[4]


@pytest.mark.parametrize("shared", [1, 20])
def test_either_goal_ends_the_episode_and_one_is_rewarded(shared):
    _, total, terminations, truncations, info = walked(shared, [0, 1], seeds=40)
    good = np.resize([True, False], 40)
    assert terminations.all()
    assert not truncations.any()
    np.testing.assert_array_equal(total, good)
    np.testing.assert_array_equal(info["success"], good)
    np.testing.assert_array_equal(info["bad"], ~good)


def test_standing_still_is_truncated_without_reward():
    env = Stitch(2, 1)
    env.reset([0, 1])
    for t in range(env.horizon):
        _, rewards, terminations, truncations, info = env.step(np.zeros((2, 2)))
        assert not rewards.any()
        assert truncations.all() == (t == 349)
    assert not (terminations | info["success"] | info["bad"]).any()


def test_the_end_of_the_corridor_does_not_tell_the_start_but_40_steps_before_do():
    """A quadratic discriminant on position and velocity, fitted on one half, judged on the other."""
    observations, *_ = walked(1, [0, 1], seeds=800)
    origin = np.sign(observations[:, 0, 1])
    end = (observations[:, :, 0] > 0.9).argmax(axis=1)
    accuracy = []
    for before in (40, 0):
        at = observations[np.arange(800), end - before].astype(np.float64)
        features = np.concatenate([at, at**2, np.ones((800, 1))], axis=1)
        weights = np.linalg.lstsq(features[:400], origin[:400], rcond=None)[0]
        accuracy.append((np.sign(features[400:] @ weights) == origin[400:]).mean())
    assert accuracy[0] > 0.95
    assert 0.42 < accuracy[1] < 0.58  # chance, +- 3 standard errors


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: Stitch(1, 0), "the corridor has 0 cells; allowed: 1 to 20"),
        (lambda: Stitch(1, 21), "21 cells"),
        (lambda: Stitch(1, 2, "BA"), "starts 'BA' are not known; allowed: A, B, AB"),
        (lambda: Stitch(1, 2, spread=2.0), "Stitch: the spread"),
    ],
)
def test_stitch_refuses(act, message):
    with pytest.raises(UserError, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)
