"""Whatever happens to a byte of a study's folder: a refusal in one line that names the file, or the right numbers."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pandas as pd
import pytest
from test_book import STUDY, finish, folder, put, trial

from ablate.errors import UserError
from ablate.track import kept, seal, store
from ablate.track.book import Book
from ablate.track.folder import StudyFolder
from ablate.track.known import verify
from ablate.track.recorder import Outcome
from ablate.track.table import read_csv, rows, write_table

TRIALS = [trial(0), trial(1), trial(0, 400), trial(0, episodes=2)]


def made(tmp_path: Path) -> StudyFolder:
    """A study with every kind of table, and its run store."""
    for one in TRIALS:
        finish(tmp_path, one, one.seed + 0.1)
    failed = trial(2)
    put(tmp_path, failed.fit.id, Outcome(failure="diverged: loss 9 at update 3"))
    there = folder(tmp_path)
    row = {"data": "lq-mix/single", "content": "aa", "context": 20, "action_error": 0.22}
    write_table(pd.DataFrame([row, {**row, "context": 1}]), there.root / "yardsticks.csv")
    verdicts = [{"streams": f"s-{i}", "estimate": i / 3, "verdict": "supported"} for i in range(4)]
    write_table(pd.DataFrame(verdicts), there.replications)
    record = {**dict.fromkeys(kept.AUDITED, "gru"), "passed": True, "findings": []}
    there.audit.write_text(json.dumps([seal.sign(record), seal.sign({**record, "context": 20})]))
    Book(there, STUDY, [*TRIALS, failed]).write()
    return there


def told(there: StudyFolder) -> str:
    """All that `run`, `report` and `status` take from the folder."""
    verify(there)
    book = Book(there, STUDY, TRIALS)
    tables = [*sorted(there.root.glob("*.csv")), there.table]
    found = [rows(read_csv(path)) for path in dict.fromkeys(tables)]
    return repr(
        (
            there.read(),
            kept.audits(there),
            book.lines(),
            book.known.curves,
            book.known.series,
            found,
        )
    )


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content with one thing done to it."""
    lines = content.splitlines(keepends=True)
    at, other = rng.randrange(len(content)), rng.randrange(len(content))
    digits = [i for i, byte in enumerate(content) if chr(byte).isdigit()]
    kind = rng.randrange(8)
    if kind == 0:  # another digit
        at = rng.choice(digits)
        return content[:at] + rng.choice(b"0123456789").to_bytes() + content[at + 1 :]
    if kind == 1:  # one bit
        return content[:at] + (content[at] ^ 1 << rng.randrange(8)).to_bytes() + content[at + 1 :]
    if kind == 2:  # cut off
        return content[:at]
    if kind == 3:  # a part is gone
        return content[: min(at, other)] + content[max(at, other) :]
    if kind == 4:  # two bytes change places
        both = bytearray(content)
        both[at], both[other] = both[other], both[at]
        return bytes(both)
    line = rng.randrange(len(lines))
    if kind == 5:  # a line is gone
        return b"".join(lines[:line] + lines[line + 1 :])
    if kind == 6:  # a line stands twice
        return b"".join(lines[:line] + lines[line : line + 1] + lines[line:])
    rng.shuffle(lines)
    return b"".join(lines)


def check(tmp_path: Path, seed: int, times: int) -> None:
    """Damage a file, read everything, put it back; so many times."""
    there = made(tmp_path)
    expected = told(there)
    runs = [*there.runs.glob("*/run.json"), *there.runs.glob("*/*.csv")]
    files = sorted([*there.root.glob("*.csv"), there.registration, there.audit] * 5 + runs)
    rng, refused = random.Random(seed), []
    for _ in range(times):
        file = rng.choice(files)
        before = file.read_bytes()
        after = damaged(before, rng)
        file.write_bytes(after)
        try:
            assert told(there) == expected, (file, before, after)
        except UserError as error:
            refused.append((file.name, str(error)))
        file.write_bytes(before)
    assert all(name in line and len(line.splitlines()) == 1 for name, line in refused)
    assert len(refused) > times / 2
    assert told(there) == expected


def test_sixty_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.0)
    check(tmp_path, 0, 60)


@pytest.mark.slow
def test_five_hundred_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.0)
    check(tmp_path, 1, 500)


def test_files_of_two_runs_that_changed_places(tmp_path: Path) -> None:
    there = made(tmp_path)
    first, second = (there.runs / TRIALS[i].rows["rollout"] / "run.json" for i in (0, 1))
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    with pytest.raises(UserError, match=r"run\.json: this record of a run is corrupt"):
        verify(there)
