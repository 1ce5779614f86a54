"""`run`: from a study to its tidy tables, going on wherever an earlier run stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from ablate.config import timesteps
from ablate.data import catalogue
from ablate.errors import UserError
from ablate.launch import base
from ablate.launch.audits import audit_models, model_key, model_label
from ablate.launch.base import Died, Event, Failed, Finished, Job, Launcher, Place
from ablate.launch.pace import paces, shape_key
from ablate.launch.progress import LEFT, Display
from ablate.launch.work import CohortJob, MeasureJob
from ablate.study import expand, identity
from ablate.study.cost import fit_seconds, measure_seconds, spell, wall_seconds
from ablate.study.expand import Cohort, Trial
from ablate.study.registration import declared
from ablate.study.schema import Study
from ablate.systems import remarks
from ablate.track import kept, observers, seal
from ablate.track.book import Book, Summary, tuned, tuning_book
from ablate.track.files import write_atomic
from ablate.track.folder import StudyFolder, folder_of
from ablate.track.kept import cache_folder
from ablate.track.known import verify
from ablate.track.table import rows as table_rows
from ablate.track.table import write_table

WORK = "ablate.launch.work.work"

__all__ = ["Options", "Summary", "cache_folder", "check_device", "data_hashes", "run"]


@dataclass(frozen=True)
class Options:
    """How to run: nothing here can change a result."""

    results: Path
    workers: int
    launcher: str = "local"
    launching: Mapping[str, Any] = field(default_factory=dict)  # the launcher's own options
    device: str = "cpu"
    plugins: tuple[str, ...] = ()
    observers: tuple[str, ...] = ()
    retry_failed: bool = False
    only: str = ""

    @property
    def cache(self) -> Path:
        """Where generated data sets are kept."""
        return cache_folder(self.results)


def data_hashes(study: Study, cache: Path, say: Callable[[str], None]) -> dict[str, str]:
    """Content hash of every data set of the profile; generates what is not cached yet."""
    names = list(dict.fromkeys(cell.data for cell in expand.cells(study)))
    hashes = {}
    for name in names:
        say(f"data {name}")
        hashes[name] = catalogue.load(name, cache, study.readings.get(name)).content_hash
    return hashes


def run(
    study: Study, options: Options, console: Console, asked: Mapping[str, Any] | None = None
) -> Summary:
    """Run whatever of the study has no result yet; returns what there is at the end.

    asked: how the command named the study, kept so that `report` finds the study that was run last.

    Raises UserError for what the user has to mend, Stopped after a signal. Results recorded before
    either stay.
    """
    folder = folder_of(options.results, study)
    file = Path(str((asked or {}).get("study", "")))
    place = Place(study.study, folder.runs, (file,) if file.is_file() else (), options.device)
    launcher = base.made(options.launcher, options.launching, place)
    if cluster := base.elsewhere(launcher):
        cluster.check()
    else:
        check_device(options.device)
    for url in options.observers:
        observers.check(url)
    torch.set_num_threads(1)
    with folder.lock():
        verify(folder)
        with console.status("data") as status:
            hashes = data_hashes(study, options.cache, lambda text: status.update(text))
        _tell_changed(console, folder.read().get("data", {}), hashes)
        trials = _asked_for(study, hashes, options)
        _tell_remarks(console, trials, options.cache)
        book = Book(folder, study, trials)
        folder.register(identity.study_hash(study), hashes, declared(study), book.results)
        write_yardsticks(study, folder, options.cache)
        if asked is not None:
            write_atomic(folder.root / kept.LAST, json.dumps(seal.sign(asked)) + "\n")
        if study.tune is not None:
            trying = tuning_book(folder, study, hashes)
            console.print(
                f"tuning: {study.tune.draws} draws an arm, {study.tune.seeds} seeds each; judged by "
                f"{study.tune.judge}.",
                highlight=False,
            )
            _execute(study, trying, options, console, launcher)
            study = tuned(study, folder, hashes)
            book = Book(folder, study, _asked_for(study, hashes, options))
        if outdated := book.outdated():
            console.print(
                f"note: {outdated} results in {folder.table} are of other code, data or settings; each "
                "is replaced when its trial has been run again (the run store keeps it).",
                highlight=False,
            )
        _execute(study, book, options, console, launcher)
    return book.summary()


def _asked_for(study: Study, hashes: Mapping[str, str], options: Options) -> list[Trial]:
    """The trials of the study, or those that `--only` keeps."""
    trials = expand.trials(study, hashes)
    return expand.only(study, trials, options.only) if options.only else trials


def _execute(
    study: Study, book: Book, options: Options, console: Console, launcher: Launcher
) -> None:
    """Run what the book's trials lack, and enter it."""
    folder = book.folder
    todo = book.todo(options.retry_failed)
    book.write()
    asked_for = {one.id for one in todo}
    cohorts = [c for c in expand.cohorts(book.trials) if any(t.id in asked_for for t in c.trials)]
    with console.status("audit") as status:
        refusals = audit_models(cohorts, folder, lambda text: status.update(text))
    jobs = [_job(study, cohort, book, refusals, folder, options) for cohort in cohorts]
    with console.status("measuring this machine") as status:
        training = [
            cohort
            for cohort, job in zip(cohorts, jobs, strict=True)
            if job.payload.trains and not job.payload.refusal
        ]
        known = paces(
            training, folder, options.cache, options.device, lambda text: status.update(text)
        )
    jobs = [_priced(job, cohort, known, options) for job, cohort in zip(jobs, cohorts, strict=True)]
    jobs.sort(key=lambda job: -job.cost)
    _tell_plan(console, study, book.trials, todo, jobs, options, launcher)

    open_trials = {
        cohort.id: [one for one in cohort.trials if one.id in asked_for] for cohort in cohorts
    }

    def on_event(event: Event, display: Display) -> None:
        if isinstance(event, Finished):
            book.take([one.trial_id for one in event.value])
        elif isinstance(event, Failed) and event.refused:
            raise UserError(event.error)
        elif isinstance(event, Failed | Died):
            book.take(event.job.payload.results)
        display.handle(event)

    if jobs:
        ready = [one for one in book.trials if one.id not in asked_for]
        plugins = (*options.plugins, *map(str, study.code))
        with Display(
            jobs,
            *book.settled(ready),
            settled=lambda event: book.settled(open_trials[event.job.id]),
            console=console,
            post=folder.runs / LEFT,
        ) as display:
            try:
                launcher(
                    jobs, WORK, options.workers, lambda event: on_event(event, display), plugins
                )
            finally:
                book.write()


def check_device(device: str) -> None:
    """Raise UserError for a device that PyTorch doesn't know or that isn't there."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        line = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"--device {device}: it can't be used ({line}); allowed: cpu, or cuda where there is one."
        ) from error


def _job(
    study: Study,
    cohort: Cohort,
    book: Book,
    refusals: Mapping[str, str],
    folder: StudyFolder,
    options: Options,
) -> Job:
    """The cohort's work: the fits that have no result, and the measurements that have none."""
    known = book.known
    failed = {seed for seed, fit in cohort.fits.items() if fit in known.failures}
    wanted = tuple(s for s, fit in cohort.fits.items() if fit not in known.fits and s not in failed)
    asked: dict[tuple[str, int, str], dict[int, str]] = {}
    options_of: dict[tuple[str, int, str], dict[str, Any]] = {}
    for one in cohort.trials:
        for name, row in one.rows.items():
            setting = one.config["measure"][name]
            key = (name, one.budget, identity.canonical(setting))
            options_of[key] = setting
            if one.seed not in failed:
                asked.setdefault(key, {})[one.seed] = row
    measures = tuple(
        MeasureJob(
            name=key[0],
            budget=key[1],
            options=options_of[key],
            rows=dict(sorted(found.items())),
            wanted=tuple(
                seed
                for seed, row in sorted(found.items())
                if row not in known.rows and row not in known.failures
            ),
        )
        for key, found in asked.items()
    )
    refused = [refusals[k] for one in cohort.trials if (k := model_key(one.config)) in refusals]
    payload = CohortJob(
        study=study.study,
        streams=cohort.trials[0].fit.streams,
        cohort=cohort.id,
        config=cohort.trials[0].config,
        fits=cohort.fits,
        wanted=wanted,
        measures=tuple(each for each in measures if each.wanted),
        runs=folder.runs,
        checkpoints=folder.checkpoints,
        cache=options.cache,
        device=options.device,
        observers=options.observers,
        refusal=refused[0] if refused else "",
    )
    config = cohort.trials[0].config
    open_trials = sum(not book.status(one)[0] for one in cohort.trials)
    return Job(cohort.id, payload, f"{config['data']} {model_label(config)}", open_trials)


def _priced(job: Job, cohort: Cohort, known: Mapping[str, float], options: Options) -> Job:
    """The job with its expected seconds."""
    payload: CohortJob = job.payload
    pace = known.get(shape_key(cohort, options.device))
    cost = 1.0 + len(payload.trains) * fit_seconds(payload.config, pace)
    for each in payload.measures:
        cost += len(each.rows) * measure_seconds(payload.config, each.name, each.options)
    return replace(job, cost=cost)


def _tell_changed(console: Console, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    for name, content in now.items():
        if before.get(name, content) != content:
            console.print(
                f"note: {name} differs from the one that earlier results were computed on; "
                "its trials run again.",
                highlight=False,
            )


def _tell_remarks(console: Console, trials: Sequence[Trial], cache: Path) -> None:
    """What hardly fits, once for each configuration of it."""
    said = {}
    for one in trials:
        config = one.config
        if config["train"]["return_scale"] is not None:
            key = (config["data"], config["train"]["return_scale"], config["condition"])
            said[key] = config
    for config in said.values():
        data = catalogue.load(config["data"], cache, config["reading"])
        for line in remarks(config, data):
            console.print(f"note: {line}", highlight=False)


def _tell_plan(
    console: Console,
    study: Study,
    trials: Sequence[Trial],
    todo: Sequence[Trial],
    jobs: Sequence[Job],
    options: Options,
    launcher: Launcher,
) -> None:
    fits = len({one.fit.id for one in trials})
    console.print(
        f"{study.study}, profile {study.profile}: {fits} fits, {len(trials)} trials; "
        f"{len(trials) - len(todo)} are done, {len(todo)} to run.",
        highlight=False,
    )
    for sentence in study.remarks:
        console.print(f"note: {sentence}", highlight=False)
    if jobs:
        workers, costs = min(options.workers, len(jobs)), [job.cost for job in jobs]
        training = sum(len(job.payload.trains) for job in jobs)
        where = (
            f" on {workers} workers, about {spell(wall_seconds(costs, workers))} on this machine."
        )
        if cluster := base.elsewhere(launcher):
            where = f". {cluster.foretell(costs, training)}"
        console.print(
            f"{training} fits to train and "
            f"{sum(len(m.wanted) for job in jobs for m in job.payload.measures)} measurements in {len(jobs)} "
            f"cohorts{where}",
            highlight=False,
        )


def write_yardsticks(study: Study, folder: StudyFolder, cache: Path) -> None:
    """Exact Bayes errors and returns by context, where the data's law is known, in yardsticks.csv."""
    contexts = sorted({timesteps(cell.config) for cell in expand.cells(study)})
    names = dict.fromkeys(cell.data for cell in expand.cells(study))
    known = kept.yardsticks(folder)
    rows = [] if known is None else table_rows(known)
    have = {(row["data"], row["content"], row["context"]) for row in rows}
    for name in names:
        data = catalogue.load(name, cache, study.readings.get(name))
        for context in contexts:
            if (name, data.content_hash, context) in have:
                continue
            found = data.yardstick(context)
            if found is not None:
                rows.append(
                    {"data": name, "content": data.content_hash, "context": context, **found}
                )
    if rows:
        frame = pd.DataFrame(rows).sort_values(["data", "content", "context"], ignore_index=True)
        write_table(frame, kept.yardsticks_file(folder))
