"""Everything that the paper, the page and the terminal say, as plain values gathered once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ablate.analyse import table as frame
from ablate.analyse.analysis import Analysis
from ablate.report import text
from ablate.report.findings import Finding, from_verdict
from ablate.study import expand, identity
from ablate.study.aliasing import Aliasing
from ablate.study.load import STANDARD
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
    the fraction of the factorial cannot tell; pairing: what equal seeds were measured to buy; size:
    how large the models were and how long they trained, in words.
    """

    study: str
    question: str
    study_notes: tuple[str, ...]
    answer: str
    study_hash: str
    hypotheses_hash: str
    registered: str
    confirmatory: bool
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
    size: str = ""
    foreign: bool = False
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
        seeds = f"{text.count(self.seeds, 'seed')} per cell"
        size = f", {self.size}" if self.size else ""
        said = (
            f"Scale: {seeds} on {text.count(len(self.data), 'data set')}{size} "
            f"(profile {self.profile}"
        )
        if not self.reduced:
            return f"{said}, the study as it stands)."
        if self.profile == "quick":
            return (
                f"{said}). This is a demonstration at reduced scale, not the study itself, which "
                f"is profile {STANDARD}."
            )
        return f"{said}; the study's default is profile {STANDARD})."

    @property
    def incomplete(self) -> str:
        """What is lacking, in words; empty when every planned trial finished."""
        parts = []
        if self.failed:
            parts.append(
                f"{text.count(self.failed, 'trial')} failed and "
                f"{'is' if self.failed == 1 else 'are'} in no mean"
            )
        if self.unfinished:
            parts.append(f"{text.count(self.unfinished, 'planned trial')} not run yet")
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
    study: Study,
    table: pd.DataFrame,
    analysis: Analysis,
    hashes: Mapping[str, str],
    paper: Mapping[str, Any],
    fraction: Aliasing,
) -> Story:
    """Collect what there is to say. `hashes`: data set -> content hash; `paper`: content of
    study.json."""
    table = table.reset_index(drop=True)
    claimed = {hypothesis.id: hypothesis for hypothesis in study.hypotheses}
    now = identity.hypotheses_hash(study)
    cells = expand.cells(study)
    return Story(
        study=study.study,
        question=study.question,
        study_notes=study.notes,
        answer=analysis.answer,
        study_hash=identity.study_hash(study),
        hypotheses_hash=now,
        registered=str(paper.get("registered", "")),
        confirmatory=paper.get("hypotheses_hash") == now,
        profile=study.profile,
        seeds=int(table["seed"].nunique()) if "seed" in table.columns else 0,
        alpha=analysis.alpha,
        margin=study.margin,
        findings=tuple(
            from_verdict(verdict, claimed[verdict.hypothesis], table, study.levels)
            for verdict in analysis.verdicts
        ),
        settings=fixed_rows(table, study) + section_rows(study),
        factors=factor_rows(table),
        designs=tuple(
            (name, design.why, sum(name in cell.designs for cell in cells))
            for name, design in study.designs.items()
        ),
        data=data_rows(table, hashes),
        planned=max(len(cells) * study.seeds, len(table)),
        finished=int(frame.finished(table).sum()),
        failed=int(frame.failed(table).sum()),
        cells=len(table[frame.factor_columns(table)].drop_duplicates()),
        possible_cells=fraction.full,
        size=size_words(study) if paper else "",
        foreign=not paper,
        aliasing=tuple(fraction.words[1:]),
        pairing=pairing_words(analysis.pairing),
    )


def size_words(study: Study) -> str:
    """`models of about 16,000 parameters trained for 600 updates`, save what is a factor."""
    words = []
    if "model.parameters" not in study.factors:
        words.append(f"models of about {study.model.parameters:,} parameters")
    if "train.updates" not in study.factors:
        words.append(f"trained for {study.train.updates:,} updates")
    return " ".join(words)


def section_rows(study: Study) -> tuple[tuple[str, str], ...]:
    """What the file says of model, training and evaluation, save what is a factor."""
    out = []
    for section in ("model", "train", "evaluate"):
        for name, value in getattr(study, section).model_dump(mode="json").items():
            if f"{section}.{name}" not in study.factors:
                out.append((f"{section}: {name.replace('_', ' ')}", str(value)))
    return tuple(out)


def pairing_words(pairing: pd.DataFrame) -> tuple[str, ...]:
    """The measured correlation of cells that share a seed, a sentence a data set."""
    out = []
    for row in pairing[pairing["correlation"].notna()].to_dict("records"):
        correlation = text.number(float(row["correlation"]), 2, sign=True)
        shown = text.p_value(float(row["p"]))
        p = shown if shown.startswith("<") else f"= {shown}"
        out.append(
            f"{text.data(str(row['data']))}: mean correlation {correlation} between cells of equal seed (p {p}, "
            f"{row['cells']} cells, {row['seeds']} seeds)"
        )
    return tuple(out)


def factor_rows(table: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    """The factors that vary, with their levels in words."""
    out = []
    for name in frame.factor_columns(table):
        levels = sorted(table[name].dropna().unique().tolist(), key=_level_key)
        if len(levels) > 1:
            out.append((text.FACTORS.get(name, name), text.listing(str(level) for level in levels)))
    return tuple(out)


def fixed_rows(table: pd.DataFrame, study: Study) -> tuple[tuple[str, str], ...]:
    """The factors that the table holds at one level; other settings are in `section_rows`."""
    out = []
    for name in frame.factor_columns(table):
        if "." in name and name not in study.factors:
            continue
        levels = table[name].dropna().unique().tolist()
        if len(levels) == 1:
            out.append((text.FACTORS.get(name, name), str(levels[0])))
    return tuple(out)


def data_rows(table: pd.DataFrame, hashes: Mapping[str, str]) -> tuple[DataSet, ...]:
    """Every data set of the table with its content hash where known."""
    sizes = table["data"].value_counts()
    return tuple(
        DataSet(name, hashes.get(name, ""), int(sizes[name])) for name in sorted(sizes.index)
    )


def _level_key(level: object) -> tuple[int, float, str]:
    if isinstance(level, (int, float)):
        return (0, float(level), "")
    return (1, 0.0, str(level))
