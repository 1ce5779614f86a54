"""What a worker does with a cohort: train and evaluate it, recorded as one Sacred run a trial."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ablate import trial
from ablate.launch.base import Report
from ablate.track.recorder import Entry, Log, Outcome, Recorded, record


@dataclass(frozen=True)
class CohortJob:
    """One cohort: all its seeds train together, `wanted` are those that are not recorded yet.

    A cohort that was cut short in the middle of being recorded is trained again with the same seeds, so
    that what is then recorded is what an uninterrupted run would have recorded.
    """

    study: str
    cohort: str
    config: Mapping[str, Any]
    trials: Mapping[int, str]  # seed -> trial id, in the order in which they train
    wanted: tuple[int, ...]
    runs: Path
    checkpoints: Path
    cache: Path
    stacked: bool
    device: str = "cpu"
    observers: tuple[str, ...] = ()
    refusal: str = (
        ""  # why the model failed its audit; such a trial is recorded as failed, not trained
    )


def work(job: CohortJob, report: Report) -> list[Recorded]:
    """Run one cohort; the launcher calls this in a worker process."""
    torch.set_num_threads(1)
    seeds = list(job.trials)
    entries = [
        Entry(
            job.trials[seed], {**job.config, "study": job.study, "seed": seed, "cohort": job.cohort}
        )
        for seed in job.wanted
    ]
    folder = job.checkpoints / job.cohort

    def body(logs: Sequence[Log]) -> list[Outcome]:
        if job.refusal:
            return [Outcome(failure=job.refusal) for _ in job.wanted]
        by_seed = dict(zip(job.wanted, logs, strict=True))

        def on_point(index: int, row: Mapping[str, float]) -> None:
            log = by_seed.get(seeds[index])
            if log is not None:
                for name, value in row.items():
                    if name != "update":
                        log.metric(name, value, int(row["update"]))

        def on_progress(fraction: float) -> None:
            report(fraction, "training" if fraction < 0.9 else "evaluating")

        outcomes = trial.run_cohort(
            job.study,
            seeds,
            dict(job.config),
            cache=job.cache,
            stacked=job.stacked,
            device=job.device,
            folder=folder,
            watch=trial.Watch(on_progress, on_point),
        )
        kept = {seed: outcomes[seeds.index(seed)] for seed in job.wanted}
        for seed, log in by_seed.items():
            log.info(cpu_seconds=kept[seed].seconds, stacked=job.stacked, cohort=job.cohort)
        return [
            Outcome(
                metrics=kept[seed].metrics,
                failure=kept[seed].failure,
                curve=kept[seed].curve,
                artifacts=[path] if (path := kept[seed].checkpoint) is not None else [],
            )
            for seed in job.wanted
        ]

    recorded = record(entries, body, job.runs, job.observers, name=job.study)
    shutil.rmtree(folder, ignore_errors=True)  # its checkpoints are artifacts of the runs by now
    return recorded
