"""Where a run's code came from and what it ran on; gathered once a process, for it costs time."""

from __future__ import annotations

import functools
import json
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ablate.errors import public

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ablate-sequence-rl", "torch", "numpy", "scipy", "gymnasium", "mujoco", "sacred")
OURS = ("ablate", "baselines")
PLUGIN = "ablate_plugin_"  # how the name of a plugin that is a file begins
KEPT = "repositories.json"  # beside a copy of the code: the git state of what was copied


@functools.cache
def repositories() -> list[dict[str, object]]:
    """The git state in Sacred's form: url, commit, dirty. Empty without git or without a commit.

    A copy of the code that another machine works with tells that of what it was copied from. What the toolkit
    itself writes (`results/`, `paper/`) doesn't make the code dirty.
    """
    if (ROOT / KEPT).exists():
        return list(json.loads((ROOT / KEPT).read_text(encoding="utf-8")))
    commit = _ask("git", "-C", str(ROOT), "rev-parse", "--verify", "HEAD")
    if not commit:
        return []
    changed = _ask(
        *("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no", "--"),
        *(".", ":(exclude)results", ":(exclude)paper"),
    )
    remote = _ask("git", "-C", str(ROOT), "remote", "get-url", "origin")
    return [{"url": public(remote or ""), "commit": commit, "dirty": bool(changed)}]


@functools.cache
def hardware() -> dict[str, object]:
    """Processor, and the GPUs that nvidia-smi lists (name, memory, driver)."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = (
            line
            for line in info.read_text("utf-8", "replace").splitlines()
            if line.startswith("model name")
        )
        cpu = next(lines, cpu).partition(":")[2].strip() or cpu
    gpus = ""
    if shutil.which("nvidia-smi"):
        fields = "--query-gpu=name,memory.total,driver_version"
        gpus = _ask("nvidia-smi", fields, "--format=csv,noheader") or ""
    return {"cpu": cpu, "gpus": gpus.splitlines()}


@functools.cache
def packages() -> dict[str, str]:
    """Versions of the packages that can change a number."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def sources() -> list[str]:
    """Files of the toolkit, its baselines and its plugins that this process has imported."""
    names = (name for name in list(sys.modules) if name.startswith((*OURS, PLUGIN)))
    ours = [name for name in names if name.partition(".")[0] in OURS or name.startswith(PLUGIN)]
    files = {getattr(sys.modules.get(name), "__file__", None) for name in ours}
    return sorted(file for file in files if file and _there(file))


@functools.cache
def _there(file: str) -> bool:
    return Path(file).is_file()


def _ask(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
