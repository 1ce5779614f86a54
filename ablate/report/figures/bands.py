"""Learning curves over data sets with intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ablate.analyse.curves import bands
from ablate.errors import UserError
from ablate.report import style
from ablate.report import text as words
from ablate.report.figures import base
from ablate.report.figures.variants import Variants

MEASURES = {  # what curves may hold, with its title
    "score": "score (points)",
    "action_error": "action error",
    "heldout_loss": "held-out loss",
}


def draw(variants: Variants | None, table: pd.DataFrame, curves: pd.DataFrame) -> base.Drawn | None:
    """One panel a measure that was recorded at several updates; None without any.

    The runs are those of `variants`.
    """
    if variants is None or "trial" not in curves.columns:
        return None
    rows = table[table["trial"].isin(variants.found.trials)]
    rows = rows[[n for n in ("trial", "status", "data", variants.by, "seed") if n in rows]]
    made = {}
    for measure in MEASURES:
        if measure not in curves.columns or curves[measure].notna().sum() == 0:
            continue
        try:
            found = bands(rows, curves, [variants.by], measure)
        except UserError:
            continue
        first = next(iter(found.bands.values()))
        if len(first.updates) > 1:
            made[measure] = found
    if not made:
        return None
    figure = style.new_figure(2.0)
    panels = figure.subplots(1, len(made), squeeze=False)[0]
    looks = variants.looks
    for panel, (measure, found) in zip(panels, made.items(), strict=True):
        unit = 100.0 if found.share else 1.0
        for name, look in looks.items():
            band = found.bands.get(name)
            if band is None:
                continue
            if np.isfinite(band.low).all():
                panel.fill_between(
                    unit * band.updates,
                    band.low,
                    band.high,
                    color=look.colour,
                    alpha=0.16,
                    linewidth=0,
                )
            panel.plot(
                unit * band.updates,
                band.mean,
                color=look.colour,
                linestyle=look.line,
                marker=look.marker,
                markevery=max(1, len(band.updates) // 6),
                markeredgewidth=0,
                label=variants.label(name),
            )
        panel.set_xlabel("share of the updates (%)" if found.share else "update")
        panel.set_title(MEASURES[measure])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(looks), 6))
    notes = dict.fromkeys(note for found in made.values() for note in found.left_out)
    trials = dict.fromkeys(trial for found in made.values() for trial in found.trials)
    count = len(next(iter(made.values())).data_sets)
    shares = any(found.share for found in made.values())
    return base.Drawn(
        name="learning_bands",
        figure=figure,
        title="Learning curves over data sets",
        caption=(
            f"Learning curves: mean over {words.count(count, 'data set')} of the means over seeds"
            f"{', ' + variants.held if variants.held else ''}; bands are pointwise 95 % "
            "Welch–Satterthwaite intervals for new seeds."
            + (" Numbers of updates differ; each curve stands over its own." if shares else "")
            + (f" Left out: {words.listing(notes)}." if notes else "")
        ),
        trials=tuple(trials),
        script="ablate/report/figures/bands.py",
    )
