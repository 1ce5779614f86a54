"""What a report is made of: the study, its tables, and what the analysis says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ablate.analyse import decisions
from ablate.analyse import tidy as frame
from ablate.analyse.answer import Analysis, analyse
from ablate.analyse.beyond import Beyond, beyond
from ablate.analyse.decisions import Record
from ablate.analyse.replication import COLUMNS as REPLICATIONS
from ablate.analyse.sentences import answer, sentence
from ablate.analyse.verdict import by_budget
from ablate.config import STANDARD
from ablate.report import story, subject, summaries
from ablate.report.findings import Finding
from ablate.report.story import Story
from ablate.report.subject import Subject
from ablate.study.foreign import ForeignStudy
from ablate.study.schema import Study


def _none(*columns: str) -> pd.DataFrame:
    """A table without rows, for what a study doesn't have."""
    return pd.DataFrame(columns=list(columns))


# What is known of the exact clone (`yardsticks.csv`) of responses of models.
EXACT = {
    "held-out.action_error": "action_error",
    "held-out.action_error_early": "action_error_early",
    "rollout.score": "score",
    "rollout.regret": "regret",
}


@dataclass(frozen=True, eq=False)
class Results:
    """A study at one profile with everything that was measured; what is derived is derived once.

    table: one row a trial, as it was read; `rows` are those of the profile. curves: trial, update and what
    was recorded during training. series: trial, response, index, value of the responses over an index.
    tuning: arm, draws, value, the best judged value after so many draws. audit: one record a model.
    yardsticks: data, context and the responses of the exact posterior. replications: what every hypothesis came to
    under other streams, columns as in `replication.COLUMNS`. foreign: the table is not ours; said_paired: its runs
    of one seed were said to share something; reading: how it was read, in words.
    registration: content of study.json, empty for a table that is not ours. folder: results/<study>, where
    the record of looks lies.
    """

    study: Study | ForeignStudy
    table: pd.DataFrame
    profile: str = STANDARD
    curves: pd.DataFrame = field(default_factory=lambda: _none("trial", "update"))
    series: pd.DataFrame = field(
        default_factory=lambda: _none("trial", "response", "index", "value")
    )
    tuning: pd.DataFrame = field(default_factory=lambda: _none("arm", "draws", "value"))
    audit: Sequence[dict[str, Any]] = ()
    yardsticks: pd.DataFrame = field(default_factory=lambda: _none("data", "context"))
    replications: pd.DataFrame = field(default_factory=lambda: _none(*REPLICATIONS))
    foreign: bool = False
    said_paired: bool = False
    reading: Sequence[str] = ()
    registration: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @cached_property
    def _asked(self) -> Subject:
        """The subject with its trials at every budget."""
        return subject.of(self.study, self.table, self.registration, self.reading)

    @cached_property
    def subject(self) -> Subject:
        """What the report is about, at the last budget. Raises UserError when no trial that counts has
        finished."""
        return replace(
            self._asked, table=frame.last_budget(self._asked.table).reset_index(drop=True)
        )

    @property
    def budgets(self) -> pd.DataFrame:
        """The trials of the profile at every budget, one row each, every one with an id."""
        return self._asked.table

    @property
    def rows(self) -> pd.DataFrame:
        """The trials at the last budget of their fits, which verdicts rest on."""
        return self.subject.table

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """The responses that hypotheses are about, those of primary ones first; without hypotheses the first
        number of the table."""
        ordered = sorted(self.study.hypotheses, key=lambda hypothesis: not hypothesis.primary)
        named = tuple(dict.fromkeys(hypothesis.metric for hypothesis in ordered))
        return named or tuple(frame.metric_columns(self.rows)[:1])

    @property
    def paired(self) -> bool:
        """Whether runs of one seed share something in all cells: in ours they do, in a table from elsewhere where
        that was said."""
        if isinstance(self.study, ForeignStudy):
            return self.study.paired or self.said_paired
        return self.said_paired or not self.foreign

    @property
    def metric(self) -> str:
        """The response that the study is about first of all."""
        return self.metrics[0]

    @cached_property
    def record(self) -> Record | None:
        """The looks that were taken, of these hypotheses; None where the study isn't run look by look."""
        if self.foreign or self.folder is None:
            return None
        return decisions.of(decisions.read(self.folder), self.subject.hypotheses_hash)

    @property
    def alpha(self) -> float:
        """The level at which verdicts are taken."""
        return self.study.alpha if self.record is None else self.record.level

    @cached_property
    def analysis(self) -> Analysis:
        """The verdicts, with what earlier looks decided put back."""
        found = analyse(
            self.rows,
            self.study.hypotheses,
            self.study.levels,
            alpha=self.alpha,
            margin=self.study.margin,
            registered=self.subject.before,
            metric=self.metric,
            paired=self.paired,
        )
        if self.record is None:
            return found
        held = decisions.held(found.verdicts, self.record)
        told = tuple(replace(verdict, sentence=sentence(verdict)) for verdict in held)
        return replace(found, verdicts=told, answer=answer(told))

    @cached_property
    def further(self) -> Beyond:
        """What the trials say beyond the verdicts."""
        return beyond(
            self.rows,
            self.study.hypotheses,
            self.study.levels,
            self.curves,
            alpha=self.alpha,
            margin=self.study.margin,
            registered=self.subject.before,
            metric=self.metric,
            paired=self.paired,
            crossing=summaries.crossing(self.rows, self.study.hypotheses),
            budgets=self.budgets,
            clones=self._clones,
        )

    def exact(self, metric: str) -> pd.DataFrame:
        """What the exact clone of the behaviour, told the time, reaches of a response: data, context, value."""
        column = EXACT.get(metric, "")
        if column not in self.yardsticks.columns:
            return _none("data", "context", "value")
        found = self.yardsticks[["data", "context", column]].rename(columns={column: "value"})
        return found.dropna(subset=["value"])

    @property
    def _clones(self) -> dict[str, float]:
        """The score of the exact clone of each data set's behaviour, with the longest window that is known."""
        if not {"data", "context", "score"} <= set(self.yardsticks.columns):
            return {}
        known = self.yardsticks.dropna(subset=["score"]).sort_values("context", kind="stable")
        last = known.groupby("data", observed=True)["score"].last()
        return {str(name): float(score) for name, score in last.items()}

    @cached_property
    def by_budget(self) -> pd.DataFrame:
        """The verdicts at every budget: `verdict.by_budget` of the profile's trials."""
        return by_budget(
            self.budgets,
            self.study.hypotheses,
            self.study.levels,
            alpha=self.alpha,
            margin=self.study.margin,
            registered=self.subject.before,
            paired=self.paired,
        )

    @cached_property
    def story(self) -> Story:
        """What paper, page and terminal say."""
        line = "" if self.record is None else self.record.line
        return story.gather(self.subject, self.analysis, self.further, line)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The hypotheses with their verdicts."""
        return self.story.findings
