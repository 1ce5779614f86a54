"""What a study costs beside its computing, from a thousand to a hundred thousand fits: store, table, report.

Each measurement runs in a process of its own, whose CPU time and largest resident memory the system reports. Runs of
the store are recorded by Sacred through the recorder, `RECORDED` of them, and copied from there with their own ids and
hashes; tables go through their own writer and reader; the report is that of a table from elsewhere of as many rows
(ten algorithms on ten data sets), without LaTeX.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ablate.bench.memory import peak
from ablate.bench.update import Row
from ablate.registry import process
from ablate.report.commands import elsewhere
from ablate.report.write import write_report
from ablate.track import seal
from ablate.track.recorder import Entry, Outcome, record
from ablate.track.store import attempts, deciding
from ablate.track.table import frame_of, order, read_trials, write_table

SIZES = (1_000, 10_000, 100_000)
RECORDED = 50  # runs
STACK = 10  # of them at once, as seeds that train together
RESPONSES = 20
LEVELS = 10  # algorithms, and data sets
CONFIG = {"data": "a", "mixer": "gru", "context": 5, "train": {"updates": 1}, "measure": {}}
STUDY = """study: scale
question: Is the last algorithm better than the first?
table: {{}}
factors: {{algo: [{algos}]}}
data: [{data}]
margin: 3
hypotheses:
  - {{id: better, says: It is better., contrast: "algo[a9] - algo[a0]", test: superiority, primary: true}}
  - {{id: alike, says: These are alike., contrast: "algo[a2] - algo[a1]", test: equivalence}}
"""


def scale_rows(sizes: Iterable[int] = SIZES) -> list[Row]:
    """CPU microseconds and bytes a fit, files, and megabytes of memory, for each part and number of fits."""
    return [_row(part, count) for part in PARTS for count in sizes]


def _row(part: str, count: int) -> Row:
    command, environment = process("ablate.bench.scale", part, str(count))
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = json.loads(done.stdout.splitlines()[-1])
    return {"part": part, "fits": f"{count:,}", **found}


def store(folder: Path, count: int) -> dict[str, Any]:
    """Record some runs, copy them to `count`, read them all."""
    seconds = time.process_time()
    names = [f"{number:012x}" for number in range(count)]
    for first in range(0, RECORDED, STACK):
        entries = [Entry(f"r{first + seed}", {**CONFIG, "seed": seed}) for seed in range(STACK)]
        record(entries, lambda logs: [_outcome() for _ in logs], folder)
    recorded = (time.process_time() - seconds) / RECORDED
    made = json.loads((folder / "r0" / "run.json").read_text())
    files = {path.name: path.read_bytes() for path in (folder / "r0").iterdir()}
    for name in names:
        here = folder / name
        here.mkdir()
        run = json.dumps({**made, seal.KEY: seal.of_run(name, made)})
        for file, content in {**files, "run.json": run.encode()}.items():
            (here / file).write_bytes(content)
    blocks = sum(path.stat().st_blocks * 512 for path in (folder / names[0]).iterdir())
    started = time.process_time()
    found = deciding(attempts(folder, set(names)))
    assert len(found) == count
    return {
        "write, µs a fit": 1e6 * recorded,
        "read, µs a fit": 1e6 * (time.process_time() - started) / count,
        "bytes a fit": blocks,
        "files": (1 + len(files)) * count,
    }


def _outcome() -> Outcome:
    curve = [{"update": update, "loss": 1.0 / (1 + update)} for update in range(10)]
    return Outcome({"loss": 0.5, "parameters": 16_000.0}, curve=curve)


def table(folder: Path, count: int) -> dict[str, Any]:
    """Write a tidy table of `count` rows and read it."""
    random = np.random.default_rng(0).standard_normal((count, RESPONSES))
    lines = [
        {
            **{"trial": f"{number:012x}", "fit": f"{number:012x}", "status": "COMPLETED"},
            **{"data": f"lq-mix/{number % LEVELS}", "mixer": "gru", "context": number % 7},
            **{"condition": "none", "history": "states", "head": "mse"},
            **{"budget": 600, "seed": number, "rollout.row": f"{number:012x}"},
            **{f"rollout.{place}": value for place, value in enumerate(random[number].tolist())},
            "failure": "",
        }
        for number in range(count)
    ]
    started = time.process_time()
    path = folder / "trials.csv"
    write_table(order(frame_of(lines, list(lines[0]))), path)
    written = time.process_time() - started
    assert len(read_trials(path)["trial"]) == count
    return {
        "write, µs a fit": 1e6 * written / count,
        "read, µs a fit": 1e6 * (time.process_time() - started - written) / count,
        "bytes a fit": path.stat().st_size // count,
        "files": 1,
    }


def report(folder: Path, count: int) -> dict[str, Any]:
    """Report a table from elsewhere of `count` rows."""
    source, rows = theirs(folder, count)
    started = time.process_time()
    results = elsewhere(source, rows, folder)
    read = time.process_time() - started
    made = write_report(results, folder / "paper", pdf=False)
    return {
        "write, µs a fit": 1e6 * (time.process_time() - started - read) / count,
        "read, µs a fit": 1e6 * read / count,
        "bytes a fit": sum(path.stat().st_size for path in made.written) // count,
        "files": len(made.written),
    }


def theirs(folder: Path, count: int) -> tuple[Path, Path]:
    """A study and a table of `count` rows, scores of one algorithm rising above the others'."""
    seeds = count // LEVELS**2
    algo, data, seed = np.meshgrid(range(LEVELS), range(LEVELS), range(seeds), indexing="ij")
    noise = np.random.default_rng(0).standard_normal(algo.shape)
    score = 50.0 + 2.0 * data + (algo == LEVELS - 1) + 10.0 * noise
    path = folder / "theirs.csv"
    with open(path, "w", encoding="utf-8") as file:
        file.write("data,algo,seed,score\n")
        for d, a, s, x in zip(data.flat, algo.flat, seed.flat, score.flat, strict=True):
            file.write(f"d{d},a{a},{s},{x:.4f}\n")
    source = folder / "scale.yaml"
    algos, sets = (", ".join(f"{name}{i}" for i in range(LEVELS)) for name in "ad")
    source.write_text(STUDY.format(algos=algos, data=sets), encoding="utf-8")
    return source, path


PARTS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "store": store,
    "table": table,
    "report": report,
}


def main(part: str, count: int) -> None:
    """Measure one part in this process; prints JSON."""
    before = peak()
    with tempfile.TemporaryDirectory() as folder:
        found = PARTS[part](Path(folder), count)
    used = resource.getrusage(resource.RUSAGE_SELF)
    found |= {
        "CPU s": used.ru_utime + used.ru_stime,
        "MB above its imports": 1e3 * (peak() - before),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
