"""The tables of a study while it runs: what was committed, what the run store holds, what comes in.

A trial has a row once its fit and all that is measured of it have ended. What a table already knows is
not asked for again: a clone without a run store goes on from the committed table, and only what it lacks
is fitted or measured.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ablate import config
from ablate.errors import UserError
from ablate.study import expand
from ablate.study.contrast import level_text
from ablate.study.expand import Trial
from ablate.study.schema import Study
from ablate.study.tuning import Arm, choose
from ablate.track import kept
from ablate.track.folder import StudyFolder
from ablate.track.store import COMPLETED, FAILED, Attempt, attempts, deciding
from ablate.track.table import (
    SERIES,
    cell,
    frame_of,
    order,
    read_csv,
    read_curves,
    read_series,
    read_table,
    rows,
    write_table,
)
from ablate.words import response

CURVE = "curve.csv"
POINTS = "series.csv"
SCALE = ("train.updates", "train.targets_per_update", "model.parameters")


@dataclass(frozen=True)
class Summary:
    """Trials of this profile: how many there are, finished, failed, and without a result."""

    total: int
    completed: int
    failed: int
    missing: int

    def with_those_of(self, other: Summary) -> Summary:
        """The sums of both."""
        mine, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return Summary(*(a + b for a, b in zip(mine, theirs, strict=True)))


@dataclass
class Known:
    """What fits and measurements have given so far, by id; why those that failed did."""

    fits: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    series: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by row id
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by fit
    failures: dict[str, str] = field(default_factory=dict)

    def take(self, found: Iterable[Attempt], fits: Collection[str]) -> None:
        """Enter attempts: a COMPLETED one wins, the latest FAILED one is the later word."""
        for name, attempt in deciding(found).items():
            if attempt.status == COMPLETED:
                self.failures.pop(name, None)
                (self.fits if name in fits else self.rows)[name] = dict(attempt.result)
            elif attempt.status == FAILED and name not in self.fits and name not in self.rows:
                self.failures[name] = " ".join(attempt.failure.split())
            else:
                continue
            if name in fits and (attempt.path / CURVE).exists():
                self.curves[name] = _points(attempt.path / CURVE, "update")
            elif (attempt.path / POINTS).exists():
                self.series[name] = _points(attempt.path / POINTS, "response")


class Book:
    """The tidy tables of a study's trials.

    table: another file than trials.csv, as for the trials of a tuning, whose curves are not kept. further:
        paths that have a column beside the study's factors.
    """

    def __init__(
        self,
        folder: StudyFolder,
        study: Study,
        trials: Sequence[Trial],
        table: Path | None = None,
        further: Sequence[str] = (),
    ) -> None:
        self.folder, self.study, self.further = folder, study, tuple(further)
        self.file = table or folder.table
        self.trials = list(trials)
        self.fits = {one.fit.id for one in trials}
        self.known = Known()
        self.before: list[dict[str, Any]] = []
        self._remember()
        self._enter(None)

    def _remember(self) -> None:
        """Read the tables that are there: each row tells what its fit and its measurements gave."""
        folder = self.folder
        if not self.file.exists():
            return
        table = read_table(self.file)
        self.before = rows(table)
        measured = [n.removesuffix(".row") for n in table.columns if n.endswith(".row")]
        for row in self.before:
            asked = [name for name in measured if row[f"{name}.row"]]
            if row["status"] == FAILED and not asked:  # its fit failed
                self.known.failures[row["fit"]] = row["failure"]
                continue
            fit = {n: v for n, v in row.items() if _of_fit(n, measured)}
            self.known.fits[row["fit"]] = fit
            if row["status"] == FAILED:
                name, _, reason = row["failure"].partition(": ")
                self.known.failures[row.get(f"{name}.row", row["trial"])] = reason
                continue
            for name in asked:
                own = {n: v for n, v in row.items() if n.startswith(f"{name}.")}
                del own[f"{name}.row"]
                self.known.rows[row[f"{name}.row"]] = {
                    n.removeprefix(f"{name}."): v for n, v in own.items()
                }
        if self.file != folder.table:
            return
        if folder.curves.exists():
            for row in rows(read_curves(folder.curves)):
                self.known.curves.setdefault(row.pop("fit"), []).append(row)
        if folder.series.exists():
            ids = {row["trial"]: row for row in self.before}
            told: dict[
                str, str
            ] = {}  # row id -> the trial that told it first; several may share a row
            for row in rows(read_series(folder.series)):
                measurement, _, response = row["response"].rpartition(".")
                trial = ids.get(row["trial"])
                if trial is None:
                    continue
                name = trial[f"{measurement}.row"]
                if told.setdefault(name, row["trial"]) == row["trial"]:
                    point = {"response": response, "index": row["index"], "value": row["value"]}
                    self.known.series.setdefault(name, []).append(point)

    def take(self, names: Collection[str] | None) -> None:
        """Enter the attempts of these fits and measurements (all of the store when None); write the tables."""
        self._enter(names)
        self.write()

    def _enter(self, names: Collection[str] | None) -> None:
        wanted = {*self.fits, *(row for one in self.trials for row in one.rows.values())}
        found = attempts(self.folder.runs, wanted if names is None else wanted & set(names))
        self.known.take(found, self.fits)

    @property
    def results(self) -> int:
        """How many results there were before this run: trials of the table, of whatever code and settings, or what was
        measured where there is no table yet."""
        rows = sum(row["status"] == COMPLETED for row in self.before)
        return rows or len(self.known.rows)

    def status(self, one: Trial) -> tuple[str, str]:
        """COMPLETED or FAILED with the reason; empty while something has no result."""
        known = self.known
        if one.fit.id in known.failures and one.fit.id not in known.fits:
            return FAILED, known.failures[one.fit.id]
        for name, row in one.rows.items():
            if row in known.failures:
                return FAILED, f"{name}: {known.failures[row]}"
        done = one.fit.id in known.fits and all(row in known.rows for row in one.rows.values())
        return (COMPLETED if done else ""), ""

    def todo(self, retry_failed: bool) -> list[Trial]:
        """Trials without a result; failed ones only on request."""
        if retry_failed:
            for one in self.trials:
                for name in (one.fit.id, *one.rows.values()):
                    self.known.failures.pop(name, None)
        return [one for one in self.trials if not self.status(one)[0]]

    def outdated(self) -> int:
        """How many rows of the table are of these trials' levels, by other code, data or settings."""
        return len(self._superseded)

    def summary(self) -> Summary:
        """How many trials of this profile have which status."""
        statuses = [self.status(one)[0] for one in self.trials]
        completed, failed = statuses.count(COMPLETED), statuses.count(FAILED)
        total = len(self.trials)
        return Summary(total, completed, failed, total - completed - failed)

    def settled(self, todo: Sequence[Trial]) -> tuple[int, int]:
        """How many trials that aren't to do are completed, and how many failed."""
        left = {one.id for one in todo}
        statuses = [self.status(one)[0] for one in self.trials if one.id not in left]
        return statuses.count(COMPLETED), statuses.count(FAILED)

    def write(self) -> None:
        """Write the tables, each whole or not at all."""
        lines = self.lines()
        if not lines and not self.before:
            return
        write_table(_frame(lines), self.file)
        if self.file != self.folder.table:
            return
        fits = dict.fromkeys(line["fit"] for line in lines)
        points = [{"fit": f, **p} for f in sorted(fits) for p in self.known.curves.get(f, ())]
        if points:
            names = sorted({name for point in points for name in point} - {"fit", "update"})
            write_table(frame_of(points, ["fit", "update", *names]), self.folder.curves)
        series = [
            {**point, "trial": one["trial"], "response": f"{name}.{point['response']}"}
            for one in sorted(lines, key=lambda line: str(line["trial"]))
            for name in _measured(one)
            for point in self.known.series.get(one.get(f"{name}.row", ""), ())
            if response(f"{name}.{point['response']}").tabled
        ]
        if series:
            write_table(frame_of(series, SERIES), self.folder.series)

    def lines(self) -> list[dict[str, Any]]:
        """The rows of the table: those of these trials, and what was there of others."""
        mine = {}
        old = {row["trial"]: row for row in self.before}
        for one in self.trials:
            status, failure = self.status(one)
            if status:
                mine[one.id] = self._line(one, status, failure)
            elif one.id in old:
                mine[one.id] = old[one.id]
        gone = {name for name, successor in self._superseded.items() if successor in mine}
        kept_rows = [r for name, r in old.items() if name not in mine and name not in gone]
        return [*mine.values(), *kept_rows]

    def _line(self, one: Trial, status: str, failure: str) -> dict[str, Any]:
        line = {**self._factors(one), "status": status, "failure": failure}
        fit = self.known.fits.get(one.fit.id)
        if fit is None:
            return line
        line |= fit | {f"{name}.row": row for name, row in one.rows.items()}
        if status != COMPLETED:
            return line
        for name, row in one.rows.items():
            given = self.known.rows[row]
            line |= {f"{name}.{n}": v for n, v in given.items() if "@" not in n}
            line |= self._at(name, row)
        criterion = one.config["train"].get("converged")
        if criterion is not None and one.budget == one.config["train"]["updates"]:
            error = line.get("held-out.action_error", math.nan)
            excess = error - self._yardstick(one)
            met = config.Converged.model_validate(criterion).met
            line["converged"] = met(fit.get("loss_fall", math.nan), excess)
        return line

    def _at(self, measurement: str, row: str) -> dict[str, float]:
        """Values at one place of an index, where a hypothesis is about them: `open-loop.error@5`.

        A clone that lacks series.csv has those that its table holds.
        """
        made = {}
        points = self.known.series.get(row, ())
        for metric in dict.fromkeys(h.metric for h in self.study.hypotheses):
            response, at, where = metric.removeprefix(f"{measurement}.").partition("@")
            if at and metric.startswith(f"{measurement}."):
                here = (p for p in points if p["response"] == response)
                found = (p["value"] for p in here if level_text(p["index"]) == level_text(where))
                known = self.known.rows[row].get(f"{response}@{where}", math.nan)
                made[metric] = float(next(found, known))
        return made

    def _factors(self, one: Trial) -> dict[str, Any]:
        """What a row says before its results: ids, data, every factor, the scale, budget and seed."""
        row: dict[str, Any] = {"trial": one.id, "fit": one.fit.id, "data": one.config["data"]}
        dotted = [name for name in self.study.factors if "." in name]
        optional = [name for name in config.OPTIONAL if name in self.study.factors]
        named = (*config.FACTORS, *optional, *SCALE, *dotted, *self.further)
        for name in dict.fromkeys(named):
            row[name] = one.level(name)
        return {**row, "budget": one.budget, "seed": one.seed}

    @cached_property
    def _yardsticks(self) -> pd.DataFrame | None:
        return kept.yardsticks(self.folder)

    def _yardstick(self, one: Trial) -> float:
        """The exact posterior's action error with the trial's window; NaN where it isn't known."""
        found = self._yardsticks
        if found is None or "action_error" not in found:
            return math.nan
        mine = found[
            (found["data"] == one.config["data"])
            & (found["content"] == one.fit.data_hash)
            & (found["context"] == config.timesteps(one.config))
        ]
        return float(mine["action_error"].iloc[0]) if len(mine) else math.nan

    @cached_property
    def _superseded(self) -> dict[str, str]:
        """Trials of the table that are not asked for, each with the one that looks the same.

        Factors, budget and seed agree and the ids don't: that is the result of other code, data or settings,
        and a table that held both couldn't tell them apart.
        """
        ours = {one.id for one in self.trials}
        made = [self._factors(one) for one in self.trials]
        shown = [name for name in made[0] if name not in ("trial", "fit")]
        new = {tuple(cell(row[name]) for name in shown): row["trial"] for row in made}
        found = {}
        for row in self.before:
            if row["trial"] not in ours:
                successor = new.get(tuple(cell(row.get(name)) for name in shown))
                if successor is not None:
                    found[row["trial"]] = successor
        return found


def _frame(lines: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows as a table with its columns in order."""
    there = dict.fromkeys(name for line in lines for name in line)
    first = ["trial", "fit", "status"]
    factors = [name for name in there if config.is_factor(name)]
    measured = sorted({m for line in lines for m in _measured(line)})
    last = ["budget", "seed"]
    for name in measured:
        last += [
            f"{name}.row",
            *(n for n in there if n.startswith(f"{name}.") and n != f"{name}.row"),
        ]
    rest = [n for n in there if n not in (*first, *factors, *last, "failure")]
    return order(frame_of(lines, [*first, *factors, *last, *sorted(rest), "failure"]))


def _measured(line: Mapping[str, Any]) -> list[str]:
    """The measurements that a row tells of."""
    return [name.removesuffix(".row") for name in line if name.endswith(".row")]


def _of_fit(name: str, measured: Sequence[str]) -> bool:
    """Whether a column is a number of the fit itself."""
    apart = ("trial", "fit", "status", "budget", "seed", "failure", "converged")
    return not (
        name in apart or config.is_factor(name) or any(name.startswith(f"{m}.") for m in measured)
    )


def _points(path: Path, column: str) -> list[dict[str, Any]]:
    found = read_csv(path)
    if column not in found.columns:
        raise UserError(f"{path}: column '{column}' is missing.")
    return rows(found)


def tuning_book(folder: StudyFolder, study: Study, data_hashes: Mapping[str, str]) -> Book:
    """The book of a study's tuning trials; they stand in tuning.csv, each tuned setting in a column."""
    assert study.tune is not None
    trials = [one for ones in expand.tuning(study, data_hashes).values() for one in ones]
    return Book(folder, study, trials, folder.tuning, tuple(study.tune.space))


def tuned(study: Study, folder: StudyFolder, data_hashes: Mapping[str, str]) -> Study:
    """The study with the settings that its tuning chose; as it is where none has run."""
    if study.tune is None or not folder.tuning.exists():
        return study
    arms = tuning_arms(study, data_hashes)
    return study.model_copy(update={"tuned": choose(read_table(folder.tuning), study.tune, arms)})


def tuning_arms(study: Study, data_hashes: Mapping[str, str]) -> dict[str, tuple[Arm, int]]:
    """Trial -> its arm and draw."""
    return {one.id: key for key, ones in expand.tuning(study, data_hashes).items() for one in ones}
