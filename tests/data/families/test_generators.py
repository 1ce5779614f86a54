"""What the generated data sets are made of."""

import hashlib

import numpy as np
import pytest

from ablate import words
from ablate.data import waypoints
from ablate.data.behaviour import censored_logp
from ablate.data.catalogue import spec
from ablate.data.exact import EXPLORATION, controller_actions
from ablate.data.families import pointmaze
from ablate.envs.lq import ACTION_SCALE, A, B, reward
from ablate.envs.pointmaze import MAZES, PointMaze, free_cells
from ablate.errors import UserError


@pytest.fixture(scope="module")
def parts():
    names = ["lq-mix/episode", "lq-mix/step", "lq-mix/single", "tmaze/passive-7"]
    return {name: spec(name).generate() for name in names}


@pytest.fixture(scope="module")
def maze():
    return pointmaze.walk("pointmaze/umaze-v1", "umaze", "held_out")


@pytest.mark.parametrize("name", ["lq-mix/episode", "lq-mix/step", "lq-mix/single"])
def test_linear_mixtures(parts, name):
    train, held_out = parts[name]
    assert (train.num_episodes, held_out.num_episodes) == (300, 100)
    assert (train.lengths == 100).all()
    assert train.truncations.sum() == 300
    assert not train.terminations.any()
    acting = train.behaviour_id.reshape(300, 100)
    constant = (acting == acting[:, :1]).all(axis=1)
    assert constant.all() == (name != "lq-mix/step")
    if name == "lq-mix/single":
        assert (acting == 0).all()
    else:
        assert 0.4 < acting.mean() < 0.6
    means = controller_actions(train.observations)[np.arange(30_000), train.behaviour_id]
    np.testing.assert_allclose(train.behaviour_action, means, atol=1e-6)
    assert (np.abs(train.actions) >= 1).mean() < 0.001
    std = EXPLORATION / ACTION_SCALE
    assert (train.actions - train.behaviour_action).std() == pytest.approx(std, rel=0.02)
    expected = censored_logp(train.actions, train.behaviour_action, std)
    np.testing.assert_allclose(train.behaviour_logp, expected, rtol=1e-5)
    assert train.content_hash != held_out.content_hash


@pytest.mark.parametrize("name", ["lq-mix/episode", "tmaze/passive-7"])
def test_replaying_the_actions_gives_the_rewards(parts, name):
    """The rewards and observations belong to the actions of the same row."""
    train = parts[name][0]
    if name.startswith("lq"):
        force = ACTION_SCALE * train.actions.astype(np.float64)
        found = reward(train.observations.astype(np.float64), force)
        np.testing.assert_allclose(train.rewards, found, rtol=1e-4, atol=1e-5)
        inside = train.timestep[1:] > 0
        after = train.observations[:-1] @ A.T + force[:-1] @ B.T
        assert np.abs((train.observations[1:] - after)[inside]).max() < 6 * 0.05
    else:
        np.testing.assert_array_equal(train.returns, 1.0)


def test_expert_of_the_t_maze(parts):
    for part, episodes in zip(parts["tmaze/passive-7"], (400, 100), strict=True):
        assert part.num_episodes == episodes
        assert (part.lengths == 8).all()
        goal = part.observations[part.episode_starts[:-1], 1]
        assert goal.sum() == 0
        np.testing.assert_array_equal(part.goal[:, 0], np.repeat(goal, 8))
        assert part.terminations.sum() == episodes
        assert not part.truncations.any()
        moves = part.actions.argmax(axis=1).reshape(-1, 8)
        assert (moves[:, :-1] == 0).all()
        np.testing.assert_array_equal(moves[:, -1], np.where(goal > 0, 1, 3))
        assert set(np.unique(part.actions)) == {-1.0, 1.0}
        assert (part.actions.sum(axis=1) == -2).all()


def test_maze_walks(maze):
    assert 13_000 < len(maze.rewards) <= 15_000
    last = maze.episode_starts[1:] - 1
    assert maze.truncations[last].all()
    assert not maze.terminations.any()
    assert maze.lengths.max() <= 200
    np.testing.assert_array_equal(maze.goal, maze.observations[:, 4:])
    np.testing.assert_array_equal(maze.simulator_state, maze.observations[:, :4])
    for e in range(maze.num_episodes):
        goals = maze.goal[maze.episode_starts[e] : maze.episode_starts[e + 1]]
        assert (goals == goals[0]).all()
    # Never reset: the next segment starts where the last one ended (walkers apart).
    gap = np.linalg.norm(
        maze.observations[last[:-1] + 1, :2] - maze.observations[last[:-1], :2], axis=1
    )
    assert (gap > 0.1).sum() <= pointmaze.WALKERS["held_out"] - 1
    arrived = np.linalg.norm(maze.observations[last, :2] - maze.goal[last], axis=1) < 0.16
    assert (arrived | (maze.lengths == 200)).all()
    assert arrived.mean() > 0.8
    noise = (maze.actions - maze.behaviour_action)[np.abs(maze.behaviour_action) < 0.02]
    assert 0.4 < noise.std() < 0.5  # N(0, 0.5) clipped at two standard deviations
    expected = censored_logp(maze.actions, maze.behaviour_action, 0.5)
    np.testing.assert_allclose(maze.behaviour_logp, expected, rtol=1e-4, atol=1e-5)


def test_maze_rewards_and_dynamics_are_the_environments(maze):
    env = PointMaze(1)
    env.reset([0])
    for row in (0, 500, 4000):
        state = maze.simulator_state[row].astype(np.float64)
        env._position, env._velocity = state[None, :2], state[None, 2:]
        env._goal = maze.goal[[row]].astype(np.float64)
        for t in range(row, row + 5):
            if maze.truncations[t]:
                break
            observation, reward, *_ = env.step(maze.actions[[t]])
            np.testing.assert_allclose(observation[0], maze.observations[t + 1], atol=1e-4)
            assert reward[0] == maze.rewards[t]


@pytest.mark.parametrize("name", list(MAZES))
def test_paths_are_shortest_and_stay_in_free_cells(name):
    cells, table = free_cells(name), waypoints.next_cells(name)
    count = len(cells)
    gap = np.abs(cells[:, None] - cells[None]).sum(axis=-1)
    # Floyd-Warshall as an independent judge of the lengths.
    distance = np.where(gap == 1, 1.0, np.inf)
    np.fill_diagonal(distance, 0)
    for k in range(count):
        distance = np.minimum(distance, distance[:, [k]] + distance[[k]])
    for target in range(count):
        for cell in range(count):
            after = table[target, cell]
            if cell == target:
                assert after == target
            else:
                assert gap[cell, after] == 1
                assert distance[after, target] == distance[cell, target] - 1


def test_the_controller_arrives_and_random_actions_do_not():
    seeds = list(range(60))
    far, near = (
        pointmaze.controller_returns("umaze", seeds),
        pointmaze.random_returns("umaze", seeds),
    )
    assert (far > 0).mean() > 0.85
    assert far.mean() > 110 > 25 > near.mean()
    anchors = pointmaze.anchors("umaze")
    assert (anchors.low, anchors.high) == pytest.approx((9.47, 134.59), abs=0.01)


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def test_generation_is_deterministic(parts, maze):
    for name, (train, held_out) in parts.items():
        again = spec(name).generate()
        assert [p.content_hash for p in again] == [train.content_hash, held_out.content_hash]
    assert digest(pointmaze.walk("pointmaze/umaze-v1", "umaze", "held_out").actions) == digest(
        maze.actions
    )


def test_the_name_says_how_many_episodes_of_how_many_controllers():
    found = spec("lq-mix/episode-40-of-5")
    train, held_out = found.generate()
    assert (train.num_episodes, held_out.num_episodes) == (40, 100)
    assert set(held_out.behaviour_id) == set(range(5))
    assert found.num_policies == 5
    assert words.data(found.name) == "LQ, 5 policies mixed by episode, 40 episodes"
    assert spec("lq-mix/step-40").num_policies == 2
    for name in ("single-of-3", "episode-of-1", "step-of-65", "episode-100001", "step-of-0"):
        with pytest.raises(UserError, match=r"allowed|did you mean|known"):
            spec(f"lq-mix/{name}")
