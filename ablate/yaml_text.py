"""YAML as people mean it: the one door for study files, presets and `--set`.

Plain words are read as YAML 1.2's core schema reads them, so that `no`, `on`, `1:30` and `2001-12-14` are text, and
`1e5` and `1e-3` are numbers, as is `1_000`. What two versions of YAML read as two different numbers (`030`, `0x1f`),
and what no number can hold (`.nan`, `.inf`, `1e999`, 5,000 digits) is refused, as are tags (`!!timestamp`), keys that
are no words, text with control characters, and all that takes a small file a long time to read: its size, its depth
and its values are counted, those that stand behind an alias each time that it is named, before anything is made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

BYTES = 500_000  # of a file
DEPTH = 24  # of values in values
VALUES = 20_000  # in a file, aliases written out
DIGITS = 18  # of a whole number: it fits into 64 bits

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOLEAN = {
    word: word.lower() == "true" for word in (["true", "True", "TRUE", "false", "False", "FALSE"])
}
_WHOLE = re.compile(r"[-+]?(0|[1-9]\d*(_\d+)*)", re.ASCII)
_NUMBER = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?", re.ASCII)
_TWO_WAYS = re.compile(r"[-+]?0([0-9_]+|[xX][0-9a-fA-F_]+|o[0-7]+|b[01_]+)", re.ASCII)
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_UNPRINTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")


class Unreadable(ValueError):
    """What can't be read; line: where it stands, from 1, or None."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line


@dataclass
class Node:
    """A value and where it stands.

    value: a scalar, or a list whose values are `items`. entries: it is a mapping, of `pairs` (key, its line, node).
    size: values in it, aliases written out. depth: of values in it.
    """

    line: int
    value: Any = None
    entries: bool = False
    size: int = 1
    depth: int = 1
    items: list[Node] = field(default_factory=list)
    pairs: list[tuple[str, int, Node]] = field(default_factory=list)

    def plain(self) -> Any:
        """The value as Python has it: mappings with text as keys, lists, texts, numbers, booleans and None."""
        if self.entries:
            merged = {k: v for key, _, node in self.pairs if key == "<<" for k, v in _merged(node)}
            return merged | {key: node.plain() for key, _, node in self.pairs if key != "<<"}
        if isinstance(self.value, list):
            return [node.plain() for node in self.items]
        return self.value


def _merged(node: Node) -> Iterator[tuple[str, Any]]:
    """The entries of what stands behind `<<`, the first of several mappings last, as it counts most."""
    for each in reversed(node.items or [node]):
        yield from each.plain().items()


def read(path: Path) -> Node:
    """The value that a file holds, with lines. Raises Unreadable, FileNotFoundError where there is none."""
    if not path.is_file() and path.exists():
        raise Unreadable("it is no file that could be read as text")
    try:
        with path.open("rb") as file:
            return compose(file.read(BYTES + 1).decode())
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable(f"cannot be read as text ({error})") from None


def load(text: str) -> Any:
    """The value that a text holds. Raises Unreadable."""
    return compose(text).plain()


def compose(text: str) -> Node:
    """The value that a text holds, with lines. Raises Unreadable."""
    if len(text.encode("utf-8", "replace")) > BYTES:
        raise Unreadable(f"it holds more than {BYTES:,} bytes")
    try:
        return _Composer(text).document()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        if problem == "mapping values are not allowed here":
            problem += "; text that holds ': ' stands in quotes"
        raise Unreadable(
            f"not valid YAML ({problem})", None if mark is None else mark.line + 1
        ) from None


class _Composer:
    """Makes nodes of PyYAML's events."""

    def __init__(self, text: str) -> None:
        self.events: Iterator[Any] = yaml.parse(text, Loader=yaml.SafeLoader)
        self.anchors: dict[str, Node | None] = {}  # None: still open
        self.values = 0

    def document(self) -> Node:
        made = Node(1)
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise Unreadable("a second document starts here", _line(event))
                made = self.node(next(self.events), 1)
        return made

    def node(self, event: Any, depth: int) -> Node:
        line = _line(event)
        if isinstance(event, yaml.AliasEvent):
            found = self.anchors.get(str(event.anchor))
            if found is None:
                problem = "stands in itself" if event.anchor in self.anchors else "names nothing"
                raise Unreadable(f"the alias '*{event.anchor}' {problem}", line)
            self.count(found.size, depth + found.depth - 1, line)
            return found
        self.count(1, depth, line)
        if event.tag is not None:
            raise Unreadable(
                f"found the tag '{event.tag.replace('tag:yaml.org,2002:', '!!')}'; allowed: the value alone, text "
                "in quotes",
                line,
            )
        if event.anchor is not None:
            if event.anchor in self.anchors:
                raise Unreadable(f"the anchor '&{event.anchor}' stands twice", line)
            self.anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            made = Node(line, scalar(event.value, line) if event.implicit[0] else event.value)
            if isinstance(made.value, str):
                _readable(made.value, line)
        elif isinstance(event, yaml.SequenceStartEvent):
            made = self.sequence(line, depth)
        else:
            made = self.mapping(line, depth, event.flow_style)
        if event.anchor is not None:
            self.anchors[event.anchor] = made
        return made

    def sequence(self, line: int, depth: int) -> Node:
        made = Node(line, [])
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            made.items.append(inner := self.node(event, depth + 1))
            made.size += inner.size
            made.depth = max(made.depth, 1 + inner.depth)
        return made

    def mapping(self, line: int, depth: int, flow: bool) -> Node:
        made = Node(line, entries=True)
        lines: dict[str, int] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            at = _line(event)
            if (
                not isinstance(event, yaml.ScalarEvent)
                or not event.value
                or event.tag
                or event.anchor
            ):
                raise Unreadable("a key must be a plain word", at)
            key = event.value
            _readable(key, at)
            inner = self.node(next(self.events), depth + 1)
            if key != "<<" and key in lines:
                raise Unreadable(
                    f"'{key[:80]}' stands twice (first in line {lines[key]}); keep one", at
                )
            if key == "<<" and not all(each.entries for each in inner.items or [inner]):
                raise Unreadable("what stands behind '<<' is no mapping", at)
            if flow and inner.value is None and not inner.entries and re.fullmatch(r"\d{3}", key):
                raise Unreadable(
                    f"'{key}' has no value; a comma separates entries, so write a number without it",
                    at,
                )
            lines.setdefault(key, at)
            made.pairs.append((key, at, inner))
            made.size += inner.size
            made.depth = max(made.depth, 1 + inner.depth)
        return made

    def count(self, values: int, depth: int, line: int) -> None:
        self.values += values
        if self.values > VALUES:
            raise Unreadable(f"more than {VALUES:,} values, aliases written out", line)
        if depth > DEPTH:
            raise Unreadable(f"more than {DEPTH} values in each other", line)


def _line(event: Any) -> int:
    """The line in which an event begins, from 1."""
    return int(event.start_mark.line) + 1


def scalar(text: str, line: int | None = None) -> Any:
    """What a plain word stands for. Raises Unreadable for a number that can't be told or held."""
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if _TWO_WAYS.fullmatch(text):
        decimal = text.replace("_", "").lstrip("+-0")
        told = decimal if decimal.isdigit() else "a decimal number"
        raise Unreadable(
            f"found {text[:40]}, which versions of YAML read as different numbers; write {told[:40]}, or "
            f"'{text[:40]}' in quotes for text",
            line,
        )
    if _WHOLE.fullmatch(text):
        digits = text.replace("_", "")
        if len(digits.lstrip("+-")) > DIGITS:
            raise Unreadable(f"a whole number of more than {DIGITS} digits", line)
        return int(digits)
    if _NO_NUMBER.fullmatch(text):
        raise Unreadable(f"found {text}; allowed: numbers, or '{text}' in quotes for text", line)
    if _NUMBER.fullmatch(text):
        number = float(text)
        if math.isinf(number):
            raise Unreadable(f"found {text[:40]}; no number is that large", line)
        exact = "." not in text and number == int(number) and abs(number) < 10**DIGITS
        return int(number) if exact else number  # 1e5 counts as 100000 does
    return text


def _readable(text: str, line: int) -> None:
    found = _UNPRINTED.search(text)
    if found:
        raise Unreadable(f"a text holds the control character U+{ord(found[0]):04X}", line)
