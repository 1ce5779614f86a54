"""The table of means against exact values, of data that hold every trajectory as often as it is likely; and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_tabular_values import as_trajectories, paths, to_go

from ablate.data.monte_carlo import monte_carlo
from ablate.data.tabular import Law
from ablate.data.tabular_windows import window_returns
from ablate.envs.tabular import TabularMDP


def even_law() -> Law:
    """Two policies, two states that look different and an end; every chance is a multiple of a quarter."""
    transitions = np.zeros((3, 2, 3))
    transitions[0] = [[0.5, 0.25, 0.25], [0.0, 0.75, 0.25]]
    transitions[1] = [[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]]
    transitions[2, :, 2] = 1.0
    rewards = np.arange(18.0).reshape(3, 2, 3) - 7.0
    rewards[2] = 0.0
    terminal = np.array([False, False, True])
    process = TabularMDP(transitions, rewards, np.array([0.5, 0.5, 0.0]), terminal, 3, np.eye(3, 2))
    policies = np.array(
        [[[0.75, 0.25], [0.5, 0.5], [0.5, 0.5]], [[0.25, 0.75], [0.75, 0.25], [0.5, 0.5]]]
    )
    return Law(process, policies, np.array([0.5, 0.5]), "episode")  # fmt: skip


@pytest.mark.parametrize("context", [1, 2, 3])
@pytest.mark.parametrize("discount", [1.0, 0.5])
def test_endless_data_give_the_exact_values(context: int, discount: float) -> None:
    law = even_law()
    every = paths(law)
    least = min(path.probability for path in every)
    often = [round(path.probability / least) for path in every]
    assert np.allclose([path.probability / least for path in every], often)
    repeated = [path for path, times in zip(every, often, strict=True) for _ in range(times)]
    train, asked = as_trajectories(law, repeated), as_trajectories(law, every)
    returns = np.array(
        [to_go(path, t, discount) for path in repeated for t in range(len(path.steps))]
    )
    found = monte_carlo(train, returns, asked, context, least=1)
    exact = window_returns(law, asked, context, acted=True, discount=discount)
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-9)


def test_it_backs_off_where_there_is_too_little() -> None:
    law = even_law()
    train = as_trajectories(law, paths(law)[:40])
    returns = np.arange(len(train.rewards), dtype=np.float64)
    asked = train.select([0])
    alone = monte_carlo(train, returns, asked, 3, least=1)
    never = monte_carlo(train, returns, asked, 3, least=10**6)
    assert not np.allclose(alone, never)
    np.testing.assert_array_equal(never, monte_carlo(train, returns, asked, 1))
    unseen = replace(asked, observations=asked.observations + 5.0)
    assert np.isnan(monte_carlo(train, returns, unseen, 3)).all()
