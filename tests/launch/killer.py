"""Kills a study again and again and lets it go on; a process of its own, which has loaded everything once.

`python killer.py FOLDER SEED STUDIES KILLS COMMANDS`. Each study runs once as a whole, then in another folder: it is
killed KILLS times, by SIGKILL of its process group, just before a random write of a file or after a random time; and
COMMANDS times as `python -m ablate run` with two workers, at any moment from the first on. Then it runs to its end.
Prints one line of JSON a study.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tiny_study import inline  # noqa: E402

from ablate import cli, registry  # noqa: E402

WRITES = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.copyfile")
TEXT = """\
study: tiny
question: Does memory help?
factors:
  mixer: [{mixer}]
  context: [{contexts}]
  condition: [none]
  history: [states+actions]
data: [tmaze/passive-3]
designs:
  core: {{data: tmaze/passive-3, context: all}}
model: {{parameters: 4000, tolerance: 0.1}}
train: {{updates: 4, targets_per_update: 8, warmup: 1, points: 2, checkpoints: [{checkpoints}]}}
measure: {{rollout: {{episodes: 2}}{more}}}
seeds: {seeds}
"""


def study(rng: random.Random) -> str:
    """A study of a second or two."""
    return TEXT.format(
        mixer=rng.choice(["mlp", "gru", "lstm", "bag"]),
        contexts=rng.choice(["1", "1, 2"]),
        checkpoints=rng.choice(["", "2"]),
        more=rng.choice(["", ", held-out: {}"]),
        seeds=rng.choice([2, 3]),
    )


def child(folder: Path, at: int = 0, note: Path | None = None) -> int:
    """The number of a fork that runs the study and leads a process group of its own; see `writes`."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    writes(folder, at, note)
    os._exit(run(folder))


def run(folder: Path) -> int:
    """The study in this process, its cohorts too; the exit code."""
    os.chdir(folder)
    try:
        cli.main(["run", "tiny.yaml", "--launcher", "inline", "--results", str(folder / "results")])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def ended(pid: int) -> int:
    """The exit code of a child; minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def writes(folder: Path, at: int, note: Path | None) -> None:
    """Die before this process writes for the `at`-th time below a folder; note how often it does."""
    root, seen = str(folder / "results"), 0
    handle = os.open(note, os.O_CREAT | os.O_TRUNC | os.O_WRONLY) if note is not None else -1

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event not in WRITES or root not in str(arguments[0]):
            return
        if event == "open" and not set(str(arguments[1] or "w")) & set("wax+"):
            return
        seen += 1
        if seen == at:
            os.killpg(0, signal.SIGKILL)
        if note is not None:
            os.pwrite(handle, str(seen).encode(), 0)

    sys.addaudithook(hook)


def tables(folder: Path) -> dict[str, str]:
    """What the study came to, without the moment at which it was registered."""
    root = folder / "results" / "tiny"
    found = {path.name: path.read_text() for path in sorted(root.glob("*.csv"))}
    found["audit.json"] = (root / "audit.json").read_text()
    registered = json.loads((root / "study.json").read_text())
    del registered["hash"]
    return found | {"study.json": json.dumps(undated(registered))}


def undated(found: Any) -> Any:
    """What was registered, at any depth, without when."""
    if isinstance(found, list):
        return [undated(each) for each in found]
    if isinstance(found, dict):
        return {name: undated(each) for name, each in found.items() if name != "registered"}
    return found


def main(folder: Path, seed: int, studies: int, kills: int, commands: int) -> None:
    """See above."""
    registry.register("launcher", "inline")(inline)
    rng = random.Random(seed)
    for number in range(studies):
        whole, cut = folder / f"whole-{number}", folder / f"cut-{number}"
        text = study(rng)
        for place in (whole, cut):
            place.mkdir(parents=True)
            (place / "tiny.yaml").write_text(text)
        if number == 0:  # here, so that every fork has loaded what it takes
            assert run(whole) == 0
            shutil.rmtree(whole / "results")
        began = time.monotonic()
        assert ended(child(whole, note=folder / "count")) == 0
        seconds, count = time.monotonic() - began, int((folder / "count").read_text())
        done = 0
        while done < kills:
            if (
                rng.random() < 0.7
            ):  # as often before one of the first ten writes as of the last hundred
                code = ended(child(cut, at=round(count ** rng.random())))
            else:
                pid = child(cut)
                time.sleep(seconds * rng.random())
                os.kill(pid, signal.SIGKILL)
                code = ended(pid)
            assert code in (0, -signal.SIGKILL), code
            if code == 0:  # it came to its end: begin again
                assert tables(cut) == tables(whole)
                shutil.rmtree(cut / "results")
            else:
                done += 1
        for _ in range(commands):
            process = subprocess.Popen(
                [sys.executable, "-m", "ablate", "run", "tiny.yaml", "--workers", "2"],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                cwd=cut,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            time.sleep(rng.random() * 20)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        code = ended(child(cut))
        same = code == 0 and tables(cut) == tables(whole)
        print(json.dumps({"kills": kills + commands, "code": code, "same": same}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
