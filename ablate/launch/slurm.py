"""The launcher `slurm`: cohorts as tasks of a job array, submitted through submitit (the extra `slurm`).

What tells how a cohort ended are its own files on the study's desk (`ablate.launch.shared`), never SLURM's accounts,
which many clusters don't keep. `squeue` is asked which tasks are still there, `scontrol` why one is not. So the driver
may die, and the controller be away: the next start of the same command finds what was submitted, takes what has
ended, waits for what runs, and submits only the rest.

A task that is told to end (SIGUSR2 before its time is over, or when it is preempted) saves the state of its training
and asks to be put back into the queue. One that ends without a word is submitted again once, unless somebody
cancelled it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from ablate.errors import UserError, one_line, unknown
from ablate.launch.base import Died, Event, Job, Place, Started, Stopped
from ablate.launch.shared import Desk, Sign, heard, snapshot
from ablate.registry import Section, register
from ablate.study.cost import spell
from ablate.track.files import write_atomic
from ablate.track.lock import BEAT, STALE
from ablate.track.signals import give_notice, notices, on_notice

COMMANDS = ("sbatch", "srun", "squeue", "scontrol", "sinfo", "scancel")
POLL = 2.0  # seconds between two looks at the desk
ASK = 10.0  # seconds between two questions to the controller
GONE = 2  # questions in which a task must be missing: an answer may be older than the task
SILENT = (
    1800.0  # seconds without a word from the controller or any job, after which the driver ends
)
ANSWER = 60.0  # seconds that a command of SLURM may take
NOTICE = 90  # seconds before its end that a task is told of it
OVER = ("CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL")
FINAL = (
    "CANCELLED",
    "OUT_OF_MEMORY",
    "DEADLINE",
)  # another try would end the same way, or isn't wanted
STARTING, BETWEEN = 15.0, 1.0  # seconds before a task's first cohort, and between two


class SlurmOptions(Section):
    """Options of the launcher. minutes: of a task. memory: of a task, in GB [the partition's]. hours: after which the
    driver no longer waits. retries: how often a cohort is submitted again whose task ended without a word. requeues:
    how often a task goes on after its time was over."""

    cap: int = Field(100, ge=1)
    partition: str = ""
    minutes: int = Field(60, ge=2)
    cohorts_per_job: int = Field(0, ge=0)
    cpus: int = Field(1, ge=1)
    gpus: int = Field(0, ge=0)
    memory: float = Field(0.0, ge=0)
    account: str = ""
    qos: str = ""
    constraint: str = ""
    hours: float = Field(168.0, gt=0)
    retries: int = Field(1, ge=0)
    requeues: int = Field(100, ge=0)


@dataclass(eq=False)
class Submission:
    """An array of tasks. name: of the job, which no other has. tasks: the ids of the cohorts of each. number: the
    job's, empty while nobody knows whether it was submitted."""

    name: str
    tasks: list[list[str]]
    number: str = ""
    missing: Counter[int] = field(default_factory=Counter)

    def task(self, index: int) -> str:
        """What SLURM calls a task."""
        return self.number if len(self.tasks) == 1 else f"{self.number}_{index}"


@register("launcher", "slurm")
class Slurm:
    """See `base.Elsewhere`."""

    Options = SlurmOptions

    def __init__(self, options: SlurmOptions, place: Place) -> None:
        self.options, self.place = options, place
        self.desk = Desk(place.runs)
        self.folder = self.desk.folder / "slurm"

    def check(self) -> None:
        """Raise UserError unless SLURM answers and one of its partitions can run such tasks."""
        where = "--launcher slurm"
        for command in COMMANDS:
            if shutil.which(command) is None:
                raise UserError(
                    f"{where}: found no {command}; start it where jobs are submitted from."
                )
        if importlib.util.find_spec("submitit") is None:
            raise UserError(
                f"{where}: it needs submitit, which is missing: pip install 'ablate-sequence-rl[slurm]'"
            )
        partitions = {
            one["PartitionName"]: one
            for one in _entries(_asked("scontrol", "-o", "show", "partition"))
        }
        name = self.options.partition or next(
            (n for n, one in partitions.items() if one.get("Default") == "YES"), ""
        )
        if name not in partitions:
            raise unknown(f"{where}: --partition", name, partitions)
        about = partitions[name]
        if about.get("State", "UP") != "UP":
            raise UserError(
                f"{where}: partition {name} is {about['State']}; allowed: one that is UP."
            )
        most = _minutes(about.get("MaxTime", "UNLIMITED"))
        if self.options.minutes > most:
            raise UserError(
                f"{where}: --minutes: found {self.options.minutes}; partition {name} allows {most:g}. What is "
                "unfinished goes on in the next job."
            )
        self._fits(name)

    def _fits(self, partition: str) -> None:
        """Raise UserError unless one of the partition's nodes is large enough for a task."""
        lines = _asked("sinfo", "-h", "-e", "-p", partition, "-o", "%c|%m|%G").splitlines()
        nodes = [line.split("|", 2) for line in lines if line.count("|") >= 2]
        asked = (self.options.cpus, self.options.memory * 1024, self.options.gpus)
        found = [(_count(c), _count(m), _gpus(gres)) for c, m, gres in nodes]
        if not any(all(a <= b for a, b in zip(asked, each, strict=True)) for each in found):
            there = "; ".join(f"{c} processors, {m} MB, {g} GPUs" for c, m, g in sorted(set(found)))
            raise UserError(
                f"--launcher slurm: no node of partition {partition} has {asked[0]} processors, {asked[1]:g} MB "
                f"and {asked[2]} GPUs; it has nodes with: {there or 'nothing'}."
            )

    def foretell(self, costs: Sequence[float], fits: int) -> str:
        """See `base.Elsewhere`."""
        tasks = self._packed(costs)
        at_once = min(self.options.cap, len(tasks))
        each = [STARTING + sum(costs[i] + BETWEEN for i in task) for task in tasks]
        total = sum(each)
        wall = max(total / max(at_once, 1), max(each, default=0.0))
        gpus = f" and {self.options.gpus} GPUs" if self.options.gpus else ""
        cpus = f"{self.options.cpus} CPU{'s' * (self.options.cpus > 1)}"
        per_fit = f", {spell(total / fits)} a fit" if fits else ""
        many = max(map(len, tasks), default=0)
        return (
            f"SLURM: {len(costs)} cohorts in {len(tasks)} jobs of up to {many}, {at_once} at once, each with "
            f"{cpus}{gpus} for at most {self.options.minutes} min: about {spell(wall)} once "
            f"they run, {total / 3600:.2f} job hours in all{per_fit}."
        )

    def _packed(self, costs: Sequence[float]) -> list[list[int]]:
        """Which cohorts go into each task: as many as asked; else as many as half of its time is foreseen for, while
        `cap` tasks are busy. Never more tasks than an array holds; long cohorts are spread."""
        if not costs:
            return []
        if many := self.options.cohorts_per_job:
            count = math.ceil(len(costs) / many)
        else:
            mean = sum(costs) / len(costs) + BETWEEN
            fit = max(1, int((30 * self.options.minutes - STARTING) / mean))
            count = max(min(self.options.cap, len(costs)), math.ceil(len(costs) / fit))
        count = min(count, _array_limit())
        order = sorted(range(len(costs)), key=lambda i: -costs[i])
        return [order[start::count] for start in range(count)]

    def __call__(
        self,
        jobs: Sequence[Job],
        work: str,
        workers: int,
        on_event: Callable[[Event], None],
        plugins: Sequence[str] = (),
    ) -> None:
        """Run all jobs; see `base.Launcher`. What was submitted before, by whatever driver, is not submitted again."""
        word = self.desk.open()
        driver = _Driver(self, {job.id: job for job in jobs}, on_event)
        driver.find(self._submissions())
        lost = [job for job in jobs if job.id not in driver.where]
        try:
            driver.collect()
            lost = [job for job in lost if job.id in driver.open]
            if lost:
                driver.add(self._submit(lost, work, plugins, word))
            for again in driver.wait(self.options):
                driver.add(self._submit(again, work, plugins, word))
        except KeyboardInterrupt as stopped:
            raise Stopped(getattr(stopped, "signum", signal.SIGINT), driver.left()) from None
        except _Waited as error:
            raise UserError(f"--launcher slurm: {error} {driver.left()}") from None

    def _submit(
        self, jobs: Sequence[Job], work: str, plugins: Sequence[str], word: str
    ) -> Submission:
        """Lay the jobs on the desk and submit an array for them; noted before, so that no driver does it twice."""
        copy = snapshot(self.place, plugins)
        for job in jobs:
            self.desk.lay(job, work, copy.plugins)
        packed = self._packed([job.cost for job in jobs])
        tasks = [[jobs[i].id for i in task] for task in packed]
        made = Submission(f"ablate-{self.place.study}-{uuid.uuid4().hex[:8]}", tasks)
        self._note(made)
        made.number = self._sbatch(made, copy.environment, word)
        self._note(made)
        return made

    def _sbatch(self, made: Submission, environment: dict[str, str], word: str) -> str:
        """Submit; the job's number."""
        import submitit

        options = self.options
        further = {
            "partition": options.partition,
            "account": options.account,
            "qos": options.qos,
            "constraint": options.constraint,
            "gpus_per_node": options.gpus,
            "mem": f"{math.ceil(options.memory * 1024)}MB" if options.memory else "",
        }
        additional = {name.replace("_", "-"): value for name, value in further.items() if value}
        try:
            executor = submitit.SlurmExecutor(
                self.folder / "logs", max_num_timeout=options.requeues
            )
            executor.update_parameters(
                job_name=made.name,
                time=options.minutes,
                cpus_per_task=options.cpus,
                array_parallelism=options.cap,
                signal_delay_s=min(NOTICE, options.minutes * 15),
                stderr_to_stdout=True,
                additional_parameters=additional,
                setup=[f"export {name}={_shell(value)}" for name, value in environment.items()],
            )
            with executor.batch():
                handles = [
                    executor.submit(Task(str(self.place.runs.resolve()), ids, word))
                    for ids in made.tasks
                ]
            return str(handles[0].job_id).partition("_")[0]
        except (
            OSError,
            RuntimeError,
            subprocess.SubprocessError,
            submitit.core.utils.FailedJobError,
        ) as error:
            self._path(made).unlink(missing_ok=True)
            raise UserError(f"--launcher slurm: sbatch refused: {one_line(error, 400)}") from error

    def _path(self, made: Submission) -> Path:
        return self.folder / f"{made.name}.json"

    def _note(self, made: Submission) -> None:
        write_atomic(self._path(made), json.dumps({"number": made.number, "tasks": made.tasks}))

    def _submissions(self) -> list[Submission]:
        """What was submitted before and isn't over. Of one whose driver died meanwhile, SLURM is asked by its name."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            noted = json.loads(path.read_text(encoding="utf-8"))
            made = Submission(path.stem, noted["tasks"], noted["number"])
            there = _asked("squeue", "-h", "-r", "-n", made.name, "-o", "%i").split()
            if not there:  # it is over, or never was; what it gave lies on the desk
                path.unlink(missing_ok=True)
                continue
            if not made.number:
                made.number = there[0].partition("_")[0]
                self._note(made)
            found.append(made)
        return found


class _Waited(Exception):
    """The driver has waited for long enough."""


class _Driver:
    """Follows jobs from their submission to their end."""

    def __init__(
        self, launcher: Slurm, jobs: dict[str, Job], on_event: Callable[[Event], None]
    ) -> None:
        self.desk, self.launcher, self.on_event = launcher.desk, launcher, on_event
        self.open = jobs
        self.where: dict[str, tuple[Submission, int]] = {}  # job -> the task that does it
        self.tries: Counter[str] = Counter()
        self.begun: dict[str, int] = {}  # job -> worker
        self.said: dict[str, Sign] = {}  # job -> its last word
        self.heard = time.monotonic()

    def find(self, submissions: Sequence[Submission]) -> None:
        """Take over what another driver has submitted."""
        for made in submissions:
            self.add(made)

    def add(self, made: Submission) -> None:
        """Follow the tasks of a submission."""
        for index, ids in enumerate(made.tasks):
            for name in ids:
                if name in self.open:
                    self.where[name] = made, index
                    self.tries[name] += 1

    def collect(self) -> None:
        """Tell what has ended, begun, or gone on."""
        for name in sorted(self.desk.ended() & set(self.open)):
            job, worker = self.open[name], self._worker(name)
            event = self.desk.take(worker, job)
            if event is not None:
                self._begin(name, worker)
                self._end(name, event)
        for name, sign in self.desk.signs(self.said).items():
            self.said[name] = sign
            if name in self.open and name in self.where:
                worker = self._worker(name)
                self._begin(name, worker)
                self.heard = time.monotonic()
                self.on_event(heard(sign, worker, self.open[name]))

    def _worker(self, name: str) -> int:
        """A number for whoever does a job: the smallest that is free."""
        if name in self.begun:
            return self.begun[name]
        taken = set(self.begun.values())
        return next(number for number in range(len(taken) + 1) if number not in taken)

    def _begin(self, name: str, worker: int) -> None:
        if name not in self.begun:
            self.begun[name] = worker
            self.on_event(Started(worker, self.open[name]))

    def _end(self, name: str, event: Event) -> None:
        """Tell of a job's end; what the user has to mend ends the others too."""
        for each in (self.begun, self.said, self.open):
            each.pop(name, None)
        self.heard = time.monotonic()
        try:
            self.on_event(event)
        except UserError:
            self.cancel()
            raise

    def wait(self, options: SlurmOptions) -> Iterator[list[Job]]:
        """Until no job is open; gives those that have to be submitted again."""
        begun = asked = time.monotonic()
        while self.open:
            time.sleep(POLL)
            self.collect()
            now = time.monotonic()
            if now - begun > options.hours * 3600:
                raise _Waited(f"it waited for {options.hours:g} hours (--option hours=...).")
            if now - asked < ASK:
                continue
            asked = now
            if again := self._missing(options.retries):
                yield again
            if now - self.heard > SILENT:
                raise _Waited(f"for {spell(SILENT)} neither SLURM nor a job has said a word.")

    def _missing(self, retries: int) -> list[Job]:
        """Tell of the jobs whose tasks are gone without a word; returns those that get another try."""
        followed = {id(made): made for name, (made, _) in self.where.items() if name in self.open}
        if not followed:
            return []
        names = ",".join(made.name for made in followed.values())
        try:
            lines = _asked("squeue", "-h", "-r", "-n", names, "-o", "%i %T").splitlines()
        except UserError:
            return []  # the controller is away; `wait` ends when that lasts
        self.heard = time.monotonic()
        there = {line.split()[0] for line in lines if line.split()[1] not in OVER}
        again: list[Job] = []
        for made in followed.values():
            for index, ids in enumerate(made.tasks):
                mine = [n for n in ids if n in self.open and self.where.get(n) == (made, index)]
                if not mine or made.task(index) in there:
                    made.missing[index] = 0
                    continue
                made.missing[index] += 1
                if made.missing[index] < GONE:
                    continue
                self.collect()  # it may have left its result with its last breath
                mine = [n for n in mine if n in self.open and self.desk.age(n) is None]
                if not mine:
                    continue
                state, cause = self._cause(made, index)
                more = [n for n in mine if self.tries[n] <= retries and state not in FINAL]
                for name in mine:
                    worker = self._worker(name)
                    if name in more:
                        again.append(self.open[name])
                        self.begun.pop(name, None)
                        del self.where[name]
                    else:
                        self._begin(name, worker)
                        self.desk.forget(name)
                        self._end(name, Died(worker, self.open[name], 1, cause))
        return again

    def _cause(self, made: Submission, index: int) -> tuple[str, str]:
        """The state in which SLURM left a task, and a line on it with the last of its log."""
        task = made.task(index)
        state = ""
        with contextlib.suppress(UserError):
            for one in _entries(_asked("scontrol", "-o", "show", "job", task)):
                state = one.get("JobState", "")
        log = self.launcher.folder / "logs" / f"{task}_0_log.out"
        last = ""
        with contextlib.suppress(OSError):
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            last = f"; its log ends: {one_line(lines[-1], 160)}" if lines else ""
        if not log.exists():
            last = f"; it left no log: do its nodes see {self.launcher.folder}?"
        return (
            state,
            f"its job {task} ended without a result ({state or 'SLURM no longer knows it'}{last})",
        )

    def _numbers(self) -> list[str]:
        return sorted({made.number for name, (made, _) in self.where.items() if name in self.open})

    def left(self) -> str:
        """What goes on without the driver, and how to end it."""
        numbers = self._numbers()
        if not numbers:
            return ""
        return (
            f"{len(self.open)} cohorts run or wait on without it in SLURM's jobs {', '.join(numbers)}, which it takes "
            f"over; to end them: scancel {' '.join(numbers)}"
        )

    def cancel(self) -> None:
        """End the tasks of the jobs that are open."""
        if numbers := self._numbers():
            with contextlib.suppress(UserError):
                _asked("scancel", *numbers)


@dataclass
class Task:
    """What a task of an array does: its cohorts one after another. `checkpoint` is what submitit asks before it puts
    the task back into the queue."""

    runs: str
    ids: list[str]
    word: str

    def __call__(self) -> None:
        """Do what hasn't ended. Exit code 1 where the desk isn't seen, and after SIGTERM."""
        desk = Desk(Path(self.runs))
        try:
            desk.seen(self.word)
        except UserError as error:
            raise SystemExit(f"ablate: {error}") from None
        back = signal.getsignal(signal.SIGUSR2)  # submitit's: it puts the task back into the queue
        for signum in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(signum, give_notice)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        over = threading.Event()
        threading.Thread(target=_hurry, args=(over,), daemon=True).start()
        try:
            for name in self.ids:
                if on_notice():
                    raise KeyboardInterrupt
                desk.perform(name, STALE + 2 * BEAT)
        except KeyboardInterrupt:
            over.set()
            # After SIGTERM alone either SLURM itself puts it back, or somebody has cancelled it.
            end = time.monotonic() + NOTICE
            while signal.SIGUSR2 not in notices(0) and time.monotonic() < end:
                time.sleep(0.2)
            if signal.SIGUSR2 in notices(0):
                signal.signal(signal.SIGUSR2, back)
                signal.raise_signal(signal.SIGUSR2)
            raise SystemExit(1) from None
        over.set()

    def checkpoint(self) -> Any:
        """The same again: what has ended is on the desk, what trained has saved its state."""
        import submitit

        return submitit.helpers.DelayedSubmission(Task(self.runs, self.ids, self.word))


def _hurry(over: threading.Event) -> None:
    """After notice what doesn't train, or takes long for an update, is interrupted."""
    notices()
    if not over.wait(NOTICE / 3):
        os.kill(os.getpid(), signal.SIGINT)


def _asked(*command: str) -> str:
    """What a command of SLURM says; raises UserError when it fails, or doesn't answer in time."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=ANSWER, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(
            f"--launcher slurm: {command[0]} doesn't answer: {one_line(error, 200)}"
        ) from None
    if done.returncode:
        raise UserError(f"--launcher slurm: {command[0]}: {one_line(done.stderr.strip(), 300)}")
    return done.stdout


def _entries(text: str) -> list[dict[str, str]]:
    """Lines of `NAME=VALUE NAME=VALUE`, as `scontrol -o show` writes them."""
    return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in text.splitlines() if "=" in line]


def _minutes(text: str) -> float:
    """SLURM's D-HH:MM:SS, MM:SS or HH:MM:SS in minutes; infinite for a word."""
    days, dash, rest = text.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdigit() for part in parts) or (dash and not days.isdigit()):
        return math.inf
    numbers = [float(part) for part in parts]
    hours = numbers.pop(0) if len(numbers) == 3 or dash else 0.0
    minutes = numbers.pop(0) if numbers else 0.0
    seconds = numbers.pop(0) if numbers else 0.0
    return (float(days or 0) * 24 + hours) * 60 + minutes + seconds / 60


def _count(text: str) -> int:
    found = re.match(r"\d+", text.strip())
    return int(found.group()) if found else 0


def _gpus(gres: str) -> int:
    """How many GPUs generic resources hold: `gpu:a100:4(S:0-1),gpu:2` has six."""
    return sum(int(count) for count in re.findall(r"\bgpu:(?:[^,:()]+:)?(\d+)", gres))


def _array_limit() -> int:
    """How many tasks an array may have."""
    if shutil.which("scontrol") is None:
        return 1000
    with contextlib.suppress(UserError):
        found = re.search(r"MaxArraySize\s*=\s*(\d+)", _asked("scontrol", "show", "config"))
        if found:
            return max(int(found.group(1)) - 1, 1)
    return 1000


def _shell(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"
