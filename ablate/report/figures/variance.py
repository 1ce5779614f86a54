"""Where the scores vary: variance components and omega squared."""

from __future__ import annotations

import math

from ablate import words
from ablate.analyse.variance import SEED
from ablate.registry import register
from ablate.report import style
from ablate.report.figures import base
from ablate.report.further import term
from ablate.report.results import Results

_ROW = 0.19  # inches
_WITH_DATA, _FACTORS, _SEEDS = "#56b4e9", "#0173b2", "#949494"


@register("figure", "variance", order=70)
def draw(results: Results) -> base.Drawn | None:
    """Bars of the standard deviation of each source, with its share of the variance; None where it can't be
    taken apart."""
    found, response = results.further.variance, words.response(results.metric)
    if found is None:
        return None
    grouped = found.grouped()
    total = sum(max(value, 0.0) for value in grouped.values())
    if total <= 0.0:
        return None
    figure = style.new_figure(_ROW * len(grouped) + 0.5)
    panel = figure.subplots()
    for row, (name, value) in enumerate(grouped.items()):
        spread = math.sqrt(max(value, 0.0))
        colour, hatch = _FACTORS, ""
        if name == SEED:
            colour, hatch = _SEEDS, "////"
        elif name == "data" or name.endswith("data"):
            colour, hatch = _WITH_DATA, ""
        panel.barh(
            row, spread, height=0.66, color=colour, hatch=hatch, edgecolor="white", linewidth=0
        )
        part = 100 * max(value, 0.0) / total
        said = "none found" if value <= 0.0 else f"{part:.0f} %" if part >= 1.0 else "< 1 %"
        panel.annotate(
            f"{response.amount(spread)}  ({said})",
            (spread, row),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=style.SMALL,
        )
    panel.set_yticks(range(len(grouped)), [term(name) for name in grouped])
    panel.set_ylim(len(grouped) - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)
    panel.margins(x=0.2)
    panel.set_xlim(left=0.0)
    panel.set_xlabel(f"standard deviation of {response.axis()}")
    whole = f"{found.n_cells:,} cells"
    if found.n_cells < found.n_possible:
        whole += f" of {found.n_possible:,} possible"
    return base.Drawn(
        figure=figure,
        title="Where the scores vary",
        caption=(
            f"Where the scores vary: standard deviation by source and its share of the variance, by "
            f"{found.method} from {whole}, all effects taken as random. Light bars: data sets and what "
            "depends on them, which only more data sets average out; hatched: seeds within cells. "
            "Standard deviations don't add up; variances do. A factor with a small share may still differ for sure: "
            "a contrast is about means over many trials, this figure about single ones."
        ),
        trials=found.trials,
        appended=True,
        also={"variance": {" x ".join(term): value for term, value in found.variance.items()}},
    )
