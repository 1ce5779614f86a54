"""Cohorts as tasks of a real Ray cluster: two nodes on this machine, of which one is lost."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny_study import ROOT, Tiny

from ablate.errors import UserError
from ablate.launch.base import Died, Event, Failed, Finished, Job, Place, Progress, Started
from ablate.launch.ray import OnRay, Settings
from ablate.track.store import attempts

HERE = Path(__file__).parent
WORK = "pool_work.work"
TABLES = ("trials.csv", "curves.csv", "audit.json")

with_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (the extra `ray`)"
)


@dataclass
class Cluster:
    """A running cluster. second: the process of the second node. held: the folder that `ray_saboteur` is told of."""

    address: str
    second: int
    held: Path

    def run(
        self, folder: Path, whats: list[str], device: str = "cpu", **options: Any
    ) -> list[Event]:
        """The events of jobs of `pool_work`."""
        events: list[Event] = []
        jobs = [Job(f"job-{i}", (str(folder), i, what)) for i, what in enumerate(whats)]
        place = Place("study", folder / "runs", device=device)
        launcher = OnRay(Settings(address=self.address, **options), place)
        launcher.check()
        launcher(jobs, WORK, 1, events.append)
        return events


def path() -> str:
    return os.pathsep.join([str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes that ask for a token, as clusters do by default."""
    held = tmp_path_factory.mktemp("held")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in token.items():
            patch.setenv(name, value)
        process = subprocess.Popen(
            [sys.executable, str(HERE / "ray_cluster.py")],
            env={**os.environ, "PYTHONPATH": path(), "HELD": str(held), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            found = json.loads(next(line for line in lines if line.startswith("{")))
            yield Cluster(found["address"], found["second"], held)
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(what: Callable[[], Any], seconds: float = 120.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)
    return found


def lives(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def ends(events: list[Event]) -> dict[str, Any]:
    return {e.job.id: e for e in events if isinstance(e, Finished | Failed | Died)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpus", "0.25"], "--gpus 0.25: with --device cpu; a cohort on cuda asks for a GPU"),
        (["--device", "cuda"], "--gpus 0: with --device cuda; a cohort on cuda asks for a GPU"),
        (["--device", "cuda", "--gpus", "1.5"], "--gpus 1.5: a share of one GPU or a whole number"),
        (["--device", "cuda", "--gpus", "64"], "a task asks for 1 CPU and 64 GPU, and this machine"),
        (["--cpus", "5000"], "a task asks for 5000 CPU, and this machine has"),
        (["--cpus", "0"], "--launcher ray.cpus: found"),
        (["--minutes", "5"], "--launcher ray"),
        (["--address", "ray://h:1"], "--launcher ray.address: found 'ray://h:1'"),
        (["--address", "127.0.0.1:9"], "--address 127.0.0.1:9: no cluster answers (ConnectionRefused"),
    ],
)  # fmt: skip
def test_what_can_not_be_had_is_refused_before_anything_runs(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    if options[0] == "--address" and importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed (the extra `ray`)")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: name == "ray" or found(name, *more)
    )
    assert message in tiny.command(*tiny.arguments("run", "--launcher", "ray", *options)).line
    assert not tiny.results.exists()


def test_a_missing_library_is_named(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None)
    ended = tiny.command(*tiny.arguments("run", "--launcher", "ray"))
    assert "it needs ray, which is missing: pip install 'ablate-sequence-rl[ray]'" in ended.line


@pytest.mark.parametrize(
    ("cpus", "gpus", "room"),
    [(1, 0, 12), (2, 0, 6), (5, 0, 1), (0.5, 0, 24), (1, 0.25, 8), (1, 0.4, 4), (1, 1, 2), (4, 0.25, 2),
     (1, 2, 1), (1, 3, 0), (9, 0, 0)],
)  # fmt: skip
def test_tasks_that_nodes_can_take(tmp_path: Path, cpus: float, gpus: float, room: int) -> None:
    """A share of a GPU is of one GPU: two tasks of 0.4 fit on each, not five on two."""
    launcher = OnRay(Settings(cpus=cpus, gpus=gpus), Place("study", tmp_path))
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 4.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    assert launcher.capacity(nodes) == room


@pytest.mark.cluster
@with_ray
def test_each_job_fails_alone_and_one_whose_worker_dies_is_tried_elsewhere(
    tmp_path: Path, cluster: Cluster
) -> None:
    events = cluster.run(tmp_path, ["double", "raise", "die", "unpicklable", "double"], retries=1)
    end = ends(events)
    assert (end["job-0"].value, end["job-4"].value) == (0, 8)
    assert (type(end["job-1"]), end["job-1"].error) == (Failed, "ZeroDivisionError: by zero")
    assert (type(end["job-2"]), end["job-2"].error) == (Died, "lost 2 times: its worker died")
    assert isinstance(end["job-3"], Failed)
    again = [e.text for e in events if isinstance(e, Progress) and e.job.id == "job-2"]
    assert "its worker died; it goes on elsewhere" in again
    begun = [e.job.id for e in events if isinstance(e, Started)]
    assert sorted(begun) == [f"job-{i}" for i in range(5)]


@pytest.mark.cluster
@with_ray
def test_tasks_share_a_gpu_and_none_waits_for_one_that_is_not_there(
    tmp_path: Path, cluster: Cluster
) -> None:
    events = cluster.run(tmp_path, ["meet 4"] * 4, cpus=0.1, gpus=0.25, device="cuda")
    assert [one.value for one in ends(events).values()] == [4] * 4
    with pytest.raises(
        UserError, match=r"a task asks for 1 CPU and 2 GPU, which no node of 127\.0"
    ):
        cluster.run(tmp_path, ["overlap"], gpus=2, device="cuda")


@pytest.mark.cluster
@with_ray
def test_a_study_survives_its_driver_its_worker_and_a_node(tiny: Tiny, cluster: Cluster) -> None:
    """The table is that of a run which nobody disturbed."""
    assert tiny.run().code == 0
    whole = {name: (tiny.root / name).read_bytes() for name in TABLES}
    runs = Counter(one.status for one in attempts(tiny.root / "runs"))
    tiny.root.rename(tiny.folder / "whole")

    command = [
        *tiny.arguments("run", "--launcher", "ray", "--address", cluster.address),
        *("--plugin", str(HERE / "ray_saboteur.py")),
    ]

    def start() -> subprocess.Popen[str]:
        return tiny.process(*command, PYTHONPATH=path(), HELD=str(cluster.held))

    def holders(but: set[int]) -> set[int]:
        found = {int(each.name) for each in cluster.held.iterdir() if each.name.isdigit()} - but
        return {pid for pid in found if lives(pid)}

    first = start()
    before = until(lambda: len(now := holders(set())) == 2 and now, 240)
    first.kill()  # the driver
    first.communicate()
    until(lambda: not any(map(lives, before)))

    second = start()
    try:
        held = until(lambda: len(now := holders(before)) == 2 and now, 240)
        killed = min(held)
        os.kill(killed, signal.SIGKILL)  # a worker, whose cohort is taken up by another
        until(lambda: len(holders(before | {killed})) == 2)
        for pid in family(cluster.second):  # a node, with its worker
            os.kill(pid, signal.SIGKILL)
        until(lambda: len(holders(before | {killed})) == 1)
        (cluster.held / "go on").touch()
        out, err = second.communicate(timeout=180)
    finally:
        second.kill()
        second.wait()
    assert second.returncode == 0, out + err
    assert "6 of 6 trials completed, 0 failed, 0 without a result" in out
    assert err == ""
    assert {name: (tiny.root / name).read_bytes() for name in TABLES} == whole
    after = Counter(one.status for one in attempts(tiny.root / "runs"))
    assert after["COMPLETED"] == runs["COMPLETED"]
    assert (
        after["DEAD"] >= 6
    )  # two fits each: of the driver's two cohorts, the worker's, and the node's
    assert not list((tiny.root / "runs" / ".jobs" / "waiting").iterdir())


def listening(pids: set[int]) -> set[str]:
    """Addresses, as the kernel writes them, on which these processes listen."""
    inodes = set()
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(handle))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and f"socket:[{rest[5]}]" in inodes:
                found.add(local.partition(":")[0])
    return found


def family(pid: int) -> set[int]:
    """The process and all that it has begun."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found, new = set(), {pid}
    while new:
        found |= new
        new = {child for child, parent in parents.items() if parent in new} - found
    return found


@pytest.mark.cluster
@with_ray
def test_a_cluster_of_this_machine_listens_to_it_alone_and_ends_with_its_runs(
    tmp_path: Path,
) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
    process = subprocess.Popen(
        [sys.executable, str(HERE / "ray_process.py"), str(tmp_path), "record", "3"],
        env={**env, **token, "PYTHONPATH": path()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: len(list(tmp_path.glob("*.open"))) == 2, 90)
        there = family(process.pid)
        addresses = listening(there)
        assert addresses
        assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F", "0" * 24 + "01000000"}
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (out, err) == (f"stopped {int(signal.SIGINT)}\n", "")
    assert [one.status for one in attempts(tmp_path / "runs")] == ["INTERRUPTED"] * 4
    until(lambda: not any(map(lives, there)), 30)
