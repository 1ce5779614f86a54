"""Learning curves at the longest context, one panel a data set."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ablate.report import style, summaries
from ablate.report.figures import base

MEASURES = {"heldout_loss": "held-out loss", "train_loss": "training loss"}


def draw(table: pd.DataFrame, curves: pd.DataFrame) -> base.Drawn | None:
    """Mean over seeds with the range of seeds as a band; None when no curve was recorded."""
    measure = next((m for m in MEASURES if m in curves.columns and curves[m].notna().any()), None)
    if measure is None:
        return None
    done = summaries.finished(table)
    panels = {}
    for name, levels in summaries.core(table).items():
        rows = summaries.at(done[done["data"] == name], levels)
        rows = rows[rows["context"] == rows["context"].max()]
        joined = curves[["trial", "update", measure]].merge(
            rows[["trial", "mixer", "context"]], on="trial"
        )
        joined = joined[np.isfinite(joined[measure].to_numpy(dtype=float))]
        if joined["update"].nunique() > 1:
            panels[name] = (levels, joined)
    if not panels:
        return None
    looks = style.mixers(m for _, joined in panels.values() for m in joined["mixer"].unique())
    figure, axes, spare = base.grid(len(panels), 3, 1.55)
    for place, (panel, (name, (levels, joined))) in enumerate(
        zip(axes, panels.items(), strict=True)
    ):
        for mixer, look in looks.items():
            group = joined[joined["mixer"] == mixer].groupby("update", sort=True)[measure]
            if len(group) == 0:
                continue
            mean, low, high = group.mean(), group.min(), group.max()
            panel.fill_between(mean.index, low, high, color=look.colour, alpha=0.12, linewidth=0)
            panel.plot(
                mean.index,
                mean,
                color=look.colour,
                linestyle=look.line,
                marker=look.marker,
                markevery=max(1, len(mean) // 4),
                markeredgewidth=0,
            )
        base.title(
            panel, name, f"K = {joined['context'].iloc[0]}, {base.describe(levels)}".rstrip(", ")
        )
        if place % 3 == 0:
            panel.set_ylabel(MEASURES[measure])
        if place + 3 >= len(panels):
            panel.set_xlabel("update")
    base.mixer_legend(figure, looks, place=spare)
    return base.Drawn(
        name="learning_curves",
        figure=figure,
        title="Learning curves",
        caption=(
            f"Learning curves: {MEASURES[measure]} at the longest context, mean over seeds; the "
            "band spans the lowest and highest seed. Losses of different heads have different "
            "units, so compare within a panel."
        ),
        trials=tuple(t for _, joined in panels.values() for t in sorted(joined["trial"].unique())),
        script="ablate/report/figures/curves.py",
    )
