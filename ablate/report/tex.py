"""Text and numbers as LaTeX, and the names of its macros."""

from __future__ import annotations

import re

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
