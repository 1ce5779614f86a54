"""Environments on a device give, to the last bit, what they give in numpy, and copy nothing to the host."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ablate.envs.base import MaskedEnv, VectorEnv
from ablate.envs.device import on_device
from ablate.envs.forkcommit import ForkCommit
from ablate.envs.hidden import DelayedEnv
from ablate.envs.lq import LinearQuadratic
from ablate.envs.tabular import Tabular, chain, cliff, sticky
from ablate.envs.tmaze import ActiveTMaze, PassiveTMaze

MAKERS: dict[str, Callable[[int], VectorEnv]] = {
    "lq": LinearQuadratic,
    "lq, hidden friction": lambda n: LinearQuadratic(n, 0.5),
    "lq, positions": lambda n: MaskedEnv(LinearQuadratic(n), [1, 0]),
    "passive T-Maze": lambda n: PassiveTMaze(n, 6),
    "active T-Maze": lambda n: ActiveTMaze(n, 3),
    "fork": lambda n: ForkCommit(n, 3),
    "chain": lambda n: Tabular(n, chain()),
    "cliff": lambda n: Tabular(n, cliff()),
    "sticky cliff": lambda n: Tabular(n, sticky(cliff(), 0.3)),
}


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("name", MAKERS)
def test_every_step_is_that_of_numpy(name: str, rows: int) -> None:
    env, twin = MAKERS[name](rows), on_device(MAKERS[name](rows), "cpu")
    assert twin is not None
    seeds = range(40, 40 + rows)
    np.testing.assert_array_equal(env.reset(seeds), twin.reset(list(seeds)).numpy())
    rng = np.random.default_rng(rows)
    for t in range(env.horizon):
        bias = np.eye(env.action_dim)[0] * (t % 3)  # so that some get somewhere
        actions = (rng.normal(size=(rows, env.action_dim)) + bias).astype(np.float32)
        expected, found = env.step(actions), twin.step(torch.from_numpy(actions))
        for ours, theirs in zip(found[:4], expected[:4], strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs)
            assert ours.numpy().dtype == theirs.dtype
        assert found[4].keys() == expected[4].keys()
        for key, value in expected[4].items():
            np.testing.assert_array_equal(found[4][key].numpy(), value)


@pytest.mark.parametrize("name", MAKERS)
def test_a_step_copies_nothing_to_the_host(name: str) -> None:
    """On the device `meta`, where there is no number that could be copied."""
    twin = on_device(MAKERS[name](4), "meta")
    assert twin is not None
    twin.reset([0, 1, 2, 3])
    for _ in range(twin.horizon):
        actions = torch.empty(4, twin.env.action_dim, device="meta")
        observations, *_ = twin.step(actions)
    assert observations.shape == (4, twin.env.observation_dim)
    with pytest.raises((RuntimeError, NotImplementedError)):
        observations.cpu()


def test_what_cannot_be_stepped_there_is_said_to() -> None:
    assert on_device(DelayedEnv(LinearQuadratic(2), 1), "cpu") is None
