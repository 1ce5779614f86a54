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
    "action_error": ("action error", "squared action units"),
    "action_error_early": ("early action error", "squared action units"),
    "action_nll": ("held-out action NLL", "nats"),
    "success": ("success rate", "fraction"),
    "return_mean": ("return", "reward units"),
    "return_std": ("spread of returns", "reward units"),
    "jerk": ("action jerk", "action units"),
}
FACTORS = {"data": "data set", "context": "context K"}
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
    """`value` with fixed digits in plain ASCII; `n/a` where there is none; never `-0.0`."""
    if value is None or math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "infinity" if value > 0 else "-infinity"
    shown = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(shown) == 0.0:
        return f"{0.0:.{digits}f}"
    return shown


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
    return f"{shown} ({unit(name)})" if unit(name) else shown


def level(factor: str, value: object) -> str:
    """A level as shown, by its factor."""
    if factor == "mixer":
        return mixer(str(value))
    if factor == "condition":
        return condition(str(value))
    if factor == "context":
        return f"K = {value}"
    return str(value)


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
