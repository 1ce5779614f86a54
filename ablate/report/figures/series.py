"""Responses over an index, such as the error at each horizon."""

from __future__ import annotations

import pandas as pd

from ablate import words
from ablate.registry import register
from ablate.report import style, summaries
from ablate.report.figures import base
from ablate.report.results import Results

MOST_ROWS = 3  # responses
MOST_COLUMNS = 4  # data sets


@register("figure", "series", order=25)
def draw(results: Results) -> base.Drawn | None:
    """Mean per level with a band over seeds along the index: a row a response, a column a data set; None where
    nothing runs over an index."""
    series = results.series
    table = summaries.finished(results.rows)
    series = series[series["trial"].isin(table["trial"]) & series["value"].notna()]
    if series.empty:
        return None
    responses = list(dict.fromkeys(series["response"]))[:MOST_ROWS]
    by = _compared(table, results)
    held = summaries.core(table, by)
    joined = series.merge(table[["trial", "data", "seed", *filter(None, [by])]], on="trial")
    kept = pd.concat(
        [summaries.at(table[table["data"] == name], at)["trial"] for name, at in held.items()]
    )
    joined = joined[joined["trial"].isin(kept)]
    names = [name for name in held if name in set(joined["data"])][:MOST_COLUMNS]
    looks = style.looks(by, words.levels(by, joined[by].unique())) if by else {"": style.plain()}
    figure = style.new_figure(0.45 + 1.75 * len(responses))
    panels = figure.subplots(len(responses), len(names), squeeze=False)
    for row, name_of in enumerate(responses):
        response = words.response(name_of)
        for column, name in enumerate(names):
            panel = panels[row][column]
            here = joined[(joined["response"] == name_of) & (joined["data"] == name)]
            keys = ["index", *filter(None, [by])]
            cells = summaries.by_level(here, keys, "value")
            cells = {(key[0], key[1] if by else ""): cell for key, cell in cells.items()}
            places = {index: float(index) for index, _ in cells}
            base.lines(panel, cells, looks, places, most_bands=summaries.MOST_SERIES)
            base.fit(panel, list(cells.values()))
            base.from_zero(panel, response, list(cells.values()))
            if row == 0:
                base.title(panel, words.data(name), words.held(held[name]))
            if column == 0:
                base.label(panel, response.axis())
            panel.set_xlabel(words.plain(response.index) or "index")
    base.legend(figure, by, looks)
    said = words.listing(words.response(name).said for name in responses)
    return base.Drawn(
        figure=figure,
        title=f"{words.capital(said)} over the index",
        caption=(
            f"{words.capital(said)}, mean over seeds"
            + (f" by {words.factor(by).label}" if by else "")
            + "; bands are pointwise 95 % Student-t intervals over seeds. The grey line says at which levels the other "
            "factors are held." + base.CUT
        ),
        trials=tuple(sorted(joined["trial"].unique())),
    )


def _compared(table: pd.DataFrame, results: Results) -> str:
    """The factor whose levels are lines: with few levels, the one that most hypotheses compare."""
    names = summaries.varied(table, results.study.hypotheses)
    return next((n for n in names if table[n].nunique() <= summaries.MOST_SERIES), "")
