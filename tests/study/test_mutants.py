"""2,000 spoilt study files: each is planned, or refused in one line; none takes long or much memory."""

from __future__ import annotations

import resource
import signal
import unicodedata
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from mutants import ROOT, mutant

from ablate import registry
from ablate.errors import LONGEST, UserError
from ablate.launch.planning import describe
from ablate.study.foreign import is_foreign, load_foreign
from ablate.study.load import load

SECONDS, BYTES = 5, 500 * 2**20


def planned(number: int, folder: Path, seed: int = 0, small: bool = False) -> str:
    """What became of a mutant: the line it was refused with, empty where it was planned."""
    text, overrides, original = mutant(number, seed, small)
    path = folder / original.name
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for code in original.parent.glob("*.py"):
        if not (link := folder / code.name).exists():
            link.symlink_to(code)

    def late(signum: int, frame: FrameType | None) -> Any:
        raise TimeoutError(f"mutant {number} of seed {seed} takes more than {SECONDS} s")

    # Processor time, as the machine does other things too.
    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with registry.scope():
            if is_foreign(path):
                load_foreign(path)
            else:
                describe(load(path, None, overrides), folder / "results", 2)
        line = ""
    except UserError as error:
        line = str(error)
    except Exception as error:
        raise AssertionError(f"mutant {number} of seed {seed}: {type(error).__name__}") from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    assert len(line) <= LONGEST
    assert not any(unicodedata.category(character)[0] == "C" for character in line), line
    return line


def check(numbers: range, folder: Path, small: bool = False) -> list[str]:
    """What became of mutants; the memory that they took besides is bounded."""
    describe(load(ROOT / "examples" / "ema.yaml"), folder, 2)  # imports what a plan needs
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = [planned(number, folder, small=small) for number in numbers]
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < BYTES
    return lines


def test_a_spoilt_study_is_planned_or_refused_in_one_line(tmp_path: Path) -> None:
    lines = check(range(100), tmp_path, small=True)
    assert 40 < sum(bool(line) for line in lines) < 100


@pytest.mark.slow
def test_two_thousand_spoilt_studies(tmp_path: Path) -> None:
    lines = check(range(2000), tmp_path)
    assert 500 < sum(bool(line) for line in lines) < 1990
