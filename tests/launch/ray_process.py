"""A parent with a Ray cluster of its own, which the tests stop from outside: FOLDER WHAT JOBS."""

import sys
from pathlib import Path

from ablate.launch.base import Job, Place, Stopped
from ablate.launch.ray import OnRay, Settings

if __name__ == "__main__":
    folder, what, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    jobs = [Job(str(i), (str(folder), i, what)) for i in range(size)]
    launcher = OnRay(Settings(), Place("study", folder / "runs"))
    try:
        launcher(jobs, "pool_work.work", 2, lambda event: None)
    except Stopped as stopped:
        print(f"stopped {stopped.signum}", flush=True)
