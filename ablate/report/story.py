"""Everything that the paper, the page and the terminal say, as plain values gathered once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from ablate import words
from ablate.analyse import tidy as frame
from ablate.analyse.answer import Analysis
from ablate.analyse.beyond import Beyond
from ablate.config import SECTIONS, STANDARD
from ablate.report import further
from ablate.report.findings import FIRM, Finding, from_verdict
from ablate.report.subject import Subject
from ablate.study.foreign import ForeignStudy
from ablate.study.registration import Standing
from ablate.study.schema import Study


@dataclass(frozen=True)
class DataSet:
    """A data set as named in the study, with the hash of what was trained on."""

    name: str
    content_hash: str
    trials: int


@dataclass(frozen=True)
class Story:
    """What was asked, what was run and what came out.

    settings: (name, value) pairs that hold in every trial; factors: (name, levels in words) that
    vary; designs: (name, why, cells) of the crossings that were run; aliasing: sentences on what
    the fraction of the factorial cannot tell; seeds, fewest: the most and the fewest finished seeds of a
    cell; pairing: what equal seeds were measured to buy; size: how large the models were and how long they
    trained, in words. foreign: the table is not ours;
    reading: what was read of it and what was left out. sequential: how looks were taken, if any.
    further: (heading, paragraph) beyond the verdicts; numbers: LaTeX by macro name, of the same.
    """

    study: str
    question: str
    study_notes: tuple[str, ...]
    answer: str
    study_hash: str
    hypotheses_hash: str
    registered: str
    declared: Standing
    profile: str
    seeds: int
    alpha: float
    margin: float | None
    findings: tuple[Finding, ...]
    settings: tuple[tuple[str, str], ...]
    factors: tuple[tuple[str, str], ...]
    designs: tuple[tuple[str, str, int], ...]
    data: tuple[DataSet, ...]
    planned: int
    finished: int
    failed: int
    cells: int
    possible_cells: int
    fewest: int = 0
    size: str = ""
    foreign: bool = False
    reading: tuple[str, ...] = ()
    sequential: str = ""
    further: tuple[tuple[str, str], ...] = ()
    numbers: Mapping[str, str] = field(default_factory=dict)
    aliasing: tuple[str, ...] = ()
    pairing: tuple[str, ...] = ()

    @property
    def unfinished(self) -> int:
        """Planned trials with neither a result nor a failure."""
        return max(self.planned - self.finished - self.failed, 0)

    @property
    def reduced(self) -> bool:
        """Whether this is another profile than the study's default."""
        return self.profile != STANDARD

    @property
    def scale(self) -> str:
        """What a reader must know before believing anything, in one or two sentences."""
        seeds = words.count(self.seeds, "seed")
        seeds = f"{f'{self.fewest} to ' if self.fewest < self.seeds else ''}{seeds} per cell"
        size = f", {self.size}" if self.size else ""
        said = f"Scale: {seeds} on {words.count(len(self.data), 'data set')}{size}"
        short = sorted({f.rests for f in self.tested if f.lost})
        if short:
            said += f", of which some estimates rest on {words.listing(map(str, short))} only, for lack of cells"
        if self.foreign:
            return f"{said}; the runs come from elsewhere."
        if not self.reduced:
            return f"{said}."
        said += f" (profile {self.profile}"
        if self.profile == "quick":
            return (
                f"{said}). This is a demonstration at reduced scale, not the study itself, which "
                f"is profile {STANDARD}."
            )
        return f"{said}; the study's default is profile {STANDARD})."

    @property
    def confirmatory(self) -> bool:
        """Whether all hypotheses were declared before any result."""
        return not (self.declared.every or self.declared.late)

    @property
    def standing(self) -> str:
        """Whether the hypotheses came before the runs, and how that is known."""
        why = self.declared
        if why.every:
            return f"Every verdict is exploratory: {why.every}."
        when = f" ({self.registered})" if self.registered else ""
        if not why.late:
            return (
                f"The hypotheses were registered with the first run{when}, so the verdicts are "
                "confirmatory."
            )
        reasons: dict[str, list[str]] = {}
        for name, reason in why.late.items():
            reasons.setdefault(reason, []).append(name)
        told = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())
        if len(why.late) == len(self.findings):
            return f"Every verdict is exploratory: {told}."
        return (
            f"The hypotheses were registered with the first run{when}, so the verdicts are confirmatory, but for those"
            f" that are exploratory: {told}."
        )

    @property
    def incomplete(self) -> str:
        """What is lacking, in words; empty when every planned trial finished."""
        parts = []
        if self.failed:
            parts.append(
                f"{words.count(self.failed, 'trial')} failed and "
                f"{'is' if self.failed == 1 else 'are'} in no mean"
            )
        if self.unfinished:
            parts.append(f"{words.count(self.unfinished, 'planned trial')} not run yet")
        return "; ".join(parts)

    @property
    def tested(self) -> tuple[Finding, ...]:
        """Hypotheses with an estimate."""
        return tuple(finding for finding in self.findings if finding.tested)

    @property
    def untested(self) -> tuple[Finding, ...]:
        """Hypotheses that this profile has no cells for."""
        return tuple(finding for finding in self.findings if not finding.tested)


def gather(
    subject: Subject, analysis: Analysis, beyond: Beyond | None = None, sequential: str = ""
) -> Story:
    """Collect what there is to say."""
    study, table = subject.study, subject.table.reset_index(drop=True)
    claimed = {hypothesis.id: hypothesis for hypothesis in study.hypotheses}
    done = table.loc[frame.finished(table)]
    runs = done.groupby(frame.factor_columns(done), observed=True, dropna=False)["seed"].nunique()
    stands = {} if beyond is None else further.standing(beyond)
    findings = tuple(
        replace(from_verdict(verdict, claimed[verdict.hypothesis]), stands=share)
        for verdict in analysis.verdicts
        for share in [stands.get(verdict.hypothesis)]
    )
    return Story(
        study=study.study,
        question=study.question,
        study_notes=study.notes,
        answer="\n".join(filter(None, (analysis.answer, _fragile(findings)))),
        study_hash=subject.hash,
        hypotheses_hash=subject.hypotheses_hash,
        registered=subject.registered,
        declared=subject.standing,
        profile=subject.profile,
        seeds=int(runs.max()) if len(runs) else 0,
        fewest=int(runs.min()) if len(runs) else 0,
        alpha=analysis.alpha,
        margin=study.margin,
        findings=findings,
        settings=fixed_rows(table, study) + subject.settings,
        factors=factor_rows(table),
        designs=subject.designs,
        data=data_rows(table, subject.hashes),
        planned=subject.planned,
        finished=int(frame.finished(table).sum()),
        failed=int(frame.failed(table).sum()),
        cells=len(table[frame.factor_columns(table)].drop_duplicates()),
        possible_cells=subject.fraction.full,
        size=subject.size,
        foreign=subject.foreign,
        reading=subject.reading,
        sequential=sequential,
        further=() if beyond is None else tuple(further.paragraphs(beyond, analysis.metric)),
        numbers={} if beyond is None else further.macros(beyond),
        aliasing=tuple(subject.fraction.words[1:]),
        pairing=pairing_words(analysis.pairing),
    )


def _fragile(findings: Sequence[Finding]) -> str:
    """The claims that few universes make, in a line; empty where there is none."""
    told = [
        f"{one.says.rstrip('.')} ({one.verdict}, in {words.percent(one.stands, 0)})"
        for one in findings
        if one.fragile and one.stands is not None
    ]
    least = words.percent(FIRM, 0)
    said = f"Fewer than {least} of the universes that score the same runs otherwise say so, too"
    return f"{said}: {'; '.join(told)}." if told else ""


def pairing_words(pairing: pd.DataFrame) -> tuple[str, ...]:
    """The measured correlation of cells that share a seed, a sentence a data set."""
    out = []
    for row in pairing[pairing["correlation"].notna()].to_dict("records"):
        correlation = words.number(float(row["correlation"]), 2, sign=True)
        out.append(
            f"{words.data(str(row['data']))}: mean correlation {correlation} between cells of equal seed "
            f"({words.p_said(float(row['p']))}, {row['cells']} cells, {row['seeds']} seeds)"
        )
    return tuple(out)


def factor_rows(table: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    """The factors that vary, with their levels in words."""
    out = []
    for name in frame.factor_columns(table):
        levels = words.levels(name, table[name].dropna().unique().tolist())
        if len(levels) > 1:
            out.append(
                (
                    words.factor(name).label,
                    words.listing(words.level(name, level) for level in levels),
                )
            )
    return tuple(out)


def fixed_rows(table: pd.DataFrame, study: Study | ForeignStudy) -> tuple[tuple[str, str], ...]:
    """The factors that the table holds at one level; what lies in a section of the configuration is among the
    subject's settings."""
    out = []
    for name in frame.factor_columns(table):
        if name not in study.factors and name.partition(".")[0] in SECTIONS:
            continue
        levels = table[name].dropna().unique().tolist()
        if len(levels) == 1:
            out.append((words.factor(name).label, words.level(name, levels[0])))
    return tuple(out)


def data_rows(table: pd.DataFrame, hashes: Mapping[str, str]) -> tuple[DataSet, ...]:
    """Every data set of the table with its content hash where known."""
    sizes = table["data"].value_counts()
    return tuple(
        DataSet(name, hashes.get(name, ""), int(sizes[name])) for name in sorted(sizes.index)
    )
