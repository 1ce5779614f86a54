"""How much of the gain each factor brings."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.lines import Line2D

from ablate import words
from ablate.analyse.attribution import Attribution, Share
from ablate.analyse.intervals import Estimate, interval
from ablate.registry import register
from ablate.report import style
from ablate.report.figures import base
from ablate.report.results import Results

_ROW = 0.3  # inches
_SHARE = "#0173b2"
_TOTAL = "#1a1a1a"
_BESIDE = "#777777"


@register("figure", "attribution", order=40)
def draw(results: Results) -> base.Drawn | None:
    """Shapley shares with both intervals, beside add-one-in and leave-one-out; None without any."""
    found = results.further.attribution
    if found is None:
        return None
    digits = words.response(found.metric).digits
    figure = style.new_figure(_ROW * (len(found.shares) + 1) + 0.75)
    panel = figure.subplots()
    for row, share in enumerate(found.shares):
        panel.plot(share.first.value, row + 0.24, ">", **_hollow())
        panel.plot(share.last.value, row + 0.24, "<", **_hollow())
        if len(share.by_data_set) > 1:
            single = [one.value for one in share.by_data_set.values()]
            panel.plot(single, [row - 0.2] * len(single), "|", color=_SHARE, markersize=4)
        _bar(panel, row, share.fixed, share.population, found.confidence, _SHARE, "o")
        _say(panel, row, _told(share.fixed, found.confidence, digits) + _percent(share))
    last = len(found.shares)
    panel.axhline(last - 0.45, color="#bbbbbb", linewidth=0.5)
    _bar(panel, last, found.total, found.total_population, found.confidence, _TOTAL, "s")
    _say(panel, last, _told(found.total, found.confidence, digits))
    panel.set_ylim(last + 0.5, -0.6)
    panel.set_yticks(range(last + 1), [*(s.change.name for s in found.shares), "total"])
    panel.tick_params(axis="y", length=0)
    panel.axvline(0.0, color="#b0b0b0", linewidth=0.8, zorder=0.5)
    panel.set_xlabel(f"share of the gain in {words.response(found.metric).axis()}")
    _limits(panel, found)
    handles = [
        Line2D([], [], color=_SHARE, marker="o", linewidth=1.6, label="Shapley share"),
        Line2D([], [], marker=">", linestyle="", label="alone, from the start", **_hollow()),
        Line2D([], [], marker="<", linestyle="", label="last, into the end", **_hollow()),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return base.Drawn(
        figure=figure,
        title="What brings the gain",
        caption=_caption(found),
        trials=found.trials,
        also={"changes": [share.change.words for share in found.shares]},
    )


def _hollow() -> dict[str, Any]:
    return {
        "color": _BESIDE,
        "markersize": 3.4,
        "markerfacecolor": "white",
        "markeredgewidth": 0.7,
        "zorder": 3,
    }


def _bar(
    panel: Any,
    row: int,
    fixed: Estimate,
    population: Estimate | None,
    confidence: float,
    colour: str,
    marker: str,
) -> None:
    """The estimate with the fixed interval thick and the population's thin above it."""
    if population is not None:
        panel.plot(
            interval(population, confidence), [row - 0.2] * 2, color=colour, linewidth=0.6, zorder=2
        )
    ends = interval(fixed, confidence)
    panel.plot(ends, [row] * 2, color=colour, linewidth=2.0, solid_capstyle="butt", zorder=3)
    panel.plot(fixed.value, row, marker, color=colour, markersize=4.2, markeredgewidth=0, zorder=4)


def _say(panel: Any, row: int, said: str) -> None:
    panel.text(
        1.02, row, said, transform=panel.get_yaxis_transform(), va="center", fontsize=style.SMALL
    )


def _told(estimate: Estimate, confidence: float, digits: int) -> str:
    low, high = interval(estimate, confidence)
    shown = words.number(estimate.value, digits, sign=True)
    return f"{shown}  [{words.interval(low, high, digits)}]"


def _percent(share: Share) -> str:
    if share.percent is None:
        return ""
    part = share.percent
    return f";  {words.number(part.value, 0)} %  [{words.interval(part.low, part.high, 0)}]"


def _limits(panel: Any, found: Attribution) -> None:
    """Room for the fixed intervals and the points; wider population intervals are cut with arrows."""
    values = [0.0]
    for share in found.shares:
        values += [*interval(share.fixed, found.confidence), share.first.value, share.last.value]
        values += [one.value for one in share.by_data_set.values()]
    values += interval(found.total, found.confidence)
    low, high = min(values), max(values)
    pad = 0.12 * max(high - low, 1e-9)
    low, high = low - pad, high + pad
    panel.set_xlim(low, high)
    rows = [(share.population, _SHARE) for share in found.shares]
    rows.append((found.total_population, _TOTAL))
    for row, (population, colour) in enumerate(rows):
        if population is None:
            continue
        left, right = interval(population, found.confidence)
        for beyond, edge, marker in ((left < low, low, "<"), (right > high, high, ">")):
            if beyond:
                panel.plot(
                    edge, row - 0.2, marker, color=colour, markersize=3, clip_on=False, zorder=5
                )


def _caption(found: Attribution) -> str:
    changes = words.listing(f"{share.change.name} ({share.change.words})" for share in found.shares)
    level = f"{100 * found.confidence:.3g} %"
    said = (
        f"What brings the gain: Shapley shares of {changes}, averaged over "
        f"{words.count(len(found.data_sets), 'data set')}; they sum to the total. Thick: {level} "
        "intervals for new seeds on these data sets"
        + (f" ({found.pairing})" if found.pairing else "")
    )
    if found.total_population is not None:
        said += (
            "; thin, above: Student's for new data sets, from the single data sets (ticks; an arrow "
            "at the border: it goes on beyond the axis)"
        )
    first = math.fsum(share.first.value for share in found.shares)
    last = math.fsum(share.last.value for share in found.shares)
    digits = words.response(found.metric).digits
    said += (
        ". Triangles: the same factor changed alone from the start, and as the last one into the "
        f"end; these sum to {words.number(first, digits)} and {words.number(last, digits)}, not to "
        f"the total of {words.number(found.total.value, digits)}."
    )
    if found.refusal:
        return f"{said} No percentages: {found.refusal}"
    return f"{said} Percentages of the total with Fieller intervals, for new seeds."
