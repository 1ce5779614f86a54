"""Where each figure, table and number comes from: hashes, and a study's entry in the manifest."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import ablate
from ablate.analyse.verdict import NOT_CONVERGED
from ablate.report.results import Results

PACKAGES = ("matplotlib", "numpy", "pandas", "scipy", "seaborn", "tueplots", "jinja2")
MAKERS = (
    "report",
    "analyse",
    "study",
    "config.py",
    "words.py",
)  # what decides how results are told
TABLES = (  # of `Results`
    "table",
    "curves",
    "series",
    "tuning",
    "yardsticks",
    "replications",
)


def sha(content: bytes) -> str:
    """SHA-256 as hex."""
    return hashlib.sha256(content).hexdigest()


def row_hashes(table: pd.DataFrame, cells: Sequence[Sequence[str]] | None = None) -> dict[str, str]:
    """For each trial the first 16 hex digits of the hash of its row: every column's name and
    value. cells: `written` of the table, where it is known."""
    heads = [json.dumps(name).replace("%", "%%") for name in table.columns]
    line = "[" + ", ".join(f"[{head}, %s]" for head in heads) + "]"
    trials = table["trial"].astype(str).tolist()
    rows = zip(*(cells or written(table)), strict=True)
    return {
        trial: hashlib.sha256((line % row).encode()).hexdigest()[:16]
        for trial, row in zip(trials, rows, strict=True)
    }


def written(table: pd.DataFrame) -> list[list[str]]:
    """The cells of each column as JSON."""
    return [_written(table.iloc[:, place]) for place in range(table.shape[1])]


def _written(column: pd.Series) -> list[str]:
    """The cells as JSON; of text and levels each is written once."""
    if pd.api.types.is_integer_dtype(column.dtype):
        return [*map(str, column.tolist())]
    if column.dtype == float:
        return [
            repr(value)
            if math.isfinite(value) and not value.is_integer()
            else json.dumps(_plain(value))
            for value in column.tolist()
        ]
    if isinstance(column.dtype, pd.CategoricalDtype):
        levels = [*(json.dumps(_plain(level)) for level in column.cat.categories), "null"]
        return [levels[code] for code in column.cat.codes.tolist()]
    cells = column.tolist()
    if all(type(cell) is str for cell in cells):
        return [*map(encode_basestring_ascii, cells)]
    known: dict[Any, str] = {}
    out = []
    for value in cells:
        key = (type(value), value)
        if key not in known:
            known[key] = json.dumps(_plain(value))
        out.append(known[key])
    return out


def _plain(value: Any) -> Any:
    """A cell of the table without the type that reading it happened to give it."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def packages() -> dict[str, str]:
    """Versions of everything that could change what is drawn."""
    out = {"ablate": ablate.__version__, "python": ".".join(platform.python_version_tuple()[:2])}
    for name in PACKAGES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "absent"
    return out


@functools.cache
def code() -> str:
    """Hash of the code that turns results into a report."""
    root = Path(ablate.__file__).parent
    found = (path for name in MAKERS for path in [root / name, *(root / name).rglob("*")])
    sources = sorted(path for path in found if path.suffix in (".py", ".j2"))
    return sha(b"".join(sha(path.read_bytes()).encode() for path in sources))[:16]


def inputs(
    results: Results, venue: str, cells: Sequence[Sequence[str]] | None = None
) -> dict[str, str]:
    """Hash of everything that a study's part of the paper is made of, by name. cells: `written` of its table,
    where it is known."""
    out = {name: frame_hash(getattr(results, name)) for name in TABLES if name != "table"}
    out["table"] = frame_hash(results.table, cells)
    # Where the file lies says nothing of what it says.
    study = results.study.model_dump(mode="json", exclude={"file", "code"})
    own = getattr(results.study, "code", ())
    record = results.record
    others = {
        "study": study,
        "own code": "".join(path.read_text(encoding="utf-8") for path in own),
        "audit": list(results.audit),
        "registration": dict(results.registration),
        "reading": [*results.reading, results.paired],
        "looks": None if record is None else record.text(),
        "venue": venue,
    }
    return out | {name: sha(dump(value)) for name, value in others.items()}


def frame_hash(table: pd.DataFrame, cells: Sequence[Sequence[str]] | None = None) -> str:
    """Hash of a table's columns and values, in its order. cells: `written` of the table, where it is known."""
    found = hashlib.sha256(json.dumps([str(name) for name in table.columns]).encode())
    for row in zip(*(cells or written(table)), strict=True):
        found.update(("\n[" + ", ".join(row) + "]").encode())
    return found.hexdigest()


def spans(places: Iterable[int]) -> list[int]:
    """[first, last, first, last, ...] of the runs of consecutive numbers among `places`."""
    there = np.unique(np.fromiter(places, dtype=int))
    if not len(there):
        return []
    gaps = np.flatnonzero(np.diff(there) > 1)
    first, last = there[np.r_[0, gaps + 1]], there[np.r_[gaps, len(there) - 1]]
    out: list[int] = np.column_stack([first, last]).ravel().tolist()
    return out


def entry(
    results: Results,
    venue: str,
    files: Mapping[str, bytes],
    shown: Mapping[str, Mapping[str, Any]],
    numbers: Mapping[str, tuple[str, Iterable[str]]],
) -> dict[str, Any]:
    """A study's entry in the manifest.

    `rows` has one line a trial, its id and the hash of its row, and `trials` of each figure, table and
    number says which of these lines it was made of, as first-last counted from 0.
    files: path below the paper's folder -> content; shown: path without suffix -> caption, script,
    trials and further facts of a figure or table; numbers: macro -> value and trials.
    """
    story = results.story
    cells = written(results.table)
    same = results.budgets is results.table
    hashes = row_hashes(results.budgets, cells if same else None)
    places = {trial: place for place, trial in enumerate(hashes)}

    @functools.cache  # most figures and numbers rest on the same lists
    def spelt(trials: tuple[str, ...]) -> str:
        ends = spans(place for place in map(places.get, trials) if place is not None)
        pairs = zip(ends[::2], ends[1::2], strict=True)
        return " ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in pairs)

    return {
        "study_hash": story.study_hash,
        "hypotheses_hash": story.hypotheses_hash,
        "profile": story.profile,
        "question": story.question,
        "answer": story.answer,
        "findings": findings(results),
        "control": control(results),
        "inputs": inputs(results, venue, cells),
        "code": code(),
        "packages": packages(),
        "rows": [f"{trial} {digest}" for trial, digest in hashes.items()],
        "files": {name: sha(content) for name, content in sorted(files.items())},
        "shown": {
            name: {**facts, "trials": spelt(tuple(facts["trials"]))}
            for name, facts in shown.items()
        },
        "numbers": {
            name: {"value": value, "trials": spelt(tuple(trials))}
            for name, (value, trials) in numbers.items()
        },
    }


def findings(results: Results) -> list[dict[str, Any]]:
    """What the paper's overview tells of each hypothesis, in their order.

    Estimate and interval are in the response's unit, None where there is none. matters: the smallest effect that
    matters, the threshold or else the margin; None without either. universes, stands, same_sign: their number in the
    multiverse and shares of them, None where it isn't a hypothesis of it, or nothing is decided as training hasn't
    converged. replications: in how many of those under other streams the verdict is the same, and of how many.
    """
    story, multiverse = results.story, results.further.multiverse
    shares: dict[Any, dict[Any, Any]] = {}
    if multiverse is not None and multiverse.universes > 1:
        shares = multiverse.shares.set_index("hypothesis").to_dict("index")
    out = []
    for one in story.findings:
        decided = one.tested and one.verdict != NOT_CONVERGED
        there = shares.get(one.id, {}) if decided else {}
        shown = (
            f"{one.response.quantity(one.estimate, sign=not one.absolute)} ({one.shown_interval})"
        )
        facts = {
            "id": one.id,
            "says": one.says,
            "primary": one.primary,
            "verdict": one.verdict,
            "standing": one.standing,
            "estimate": _finite(one.estimate),
            "low": _finite(one.low),
            "high": _finite(one.high),
            "around": one.around,
            "matters": abs(one.threshold) or one.margin or None,
            "shown": shown if one.tested else "",
            "seeds": story.seeds,
            "universes": there.get("universes"),
            "stands": there.get("stands"),
            "same_sign": there.get("same_sign"),
            "replications": _same(results.replications, one.id, one.verdict),
        }
        out.append(facts)
    return out


def control(results: Results) -> dict[str, Any]:
    """What the planted control of the multiverse came to, as `multiverse.Control` says it."""
    found = results.further.multiverse
    if found is None:
        return {"share": None, "reason": results.further.reasons["multiverse"].rstrip(".")}
    return asdict(found.control)


def _same(verdicts: pd.DataFrame, hypothesis: str, verdict: str) -> list[int]:
    """[in how many replications the hypothesis has the verdict, of how many]."""
    mine = verdicts[verdicts["hypothesis"] == hypothesis]
    found = mine.drop_duplicates("streams")["verdict"]  # each part of it has the whole's
    return [int((found == verdict).sum()), len(found)]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def trials(entry: Mapping[str, Any], ranges: str) -> list[str]:
    """The ids that `trials` of a figure, table or number of an entry stands for."""
    rows = [line.split(" ")[0] for line in entry["rows"]]
    ends = [[int(end) for end in part.split("-")] for part in ranges.split()]
    return [trial for pair in ends for trial in rows[pair[0] : pair[-1] + 1]]


def dump(content: Any) -> bytes:
    """JSON with sorted keys, one space and a final newline; numbers have seven digits, so that the last
    ones, which depend on the processor, make no difference."""
    text = json.dumps(_rounded(content), indent=1, sort_keys=True, ensure_ascii=False)
    return (text + "\n").encode()


def _rounded(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(name): _rounded(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_rounded(value) for value in content]
    return float(f"{content:.7g}") if isinstance(content, float) else content
