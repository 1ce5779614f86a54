"""`status`: how far a study is, and what went wrong."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ablate.launch.shared import Desk
from ablate.study import expand
from ablate.study.schema import Study
from ablate.track.book import Book, tuned, tuning_book
from ablate.track.folder import folder_of
from ablate.track.known import verify
from ablate.track.store import attempts, deciding


def describe(study: Study, results: Path) -> str:
    """Fits and trials with a result of those that the study asks for, how many attempts are in which state, and
    every one that failed or died."""
    folder = folder_of(results, study)
    verify(folder)
    hashes = folder.read().get("data", {})
    known = {name: hashes.get(name, "") for name in study.data}
    lines = []
    if hashes:
        if study.tune is not None:
            lines.append(f"tuning: {_counted(tuning_book(folder, study, known))}")
        study = tuned(study, folder, known)
        lines.append(_counted(Book(folder, study, expand.trials(study, known))))
    else:
        trials = expand.trials(study, known)
        fits = len({trial.fit.id for trial in trials})
        lines.append(
            f"no runs yet: 0 of {fits:,} fits trained, 0 of {len(trials):,} trials completed"
        )
    found = list(deciding(attempts(folder.runs)).values())
    if found:
        states = Counter(one.status.lower() for one in found)
        lines.append(
            "runs: " + ", ".join(f"{count:,} {state}" for state, count in sorted(states.items()))
        )
    if jobs := Desk(folder.runs).told():
        lines.append(jobs)
    lines += [
        f"{one.run_id}  {one.status}  {one.failure}".rstrip()
        for one in found
        if one.status not in ("COMPLETED", "RUNNING")
    ]
    return "\n".join(lines)


def _counted(book: Book) -> str:
    """How many fits and trials have a result."""
    fits = len(book.fits & set(book.known.fits))
    total = book.summary()
    return (
        f"{fits:,} of {len(book.fits):,} fits trained, {total.completed:,} of {total.total:,} trials completed, "
        f"{total.failed:,} failed, {total.missing:,} without a result"
    )
