"""A state that can be set: what follows is the same to the last bit, in every environment there is."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ablate.data import catalogue
from ablate.envs.adroit import Adroit
from ablate.envs.antmaze import AntMaze
from ablate.envs.base import MaskedEnv, State, VectorEnv
from ablate.envs.gymnasium_env import Gymnasium
from ablate.envs.hidden import DelayedEnv, DroppedEnv, NoisyEnv
from ablate.envs.locomotion import D4RLAnt, Locomotion
from ablate.envs.lq import LinearQuadratic
from ablate.envs.maze2d import Maze2D
from ablate.envs.pointmaze import PointMaze
from ablate.envs.tmaze import PassiveTMaze
from ablate.errors import UserError

STD = np.array([0.1, 0.2, 0.0, 0.4])
# What no known data set is evaluated in, or only where its files are.
FURTHER: dict[str, Callable[[int], VectorEnv]] = {
    "hidden friction": lambda n: LinearQuadratic(n, 0.5),
    "hidden strength": lambda n: PointMaze(n, "umaze", 0.4),
    "hidden mass": lambda n: Locomotion(n, "hopper", 0.4),
    "ant": lambda n: D4RLAnt(n),
    "cheetah": lambda n: Locomotion(n, "halfcheetah"),
    "maze2d": lambda n: Maze2D(n, "umaze", 300, dense=True),
    "antmaze": lambda n: AntMaze(n, "umaze", 700),
    "door": lambda n: Adroit(n, "door", 200),
    "pen": lambda n: Adroit(n, "pen", 100),
    "cart": lambda n: Gymnasium(n, "CartPole-v1"),
    "lake": lambda n: Gymnasium(n, "FrozenLake-v1"),  # draws at each step
    "robotics": lambda n: Gymnasium(n, "PointMaze_UMaze-v3", 30),
    "noise": lambda n: NoisyEnv(LinearQuadratic(n), STD),
    "drop": lambda n: DroppedEnv(LinearQuadratic(n), 0.4),
    "delay": lambda n: DelayedEnv(LinearQuadratic(n), 3),
    "all": lambda n: MaskedEnv(
        DroppedEnv(NoisyEnv(DelayedEnv(LinearQuadratic(n), 1), STD), 0.3), [3, 0]
    ),
}


def registered() -> dict[str, Callable[[int], VectorEnv]]:
    """One environment of each kind and size that known data sets are evaluated in, where it is installed."""
    found: dict[tuple[Any, ...], tuple[str, Callable[[int], VectorEnv]]] = {}
    for name in catalogue.known_names():
        if name.startswith("d4rl/"):  # those of FURTHER
            continue
        make = catalogue.spec(name).make_env
        try:
            env = make(1)
        except UserError:  # a package or a file is missing
            continue
        kind = (type(env), env.observation_dim, env.action_dim, name.partition("/")[0])
        found.setdefault(kind, (name, make))
    return dict(found.values())


MAKERS = {**registered(), **FURTHER}


def happens(env: VectorEnv, actions: np.ndarray) -> list[np.ndarray]:
    """All that follows from actions (T, B, M): by kind, (T, B, ...)."""
    steps = [env.step(each) for each in actions]
    told = [np.stack([step[4][key] for step in steps]) for key in steps[-1][4]]
    return [*(np.stack([step[i] for step in steps]) for i in range(4)), *told]


def draws(env: VectorEnv, steps: int, rows: int) -> np.ndarray:
    return np.random.default_rng(steps).uniform(-1, 1, (steps, rows, env.action_dim))


def same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.filterwarnings("ignore:.*out of date.*")
@pytest.mark.parametrize("name", MAKERS)
def test_from_a_state_everything_goes_on_as_it_did(name: str) -> None:
    rows, env = 3, MAKERS[name](3)
    first = env.reset([5, 6, 9])
    begin = env.state()
    before = draws(env, 5, rows)
    happens(env, before)
    seen, simulated = env.full_observation(), env.simulator_state()
    middle = env.state()
    after = draws(env, min(70, env.horizon), rows)
    after[:, 2] = after[:, 1]  # places 1 and 2 differ in their states only
    expected = happens(env, after)

    env.set_state(middle)
    np.testing.assert_array_equal(env.full_observation(), seen)
    if simulated is not None:
        np.testing.assert_array_equal(env.simulator_state(), simulated)
    same(happens(env, after), expected)

    # An environment that was never reset, and places other than those the states are from.
    other = MAKERS[name](4)
    other.set_state(middle.take([2, 0, 2, 1]))
    same(happens(other, after[:, [2, 0, 2, 1]]), [each[:, [2, 0, 2, 1]] for each in expected])

    # One place alone, while the others, in other episodes and at other timesteps, go on.
    env.reset([1, 2, 3])
    lone = happens(env, after)
    env.reset([1, 2, 3])
    shown = env.set_state(middle.take([1]), [2])
    assert shown.dtype == np.float32
    both = happens(env, after)
    same([each[:, :2] for each in both[:4]], [each[:, :2] for each in lone[:4]])
    same([each[:, 2] for each in both[:4]], [each[:, 1] for each in expected[:4]])

    np.testing.assert_array_equal(env.set_state(begin), first)
    happens(env, before)
    same(happens(env, after), expected)


def test_a_state_is_a_copy_that_nothing_changes() -> None:
    env = Gymnasium(2, "CartPole-v1")
    env.reset([0, 1])
    state, actions = env.state(), draws(env, 8, 2)
    expected = happens(env, actions)
    for _ in range(2):
        env.set_state(state)
        same(happens(env, actions), expected)


def test_several_ends_of_one_beginning_share_its_noise() -> None:
    env = LinearQuadratic(5)
    env.reset(range(5))
    happens(env, draws(env, 10, 5))
    env.set_state(env.state().take([4] * 5))
    actions = draws(env, 1, 5)[0]
    after, rewards, *_ = env.step(actions)
    # x' = A x + B u + w: what differs is B u alone
    np.testing.assert_allclose(
        (after - after[0])[:, 2:], 0.1 * 5.0 * (actions - actions[0]), atol=1e-6
    )
    np.testing.assert_allclose((after - after[0])[:, :2], 0.0, atol=1e-6)
    assert len(np.unique(rewards)) == 5


class Nameless(LinearQuadratic):
    """A newcomer that doesn't say what its episodes depend on."""

    per_place = None


def _set(places: Any, count: int = 2) -> None:
    env = LinearQuadratic(3)
    env.reset(range(3))
    env.set_state(env.state().take(range(count)), places)


def _state(env: VectorEnv) -> State:
    env.reset(range(env.num_envs))
    return env.state()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: _set([0]), "2 states for 1 places"),
        (lambda: _set(None), "2 states for 3 places"),
        (lambda: _set([1, 1]), r"places are \[1, 1\]; allowed: different ones from 0 to 2"),
        (lambda: _set([2, 3]), "allowed: different ones from 0 to 2"),
        (lambda: LinearQuadratic(2).state(), "state: call reset"),
        (
            lambda: LinearQuadratic(2).set_state(_state(LinearQuadratic(1)), [0]),
            "call reset.* or lay a state into every place",
        ),
        (
            lambda: LinearQuadratic(2).set_state(_state(PassiveTMaze(2, 3))),
            "that of PassiveTMaze; allowed: one of LinearQuadratic",
        ),
        (lambda: _state(Nameless(1)), "Nameless: its state can't be taken"),
        (lambda: Nameless(1).set_state(_state(LinearQuadratic(1))), "can't be taken or set"),
        (
            lambda: MaskedEnv(LinearQuadratic(1), [0]).set_state(_state(LinearQuadratic(1))),
            "that of LinearQuadratic; allowed: one of MaskedEnv",
        ),
    ],
)
def test_refusals(act: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)


def test_a_simulator_that_cannot_be_copied_is_refused_in_one_line() -> None:
    env = Gymnasium(1, "CartPole-v1")
    env.reset([0])
    env._envs[0].unwrapped.pipe = (each for each in ())  # generators can't be copied
    with pytest.raises(UserError, match=r"CartPoleEnv: its state can't be taken.*generator"):
        env.state()
