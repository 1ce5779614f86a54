"""How much memory can bring: the table of what the exact clone of the behaviour reaches with each window."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ablate import words
from ablate.registry import register
from ablate.report.grid import Grid
from ablate.report.results import EXACT, Results


@register("table", "head-room", order=12)
def head_room(results: Results) -> Grid | None:
    """What the exact clone reaches, a row a data set and window of its models that is given in timesteps; None where
    nothing is known exactly."""
    if not {"data", "context"} <= set(results.rows.columns):  # a table from elsewhere
        return None
    rows = results.rows[["data", "context"]].astype(str)
    there = set(rows.itertuples(index=False, name=None))
    shown = {}
    for metric in EXACT:
        known = results.exact(metric).set_index(["data", "context"])["value"]
        asked = [(data, str(context)) in there for data, context in known.index]
        if any(asked):
            shown[metric] = known[asked]
    if not shown:
        return None
    said = [words.response(metric) for metric in shown]
    table = pd.DataFrame(shown)
    lines: list[tuple[str, ...]] = []
    for data in (name for name in results.study.data if name in table.index):
        lines.append((words.data(data),))
        for context, values in table.loc[data].sort_index().iterrows():
            given = zip(said, values, strict=True)
            cells = (
                "–" if np.isnan(value) else response.amount(value) for response, value in given
            )
            lines.append((f"{context:,}", *cells))
    return Grid(
        "headroom",
        "What is to be had",
        "What the exact clone of the behaviour, which knows the law of the data, reaches with so many timesteps in "
        "sight and the time: the least error that a model with that window can have on average, and how that clone "
        "scores, without noise in its actions. Models that are told more may do better.",
        ("timesteps", *(words.capital(response.said) for response in said)),
        tuple(lines),
        (),
        small=True,
        appended=True,
    )
