"""`watch`: a page on this machine that shows a study while it runs: its cells filling up, running fits with their
curves, the time left, what failed and why, and a peek at the verdicts."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate import words
from ablate.errors import UserError
from ablate.launch import standing
from ablate.launch.progress import LEFT, told_by
from ablate.report import commands, page
from ablate.report.export import verdict_table
from ablate.study import expand
from ablate.study.schema import Study
from ablate.track.book import Book, tuned
from ablate.track.folder import folder_of
from ablate.track.store import COMPLETED, DEAD, FAILED, RUNNING, Attempt, attempts, deciding

if TYPE_CHECKING:
    from flask import Flask

HOST = "127.0.0.1"
PATIENCE = 20  # so that looking takes a twentieth of the time at most
MOST = 24  # curves and failures that are shown
# Nothing is fetched from elsewhere, no script runs but the page's own, and no other page may hold this one.
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class _Kept:
    """What `make` gave, made anew when somebody asks and that was not done for `PATIENCE` times as long as it takes;
    of those who ask at once, one makes it."""

    def __init__(self, make: Callable[[], dict[str, Any]]) -> None:
        self._make, self._lock, self._due = make, threading.Lock(), 0.0
        self._value: dict[str, Any] = {}

    def __call__(self) -> dict[str, Any]:
        with self._lock:
            if time.monotonic() >= self._due:
                began = time.monotonic()
                try:
                    self._value = self._make()
                except UserError as error:
                    self._value = {"error": str(error)}
                self._due = began + (1 + PATIENCE) * (time.monotonic() - began)
            return self._value


class Live:
    """A loaded study as its folder shows it at this moment. Reads only; who runs the study, and where, doesn't matter.

    state, verdicts: plain JSON, or {"error": ...} where the folder can't be read.
    """

    def __init__(self, study: Study, results: Path) -> None:
        self.study, self.results = study, results
        self._asked: tuple[dict[str, str], Study, list[expand.Trial]] | None = None
        self.state = _Kept(self._state)
        self.verdicts = _Kept(self._verdicts)

    def _trials(self) -> tuple[Study, list[expand.Trial]]:
        """The trials that are asked for, listed anew where a data set or a tuned setting became known."""
        folder = folder_of(self.results, self.study)
        data = standing.contents(folder, self.study.data)
        known = {**data, "": standing.tuning_hash(folder)}
        if self._asked is None or self._asked[0] != known:
            study = tuned(self.study, folder, data)
            self._asked = (known, study, expand.trials(study, data))
        return self._asked[1:]

    def _state(self) -> dict[str, Any]:
        folder = folder_of(self.results, self.study)
        study, trials = self._trials()
        found = attempts(folder.runs)
        running = {one.trial_id: one for one in found if one.status == RUNNING}
        book = Book(folder, study, trials)
        cells: dict[tuple[Any, ...], _Cell] = {}
        totals: Counter[str] = Counter()
        trial_of: dict[str, expand.Trial] = {}
        for trial in trials:
            status = book.status(trial)[0]
            busy = trial.fit.id in running or any(row in running for row in trial.rows.values())
            totals[status or (RUNNING if busy else "")] += 1
            key = (trial.fit.config["data"], *trial.levels.values())
            cells.setdefault(key, _Cell(trial)).take(trial.seed, status, busy)
            trial_of.setdefault(trial.fit.id, trial)
        varied = _varied(cells.values())
        first = {name: levels[0] for name, levels in study.factors.items() if levels}
        by_data: dict[str, list[dict[str, Any]]] = {}
        for cell in cells.values():
            name = words.data(cell.trial.fit.config["data"])
            by_data.setdefault(name, []).append(cell.record(_said(cell.trial, first, varied)))
        curves = [
            {
                "cell": _said(trial_of[name], first, varied),
                "data": words.data(trial_of[name].fit.config["data"]),
                "seed": trial_of[name].seed,
                "points": _points(one),
            }
            for name, one in running.items()
            if name in trial_of
        ]
        failures = [
            {"run": one.run_id, "status": one.status.lower(), "why": _why(one)}
            for one in deciding(found).values()
            if one.status not in (COMPLETED, RUNNING)
        ]
        return {
            "study": study.study,
            "profile": study.profile,
            "question": study.question.strip(),
            "trials": len(trials),
            "completed": totals[COMPLETED],
            "failed": totals[FAILED],
            "running": totals[RUNNING],
            "driver": told_by(folder.runs / LEFT),
            "data": [{"name": name, "cells": all_of} for name, all_of in by_data.items()],
            "curves": curves[:MOST],
            "more_curves": max(len(curves) - MOST, 0),
            "failures": failures[:MOST],
            "more_failures": max(len(failures) - MOST, 0),
        }

    def _verdicts(self) -> dict[str, Any]:
        found = commands.ours(self.study, self.results)
        table = verdict_table(found.analysis.verdicts)
        shown = table[["hypothesis", "says", "verdict", "sentence"]].fillna("").astype(str)
        return {"verdicts": shown.to_dict("records")}


class _Cell:
    """The seeds of a cell, each with all its budgets and settings of measurements."""

    def __init__(self, trial: expand.Trial) -> None:
        self.trial = trial
        self._seeds: dict[int, list[str]] = {}

    def take(self, seed: int, status: str, busy: bool) -> None:
        """Enter a trial."""
        self._seeds.setdefault(seed, []).append(status or (RUNNING if busy else ""))

    def record(self, called: str) -> dict[str, Any]:
        """How many of its seeds are done, failed and running."""
        count = Counter(
            FAILED
            if FAILED in found
            else RUNNING
            if RUNNING in found
            else COMPLETED
            if all(found)
            else ""
            for found in self._seeds.values()
        )
        return {
            "cell": called,
            "seeds": len(self._seeds),
            "done": count[COMPLETED],
            "failed": count[FAILED],
            "running": count[RUNNING],
        }


def _varied(cells: Iterable[_Cell]) -> set[str]:
    """The factors that vary within most data sets: a cell is called by these, and by what else isn't at its first
    level."""
    seen: dict[str, dict[str, set[str]]] = {}
    for cell in cells:
        within = seen.setdefault(cell.trial.fit.config["data"], {})
        for name, value in cell.trial.levels.items():
            within.setdefault(name, set()).add(str(value))
    count = Counter(name for at in seen.values() for name, found in at.items() if len(found) > 1)
    return {name for name, n in count.items() if 2 * n > len(seen)} - {"data"}


def _said(trial: expand.Trial, first: Mapping[str, Any], varied: Collection[str]) -> str:
    at = {
        name: value
        for name, value in trial.levels.items()
        if name in varied or (name != "data" and name in first and value != first[name])
    }
    return words.held(at) or words.data(trial.fit.config["data"])


def _points(one: Attempt) -> dict[str, list[list[float]]]:
    """By metric, [update, value] as far as the run has told; one that is being written tells at the next look."""
    try:
        found: Mapping[str, Any] = json.loads((one.path / "metrics.json").read_text())
    except (OSError, ValueError):
        return {}
    return {
        name: [
            [step, value]
            for step, value in zip(each["steps"], each["values"], strict=False)
            if isinstance(value, int | float)
        ]
        for name, each in found.items()
    }


def _why(one: Attempt) -> str:
    return "its process has ended without a word" if one.status == DEAD else one.failure


def app(live: Live) -> Flask:
    """The page and what it asks for. Raises UserError where Flask isn't installed."""
    try:
        from flask import Flask, Response
    except ImportError:
        raise UserError(
            "watch: it needs a package that is not installed: pip install 'ablate-sequence-rl[watch]'."
        ) from None
    made = Flask("ablate", static_folder=None)
    # A page from elsewhere that got a name of its own to point here is refused.
    made.config["TRUSTED_HOSTS"] = [HOST, "localhost"]
    whole = page.template("live.html.j2", study=live.study.study, question=live.study.question)
    files = {
        "/": (whole, "text/html"),
        "/page.css": (page.template("page.css.j2"), "text/css"),
        "/live.css": (page.template("live.css.j2"), "text/css"),
        "/live.js": (page.template("live.js.j2"), "text/javascript"),
    }

    def serve(address: str, give: Callable[[], bytes], kind: str) -> None:
        def answer() -> Response:
            made_response = Response(give(), content_type=f"{kind}; charset=utf-8")
            made_response.headers["Content-Security-Policy"] = POLICY
            made_response.headers["X-Content-Type-Options"] = "nosniff"
            made_response.headers["Cache-Control"] = "no-store"
            return made_response

        made.add_url_rule(address, address, answer)

    for address, (content, kind) in files.items():
        serve(address, lambda content=content: content, kind)  # type: ignore[misc]
    for name, look in (("state", live.state), ("verdicts", live.verdicts)):
        serve(f"/{name}.json", lambda look=look: json.dumps(look()).encode(), "application/json")  # type: ignore[misc]
    return made


def serve(live: Live, port: int, say: Callable[[str], None]) -> None:
    """Show the page on this machine alone until interrupted. port: 0 takes one that is free; say: told the address.

    Raises UserError where Flask isn't installed, and for a port that can't be had.
    """
    made = app(live)
    import logging

    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"watch: port {port} can't be had ({os.strerror(error.errno or 0)}); allowed: another, or 0 for one "
                "that is free."
            ) from error
        door.listen()
        found = door.getsockname()[1]
        server = make_server(HOST, found, made, threaded=True, fd=door.fileno())
        say(f"http://{HOST}:{found}/")
        server.serve_forever()
