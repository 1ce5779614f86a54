"""A study that is killed at any moment of its life goes on by the same command to the same tables."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

KILLER = Path(__file__).with_name("killer.py")


def killed(folder: Path, *numbers: int) -> list[dict[str, object]]:
    made = subprocess.run(
        [sys.executable, str(KILLER), str(folder), *map(str, numbers)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-3000:]
    assert "Traceback" not in made.stderr
    return [json.loads(line) for line in made.stdout.splitlines() if line.startswith("{")]


def test_ten_kills_of_one_study(tmp_path: Path) -> None:
    assert killed(tmp_path, 0, 1, 10, 0) == [{"kills": 10, "code": 0, "same": True}]


@pytest.mark.slow
def test_a_hundred_kills_of_ten_studies(tmp_path: Path) -> None:
    assert killed(tmp_path, 1, 10, 8, 2) == [{"kills": 10, "code": 0, "same": True}] * 10
