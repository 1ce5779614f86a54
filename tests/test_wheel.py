"""A wheel in an environment of its own, outside of the repository: studies, presets, comparators and templates are
there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from tiny_study import ROOT

pytestmark = pytest.mark.slow
SMALL = (
    "train.updates=4",
    "train.warmup=1",
    "train.points=1",
    "train.checkpoints=[]",
    "measure.rollout.episodes=4",
)
CELL = "mixer=gru,context=1,condition=time,data=lq-mix/episode-3000"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what belongs to the project, by the setuptools of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    kept = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    for name in kept.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith(("results/", "paper/", "tests/")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    _done(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
        *("--no-index", "--wheel-dir", str(folder), str(copy)),
        cwd=folder,
    )
    (made,) = folder.glob("*.whl")
    return made


def _done(*command: str, cwd: Path, **environment: str) -> str:
    """What a command printed; it has to succeed."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=clean | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_it_holds_the_studies_once(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {
        path.name for path in (ROOT / "studies").iterdir() if path.suffix in (".yaml", ".py")
    }
    assert {
        name.rpartition("/")[2] for name in names if name.startswith("ablate/studies/")
    } == shipped
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "ablate",
        "baselines",
        "ablate_sequence_rl",
    }


def test_it_works_outside_of_the_repository(wheel: Path, tmp_path: Path) -> None:
    _done(sys.executable, "-m", "venv", str(tmp_path / "venv"), cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    _done(
        *(str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)),
        cwd=tmp_path,
    )
    where = _done(
        str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path
    )
    # What it depends on is what this environment has; its own editable install is not followed from there.
    Path(where.strip(), "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    there = tmp_path / "elsewhere"
    there.mkdir()

    def ablate(*arguments: str) -> str:
        return _done(
            str(python.with_name("ablate")), *arguments, cwd=there, OMP_NUM_THREADS="1", PATH=""
        )

    found = _done(str(python), "-c", "import ablate; print(ablate.__file__)", cwd=there)
    assert Path(found.strip()).is_relative_to(tmp_path / "venv")
    small = [word for text in SMALL for word in ("--set", text)]
    # `memory_vs_arch` has code of its own, and comparators among its levels.
    asked = ("--profile", "quick", "--seeds", "2", *small)
    out = ablate("run", "memory_vs_arch", *asked, "--only", CELL, "--workers", "1")
    assert "note: there is no file memory_vs_arch here; taken: " in out
    assert "2 of " in out
    out = ablate("report", "memory_vs_arch", *asked)
    assert "report.html" in out
    assert list(there.rglob("report.html"))
    assert list(there.rglob("supplement.tex"))
    assert "Did you mean 'memory_vs_arch'" not in ablate("status", "studies/memory_vs_arch.yaml")
    out = ablate(
        "train",
        "--preset",
        "bc",
        "--data",
        "tmaze/passive-3",
        *small[:-4],
        "--set",
        "model.width=8",
    )
    assert "Next: python -m ablate evaluate" in out
