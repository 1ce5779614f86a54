"""Scales that neither an offset nor the number of rows changes."""

import itertools
import math

import numpy as np
import pytest
import torch
from data_samples import make
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ablate.data.normalise import fit_scales, moments
from ablate.data.trajectories import Trajectories

ROWS = 1_020_000  # 17,000 episodes of 60


def long_recording(offset):
    """A million rows of two coordinates of unit variance, the first one far from 0; one that stands still."""
    rng = np.random.default_rng(0)
    seen = rng.standard_normal((ROWS, 3)).astype(np.float32)
    seen[:, 0] += np.float32(offset)
    seen[:, 2] = 7.1
    last = np.arange(1, ROWS + 1) % 60 == 0
    return Trajectories(
        name="long",
        observations=seen,
        actions=np.zeros((ROWS, 1), dtype=np.float32),
        rewards=rng.standard_normal(ROWS).astype(np.float32) + np.float32(offset),
        terminations=np.zeros(ROWS, dtype=bool),
        truncations=last,
        episode_starts=np.arange(0, ROWS + 1, 60),
    ).validate()


@pytest.mark.parametrize("offset", [0, 10_000])
def test_a_million_rows_far_from_zero(offset):
    data = long_recording(offset)
    scales = fit_scales(data, 60)
    # Against Python's exactly rounded sums, of the same float32 numbers.
    exact = data.observations[:, 0].astype(np.float64).tolist()
    mean = math.fsum(exact) / ROWS
    deviation = math.sqrt(math.fsum((each - mean) ** 2 for each in exact) / ROWS)
    assert scales.mean[0].item() == pytest.approx(mean, rel=1e-7, abs=1e-9)
    assert scales.std[0].item() == pytest.approx(deviation, rel=1e-6)
    assert scales.std[2].item() == 1.0
    assert scales.mean[2].item() == np.float32(7.1)
    assert scales.reward == pytest.approx(1.0, rel=3e-3)
    seen = scales.observation(torch.from_numpy(data.observations[:1000]))
    assert seen[:, :2].abs().max() < 6
    assert (seen[:, 2] == 0).all()


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    rows=st.integers(1, 300),
    dtype=st.sampled_from([np.float32, np.float64]),
    offset=st.floats(-1e4, 1e4),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**32 - 1),
)
def test_moments_follow_a_shift_and_a_change_of_units(rows, dtype, offset, scale, seed):
    drawn = np.random.default_rng(seed).standard_normal((rows, 2))
    mean, std = moments(drawn)
    moved, wider = moments((scale * (drawn + offset)).astype(dtype))
    rounding = scale * (abs(offset) + 10) * np.finfo(dtype).eps  # of the numbers themselves
    np.testing.assert_allclose(moved, scale * (mean + offset), atol=2 * rounding)
    np.testing.assert_allclose(wider, scale * std, rtol=1e-9, atol=2 * rounding)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(value=st.floats(-(2.0**90), 2.0**90, width=32), rows=st.integers(1, 70_000))
def test_what_stands_still_has_no_deviation(value, rows):
    _, std = moments(np.full((rows, 1), value, dtype=np.float32))
    assert std == 0.0


@settings(deadline=None, derandomize=True, max_examples=100)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12), data=st.data())
def test_returns_to_go_are_the_sums_of_their_own_episode(lengths, data):
    rewards = data.draw(
        st.lists(
            st.floats(-(2.0**66), 2.0**66, width=32), min_size=sum(lengths), max_size=sum(lengths)
        )
    )
    found = make(lengths)
    object.__setattr__(found, "rewards", np.array(rewards, dtype=np.float32))
    assume(np.isfinite(found.rewards).all())
    starts = found.episode_starts
    for start, end in itertools.pairwise(starts):
        for row in range(start, end):
            exact = math.fsum(rewards[row:end])
            size = math.fsum(map(abs, rewards[row:end]))
            assert abs(found.returns_to_go[row] - exact) <= 1e-7 * abs(exact) + 1e-14 * size


def test_a_small_episode_behind_a_large_one_keeps_its_digits():
    found = make([3, 3])
    object.__setattr__(found, "rewards", np.array([1e12] * 3 + [1e-3] * 3, dtype=np.float32))
    np.testing.assert_allclose(found.returns_to_go[3:], [3e-3, 2e-3, 1e-3], rtol=1e-6)
