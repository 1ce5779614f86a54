"""A study about runs that somebody else made: its claims, and how to read their table.

Such a file has a section `table` where one of ours has designs, training and evaluation:

    table:
      columns: {data: dataset, algo: "Algorithm"}   # what the table calls it; else its own name
      rows: {suite: [d4rl/iql, d4rl/cql]}           # only these rows
      metrics: [score]                              # numbers that hypotheses may be about
      anchors: {"hopper-*": [-20.27, 3234.3]}       # score that is 0, score that is 100
      finished: [COMPLETED]                         # words of the column `status`
      failed: [FAILED]

A table may hold a row at every step of a run: where one of the columns `STEPS` (or the one that the study calls
`step`) tells the rows of a trial apart, the last step counts and the others are the trial's curve. Matrices of
scores {algorithm: runs x tasks} are rows of the study's one factor; their columns are its data sets in order.

`paired: true` says that runs of one seed share something in all cells, such as their evaluation episodes, so
that contrasts are formed within seeds; that seed numbers coincide says nothing. `factors` are columns with
the levels that count; `data` the data sets that count. `tidy` makes the
table that the analysis reads; what it leaves out it counts and says.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field, ValidationError

from ablate.errors import UserError, unknown
from ablate.registry import Section
from ablate.study import checks, identity
from ablate.study.contrast import Cells, Level, level_text
from ablate.study.hypotheses import Hypothesis, coverage
from ablate.study.resolve import filled, found_in, no_repeats, said
from ablate.study.source import Key, Source, read

DATA, SEED, TRIAL, STATUS, FAILURE, STEP = "data", "seed", "trial", "status", "failure", "step"
STEPS = (
    *(
        STEP,
        "steps",
        "timestep",
        "timesteps",
        "global_step",
        "total_steps",
        "env_step",
        "env_steps",
    ),
    *("update", "updates", "iteration", "iterations", "epoch", "epochs", "budget"),
)
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
    """A table as the analysis reads it (factor columns are categories, in the declared order), in words what was
    left out or changed on the way, and where it had a row a step the curves: trial, update and the metrics."""

    table: pd.DataFrame
    notes: tuple[str, ...]
    curves: pd.DataFrame


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
    known = Cells.of(everything)
    for index, hypothesis in enumerate(study.hypotheses):
        if not coverage(hypothesis, study.levels, known).tested:
            raise source.refuse(
                ("hypotheses", index, "contrast"),
                f"hypothesis '{hypothesis.id}': no combination of the declared levels has the "
                f"cells that '{hypothesis.contrast}' needs.",
            )
    return study


def _no_clash(source: Source, file: ForeignFile) -> None:
    """A column is one thing only, and every name can stand in a contrast."""
    table = file.table
    ours = (DATA, SEED, TRIAL, STATUS, FAILURE, STEP)
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


def arranged(study: ForeignStudy, matrices: pd.DataFrame, where: str) -> tuple[pd.DataFrame, str]:
    """Rows of matrices of scores (algorithm, task, run, score, perhaps step) under the names that the study gives
    its columns, and how, in words.

    Tasks, numbered from 1, are the study's data sets in their order. Raises UserError where their number is
    another, or the study has several factors or metrics.
    """
    for what, found in (("factor", tuple(study.factors)), ("metric", study.table.metrics)):
        if len(found) != 1:
            raise UserError(
                f"{where}: matrices have one {what}, the study has {len(found)}: {', '.join(found)}; for more "
                "make a table with a row a run."
            )
    tasks = int(matrices["task"].max())
    if tasks != len(study.data):
        raise UserError(
            f"{where}: the matrices have {tasks} tasks, and the study names {len(study.data)} data sets: "
            f"{', '.join(study.data)}; name all, in the order of the matrices' columns."
        )
    (factor,), (metric,) = study.factors, study.table.metrics
    called = {"algorithm": factor, "task": DATA, "run": SEED, "score": metric, "step": STEP}
    named = dict(enumerate(study.data, 1))
    table = matrices.assign(task=matrices["task"].map(named)).rename(
        columns={name: study.table.column(ours) for name, ours in called.items()}
    )
    return table, f"its columns, in their order, are {', '.join(study.data)}"


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
    out = pd.DataFrame({STATUS: _status(study, rows)})
    out[DATA] = _category(data, study.data)
    for name, levels in study.factors.items():
        out[name] = _category(rows[table.column(name)], levels)
    out[SEED] = _seeds(rows, table.column(SEED), where)
    for name in table.metrics:
        out[name] = _numbers(rows, table.column(name), where)
    out[FAILURE] = (
        _each(rows[table.column(FAILURE)], _text) if table.column(FAILURE) in rows else ""
    )
    for name in table.metrics:
        bad = np.isinf(out[name].to_numpy()) & (out[STATUS] == FINISHED).to_numpy()
        if bad.any():
            raise UserError(
                f"{where}, {rows[''].iloc[int(bad.argmax())]}: '{table.column(name)}' is infinite "
                "in a finished trial."
            )
        # Outside a finished trial an infinite number says no more than none.
        out[name] = out[name].where(np.isfinite(out[name]))
    if table.anchors:
        out["score"] = _normalised(study, out)
        shown = "; ".join(f"{p} {a:g} to {b:g}" for p, (a, b) in table.anchors.items())
        notes.append(f"scores normalised so that these are 0 and 100: {shown}")
    out, rows, curves, said = _last_steps(study, out, rows, where)
    notes += said
    out.insert(0, TRIAL, _trials(study, rows, where))
    for name in table.metrics:
        empty = int((out[name].isna() & (out[STATUS] == FINISHED)).sum())
        if empty:
            notes.append(f"{_rows(empty)} finished without a value of '{name}'")
    other = out.loc[~out[STATUS].isin((FINISHED, FAILED)), STATUS].value_counts()
    for word, count in sorted(other.items()):
        notes.append(f"{_rows(int(count))} with status '{word}': counted as not finished")
    out, again = _attempts(study, out, rows[""], where)
    notes += again
    notes += _fractions(study, out)
    lacking = [name for name in study.data if name not in set(out[DATA])]
    if lacking:
        notes.append(f"no row of the data set {', '.join(lacking)}")
    out = out.reset_index(drop=True)
    return Tidy(out, tuple(notes), _curves(study, out, curves))


def _last_steps(
    study: ForeignStudy, out: pd.DataFrame, rows: pd.DataFrame, where: str
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame | None, list[str]]:
    """The rows at the last step of every trial, here and in `rows`; the rows at all steps with the column `update`;
    and what that was, in words. Without a row a step everything as it is.

    A run that ends before the last step of its cell isn't finished: no mean mixes steps.
    """
    keys = [DATA, *study.factors, SEED]
    named = STEP in study.table.columns
    column = _step(study, out, rows, keys)
    if column is None:
        return out, rows, None, []
    steps = _numbers(rows, column, where)
    if steps.isna().any():
        at = rows.loc[steps.isna(), ""].iloc[0]
        raise UserError(f"{where}, {at}: the step ('{column}') is empty.")
    stepped = out.assign(update=steps)
    last = stepped.groupby(keys, observed=True)["update"].transform("max")
    end = stepped.groupby([DATA, *study.factors], observed=True)["update"].transform("max")
    kept = stepped["update"] == last
    short = (stepped["update"] < end) & kept & (out[STATUS] == FINISHED)
    ends = sorted(set(end.tolist()))
    shown = f"{ends[0]:g}" if len(ends) == 1 else f"{ends[0]:g} to {ends[-1]:g}, by cell"
    notes = [
        f"several rows a trial, by '{column}'{'' if named else ', as its name says'}: the last step ({shown}) counts, "
        "the others are the trial's curve"
    ]
    out = out.assign(**{STATUS: out[STATUS].where(~short, UNFINISHED)})
    if short.any():
        notes.append(f"{_rows(int(short.sum()))} end before the last step of their cell")
    return out[kept], rows[kept], stepped, notes


def _step(
    study: ForeignStudy, out: pd.DataFrame, rows: pd.DataFrame, keys: Sequence[str]
) -> str | None:
    """The column that tells the rows of a trial apart; None where there is one row a trial, or no such column."""
    used = {study.table.column(name) for name in (*study.factors, SEED, *study.table.metrics)}
    if STEP in study.table.columns:
        return study.table.column(STEP)
    if not out.duplicated(keys).any():
        return None
    for name in rows.columns:
        if str(name).lower().replace(" ", "_") not in STEPS or name in used:
            continue
        steps = pd.to_numeric(_each(rows[name], _text), errors="coerce")
        if steps.notna().all() and not out.assign(update=steps).duplicated([*keys, "update"]).any():
            return str(name)
    return None


def _curves(study: ForeignStudy, out: pd.DataFrame, stepped: pd.DataFrame | None) -> pd.DataFrame:
    """Trial, update and metrics at every step of the trials that count."""
    columns = [TRIAL, "update", *study.table.metrics]
    if stepped is None:
        return pd.DataFrame(columns=columns)
    keys = [DATA, *study.factors, SEED]
    return stepped.merge(out[[TRIAL, *keys]], on=keys)[columns]


def _fractions(study: ForeignStudy, out: pd.DataFrame) -> list[str]:
    """A word where scores look like fractions and margins are in points."""
    margins = [study.margin, *(h.margin for h in study.hypotheses if h.metric == "score")]
    known = [margin for margin in margins if margin is not None]
    if "score" not in study.table.metrics or study.table.anchors or not known:
        return []
    low, high = out["score"].min(), out["score"].max()
    if not (high - low < max(known) and -2.0 <= low <= high <= 2.0):
        return []
    return [
        f"scores lie between {low:.3g} and {high:.3g}, closer together than the margin of {max(known):g}; if they are "
        "fractions, say under table.anchors which scores are 0 and 100"
    ]


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
        shown = _each(rows[name], _level)
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
        shown = _each(rows[column], _level)
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


def _level(value: object) -> str:
    """A cell as levels are compared."""
    return level_text(_text(value))


def _each(column: pd.Series, function: Callable[[Any], Any]) -> pd.Series:
    """The function of every cell, asked once for every text."""
    if pd.api.types.infer_dtype(column, skipna=False) != "string":
        return column.map(function)  # 1 and True would be one
    codes, texts = pd.factorize(column)
    found = pd.Series([function(text) for text in texts], dtype=object).to_numpy()
    return pd.Series(found[codes], index=column.index).infer_objects()


def _category(column: pd.Series, levels: Sequence[Level]) -> pd.Series:
    """The declared level of each cell, as a category in the declared order."""
    known = {level_text(level): place for place, level in enumerate(levels)}
    codes = _each(column, lambda cell: known[_level(cell)]).to_numpy(dtype=int)
    values = pd.Categorical.from_codes(codes, categories=pd.Index(list(levels), dtype=object))
    return pd.Series(values, index=column.index)


def _trials(study: ForeignStudy, rows: pd.DataFrame, where: str) -> pd.Series:
    """Ids of the trials: the table's own where it has them, else the rows' names."""
    column = study.table.column(TRIAL)
    if column not in rows:
        return rows[""].str.replace(" ", "-")
    ids = _each(rows[column], _text)
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

    return _each(rows[column], word)


def _seeds(rows: pd.DataFrame, column: str, where: str) -> pd.Series:
    """Seeds as whole numbers where all are, else as text."""
    codes, texts = pd.factorize(_each(rows[column], _level))
    empty = np.array([text.lower() in _EMPTY for text in texts], dtype=bool)[codes]
    if empty.any():
        raise UserError(f"{where}, {rows.loc[empty, ''].iloc[0]}: the seed ('{column}') is empty.")
    whole = all(re.fullmatch(r"-?\d{1,18}", text) for text in texts)
    plain = np.array(
        [int(text) if whole else text for text in texts], dtype=int if whole else object
    )
    return pd.Series(plain[codes], index=rows.index)


def _numbers(rows: pd.DataFrame, column: str, where: str) -> pd.Series:
    """A column of numbers; empty cells are NaN."""
    shown = _each(rows[column], _text)
    numbers = pd.to_numeric(shown, errors="coerce")
    bad = numbers.isna()
    bad[bad] = ~shown[bad].str.lower().isin(_EMPTY)
    if bad.any():
        row, cell = rows.loc[bad, ""].iloc[0], shown[bad].iloc[0][:40]
        meant = "a metric is a number, or empty"
        if re.fullmatch(r"[-+]?\d{1,3},\d{3}", cell):
            both = f"{cell.replace(',', '.')} or {cell.replace(',', '')}"
            meant = f"that may be {both}: write it with a point, or without"
        raise UserError(f"{where}, {row}: '{column}' is '{cell}'; {meant}.")
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
