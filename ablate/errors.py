"""Errors meant for people: one readable line that says where, what was found and what is allowed."""

from __future__ import annotations

import difflib
import heapq
import re
from collections.abc import Iterable

LONGEST = 600  # characters of a whole line, however many a part of it has
QUOTED = 80  # characters that are shown of a value
LISTED = 240  # characters of names that are shown; of more names, the nearest
CUT = " [...] "


class UserError(Exception):
    """Wrong input. The command line prints its one line and exits with code 2 (`--debug` shows the trace).

    Whatever values the message quotes, it is one line of at most `LONGEST` characters, each of which can be printed.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(message))


def one_line(text: object, longest: int = LONGEST) -> str:
    """The text as one line: line breaks are spaces, what can't be printed (control characters, marks that turn the
    direction of writing) is escaped, and what is too long loses its middle."""
    whole = str(text)
    # Only what may be shown is worked on, as the text may be megabytes long.
    made = shorten(whole, 4 * longest).replace("\r\n", " ").replace("\n", " ")
    made = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in made)
    return shorten(made, longest)


def quoted(value: object, longest: int = QUOTED) -> str:
    """A value between quotation marks, as one line of bounded length."""
    return f"'{one_line(value, longest)}'"


def shorten(text: str, longest: int) -> str:
    """The text, without its middle where it is longer than `longest` characters."""
    if len(text) <= longest:
        return text
    end = (longest - len(CUT)) // 3
    return text[: longest - len(CUT) - end] + CUT + text[len(text) - end :]


def unknown(where: str, found: object, allowed: Iterable[object]) -> UserError:
    """The refusal of a name: says where it stood, what is allowed and which known name is nearest."""
    names = [str(name) for name in allowed]
    told = one_line(found, QUOTED)
    near = difflib.get_close_matches(told, names, n=1, cutoff=0.4)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UserError(f"{where}: '{told}' is not known; allowed: {_listed(told, names)}.{hint}")


def _listed(found: str, names: list[str]) -> str:
    """All names, or where that would be too long those most like what was found."""
    whole = ", ".join(names) or "nothing"
    if len(whole) <= LISTED:
        return whole
    likeness = difflib.SequenceMatcher(b=found)

    def like(name: str) -> float:
        likeness.set_seq1(name)
        return likeness.ratio()

    shown: list[str] = []
    for name in heapq.nlargest(12, names, key=like):
        if sum(map(len, shown)) + len(name) < LISTED:
            shown.append(name)
    return f"{', '.join(shown)}, and {len(names) - len(shown)} others"


# What may be secret in an address: name and password before its host (a password may hold '/' and '@'), and all
# that follows a '?', '#' or ';'.
_USER = re.compile(r"(?<=://)(?:[^\s/?#]*@|[^\s/?#@:]+:(?!\d*/)[^\s@]*@)")
_BEHIND = re.compile(r"([a-zA-Z][\w+.-]*://[^\s?#;'\"<>]*)[?#;][^\s'\"<>)]*")


def public(text: str) -> str:
    """An address, or a text with addresses in it, without name, password, query and fragment.

    To be used wherever an address is printed or recorded.
    """
    return _BEHIND.sub(r"\1", _USER.sub("", text))
