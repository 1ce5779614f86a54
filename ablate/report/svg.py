"""matplotlib's SVG made small enough to lie in a page by the dozen, and as a data address."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_PATH = re.compile(r" ?([A-Za-z]) ?")
_DROPPED = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL)
# What must not stand bare in an address inside a quoted attribute.
_ESCAPED = {"%": "%25", "#": "%23", "<": "%3C", ">": "%3E", '"': "'", "&": "%26"}


def smaller(content: bytes) -> str:
    """The same picture in about two thirds of the characters: hundredths of a point, no comments, no
    groups' names, nothing that is empty."""
    text = _DROPPED.sub("", content.decode())
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = _NUMBER.sub(lambda match: _short(float(match.group())), text)
    text = re.sub(
        r'style="([^"]*)"', lambda m: 'style="' + re.sub(r"([:;]) ", r"\1", m[1]) + '"', text
    )
    text = text.replace("STIXGeneral-", "").replace("xlink:href", "href")
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r' d="([^"]*)"', lambda m: ' d="' + _PATH.sub(r"\1", m[1]).strip() + '"', text)
    text = text.replace("> <", "><")
    while "<g/>" in text or "<g></g>" in text:
        text = text.replace("<g/>", "").replace("<g></g>", "")
    return text.strip()


def _short(value: float) -> str:
    """Hundredths; four digits that matter below one, as a scale is."""
    shown = f"{value:.2f}" if abs(value) >= 1 else f"{value:.4g}"
    if "e" in shown:
        return "0"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def address(content: bytes) -> str:
    """`data:image/svg+xml,...` of the small picture, for a double-quoted attribute."""
    return "data:image/svg+xml," + "".join(_ESCAPED.get(c, c) for c in smaller(content))
