"""YAML is read as people mean it, and what can't be told or would take long is refused in one line."""

from __future__ import annotations

import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.yaml_text import BYTES, DEPTH, VALUES, Unreadable, compose, load


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e5", 100_000),
        ("1e-3", 1e-3),
        ("1E+2", 100),
        ("3.0e-4", 3e-4),
        (".5", 0.5),
        ("1.", 1.0),
        ("1_000", 1000),
        ("-7", -7),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        # Text, as in YAML 1.2: other readers make booleans, dates and numbers to the base of 60 of these.
        *((word, word) for word in ("yes", "no", "on", "off", "y", "N", "2001-12-14", "1:30:30", "1e", "p90", "=")),
        ("'030'", "030"),
        ("[a, 'true', 2]", ["a", "true", 2]),
        ("{1: a, true: b}", {"1": "a", "true": "b"}),
    ],
)  # fmt: skip
def test_words_mean_what_they_say(text: str, value: object) -> None:
    found = load(f"a: {text}")["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("030", "write 30, or '030' in quotes"),
        ("-08", "write 8"),
        ("0x1f", "write a decimal number"),
        ("0o17", "in quotes for text"),
        (".inf", "found .inf"),
        (".nan", "allowed: numbers"),
        ("1e999", "no number is that large"),
        ("9" * 5000, "more than 18 digits"),
        ("!!timestamp 2001-99-99", "the tag '!!timestamp'"),
        ("!!int abc", "the tag"),
        ("!!binary abc", "the tag"),
        ("!!set {a, b}", "the tag"),
        ("! 3", "the tag '!'"),
        ("{updates: 1,000, b: 2}", "write a number without it"),
        ("&x [*x]", "'*x' stands in itself"),
        ("*x", "'*x' names nothing"),
        ("{? [1] : 2}", "a key must be a plain word"),
        ("{b: 1, b: 2}", "'b' stands twice (first in line 1)"),
        ("{<<: 3}", "no mapping"),
        ('"\\0"', "U+0000"),
        ('"\\ud800"', "U+D800"),
        ("1\n---\nb: 2", "a second document"),
        ("[1, 2", "not valid YAML"),
    ],
)
def test_what_cannot_be_told_is_refused(text: str, problem: str) -> None:
    with pytest.raises(Unreadable) as caught:
        load(f"a: {text}")
    assert problem in caught.value.problem
    assert caught.value.line is not None


def test_aliases_and_merges_are_written_out() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [*a, {x: 9, z: 4}]}\nd: [*a, *a]\n"
    assert load(text) == yaml.safe_load(text)
    node = compose(text)
    assert [line for _, line, _ in node.pairs] == [1, 2, 3, 4]


def _doubled(levels: int) -> str:
    lines = ["a0: &a0 [1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (_doubled(9), "values, aliases written out"),
        ("a: " + "[" * 100_000, "in each other"),
        ("- " * 100_000, "in each other"),
        ("a: [" + "1, " * (VALUES + 1) + "]", f"more than {VALUES:,} values"),
        ("#" * (BYTES + 1), f"more than {BYTES:,} bytes"),
        ("a: " + "é" * (BYTES // 2), "bytes"),
    ],
)
def test_what_would_take_long_is_refused_at_once(text: str, problem: str) -> None:
    began = time.process_time()
    with pytest.raises(Unreadable, match=problem):
        load(text)
    assert time.process_time() - began < 4


def test_what_is_deep_enough_is_read() -> None:
    assert load("[" * DEPTH + "]" * DEPTH)


# Texts that both versions of YAML read alike.
PLAIN = st.text(st.sampled_from("abcxyz -_é"), min_size=1).map(lambda t: f"q{t}q")
SCALARS = st.none() | st.booleans() | st.integers(-(10**17), 10**17) | PLAIN
SCALARS |= st.floats(allow_nan=False, allow_infinity=False, width=32)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(PLAIN, inner), max_leaves=20
)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.dictionaries(PLAIN, TREES, min_size=1), st.booleans())
def test_what_another_writer_writes_reads_back(tree: dict[str, object], flow: bool) -> None:
    assert load(yaml.safe_dump(tree, default_flow_style=flow, allow_unicode=True)) == tree
