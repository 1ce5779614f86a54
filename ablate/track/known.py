"""What fits and measurements have given so far: told by a study's tables, and by its run store.

Each carries hashes of its own (`ablate.track.seal`). Where both tell of the same, they must say the same.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablate import config
from ablate.errors import UserError
from ablate.track import kept
from ablate.track.folder import StudyFolder
from ablate.track.store import COMPLETED, FAILED, Attempt, attempts, deciding
from ablate.track.table import CURVES, SERIES, read_columns, read_trials, rows

CURVE = "curve.csv"
POINTS = "series.csv"


@dataclass
class Known:
    """What fits and measurements have given, by id; why those that failed did.

    told: of those that a table tells of, the table and the number of the row. before: the table's rows.
    """

    fits: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    series: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by row id
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by fit
    failures: dict[str, str] = field(default_factory=dict)
    told: dict[str, tuple[Path, int]] = field(default_factory=dict)
    before: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, folder: StudyFolder, file: Path) -> Known:
        """What a table tells, `folder.table` with curves and series beside it: each row tells what its fit
        and its measurements gave. Raises UserError for a damaged table."""
        self = cls()
        if not file.exists():
            return self
        table = read_trials(file)
        self.before = rows(table)
        measured = [n.removesuffix(".row") for n in table if n.endswith(".row")]
        for number, row in enumerate(self.before, start=1):
            asked = [name for name in measured if row[f"{name}.row"]]
            if row["status"] == FAILED and not asked:  # its fit failed
                self.failures[row["fit"]] = row["failure"]
                continue
            self.fits[row["fit"]] = {n: v for n, v in row.items() if _of_fit(n, measured)}
            self.told[row["fit"]] = file, number
            if row["status"] == FAILED:
                name, _, reason = row["failure"].partition(": ")
                self.failures[row.get(f"{name}.row", row["trial"])] = reason
                continue
            for name in asked:
                own = {n: v for n, v in row.items() if n.startswith(f"{name}.")}
                id_ = own.pop(f"{name}.row")
                self.rows[id_] = {n.removeprefix(f"{name}."): v for n, v in own.items()}
                self.told[id_] = file, number
        if file == folder.table:
            self._beside(folder)
        return self

    def _beside(self, folder: StudyFolder) -> None:
        if folder.curves.exists():
            for row in rows(read_columns(folder.curves, required=CURVES)):
                self.curves.setdefault(row.pop("fit"), []).append(row)
        if folder.series.exists():
            ids = {row["trial"]: row for row in self.before}
            first: dict[str, str] = {}  # row id -> the trial that told it; several may share a row
            for row in rows(read_columns(folder.series, required=SERIES)):
                measurement, _, response = row["response"].rpartition(".")
                trial = ids.get(row["trial"])
                if trial is None:
                    continue
                name = trial[f"{measurement}.row"]
                if first.setdefault(name, row["trial"]) == row["trial"]:
                    point = {"response": response, "index": row["index"], "value": row["value"]}
                    self.series.setdefault(name, []).append(point)

    def take(self, found: Iterable[Attempt], fits: Collection[str]) -> None:
        """Enter attempts: a COMPLETED one wins, the latest FAILED one is the later word.

        Raises UserError, naming both, when a run and the table disagree.
        """
        for name, attempt in deciding(found).items():
            mine = self.fits if name in fits else self.rows
            if attempt.status == COMPLETED:
                if not self.agrees(attempt, mine.get(name)):
                    continue
                self.failures.pop(name, None)
                mine[name] = dict(attempt.result)
            elif attempt.status == FAILED and name not in self.fits and name not in self.rows:
                self.failures[name] = " ".join(attempt.failure.split())
            else:
                continue
            if points := _points(attempt, CURVE if name in fits else POINTS):
                (self.curves if name in fits else self.series)[name] = points

    def agrees(self, attempt: Attempt, mine: Mapping[str, Any] | None) -> bool:
        """Whether a run gave what the table tells, where it tells of it. A fit that was only trained again for
        its checkpoints may differ by rounding, on another processor: then the table's numbers stand.

        Raises UserError, naming both, when it didn't.
        """
        if mine is None or attempt.trial_id not in self.told:
            return True
        for name in dict.fromkeys((*attempt.result, *mine)):
            one, other = attempt.result.get(name, math.nan), mine.get(name, math.nan)
            # A value at one place of an index is the table's own.
            if "@" in name or one == other or (one != one and other != other):
                continue
            if attempt.config().get("again"):
                return False
            file, row = self.told[attempt.trial_id]
            raise UserError(
                f"{attempt.path / 'run.json'}: {name} is {one!r}, but {other!r} in {file}, row {row}; each is as "
                f"it was written, so they are of two runs. Nothing was changed. Move {attempt.run_id} out of "
                f"{attempt.path.parent} to go on with the table's, or {file.name} away to have it made again "
                "from the runs."
            )
        return True


def verify(folder: StudyFolder, found: Sequence[Attempt] | None = None) -> dict[Path, Known]:
    """What the tables of trials tell, by file. found: all attempts of the store, where they are known.

    Raises UserError, naming the first, when a file of a study's folder isn't as it was written, a run of its
    store isn't, or a run and a table disagree.
    """
    folder.read()
    kept.audits(folder)
    kept.optima(folder)
    if folder.replications.exists():
        read_columns(folder.replications)
    tables = {file: Known.of(folder, file) for file in (folder.table, folder.tuning)}
    if found is None:
        found = attempts(folder.runs, {name for known in tables.values() for name in known.told})
    decided = deciding(found)
    for known in tables.values():
        for name, attempt in decided.items():
            if name not in known.told:
                continue
            if attempt.status == COMPLETED:
                mine = known.fits if name in known.fits else known.rows
                known.agrees(attempt, mine[name])
                for each in attempt.files:
                    attempt.kept(each)
    return tables


def counted(known: Known, trials: Sequence[Sequence[str]]) -> tuple[int, int]:
    """How many of these trials are completed, and how many failed; each is the id of its fit, then of its rows."""
    completed = failed = 0
    for fit, *asked in trials:
        lost = fit in known.failures and fit not in known.fits
        if lost or any(row in known.failures for row in asked):
            failed += 1
        elif fit in known.fits and all(row in known.rows for row in asked):
            completed += 1
    return completed, failed


def _of_fit(name: str, measured: Collection[str]) -> bool:
    """Whether a column is a number of the fit itself."""
    apart = ("trial", "fit", "status", "budget", "seed", "failure", "converged")
    return not (
        name in apart or config.is_factor(name) or any(name.startswith(f"{m}.") for m in measured)
    )


def _points(attempt: Attempt, name: str) -> list[dict[str, Any]]:
    """The rows of a file that a run has kept; none where it kept no such file."""
    if name not in attempt.files:
        return []
    return rows(read_columns(attempt.kept(name), sealed=False))
