"""The figure of all studies: in what share of its universes each primary verdict and its sign stay the same.

Beside them, study by study, the planted control: two halves of the seeds of one arm, which never differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from ablate import words
from ablate.report import style
from ablate.report.figures import base
from ablate.report.findings import FIRM

FIGURE = "figures/universes"
NAMES = (FIGURE, *(f"{FIGURE}-{n}" for n in (2, 3, 4)))  # of its pages
_TALLEST = 8.3  # inches of a page's part
_LINE = 0.106  # inches of a line of text
_GAP = 0.45  # lines between two rows
_LETTERS, _HEAD = 66, 112  # of a line of a hypothesis, and of a study's question
_PANEL, _BESIDE = 0.6, 0.77  # where the panel begins and ends, in parts of the width
CONTROL = "Control: two halves of the seeds of one arm differ."

Row = tuple[
    list[str], Mapping[str, Any] | None
]  # lines of text; facts, None for a study's question


def names(entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The files that the figure takes, below the paper's folder and without suffix."""
    return [*NAMES[: len(_parts(entries))]]


def draw(entries: Mapping[str, Mapping[str, Any]], venue: str) -> dict[str, bytes]:
    """The figure's files, below the paper's folder. entries: by study, as in the manifest."""
    out: dict[str, bytes] = {}
    with style.paper_style(venue):
        for name, rows in zip(names(entries), _parts(entries), strict=True):
            made = style.files(_figure(rows))
            out |= {f"{name}.{kind}": made[kind] for kind in ("pdf", "png")}
    return out


def control_words(control: Mapping[str, Any]) -> str:
    """How often the planted control is said to differ, or why that isn't known."""
    if control["share"] is None:
        return f"not measured: {control['reason']}"
    return f"no difference in {words.percent(1.0 - control['share'], 1)}"


def _rows(entry: Mapping[str, Any]) -> list[Row]:
    """A study's question, its primary hypotheses and its control."""
    out: list[Row] = [(base.wrap(entry["question"], _HEAD), None)]
    out += [
        (base.wrap(one["says"], _LETTERS), {**one, "said": _said(one)})
        for one in entry["findings"]
        if one["primary"]
    ]
    control = entry["control"]
    held = None if control["share"] is None else 1.0 - control["share"]
    said = "not measured" if held is None else control_words(control)
    told = {"stands": held, "same_sign": None, "said": said}
    return [*out, (base.wrap(CONTROL, _LETTERS), told)]


def _said(facts: Mapping[str, Any]) -> str:
    """`supported: 67 % of 30`."""
    if facts["stands"] is None:
        return str(facts["verdict"])
    return f"{facts['verdict']}: {words.percent(facts['stands'], 0)} of {facts['universes']}"


def _height(rows: list[Row]) -> float:
    """In lines."""
    return sum(len(text) + _GAP for text, _ in rows)


def _parts(entries: Mapping[str, Mapping[str, Any]]) -> list[list[Row]]:
    """The rows of every page's part; a study isn't torn apart."""
    parts: list[list[Row]] = []
    for _, entry in sorted(entries.items()):
        rows = _rows(entry)
        high = (_height(parts[-1] if parts else []) + _height(rows)) * _LINE > _TALLEST
        if not parts or (high and len(parts) < len(NAMES)):
            parts.append([])
        parts[-1] += rows
    return parts


def _figure(rows: list[Row]) -> Figure:
    lines = _height(rows)
    whole = (lines + 5.6) * _LINE
    figure = Figure(figsize=(style.width(), whole))
    figure.set_layout_engine("none")  # its columns have the places that they are given
    bottom, top = 3.2 * _LINE / whole, 1 - 2.2 * _LINE / whole
    panel = figure.add_axes((_PANEL, bottom, _BESIDE - _PANEL, top - bottom))
    panel.set(xlim=(0, 1), ylim=(lines, 0), yticks=[], xticks=[0, 0.5, FIRM])
    panel.set_xticklabels(["0 %", "50 %", words.percent(FIRM, 0)])
    panel.tick_params(axis="x", labelsize=style.SMALL)
    panel.spines["left"].set_visible(False)
    panel.set_xlabel("share of universes", fontsize=style.SMALL)

    def write(x: float, line: float, text: str, **options: Any) -> None:
        y = top - (top - bottom) * line / lines
        figure.text(x, y, text, fontsize=style.SMALL, linespacing=1.0, va="center", **options)

    heads = (
        (0.0, "primary hypothesis"),
        (_PANEL, "filled: same verdict\nopen: same sign"),
        (_BESIDE + 0.02, "verdict: the same in"),
    )
    for x, head in heads:
        write(x, -1.0, head, color=base.GREY)
    line = 0.0
    for text, facts in rows:
        middle = line + (len(text) + _GAP) / 2
        if facts is None:
            write(0.0, middle, "\n".join(text), weight="bold")
        else:
            write(0.01, middle, "\n".join(text))
            said = (
                base.wrap(facts["said"], 24)[: max(1, len(text))]
                if len(text) > 1
                else [facts["said"]]
            )
            write(_BESIDE + 0.02, middle, "\n".join(said))
            _shares(panel, facts, middle)
        line += len(text) + _GAP
    return figure


def _shares(panel: Any, facts: Mapping[str, Any], place: float) -> None:
    """The share with the same verdict, filled, and with the same sign, open, on a line to all."""
    stands, sign = facts["stands"], facts["same_sign"]
    if stands is None:
        return
    fragile = stands < FIRM
    panel.plot([0, 1], [place] * 2, color="#dddddd", linewidth=0.5, zorder=1)
    panel.plot([FIRM] * 2, [place - 0.6, place + 0.6], color="#909090", linewidth=0.8, zorder=1)
    if sign is not None:
        panel.plot(sign, place, "o", markersize=5.5, markerfacecolor="none", markeredgecolor="#000000",
                   markeredgewidth=0.7, clip_on=False, zorder=3)  # fmt: skip
    panel.plot(
        stands,
        place,
        "X" if fragile else "o",
        color="#000000" if fragile else "#606060",
        markersize=3.6,
        markeredgewidth=0,
        clip_on=False,
        zorder=4,
    )
