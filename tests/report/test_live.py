"""The live page of a study: what it shows, to whom, and that a browser shows it."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from tiny_study import Tiny
from werkzeug.serving import make_server

from ablate.errors import UserError
from ablate.report import live
from ablate.study import expand
from ablate.study.load import load
from ablate.track.folder import folder_of
from ablate.track.recorder import Entry, Log, Outcome, record

HOSTILE = "<img src=x onerror='document.title=1'><script>document.title=1</script>"


def looked(tiny: Tiny) -> live.Live:
    """A live view of the study as it stands."""
    return live.Live(load(tiny.file), tiny.results)


def counts(state: dict) -> tuple[int, int, int, int]:
    return tuple(state[name] for name in ("trials", "completed", "failed", "running"))


def test_before_the_first_run_there_are_cells_and_nothing_else(tiny: Tiny) -> None:
    tiny.write()
    state = looked(tiny).state()
    assert counts(state) == (6, 0, 0, 0)
    assert state["driver"] is None
    (found,) = state["data"]
    assert [one["cell"] for one in found["cells"]] == ["MLP, K = 1", "MLP, K = 2", "GRU, K = 2"]
    assert "there are no results yet" in looked(tiny).verdicts()["error"]


def test_cells_fill_up_and_failures_tell_why(tiny: Tiny) -> None:
    tiny.write()
    tiny.run("--only", "mixer=mlp,context=1")
    view = looked(tiny)
    state = view.state()
    assert counts(state) == (6, 2, 0, 0)
    assert [one["done"] for one in state["data"][0]["cells"]] == [2, 0, 0]
    study = load(tiny.file)
    folder = folder_of(tiny.results, study)
    trial = next(
        one for one in expand.trials(study, folder.read()["data"]) if one.level("mixer") == "gru"
    )
    record(
        [Entry(trial.fit.id, {**trial.fit.config, "seed": trial.seed})],
        lambda logs: [Outcome(failure="the loss is not a number")],
        folder.runs,
    )
    state = looked(tiny).state()
    assert counts(state) == (6, 2, 1, 0)
    assert state["failures"] == [
        {"run": trial.fit.id, "status": "failed", "why": "the loss is not a number"}
    ]
    assert [one["failed"] for one in state["data"][0]["cells"]] == [0, 0, 1]


def test_a_fit_is_seen_with_its_curve_while_it_trains(tiny: Tiny) -> None:
    tiny.write()
    tiny.run("--only", "mixer=mlp,context=1")
    study = load(tiny.file)
    folder = folder_of(tiny.results, study)
    trial = next(
        one for one in expand.trials(study, folder.read()["data"]) if one.level("mixer") == "gru"
    )
    seen = {}

    def body(logs: list[Log]) -> list[Outcome]:
        logs[0].metric("loss", 0.5, 1)
        logs[0].metric("loss", 0.25, 2)
        logs[0]._run._emit_heartbeat()  # what happens every ten seconds
        seen.update(looked(tiny).state())
        return [Outcome({"loss": 0.25})]

    record([Entry(trial.fit.id, {**trial.fit.config, "seed": trial.seed})], body, folder.runs)
    assert counts(seen) == (6, 2, 0, 1)
    (curve,) = seen["curves"]
    assert (curve["cell"], curve["seed"]) == ("GRU, K = 2", trial.seed)
    assert curve["points"] == {"loss": [[1, 0.5], [2, 0.25]]}


def test_a_look_is_kept_while_it_is_fresh_and_a_damaged_folder_is_said(tiny: Tiny) -> None:
    tiny.write()
    tiny.run("--only", "mixer=mlp,context=1")
    view = looked(tiny)
    first = view.state()
    assert view.state() is first
    (tiny.root / "study.json").write_text("{")
    assert "cannot be read" in looked(tiny).state()["error"]


def test_only_this_machine_is_answered_and_nothing_foreign_runs(tiny: Tiny) -> None:
    tiny.write("Does memory help?", json.dumps(HOSTILE))
    client = live.app(looked(tiny)).test_client()
    for address in ("/", "/page.css", "/live.css", "/live.js", "/state.json", "/verdicts.json"):
        answer = client.get(address, base_url="http://127.0.0.1")
        assert answer.status_code == 200
        assert answer.headers["Content-Security-Policy"] == live.POLICY
    assert b"<script>document" not in client.get("/", base_url="http://127.0.0.1").data
    assert client.get("/", base_url="http://elsewhere.example").status_code == 400
    assert client.get("/../study.json", base_url="http://127.0.0.1").status_code == 404
    assert client.post("/state.json", base_url="http://127.0.0.1").status_code == 405


def test_a_port_that_is_taken_is_refused_in_one_line(tiny: Tiny) -> None:
    tiny.write()
    with socket.socket() as taken:
        taken.bind((live.HOST, 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = tiny.command(*tiny.arguments("watch", "--port", port)).line
    assert line.startswith(f"ablate: watch: port {port} can't be had")


def test_without_flask_it_says_what_to_install(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.write()
    monkeypatch.setitem(sys.modules, "flask", None)
    with pytest.raises(UserError, match=r"pip install 'ablate-sequence-rl\[watch\]'"):
        live.app(looked(tiny))


@pytest.fixture
def page(tmp_path: Path) -> Iterator[browser.Browser]:
    if browser.program() is None:
        pytest.skip("no Chromium is installed, so the page is not opened")
    with browser.Browser(tmp_path / "browser") as found:
        yield found


def test_in_a_browser_it_follows_the_study(page: browser.Browser, tiny: Tiny) -> None:
    tiny.write("Does memory help?", json.dumps(HOSTILE))
    server = make_server(live.HOST, 0, live.app(looked(tiny)), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    home = f"http://{live.HOST}:{server.server_port}/"
    told = "document.getElementById('count').textContent"
    try:
        page.visit(home)
        page.wait(f"{told}.startsWith('0 trials of 6 completed')")
        tiny.run("--only", "mixer=mlp")
        page.wait(f"{told}.startsWith('4 trials of 6 completed')")
        assert page.run("document.querySelectorAll('.cell.done').length") == 2
        assert page.run("document.querySelector('h1').textContent") == HOSTILE
        assert page.run("document.title") == "tiny: live"
        page.press("Tab")
        assert page.run("document.activeElement.className") == "skip"
        page.visit(home, width=360, height=640, dark=True)
        page.wait(f"{told}.startsWith('4 trials of 6 completed')")
        assert page.run("document.documentElement.scrollWidth") <= 360
        assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(23, 25, 28)"
        assert page.errors == []
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
