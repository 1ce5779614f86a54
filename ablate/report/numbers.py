r"""Numbers that people typed into the paper's text, where a macro should give them.

In the text, in titles and in what `\newcommand` defines, a digit may stand only in what isn't a result: a
comment, the name of something (`D4RL`, `walker2d-v2`), code (`\texttt`, `\verb`, verbatim), a reference or
its target, the number of a section, figure or table, the year of a citation, the bibliography, a length or
another argument of layout, an index, exponent or one of the constants 0, 1 and 2 in a formula. Whatever
else must be a number is marked at the end of its line, with the reason: `% given: the level of all intervals`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

_GROUP = r"\{(?:[^{}]|\{[^{}]*\})*\}"
_OPTIONS = r"(?:\s*\[[^\]]*\])*"
_LAID_OUT = {  # commands -> how many arguments are no text
    1: (
        *("label", "ref", "eqref", "pageref", "autoref", "nameref", "[cC]ref", r"cite\w*", "input"),
        *("include", "includegraphics", "bibliography", "bibliographystyle", "url", "path", "href"),
        *("texttt", "vspace", "hspace", "vskip", "hyperref", "color", "textcolor", "scalebox"),
        *("parbox", "cmidrule", "pagestyle", "thispagestyle", "usepackage"),
    ),
    2: ("setlength", "addtolength", "setcounter", "resizebox", "rule", "fontsize", "multicolumn"),
    3: ("addcontentsline",),
}
_CODE = (
    re.compile(r"\\begin\{(verbatim|lstlisting|thebibliography)\*?\}.*?\\end\{\1\*?\}", re.DOTALL),
    re.compile(r"\\verb\*?(\W).*?\1"),
)
_OTHER = (  # in this order: what else may hold a digit
    *(
        re.compile(rf"\\(?:{'|'.join(names)})\*?(?![A-Za-z])(?:{_OPTIONS}\s*{_GROUP}){{1,{count}}}")
        for count, names in _LAID_OUT.items()
    ),
    re.compile(rf"\\begin\{{[^}}]*\}}{_OPTIONS}(?:{_GROUP})*"),
    re.compile(r"\\\\\*?\[[^\]]*\]"),  # the space after a line
    re.compile(r"#\d"),  # an argument of a definition
    re.compile(
        r"\d*\.?\d+(?:\\(?:text|line|column|page|paper)(?:width|height)|(?:pt|em|ex|in|cm|mm)\b)"
    ),
    re.compile(r"(?<![A-Za-z\\])[A-Za-z]+\d\w*(?:-v\d+)?|-v\d+\b"),  # a name
    re.compile(
        r"\b(?:Section|Sec\.|Figure|Fig\.|Table|Equation|Eq\.|Appendix|Chapter|Question|Theorem|Algorithm)"
        r"s?[~ ]+\(?\d+(?:\.\d+)*(?:(?:--?|, | and )\d+)*\)?"
    ),
    re.compile(
        r"(?:\b[A-Z][\w.'’-]*|et al\.),?[~ ]*[(\[]?(?:19|20)\d\d[a-z]?\b"
    ),  # a citation's year
)
_FORMULA = re.compile(
    r"(?<!\\)\$\$?(?P<a>.+?)(?<!\\)\$\$?|\\\((?P<b>.+?)\\\)|\\\[(?P<c>.+?)\\\]"
    r"|\\begin\{(?P<e>equation|align|gather)\*?\}(?P<d>.+?)\\end\{(?P=e)\*?\}",
    re.DOTALL,
)
_ATTACHED = re.compile(rf"[_^]\s*(?:{_GROUP}|\d)")
_CONSTANT = re.compile(r"(?<![\d.,])[012](?![\d]|[.,]\d)")
_ALONE = re.compile(r"[\s\d.,+\-<>=%\\]*")  # a formula that is nothing but a number
_DEFINITION = re.compile(
    rf"\\(?P<how>newcommand|providecommand|renewcommand|def|let)\*?\s*\{{?\\(?P<name>[A-Za-z]+)\}}?"
    rf"(?:\[[^\]]*\])*(?P<body>\s*{_GROUP})?"
)
_TITLE = re.compile(rf"\\(?:title|author|date){_GROUP}")
_NUMBER = re.compile(r"[+\-−]?\d(?:[\d.,]*\d)?")
_GIVEN = re.compile(r"%\s*given:\s*\w")
_COMMENT = re.compile(r"(?<!\\)%.*")
_MADE = re.compile(r"\\(?:includegraphics|input)" + _OPTIONS + r"\s*\{((?:figures|tables)/[^}]*)\}")


def by_hand(folder: Path, files: Sequence[Path], given: Collection[str]) -> list[str]:
    """What is wrong in the LaTeX that people wrote for the paper in `folder`, one line each: numbers typed
    by hand, macros of the report that are defined again, figures and tables that aren't there.

    given: names of the macros that the report gives.
    """
    out = []
    for path in files:
        source = path.read_text(encoding="utf-8")
        found = typed(source, given)
        for match in _MADE.finditer(_COMMENT.sub("", source)):
            name = match[1]
            if not any((folder / f"{name}{suffix}").is_file() for suffix in ("", ".tex", ".pdf")):
                line = _COMMENT.sub("", source)[: match.start()].count("\n") + 1
                found.append((line, f"{name} isn't there; the report doesn't make it"))
        out += [f"{path}:{line}: {what}" for line, what in sorted(found)]
    return out


def typed(source: str, given: Collection[str] = ()) -> list[tuple[int, str]]:
    """(line from 1, what is wrong) of one file's LaTeX; see the head of this file for the rule."""
    marked = {n for n, line in enumerate(source.split("\n"), 1) if _GIVEN.search(line)}
    text = _COMMENT.sub("", source)
    out = [
        (_line(text, match), f"\\{match['name']} is the report's to define")
        for match in _DEFINITION.finditer(text)
        if match["name"] in given
    ]
    text = _only_text(text)
    for pattern in _CODE:
        text = pattern.sub(_spaces, text)
    text = _FORMULA.sub(_without_constants, text)
    for pattern in _OTHER:
        text = pattern.sub(_spaces, text)
    for match in _NUMBER.finditer(text):
        if (line := _line(text, match)) not in marked:
            allowed = "a macro of macros.tex, or `% given: why` at the end of the line"
            out.append((line, f"{match[0]} is typed by hand; allowed: {allowed}"))
    return out


def _only_text(text: str) -> str:
    """The text with the preamble blanked, save titles and what is defined there."""
    start = text.find(r"\begin{document}")
    if start < 0:
        return text
    kept = [*_TITLE.finditer(text, 0, start)]
    kept += [m for m in _DEFINITION.finditer(text, 0, start) if m["how"] != "renewcommand"]
    preamble = list(re.sub(r"[^\n]", " ", text[:start]))
    for match in kept:
        preamble[match.start() : match.end()] = match[0]
    return "".join(preamble) + text[start:]


def _without_constants(match: re.Match[str]) -> str:
    """A formula without its indices, exponents and constants."""
    inner = next(match[name] for name in "abcd" if match[name] is not None)
    if _ALONE.fullmatch(inner):
        return match[0]
    return _CONSTANT.sub(" ", _ATTACHED.sub(_spaces, match[0]))


def _spaces(match: re.Match[str]) -> str:
    """As much white space as the match had characters, in the same lines."""
    return re.sub(r"[^\n]", " ", match[0])


def _line(text: str, match: re.Match[str]) -> int:
    return text[: match.start()].count("\n") + 1
