"""Further places for runs: by address, refused clearly."""

import importlib
import importlib.util

import pytest

from ablate.errors import UserError
from ablate.track.observers import Database, check, observer_from_url
from ablate.track.recorder import Entry, Outcome, record
from ablate.track.sacred_import import RunObserver
from ablate.track.store import attempts


@pytest.mark.parametrize("url", ["ftp://x/y", "results", ""])
def test_an_unknown_address_is_refused(url):
    with pytest.raises(UserError, match=r"is not known; allowed: mongo://"):
        observer_from_url(url)


@pytest.mark.parametrize(
    ("url", "library"), [("mongo://h/d", "pymongo"), ("sqlite:///x.db", "sqlalchemy")]
)
def test_a_missing_library_is_named(monkeypatch, url, library):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"it needs {library}, which is missing: pip install"):
        observer_from_url(url)


class Base:
    """Stands for the library's observer, whose database does not answer."""

    priority = 1

    def __init__(self, address):
        self.engine = self

    def connect(self):
        raise ConnectionError("password=secret refused")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (Base, "it can't be used (ConnectionError); allowed: the address of a database that answers."),
        (lambda url: importlib.import_module("psycopg9"), "it needs psycopg9, which is missing: pip install"),
    ],
)  # fmt: skip
def test_a_database_is_tried_before_anything_runs(monkeypatch, made, message):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr("ablate.track.observers.SqlObserver", made)
    with pytest.raises(UserError) as caught:
        check("postgresql://me:secret@h/d")
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


class Memory(RunObserver):
    """Stands for a database."""

    def __init__(self):
        self.events = []

    def started_event(self, _id, **kwargs):
        self.events.append(("started", _id))
        return _id

    def completed_event(self, stop_time, result):
        self.events.append(("completed", result))


def test_a_database_takes_the_files_name_and_a_result_it_can_hold(tmp_path, monkeypatch):
    memory = Memory()
    monkeypatch.setattr(
        "ablate.track.observers.observer_from_url", lambda url: Database(memory, url, scalar=True)
    )
    outcome = Outcome({"score": 2.5, "jerk": 1.0})
    record([Entry("t", {"seed": 0})], lambda logs: [outcome], tmp_path, ["sqlite:///x"])
    assert memory.events == [("started", "t"), ("completed", 2.5)]


def test_a_database_that_does_not_answer_stops_before_any_work(tmp_path, monkeypatch):
    class Away(Memory):
        def started_event(self, _id, **kwargs):
            raise ConnectionError("refused\nby host")

    monkeypatch.setattr(
        "ablate.track.observers.observer_from_url", lambda url: Database(Away(), url, scalar=False)
    )
    url = "mongo://name:secret@h/base"
    with pytest.raises(UserError, match=r"^observer mongo://h/base: ConnectionError: refused$"):
        record([Entry("t", {"seed": 0})], lambda logs: pytest.fail("ran"), tmp_path, [url])
    assert [one.status for one in attempts(tmp_path)] == ["INTERRUPTED"]


def test_sqlite_warns_and_records(tmp_path):
    pytest.importorskip("sqlalchemy")
    import sqlite3

    url = f"sqlite:///{tmp_path / 'runs.db'}"
    with pytest.warns(UserWarning, match="loses runs when many start at once"):
        record([Entry("t", {"seed": 0})], lambda logs: [Outcome({"score": 1.5})], tmp_path, [url])
    with sqlite3.connect(tmp_path / "runs.db") as base:
        assert base.execute("select run_id, status, result from run").fetchall() == [
            ("t", "COMPLETED", 1.5)
        ]
