"""Numbers and names as people read them: on a terminal, in HTML and in LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

MIXERS = {
    "attention": "attention",
    "gru": "GRU",
    "lstm": "LSTM",
    "conv": "convolution",
    "mlp": "MLP",
    "bag": "bag (placebo)",
}
CONDITIONS = {
    "none": "no condition",
    "time": "time",
    "return-to-go": "return-to-go",
    "return-to-go+time": "return-to-go + time",
    "policy-id": "oracle policy id",
}
METRICS = {
    "score": ("score", "points"),
    "action_error": ("action error", "of the action variance"),
    "action_error_early": ("early action error", "of the action variance"),
    "action_nll": ("held-out action NLL", "nats"),
    "success": ("success rate", "fraction"),
    "return_mean": ("return", "reward units"),
    "return_std": ("spread of returns", "reward units"),
    "jerk": ("action jerk", "action units"),
}
FACTORS = {"data": "data set", "context": "context K"}
_DATA = {  # families and members of ours; others keep their names, without punctuation
    "lq-mix": "LQ",
    "episode": "mixed by episode",
    "step": "mixed by step",
    "single": "one policy",
    "mask-velocity": "no velocity",
    "tmaze": "T-Maze",
    "pointmaze": "PointMaze",
    "umaze": "U",
    "d4rl": "",
    "mujoco": "",
    "hopper": "Hopper",
    "halfcheetah": "HalfCheetah",
    "walker2d": "Walker2d",
    "ant": "Ant",
    "key-to-door": "Key-to-Door",
    "popgym": "POPGym",
    "fourrooms": "Four Rooms",
    "stitch": "Stitch",
    "forkcommit": "Fork-Commit",
    "chain": "Chain",
    "grid": "Grid",
}
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "'": r"'",
    "-": "-",
    "[": "{[}",  # a bracket after `\\` in a table would be read as an optional argument
    "]": "{]}",
    "−": r"\ensuremath{-}",
    "–": "--",
    "—": "---",
    "±": r"\ensuremath{\pm}",
    "×": r"\ensuremath{\times}",
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    "…": r"\ldots{}",
    "’": "'",
    "‘": "`",
    "“": "``",
    "”": "''",
    "é": r"\'e",
    "→": r"\ensuremath{\rightarrow}",
    "≈": r"\ensuremath{\approx}",
}
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def latex(text: object) -> str:
    """`text` so that LaTeX prints it as it stands; what pdflatex has no glyph for becomes `?`."""
    out = []
    for character in str(text):
        if character in _ESCAPES:
            out.append(_ESCAPES[character])
        elif " " <= character <= "~":
            out.append(character)
        elif character.isspace():
            out.append(" ")
        else:
            out.append("?")
    return "".join(out)


def number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """`value` with fixed digits and a real minus; `n/a` where there is none; never `−0.0`."""
    if value is None or math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "infinity" if value > 0 else "−infinity"
    shown = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(shown) == 0.0:
        return f"{0.0:.{digits}f}"
    return shown.replace("-", "−")


def digits_for(metric: str, scale: float | None = None) -> int:
    """Decimals that suit a metric: one for points, three for errors and fractions."""
    if metric in ("score", "return_mean", "return_std"):
        return 1
    if scale is not None and abs(scale) >= 100:
        return 1
    return 3


def interval(low: float | None, high: float | None, digits: int = 1) -> str:
    """`low to high`."""
    return f"{number(low, digits)} to {number(high, digits)}"


def p_value(p: float | None) -> str:
    """`p` as printed in a paper: three decimals, or `< 0.001`."""
    if p is None or math.isnan(p):
        return "n/a"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def math_number(shown: str) -> str:
    """A shown number as LaTeX, with a real minus sign and relations in maths."""
    shown = shown.replace("−", "-")
    if re.fullmatch(r"(?:[<>] )?[+-]?\d+(?:\.\d+)?", shown):
        return rf"\ensuremath{{{shown}}}"
    return re.sub(
        r"(?<![\w.])[+-]\d+(?:\.\d+)?|[<>] \d+(?:\.\d+)?",
        lambda match: rf"\ensuremath{{{match.group()}}}",
        shown,
    )


def macro_name(*words: str) -> str:
    r"""A LaTeX command name of letters only: `("P1", "estimate")` -> `PoneEstimate`."""
    out = ""
    for word in words:
        for piece in re.findall(r"[A-Za-z]+|[0-9]", word):
            out += _DIGITS[int(piece)] if piece.isdigit() else piece[0].upper() + piece[1:]
    return out or "Unnamed"


def mixer(name: str) -> str:
    """A mixer as shown; a user's own keeps its name."""
    return MIXERS.get(name, name)


def condition(name: str) -> str:
    """A condition as shown."""
    return CONDITIONS.get(name, name)


def metric(name: str) -> str:
    """A metric without its unit."""
    return METRICS.get(name, (name.replace("_", " "), ""))[0]


def unit(name: str) -> str:
    """A metric's unit, empty where unknown."""
    return METRICS.get(name, ("", ""))[1]


def axis(name: str, change: bool = False) -> str:
    """An axis label with its unit."""
    shown = ("change in " if change else "") + metric(name)
    said = unit(name).replace("of the ", "fraction of ")
    return f"{shown} ({said})" if said else shown


def data(name: str) -> str:
    """A data set as shown: `lq-mix/episode` -> `LQ, mixed by episode`.

    Versions are left out; a twin (`@mask-velocity`) comes last.
    """
    whole, _, twin = name.partition("@")
    family, _, member = whole.partition("/")
    first = _DATA.get(family, family)
    rest = re.sub(r"-v\d+$", "", member)
    parts = (_DATA.get(part, part) for part in rest.split("/"))
    said = re.sub(r"^passive-(\d+)$", r"\1 steps", " ".join(parts))
    joint = ", " if family in ("lq-mix", "tmaze") else " "
    shown = joint.join(part for part in (first, said) if part)
    return f"{shown}, {_DATA.get(twin, twin)}" if twin else shown


def claim(label: str) -> str:
    """A claim's label as shown: `mixer gru` -> `GRU`, `attention - gru` -> `attention − GRU`."""
    out = []
    for part in label.split(", "):
        factor, _, level = part.partition(" ")
        if factor == "data":
            out.append(data(level))
        elif factor == "context" and level:
            out.append(f"K = {level}")
        else:
            words = part.removeprefix("mixer ").split(" ")
            out.append(" ".join("−" if word == "-" else MIXERS.get(word, word) for word in words))
    return ": ".join(out)


def plain(name: str) -> str:
    """A name of the code as words: `learning_rate` -> `learning rate`."""
    return name.replace("_", " ")


def listing(words: Iterable[str]) -> str:
    """`a, b and c`."""
    items = list(words)
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + " and " + items[-1]


def count(n: int, noun: str, plural: str = "") -> str:
    """`1 trial`, `2 trials`, `no trial`."""
    if n == 0:
        return f"no {noun}"
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"
