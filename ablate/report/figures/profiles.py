"""Score distributions and the probability of improvement."""

from __future__ import annotations

import itertools
import math

from ablate.analyse.aggregate import point
from ablate.analyse.profiles import grid, improvement, profile
from ablate.report import style
from ablate.report import text as words
from ablate.report.figures import base
from ablate.report.figures.variants import Variants

MOST_PAIRS = 15  # more are compared with the best only
MOST_BANDS = 6  # more hide each other


def draw(variants: Variants | None, metric: str = "score") -> base.Drawn | None:
    """Left: share of runs above each score, with pointwise bands; right: how often one beats another."""
    if variants is None:
        return None
    looks = variants.looks
    scores = variants.found.scores
    pairs = list(itertools.combinations(looks, 2))
    best = max(looks, key=lambda name: point(scores[name], "iqm"))
    among = "the first beats one of the second"
    if len(pairs) > MOST_PAIRS:
        pairs = [(best, name) for name in looks if name != best]
        among = f"{variants.label(best)}, which has the highest IQM, beats one of another"
    figure = style.new_figure(max(2.1, 0.135 * len(pairs) + 0.75))
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.25, 1.0]})
    tau = grid(list(scores.values()))
    banded = len(looks) <= MOST_BANDS
    for name, look in looks.items():
        found = profile(scores[name], tau, name=f"{metric}/{name}")
        if banded:
            left.fill_between(
                tau, found.low, found.high, color=look.colour, alpha=0.13, linewidth=0
            )
        left.plot(
            tau,
            found.share,
            color=look.colour,
            linestyle=look.line,
            marker=look.marker,
            markevery=(5 + 3 * list(looks).index(name), 25),
            markeredgewidth=0,
            label=variants.label(name),
        )
    left.set_xlabel(words.axis(metric))
    left.set_ylabel("share of runs above")
    left.set_ylim(-0.02, 1.02)
    for row, (first, second) in enumerate(pairs):
        one = improvement(scores[first], scores[second])
        if not math.isnan(one.low):
            right.plot([one.low, one.high], [row] * 2, color="#333333", linewidth=1.0)
        right.plot(one.value, row, "o", color="#333333", markersize=3.4, markeredgewidth=0)
    right.axvline(0.5, color="#000000", linewidth=0.5, linestyle=(0, (2, 2)))
    right.set_yticks(
        range(len(pairs)),
        [f"{variants.label(a)} > {variants.label(b)}" for a, b in pairs],
        fontsize=6,
    )
    right.set_xlim(-0.02, 1.02)
    right.set_ylim(len(pairs) - 0.5, -0.5)
    right.tick_params(axis="y", length=0)
    right.set_xlabel("probability of improvement")
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside upper center", ncols=min(len(looks), 6)
    )
    strata = variants.found
    return base.Drawn(
        name="profiles",
        figure=figure,
        title="Score distributions",
        caption=(
            f"Left: share of runs that score more than the value below, averaged over "
            f"{words.count(len(strata.names), 'data set')}"
            f"{', ' + variants.held if variants.held else ''}"
            + (", with pointwise 95 % stratified bootstrap bands" if banded else "")
            + f". Right: probability that a run of {among} on the same data set, ties counting half, "
            "with 95 % Brunner–Munzel intervals; none where all runs of one beat all of the other "
            "everywhere, which shows no spread."
        ),
        trials=strata.trials,
        script="ablate/report/figures/profiles.py",
    )
