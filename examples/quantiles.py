"""A measurement of one's own: the whole distribution of an agent's scores, and the mean of its worst tenth.

It has two responses, one of them over an index, and a figure. It is the study's own file: `code: quantiles.py` in
examples/quantiles.yaml, so that the study is run and reported like any other:

    python -m ablate run examples/quantiles.yaml --results try
    python -m ablate report examples/quantiles.yaml --results try --paper try/paper
"""

import numpy as np

from ablate import words
from ablate.measure.acting import Rollout, act
from ablate.measure.base import Measurement
from ablate.registry import register
from ablate.report import style, summaries
from ablate.report.figures import base
from ablate.words import Response


@register("measurement", "quantiles")
class Quantiles(Measurement):
    """Deciles of the scores of an agent's episodes, and the mean score of the worst tenth of them."""

    responses = (
        Response("score", "", "points", "higher", digits=1, points=True, index="decile"),
        Response("worst_tenth", "worst tenth", "points", "higher", digits=1, points=True),
    )

    class Options(Rollout.Options):
        """Those of `rollout`: how many episodes, which return to ask for."""

    def __call__(self, trained, options):
        """(S, 9) deciles and (S,) means, for S seeds."""
        played = act(trained, options, Rollout.settings(options))
        scores = np.sort(trained.system.data.anchors.score(played.returns), axis=1)  # (S, E)
        deciles = np.arange(1, 10)
        return {
            "score": np.quantile(scores, deciles / 10, axis=1).T,
            "decile": deciles,
            "worst_tenth": scores[:, : max(1, options.episodes // 10)].mean(axis=1),
        }


@register("figure", "quantiles")
def draw(results):
    """Score against decile, a line for each context."""
    table = results.series[results.series["response"] == "quantiles.score"]
    table = table.merge(results.rows[["trial", "context"]], on="trial")
    contexts = sorted(table["context"].unique())
    figure = style.new_figure(2.2)
    panel = figure.subplots()
    cells = summaries.by_level(table, ["index", "context"], "value")
    looks = style.looks("context", contexts)
    base.lines(panel, cells, looks, {decile: decile for decile, _ in cells})
    panel.set_xlabel("decile of the episodes")
    panel.set_ylabel(words.response("quantiles.score").axis())
    base.legend(figure, "context", looks)
    said = "Deciles of the scores of single episodes; bands are 95 % intervals over seeds."
    return base.Drawn(figure, "Scores of single episodes", said, tuple(table["trial"].unique()))
