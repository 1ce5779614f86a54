"""Summaries of episodes, against numbers worked out by hand, and regret to policies that are known to be best."""

from collections.abc import Callable

import numpy as np
import pytest

from ablate.data.behaviour import Behaviour
from ablate.data.catalogue import Anchors, spec
from ablate.data.exact import optimal_return, optimal_returns, posterior_returns
from ablate.data.families.forkcommit import Committed
from ablate.data.families.keytodoor import KeyToDoorExpert
from ablate.data.families.lq import anchors
from ablate.data.families.tabular import parse
from ablate.data.families.tmaze import Demonstrator
from ablate.data.tabular import expected_return, optimise, return_variance
from ablate.data.waypoints import Walker
from ablate.envs.fourrooms import MAP
from ablate.envs.stitch import goals_of, stitch_map
from ablate.measure import episodes
from ablate.measure.rollout import Rollouts, evaluation_seeds

SCORES = np.array([[80.0, -10.0, 100.0, 50.0], [0.0, -400.0, 110.0, 90.0]])
OPTIMAL = np.array([[100.0, 100.0, 90.0, 110.0], [100.0, 100.0, 100.0, 100.0]])


def test_summaries_by_hand() -> None:
    # 20, 110, -10, 60 and 100, 500, -10, 10
    np.testing.assert_allclose(episodes.regret(SCORES, OPTIMAL), [42.5, 50.0])
    np.testing.assert_allclose(episodes.regret(SCORES, OPTIMAL, cap=50.0), [27.5, 25.0])
    np.testing.assert_allclose(episodes.lost(SCORES), [0.25, 0.25])  # a score of 0 isn't lost
    np.testing.assert_allclose(episodes.lost(SCORES, below=60.0), [0.5, 0.5])


def test_all_responses_of_rollouts() -> None:
    at = Anchors(-2.0, 2.0, "by hand")
    rollouts = Rollouts(
        returns=SCORES / 25.0 - 2.0,
        success=np.full((2, 4), np.nan),
        lengths=np.array([[1, 2, 3, 4], [5, 5, 5, 5]]),
        jerk=np.array([0.5, 0.25]),
        env_seeds=np.zeros((2, 4), dtype=np.int64),
    )
    found = episodes.summaries(rollouts, at, OPTIMAL / 25.0 - 2.0)
    single = [each.name for each in episodes.RESPONSES if not each.index]
    indexed = [each.name for each in episodes.RESPONSES if each.index]
    assert set(found) == {*single, *indexed, "episode"}
    assert all(found[name].shape == (2,) for name in single)
    assert all(found[name].shape == (2, 4) for name in indexed)
    np.testing.assert_allclose(found["episode_regret"], OPTIMAL - SCORES)
    np.testing.assert_allclose(found["score"], [55.0, -50.0])
    np.testing.assert_allclose(found["score_median"], [65.0, 45.0])
    np.testing.assert_allclose(found["return_mean"], [0.2, -4.0])
    np.testing.assert_allclose(found["length"], [2.5, 5.0])
    np.testing.assert_allclose(found["regret"], [42.5, 50.0])
    assert np.isnan(found["success"]).all()
    assert np.isnan(episodes.summaries(rollouts, at, None)["regret"]).all()
    assert np.isnan(found["score_episodes_10"]).all()  # there are four
    np.testing.assert_allclose(found["score_iqm"], [65.0, 45.0])  # of four, the two in the middle
    np.testing.assert_allclose(found["regret_cap_half"], episodes.regret(SCORES, OPTIMAL, 50.0))
    np.testing.assert_allclose(found["regret_cap_double"], episodes.regret(SCORES, OPTIMAL, 200.0))


def test_other_ways_to_sum_up_the_same_episodes() -> None:
    rng = np.random.default_rng(0)
    values, optimal = rng.normal(size=(3, 101)), rng.normal(100.0, 50.0, size=(3, 101))
    found = episodes.capped("regret", 90.0 * values, optimal, 60.0)
    assert set(found) == {f"regret_{way}" for way in episodes.CAPPED}
    each = np.clip(optimal - 90.0 * values, -60.0, 60.0)
    for n in (10, 100):
        own = episodes.regret(90.0 * values[:, :n], optimal[:, :n], 60.0)
        np.testing.assert_allclose(found[f"regret_episodes_{n}"], own)
    middle = [np.sort(row)[25:-25].mean() for row in each]
    np.testing.assert_allclose(found["regret_iqm"], middle)
    shown = episodes.REGRET.ways("episodes_10", "cap_half")
    assert [one.name for one in shown] == ["regret_episodes_10", "regret_cap_half"]
    assert shown[0].said == "regret to the optimum, 10 episodes"


def test_regret_and_lost_episodes_of_exact_policies() -> None:
    """The exact clone that sees one timestep, over 30 lists: how much a single list says, and how little."""
    at, lists = anchors(), [evaluation_seeds("f1", seed, 100) for seed in range(30)]
    every = np.array(lists).ravel().tolist()
    scores = at.score(posterior_returns(1, every)).reshape(30, 100)
    optimal = at.score(episodes.optimal_returns(spec("lq-mix/episode"), np.array(lists)))
    assert at.score(optimal_return()) == pytest.approx(104.8, abs=0.1)
    assert optimal.mean() == pytest.approx(
        at.score(optimal_return()), abs=4 * optimal.std() / 3000**0.5
    )
    assert scores.mean() == pytest.approx(58.2, abs=4 * scores.std() / 3000**0.5)
    assert episodes.lost(scores).mean() == pytest.approx(0.17, abs=0.03)
    assert (episodes.regret(optimal, optimal) == 0).all()
    bounded = episodes.regret(scores, optimal)
    assert (bounded > 0).all()
    # Relative to what is measured, a bounded response depends less on the list.
    assert bounded.std() / bounded.mean() < scores.mean(axis=1).std() / (104.8 - scores.mean())
    # The better controller's own mean action is all but optimal, in each episode.
    single = at.score(posterior_returns(1, lists[0], "single"))
    gap = optimal[0] - single
    assert 0.0 < gap.mean() < 0.5


@pytest.mark.parametrize("name", ["chain/gamble-episode-v0", "grid/cliff-sticky25-hidden-step-v0"])
def test_the_optimal_policy_of_a_table_earns_its_value(name: str) -> None:
    process = parse(name, name, []).process
    policy = optimise(process)[1]
    returns = spec(name).optimal_returns(range(2000))
    assert returns is not None
    error = (return_variance(process, policy) / 2000) ** 0.5
    assert abs(returns.mean() - expected_return(process, policy)) <= 4 * error + 1e-9


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("tmaze/active-10", True),
        ("key-to-door/expert-v0", True),
        ("forkcommit/20-v0", True),
        ("lq-mix/episode@mask-velocity", True),
        ("lq-mix/episode@noise-0.3", True),
        ("lq-mix/episode@delay-2", False),
        ("lq-mix/episode@physics-0.3", False),
        ("mujoco/hopper/expert-v0", False),
    ],
)
def test_where_the_optimum_is_known(name: str, known: bool) -> None:
    found = episodes.optimal_returns(spec(name), np.array([[4, 5, 6], [8, 9, 10]]))
    assert (found is not None) == known
    if found is not None and name.startswith("lq"):  # what is hidden doesn't change what happens
        np.testing.assert_array_equal(found[1], optimal_returns([8, 9, 10]))


def to_the_good_goal(first: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return np.tile(goals_of(2)[0], (len(first), 1)), np.zeros(len(first), dtype=np.int64)


EXPERTS: dict[str, Callable[[], Behaviour]] = {
    "tmaze/active-10": lambda: Demonstrator(1),
    "key-to-door/expert-v0": KeyToDoorExpert,
    "forkcommit/20-v0": Committed,
    "fourrooms/held-out-v0": lambda: Walker(MAP, 0.0),
    "stitch/apart-2-v0": lambda: Walker(stitch_map(2), 0.0, to_the_good_goal),
}


@pytest.mark.parametrize("name", EXPERTS)
def test_the_best_return_can_be_had_in_every_episode(name: str) -> None:
    found, seeds = spec(name), evaluation_seeds("best", 0, 50)
    env, expert = found.make_env(50), EXPERTS[name]()
    observation, total = env.reset(seeds), np.zeros(50)
    expert.start(observation, np.random.default_rng(0))
    for _ in range(env.horizon):
        observation, rewards, *_ = env.step(expert.act(observation).actions)
        total += rewards
    np.testing.assert_array_equal(total, found.optimal_returns(seeds))
