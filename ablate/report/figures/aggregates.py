"""IQM, median, mean and optimality gap by variant."""

from __future__ import annotations

import math

from ablate.analyse.aggregate import STATISTICS, aggregates
from ablate.report import style
from ablate.report import text as words
from ablate.report.figures import base
from ablate.report.figures.variants import Variants

_ROW = 0.17  # inches
_TITLES = {"iqm": "IQM", "median": "median", "mean": "mean", "optimality gap": "optimality gap"}


def draw(variants: Variants | None, metric: str = "score") -> base.Drawn | None:
    """One panel a statistic, one row a variant, with corrected and plain bootstrap intervals."""
    if variants is None:
        return None
    statistics = STATISTICS if metric == "score" else STATISTICS[:-1]
    looks = variants.looks
    figure = style.new_figure(_ROW * len(looks) + 0.62)
    panels = figure.subplots(1, len(statistics), sharey=True)
    for row, (name, look) in enumerate(looks.items()):
        found = aggregates(variants.found.scores[name], statistics, name=f"{metric}/{name}")
        for panel, one in zip(panels, found, strict=True):
            if not math.isnan(one.low):
                ends = [one.low, one.high]
                panel.plot(ends, [row] * 2, color=look.colour, linewidth=1.4, zorder=2)
                plain = [one.plain_low, one.plain_high]
                panel.plot(plain, [row] * 2, "|", color="#1a1a1a", markersize=4, zorder=3)
            panel.plot(
                one.value, row, look.marker, color=look.colour, markersize=4.2, markeredgewidth=0
            )
    for panel, name in zip(panels, statistics, strict=True):
        panel.set_title(_TITLES[name])
        panel.locator_params(axis="x", nbins=4)
        panel.tick_params(axis="y", length=0)
        panel.margins(x=0.08)
    panels[0].set_yticks(range(len(looks)), [variants.label(name) for name in looks])
    panels[0].set_ylim(len(looks) - 0.5, -0.5)
    figure.supxlabel(words.axis(metric), fontsize=panels[0].xaxis.label.get_size())
    strata = variants.found
    return base.Drawn(
        name="aggregates",
        figure=figure,
        title="Aggregates over data sets",
        caption=(
            f"Aggregates over {words.count(len(strata.names), 'data set')}"
            f"{', ' + variants.held if variants.held else ''}: interquartile mean of all runs, "
            "median of the data sets' means, mean, "
            + (
                "and optimality gap (below 100 points; lower is better)"
                if metric == "score"
                else ""
            )
            + ". Bars: 95 % stratified bootstrap intervals for new seeds, corrected for small "
            "numbers of seeds; ticks: the plain percentile intervals in common use, which are too "
            "narrow." + _left_out(variants)
        ).replace(", .", "."),
        trials=strata.trials,
        script="ablate/report/figures/aggregates.py",
    )


def _left_out(variants: Variants) -> str:
    lost = variants.found.left_out
    return f" Left out: {words.listing(lost)}." if lost else ""
