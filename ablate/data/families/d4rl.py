"""D4RL's files, where the user has them: `d4rl/ID` for each of its 155 ids, e.g. `d4rl/hopper-medium-v2`.

A file is looked for where the d4rl package does, under the package's name for it: $D4RL_DATASET_DIR
(default ~/.d4rl/datasets) / hopper_medium-v2.hdf5. `ablate.data.fetch` brings it there.

Known habits of the files, and what is done about them (issues are of Farama-Foundation/D4RL):

- gym-mujoco. An unfinished piece at the end is left out. At step 1,000 there is a timeout and no
  terminal even where the robot also fell. HalfCheetah never terminates (#22). Version 0 has no
  timeouts: episodes without a terminal are cut after 1,000 steps. Replay files are float64, read as
  float32; not all of their timeouts are marked (#162), which is left as it is. Ant's 84 contact forces
  are 0 throughout (#143), in the file and in the environment here. Versions 0 and 1 have mistakes of
  their own (hopper-medium-expert-v0 is expert and replay, #19; version 1 swaps hopper's medium and
  expert, #86): use version 2.
- maze2d. One continuous recording; a "timeout" says that a navigation goal was reached (#85), and ends
  an episode here. Rewards were computed afterwards from the observation of the same row, one step
  before the environment's (#194). They are taken as they are in the file, as everybody's results are;
  `d4rl/maze2d-umaze-v1/aligned` moves them to where the environment gives them.
- antmaze. Every row near the goal is terminal and rewarded, although the recording goes on for a few
  (umaze-diverse: only one, #199), and version 0's timeouts don't fall on the ends of trajectories
  (#77). Here an episode ends at the first such row, as it does in the environment, so that its return
  is 0 or 1; the rows behind it are left out. Trajectories end at timeouts (version 2) and wherever the
  ant is suddenly elsewhere.
- adroit. The human demonstrations of version 0 flag a time limit at step 200 of demonstrations that
  go on; these timeouts end nothing (door-human-v0: 25 demonstrations, where the package's
  `sequence_dataset` gives 50 pieces; see `ablate.data.d4rl_views`).
- kitchen. Rewards count the subtasks that are done at that step; no environment to evaluate in here.

Evaluation: gymnasium's version 4 of the locomotion tasks (version 5 changed them), and
`ablate.envs.maze2d`, `antmaze` and `adroit`. minigrid, flow, carla, bullet and kitchen are data without a
simulator: trained on, and measured by prediction alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ablate.data import d4rl_index
from ablate.data.catalogue import Anchors, DataSpec, Family, Recorded
from ablate.data.d4rl_index import Entry
from ablate.data.formats.hdf5 import inspect_hdf5
from ablate.data.formats.rows import Timeouts
from ablate.data.reading import Reading
from ablate.data.split import HELD_OUT, hold_out
from ablate.data.trajectories import PER_EPISODE, Trajectories
from ablate.envs import locomotion
from ablate.envs.adroit import Adroit
from ablate.envs.antmaze import AntMaze
from ablate.envs.base import VectorEnv
from ablate.envs.locomotion import D4RLAnt, Locomotion
from ablate.envs.maze2d import Maze2D
from ablate.errors import UserError
from ablate.registry import register

ALIGNED = "/aligned"
FARTHEST = 2.0  # that an ant goes in a step of 0.1 s; a cell of its maze is 4 wide
UNAVAILABLE = {
    "kitchen": "gymnasium-robotics' FrankaKitchen shows other observations than D4RL's kitchen and"
    " doesn't start under MuJoCo 4",
    "minigrid": "D4RL's four rooms are an environment of its own package only",
    "flow": "it needs the traffic simulators Flow and SUMO",
    "carla": "it needs the driving simulator CARLA",
    "bullet": "it needs PyBullet and D4RL's own environments",
}


@register("data", "d4rl", label="D4RL")
class D4RL(Family):
    """Each of D4RL's files, a tenth of the episodes held out."""

    def resolve(self, member: str, name: str) -> DataSpec:
        aligned = member.endswith(ALIGNED) and member.startswith("maze2d-")
        entry = d4rl_index.entry(member.removesuffix(ALIGNED) if aligned else member)

        def generate() -> tuple[Trajectories, Trajectories]:
            return hold_out(read(entry, d4rl_index.folder(), aligned)[0])

        without = UNAVAILABLE.get(entry.suite)
        recipe = {"reader": 1, "file": entry.name, "held_out": HELD_OUT, "seed": 0}
        return DataSpec(
            name=f"d4rl/{member}",
            family="d4rl",
            recipe={**recipe, "rewards": "aligned"} if aligned else recipe,
            generate=generate,
            goal=(0, 1) if entry.suite in ("maze2d", "antmaze") else (),
            make_env=environment(entry),
            anchors=lambda: Anchors(entry.low, entry.high, _source(entry)),
            cached=False,
            recorded=None if without is None else lambda: recorded(entry, d4rl_index.folder()),
            lacking=None if without is None else lambda: f"{without}.",
        )

    def names(self) -> list[str]:
        return [f"d4rl/{name}" for name in d4rl_index.entries()]

    def coordinates(self, member: str) -> dict[str, list[int]]:
        entry = d4rl_index.entry(member.removesuffix(ALIGNED))
        if entry.suite == "maze2d":
            return {"position": [0, 1], "velocity": [2, 3]}
        return locomotion.coordinates(entry.task) if entry.suite == "gym-mujoco" else {}


@functools.cache
def recorded(entry: Entry, folder: Path) -> Recorded:
    """The sizes of a file's observations and actions, and its task's time limit."""
    every, _ = read(entry, folder)
    return Recorded(every.observations.shape[1], every.actions.shape[1], entry.horizon)


def read(entry: Entry, folder: Path, aligned: bool = False) -> tuple[Trajectories, list[str]]:
    """The episodes of a file in `folder`, and what was done about its habits, a sentence each.

    aligned: move maze2d's rewards to where its environment gives them. Raises UserError when there
    is no such file, and as `read_hdf5` does.
    """
    name = f"d4rl/{entry.name}{ALIGNED if aligned else ''}"
    path = folder / entry.file
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such file; fetch it with `python -m ablate data fetch"
            f" d4rl/{entry.name}`, or set D4RL_DATASET_DIR to the folder that holds it."
        )
    limits: Timeouts = "ends" if entry.suite == "antmaze" else "auto"
    reading = Reading(horizon=entry.horizon)
    found = inspect_hdf5(path, name, reading, timeouts=limits, published=True)
    every, notes = found.trajectories, list(found.notes)
    if entry.suite == "antmaze":
        every = until_goal(every, trust_timeouts=not entry.name.endswith("-v0"))
        notes.append("each trajectory ends at its first step within 0.5 of the goal")
    elif entry.suite == "maze2d":
        if aligned:
            # One continuous recording: the next row's reward is that of this row's outcome. What
            # follows the last row isn't known.
            every = replace(every, rewards=np.append(every.rewards[1:], every.rewards[-1:]))
            notes.append("rewards were moved by one step, to where the environment gives them")
        else:
            notes.append(
                "rewards are of the observation of the same row, one step before the environment's"
            )
    return every, notes


def until_goal(every: Trajectories, trust_timeouts: bool) -> Trajectories:
    """antmaze's trajectories, each up to the first row that reaches the goal.

    every: rows in the order of the recording, x and y first in the observation. A trajectory ends
    where the next row is more than FARTHEST away, and (trust_timeouts) at truncations.
    """
    place = every.observations[:, :2].astype(np.float64)
    ends = np.append(np.linalg.norm(np.diff(place, axis=0), axis=1) > FARTHEST, True)  # (T,)
    if trust_timeouts:
        ends |= every.truncations
    trajectory = np.cumsum(ends) - ends  # (T,) which one a row belongs to
    reached: np.ndarray = np.cumsum(every.terminations) - every.terminations  # (T,) before a row
    first = np.concatenate([[0], np.flatnonzero(ends)[:-1] + 1])  # row of each trajectory
    kept: np.ndarray = reached == reached[first][trajectory]  # the goal not yet
    arrays = {key: array[kept] for key, array in every.arrays.items() if key not in PER_EPISODE}
    last = ends[kept] | arrays["terminations"]
    arrays["truncations"] = last & ~arrays["terminations"]
    starts = np.concatenate([[0], np.flatnonzero(last) + 1])
    return Trajectories(name=every.name, **arrays, episode_starts=starts).validate()


def environment(entry: Entry) -> Callable[[int], VectorEnv]:
    """Makes the environment of a number of episodes; calling it raises UserError where there is none."""

    def make(num_envs: int) -> VectorEnv:
        task, horizon = entry.task, entry.horizon
        if entry.suite == "gym-mujoco":
            return D4RLAnt(num_envs) if task == "ant" else Locomotion(num_envs, task)
        if entry.suite == "maze2d":
            maze = task.removesuffix("-dense")
            return Maze2D(num_envs, maze, horizon, dense=maze != task)
        if entry.suite == "antmaze":
            return AntMaze(num_envs, task, horizon)
        if entry.suite == "adroit":
            return Adroit(num_envs, task, horizon)
        raise UserError(
            f"d4rl/{entry.name}: there is no environment to evaluate in:"
            f" {UNAVAILABLE[entry.suite]}. Its data can be read."
        )

    return make


def _source(entry: Entry) -> str:
    if entry.scores_from == "infos":
        return "D4RL's reference scores (d4rl/infos.py)"
    return "scores with which the d4rl package registers the environment (not in d4rl/infos.py)"
