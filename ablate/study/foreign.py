"""A study about runs that somebody else made: its claims, and how to read their table.

Such a file has a section `table` where one of ours has designs, training and evaluation:

    table:
      columns: {data: dataset, algo: "Algorithm"}   # what the table calls it; else its own name
      rows: {suite: [d4rl/iql, d4rl/cql]}           # only these rows
      metrics: [score]                              # numbers that hypotheses may be about
      anchors: {"hopper-*": [-20.27, 3234.3]}       # score that is 0, score that is 100
      finished: [COMPLETED]                         # words of the column `status`
      failed: [FAILED]

`paired: true` says that runs of one seed share something in all cells, such as their evaluation episodes, so
that contrasts are formed within seeds; that seed numbers coincide says nothing. `factors` are columns with
the levels that count; `data` the data sets that count. `tidy` makes the
table that the analysis reads; what it leaves out it counts and says.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field, ValidationError

from ablate.errors import UserError, unknown
from ablate.registry import Section
from ablate.study import checks, identity
from ablate.study.contrast import Level, level_text
from ablate.study.hypotheses import Hypothesis, coverage
from ablate.study.resolve import filled, found_in, no_repeats, said
from ablate.study.source import Key, Source, read

DATA, SEED, TRIAL, STATUS, FAILURE = "data", "seed", "trial", "status", "failure"
FINISHED, UNFINISHED, FAILED = "COMPLETED", "RUNNING", "FAILED"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FACTOR = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")  # what a contrast can name
_EMPTY = {"", "nan", "na", "n/a", "none", "null"}


class TableSection(Section):
    """How to read the table; see the head of this file."""

    columns: dict[str, str] = Field(default={})
    rows: dict[str, Level | list[Level]] = Field(default={})
    metrics: tuple[str, ...] = ("score",)
    anchors: dict[str, tuple[float, float]] = Field(default={})
    finished: tuple[str, ...] = (FINISHED,)
    failed: tuple[str, ...] = (FAILED,)

    def column(self, name: str) -> str:
        """What the table calls `name`."""
        return self.columns.get(name, name)


class ForeignFile(Section):
    """The file's shape."""

    study: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    question: str = Field(min_length=1)
    table: TableSection
    factors: dict[str, list[Level]] = Field(min_length=1)
    data: list[str] = Field(min_length=1)
    margin: float | None = Field(default=None, gt=0)
    alpha: float = Field(default=0.05, gt=0, lt=1)
    hypotheses: list[Hypothesis] = Field(default=[])
    paired: bool = False
    notes: list[str] = Field(default=[])


class ForeignStudy(Section):
    """A checked file about somebody else's runs; fields of the same name mean the same as in
    `Study`."""

    study: str
    question: str
    table: TableSection
    factors: dict[str, tuple[Level, ...]]
    data: tuple[str, ...]
    margin: float | None
    alpha: float
    hypotheses: tuple[Hypothesis, ...]
    paired: bool = False
    notes: tuple[str, ...] = ()

    @property
    def levels(self) -> dict[str, tuple[Level, ...]]:
        """Declared levels of every factor, and the data sets under `data`."""
        return {DATA: self.data, **self.factors}

    @property
    def hash(self) -> str:
        """Hash of which rows the study is about and how they are read; no claim, no words."""
        return identity.digest(
            self.model_dump(mode="json", include={"study", "table", "factors", "data"})
        )


@dataclass(frozen=True)
class Tidy:
    """A table as the analysis reads it (factor columns are categories, in the declared order), and
    in words what was left out or changed on the way."""

    table: pd.DataFrame
    notes: tuple[str, ...]


def is_foreign(path: Path | str) -> bool:
    """Whether the study file is about a table from elsewhere. Raises UserError as `source.read`."""
    return "table" in read(Path(path)).tree


def load_foreign(path: Path | str) -> ForeignStudy:
    """Read and check a study file about somebody else's runs.

    Raises UserError with file and line of whatever is wrong.
    """
    source = read(Path(path))
    try:
        file = ForeignFile.model_validate(source.tree)
    except ValidationError as error:
        raise _refusal(source, error) from None
    _no_clash(source, file)
    for name, levels in file.factors.items():
        if not levels:
            raise source.refuse(("factors", name), f"the factor '{name}' has no levels.")
        no_repeats(source, ("factors", name), f"level of {name}", levels)
    no_repeats(source, ("data",), "data set", file.data)
    study = ForeignStudy(
        study=file.study,
        question=" ".join(file.question.split()),
        table=file.table,
        factors={name: tuple(levels) for name, levels in file.factors.items()},
        data=tuple(file.data),
        margin=file.margin,
        alpha=file.alpha,
        hypotheses=tuple(filled(h, file.margin) for h in file.hypotheses),
        paired=file.paired,
        notes=tuple(" ".join(note.split()) for note in file.notes),
    )
    _anchored(source, study)
    checks.hypotheses(source, study, study.table.metrics)
    everything = pd.MultiIndex.from_product(list(study.levels.values())).to_frame(index=False)
    everything.columns = pd.Index(list(study.levels))
    for index, hypothesis in enumerate(study.hypotheses):
        if not coverage(hypothesis, study.levels, everything).tested:
            raise source.refuse(
                ("hypotheses", index, "contrast"),
                f"hypothesis '{hypothesis.id}': no combination of the declared levels has the "
                f"cells that '{hypothesis.contrast}' needs.",
            )
    return study


def _no_clash(source: Source, file: ForeignFile) -> None:
    """A column is one thing only, and every name can stand in a contrast."""
    table = file.table
    ours = (DATA, SEED, TRIAL, STATUS, FAILURE)
    for name in file.factors:
        if not _FACTOR.fullmatch(name):
            raise source.refuse(
                ("factors", name),
                f"the factor '{name}' can't stand in a contrast; choose a plain word here and say "
                f"under table.columns what the table calls it.",
            )
        if name in (*ours, *table.metrics):
            raise source.refuse(
                ("factors", name), f"'{name}' is not a factor: the word has another meaning here."
            )
    for index, name in enumerate(table.metrics):
        if not _NAME.fullmatch(name) or name in ours:
            raise source.refuse(
                ("table", "metrics", index),
                f"a metric can't be called '{name}'; choose a plain word here and say under "
                "table.columns what the table calls it.",
            )
    if not table.metrics:
        raise source.refuse(("table", "metrics"), "there is no metric; list at least one column.")
    allowed = (*ours, *file.factors, *table.metrics)
    for name in table.columns:
        if name not in allowed:
            raise source.unknown(("table", "columns", name), "nothing is called", name, allowed)
    both = {word.lower() for word in table.finished} & {word.lower() for word in table.failed}
    if both:
        raise source.refuse(
            ("table", "failed"), f"'{sorted(both)[0]}' can't mean both finished and failed."
        )


def _anchored(source: Source, study: ForeignStudy) -> None:
    """Anchors are two different numbers, and each data set has at most one pair, or none has any."""
    anchors = study.table.anchors
    for pattern, (zero, hundred) in anchors.items():
        if not math.isfinite(zero) or not math.isfinite(hundred) or zero == hundred:
            raise source.refuse(
                ("table", "anchors", pattern),
                f"anchors of '{pattern}': expected two different numbers, found {zero:g}, {hundred:g}.",
            )
    if not anchors:
        return
    if "score" not in study.table.metrics:
        raise source.refuse(("table", "anchors"), "anchors are for the metric 'score' only.")
    for name in study.data:
        fits = [pattern for pattern in anchors if fnmatch.fnmatchcase(name, pattern)]
        if len(fits) != 1:
            said = "none" if not fits else " and ".join(f"'{fit}'" for fit in fits)
            raise source.refuse(
                ("table", "anchors"),
                f"the data set '{name}' needs one pair of anchors, found {said}.",
            )


def _refusal(source: Source, error: ValidationError) -> UserError:
    """The first problem pydantic found, in one line."""
    problems = error.errors()
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    key: Key = tuple(p for p in problem["loc"] if p != "[key]")
    # A union reports one problem a member; its members' names are not part of the file.
    key = tuple(p for p in key if not (isinstance(p, str) and p in ("str", "int", "float")))
    where = ".".join(map(str, key))
    if problem["type"] == "extra_forbidden":
        models: dict[Any, type[BaseModel]] = {"table": TableSection, "hypotheses": Hypothesis}
        model = models.get(key[0], ForeignFile) if len(key) > 1 else ForeignFile
        what = "a study of a table from elsewhere has no such part"
        return source.unknown(
            key,
            what if len(key) == 1 else f"the part '{key[0]}' has no such entry",
            key[-1],
            model.model_fields,
        )
    if problem["type"] == "missing":
        return source.refuse(key[:-1], f"'{where}' is missing.")
    return source.refuse(key, f"{where}: {found_in(problem)}{said(problem)}.")


def tidy(study: ForeignStudy, raw: pd.DataFrame, where: str, names: Sequence[str]) -> Tidy:
    """The rows of `raw` that the study is about, as the analysis wants them.

    where: the file, for refusals; names: what to call each row there ("row 3"). Columns of the
    result: trial, status, data, the factors, seed, the metrics, failure. Scores are normalised
    where the study gives anchors. Raises UserError, in one line, for a missing column, text where a
    number belongs, an infinite score, an empty seed, two finished rows of one trial, an unknown
    level in a filter, or when nothing is left.
    """
    table = study.table
    raw = raw.reset_index(drop=True).assign(**{"": list(names)})  # "" can't be a column of theirs
    _columns(study, raw, where)
    notes = [f"{Path(where).name}: {len(raw):,} rows"]
    rows, left = _kept(study, raw, where)
    notes += left
    if table.column(DATA) in rows:
        data = rows[table.column(DATA)]
    else:
        data = pd.Series(study.data[0], index=rows.index)
    out = pd.DataFrame({TRIAL: _trials(study, rows, where), STATUS: _status(study, rows)})
    out[DATA] = _category(data, study.data)
    for name, levels in study.factors.items():
        out[name] = _category(rows[table.column(name)], levels)
    out[SEED] = _seeds(rows, table.column(SEED), where)
    for name in table.metrics:
        out[name] = _numbers(rows, table.column(name), where)
    out[FAILURE] = rows[table.column(FAILURE)].map(_text) if table.column(FAILURE) in rows else ""
    for name in table.metrics:
        bad = np.isinf(out[name].to_numpy()) & (out[STATUS] == FINISHED).to_numpy()
        if bad.any():
            raise UserError(
                f"{where}, {rows[''].iloc[int(bad.argmax())]}: '{table.column(name)}' is infinite "
                "in a finished trial."
            )
        empty = int((out[name].isna() & (out[STATUS] == FINISHED)).sum())
        if empty:
            notes.append(f"{_rows(empty)} finished without a value of '{name}'")
        # Outside a finished trial an infinite number says no more than none.
        out[name] = out[name].where(np.isfinite(out[name]))
    other = out.loc[~out[STATUS].isin((FINISHED, FAILED)), STATUS].value_counts()
    for word, count in sorted(other.items()):
        notes.append(f"{_rows(int(count))} with status '{word}': counted as not finished")
    out, again = _attempts(study, out, rows[""], where)
    notes += again
    if table.anchors:
        out["score"] = _normalised(study, out)
        shown = "; ".join(f"{p} {a:g} to {b:g}" for p, (a, b) in table.anchors.items())
        notes.append(f"scores normalised so that these are 0 and 100: {shown}")
    lacking = [name for name in study.data if name not in set(out[DATA])]
    if lacking:
        notes.append(f"no row of the data set {', '.join(lacking)}")
    return Tidy(out.reset_index(drop=True), tuple(notes))


def _columns(study: ForeignStudy, raw: pd.DataFrame, where: str) -> None:
    """Refuse a table without a column that the study needs."""
    table = study.table
    needed = [SEED, *study.factors, *table.metrics, *table.columns]
    if len(study.data) > 1:
        needed.insert(0, DATA)
    known = [str(name) for name in raw.columns if name != ""]
    for name in needed:
        column = table.column(name)
        if column in raw.columns:
            continue
        if len(known) == 1 and re.search(r"[;\t|]", known[0]):
            mark = re.search(r"[;\t|]", known[0])
            raise UserError(
                f"{where}: its cells are separated by {mark[0]!r}, not by commas; save it as CSV."  # type: ignore[index]
            )
        renamed = "" if name == column else f" (the study's '{name}')"
        hint = (
            ""
            if name in table.columns
            else f"; say under table.columns what it is called: {name}: ..."
        )
        raise (
            unknown(f"{where}: the column{renamed}", column, known)
            if not hint
            else UserError(
                f"{where}: there is no column '{column}'{hint}. Found: {', '.join(known)}."
            )
        )
    for name in table.rows:
        if name not in raw.columns:
            raise unknown(f"{where}: table.rows: the column", name, known)


def _kept(study: ForeignStudy, raw: pd.DataFrame, where: str) -> tuple[pd.DataFrame, list[str]]:
    """The rows that pass the filters and are at declared levels; what was left out, in words."""
    table = study.table
    notes = []
    rows = raw
    for name, chosen in table.rows.items():
        wanted = chosen if isinstance(chosen, list) else [chosen]
        shown = rows[name].map(_text).map(level_text)
        here = set(shown)
        for level in wanted:
            if level_text(level) not in here:
                raise unknown(f"{where}: table.rows: the {name}", level, sorted(here)[:40])
        keep = shown.isin({level_text(level) for level in wanted})
        if not keep.all():
            notes.append(f"{_rows(int((~keep).sum()))} left out: another {name}")
        rows = rows[keep]
    for name, levels in study.levels.items():
        column = table.column(name)
        if name == DATA and column not in rows:
            continue
        shown = rows[column].map(_text).map(level_text)
        keep = shown.isin({level_text(level) for level in levels})
        if not keep.all():
            lost = shown[~keep].value_counts()
            common = ", ".join(
                f"{level or '(empty)'} ({count})"
                for level, count in sorted(lost.items(), key=lambda p: (-p[1], str(p[0])))[:4]
            )
            more = f" and {len(lost) - 4} more" if len(lost) > 4 else ""
            notes.append(
                f"{_rows(int((~keep).sum()))} left out, as the study doesn't declare their "
                f"{column}: {common}{more}"
            )
        if not keep.any():
            found = sorted(set(shown))[:40]
            raise UserError(
                f"{where}: no row has a declared level of '{name}' (column '{column}'); declared: "
                f"{', '.join(map(str, levels))}; found: {', '.join(found) or 'no rows'}."
            )
        rows = rows[keep]
    return rows, notes


def _text(value: object) -> str:
    """A cell as text; empty for nothing."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    return " ".join(str(value).split())


def _category(column: pd.Series, levels: Sequence[Level]) -> pd.Series:
    """The declared level of each cell, as a category in the declared order."""
    known = {level_text(level): place for place, level in enumerate(levels)}
    codes = column.map(_text).map(level_text).map(known).to_numpy(dtype=int)
    values = pd.Categorical.from_codes(codes, categories=pd.Index(list(levels), dtype=object))
    return pd.Series(values, index=column.index)


def _trials(study: ForeignStudy, rows: pd.DataFrame, where: str) -> pd.Series:
    """Ids of the trials: the table's own where it has them, else the rows' names."""
    column = study.table.column(TRIAL)
    if column not in rows:
        return rows[""].str.replace(" ", "-")
    ids = rows[column].map(_text)
    empty = ids == ""
    if empty.any():
        raise UserError(f"{where}, {rows.loc[empty, ''].iloc[0]}: '{column}' is empty.")
    if ids.duplicated().any():
        again = ids[ids.duplicated()].iloc[0]
        both = rows.loc[ids == again, ""].tolist()
        raise UserError(f"{where}: two rows have the {column} '{again}': {both[0]} and {both[1]}.")
    return ids


def _status(study: ForeignStudy, rows: pd.DataFrame) -> pd.Series:
    """COMPLETED, FAILED, or the table's own word for what isn't finished."""
    column = study.table.column(STATUS)
    if column not in rows:
        return pd.Series(FINISHED, index=rows.index)
    known = {word.lower(): FINISHED for word in study.table.finished}
    known |= {word.lower(): FAILED for word in study.table.failed}

    def word(value: object) -> str:
        found = _text(value)
        return known.get(
            found.lower(), found if found.upper() not in (FINISHED, FAILED, "") else UNFINISHED
        )

    return rows[column].map(word)


def _seeds(rows: pd.DataFrame, column: str, where: str) -> pd.Series:
    """Seeds as whole numbers where all are, else as text."""
    shown = rows[column].map(_text)
    empty = shown.str.lower().isin(_EMPTY)
    if empty.any():
        raise UserError(f"{where}, {rows.loc[empty, ''].iloc[0]}: the seed ('{column}') is empty.")
    plain = shown.map(level_text)
    return plain.astype(int) if plain.str.fullmatch(r"-?\d{1,18}").all() else plain


def _numbers(rows: pd.DataFrame, column: str, where: str) -> pd.Series:
    """A column of numbers; empty cells are NaN."""
    shown = rows[column].map(_text)
    empty = shown.str.lower().isin(_EMPTY)
    numbers = pd.to_numeric(shown.where(~empty), errors="coerce")
    bad = numbers.isna() & ~empty
    if bad.any():
        row = rows.loc[bad, ""].iloc[0]
        raise UserError(
            f"{where}, {row}: '{column}' is '{shown[bad].iloc[0][:40]}'; a metric is a number, or empty."
        )
    return numbers.astype(float)


def _attempts(
    study: ForeignStudy, out: pd.DataFrame, rows: pd.Series, where: str
) -> tuple[pd.DataFrame, list[str]]:
    """One row a trial: of several attempts the finished one counts, else the last."""
    keys = [DATA, *study.factors, SEED]
    finished = out[STATUS] == FINISHED
    twice = out[finished & out.duplicated([*keys, STATUS], keep=False)]
    if len(twice):
        first = twice.iloc[0]
        same = twice[(twice[keys] == first[keys]).all(axis=1)]
        what = ", ".join(f"{key}={first[key]}" for key in keys)
        both = " and ".join(rows[same.index[:2]])
        raise UserError(
            f"{where}: two finished rows for the same trial ({what}): {both}; one is allowed. Is a "
            "factor missing in the study, or a filter under table.rows?"
        )
    best = out.assign(_rank=finished).sort_values("_rank", kind="stable")
    kept = out.loc[sorted(best.drop_duplicates(keys, keep="last").index)]
    lost = len(out) - len(kept)
    said = f"{_rows(lost)} left out: another attempt at the same trial counts"
    return kept, [said] if lost else []


def _normalised(study: ForeignStudy, out: pd.DataFrame) -> pd.Series:
    """100 (score - zero) / (hundred - zero), by the data set's anchors."""
    ends = {
        name: pair
        for name in study.data
        for pattern, pair in study.table.anchors.items()
        if fnmatch.fnmatchcase(name, pattern)
    }
    pairs = np.array([ends[name] for name in out[DATA].tolist()])  # (rows, 2)
    return 100.0 * (out["score"] - pairs[:, 0]) / (pairs[:, 1] - pairs[:, 0])


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def cells(study: ForeignStudy, table: pd.DataFrame) -> pd.DataFrame:
    """The cells that the tidy table has: one row each, columns `data` and the factors."""
    names: list[str] = list(study.levels)
    return table[names].drop_duplicates().astype(object).reset_index(drop=True)
