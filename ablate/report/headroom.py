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
    """What the exact clone reaches, a row a data set and window; None where nothing is known exactly."""
    there = set(results.rows["data"].astype(str))
    known = {metric: results.exact(metric) for metric in EXACT}
    shown = {
        metric: found[found["data"].isin(there)].set_index(["data", "context"])["value"]
        for metric, found in known.items()
    }
    shown = {metric: values for metric, values in shown.items() if len(values)}
    if not shown:
        return None
    said = [words.response(metric) for metric in shown]
    table = pd.DataFrame(shown)
    rows: list[tuple[str, ...]] = []
    for data in (name for name in results.study.data if name in table.index):
        rows.append((words.data(data),))
        for context, values in table.loc[data].sort_index().iterrows():
            given = zip(said, values, strict=True)
            cells = (
                "–" if np.isnan(value) else response.amount(value) for response, value in given
            )
            rows.append((f"{context:,}", *cells))
    return Grid(
        "headroom",
        "What is to be had",
        "What the exact clone of the behaviour, which knows the law of the data, reaches with so many timesteps in "
        "sight and the time: the least error that a model with that window can have on average, and how that clone "
        "scores, without noise in its actions. Models that are told more may do better.",
        ("timesteps", *(words.capital(response.said) for response in said)),
        tuple(rows),
        (),
        small=True,
        appended=True,
    )
