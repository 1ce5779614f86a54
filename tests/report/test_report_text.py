"""Numbers, names and their LaTeX."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.report import text

SPECIAL = set("&%$#_{}~^\\")
COMMAND = re.compile(
    r"\\text[a-z]+\{\}|\\ldots\{\}|\\ensuremath\{(?:-|\\[a-z]+)\}|\\'e|\\[&%$#_{}]|\{\[\}|\{\]\}"
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=40))
def test_escaped_text_has_no_bare_special_character(found):
    escaped = text.latex(found)
    assert escaped.isascii()
    assert "\n" not in escaped
    assert not SPECIAL & set(COMMAND.sub("", escaped))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_printable_text_is_escaped_one_to_one(found):
    assert text.latex(found) == "".join(text.latex(character) for character in found)
    assert "?" not in text.latex(found.replace("?", ""))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(max_size=20), st.text(max_size=10))
def test_macro_names_are_letters_only(first, second):
    assert re.fullmatch(r"[A-Za-z]+", text.macro_name(first, second))


def test_macro_names_say_digits():
    assert text.macro_name("P1", "Estimate") == "PoneEstimate"
    assert text.macro_name("P-4_b", "P") == "PfourBP"


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
    assert text.number(value, digits, sign) == shown


def test_p_values_and_lists():
    assert text.p_value(0.0004) == "< 0.001"
    assert text.p_value(0.0136) == "0.014"
    assert text.p_value(math.nan) == "n/a"
    assert text.listing(["a", "b", "c"]) == "a, b and c"
    assert text.count(1, "trial") == "1 trial"
    assert text.count(0, "trial") == "no trial"


def test_numbers_in_latex_have_a_real_minus():
    assert text.math_number("-3.2") == r"\ensuremath{-3.2}"
    assert text.math_number("-1.2 to 3.4") == r"\ensuremath{-1.2} to 3.4"
    assert text.math_number("< 0.001") == r"\ensuremath{< 0.001}"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("lq-mix/episode", "LQ, mixed by episode"),
        ("lq-mix/single@mask-velocity", "LQ, one policy, no velocity"),
        ("tmaze/passive-200", "T-Maze, 200 steps"),
        ("pointmaze/umaze-v1", "PointMaze U"),
        ("d4rl/hopper-medium-v2", "hopper-medium"),
        ("mine", "mine"),
        ("my/set-v3@noisy", "my set, noisy"),
    ],
)
def test_data_sets_as_shown(name, shown):
    assert text.data(name) == shown


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
    assert text.claim(label) == shown


def test_units_on_axes():
    assert text.axis("action_error", change=True).endswith("(fraction of action variance)")
    assert text.axis("score") == "score (points)"
    assert text.axis("something_else") == "something else"
