"""The multiverse as a specification curve."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from ablate import words
from ablate.analyse.multiverse import AXES, Multiverse
from ablate.registry import register
from ablate.report import style
from ablate.report.figures import base
from ablate.report.findings import Finding
from ablate.report.results import Results

MOST = 3  # hypotheses beside each other
_LETTERS = {"supported": "o", "equivalent": "s", "refuted": "X", "inconclusive": "."}
_AXES = {**dict(zip(AXES, AXES, strict=True)), "summary": "cell by"}


@register("figure", "multiverse", order=80)
def draw(results: Results) -> base.Drawn | None:
    """Above: each universe's estimate, in order of size; below: the choices that make it. The first MOST
    hypotheses are shown; None for a single universe."""
    found = results.further.multiverse
    if found is None or found.universes < 2:
        return None
    findings = {finding.id: finding for finding in results.findings}
    tested = found.rows[np.isfinite(found.rows["estimate"])]["hypothesis"].unique().tolist()
    names = tested[:MOST]
    if not names:
        return None
    options = [(axis, o) for axis, all_of in found.axes.items() if len(all_of) > 1 for o in all_of]
    figure = style.new_figure(2.05 + 0.14 * len(options))
    panels = figure.subplots(
        2,
        len(names),
        squeeze=False,
        sharex="col",
        gridspec_kw={"height_ratios": [1.35, max(0.14 * len(options), 0.3)]},
    )
    shares = {str(row["hypothesis"]): row for row in found.shares.to_dict("records")}
    for column, name in enumerate(names):
        top, below = panels[0][column], panels[1][column]
        rows = found.rows[found.rows["hypothesis"] == name]
        # the last digits, which depend on the processor, order nothing
        size = rows["estimate"].map(lambda value: float(f"{value:.9g}"))
        rows = rows.assign(size=size).sort_values(["size", "universe"]).reset_index(drop=True)
        _estimates(top, rows)
        _choices(below, rows, options)
        share = shares[name]
        stands = f"{share['verdict']}: stands in {words.percent(float(share['stands']), 0)}"
        base.title(top, f"{findings[name].says.rstrip('.')} ({name})", stands)
        base.label(top, findings[name].response.axis("contrast of"))
        if column:
            below.set_yticks([])
        below.set_xticks([])
        below.set_xlabel(f"{len(rows)} universes")
    panels[1][0].set_yticks(range(len(options)), [_option(axis, o) for axis, o in options])
    panels[1][0].tick_params(axis="y", labelsize=style.SMALL, length=0)
    present = [v for v in style.VERDICTS if v in set(found.rows["verdict"])]
    handles = [
        Line2D([], [], color=style.VERDICTS[v], marker=_LETTERS[v], linestyle="", label=v)
        for v in present
    ]
    handles.append(
        Line2D(
            [],
            [],
            marker="o",
            linestyle="",
            color="black",
            markerfacecolor="none",
            markersize=7,
            markeredgewidth=0.7,
            label="as declared",
        )
    )
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), handlelength=1.0)
    return base.Drawn(
        figure=figure,
        title="The same runs, scored otherwise",
        caption=_caption(found, names, findings),
        trials=tuple(dict.fromkeys(t for name in names for t in findings[name].trials)),
        appended=True,
        also={"shares": found.shares.to_dict("records"), "unserved": found.unserved},
    )


def _estimates(panel: Any, rows: pd.DataFrame) -> None:
    """Estimates with intervals, coloured and marked by verdict; the declared one circled."""
    for place, row in enumerate(rows.itertuples(index=False)):
        colour = style.VERDICTS.get(str(row.verdict), "#949494")
        panel.plot([place] * 2, [row.low, row.high], color=colour, linewidth=0.6, zorder=2)
        marker = _LETTERS.get(str(row.verdict), ".")
        panel.plot(
            place, row.estimate, marker, color=colour, markersize=3, markeredgewidth=0, zorder=3
        )
        if row.universe == 0:
            panel.plot(
                place,
                row.estimate,
                "o",
                markersize=7,
                markerfacecolor="none",
                markeredgecolor="#000000",
                markeredgewidth=0.7,
                zorder=4,
            )
    panel.axhline(0.0, color="#000000", linewidth=0.5, zorder=1)
    middle, *ends = (rows[name].to_numpy(dtype=float) for name in ("estimate", "low", "high"))
    middle = middle[np.isfinite(middle)]
    reach = np.concatenate([middle, *(end[np.isfinite(end)] for end in ends)])  # some are unbounded
    low, high = np.quantile(reach, [0.03, 0.97])  # a few huge intervals are cut
    low, high = min(low, middle.min(), 0.0), max(high, middle.max(), 0.0)
    pad = 0.05 * max(high - low, 1e-9)
    panel.set_ylim(low - pad, high + pad)
    panel.set_xlim(-1, len(rows))
    panel.tick_params(axis="x", length=0)
    panel.locator_params(axis="y", nbins=6)


def _choices(panel: Any, rows: pd.DataFrame, options: list[tuple[str, str]]) -> None:
    """A tick in every row of an option that the universe takes."""
    for height, (axis, option) in enumerate(options):
        places = np.flatnonzero((rows[axis] == option).to_numpy())
        panel.plot(places, np.full(len(places), height), "|", color="#333333", markersize=3.6)
        if height and options[height - 1][0] != axis:
            panel.axhline(height - 0.5, color="#bbbbbb", linewidth=0.5)
    panel.set_ylim(len(options) - 0.5, -0.5)
    panel.spines["bottom"].set_visible(False)


def _option(axis: str, option: str) -> str:
    return f"{_AXES[axis]}: {option}"


def _caption(found: Multiverse, names: list[str], findings: dict[str, Finding]) -> str:
    said = (
        f"The same runs, scored otherwise: estimates in all {found.universes} universes in order of "
        "size, with 95 % intervals, judged by the study's own rule, and below the choices that make "
        "each universe. Blocks of seeds are disjoint; a share of universes counts the blocks of one "
        "size as one choice."
    )
    other = [row for row in found.shares.to_dict("records") if row["hypothesis"] not in names]
    if other:
        told = (
            f"{findings[r['hypothesis']].says.rstrip('.')} ({r['verdict']}) {words.percent(r['stands'], 0)}"
            for r in other
        )
        said += f" Shares in which the other verdicts stand: {'; '.join(told)}."
    return said
