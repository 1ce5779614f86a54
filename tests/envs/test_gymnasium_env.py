"""Any gymnasium environment behind the vectorised interface, against gymnasium itself."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from ablate.envs.gymnasium_env import Gymnasium
from ablate.envs.locomotion import Locomotion
from ablate.errors import UserError


class Odd(gymnasium.Env):
    """Choices of two kinds; its own truncation, success and goal; counts what it is told."""

    action_space = spaces.MultiDiscrete([2, 3], start=[0, 5])
    observation_space = spaces.Dict(
        {
            "observation": spaces.Box(-1, 1, (2, 1)),
            "achieved_goal": spaces.Discrete(3, start=4),
            "desired_goal": spaces.Tuple([spaces.MultiBinary(2), spaces.Discrete(2)]),
        }
    )

    def __init__(self, ends=3):
        self.ends = ends

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._see(), {}

    def step(self, action):
        self.time += 1
        self.told = action
        info = {"is_success": np.array([self.time == 2])}
        return self._see(), 1, False, self.time >= self.ends, info

    def _see(self):
        noise = self.np_random.uniform(size=(2, 1)).astype(np.float32)
        goal = (np.array([1, 0], dtype=np.int8), 1)
        return {"observation": noise, "achieved_goal": 4 + self.time % 3, "desired_goal": goal}


class Broken(gymnasium.Env):
    """Fails without a message, as some environments do under a newer simulator."""

    def __init__(self, problem=None):
        if problem is None:
            raise AssertionError
        self.observation_space = spaces.Box(-1, 1, (2,))
        self.action_space = {
            "unbounded": spaces.Box(-np.inf, 1, (2,)),
            "whole": spaces.Box(0, 255, (2,), np.uint8),
            "text": spaces.Text(5),
            "sequence": spaces.Discrete(2),
        }[problem]
        if problem == "sequence":
            self.observation_space = spaces.Dict({"mission": spaces.Sequence(spaces.Discrete(2))})


gymnasium.register("AblateTest/Odd-v0", entry_point=Odd)
gymnasium.register("AblateTest/Broken-v0", entry_point=Broken, max_episode_steps=5)


def by_hand(env_id, seed, actions, horizon):
    """Flattened observations, rewards and flags of gymnasium's own environment, with its TimeLimit."""
    env = gymnasium.make(env_id, max_episode_steps=horizon)
    observation, _ = env.reset(seed=seed)
    seen = [(spaces.flatten(env.observation_space, observation), 0.0, False, False)]
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        flat = spaces.flatten(env.observation_space, observation)
        seen.append((flat, reward, terminated, truncated and not terminated))
        if terminated or truncated:
            break
    return seen


@pytest.mark.filterwarnings("ignore:.*out of date.*")
@pytest.mark.parametrize(
    ("env_id", "width", "native"),
    [
        ("Hopper-v4", 11, lambda a: a),
        ("Pendulum-v1", 3, lambda a: np.float32(2) * a),  # torques in [-2, 2]
        ("PointMaze_UMaze-v3", 8, lambda a: a),  # achieved_goal, desired_goal, observation
        ("CartPole-v1", 4, lambda a: int(a.argmax())),
        ("Taxi-v4", 500, lambda a: int(a.argmax())),
    ],
)
def test_steps_are_those_of_gymnasium(env_id, width, native):
    horizon, seeds = 25, [3, 11, 4]
    env = Gymnasium(3, env_id, horizon)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (horizon + 2, 3, env.action_dim)).astype(np.float32)
    steps = [(env.reset(seeds), np.zeros(3), np.zeros(3, bool), np.zeros(3, bool))]
    for each in actions:
        steps.append(env.step(each)[:4])
    assert env.observation_dim == width
    for row, seed in enumerate(seeds):
        expected = by_hand(env_id, seed, [native(a) for a in actions[:, row]], horizon)
        for step, (observation, reward, terminated, truncated) in zip(
            steps, expected, strict=False
        ):
            np.testing.assert_array_equal(step[0][row], observation.astype(np.float32))
            assert step[1][row] == reward
            assert (step[2][row], step[3][row]) == (terminated, truncated)
        for step in steps[len(expected) :]:  # frozen
            np.testing.assert_array_equal(step[0][row], expected[-1][0].astype(np.float32))
            assert step[1][row] == 0
            assert (step[2][row], step[3][row]) == expected[-1][2:]
        assert steps[-1][2][row] or steps[-1][3][row]


def test_an_episode_depends_on_its_own_seed_only():
    rng = np.random.default_rng(1)
    actions = rng.uniform(-1, 1, (10, 3, 2)).astype(np.float32)
    seeds = [5, (1 << 62) - 1, 9]
    env = Gymnasium(3, "PointMaze_UMaze-v3", reward_type="dense")
    together = _run(env, seeds, actions)
    np.testing.assert_array_equal(_run(env, seeds, actions), together)  # whatever came before
    order = [2, 0, 1]
    swapped = _run(env, [seeds[i] for i in order], actions[:, order])
    np.testing.assert_array_equal(swapped, together[:, order])
    alone = Gymnasium(1, "PointMaze_UMaze-v3", reward_type="dense")
    np.testing.assert_array_equal(_run(alone, seeds[1:2], actions[:, 1:2]), together[:, 1:2])


def _run(env, seeds, actions):
    """(T, B, N + 1) observations and rewards."""
    env.reset(seeds)
    steps = [env.step(each)[:2] for each in actions]
    return np.stack([np.concatenate([seen, r[:, None]], axis=1) for seen, r in steps])


def test_choices_goals_success_and_truncation_of_its_own():
    env = Gymnasium(2, "AblateTest/Odd-v0", horizon=10)
    assert (env.observation_dim, env.action_dim) == (3 + 4 + 2, 5)
    first = env.reset([0, 1])
    np.testing.assert_array_equal(first[:, :7], [[1, 0, 0, 1, 0, 0, 1]] * 2)
    action = np.array([[1, -1, -1, -1, 1], [-1, 1, -1, 0.5, 0]])
    seen, *_, info = env.step(action)
    np.testing.assert_array_equal(env._envs[0].unwrapped.told, [0, 5 + 2])
    np.testing.assert_array_equal(env._envs[1].unwrapped.told, [1, 5 + 1])
    np.testing.assert_array_equal(seen[:, :3], [[0, 1, 0]] * 2)
    assert info["success"].tolist() == [False, False]
    for _ in range(2):
        *_, terminated, truncated, info = env.step(action)
    assert info["success"].all()  # reached at step 2, remembered at step 3
    assert truncated.all()
    assert not terminated.any()
    assert env.step(action)[1].tolist() == [0, 0]
    assert env.simulator_state() is None


def test_the_horizon_may_be_longer_than_the_environments_own():
    env = Gymnasium(1, "Pendulum-v1", horizon=230)  # its own limit is 200
    env.reset([0])
    flags = [env.step(np.zeros((1, 1)))[3][0] for _ in range(230)]
    assert (flags.index(True), len(flags)) == (229, 230)
    assert Gymnasium(1, "Pendulum-v1").horizon == 200
    odd = Gymnasium(1, "AblateTest/Odd-v0", horizon=2, ends=9)  # keyword arguments reach it
    odd.reset([0])
    assert [odd.step(np.zeros((1, 5)))[3][0] for _ in range(2)] == [False, True]


def test_simulator_state_and_no_log_of_the_simulators(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = Gymnasium(2, "Hopper-v4")
    own = Locomotion(2, "hopper")
    np.testing.assert_array_equal(env.reset([1, 2]), own.reset([1, 2]))
    np.testing.assert_array_equal(env.simulator_state(), own.simulator_state())
    simulator = env._envs[0].unwrapped
    simulator.set_state(simulator.init_qpos, simulator.init_qvel + 1e12)  # it will warn
    env.step(np.zeros((2, 3)))
    assert not list(tmp_path.iterdir())


REFUSED = {
    "unknown": ({"env_id": "Hoper-v4"}, "not registered .* Did you mean 'Hopper-v4'"),
    "version": ({"env_id": "Hopper-v77"}, "not registered .*`v4`"),
    "namespace": ({"env_id": "NoSuch/Pong-v5"}, "not registered .*Namespace NoSuch"),
    "package": (
        {"env_id": "no_such_package:Pong-v5"},
        "package no_such_package can't be imported .*install it",
    ),
    "dependency": ({"env_id": "tabular/Blackjack-v0", "horizon": 3}, "can't be made here: .*jax"),
    "bare": (
        {"env_id": "AblateTest/Broken-v0"},
        "can't be made here: AssertionError without a message",
    ),
    "keyword": (
        {"env_id": "Hopper-v4", "colour": "red"},
        "can't be made here: TypeError: .*colour",
    ),
    "no limit": ({"env_id": "AblateTest/Odd-v0"}, "no time limit of its own; give a horizon"),
    "limit": ({"env_id": "Hopper-v4", "horizon": 0}, "horizon of 'Hopper-v4' is 0; 1 or more"),
    "rows": ({"env_id": "CartPole-v1", "num_envs": 0}, "num_envs is 0; at least 1"),
    **{
        problem: ({"env_id": "AblateTest/Broken-v0", "problem": problem}, message)
        for problem, message in {
            "unbounded": "takes actions without bounds",
            "whole": "takes actions of Box.*; allowed: a Box of real numbers",
            "text": "takes actions of Text",
            "sequence": "observes Dict.*, which has no fixed number of numbers",
        }.items()
    },
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_line(case):
    given, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        Gymnasium(**{"num_envs": 1, **given})
    assert "\n" not in str(caught.value)
