"""The ball in any map: its motors' strength, its state, and rows that don't know of each other."""

import copy

import mujoco
import numpy as np
import pytest

from ablate.envs.forkcommit import ForkCommit
from ablate.envs.fourrooms import FourRooms
from ablate.envs.pointmaze import MAZES, Ball, PointMaze, _model, free_cells
from ablate.envs.stitch import Stitch
from ablate.errors import UserError

MAKERS = {
    "four rooms": FourRooms,
    "stitch": lambda n: Stitch(n, 1, "AB"),
    "fork-commit": lambda n: ForkCommit(n, 4),
    "hidden strength": lambda n: PointMaze(n, "medium", 0.5),
    "four rooms, hidden strength": lambda n: FourRooms(n, spread=0.5),
}


def test_strength_is_the_gear_of_mujocos_motors():
    strength = np.array([0.5, 1.0, 1.7])
    ball, rng = Ball("umaze"), np.random.default_rng(0)
    position = np.tile(free_cells("umaze")[0], (3, 1))
    velocity = np.zeros((3, 2))
    judges = []
    for each in strength:
        model = copy.copy(_model("umaze"))
        model.actuator_gear[:] *= each
        data = mujoco.MjData(model)
        data.qpos[:] = position[0]
        judges.append((model, data))
    contacts = 0
    for t in range(400):
        if t % 25 == 0:
            action = rng.uniform(-1, 1, size=(3, 2))
        position, velocity = ball.step(position, velocity, action, strength)
        for row, (model, data) in enumerate(judges):
            data.qvel[:] = np.clip(data.qvel, -5, 5)
            data.ctrl[:] = action[row]
            mujoco.mj_step(model, data)
            contacts += data.ncon > 1
            np.testing.assert_allclose(position[row], data.qpos, atol=1e-6)
            np.testing.assert_allclose(velocity[row], data.qvel, atol=1e-6)
    assert contacts > 30
    assert _model("umaze").actuator_ctrllimited.all()  # the plain model is left as it was


def test_a_strength_of_1_is_the_plain_ball():
    rng, ball = np.random.default_rng(0), Ball("open")
    position, velocity = rng.uniform(-1.5, 1.5, (50, 2)), rng.uniform(-6, 6, (50, 2))
    action = rng.uniform(-2, 2, (50, 2))
    plain = ball.step(position, velocity, action)
    strong = ball.step(position, velocity, action, np.ones(50))
    np.testing.assert_array_equal(plain, strong)


def test_a_map_is_a_name_or_its_own_text():
    np.testing.assert_array_equal(free_cells("large"), free_cells(MAZES["large"]))
    np.testing.assert_array_equal(free_cells("### #O# ###"), [[0.0, 0.0]])


def test_the_state_of_the_simulator_is_position_and_velocity():
    env = PointMaze(3)
    observation = env.reset([0, 1, 2])
    np.testing.assert_allclose(env.simulator_state(), observation[:, :4], atol=1e-6)
    after = env.step(np.full((3, 2), 0.5))[0]
    np.testing.assert_allclose(env.simulator_state(), after[:, :4], atol=1e-6)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_row_of_a_maze_depends_on_its_own_seed_only(kind):
    seeds = [11, 3, 3, 10_000_000_019]
    env = MAKERS[kind](len(seeds))
    actions = np.random.default_rng(0).uniform(-1, 1, (40, len(seeds), env.action_dim))
    actions[:, 2] = actions[:, 1]

    def run(env, seeds, actions):
        out = [[env.reset(seeds), env.simulator_state()]]
        for action in actions:
            *step, info = env.step(action)
            out.append([*step, *info.values(), env.simulator_state()])
        return out

    together = run(env, seeds, actions)
    again = run(env, seeds, actions)
    for b in range(len(seeds)):
        alone = run(MAKERS[kind](1), [seeds[b]], actions[:, [b]])
        for one, two, three in zip(alone, together, again, strict=True):
            # A done row's simulator may go on unseen; what is shown is frozen.
            for x, y, z in zip(one[:-1], two[:-1], three[:-1], strict=True):
                np.testing.assert_array_equal(x[0], y[b])
                np.testing.assert_array_equal(z[b], y[b])
        np.testing.assert_array_equal(alone[0][-1][0], together[0][-1][b])


@pytest.mark.parametrize("spread", [1.0, -0.1, float("inf")])
def test_a_spread_out_of_range_is_refused(spread):
    with pytest.raises(
        UserError, match=f"PointMaze: the spread .* is {spread}; at least 0 and less"
    ):
        PointMaze(1, "umaze", spread)
