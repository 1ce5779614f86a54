"""Study files spoilt at random, by a seed: bytes, tokens, structure, values, keys, aliases, overrides.

`mutant(number)` is the same text for the same number. What is spoilt are the shipped studies and the examples.
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ablate.yaml_text import Unreadable, load

ROOT = Path(__file__).parents[2]
FILES = sorted(
    [*ROOT.glob("studies/*.yaml"), *ROOT.glob("examples/*.yaml")], key=lambda path: path.name
)
BIG = "9" * 5000
# Values as they may stand in a file.
NASTY = (
    *(
        "yes",
        "no",
        "on",
        "off",
        "~",
        "null",
        "true",
        "false",
        "030",
        "0x1f",
        "1:30:30",
        "1_000",
        "2001-13-45",
    ),
    *(
        "2001-12-14",
        "1e5",
        "1e-3",
        "1e999",
        "-1e999",
        ".inf",
        "-.inf",
        ".nan",
        "-1",
        "0",
        "1.5",
        "-0.0",
    ),
    *(
        "1000000000000",
        "1e19",
        BIG,
        "9" * 400,
        "1" + "0" * 18,
        "[]",
        "{}",
        "[[[]]]",
        "{a: {b: {c: 1}}}",
    ),
    *(
        "!!timestamp 2001-99-99",
        "!!int abc",
        "!!binary abc",
        "!!set {a, b}",
        "!!python/object:os.system x",
    ),
    *(
        "'a b'",
        "'" + "x" * 100_000 + "'",
        "'" + "y" * 300 + "'",
        '"a\\nb"',
        '"a\\0b"',
        '"\\u202Eabc"',
        '"\\ud800"',
    ),
    *(
        "'$\\catcode12$'",
        "'a]b'",
        "'a,b'",
        "'\"'",
        "'<script>'",
        "'{{ x }}'",
        "'\\input{x}'",
        "'%s %n'",
        "'é中🎉'",
    ),
    *(
        "../../etc",
        "/dev/zero",
        "file//dev/zero",
        "file/../..",
        "models",
        "all",
        "''",
        "' '",
        "lq-mix/episode@mask-1",
    ),
    *(
        "1,000",
        "512 tokens",
        "99999999 tokens",
        "0 tokens",
        "chunk-0",
        "chunk-99999999",
        "p90",
        "p101",
        "-p1",
    ),
    *(
        "return-to-go+time",
        "none+time",
        "time+time",
        "+",
        "a+b+c",
        "*a",
        "*episode",
        "&a [1]",
        "&a [*a]",
        "<<",
    ),
    *(
        "(" * 5000,
        "context[20] - context[1]",
        "1e999 context[20]",
        "1e308 context[20] - 1e308 context[1]",
    ),
    *(
        "each pair of mixer",
        "each pair of data",
        "trend(context[1, 5])",
        "log_trend(mixer[gru, mlp])",
        "context[1] :",
    ),
)
SETTINGS = (
    *(
        "train.updates",
        "train.learning_rate",
        "train.clip",
        "train.checkpoints",
        "train.converged",
        "model.width",
    ),
    *(
        "model.layers",
        "model.parameters",
        "model.timesteps",
        "model.heads",
        "seeds",
        "streams",
        "measure.rollout",
    ),
    *(
        "measure.rollout.episodes",
        "measure.rollout.target",
        "measure.plan.horizon",
        "settings.joint.bins",
        "settings",
    ),
    *(
        "model",
        "train",
        "measure",
        "settings.td3+bc.alpha",
        "study",
        "data",
        "",
        "a.b.c.d",
        "train.",
        "model.width.x",
    ),
)
Change = Callable[[random.Random, str], str]


def mutant(number: int, seed: int = 0, small: bool = False) -> tuple[str, list[str], Path]:
    """The text of a mutant, what is set on the command line, and the file that it was made of.

    small: of the examples alone, which are planned fast.
    """
    rng = random.Random(f"{seed}/{number}")
    path = rng.choice([file for file in FILES if not small or file.parent.name == "examples"])
    text = path.read_text(encoding="utf-8")
    overrides = []
    if rng.random() < 0.2:
        overrides = [
            f"{rng.choice(SETTINGS)}={rng.choice(NASTY)}" for _ in range(rng.randint(1, 2))
        ]
        if rng.random() < 0.7:
            return text, overrides, path
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        text = rng.choice(CHANGES)(rng, text)
    return text, overrides, path


def _bytes(rng: random.Random, text: str) -> str:
    """Characters are cut, doubled, replaced."""
    at, length = rng.randrange(len(text) + 1), rng.choice((1, 1, 2, 10, 200))
    new = "".join(
        chr(rng.choice((rng.randrange(32, 127), rng.randrange(0x2100)))) for _ in range(length)
    )
    return text[:at] + rng.choice(("", new, text[at : at + length] * 2)) + text[at + length :]


def _tokens(rng: random.Random, text: str) -> str:
    """A word or a mark is replaced by something nasty, another word, or nothing."""
    words = list(re.finditer(r"[\w.+@/-]+|[\[\]{}:,&*'\">|-]", text))
    word = rng.choice(words)
    new = rng.choice((rng.choice(NASTY), rng.choice(words)[0], "", word[0] * 2))
    return text[: word.start()] + new + text[word.end() :]


def _value(rng: random.Random, text: str) -> str:
    """The value behind a key, or one of a list's, is replaced by something nasty."""
    places = list(re.finditer(r"(?<=: )[^\s,{}\[\]#]+|(?<=[\[,] )[^\s,\]]+", text))
    if not places:
        return text
    place = rng.choice(places)
    return text[: place.start()] + rng.choice(NASTY) + text[place.end() :]


def _lines(rng: random.Random, text: str) -> str:
    """Lines are dropped, doubled, moved, indented."""
    lines = text.splitlines(keepends=True)
    if not lines:
        return text
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            del lines[at]
        case 1:
            lines.insert(to, lines[at])
        case 2:
            lines.insert(to, lines.pop(at))
        case 3:
            lines[at] = rng.choice(("  ", "\t", " ")) + lines[at]
        case _:
            lines[at] = lines[at].lstrip(" ")
    return "".join(lines)


def _structure(rng: random.Random, text: str) -> str:
    """A value somewhere in the tree is replaced, moved, wrapped, dropped, multiplied; two keys swap their values."""
    try:
        tree = load(text)  # not PyYAML's, which writes out what aliases multiply
    except Unreadable:
        return _tokens(rng, text) if text.strip() else text
    if not isinstance(tree, dict):
        return text
    places = list(_places(tree))
    if not places:
        return text
    (holder, key), (other, there) = rng.choice(places), rng.choice(places)
    match rng.randrange(8):
        case 0:
            holder[key] = rng.choice(
                (None, True, [], {}, 0, -1, 10**12, 10**20, 0.5, "", "x" * 1000, [[1]], {"a": 1})
            )
        case 1:
            holder[key] = copy.deepcopy(other[there])
        case 2:
            holder[key] = [holder[key]]
        case 3:
            holder[key] = {str(key): holder[key]}
        case 4:
            del holder[key]
        case 5 if isinstance(holder[key], list):
            holder[key] = [
                copy.deepcopy(each)
                for each in holder[key]
                for _ in range(rng.choice((2, 40, 2000)))
            ]
        case 6 if isinstance(holder[key], list):
            holder[key] = list(range(1, rng.choice((3, 50, 1001, 30_000))))
        case _:
            holder[key], other[there] = copy.deepcopy(other[there]), copy.deepcopy(holder[key])
    try:
        return str(yaml.safe_dump(tree, sort_keys=False, width=110))
    except (yaml.YAMLError, RecursionError):
        return text


def _keys(rng: random.Random, text: str) -> str:
    """A key is renamed to another, something nasty, or stands twice."""
    keys = list(re.finditer(r"(?<![\w.-])[\w.-]++(?=: )", text))
    if not keys:
        return text
    key = rng.choice(keys)
    new = rng.choice(
        (rng.choice(keys)[0], rng.choice(NASTY), key[0] + "s", f"{key[0]}: 1, {key[0]}")
    )
    return text[: key.start()] + new + text[key.end() :]


def _aliases(rng: random.Random, text: str) -> str:
    """Aliases of aliases, of themselves, of nothing; merges."""
    deep = "a0: &a0 [x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * rng.choice((2, 9)))}]\n" for i in range(1, 12)
    )
    places = list(re.finditer(r"(?<=: )[^\s,{}\[\]#]+", text)) or [re.match("", text)]
    place: Any = rng.choice(places)
    put = rng.choice(
        ("*a3", "*a11", "*nothing", "&b [*b]", "{<<: *a1}", "{<<: {a: 1}}", "[[" * 300 + "]]" * 300)
    )
    changed = text[: place.start()] + put + text[place.end() :]
    return rng.choice((deep + changed, changed, changed + deep, deep + text))


def _long(rng: random.Random, text: str) -> str:
    """A comment, a text or a list of half a megabyte and more; brackets without end."""
    more = rng.choice(
        ("#" * 600_000, "x: " + "y" * 600_000, "[" * 100_000, "- " * 50_000, "x: [" + "1, " * 200_000 + "]",
         "notes: [" + "a, " * 15_000 + "]", "notes:\n" + "  - a\n" * 10_000, "x: " + "{a: " * 1000)
    )  # fmt: skip
    return f"{text}\n{more}\n" if rng.random() < 0.5 else f"{more}\n{text}"


def _places(tree: Any) -> Any:
    """Every (holder, key) of a tree."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(pairs):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


CHANGES: tuple[Change, ...] = (
    *(_bytes, _tokens, _tokens, _value, _value, _value, _value, _lines, _lines),
    *(_structure, _structure, _structure, _keys, _keys, _aliases, _long),
)
