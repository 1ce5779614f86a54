"""Bins: round trips, repeated values, the released rule restated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from ablate.errors import UserError
from ablate.models.discretise import Discretiser


def released(data: np.ndarray, bins: int) -> np.ndarray:
    """Thresholds (N+1, C) of the public code."""
    stride = int(np.ceil(len(data) / bins))
    return np.concatenate([np.sort(data, axis=0)[::stride], data.max(axis=0, keepdims=True)])


@pytest.mark.parametrize("repeats", ["own-bin", "kept"])
def test_without_repeated_values_it_is_the_released_quantile_rule(repeats: str) -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(4000, 3)).astype(np.float32)
    thresholds = released(data, 20)
    assert len(thresholds) == 21
    made = Discretiser.fit(data, 20, repeats=repeats)  # type: ignore[arg-type]
    fresh = np.concatenate([rng.normal(size=(500, 3)) * 1.5, thresholds]).astype(np.float32)
    largest = (fresh[None] >= thresholds[:, None]).sum(0) - 1  # of all thresholds <= x
    index = largest.clip(0, 19)
    tokens = made.encode(torch.from_numpy(fresh))
    assert torch.equal(tokens, torch.from_numpy(index))
    middle = 0.5 * (
        np.take_along_axis(thresholds, index, 0) + np.take_along_axis(thresholds, index + 1, 0)
    )
    np.testing.assert_allclose(made.decode(tokens), middle, rtol=1e-5, atol=1e-6)


def test_kept_repeats_are_the_released_empty_bins() -> None:
    rng = np.random.default_rng(1)
    data = np.stack([rng.normal(size=1000).clip(-1, 1), rng.integers(0, 2, 1000)], 1)
    data = data.astype(np.float32)
    thresholds = released(data, 10)
    made = Discretiser.fit(data, 10, repeats="kept")
    index = ((data[None] >= thresholds[:, None]).sum(0) - 1).clip(0, 9)
    assert torch.equal(made.encode(torch.from_numpy(data)), torch.from_numpy(index))
    assert (made.widths == 0).any()
    assert made.decode(made.encode(torch.tensor([[0.0, 0.0]])))[0, 1] == 0.5


def test_repeated_values_are_read_as_themselves() -> None:
    rng = np.random.default_rng(2)
    data = np.stack(
        [
            rng.normal(size=1000).clip(-1, 1),
            (rng.random(1000) < 0.1).astype(float),
            np.full(1000, 7.0),
        ],
        1,
    ).astype(np.float32)
    made = Discretiser.fit(data, 50)
    for column, values in enumerate(([-1.0, 1.0], [0.0, 1.0], [7.0])):
        for value in values:
            row = torch.zeros(1, 3)
            row[0, column] = value
            read = made.decode(made.encode(row))[0, column]
            assert read == pytest.approx(value, abs=1e-6)
    assert made.used.tolist()[1:] == [2, 1]


finite = st.floats(-1e4, 1e4, width=32)


@settings(max_examples=150, deadline=None)
@given(
    data=npst.arrays(np.float32, st.tuples(st.integers(1, 60), st.integers(1, 3)), elements=finite),
    bins=st.integers(2, 12),
    kind=st.sampled_from(["quantile", "uniform"]),
    probe=st.lists(finite, min_size=1, max_size=8),
)
def test_every_bin_in_use_has_a_width_and_holds_its_own_middle(
    data: np.ndarray, bins: int, kind: str, probe: list[float]
) -> None:
    made = Discretiser.fit(data, bins, kind)
    assert (made.widths[made.valid] > 0).all()
    assert (made.used >= 1).all()
    assert (made.used <= bins).all()
    every = torch.arange(bins)[:, None].expand(-1, data.shape[1])
    exists = made.valid.T
    assert torch.equal(made.encode(made.decode(every))[exists], every[exists])
    values = torch.cat(
        [torch.from_numpy(data), torch.tensor(probe)[:, None].expand(-1, data.shape[1])]
    )
    tokens = made.encode(values)
    assert exists.gather(0, tokens).all()  # a bin that doesn't exist is never produced
    assert torch.isfinite(made.log_width(tokens)).all()
    if kind == "quantile":  # and one that exists holds data
        for column in range(data.shape[1]):
            found = set(made.encode(torch.from_numpy(data))[:, column].tolist())
            assert found == set(range(int(made.used[column])))


@settings(max_examples=50, deadline=None)
@given(
    data=npst.arrays(np.float32, st.tuples(st.integers(2, 60), st.just(2)), elements=finite),
    bins=st.integers(2, 12),
)
def test_tokens_rise_with_the_value(data: np.ndarray, bins: int) -> None:
    made = Discretiser.fit(data, bins)
    ordered = torch.from_numpy(np.sort(data, axis=0))
    assert (made.encode(ordered).diff(dim=0) >= 0).all()
    assert (made.decode(made.encode(ordered)).diff(dim=0) >= 0).all()


def test_few_values_have_a_bin_each() -> None:
    # a reward that is rare has no quantile of its own, and would be read as the middle between its neighbours
    rewards = np.repeat([-13.0, -1.0, 5.0, 11.0, 19.0], [30, 900, 40, 25, 5])
    spread = np.random.default_rng(0).normal(size=1000)
    data = np.stack([rewards, spread], axis=1)
    made, counts = (Discretiser.fit(data, 12, kind) for kind in ("values", "quantile"))
    values = torch.from_numpy(data).float()
    tokens = made.encode(values)
    torch.testing.assert_close(made.decode(tokens)[:, 0], values[:, 0])
    assert made.used.tolist() == [5, 12]
    assert torch.equal(tokens[:, 1], counts.encode(values)[:, 1])
    assert not torch.allclose(counts.decode(counts.encode(values))[:, 0], values[:, 0])


def test_columns_can_be_read_alone() -> None:
    data = np.random.default_rng(3).normal(size=(300, 4)).astype(np.float32)
    made = Discretiser.fit(data, 8)
    rows = torch.from_numpy(data[:20].reshape(4, 5, 4))
    assert torch.equal(made.encode(rows)[..., 1:3], made.encode(rows[..., 1:3], first=1))
    tokens = made.encode(rows)
    assert torch.equal(made.decode(tokens)[..., 2:], made.decode(tokens[..., 2:], first=2))


def test_expectation_and_percentile() -> None:
    made = Discretiser.fit(np.linspace(0, 1, 1001)[:, None], 10, "uniform")
    probs = torch.tensor([[0.5] + [0.0] * 8 + [0.5], [0.0] * 9 + [0.4]])
    torch.testing.assert_close(made.expectation(probs, 0), torch.tensor([0.5, 0.38]))
    assert made.percentile(probs, 0.4, 0)[0] == pytest.approx(0.05)
    assert made.percentile(probs, 0.6, 0).tolist() == pytest.approx([0.95, 0.95])


def test_densities_of_equal_bins_are_uniform() -> None:
    made = Discretiser.fit(np.linspace(-2, 2, 500)[:, None], 16, "uniform")
    assert made.widths.sum() == pytest.approx(4.0, abs=1e-5)
    assert (-made.log_width(made.encode(torch.rand(9, 1)))).exp().mean() == pytest.approx(
        4.0, abs=1e-4
    )


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (np.zeros((0, 2)), {"bins": 4}, "shape"),
        (np.zeros(3), {"bins": 4}, "shape"),
        (np.array([[0.0], [np.nan]]), {"bins": 4}, "row 1 of column 0"),
        (np.zeros((3, 1)), {"bins": 1}, "at least 2"),
        (np.zeros((3, 1)), {"bins": 4, "kind": "quantiles"}, "Did you mean 'quantile'"),
        (np.zeros((3, 1)), {"bins": 4, "repeats": "keep"}, "Did you mean 'kept'"),
    ],
)
def test_refusals(data: np.ndarray, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Discretiser.fit(data, **options)  # type: ignore[arg-type]
