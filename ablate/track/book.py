"""The tables of a study while it runs: what was committed, what the run store holds, what comes in.

A trial has a row once its fit and all that is measured of it have ended. What a table already knows is
not asked for again: a clone without a run store goes on from the committed table, and only what it lacks
is fitted or measured.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
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
from ablate.track.known import Known
from ablate.track.store import COMPLETED, FAILED, attempts, told
from ablate.track.table import SERIES, cell, frame_of, order, read_table, write_table
from ablate.words import response

PATIENCE = 20  # so that writing a table of many trials again and again takes a twentieth of the time at most
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
        self.known = Known.of(folder, self.file)
        self.before = self.known.before
        self._due = 0.0
        self._enter(None)

    def take(self, names: Collection[str] | None) -> None:
        """Enter the attempts of these fits and measurements (all of the store when None).

        The tables are written when that was not done for `PATIENCE` times as long as it takes; the store has it all.
        """
        self._enter(names)
        if time.monotonic() >= self._due:
            began = time.monotonic()
            self.write()
            self._due = began + (1 + PATIENCE) * (time.monotonic() - began)

    def _enter(self, names: Collection[str] | None) -> None:
        if names is None:
            found = attempts(self.folder.runs, self._wanted)
        else:
            found = told(self.folder.runs, sorted(self._wanted.intersection(names)))
        self.known.take(found, self.fits)

    @cached_property
    def _wanted(self) -> set[str]:
        """Ids of all fits and measurements of these trials."""
        return {*self.fits, *(row for one in self.trials for row in one.rows.values())}

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
        completed, failed = self.settled(self.trials)
        total = len(self.trials)
        return Summary(total, completed, failed, total - completed - failed)

    def settled(self, trials: Sequence[Trial]) -> tuple[int, int]:
        """How many of these trials are completed, and how many failed."""
        statuses = [self.status(one)[0] for one in trials]
        return statuses.count(COMPLETED), statuses.count(FAILED)

    def write(self) -> None:
        """Write the tables, each whole or not at all; one without rows isn't written.

        Raises UserError when the study's folder is gone.
        """
        lines = self.lines()
        if not lines:
            return
        if not self.folder.registration.exists():
            raise UserError(
                f"{self.folder.root}: the folder was deleted or moved while the study ran, so nothing more is "
                "written. Put it back to go on from there; without it the same command starts anew."
            )
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
            for point in tabled(name, self.known.series.get(one.get(f"{name}.row", ""), ()))
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
        """The exact posterior's action error with the trial's window; NaN where it isn't known or knows something else.

        It is told the time and sees all of the past. Told who acts or the return, a model may beat it; without the time
        or part of the past none can reach it.
        """
        found = self._yardsticks
        if found is None or "action_error" not in found:
            return math.nan
        if (one.config["condition"], one.config["history"]) != ("time", "states+actions"):
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


def tabled(measurement: str, points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of the values over an index of one row, in the order of the index, those that stand in `series.csv`: of the
    responses and at the places that `words.Response` says, and where there is a value."""
    found: list[Mapping[str, Any]] = []
    for name, of in itertools.groupby(points, key=itemgetter("response")):
        mine, about = list(of), response(f"{measurement}.{name}")
        if not about.tabled:
            continue
        if 0 < about.places < len(mine):
            spaced = np.geomspace(1, len(mine), about.places).round().astype(int)
            mine = [mine[place - 1] for place in np.unique(spaced)]
        found += [point for point in mine if not math.isnan(point["value"])]
    return found


def _measured(line: Mapping[str, Any]) -> list[str]:
    """The measurements that a row tells of."""
    return [name.removesuffix(".row") for name in line if name.endswith(".row")]


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
