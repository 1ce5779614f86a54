"""What only the study of approaches estimates: in how many of the approaches and data sets memory helps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from ablate import words
from ablate.analyse.estimators import Asked, ByT, Estimator, Untold, over_seeds
from ablate.analyse.tidy import factor_columns
from ablate.registry import Section, register
from ablate.study.contrast import Level, level_text
from ablate.words import Response


@register("estimator", "share-that-gains")
class ShareThatGains(Estimator):
    """In which share of the approaches a factor's step from `low` to `high` is a gain.

    An approach is what is left of the factors, without those that are averaged over. For each seed and data set, the
    share of the approaches of which the mean at `high` is better than at `low`: the probability that a single pair of
    runs shows a gain, averaged over approaches. Mean and Student's interval over seeds. No cell counts twice for a wide
    gain, and one that gains nothing counts a half on average.
    """

    class Options(Section):
        """over: the factor whose step it is. average: factors whose levels are averaged within an approach."""

        over: str
        low: Level
        high: Level
        average: tuple[str, ...] = ()

    def __call__(self, rows: pd.DataFrame, asked: Asked) -> ByT:
        o = self.options
        if o.over not in rows.columns:
            raise Untold(f"the table has no column '{o.over}'")
        ends = [level_text(o.low), level_text(o.high)]
        at = rows.assign(end=rows[o.over].map(level_text))
        at = at[at["end"].isin(ends)]
        apart = {"data", o.over, *o.average}
        approach = [f for f in factor_columns(at) if f not in apart and at[f].nunique() > 1]
        if not approach:
            raise Untold("there is a single approach")
        better = -1.0 if words.response(asked.metric).lower else 1.0
        cells = at.groupby(approach, observed=True).ngroups

        def share(one: pd.DataFrame) -> float:
            means = one.groupby([*approach, "end"], observed=True)[asked.metric].mean().unstack()
            gains = better * (means[ends[1]] - means[ends[0]]).to_numpy(dtype=float)
            if len(gains) < cells or not np.isfinite(gains).all():
                return float("nan")
            return float((gains > 0).mean())

        return over_seeds(at, share)

    @classmethod
    def gives(cls, response: Response) -> Response:
        said = f"share of approaches that gain in {response.said}"
        return replace(response, label=said, unit="", direction="higher", digits=2, points=False)

    @property
    def says(self) -> str:
        o = self.options
        return f"share of the approaches in which {o.over} {o.high} is better than {o.low}"
