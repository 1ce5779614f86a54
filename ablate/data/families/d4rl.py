"""D4RL's locomotion files, where the user has them: `d4rl/hopper-medium-v2` and its relatives.

Looked for as D4RL does: $D4RL_DATASET_DIR (default ~/.d4rl/datasets) / hopper_medium-v2.hdf5.
"""

from __future__ import annotations

import os
from pathlib import Path

from ablate.data.catalogue import Anchors, DataSpec, Family
from ablate.data.formats.hdf5 import read_hdf5
from ablate.data.trajectories import Trajectories
from ablate.envs.locomotion import Locomotion
from ablate.errors import UserError, unknown
from ablate.registry import register
from ablate.streams import stream

# Returns that map to 0 and 100: d4rl/infos.py, REF_MIN_SCORE and REF_MAX_SCORE; one pair for v0,
# v1, v2.
REFERENCE = {
    "halfcheetah": (-280.178953, 12135.0),
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
}
KINDS = ("random", "medium", "medium-replay", "medium-expert", "expert")
HELD_OUT = 0.1  # of the episodes


@register("data", "d4rl")
class D4RL(Family):
    """Locomotion files (v2), a tenth of the episodes held out; evaluated in gymnasium's v4."""

    def resolve(self, member: str, name: str) -> DataSpec:
        if f"d4rl/{member}" not in self.names():
            raise unknown("data", name, self.names())
        task, _, rest = member.partition("-")
        kind = rest.removesuffix("-v2")
        low, high = REFERENCE[task]

        def generate() -> tuple[Trajectories, Trajectories]:
            return _split(read_hdf5(_path(task, kind), f"d4rl/{member}"))

        def make_env(num_envs: int) -> Locomotion:
            return Locomotion(num_envs, task)

        return DataSpec(
            name=f"d4rl/{member}",
            family="d4rl",
            recipe={"reader": 1, "file": member, "held_out": HELD_OUT, "seed": 0},
            generate=generate,
            make_env=make_env,
            anchors=lambda: Anchors(low, high, "D4RL's reference scores (d4rl/infos.py)"),
            cached=False,
        )

    def names(self) -> list[str]:
        return [f"d4rl/{task}-{kind}-v2" for task in REFERENCE for kind in KINDS]


def _path(task: str, kind: str) -> Path:
    folder = Path(os.environ.get("D4RL_DATASET_DIR") or Path.home() / ".d4rl" / "datasets")
    path = folder / f"{task}_{kind.replace('-', '_')}-v2.hdf5"
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such file; download D4RL's {path.name} into this folder, or set"
            " D4RL_DATASET_DIR to the folder that holds it."
        )
    return path


def _split(every: Trajectories) -> tuple[Trajectories, Trajectories]:
    """Training and held-out episodes, drawn by a stream of their own."""
    count = every.num_episodes
    if count < 2:
        raise UserError(f"{every.name}: {count} episode; at least 2 are needed to hold one out.")
    order = stream("data", 0, f"{every.name}/split").permutation(count)
    held = max(1, round(HELD_OUT * count))
    return every.select(sorted(order[held:].tolist())), every.select(sorted(order[:held].tolist()))
