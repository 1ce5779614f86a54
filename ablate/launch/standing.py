"""`status`: how far a study is, and what went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.launch.shared import Desk
from ablate.track import kept, roll, seal
from ablate.track.folder import StudyFolder, folder_of
from ablate.track.known import Known, counted, verify
from ablate.track.roll import Roll
from ablate.track.store import Attempt, attempts, deciding

if TYPE_CHECKING:
    from ablate.study.schema import Study


def asked(
    file: Path,
    profile: str | None,
    overrides: Sequence[str],
    plugins: Sequence[str],
    results: Path,
) -> str:
    """`describe` of a study as a command names it, whose file is only resolved where that wasn't done before.

    Raises UserError for a study file that is refused, and for a plugin that doesn't load.
    """
    known = roll.read(roll.place(kept.cache_folder(results), file, profile, overrides, plugins))
    if known is not None:
        folder = folder_of(results, known)
        if (_data(folder, known.data), _tuning(folder)) == (dict(known.data), known.tuning):
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


def describe(study: Study, results: Path) -> str:
    """Fits and trials with a result of those that the study asks for, how many attempts are in which state, and
    every one that failed or died."""
    return _told(folder_of(results, study), listed(study, results))


def listed(study: Study, results: Path) -> Roll:
    """The study's trials as its folder has them."""
    from ablate.study import expand
    from ablate.track.book import tuned

    def ids(trials: Sequence[expand.Trial]) -> list[list[str]]:
        return [[one.fit.id, *one.rows.values()] for one in trials]

    folder = folder_of(results, study)
    data = _data(folder, study.data)
    tries = None
    if folder.read() and study.tune is not None:
        tries = ids([one for ones in expand.tuning(study, data).values() for one in ones])
    return Roll(
        study=study.study,
        profile=study.profile,
        streams=study.streams,
        data=data,
        tuning=_tuning(folder),
        trials=ids(expand.trials(tuned(study, folder, data), data)),
        tries=tries,
    )


def _data(folder: StudyFolder, names: Iterable[str]) -> dict[str, str]:
    """Content hashes of these data sets; empty texts before the first run."""
    known = folder.read().get("data", {})
    return {name: known.get(name, "") for name in names}


def _tuning(folder: StudyFolder) -> str:
    return seal.of_file(folder.tuning) if folder.tuning.exists() else ""


def _told(folder: StudyFolder, asked_for: Roll) -> str:
    """How far the study of a folder is."""
    found = attempts(folder.runs)
    tables = verify(folder, found)
    lines = []
    if folder.read().get("data"):
        if asked_for.tries is not None:
            lines.append(f"tuning: {_counted(tables[folder.tuning], asked_for.tries, found)}")
        lines.append(_counted(tables[folder.table], asked_for.trials, found))
    else:
        fits = len({fit for fit, *_ in asked_for.trials})
        lines.append(
            f"no runs yet: 0 of {fits:,} fits trained, 0 of {len(asked_for.trials):,} trials completed"
        )
    decided = list(deciding(found).values())
    if decided:
        states = Counter(one.status.lower() for one in decided)
        lines.append(
            "runs: " + ", ".join(f"{count:,} {state}" for state, count in sorted(states.items()))
        )
    if jobs := Desk(folder.runs).told():
        lines.append(jobs)
    lines += [
        f"{one.run_id}  {one.status}  {one.failure}".rstrip()
        for one in decided
        if one.status not in ("COMPLETED", "RUNNING")
    ]
    return "\n".join(lines)


def _counted(known: Known, trials: Sequence[Sequence[str]], found: Sequence[Attempt]) -> str:
    """How many fits and trials have a result."""
    fits = {fit for fit, *_ in trials}
    wanted = {name for one in trials for name in one}
    known.take([one for one in found if one.trial_id in wanted], fits)
    completed, failed = counted(known, trials)
    return (
        f"{len(fits & set(known.fits)):,} of {len(fits):,} fits trained, {completed:,} of {len(trials):,} trials "
        f"completed, {failed:,} failed, {len(trials) - completed - failed:,} without a result"
    )
