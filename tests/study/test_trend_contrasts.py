"""Trends in the language of contrasts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.errors import UserError
from ablate.study.contrast import parse

LEVELS = [1, 5, 20]


def weights(text: str, levels=LEVELS) -> np.ndarray:
    terms = parse(text).terms
    return np.array([terms[(str(level),)] for level in levels])


@pytest.mark.parametrize(("name", "place"), [("trend", None), ("log_trend", np.log)])
def test_it_is_the_rise_of_the_fitted_line(name, place):
    x = np.arange(3.0) if place is None else place(np.array(LEVELS, dtype=float))
    found = weights(f"{name}(context[1, 5, 20])")
    for y in np.random.default_rng(0).normal(size=(5, 3)):
        assert found @ y == pytest.approx(np.polyfit(x, y, 1)[0] * (x[-1] - x[0]))
    assert found.sum() == pytest.approx(0.0)


def test_two_levels_are_their_difference_and_the_order_is_the_lists():
    for name in ("trend", "log_trend"):
        assert weights(f"{name}(a[1, 5])", [1, 5]) == pytest.approx([-1.0, 1.0])
        assert weights(f"{name}(a[5, 1])", [1, 5]) == pytest.approx([1.0, -1.0])
    assert weights("trend(a[low, middle, high])", ["low", "middle", "high"]) == pytest.approx(
        [-1.0, 0.0, 1.0]
    )


def test_all_its_levels_are_needed():
    found = parse("trend(context[1, 5, 20])")
    assert found.ordered == {"context": ("1", "5", "20")}
    cells = pd.DataFrame({"data": ["a"] * 3 + ["b"] * 2, "context": [1, 5, 20, 1, 20]})
    assert found.weights(cells).strata == ["a"]
    assert found.weights(cells).incomplete == ["b () lacks context[5]"]


def test_it_can_be_scaled_crossed_and_compared():
    assert weights("0.5 trend(context[1, 5, 20])") == pytest.approx([-0.5, 0.0, 0.5])
    text = "trend(context[1, 20]) : (mixer[gru] - mixer[mlp])"
    plain = "(context[20] - context[1]) : (mixer[gru] - mixer[mlp])"
    assert dict(parse(text).terms) == pytest.approx(dict(parse(plain).terms))


@pytest.mark.parametrize(
    ("text", "rises"),
    [
        ("trend(context[1, 5, 20])", True),
        ("2 log_trend(context[1, 5, 20]) : mixer[gru, mlp]", True),
        ("mixer[gru] : trend(context[1, 5, 20])", True),
        ("-trend(context[1, 5, 20])", False),
        ("trend(context[1, 5, 20]) : (mixer[gru] - mixer[mlp])", False),
        ("context[20] - context[1]", False),
        ("trend(a[1, 2]) : trend(b[1, 2])", False),
    ],
)
def test_what_a_trend_test_can_take(text, rises):
    assert parse(text).rises is rises


@pytest.mark.parametrize(
    ("text", "position", "fragment"),
    [
        ("trend(context)", 14, r"expected '\[' and a level after 'context'"),
        ("trend(3)", 7, "takes one factor with its levels in order"),
        ("trend(a[x])", 7, "two levels or more"),
        ("trend(a[x, y]", 14, r"expected the '\)' of 'trend\('"),
        ("trend(a[x, y] - a[z])", 15, r"expected the '\)'"),
        ("log_trend(a[x, y])", 11, "the logarithm of the level 'x' doesn't exist"),
        ("log_trend(a[0, 1])", 11, "the logarithm of the level '0' doesn't exist"),
        ("log_trend(a[1, 5, 2])", 11, "rise or fall throughout"),
        ("trend(a[x, y]) - trend(a[x, z])", 24, "another trend lists other levels of 'a'"),
        ("trend(a[x, y]) - trend(a[x, y])", 1, "it is zero"),
        ("trend(mixr[x, y])", 7, "the factor: 'mixr' is not known"),
    ],
)
def test_errors_say_where(text, position, fragment):
    declared = {"a": ["x", "y", "z", 0, 1, 2, 5], "context": LEVELS} if "mixr" in text else None
    with pytest.raises(UserError, match=fragment) as caught:
        parse(text, declared)
    assert f"'{text}', position {position}: " in str(caught.value)


def test_a_factor_may_be_called_trend():
    assert parse("trend[x] - trend[y]").factors == ("trend",)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 500), min_size=2, max_size=6, unique=True), st.floats(-5, 5))
def test_it_finds_a_line_and_ignores_a_level(levels, height):
    listed = ", ".join(map(str, sorted(levels)))
    x = np.log(sorted(levels))
    found = weights(f"log_trend(context[{listed}])", sorted(levels))
    assert found @ (height + 3.0 * x) == pytest.approx(3.0 * (x[-1] - x[0]), rel=1e-6, abs=1e-6)
