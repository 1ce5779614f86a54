"""The declared contrasts with their intervals, margins and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ablate.report import style
from ablate.report import text as words
from ablate.report.figures import base
from ablate.report.findings import Finding

_MOST_LABELLED = 6  # claims with a line of their own; more share one line as ticks
_STEP = 0.66  # height of a claim, in rows
_ROW = 0.16  # inches
_BELOW = 0.38  # how far below its estimate the population's lies, in rows


def draw(findings: Sequence[Finding], absolute: bool = False) -> base.Drawn | None:
    """One row a hypothesis with its claims below it, one panel a metric; None without any tested.

    absolute: those about a mean of the metric itself, which have a scale of their own, instead of
    those about differences.
    """
    tested = [finding for finding in findings if finding.tested and finding.absolute == absolute]
    if not tested:
        return None
    metrics = list(dict.fromkeys(finding.metric for finding in tested))
    groups = [[finding for finding in tested if finding.metric == metric] for metric in metrics]
    heights = [sum(_height(finding) for finding in group) for group in groups]
    figure = style.new_figure(sum(heights) * _ROW + 0.42 * len(groups) + 0.1)
    panels = figure.subplots(len(groups), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[
        :, 0
    ]
    beyond = False
    for panel, metric, group in zip(panels, metrics, groups, strict=True):
        bars = _panel(panel, group)
        if not absolute:
            beyond |= base.zoom(panel, bars)
        label = words.axis(metric)
        panel.set_xlabel(label if absolute else f"contrast of {label}")
        if not absolute:
            panel.axvline(0, color="#000000", linewidth=0.5, zorder=1)
    what = "mean" if absolute else "contrast"
    return base.Drawn(
        name="forest_means" if absolute else "forest",
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
                if any(finding.other is not None for finding in tested)
                else ""
            )
            + "On the right: estimate, interval and verdict, whose "
            "colours are green (supported), blue (equivalent), orange (refuted) and grey "
            "(inconclusive)." + base.OFF_AXIS * beyond
        ),
        trials=tuple(trial for finding in tested for trial in finding.trials),
        script="ablate/report/figures/forest.py",
    )


def _height(finding: Finding) -> float:
    claims = len(finding.parts)
    if claims < 2:
        return 1.0
    return 1.25 + _STEP * (claims if claims <= _MOST_LABELLED else 1)


def _panel(panel: Any, group: Sequence[Finding]) -> list[tuple[float, float, float, str]]:
    """Draw the rows; returns each hypothesis's interval as (low, high, height, colour)."""
    bars = []
    ticks: list[tuple[float, str, bool]] = []  # height, label, whether it is a hypothesis
    top = 0.0
    for finding in group:
        height = _height(finding)
        _margin(panel, finding, top, top + height)
        _estimate(panel, finding, top + 0.5)
        _other(panel, finding, top + 0.5 + _BELOW)
        bars.append((finding.low, finding.high, top + 0.5, style.VERDICTS[finding.verdict]))
        ticks.append((top + 0.5, finding.id, True))
        ticks += _claims(panel, finding, top + 1.05 + 0.3 * _STEP)
        top += height
        panel.axhline(top, color="#dddddd", linewidth=0.4, zorder=0)
    panel.set_ylim(top, 0)
    panel.set_yticks([place for place, _, _ in ticks], [name for _, name, _ in ticks])
    for label, (_, _, main) in zip(panel.get_yticklabels(), ticks, strict=True):
        label.set_fontsize(7 if main else 5.5)
        label.set_color("#000000" if main else "#555555")
    panel.tick_params(axis="y", length=0)
    return bars


def _estimate(panel: Any, finding: Finding, row: float) -> None:
    colour = style.VERDICTS[finding.verdict]
    _bar(panel, row, finding.low, finding.high, colour, 1.3)
    panel.plot(
        finding.estimate,
        row,
        marker="o",
        markersize=4,
        markerfacecolor=colour if finding.primary else "white",
        markeredgecolor=colour,
        markeredgewidth=0.9,
        zorder=4,
    )
    shown = f"{finding.shown_estimate}  [{finding.shown_interval}]  {finding.verdict}"
    panel.text(
        1.02,
        row,
        shown,
        transform=panel.get_yaxis_transform(),
        va="center",
        fontsize=6.5,
    )


def _other(panel: Any, finding: Finding, row: float) -> None:
    """The estimand that doesn't decide; its ends may lie beyond the axis."""
    part = finding.other
    if part is None:
        return
    panel.plot([part.low, part.high], [row] * 2, color="#444444", linewidth=0.6, zorder=2)
    panel.plot(
        part.estimate,
        row,
        marker="D",
        markersize=2.2,
        markerfacecolor="white",
        markeredgecolor="#444444",
        markeredgewidth=0.6,
        zorder=4,
    )


def _claims(panel: Any, finding: Finding, place: float) -> list[tuple[float, str, bool]]:
    """The separate claims below a hypothesis; returns their labels."""
    parts = finding.parts
    if len(parts) < 2:
        return []
    if len(parts) > _MOST_LABELLED:
        estimates = [part.estimate for part in parts]
        panel.plot(estimates, [place] * len(parts), "|", markersize=4, color="#777777", zorder=3)
        alone = all(p.label.startswith("data ") and ", " not in p.label for p in parts)
        what = "data sets" if alone else "claims"
        return [(place, f"{len(parts)} {what}", False)]
    ticks = []
    for index, part in enumerate(parts):
        here = place + index * _STEP
        _bar(panel, here, part.low, part.high, "#999999", 0.7)
        panel.plot(part.estimate, here, "|", markersize=3, color="#555555", zorder=3)
        ticks.append((here, words.claim(part.label), False))
    return ticks


def _margin(panel: Any, finding: Finding, top: float, bottom: float) -> None:
    if finding.test == "equivalence" and finding.margin is not None:
        ends = [finding.around - finding.margin, finding.around + finding.margin]
        panel.fill_between(ends, top, bottom, color="#000000", alpha=0.1, linewidth=0, zorder=0)
    elif finding.test == "superiority":
        panel.plot(
            [finding.threshold] * 2,
            [top, bottom],
            color="#000000",
            linestyle=(0, (2, 2)),
            linewidth=0.7,
        )
    elif finding.around:
        panel.plot([finding.around] * 2, [top, bottom], color="#000000", linewidth=0.7)


def _bar(panel: Any, row: float, low: float, high: float, colour: str, width: float) -> None:
    panel.plot(
        [low, high], [row, row], color=colour, linewidth=width, solid_capstyle="butt", zorder=3
    )
