"""An estimator of one's own: by how many percent a response changes from one level of a factor to another.

In each seed, on each data set, the mean at the new level over the mean at the old one; seeds are the units. It is the
study's own file, and a hypothesis names it in place of a contrast.

    python -m ablate run examples/percent.yaml --results try
    python -m ablate report examples/percent.yaml --results try --paper try/paper
"""

from dataclasses import replace

from ablate.analyse.estimators import Estimator, over_seeds
from ablate.registry import Section, register
from ablate.study.contrast import Level, level_text


@register("estimator", "percent-change")
class PercentChange(Estimator):
    """100 (new / old - 1), averaged over data sets and then over seeds."""

    class Options(Section):
        """factor: whose levels are compared. new, old: the two of them."""

        factor: str
        new: Level
        old: Level

    def __call__(self, rows, asked):
        """The estimate from the finished rows, one a trial, and its interval over seeds."""
        new, old = level_text(self.options.new), level_text(self.options.old)

        def change(one):  # the rows of one seed on one data set
            means = one.groupby(one[self.options.factor].map(level_text))[asked.metric].mean()
            return 100 * (means[new] / means[old] - 1)

        return over_seeds(rows, change)

    @classmethod
    def gives(cls, response):
        """It is in percent, whatever the response is in; a study's margin in points isn't meant for it."""
        return replace(
            response, label=f"change of {response.said}", unit="%", digits=1, points=False
        )
