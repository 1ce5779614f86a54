"""All figures in the order in which the paper shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ablate.analyse.further import Further
from ablate.report import style
from ablate.report.context import Compared
from ablate.report.figures import (
    audit,
    curves,
    errors,
    forest,
    further,
    interaction,
    levels,
    replication,
    scores,
)
from ablate.report.figures.base import Drawn
from ablate.report.findings import Finding


def draw(
    table: pd.DataFrame,
    findings: Sequence[Finding],
    curve_rows: pd.DataFrame,
    audits: Sequence[dict[str, Any]],
    yardsticks: pd.DataFrame | None,
    margin: float | None,
    compared: Sequence[Compared] = (),
    venue: str = style.DEFAULT,
    beyond: Further | None = None,
) -> list[tuple[Drawn, dict[str, bytes]]]:
    """Each figure that has something to show, with its bytes by kind (pdf, png, svg).

    A table without mixers or contexts (one that `ablate` didn't write) gets the forest plot and the
    scores by level.
    """
    factorial = {"mixer", "context"} <= set(table.columns)
    out = []
    with style.paper_style(venue):
        made: list[Drawn | None] = [forest.draw(findings)]
        if factorial:
            made += [
                scores.draw(table),
                interaction.draw(table, margin),
                replication.draw(compared, margin),
                errors.draw(table, yardsticks),
                curves.draw(table, curve_rows),
            ]
        else:
            made.append(levels.draw(table, findings))
        if beyond is not None:
            made += further.draw(beyond, table, curve_rows)
        made += [forest.draw(findings, absolute=True), audit.draw(audits)]
        for drawn in made:
            if drawn is not None:
                out.append((drawn, style.files(drawn.figure)))
    return out
