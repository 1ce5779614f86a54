"""The Ray launcher: every cohort a task of a Ray cluster, one that runs already or one of this machine alone.

Ray decides where a task runs; what a cohort gives lies in the study's run store, which all nodes see (`launch.shared`).
So a worker that dies or a node that is lost costs what its cohorts had computed since their last saved state: they are
submitted again and go on elsewhere. When this process ends, so do its tasks, and the same command goes on.
"""

from __future__ import annotations

import contextlib
import heapq
import importlib.util
import itertools
import math
import os
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from ablate.errors import UserError
from ablate.launch.base import Died, Event, Job, Place, Progress, Started, Stopped
from ablate.launch.local import GRACE, signals
from ablate.launch.shared import Desk, Sign, Snapshot, heard, snapshot
from ablate.registry import Section, register
from ablate.study.cost import spell, wall_seconds

BEAT = 0.5  # seconds between two looks at what has ended
LOOK = 2.0  # seconds between two looks at how far the tasks are
NODES = 10.0  # seconds between two looks at the nodes
ANSWER = 60.0  # seconds in which a cluster, a node or a file system has to answer
EMPTY = 300.0  # seconds in which a node that can take a task has to be there
STORE = 80 * 2**20  # bytes of shared memory: results are files, so that Ray carries next to nothing

# Before Ray is imported: nobody is told of its use, and what its processes print doesn't get between our lines.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
# Of a cluster of this machine alone: all its sockets then listen on the loopback address.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


class Settings(Section):
    """Options of the launcher; cpus and gpus are a cohort's.

    address: HOST:PORT of a cluster's head, or `auto` on one of its nodes; empty: a cluster of this machine alone.
    cap: tasks submitted at once; by default a few more than can run. retries: how often a cohort that was lost with
    its worker or node is submitted again.
    """

    address: str = Field(default="", pattern=r"^(|auto|[^/:]+:[0-9]+)$")
    cpus: float = Field(default=1.0, gt=0)
    gpus: float = Field(default=0.0, ge=0)
    cap: int | None = Field(default=None, ge=1)
    retries: int = Field(default=3, ge=0)


class Lost(Exception):
    """A task ended without having done its job: its worker or its node is gone."""


@register("launcher", "ray")
class OnRay:
    """See `base.Elsewhere`."""

    Options = Settings

    def __init__(self, options: Settings, place: Place) -> None:
        self.options = options
        self.place = place
        self.slots = 0  # tasks that can run at once, where the cluster was asked

    def check(self) -> None:
        """Raise UserError for a cluster that isn't there, doesn't see the results, or couldn't take a single task."""
        made, device = self.options, self.place.device
        if importlib.util.find_spec("ray") is None:
            raise UserError(
                "--launcher ray: it needs ray, which is missing: pip install 'ablate-sequence-rl[ray]'"
            )
        if made.gpus > 1 and not made.gpus.is_integer():
            raise UserError(
                f"--gpus {made.gpus:g}: a share of one GPU or a whole number of them; allowed: 0.25, 0.5, 1, 2..."
            )
        if (made.gpus > 0) != device.startswith("cuda"):
            raise UserError(
                f"--gpus {made.gpus:g}: with --device {device}; a cohort on cuda asks for a GPU or a share of one, "
                "--gpus 0.25, and one on the cpu for none."
            )
        if made.address:
            with _connected(made, 0) as ray:
                self._see(ray)
        elif made.cpus > (os.cpu_count() or 1) or made.gpus > _own_gpus():
            raise UserError(
                f"--launcher ray: a task asks for {self._asked}, and this machine has {os.cpu_count()} CPUs and "
                f"{_own_gpus()} GPUs; allowed: less, or the --address of a cluster."
            )

    def foretell(self, costs: Sequence[float], fits: int) -> str:
        """A sentence on jobs, hours and cost; see `base.Elsewhere`."""
        at_once = min(self.slots or self.options.cap or 1, max(len(costs), 1))
        if self.options.cap is not None:
            at_once = min(at_once, self.options.cap)
        total = sum(costs)
        return (
            f"{len(costs)} tasks of {self._asked}, {at_once} at once: about "
            f"{spell(wall_seconds(list(costs), at_once) if costs else 0.0)}, "
            f"{total * self.options.cpus / 3600:.2g} CPU hours"
            + (f", {total * self.options.gpus / 3600:.2g} GPU hours" if self.options.gpus else "")
            + (f"; {total / fits:.2g} s a fit." if fits else ".")
        )

    def __call__(
        self,
        jobs: Sequence[Job],
        work: str,
        workers: int,
        on_event: Callable[[Event], None],
        plugins: Sequence[str] = (),
    ) -> None:
        """Run all jobs, in this order; see `base.Launcher`. workers: tasks at once on a cluster of this machine."""
        if not jobs:
            return
        code, desk = snapshot(self.place, plugins), Desk(self.place.runs)
        word = desk.open()
        with _connected(self.options, workers) as ray:
            tasks = _Tasks(ray, self, desk, on_event)
            tasks.waiting.extend(zip(itertools.count(), jobs))
            tasks.submit = self._submitter(ray, code, desk, word, work)
            with signals() as (received, _):
                tasks.run(received)

    def capacity(self, nodes: Sequence[Mapping[str, Any]]) -> int:
        """How many tasks the living nodes can run at once."""
        return sum(self._fits(each["Resources"]) for each in nodes if each["Alive"])

    def _fits(self, resources: Mapping[str, float]) -> int:
        cpus, gpus = self.options.cpus, self.options.gpus
        fit = math.floor(resources.get("CPU", 0.0) / cpus + 1e-9)
        if gpus:
            there = resources.get("GPU", 0.0)
            share = math.floor(1 / gpus + 1e-9) if gpus <= 1 else 1 / gpus
            fit = min(fit, math.floor(there * share + 1e-9))
        return fit

    @property
    def _asked(self) -> str:
        cpus, gpus = self.options.cpus, self.options.gpus
        return f"{cpus:g} CPU" + (f" and {gpus:g} GPU" if gpus else "")

    def _see(self, ray: Any) -> None:
        """Raise UserError unless some node can take a task, and each that can sees the run store."""
        nodes = [each for each in _nodes(ray) if each["Alive"]]
        self.slots = self.capacity(nodes)
        if not self.slots:
            has = "; ".join(
                f"{each['NodeManagerHostname']} {each['Resources'].get('CPU', 0):g} CPU, "
                f"{each['Resources'].get('GPU', 0):g} GPU"
                for each in nodes[:5]
            )
            raise UserError(
                f"--launcher ray: a task asks for {self._asked}, which no node of {self.options.address} has "
                f"({has or 'there is none'})."
            )
        desk = Desk(self.place.runs)
        look = ray.remote(num_cpus=0, max_retries=0)(_looker())
        asked = {}
        for each in nodes:
            if self._fits(each["Resources"]):
                there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
                    each["NodeID"], soft=False
                )
                made = look.options(scheduling_strategy=there).remote(str(desk.token))
                asked[made] = each["NodeManagerHostname"]
        word = desk.open()
        seen, late = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER)
        blind = [asked[each] for each in late]
        for each in seen:
            try:
                if ray.get(each, timeout=ANSWER) != word:
                    blind.append(asked[each])
            except ray.exceptions.RayError:
                blind.append(asked[each])
        if blind:
            raise UserError(
                f"{desk.folder}: {', '.join(sorted(set(blind)))} doesn't see there what was written here; keep "
                "results on a file system that all nodes share, under the same path."
            )

    def _submitter(
        self, ray: Any, code: Snapshot, desk: Desk, word: str, work: str
    ) -> Callable[[Job], Any]:
        task = ray.remote(num_cpus=self.options.cpus, num_gpus=self.options.gpus, max_retries=0)(
            _performer()
        )
        environment = {k: v for k, v in code.environment.items() if k != "PYTHONPATH"}
        places = str(code.root), os.getcwd(), str(self.place.runs.resolve())

        def submit(job: Job) -> Any:
            desk.lay(job, work, code.plugins)
            return task.remote(*places, environment, ANSWER, word, job.id)

        return submit


class _Tasks:
    """The jobs of one call: those that wait, those submitted, and what became of them."""

    def __init__(
        self, ray: Any, launcher: OnRay, desk: Desk, on_event: Callable[[Event], None]
    ) -> None:
        self.ray = ray
        self.launcher = launcher
        self.options = launcher.options
        self.desk = desk
        self.on_event = on_event
        self.submit: Callable[[Job], Any] = lambda job: None
        self.waiting: deque[tuple[int, Job]] = deque()
        self.submitted: dict[Any, tuple[int, Job]] = {}  # task -> place in the order, job
        self.arriving: dict[str, tuple[int, Job, float]] = {}  # ended; until when its file may come
        self.worker: dict[str, int] = {}  # job that has begun -> its number, as workers have
        self.free: list[int] = []
        self.losses: Counter[str] = Counter()
        self.told: dict[str, Sign] = {}

    def run(self, received: list[int]) -> None:
        """Until all jobs have ended; raises Stopped after a signal."""
        try:
            looked = asked = float("-inf")
            able = time.monotonic()  # when a node last could take a task
            room = 0
            while (self.waiting or self.submitted or self.arriving) and not received:
                now = time.monotonic()
                if now - asked > NODES:
                    asked, slots = now, self.launcher.capacity(_nodes(self.ray))
                    room = self.options.cap or slots + max(2, slots // 4)
                    able = now if slots else able
                    if now - able > EMPTY:
                        raise UserError(
                            f"--launcher ray: for {EMPTY:g} s no node could take a task of {self.launcher._asked}; "
                            "what is finished is kept, and the same command goes on."
                        )
                while self.waiting and len(self.submitted) < max(room, 1):
                    place, job = self.waiting.popleft()
                    self.submitted[self.submit(job)] = place, job
                self.hear(BEAT)
                if now - looked > LOOK:
                    looked = now
                    self.look()
            if received:
                self.stop(received)
                raise Stopped(received[0])
        except BaseException as error:
            if not isinstance(error, Stopped):
                self.on_event = lambda event: None  # it may be what raised
                if not isinstance(error, Unanswered):
                    self.stop(received)
            raise

    def hear(self, seconds: float) -> None:
        """Wait for a task to end, at most for so long, and take what has."""
        if self.submitted:
            ended, _ = self.ray.wait(list(self.submitted), timeout=seconds)
            for task in ended:
                place, job = self.submitted.pop(task)
                try:
                    self.end(task, place, job)
                except Lost as lost:
                    self.lose(place, job, str(lost))
        elif self.arriving:
            time.sleep(seconds)
        for name, (place, job, deadline) in list(self.arriving.items()):
            event = self.desk.take(self.number(job), job)
            if event is not None:
                del self.arriving[name]
                self.on_event(event)
                self.release(job)
            elif time.monotonic() > deadline:
                del self.arriving[name]
                self.lose(place, job, f"its result didn't come within {ANSWER:g} s")

    def end(self, task: Any, place: int, job: Job) -> None:
        """What a task says at its end; raises Lost when it has none, UserError for what is the user's to mend."""
        errors = self.ray.exceptions
        try:
            how, line = self.ray.get(task, timeout=ANSWER)
        except errors.TaskCancelledError as error:
            raise Lost("it was cancelled") from error
        except errors.RayTaskError as error:
            line = " ".join(str(error.cause).split())
            raise UserError(
                f"--launcher ray: a worker can't start ({type(error.cause).__name__}: {line})."
            ) from error
        except errors.RayError as error:
            raise Lost(_why(errors, error)) from error
        if how == "refused":
            raise UserError(line)
        if how == "interrupted":
            raise Lost("its worker was told to end")
        if how == "held":  # by one that was thought to be gone, and lives: wait for what it gives
            self.waiting.append((place, job))
            return
        self.arriving[job.id] = place, job, time.monotonic() + ANSWER

    def lose(self, place: int, job: Job, why: str) -> None:
        """A job goes back to those that wait, unless it was lost too often."""
        self.losses[job.id] += 1
        number = self.number(job)
        if self.losses[job.id] > self.options.retries:
            self.desk.forget(job.id)
            self.on_event(Died(number, job, 1, f"lost {self.losses[job.id]} times: {why}"))
            self.release(job)
            return
        self.on_event(Progress(number, job, 0.0, f"{why}; it goes on elsewhere"))
        self.waiting.appendleft((place, job))

    def look(self) -> None:
        """Tell which jobs have begun and how far they are."""
        there = {job.id: job for _, job in self.submitted.values()}
        for name, sign in self.desk.signs(self.told).items():
            self.told[name] = sign
            if name in there:
                self.on_event(heard(sign, self.number(there[name]), there[name]))

    def number(self, job: Job) -> int:
        """The number under which a job is told of, as a worker's; told to begin when it has none yet."""
        if job.id not in self.worker:
            number = heapq.heappop(self.free) if self.free else len(self.worker)
            self.worker[job.id] = number
            self.on_event(Started(number, job))
        return self.worker[job.id]

    def release(self, job: Job) -> None:
        """A job has ended: its number is free."""
        heapq.heappush(self.free, self.worker.pop(job.id))

    def stop(self, received: list[int]) -> None:
        """Tell all tasks to end, hear for a bounded time what they still finish, then kill them."""
        self.waiting.clear()
        before = len(received)
        for task in self.submitted:
            self.ray.cancel(task)
        deadline = time.monotonic() + GRACE
        while (self.submitted or self.arriving) and time.monotonic() < deadline:
            if len(received) > before:
                break
            with contextlib.suppress(UserError):
                self.hear(BEAT)
            self.waiting.clear()
        for task in self.submitted:
            self.ray.cancel(task, force=True)
            self.desk.forget(self.submitted[task][1].id)
        self.submitted.clear()


class Unanswered(UserError):
    """The cluster's head is gone: there is nobody to tell anything any more."""


def _performer() -> Callable[..., tuple[str, str]]:
    """What a worker of the cluster runs. A function within one travels by value: the worker has none of our code yet,
    and the copy that it is to take comes first on its path before anything of it is imported."""

    def cohort(
        root: str,
        here: str,
        runs: str,
        environment: dict[str, str],
        patience: float,
        word: str,
        name: str,
    ) -> tuple[str, str]:
        import os
        import signal
        import sys
        import threading
        import time
        from pathlib import Path

        patient = 5.0  # seconds, fewer than the driver waits

        if first := sys.path[0] != root:
            os.environ.update(environment)
            sys.path.insert(0, root)
            os.chdir(here)
        from ablate.errors import UserError
        from ablate.launch.shared import Desk
        from ablate.track.signals import give_notice, notices

        def end(seconds: float) -> None:
            time.sleep(seconds)
            os.kill(os.getpid(), signal.SIGTERM)

        def hurry() -> None:
            notices()
            end(patient)

        if first:
            threading.Thread(target=hurry, daemon=True).start()
        # A task is cancelled by SIGINT: training saves its state, and what doesn't leave is interrupted by SIGTERM.
        before = signal.signal(signal.SIGINT, give_notice)
        desk = Desk(Path(runs))
        try:
            desk.seen(word)
            return ("ended" if desk.perform(name, patience) else "held"), ""
        except UserError as error:
            return "refused", str(error)
        except KeyboardInterrupt:  # of a lost node, too: this process ends once that has been told
            threading.Thread(target=end, args=(2.0,), daemon=True).start()
            return "interrupted", ""
        finally:
            signal.signal(signal.SIGINT, before)

    return cohort


def _looker() -> Callable[[str], str]:
    """What a node reads at a path; empty when there is nothing. Travels by value, as `_performer`."""

    def look(path: str) -> str:
        import time
        from pathlib import Path

        for _ in range(
            50
        ):  # seconds may pass until a network file system shows what was just written
            try:
                return Path(path).read_text(encoding="utf-8")
            except OSError:
                time.sleep(0.2)
        return ""

    return look


def _library(address: str) -> Any:
    """The library, imported for a cluster at an address or of this machine alone."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if not address or address.startswith(("127.", "localhost")):
        os.environ.update(LOOPBACK)
    if address and (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault(
            "RAY_AUTH_MODE", "token"
        )  # what `ray start --head` wrote there, it asks for
    import ray
    import ray.exceptions
    import ray.util.scheduling_strategies

    return ray


@contextlib.contextmanager
def _connected(options: Settings, workers: int) -> Iterator[Any]:
    """The library, connected to the cluster at the address, or to one of this machine for so many tasks at once.

    Raises UserError when it doesn't answer. At the end the connection is closed, and a cluster of our own ends.
    """
    ray = _library(options.address)
    own = {
        "num_cpus": max(1, math.ceil(workers * options.cpus)),
        "num_gpus": _own_gpus(),
        "include_dashboard": False,
        "object_store_memory": STORE,
    }
    host, _, port = options.address.partition(":")
    ends = signal.getsignal(signal.SIGTERM)
    try:
        if host and port:
            socket.create_connection(
                (host, int(port)), timeout=5
            ).close()  # Ray itself asks for long
        ray.init(
            options.address or "local",
            log_to_driver=False,
            logging_level="error",
            **({} if options.address else own),
        )
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        where = f"--address {options.address}" if options.address else "--launcher ray"
        raise UserError(f"{where}: no cluster answers ({type(error).__name__}: {line}).") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ends)  # Ray has put its own in its place
    try:
        yield ray
    except Unanswered:
        raise  # Ray would wait for the head again, to say goodbye
    except BaseException:
        ray.shutdown()
        raise
    ray.shutdown()


def _nodes(ray: Any) -> list[dict[str, Any]]:
    """What the cluster knows of its nodes; raises Unanswered when it doesn't say in time, as Ray itself would wait."""
    found: list[dict[str, Any]] = []
    failed: list[Exception] = []

    def ask() -> None:
        try:
            found.extend(ray.nodes())
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER / 2)  # Ray ends this process after as long as `ANSWER`
    if failed or not found:
        raise Unanswered(
            "--launcher ray: the cluster's head no longer answers; what is finished is kept, and the same command "
            "goes on."
        )
    return found


def _own_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _why(errors: Any, error: Exception) -> str:
    """Why Ray lost a task, in a few words."""
    if isinstance(error, errors.OutOfMemoryError):
        return "its node ran out of memory"
    if isinstance(error, errors.NodeDiedError | errors.LocalRayletDiedError):
        return "its node was lost"
    if isinstance(error, errors.WorkerCrashedError):
        return "its worker died"
    return f"it was lost ({type(error).__name__})"
