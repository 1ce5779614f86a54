"""Score distributions and the probability of improvement."""

from __future__ import annotations

import itertools
import math

import pandas as pd

from ablate import words
from ablate.analyse.aggregate import point
from ablate.analyse.profiles import grid, improvement, profile
from ablate.analyse.strata import Strata, strata
from ablate.errors import UserError
from ablate.registry import register
from ablate.report import style, summaries
from ablate.report.figures import base
from ablate.report.results import Results

MOST_PAIRS = 15  # more are compared with the best only
MOST_BANDS = 6  # more hide each other


@register("figure", "profiles", order=75)
def draw(results: Results) -> base.Drawn | None:
    """Left: share of runs above each score, with pointwise bands; right: how often one beats another.

    None unless several levels of a factor were run on the same data sets, in normalised points, as only these
    mean the same on all of them.
    """
    response = words.response(results.metric)
    compared = _compared(results) if response.points else None
    if compared is None:
        return None
    by, held, variants = compared
    scores = variants.scores
    looks = style.looks(by, words.levels(by, scores))
    pairs = list(itertools.combinations(looks, 2))
    best = max(looks, key=lambda name: point(scores[name], "iqm"))
    among = "the first beats one of the second"
    if len(pairs) > MOST_PAIRS:
        pairs = [(best, name) for name in looks if name != best]
        among = f"{words.level(by, best)}, which has the highest IQM, beats one of another"
    figure = style.new_figure(max(2.1, 0.15 * len(pairs) + 0.75))
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.25, 1.0]})
    tau = grid(list(scores.values()))
    banded = len(looks) <= MOST_BANDS
    for name, look in looks.items():
        found = profile(scores[name], tau, name=f"{results.metric}/{name}", banded=banded)
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
            label=words.level(by, name),
        )
    left.set_xlabel(response.axis())
    left.set_ylabel("share of runs above")
    left.set_ylim(-0.02, 1.02)
    for row, (first, second) in enumerate(pairs):
        one = improvement(scores[first], scores[second])
        if not math.isnan(one.low):
            low, high = max(one.low, 0.0), min(one.high, 1.0)
            right.plot([low, high], [row] * 2, color="#333333", linewidth=1.0)
        right.plot(one.value, row, "o", color="#333333", markersize=3.4, markeredgewidth=0)
    right.axvline(0.5, color="#000000", linewidth=0.5, linestyle=(0, (2, 2)))
    right.set_yticks(
        range(len(pairs)),
        [f"{words.level(by, a)} > {words.level(by, b)}" for a, b in pairs],
        fontsize=style.SMALL,
    )
    right.set_xlim(-0.02, 1.02)
    right.set_ylim(len(pairs) - 0.5, -0.5)
    right.tick_params(axis="y", length=0)
    right.set_xlabel("probability that the first scores more")
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside upper center", ncols=min(len(looks), 6)
    )
    return base.Drawn(
        figure=figure,
        title="Score distributions",
        caption=(
            f"Left: share of runs that score more than the value below, averaged over "
            f"{words.count(len(variants.names), 'data set')}"
            f"{', at ' + held if held else ''}"
            + (", with pointwise 95 % stratified bootstrap bands" if banded else "")
            + f". Right: probability that a run of {among} on the same data set, ties counting half, "
            "with 95 % Brunner–Munzel intervals; none where all runs of one beat all of the other "
            "everywhere, which shows no spread."
        ),
        trials=variants.trials,
        appended=True,
    )


def _compared(results: Results) -> tuple[str, str, Strata] | None:
    """The factor whose levels are compared, at which levels of the others, and their scores on the data sets
    that most of them were run on; None where there is no such comparison."""
    metric = results.metric
    view = summaries.view(results.rows, metric, results.study.hypotheses)
    if view is None:
        return None
    by = view.series if view.ordered else view.across
    if not by:
        return None
    other = view.across if view.ordered else view.series
    parts, said = [], ""
    for _, rows in view.panels.values():
        if other:
            last = words.levels(other, rows[other].unique())[-1]
            rows, said = rows[rows[other] == last], f"the last {words.factor(other).label}"
        if rows[by].nunique() > 1:
            parts.append(rows[["trial", "data", by, "seed", metric]])
    if not parts:
        return None
    table = pd.concat(parts)
    data_sets = table.groupby(by, observed=True)["data"].nunique()
    most = data_sets[data_sets == data_sets.max()].index
    try:
        found = strata(
            table[table[by].isin(most if len(most) > 1 else data_sets.index)], [by], metric
        )
    except UserError:
        return None
    return (by, said, found) if len(found.scores) > 1 else None
