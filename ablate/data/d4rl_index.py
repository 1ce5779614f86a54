"""The index of D4RL's 155 data sets: where each file lies, its task, time limit and reference scores.

The table is `d4rl_index.csv`, one row a data set. Sources:

- ids, addresses and 147 pairs of reference scores: d4rl 1.1, `d4rl/infos.py`. The other eight (the
  six maze2d-eval ones, ant-random-expert-v0, carla-town-full-v0) are scored by the package where an
  environment is registered (`ref_min_score`, `ref_max_score`), not by `d4rl.get_normalized_score`;
  their column `scores_from` says `registration`. Those of maze2d-eval-large-dense-v1 are the
  package's, although its minimum is that of maze2d-eval-umaze-dense-v1: taken over by mistake there.
  Those of maze2d-open-v0 and -dense-v0 don't fit its environment, in which random actions get 9 and
  38 (score 43 and 166).
- time limits (`horizon`): the `max_episode_steps` of the same registrations.
- sizes and sha256, where published: TensorFlow Datasets, `d4rl/*/checksums.tsv` (97 files).
"""

from __future__ import annotations

import csv
import difflib
import functools
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ablate.errors import UserError

BASE = "http://rail.eecs.berkeley.edu/datasets/offline_rl/"


@dataclass(frozen=True)
class Entry:
    """One of D4RL's data sets.

    Attributes:
        name: its id, e.g. `hopper-medium-v2`.
        suite: gym-mujoco, maze2d, antmaze, adroit, kitchen, minigrid, flow, carla or bullet.
        task: the task within it, e.g. `hopper`, `eval-umaze-dense`, `door`.
        horizon: time limit of its environment in steps.
        path: of its file below BASE.
        low, high: returns that map to normalised scores 0 and 100.
        scores_from: `infos` or `registration`, where in the d4rl package the two come from.
        size, sha256: of its file, in bytes and hex digits; None where not published.
    """

    name: str
    suite: str
    task: str
    horizon: int
    path: str
    low: float
    high: float
    scores_from: str
    size: int | None
    sha256: str | None

    @property
    def url(self) -> str:
        return BASE + self.path

    @property
    def file(self) -> str:
        """The file's name in the data folder, the one that the d4rl package gives it."""
        return self.path.rpartition("/")[2]


@functools.cache
def entries() -> dict[str, Entry]:
    """All 155 by id, in the order of the table."""
    text = resources.files("ablate.data").joinpath("d4rl_index.csv").read_text("utf-8")
    return {
        row["name"]: Entry(
            name=row["name"],
            suite=row["suite"],
            task=row["task"],
            horizon=int(row["horizon"]),
            path=row["path"],
            low=float(row["ref_min"]),
            high=float(row["ref_max"]),
            scores_from=row["scores_from"],
            size=int(row["bytes"]) if row["bytes"] else None,
            sha256=row["sha256"] or None,
        )
        for row in csv.DictReader(text.splitlines())
    }


def entry(name: str, where: str = "data") -> Entry:
    """The entry of an id, `d4rl/` in front of it or not.

    Raises UserError with the nearest known id; `where` says where the id stood.
    """
    bare = name.removeprefix("d4rl/")
    if bare not in entries():
        near = difflib.get_close_matches(bare, entries(), n=1, cutoff=0.4)
        hint = f" Did you mean 'd4rl/{near[0]}'?" if near else ""
        raise UserError(
            f"{where}: 'd4rl/{bare}' is not known; allowed: the {len(entries())} ids of D4RL, e.g."
            f" d4rl/hopper-medium-v2.{hint}"
        )
    return entries()[bare]


def folder() -> Path:
    """$D4RL_DATASET_DIR, else ~/.d4rl/datasets: where the d4rl package keeps its files."""
    return Path(os.environ.get("D4RL_DATASET_DIR") or Path.home() / ".d4rl" / "datasets")


def normalised_score(name: str, returns: Any) -> Any:
    """100 * (returns - low) / (high - low), of a number or an array.

    In per cent, as papers give it; `d4rl.get_normalized_score` gives the fraction. Raises UserError
    when the id isn't known.
    """
    known = entry(name)
    return 100.0 * (returns - known.low) / (known.high - known.low)
