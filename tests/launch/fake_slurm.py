"""A SLURM of files, for tests where there is none: `sbatch`, `squeue`, `scontrol`, `sinfo`, `srun` and `scancel`.

Each is this program under another name, first on PATH; its jobs lie in the folder $FAKE_SLURM. An array runs at most
as many tasks at once as its cap says.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(os.environ["FAKE_SLURM"])
PARTITIONS = """\
PartitionName=work Default=YES MaxTime=02:00:00 State=UP
PartitionName=night Default=NO MaxTime=1-12:00:00 State=DOWN
"""


def install(folder: Path) -> None:
    """Put the commands into a folder."""
    folder.mkdir()
    for name in ("sbatch", "srun", "squeue", "scontrol", "sinfo", "scancel"):
        (folder / name).write_text(
            f'#!/bin/sh\nexec {sys.executable} -S {Path(__file__)} {name} "$@"\n'
        )
        (folder / name).chmod(0o755)


def write(task: str, **about) -> None:
    path = HOME / f"{task}.task"
    known = json.loads(path.read_text()) if path.exists() else {}
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps({**known, **about}))
    temporary.rename(path)


def tasks() -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(HOME.glob("*.task"))}


def sbatch(script: str) -> None:
    """Note the job and start it in the background."""
    number = 100 + len(list(HOME.glob("*.sh")))
    text = Path(script).read_text()
    (HOME / f"{number}.sh").write_text(text)
    name = re.search(r"--job-name=(\S+)", text).group(1)
    found = re.search(r"--array=0-(\d+)%(\d+)", text)
    names = [f"{number}_{i}" for i in range(int(found[1]) + 1)] if found else [str(number)]
    for task in names:
        write(task, name=name, state="PENDING")
    cap = found[2] if found else "1"
    if not (HOME / "hold").exists():
        subprocess.Popen(
            [sys.executable, __file__, "daemon", str(number), cap, *names],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    print(f"Submitted batch job {number}")


def daemon(number: str, cap: str, *names: str) -> None:
    """Run the tasks of a job."""
    waiting, running = list(names), {}
    while waiting or running:
        while waiting and len(running) < int(cap):
            task = waiting.pop(0)
            if tasks()[task]["state"] != "PENDING":
                continue
            about = {"SLURM_JOB_ID": number, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
            if "_" in task:
                about |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": task.split("_")[1]}
            made = subprocess.Popen(
                ["bash", str(HOME / f"{number}.sh")],
                env={**os.environ, **about, "FAKE_TASK": task},
                start_new_session=True,
            )
            running[task] = made
            write(task, state="RUNNING", pid=made.pid)
        for task, made in list(running.items()):
            if made.poll() is not None:
                del running[task]
                if tasks()[task]["state"] == "RUNNING":
                    write(task, state="FAILED" if made.returncode else "COMPLETED")
        time.sleep(0.02)


def srun(*words: str) -> None:
    """Run what follows the options, its output where they say."""
    words = list(words)
    output = words[words.index("--output") + 1]
    task = os.environ["FAKE_TASK"]
    output = output.replace("%A_%a", task).replace("%j", task).replace("%t", "0")
    with open(output, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    command = words[words.index("--output") + 2 :]
    os.execvp(command[0], command)


def squeue(*words: str) -> None:
    if (HOME / "away").exists():
        sys.exit("slurm_load_jobs error: Unable to contact slurm controller")
    wanted = words[words.index("-n") + 1].split(",")
    form = words[words.index("-o") + 1]
    for task, about in tasks().items():
        if about["name"] in wanted and about["state"] in ("PENDING", "RUNNING"):
            print(form.replace("%i", task).replace("%T", about["state"]))


def scontrol(*words: str) -> None:
    if "partition" in words:
        print(PARTITIONS, end="")
    elif "config" in words:
        print("MaxArraySize            = 5")
    else:
        print(f"JobId={words[-1]} JobState={tasks()[words[-1]]['state']} Reason=None")


def sinfo(*words: str) -> None:
    print("64+|256000|gpu:a100:4(S:0-1)\n8|16000|(null)")


def scancel(*numbers: str) -> None:
    for task, about in tasks().items():
        if task.partition("_")[0] in numbers and about["state"] in ("PENDING", "RUNNING"):
            write(task, state="CANCELLED")
            with contextlib.suppress(KeyError, ProcessLookupError):
                os.killpg(about["pid"], signal.SIGKILL)


if __name__ == "__main__":
    with open(HOME / "calls", "a") as calls:
        calls.write(shlex.join(sys.argv[1:]) + "\n")
    globals()[sys.argv[1]](*sys.argv[2:])
