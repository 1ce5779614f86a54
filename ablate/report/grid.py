"""Tables in plain text, which the page shows as they are and the paper as LaTeX.

A table is registered like a figure: `@register("table", NAME)` on a function of `Results` that gives a `Grid`, or None
where there is nothing to show.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """A table in plain text: a row of one cell is a heading; trials: what it was made of.

    small: in small letters; appended: it stands in the paper's appendix.
    """

    name: str
    title: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    trials: tuple[str, ...]
    small: bool = False
    appended: bool = False
