"""`status`: how far a study is, and what went wrong, in words or as a record for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.launch.shared import Desk
from ablate.track import kept, roll, seal
from ablate.track.folder import StudyFolder, folder_of
from ablate.track.known import Known, counted, verify
from ablate.track.roll import Roll
from ablate.track.store import Attempt, attempts, deciding

if TYPE_CHECKING:
    from ablate.study.schema import Study


@dataclass(frozen=True)
class Count:
    """Of fits and trials that are asked for, how many have a result; a trial without one is neither completed nor
    failed."""

    fits: int
    trained: int
    trials: int
    completed: int
    failed: int

    @property
    def without(self) -> int:
        """Trials without a result."""
        return self.trials - self.completed - self.failed

    def text(self) -> str:
        """In words."""
        return (
            f"{self.trained:,} of {self.fits:,} fits trained, {self.completed:,} of {self.trials:,} trials "
            f"completed, {self.failed:,} failed, {self.without:,} without a result"
        )

    def record(self) -> dict[str, int]:
        """As plain JSON."""
        return {**asdict(self), "without_a_result": self.without}


@dataclass(frozen=True)
class Standing:
    """How far a study is.

    begun: whether it was run at all. tuning: None where it tunes nothing. runs: attempts that count, by status. jobs:
    what a cluster has, in words. ended: attempts that failed, died or were interrupted.
    """

    study: str
    profile: str
    folder: Path
    begun: bool
    trials: Count
    tuning: Count | None
    runs: Mapping[str, int]
    jobs: str
    ended: Sequence[Attempt]

    def text(self) -> str:
        """What a person reads."""
        lines = []
        if not self.begun:
            lines.append(
                f"no runs yet: 0 of {self.trials.fits:,} fits trained, 0 of {self.trials.trials:,} trials completed"
            )
        else:
            if self.tuning is not None:
                lines.append(f"tuning: {self.tuning.text()}")
            lines.append(self.trials.text())
        if self.runs:
            counts = (f"{count:,} {state.lower()}" for state, count in sorted(self.runs.items()))
            lines.append(f"runs: {', '.join(counts)}")
        if self.jobs:
            lines.append(self.jobs)
        lines += [f"{one.run_id}  {one.status}  {one.failure}".rstrip() for one in self.ended]
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """What a program reads, as plain JSON."""
        return {
            "study": self.study,
            "profile": self.profile,
            "folder": str(self.folder),
            "begun": self.begun,
            **self.trials.record(),
            "tuning": None if self.tuning is None else self.tuning.record(),
            "runs": dict(sorted(self.runs.items())),
            "jobs": self.jobs,
            "ended": [
                {"run": one.run_id, "status": one.status, "failure": one.failure}
                for one in self.ended
            ],
        }


def asked(
    file: Path,
    profile: str | None,
    overrides: Sequence[str],
    plugins: Sequence[str],
    results: Path,
) -> Standing:
    """How far a study is, as a command names it, whose file is only resolved where that wasn't done before.

    Raises UserError for a study file that is refused, and for a plugin that doesn't load.
    """
    known = roll.read(roll.place(kept.cache_folder(results), file, profile, overrides, plugins))
    if known is not None:
        folder = folder_of(results, known)
        if (contents(folder, known.data), tuning_hash(folder)) == (dict(known.data), known.tuning):
            return _told(folder, known)
    from ablate.registry import load_plugin
    from ablate.study.load import load

    for source in plugins:
        load_plugin(source)
    study = load(file, profile, overrides)
    made = enrol(study, file, profile, overrides, plugins, results)
    return _told(folder_of(results, study), made)


def enrol(
    study: Study,
    file: Path,
    profile: str | None,
    overrides: Sequence[str],
    plugins: Sequence[str],
    results: Path,
) -> Roll:
    """The trials of a study that was loaded as a command names it, kept for whoever asks next."""
    made = listed(study, results)
    place = roll.place(kept.cache_folder(results), file, profile, overrides, plugins)
    paths = any(str(name).endswith((".yaml", ".yml")) for name in study.factors.get("preset", ()))
    if place is not None and not paths and not any(study.readings.values()):
        roll.keep(place, made)
    return made


def describe(study: Study, results: Path) -> Standing:
    """How far a loaded study is."""
    return _told(folder_of(results, study), listed(study, results))


def listed(study: Study, results: Path) -> Roll:
    """The study's trials as its folder has them."""
    from ablate.study import expand
    from ablate.track.book import tuned

    def ids(trials: Sequence[expand.Trial]) -> list[list[str]]:
        return [[one.fit.id, *one.rows.values()] for one in trials]

    folder = folder_of(results, study)
    data = contents(folder, study.data)
    tries = None
    if folder.read() and study.tune is not None:
        tries = ids([one for ones in expand.tuning(study, data).values() for one in ones])
    return Roll(
        study=study.study,
        profile=study.profile,
        streams=study.streams,
        own_streams=study.own_streams,
        data=data,
        tuning=tuning_hash(folder),
        trials=ids(expand.trials(tuned(study, folder, data), data)),
        tries=tries,
    )


def contents(folder: StudyFolder, names: Iterable[str]) -> dict[str, str]:
    """Content hashes of these data sets; empty texts before the first run."""
    known = folder.read().get("data", {})
    return {name: known.get(name, "") for name in names}


def tuning_hash(folder: StudyFolder) -> str:
    """Hash of what a tuning found; empty where there is none."""
    return seal.of_file(folder.tuning) if folder.tuning.exists() else ""


def _told(folder: StudyFolder, asked_for: Roll) -> Standing:
    """How far the study of a folder is."""
    found = attempts(folder.runs)
    tables = verify(folder, found)
    begun = bool(folder.read().get("data"))
    decided = list(deciding(found).values())
    tries = asked_for.tries if begun else None
    return Standing(
        study=asked_for.study,
        profile=asked_for.profile,
        folder=folder.root,
        begun=begun,
        trials=_counted(tables[folder.table], asked_for.trials, found),
        tuning=None if tries is None else _counted(tables[folder.tuning], tries, found),
        runs=Counter(one.status for one in decided),
        jobs=Desk(folder.runs).told(),
        ended=tuple(one for one in decided if one.status not in ("COMPLETED", "RUNNING")),
    )


def _counted(known: Known, trials: Sequence[Sequence[str]], found: Sequence[Attempt]) -> Count:
    """How many fits and trials have a result."""
    fits = {fit for fit, *_ in trials}
    wanted = {name for one in trials for name in one}
    known.take([one for one in found if one.trial_id in wanted], fits)
    completed, failed = counted(known, trials)
    return Count(len(fits), len(fits & set(known.fits)), len(trials), completed, failed)
