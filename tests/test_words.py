"""One vocabulary: numbers, responses, factors and their levels."""

from __future__ import annotations

import math

import pytest

from ablate import registry, words
from ablate.errors import UserError
from ablate.words import Factor, Response


@pytest.mark.parametrize(
    ("value", "digits", "sign", "shown"),
    [
        (-0.04, 1, True, "0.0"),
        (16.34, 1, True, "+16.3"),
        (-3.0, 1, False, "−3.0"),
        (math.nan, 1, False, "n/a"),
        (None, 1, False, "n/a"),
        (math.inf, 1, False, "infinity"),
    ],
)
def test_numbers(value, digits, sign, shown):
    assert words.number(value, digits, sign) == shown


def test_p_values_have_one_format_everywhere():
    assert words.p_value(0.0004) == "< 0.001"
    assert words.p_value(0.0136) == "0.014"
    assert words.p_value(math.nan) == "n/a"
    assert words.p_relation(0.0136) == "= 0.014"
    assert (words.p_said(0.0004), words.p_said(0.5)) == ("p < 0.001", "p = 0.500")


def test_lists_counts_and_sentences():
    assert words.listing(["a", "b", "c"]) == "a, b and c"
    assert words.count(1, "trial") == "1 trial"
    assert words.count(0, "trial") == "no trial"
    assert words.as_sentence("it holds") == "It holds."
    assert (words.percent(0.95), words.percent(0.333, 0)) == ("95 %", "33 %")


def test_intervals_with_an_end_at_infinity():
    assert words.interval(-1.24, 3.0) == "−1.2 to 3.0"
    assert words.interval(1.0, math.inf) == "at least 1.0"
    assert words.interval(-math.inf, 1.0) == "at most 1.0"
    assert words.interval(-math.inf, math.inf) == "unbounded"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (12.345, "12.3"),
        (-3.0, "−3.00"),
        (0.04512, "0.0451"),
        (0.0, "0"),
        (-1e-9, "0"),
        (1234.6, "1235"),
    ],
)
def test_numbers_that_are_no_response_have_three_digits_that_matter(value, shown):
    assert words.significant(value) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("lq-mix/episode", "LQ, mixed by episode"),
        ("lq-mix/single@mask-velocity", "LQ, one policy, no velocity"),
        ("tmaze/passive-200", "T-Maze, 200 steps"),
        ("pointmaze/umaze-v1", "PointMaze, U"),
        ("d4rl/hopper-medium-v2", "D4RL, hopper-medium"),
        ("mine", "mine"),
        ("my/set-v3@noisy", "my set, noisy"),
    ],
)
def test_data_sets_as_shown(name, shown):
    assert words.data(name) == shown


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("mixer gru", "GRU"),
        ("attention - mine", "attention − mine"),
        ("data lq-mix/step, attention - gru", "LQ, mixed by step: attention − GRU"),
        ("context 5", "K = 5"),
    ],
)
def test_claims_as_shown(label, shown):
    assert words.claim(label) == shown


@pytest.fixture
def declared(scope):
    """A measurement with a response over an index, and a factor of a plugin."""

    class Ahead:
        responses = (
            Response("error", "prediction error", "of the variance", "lower", 2, index="horizon"),
        )

    registry.register("measurement", "ahead", version="1")(Ahead)
    words.declare(Factor("measure.ahead.horizon", "horizon", "memory", 12, symbol="H"))


def test_a_response_is_called_as_its_measurement_says(declared):
    error = words.response("ahead.error")
    assert error.axis("change in") == "change in prediction error (fraction of the variance)"
    assert error.quantity(-0.126, sign=True) == "−0.13 of the variance"
    assert (error.span(0.1, 0.25), error.lower) == ("0.10 to 0.25", True)
    at = words.response("ahead.error@5")
    assert (at.said, at.index) == ("prediction error at horizon 5", "")
    assert words.response("error") == error  # as a table from elsewhere names it
    assert words.response("ahead.nothing").said == "nothing"
    assert words.response("something_else").axis() == "something else"


def test_points_and_sizes():
    assert words.response("rollout.score").points
    assert words.response("rollout.score").axis() == "score (points)"
    assert not words.response("held-out.action_error").points
    assert words.response("parameters").amount(16000.0) == "16000"


def test_a_factor_is_called_as_declared_or_by_the_end_of_its_path(declared):
    assert (words.factor("context").theme, words.factor("mixer").theme) == (
        "memory",
        "architecture",
    )
    assert words.factor("measure.plan.beam") == Factor("measure.plan.beam", "beam")
    assert words.setting("measure.ahead.horizon", 5) == "H = 5"
    assert words.setting("train.learning_rate", 3e-4) == "learning rate 0.0003"
    assert words.themes(["context", "history"]) == {"memory"}
    assert words.themes(["mixer", "train.keep"]) == {"architecture", "other"}
    assert words.theme_place("memory") < words.theme_place("architecture") < words.theme_place("?")
    with pytest.raises(UserError, match="'context' is already declared otherwise"):
        words.declare(Factor("context", "window"))


def test_a_level_is_called_and_placed_as_its_part_is_registered(declared):
    registry.register("mixer", "mine", version="1", label="my mixer", order=2)(object)
    registry.register("mixer", "plain", version="1")(object)
    assert words.level("mixer", "mine") == "my mixer"
    assert words.level("mixer", "plain") == "plain"
    assert words.levels("mixer", ["zz", "plain", "bag", "mine", "attention"]) == [
        *("attention", "mine", "bag", "plain", "zz"),
    ]
    assert words.levels("context", [20, 1, 5]) == [1, 5, 20]
    assert words.held({"context": 20, "mixer": "gru", "head": "mse"}) == "K = 20, GRU, mse head"


def test_the_words_of_a_factor_are_forgotten_like_other_parts():
    with registry.scope():
        words.declare(Factor("settings.colour", "hue", "memory"))
        assert words.factor("settings.colour").label == "hue"
    assert words.factor("settings.colour").label == "colour"
    words.declare(Factor("settings.colour", "tint"))
