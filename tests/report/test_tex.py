"""Text and numbers as LaTeX."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.report import tex

SPECIAL = set("&%$#_{}~^\\")
COMMAND = re.compile(
    r"\\text[a-z]+\{\}|\\ldots\{\}|\\ensuremath\{(?:-|\\[a-z]+)\}|\\'e|\\[&%$#_{}]|\{\[\}|\{\]\}"
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=40))
def test_escaped_text_has_no_bare_special_character(found):
    escaped = tex.latex(found)
    assert escaped.isascii()
    assert "\n" not in escaped
    assert not SPECIAL & set(COMMAND.sub("", escaped))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_printable_text_is_escaped_one_to_one(found):
    assert tex.latex(found) == "".join(tex.latex(character) for character in found)
    assert "?" not in tex.latex(found.replace("?", ""))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(max_size=20), st.text(max_size=10))
def test_macro_names_are_letters_only(first, second):
    assert re.fullmatch(r"[A-Za-z]+", tex.macro_name(first, second))


def test_macro_names_say_digits():
    assert tex.macro_name("P1", "Estimate") == "PoneEstimate"
    assert tex.macro_name("P-4_b", "P") == "PfourBP"


def test_numbers_in_latex_have_a_real_minus():
    assert tex.math_number("-3.2") == r"\ensuremath{-3.2}"
    assert tex.math_number("-1.2 to 3.4") == r"\ensuremath{-1.2} to 3.4"
    assert tex.math_number("< 0.001") == r"\ensuremath{< 0.001}"
