"""Runs in a MongoDB server: the one that ABLATE_TEST_MONGO names, else one of this machine that speaks its protocol.

SecantusDB is no MongoDB, but a server process of its own on MongoDB's storage engine, to which PyMongo speaks over TCP.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_study import Tiny

from ablate.errors import UserError
from ablate.track import observers, provenance
from ablate.track.observers import check
from ablate.track.recorder import Entry, Log, Outcome, record
from ablate.track.store import attempts

PROCESSES, RUNS = 5, 10


class Server:
    """A server of this machine, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"mongodb://127.0.0.1:{port}"
        command = ["--host", "127.0.0.1", "--port", str(port), "--storage-path", str(folder)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "secantus", *command, "--log-level", "ERROR"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def missing() -> str:
    """Why there is no server here; empty when there is."""
    if importlib.util.find_spec("pymongo") is None:
        return "pymongo is not installed"
    if "ABLATE_TEST_MONGO" not in os.environ and importlib.util.find_spec("secantus") is None:
        return "neither does ABLATE_TEST_MONGO name a MongoDB server nor is SecantusDB installed"
    return ""


pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(missing()), reason=missing())]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`mongodb://HOST:PORT` of a server that answers."""
    import pymongo

    known = os.environ.get("ABLATE_TEST_MONGO")
    server = None if known else Server(tmp_path_factory.mktemp("mongo"))
    found = known or server.address  # type: ignore[union-attr]
    try:
        with pymongo.MongoClient(found, serverSelectionTimeoutMS=20_000) as client:
            client.server_info()
        yield found
    finally:
        if server is not None:
            server.end()


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a handful of sources."""
    found = provenance.sources()[:4]
    monkeypatch.setattr(provenance, "sources", lambda: found)


@pytest.fixture
def base(address: str) -> Iterator[Any]:
    """An empty database."""
    import pymongo

    name = f"ablate_test_{os.getpid()}"
    with pymongo.MongoClient(address) as client:
        client.drop_database(name)
        observers._stored.clear()
        yield client[name]
        client.drop_database(name)


def url(base: Any) -> str:
    """What `--observer` takes."""
    host, port = base.client.address
    return f"mongo://{host}:{port}/{base.name}"


def body(logs: list[Log]) -> list[Outcome]:
    for log in logs:
        for step in range(3):
            log.metric("loss", 1 / (step + 1), step)
    curve = [{"update": 1, "loss": 0.5}]
    return [Outcome({"score": 1.5, "low": float("nan")}, curve=curve) for _ in logs]


def test_a_cohort_is_kept_whole(tmp_path: Path, base: Any, capsys: Any) -> None:
    check(url(base))
    entries = [Entry(name, {"seed": seed, "mixer": "gru"}) for seed, name in enumerate("ab")]
    record(entries, body, tmp_path / "runs", [url(base)])
    record([Entry("c", {"seed": 0})], lambda logs: 1 / 0, tmp_path / "runs", [url(base)])  # type: ignore[arg-type, return-value]
    found = {one["_id"]: one for one in base.runs.find()}
    assert {name: one["status"] for name, one in found.items()} == {
        "a": "COMPLETED", "b": "COMPLETED", "c": "FAILED"
    }  # fmt: skip
    assert found["b"]["config"] == {"seed": 1, "mixer": "gru"}
    assert found["b"]["result"] == {"score": 1.5, "low": None}
    assert found["c"]["fail_trace"][-1] == "ZeroDivisionError: division by zero\n"
    assert base.metrics.find_one({"run_id": "b"})["values"] == [1, 1 / 2, 1 / 3]
    assert [one["name"] for one in found["a"]["artifacts"]] == ["curve.csv"]
    assert capsys.readouterr().out == ""


def test_a_source_is_stored_once(tmp_path: Path, base: Any) -> None:
    for name in "abc":
        observers._stored.clear()  # as in another process
        record([Entry(name, {"seed": 0})], lambda logs: [Outcome()], tmp_path, [url(base)])
    sources = [one["experiment"]["sources"] for one in base.runs.find()]
    assert sources[0] == sources[1] == sources[2]
    assert base.fs.files.count_documents({}) == len(sources[0]) > 0


def test_the_same_trial_of_another_folder_has_a_name_of_its_own(tmp_path: Path, base: Any) -> None:
    for folder in ("one", "other", "third"):
        record([Entry("a", {"seed": 0})], body, tmp_path / folder, [url(base)])
    assert sorted(one["_id"] for one in base.runs.find()) == ["a", "a@2", "a@3"]
    assert base.runs.count_documents({"status": "COMPLETED"}) == 3


def _start(folder: Path, url: str) -> None:
    for _ in range(RUNS):
        record([Entry("a", {"seed": 0})], body, folder, [url])


def test_fifty_starts_at_once_lose_nothing(tmp_path: Path, base: Any) -> None:
    context = multiprocessing.get_context("fork")
    started = [
        context.Process(target=_start, args=(tmp_path / str(number), url(base)))
        for number in range(PROCESSES)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(timeout=60)
    assert [process.exitcode for process in started] == [0] * PROCESSES
    assert base.runs.count_documents({"status": "COMPLETED"}) == PROCESSES * RUNS
    kept = [len(one["steps"]) for one in base.metrics.find()]
    assert kept == [3] * PROCESSES * RUNS


def test_a_study_tells_it_every_run(tiny: Tiny, base: Any) -> None:
    ended = tiny.run("--observer", url(base), "--only", "mixer=mlp,context=1")
    assert ended.code == 0, ended.err
    there = {one.run_id: one.status for one in attempts(tiny.root / "runs")}
    assert {one["_id"]: one["status"] for one in base.runs.find()} == there
    assert len(there) > 2


def test_a_server_that_dies_costs_no_run(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "ABLATE_TEST_MONGO" in os.environ:
        pytest.skip("somebody else's server is not killed")
    import pymongo

    monkeypatch.setattr(observers, "PATIENCE", 0.5)
    server = Server(tmp_path / "db")
    try:
        with pymongo.MongoClient(server.address, serverSelectionTimeoutMS=20_000) as client:
            client.server_info()
        where = "mongo" + server.address.removeprefix("mongodb") + "/base"

        def killing(logs: list[Log]) -> list[Outcome]:
            server.end()
            return body(logs)

        with pytest.warns(UserWarning, match="it no longer takes what a run tells") as told:
            (ended,) = record([Entry("a", {"seed": 0})], killing, tmp_path / "runs", [where])
        assert sum("no longer takes" in str(one.message) for one in told) == 1
        assert ended.status == "COMPLETED"
        with pytest.raises(UserError, match=r"it can't be used \(ServerSelectionTimeoutError\)"):
            check(where)
    finally:
        server.end()
