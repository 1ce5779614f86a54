"""Collecting whole episodes with a behaviour policy."""

import numpy as np
import pytest

from ablate.data.behaviour import Acted, Behaviour
from ablate.data.collect import collect, concatenate
from ablate.envs.base import MaskedEnv, SimulatedEnv


class Countdown(SimulatedEnv):
    """Observes (steps left, the last action); ends when a number drawn from the seed is counted down."""

    def __init__(self, num_envs: int) -> None:
        super().__init__(num_envs, observation_dim=2, action_dim=1, horizon=9)

    def _start(self, seeds: list[int]) -> np.ndarray:
        self._left = np.array([seed % 12 + 1 for seed in seeds])
        return np.stack([self._left, np.zeros(len(seeds))], axis=1)

    def _advance(self, actions, alive):  # type: ignore[no-untyped-def]
        self._left = self._left - alive
        seen = np.stack([self._left, actions[:, 0]], axis=1)
        return seen, self._left.astype(float), self._left == 0, {}

    def simulator_state(self) -> np.ndarray:
        return self._left[:, None].astype(np.float64)


class Echo(Behaviour):
    """Does a tenth of the first number that it sees."""

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        self.first = observation.copy()

    def act(self, observation: np.ndarray) -> Acted:
        actions = (observation[:, :1] / 20).astype(np.float32)
        return Acted(actions, np.full(len(actions), 3), logp=np.zeros(len(actions)), mean=actions)


def test_episodes_are_whole_valid_and_no_more_than_asked_for() -> None:
    made = collect("test", "train", Countdown, Echo(), 400).validate()
    assert 380 <= len(made.rewards) <= 400
    ends = made.episode_starts[1:] - 1
    assert (made.terminations[ends] ^ made.truncations[ends]).all()
    assert made.truncations[ends].any()
    assert made.lengths.max() == 9
    # What is logged in a row is what was seen before, and got after, the row's action.
    left = made.observations[:, 0]
    np.testing.assert_array_equal(made.rewards, left - 1)
    np.testing.assert_array_equal(made.simulator_state[:, 0], left)
    np.testing.assert_allclose(made.actions[:, 0], left / 20)
    np.testing.assert_array_equal(made.behaviour_id, 3)
    np.testing.assert_array_equal(made.final_observations[:, 0], left[ends] - 1)
    np.testing.assert_allclose(made.final_observations[:, 1], made.actions[ends, 0])


def test_the_same_call_gives_the_same_and_another_part_another() -> None:
    hashes = [
        collect("test", part, Countdown, Echo(), 200).content_hash for part in ("a", "a", "b")
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_one_episode_at_least() -> None:
    assert collect("test", "train", Countdown, Echo(), 1).num_episodes == 1


@pytest.mark.parametrize("privileged", [True, False])
def test_a_privileged_behaviour_sees_what_is_hidden(privileged: bool) -> None:
    made = collect(
        "test", "train", lambda n: MaskedEnv(Countdown(n), [1]), Echo(), 100, privileged=privileged
    )
    assert made.observations.shape[1] == 1
    assert (made.actions > 0).any() == privileged


def test_parts_are_put_behind_each_other() -> None:
    one, two = (collect("test", part, Countdown, Echo(), 100) for part in ("a", "b"))
    both = concatenate("both", [one, two]).validate()
    assert both.num_episodes == one.num_episodes + two.num_episodes
    back = both.select(np.arange(one.num_episodes, both.num_episodes))
    assert back.content_hash == two.content_hash
