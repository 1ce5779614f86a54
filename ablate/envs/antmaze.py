"""D4RL's antmaze: an ant in a maze, rewarded once, where a goal is that it isn't shown.

Made of gymnasium's ant with the numbers of D4RL's (`d4rl/locomotion/assets/ant.xml`, `ant.py`,
`maze_env.py`). gymnasium-robotics' AntMaze is another task: its ant is five times as strong and steps
half as long, its origin is the maze's centre and its y grows the other way. Here:

- The observation is [x, y], the rest of qpos (height, orientation, 8 joints) and qvel: 29 numbers. The
  origin is the centre of the start's cell; x grows with the column and y with the row, 4 a cell.
- The episode starts there, all of qpos +- U(0.1), qvel from N(0, 0.1^2). The goal is drawn anew for
  each episode, as in D4RL's v2 (in v0 once for all of them): its cell's centre plus U(0, 1) plus
  U(0, 0.5) in both coordinates.
- Actions in [-1, 1] are torques of up to 30; a step is 0.1 s. A fallen ant may go on.
- Within 0.5 of the goal the reward is 1 and the episode terminates; else 0.
"""

from __future__ import annotations

import functools
import xml.etree.ElementTree as ET
from importlib import resources

import mujoco
import mujoco.rollout
import numpy as np

from ablate.envs.base import Floats, Info, SimulatedEnv, episode_rng
from ablate.envs.gymnasium_env import quiet_mujoco
from ablate.errors import unknown

# d4rl/locomotion/maze_env.py: *_MAZE_TEST; R is the start, G the goal.
MAZES = {
    "umaze": "##### #ROO# ###O# #GOO# #####",
    "medium": "######## #RO##OO# #OO#OOO# ##OOO### #OO#OOO# #O#OO#O# #OOO#OG# ########",
    "large": (
        "############ #ROOO#OOOOO# #O##O#O#O#O# #OOOOOO#OOO# #O####O###O# #OO#O#OOOOO#"
        " ##O#O#O#O### #OO#OOO#OGO# ############"
    ),
}
CELL = 4.0
GOAL_RADIUS = 0.5
WALL_HEIGHT = 2.0
SUBSTEPS = 5  # of 0.02 s
TORQUE = 30.0
_TAG = 0xA7


class AntMaze(SimulatedEnv):
    """B episodes in one of MAZES, all of them advanced by one call a step."""

    per_place = ("_state", "goal", "_success")

    def __init__(self, num_envs: int, maze: str, horizon: int) -> None:
        if maze not in MAZES:
            raise unknown("AntMaze: maze", maze, MAZES)
        super().__init__(num_envs, observation_dim=29, action_dim=8, horizon=horizon)
        self.maze = maze
        self._model = _model(maze)
        self._data = mujoco.MjData(self._model)
        self._rollout = mujoco.rollout.Rollout(nthread=0)  # in the calling thread

    def _start(self, seeds: list[int]) -> np.ndarray:
        positions, goals = self._model.nq, []
        rows = []
        for seed in seeds:
            rng = episode_rng(seed, _TAG)
            qpos = self._model.qpos0 + rng.uniform(-0.1, 0.1, size=positions)
            qpos[3:7] /= np.linalg.norm(qpos[3:7])  # MuJoCo up to 2.1 did so by itself
            rows.append(np.concatenate([qpos, 0.1 * rng.standard_normal(self._model.nv)]))
            goals.append(_place(self.maze, "G") + rng.uniform(0, 1, 2) + rng.uniform(0, 0.5, 2))
        self._state = np.stack(rows)  # (B, 29) float64
        self.goal = np.stack(goals)  # (B, 2)
        self._success = np.zeros(self.num_envs, dtype=bool)
        return self._state

    def goals(self) -> Floats:
        return self.goal.astype(np.float32)

    def _advance(
        self, actions: np.ndarray, alive: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Info]:
        self._state = np.where(alive[:, None], self.physics(self._state, actions), self._state)
        distance = np.linalg.norm(self._state[:, :2] - self.goal, axis=1)
        reached = distance <= GOAL_RADIUS
        self._success |= reached
        return self._state, reached.astype(np.float64), reached, {"success": self._success.copy()}

    def physics(self, state: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """One step of B ants: states (B, 29) of qpos and qvel, actions (B, 8)."""
        before = np.concatenate([np.zeros((len(state), 1)), state], axis=1)
        control = np.repeat(np.clip(actions, -1.0, 1.0)[:, None], SUBSTEPS, axis=1)
        with quiet_mujoco():
            after, _ = self._rollout.rollout(self._model, self._data, before, control)
        return after[:, -1, 1:].copy()

    def mujoco_model(self) -> mujoco.MjModel:
        return self._model

    def simulator_state(self) -> np.ndarray:
        return self._state.copy()


def _place(maze: str, kind: str) -> np.ndarray:
    """Centre (x, y) of the cell marked `kind`, the start's cell being the origin."""
    rows = MAZES[maze].split()
    (where,) = (
        (j, i) for i, row in enumerate(rows) for j, found in enumerate(row) if found == kind
    )
    start = (1, 1)  # of every maze
    return CELL * (np.array(where, dtype=np.float64) - start)


@functools.cache
def _model(maze: str) -> mujoco.MjModel:
    """gymnasium's ant with D4RL's time step, torques and contacts, and the walls."""
    assets = resources.files("gymnasium.envs.mujoco").joinpath("assets")
    root = ET.fromstring(assets.joinpath("ant.xml").read_text("utf-8"))
    for element, changes in {
        "option": {"timestep": "0.02"},
        "default/geom": {"solref": ".02 1", "solimp": ".8 .8 .01"},
    }.items():
        found = root.find(element)
        assert found is not None
        found.attrib.update(changes)
    for motor in root.iterfind("actuator/motor"):
        motor.set("gear", str(TORQUE))
    world = root.find("worldbody")
    assert world is not None
    for i, row in enumerate(MAZES[maze].split()):
        for j, kind in enumerate(row):
            if kind == "#":
                wall = {
                    "type": "box",
                    "pos": f"{CELL * (j - 1)} {CELL * (i - 1)} {WALL_HEIGHT / 2}",
                    "size": f"{CELL / 2} {CELL / 2} {WALL_HEIGHT / 2}",
                }
                ET.SubElement(world, "geom", {**wall, "contype": "1", "conaffinity": "1"})
    with quiet_mujoco():
        return mujoco.MjModel.from_xml_string(ET.tostring(root, encoding="unicode"))
