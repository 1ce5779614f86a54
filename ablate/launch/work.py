"""What a worker does with a cohort: fit what isn't fitted, measure what isn't measured, each recorded."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ablate import trial
from ablate.config import budgets
from ablate.launch.base import Report
from ablate.measure.base import Measured
from ablate.systems import System
from ablate.track.recorder import Entry, Log, Outcome, Recorded, record
from ablate.track.signals import on_notice
from ablate.track.store import COMPLETED, attempts, deciding

TRAINED = 0.8  # share of a cohort's progress that its training makes up


@dataclass(frozen=True)
class MeasureJob:
    """One measurement of a cohort at one budget: of all its seeds together, `wanted` are not recorded yet."""

    name: str
    budget: int
    options: Mapping[str, Any]
    rows: Mapping[int, str]  # seed -> row id
    wanted: tuple[int, ...]


@dataclass(frozen=True)
class CohortJob:
    """The work of one cohort.

    config: of one of its trials. fits: seed -> fit id, in the order in which they train. wanted: seeds
    whose fit has no result yet. measures: what is measured, each with something that isn't recorded yet.
    refusal: why the model failed its audit; such fits are recorded
    as failed, not trained.
    """

    study: str
    streams: str
    cohort: str
    config: Mapping[str, Any]
    fits: Mapping[int, str]
    wanted: tuple[int, ...]
    measures: tuple[MeasureJob, ...]
    runs: Path
    checkpoints: Path
    cache: Path
    device: str = "cpu"
    observers: tuple[str, ...] = ()
    refusal: str = ""

    @property
    def needed(self) -> tuple[int, ...]:
        """Budgets whose checkpoints are measured."""
        return tuple(sorted({each.budget for each in self.measures}))

    @property
    def trains(self) -> tuple[int, ...]:
        """Seeds that have to train: without a result, or without a checkpoint that is to be measured."""
        lost = {
            seed
            for each in self.measures
            for seed in each.rows
            if not trial.checkpoint(self.checkpoints, self.fits[seed], each.budget).exists()
        }
        return tuple(seed for seed in self.fits if seed in self.wanted or seed in lost)

    @property
    def results(self) -> list[str]:
        """Ids of all fits and rows that it may record."""
        rows = [row for each in self.measures for row in each.rows.values()]
        return [*self.fits.values(), *rows]


def work(job: CohortJob, report: Report) -> list[Recorded]:
    """Do one cohort's work; the launcher calls this in a worker process."""
    torch.set_num_threads(1)
    job, recorded = left(job)
    missing = job.trains
    if job.refusal:
        refused = [Outcome(failure=job.refusal) for _ in missing]
        return _record(job, [_fit_entry(job, seed) for seed in missing], lambda logs: refused)
    system = trial.prepare(dict(job.config), job.cache, job.device)
    if missing:
        recorded += _fit(job, system, missing, report)
    failed = {one.trial_id for one in recorded if one.status != COMPLETED}
    for number, each in enumerate(job.measures):
        if on_notice():
            raise KeyboardInterrupt
        report(TRAINED + (1 - TRAINED) * number / len(job.measures), f"measuring {each.name}")
        recorded += _measure(job, system, each, failed)
    return recorded


def left(job: CohortJob) -> tuple[CohortJob, list[Recorded]]:
    """What of a job has no result yet, and the results that it has: of a worker which was lost before its end."""
    asked = {job.fits[seed] for seed in job.wanted}
    asked |= {each.rows[seed] for each in job.measures for seed in each.wanted}
    if not any((job.runs / name).exists() for name in asked):
        return job, []
    found = deciding(attempts(job.runs, asked))
    done = {name: one for name, one in found.items() if one.status == COMPLETED}
    measures = [
        replace(each, wanted=tuple(seed for seed in each.wanted if each.rows[seed] not in done))
        for each in job.measures
    ]
    rest = replace(
        job,
        wanted=tuple(seed for seed in job.wanted if job.fits[seed] not in done),
        measures=tuple(each for each in measures if each.wanted),
    )
    return rest, [
        Recorded(name, one.run_id, one.path, one.status, dict(one.result))
        for name, one in done.items()
    ]


def _fit(job: CohortJob, system: System, missing: Sequence[int], report: Report) -> list[Recorded]:
    """Train, keep the checkpoints, record each fit.

    Where the seeds train as one program all of them do, since the last digits depend on who shares it: what is
    recorded is then what an uninterrupted run would have recorded.
    """
    stacked = trial.stacked(system, len(job.fits))
    fits = dict(job.fits) if stacked else {seed: job.fits[seed] for seed in missing}
    seeds = list(fits)
    # Among other seeds than before, added or taken away, a stack starts anew.
    folder = job.checkpoints / f"training-{len(job.fits)}-{job.cohort}"

    def body(logs: Sequence[Log]) -> list[Outcome]:
        by_seed = dict(zip(missing, logs, strict=True))

        def on_point(index: int, row: Mapping[str, float]) -> None:
            log = by_seed.get(seeds[index])
            if log is not None:
                for name, value in row.items():
                    if name != "update":
                        log.metric(name, value, int(row["update"]))

        watch = trial.Watch(lambda share: report(TRAINED * share, "training"), on_point, on_notice)
        found = trial.fit(
            system,
            job.streams,
            fits,
            job.checkpoints,
            stacked=stacked,
            resume=folder,
            watch=watch,
        )
        made = dict(zip(seeds, found, strict=True))
        for seed, log in by_seed.items():
            log.info(cpu_seconds=made[seed].seconds, stacked=stacked, cohort=job.cohort)
        return [
            Outcome(made[seed].metrics, made[seed].failure, curve=made[seed].curve)
            for seed in missing
        ]

    recorded = _record(job, [_fit_entry(job, seed) for seed in missing], body)
    for each in job.checkpoints.glob(f"training-*-{job.cohort}"):
        shutil.rmtree(each, ignore_errors=True)
    return recorded


def _measure(job: CohortJob, system: System, each: MeasureJob, failed: set[str]) -> list[Recorded]:
    """Measure the models of one budget, all seeds at once, and record those that aren't yet."""
    fits = {seed: job.fits[seed] for seed in each.rows if job.fits[seed] not in failed}
    wanted = [seed for seed in each.wanted if seed in fits]
    if not wanted:
        return []

    def body(logs: Sequence[Log]) -> list[Outcome]:
        models = trial.trained(system, job.streams, fits, job.checkpoints, each.budget)
        found = dict(zip(fits, trial.measure(models, each.name, dict(each.options)), strict=True))
        return [Outcome(found[seed].values, series=_points(found[seed])) for seed in wanted]

    entries = [
        Entry(
            each.rows[seed],
            {
                "measurement": each.name,
                "options": dict(each.options),
                "fit": job.fits[seed],
                "budget": each.budget,
                "study": job.study,
                "seed": seed,
            },
        )
        for seed in wanted
    ]
    return _record(job, entries, body)


def _points(found: Measured) -> list[dict[str, Any]]:
    """The values over an index as rows of `series.csv`."""
    return [
        {"response": name, "index": at, "value": value}
        for name, (index, values) in found.series.items()
        for at, value in zip(index.tolist(), values.tolist(), strict=True)
    ]


def _fit_entry(job: CohortJob, seed: int) -> Entry:
    config = {name: value for name, value in job.config.items() if name != "measure"}
    about = {"study": job.study, "streams": job.streams, "seed": seed, "cohort": job.cohort}
    if seed not in job.wanted:
        about["again"] = True  # its numbers are known; only its checkpoints are gone
    return Entry(job.fits[seed], {**config, **about, "budgets": list(budgets(config))})


def _record(job: CohortJob, entries: Sequence[Entry], body: Any) -> list[Recorded]:
    return record(entries, body, job.runs, job.observers, name=job.study)
