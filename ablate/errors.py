"""Errors meant for people: one readable line that says where, what was found and what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class UserError(Exception):
    """Wrong input. The command line prints its one line and exits with code 2 (`--debug` shows the trace)."""


def unknown(where: str, found: object, allowed: Iterable[object]) -> UserError:
    """The refusal of a name: says where it stood, what is allowed and which known name is nearest."""
    names = [str(name) for name in allowed]
    near = difflib.get_close_matches(str(found), names, n=1, cutoff=0.4)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UserError(f"{where}: '{found}' is not known; allowed: {', '.join(names)}.{hint}")


# What may be secret in an address: name and password before its host (a password may hold '/' and '@'), and all
# that follows a '?', '#' or ';'.
_USER = re.compile(r"(?<=://)(?:[^\s/?#]*@|[^\s/?#@:]+:(?!\d*/)[^\s@]*@)")
_BEHIND = re.compile(r"([a-zA-Z][\w+.-]*://[^\s?#;'\"<>]*)[?#;][^\s'\"<>)]*")


def public(text: str) -> str:
    """An address, or a text with addresses in it, without name, password, query and fragment.

    To be used wherever an address is printed or recorded.
    """
    return _BEHIND.sub(r"\1", _USER.sub("", text))
