"""The best trajectories, by both published definitions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from data_samples import make
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.data.best import best
from ablate.data.trajectories import Trajectories
from ablate.errors import UserError


def of_returns(lengths: list[int], returns: list[float]) -> Trajectories:
    """Episodes that get their return at their first timestep."""
    data = make(lengths)
    rewards = np.zeros(sum(lengths), dtype=np.float32)
    rewards[data.episode_starts[:-1]] = returns
    return dataclasses.replace(data, rewards=rewards)


def by_timesteps(lengths: list[int], returns: list[float], share: float) -> set[int]:
    """The loop of kzl/decision-transformer, gym/experiment.py."""
    wanted = max(int(share * sum(lengths)), 1)
    order = np.argsort(returns, kind="stable")
    count, timesteps, index = 1, lengths[order[-1]], len(lengths) - 2
    while index >= 0 and timesteps + lengths[order[index]] <= wanted:
        timesteps += lengths[order[index]]
        count += 1
        index -= 1
    return set(order[-count:].tolist())


def by_episodes(lengths: list[int], returns: list[float], share: float) -> set[int]:
    """The rule of CORL, any_percent_bc.py."""
    order = np.argsort(returns, kind="stable")[::-1]
    return set(order[: max(1, int(share * len(order)))].tolist())


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(-3, 3)), min_size=1, max_size=12),
    st.floats(0.01, 0.99),
)
@settings(max_examples=60, deadline=None)
def test_both_keep_the_episodes_of_the_released_code(
    episodes: list[tuple[int, int]], share: float
) -> None:
    lengths = [length for length, _ in episodes]
    returns = [float(value) for _, value in episodes]
    data = of_returns(lengths, returns)
    for way, rule in (("timesteps", by_timesteps), ("episodes", by_episodes)):
        kept = best(data, share, way).validate()
        wanted = data.select(sorted(rule(lengths, returns, share)))
        assert kept.content_hash == wanted.content_hash


def test_the_whole_is_kept_as_it_is() -> None:
    data = of_returns([3, 2], [1.0, 2.0])
    assert best(data, 1.0) is data


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(UserError, match=r"train\.keep: found .*; allowed: a share above 0"):
        best(make([2]), share)


def test_another_way_is_refused() -> None:
    with pytest.raises(UserError, match=r"train\.keep_by: 'episode' is not known.*'episodes'"):
        best(make([2]), 0.5, "episode")
