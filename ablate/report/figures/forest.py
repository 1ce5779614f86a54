"""The declared contrasts with their intervals, margins and verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ablate import words
from ablate.registry import register
from ablate.report import style
from ablate.report.figures import base
from ablate.report.findings import Finding
from ablate.report.results import Results

_MOST_LABELLED = 6  # claims with a line of their own; more share one line as ticks
_LINE = 0.122  # inches of a line of text
_LETTERS = 46  # of a line on the left
_CLAIM = 1.15  # lines of a claim
_ZERO = "#b0b0b0"


@register("figure", "forest", order=10)
def draw(results: Results) -> base.Drawn | None:
    """One row a hypothesis with its claims below it, one panel a response; None without any tested.

    Those about a mean of the response itself have a scale of their own, and stand in the table; they are shown
    where there are no others.
    """
    return forest(results.findings)


def forest(findings: Sequence[Finding]) -> base.Drawn | None:
    """The figure of these findings."""
    tested = [finding for finding in findings if finding.tested]
    shown = [finding for finding in tested if not finding.absolute] or tested
    if not shown:
        return None
    kinds = list(dict.fromkeys(finding.response for finding in shown))
    groups = [[finding for finding in shown if finding.response == kind] for kind in kinds]
    heights = [sum(_height(finding) for finding in group) for group in groups]
    figure = style.new_figure(sum(heights) * _LINE + 0.45 * len(groups) + 0.1)
    panels = figure.subplots(len(groups), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    beyond = False
    for panel, response, group in zip(panels[:, 0], kinds, groups, strict=True):
        beyond |= _panel(panel, group)
        absolute = group[0].absolute
        panel.set_xlabel(response.axis() if absolute else response.axis("contrast of"))
        if not absolute:
            panel.axvline(0, color=_ZERO, linewidth=0.8, zorder=0.5)
    what = "mean" if shown[0].absolute else "contrast"
    left = len(tested) - len(shown)
    return base.Drawn(
        figure=figure,
        title=f"Declared {what}s and their margins",
        caption=(
            f"Every declared {what} that has its trials: estimate and interval (filled: "
            "primary; open: secondary). The band is the margin of an equivalence, the dashed "
            "line the threshold of a superiority. In grey the separate claims of a hypothesis "
            "that must hold at each level or for each pair; where there are many, only their "
            "estimates, as ticks on one line. "
            + (
                "The thin line with a diamond below an estimate is the same contrast under the "
                "estimand that doesn't decide: for new data sets, where the hypothesis is about new "
                "seeds, and the other way about. "
                if any(finding.other is not None for finding in shown)
                else ""
            )
            + "On the right: estimate, interval and verdict, whose "
            "colours are green (supported), blue (equivalent), orange (refuted) and grey "
            "(any other)."
            + (
                f" {words.capital(words.count(left, 'claim'))} about a mean itself "
                f"{'stands' if left == 1 else 'stand'} in the table."
                if left
                else ""
            )
            + base.OFF_AXIS * beyond
        ),
        trials=tuple(trial for finding in shown for trial in finding.trials),
    )


def _label(finding: Finding) -> list[str]:
    """The claim in lines, with its short name."""
    return base.wrap(f"{finding.says.rstrip('.')} ({finding.id})", _LETTERS)


def _height(finding: Finding) -> float:
    """Lines of text that the rows of a hypothesis take."""
    head = max(len(_label(finding)), 2.0) + 0.8
    claims = len(finding.parts)
    if claims < 2:
        return head
    return head + _CLAIM * (claims if claims <= _MOST_LABELLED else 1) + 0.2


def _panel(panel: Any, group: Sequence[Finding]) -> bool:
    """Draw the rows; returns whether an interval goes on beyond the axis."""
    bars: list[base.Bar] = []
    beside: list[base.Bar] = []
    thin: list[base.Bar] = []
    within: list[float] = [] if group[0].absolute else [0.0]
    names: list[tuple[float, str, bool]] = []  # height, label, whether it is a hypothesis
    top = 0.0
    for finding in group:
        height = _height(finding)
        head = max(len(_label(finding)), 2.0) + 0.8
        middle = top + head / 2
        colour = style.VERDICTS.get(finding.verdict, style.UNDECIDED)
        within += [finding.estimate, *_margin(panel, finding, top, top + height)]
        _estimate(panel, finding, middle, colour)
        bars.append((finding.low, finding.high, middle, colour))
        if finding.other is not None:
            _other(panel, finding, middle + 0.75)
            other = (finding.other.low, finding.other.high, middle + 0.75, "#444444")
            beside.append(other)
            thin.append(other)
        names.append((middle, "\n".join(_label(finding)), True))
        rows = _claims(panel, finding, top + head + 0.5)
        claims = [(part.low, part.high, place, "#999999") for place, _, part in rows if part]
        bars += claims
        thin += claims
        names += [(place, label, False) for place, label, _ in rows]
        top += height
        panel.axhline(top, color="#dddddd", linewidth=0.4, zorder=0)
    panel.set_ylim(top, 0)
    panel.set_yticks([place for place, _, _ in names], [name for _, name, _ in names])
    for label, (_, _, main) in zip(panel.get_yticklabels(), names, strict=True):
        label.set_fontsize(style.SMALL)
        label.set_linespacing(1.0)
        label.set_color("#000000" if main else base.GREY)
    panel.tick_params(axis="y", length=0)
    beyond = base.zoom(panel, bars, within, beside)
    for low, high, place, colour in (*bars, *beside):
        width = 0.7 if (low, high, place, colour) in thin else 1.5
        ends = [_inside(panel, low), _inside(panel, high)]
        panel.plot(
            ends, [place] * 2, color=colour, linewidth=width, solid_capstyle="butt", zorder=3
        )
    return beyond


def _inside(panel: Any, value: float) -> float:
    left, right = panel.get_xlim()
    return float(min(max(value, left), right))


def _estimate(panel: Any, finding: Finding, row: float, colour: str) -> None:
    panel.plot(
        finding.estimate,
        row,
        marker="o",
        markersize=4.5,
        markerfacecolor=colour if finding.primary else "white",
        markeredgecolor=colour,
        markeredgewidth=1.0,
        zorder=4,
    )
    panel.text(
        1.02,
        row,
        f"{finding.shown_estimate}  [{finding.shown_interval}]\n{finding.verdict}",
        transform=panel.get_yaxis_transform(),
        va="center",
        fontsize=style.SMALL,
        linespacing=1.05,
    )


def _other(panel: Any, finding: Finding, row: float) -> None:
    """The estimate under the estimand that doesn't decide."""
    assert finding.other is not None
    panel.plot(
        finding.other.estimate,
        row,
        marker="D",
        markersize=2.4,
        markerfacecolor="white",
        markeredgecolor="#444444",
        markeredgewidth=0.6,
        zorder=4,
    )


def _claims(panel: Any, finding: Finding, place: float) -> list[tuple[float, str, Any]]:
    """The separate claims below a hypothesis: place, label, and the part with an interval of its own."""
    parts = finding.parts
    if len(parts) < 2:
        return []
    if len(parts) > _MOST_LABELLED:
        estimates = [part.estimate for part in parts]
        panel.plot(estimates, [place] * len(parts), "|", markersize=5, color="#777777", zorder=3)
        alone = all(p.label.startswith("data ") and ", " not in p.label for p in parts)
        return [(place, f"{len(parts)} {'data sets' if alone else 'claims'}", None)]
    rows = []
    for index, part in enumerate(parts):
        here = place + index * _CLAIM
        panel.plot(part.estimate, here, "|", markersize=4, color="#555555", zorder=3)
        rows.append((here, words.claim(part.label), part))
    return rows


def _margin(panel: Any, finding: Finding, top: float, bottom: float) -> list[float]:
    """Draw the margin or the threshold; the values that must lie on the axis."""
    if finding.test == "equivalence" and finding.margin is not None:
        ends = [finding.around - finding.margin, finding.around + finding.margin]
        panel.fill_between(ends, top, bottom, color="#000000", alpha=0.1, linewidth=0, zorder=0)
        return ends
    at = finding.threshold if finding.test == "superiority" else finding.around
    dashed = finding.test == "superiority"
    if at and math.isfinite(at):
        panel.plot(
            [at] * 2,
            [top, bottom],
            color="#000000",
            linestyle=(0, (2, 2)) if dashed else "-",
            linewidth=0.7,
        )
        return [at]
    return []
