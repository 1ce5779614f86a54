"""`run`: from a study to a tidy table, going on wherever an earlier run stopped."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from ablate import registry, trial
from ablate.audit.audit import Audit, audit_config
from ablate.audit.joint import audit_joint
from ablate.config import FACTORS, OPTIONAL, settled, timesteps
from ablate.data import catalogue
from ablate.errors import UserError
from ablate.launch.base import Died, Event, Failed, Finished, Job
from ablate.launch.progress import Display
from ablate.launch.work import CohortJob
from ablate.study import expand, identity
from ablate.study.cost import spell, trial_seconds, wall_seconds
from ablate.study.expand import Cohort, Trial
from ablate.study.schema import Study
from ablate.track import kept
from ablate.track.files import write_atomic
from ablate.track.folder import StudyFolder, folder_of
from ablate.track.store import COMPLETED, FAILED, attempts
from ablate.track.table import merge, merge_curves, read_curves, read_table, superseded, write_table
from ablate.track.table import rows as table_rows

WORK = "ablate.launch.work.work"


@dataclass(frozen=True)
class Options:
    """How to run: nothing here can change a result."""

    results: Path
    workers: int
    launcher: str = "local"
    device: str = "cpu"
    plugins: tuple[str, ...] = ()
    observers: tuple[str, ...] = ()
    retry_failed: bool = False
    only: str = ""

    @property
    def cache(self) -> Path:
        """Where generated data sets are kept."""
        return cache_folder(self.results)


def cache_folder(results: Path) -> Path:
    """`$ABLATE_CACHE`, or `.cache` beside the studies' folders."""
    return Path(os.environ.get("ABLATE_CACHE", results / ".cache"))


@dataclass(frozen=True)
class Summary:
    """Trials of this profile: how many there are, finished, failed, and without a result."""

    total: int
    completed: int
    failed: int
    missing: int


# What an audit and a measured speed have been known by since before there was more of it.
FIRST_MODEL = ("parameters", "tolerance", "layers", "dropout")


def data_hashes(study: Study, cache: Path, say: Callable[[str], None]) -> dict[str, str]:
    """Content hash of every data set of the profile; generates what is not cached yet."""
    names = list(dict.fromkeys(cell.data for cell in expand.cells(study)))
    hashes = {}
    for name in names:
        say(f"data {name}")
        hashes[name] = catalogue.load(name, cache).content_hash
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
    launcher = registry.get("launcher", options.launcher, "--launcher")
    check_device(options.device)
    torch.set_num_threads(1)
    with folder.lock():
        with console.status("data") as status:
            hashes = data_hashes(study, options.cache, lambda text: status.update(text))
        _tell_changed(console, folder.read().get("data", {}), hashes)
        trials = expand.trials(study, hashes)
        if options.only:
            trials = expand.only(study, trials, options.only)
        folder.register(identity.study_hash(study), identity.hypotheses_hash(study), hashes)
        book = Book(folder, study, trials)
        if asked is not None:
            write_atomic(folder.root / kept.LAST, json.dumps(dict(asked)) + "\n")
        if outdated := book.outdated():
            console.print(
                f"note: {outdated} results in {folder.table} are of other code, data or settings; each "
                "is replaced when its trial has been run again (the run store keeps it).",
                highlight=False,
            )
        write_yardsticks(study, folder, options.cache)
        todo = book.todo(options.retry_failed)
        cohorts = [c for c in expand.cohorts(trials) if any(t.id in todo for t in c.trials)]
        with console.status("audit") as status:
            refusals = audit_models(study, cohorts, folder, lambda text: status.update(text))
        with console.status("measuring this machine") as status:
            sound = [c for c in cohorts if model_key(c.config) not in refusals]
            ways = measure(study, sound, folder, options, lambda text: status.update(text))
        jobs = [_job(study, cohort, todo, ways, refusals, folder, options) for cohort in cohorts]
        jobs.sort(key=lambda job: -job.cost)
        _tell_plan(console, study, trials, todo, jobs, options)

        def on_event(event: Event, display: Display) -> None:
            display.handle(event)
            if isinstance(event, Finished):
                book.take([one.trial_id for one in event.value])
            elif isinstance(event, Failed) and event.refused:
                raise UserError(event.error)
            elif isinstance(event, Failed | Died):
                book.take(list(event.job.payload.trials.values()))

        if jobs:
            done, failed = book.settled(todo)
            with Display(jobs, done, failed, console=console) as display:
                launcher(
                    jobs,
                    WORK,
                    options.workers,
                    lambda event: on_event(event, display),
                    options.plugins,
                )
        book.write()
    return book.summary()


class Book:
    """The tidy table while a study runs: what the committed table, the store and new runs hold."""

    def __init__(self, folder: StudyFolder, study: Study, trials: Sequence[Trial]) -> None:
        self.folder = folder
        self.trials = list(trials)
        self.rows = [factor_row(study, one) for one in trials]
        self.table: pd.DataFrame | None = (
            read_table(folder.table) if folder.table.exists() else None
        )
        self.curves: pd.DataFrame | None = (
            read_curves(folder.curves) if folder.curves.exists() else None
        )
        self.take(None)

    def take(self, trials: Sequence[str] | None) -> None:
        """Enter the attempts of these trials (all of the store when None) and write the table."""
        found = attempts(self.folder.runs, trials)
        if trials is not None or found:
            self.table = merge(self.table, found, self.rows)
            curves = merge_curves(self.curves, found)
            self.curves = curves[curves["trial"].isin(self.table["trial"])]
            self.write()

    def write(self) -> None:
        """Write the tables, each whole or not at all."""
        if self.table is not None:
            write_table(self.table, self.folder.table)
        if self.curves is not None:
            write_table(self.curves, self.folder.curves)

    def outdated(self) -> int:
        """How many rows are of these trials, by other code, data or settings."""
        return len(superseded(self.table, self.rows))

    def statuses(self) -> dict[str, str]:
        """Status by trial, for the trials of this profile that have a row."""
        if self.table is None:
            return {}
        known = dict(zip(self.table["trial"], self.table["status"], strict=True))
        return {one.id: known[one.id] for one in self.trials if one.id in known}

    def todo(self, retry_failed: bool) -> set[str]:
        """Trials without a result; failed ones only on request."""
        statuses = self.statuses()
        done = {COMPLETED} if retry_failed else {COMPLETED, FAILED}
        return {one.id for one in self.trials if statuses.get(one.id) not in done}

    def settled(self, todo: Collection[str]) -> tuple[int, int]:
        """How many trials that aren't to do are completed, and how many failed."""
        left = [status for name, status in self.statuses().items() if name not in todo]
        return left.count(COMPLETED), left.count(FAILED)

    def summary(self) -> Summary:
        """How many trials of this profile have which status."""
        statuses = list(self.statuses().values())
        completed, failed = statuses.count(COMPLETED), statuses.count(FAILED)
        total = len(self.trials)
        return Summary(total, completed, failed, total - completed - failed)


def factor_row(study: Study, one: Trial) -> dict[str, Any]:
    """The factor columns of a trial's row: data, every factor, the scale it was run at, and the seed."""
    row: dict[str, Any] = {"trial": one.id, "data": one.config["data"]}
    dotted = [name for name in study.factors if "." in name]
    scale = ["train.updates", "train.targets_per_update", "model.parameters", "evaluate.episodes"]
    optional = [name for name in OPTIONAL if name in study.factors]
    for name in (*FACTORS, *optional, *dict.fromkeys((*scale, *dotted))):
        row[name] = expand.lookup(one.config, name)
    return {**row, "seed": one.seed}


def audit_models(
    study: Study, cohorts: Sequence[Cohort], folder: StudyFolder, say: Callable[[str], None]
) -> dict[str, str]:
    """Audit every distinct model of the cohorts once; refusals by model key.

    Records are kept in audit.json, by model and code version, so that a later run need not repeat them.
    """
    records = {one["key"]: one for one in kept.audits(folder)}
    for cohort in cohorts:
        key = model_key(cohort.config)
        if key in records:
            continue
        say(f"audit {model_label(cohort.config)}")
        made = {"key": key, **audit_model(cohort.config).record()}
        if options := audit_options(cohort.config):
            made["options"] = options
        # An older version of the same model is no longer what would be trained.
        records = {k: one for k, one in records.items() if _audit_rank(one) != _audit_rank(made)}
        records[key] = made
    if cohorts:
        content = [records[key] for key in sorted(records, key=lambda k: _audit_rank(records[k]))]
        write_atomic(folder.audit, json.dumps(content, indent=None, separators=(",", ":")) + "\n")
    return {
        key: f"audit: {'; '.join(one['findings'])}"
        for key, one in records.items()
        if not one["passed"]
    }


def audit_model(config: Mapping[str, Any]) -> Audit:
    """The audit of a configuration's model."""
    if config["algorithm"] == "joint":
        return audit_joint(config)
    return audit_config(
        config["mixer"],
        timesteps(config),
        config["history"],
        config["condition"],
        config["head"],
        **audit_options(config),
    )


def model_key(config: Mapping[str, Any]) -> str:
    """What an audit depends on."""
    named = {**config, "context": timesteps(config)}
    parts = [named[name] for name in ("mixer", "context", "history", "condition", "head")]
    shape = audit_options(config)
    parts += [shape] if shape else []
    return identity.digest([identity.CODE_VERSION, parts, identity.plugin_versions(config)])


def audit_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of the model isn't at its default, but its size: fields of `ModelSpec`, or of the joint model."""
    shape = config_shape(config)
    if shape.get("algorithm") == "joint":
        return {name: value for name, value in shape.items() if name != "preset"}
    found: dict[str, Any] = {n: shape[n] for n in ("layout", "input") if n in shape}
    size = ("width", "embedding_dropout")
    found |= {k: v for k, v in shape.get("model", {}).items() if k not in size}
    state = config.get("evaluate", {}).get("state", "re-encoded")
    return found if state == "re-encoded" else found | {"state": state}


def model_label(config: Mapping[str, Any]) -> str:
    """A configuration in a few words."""
    return (
        f"{config['mixer']} K={config['context']} {config['condition']} "
        f"{config['history']} {config['head']}"
    )


def measure(
    study: Study,
    cohorts: Sequence[Cohort],
    folder: StudyFolder,
    options: Options,
    say: Callable[[str], None],
) -> dict[str, dict[str, float]]:
    """Seconds an update and seed, stacked and single, of each shape of cohort on this machine.

    Measured once and kept, so that a study which is taken up again trains each cohort in the same way.
    """
    known = kept.ways(folder)
    for cohort in cohorts:
        key = shape_key(cohort, options.device)
        if key in known or cohort.config["model"]["dropout"] > 0:
            continue
        say(f"measuring {cohort.config['mixer']} K={cohort.config['context']}")
        try:
            known[key] = trial.measure_ways(
                study.study,
                list(cohort.seeds),
                dict(cohort.config),
                options.cache,
                options.device,
            )
        except UserError:
            raise
        except Exception:  # such a trial fails when it is run, which says why and stops no other
            continue
    write_atomic(kept.ways_file(folder), json.dumps(known, indent=1, sort_keys=True) + "\n")
    return known


def check_device(device: str) -> None:
    """Raise UserError for a device that PyTorch doesn't know or that isn't there."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        line = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"--device {device}: it can't be used ({line}); allowed: cpu, or cuda where there is one."
        ) from error


def shape_key(cohort: Cohort, device: str) -> str:
    """What the speed of a cohort depends on."""
    config = cohort.config
    shape = config_shape(config)
    return " ".join(
        str(part)
        for part in (
            config["mixer"],
            f"K={config['context']}",
            config["head"],
            f"S={len(cohort.seeds)}",
            f"P={config['model']['parameters']}",
            f"N={config['train']['targets_per_update']}",
            config["train"]["loss"],
            device,
            *([identity.digest(shape)] if shape else []),
        )
    )


def config_shape(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a model's and a training's making isn't at its default: algorithm, layout, width, ..."""
    made = settled({**config, "train": {}, "evaluate": {}})
    model = {k: v for k, v in made["model"].items() if k not in FIRST_MODEL}
    parts = {k: made[k] for k in (*OPTIONAL, "settings") if k in made}
    return {**parts, **({"model": model} if model else {})}


def _job(
    study: Study,
    cohort: Cohort,
    todo: set[str],
    ways: Mapping[str, Mapping[str, float]],
    refusals: Mapping[str, str],
    folder: StudyFolder,
    options: Options,
) -> Job:
    config = cohort.config
    speed = ways.get(shape_key(cohort, options.device))
    stacked = speed is not None and speed.get("stacked", math.inf) < speed["single"]
    pace = min(speed.values()) if speed else None
    cost = 1.0 + len(cohort.seeds) * trial_seconds(config, pace)
    wanted = tuple(one.seed for one in cohort.trials if one.id in todo)
    payload = CohortJob(
        study=study.study,
        cohort=cohort.id,
        config=config,
        trials={one.seed: one.id for one in cohort.trials},
        wanted=wanted,
        runs=folder.runs,
        checkpoints=folder.checkpoints,
        cache=options.cache,
        stacked=stacked,
        device=options.device,
        observers=options.observers,
        refusal=refusals.get(model_key(config), ""),
    )
    return Job(
        id=cohort.id,
        payload=payload,
        label=f"{config['data']} {model_label(config)}",
        trials=len(wanted),
        cost=cost,
    )


def _tell_changed(console: Console, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    for name, content in now.items():
        if before.get(name, content) != content:
            console.print(
                f"note: {name} differs from the one that earlier results were computed on; "
                "its trials run again.",
                highlight=False,
            )


def _tell_plan(
    console: Console,
    study: Study,
    trials: Sequence[Trial],
    todo: set[str],
    jobs: Sequence[Job],
    options: Options,
) -> None:
    cells = len(expand.cohorts(trials))
    console.print(
        f"[bold]{study.study}[/bold], profile {study.profile}: {cells} cells x {study.seeds} seeds = "
        f"{len(trials)} trials; {len(trials) - len(todo)} are done, {len(todo)} to run.",
        highlight=False,
    )
    if jobs:
        workers = min(options.workers, len(jobs))
        seconds = wall_seconds([job.cost for job in jobs], workers)
        stacked = sum(job.payload.stacked for job in jobs)
        console.print(
            f"{len(jobs)} cohorts on {workers} workers, about {spell(seconds)} on this machine; "
            f"{stacked} train their seeds as one stack, {len(jobs) - stacked} one by one, "
            "whichever was measured to be faster.",
            highlight=False,
        )


def _audit_rank(one: Mapping[str, Any]) -> tuple[Any, ...]:
    named = tuple(one[name] for name in ("mixer", "context", "history", "condition", "head"))
    return (*named, identity.canonical(one.get("options", {})))


def write_yardsticks(study: Study, folder: StudyFolder, cache: Path) -> None:
    """Exact Bayes errors and returns by context, where the data's law is known, in yardsticks.csv."""
    contexts = sorted({timesteps(cell.config) for cell in expand.cells(study)})
    names = dict.fromkeys(cell.data for cell in expand.cells(study))
    known = kept.yardsticks(folder)
    rows = [] if known is None else table_rows(known)
    have = {(row["data"], row["content"], row["context"]) for row in rows}
    for name in names:
        data = catalogue.load(name, cache)
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
