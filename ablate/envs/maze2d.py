"""D4RL's maze2d: a ball in a maze that is to reach, and stay at, a fixed goal it isn't shown.

As `d4rl/pointmaze/maze_model.py` has it, whose coordinates are the data's: x is the row and y the
column of the maze, the goal lies at whole numbers, and the ball's body stands at (1.2, 1.2) while
the maze's cells are centred on whole numbers plus 1, so that the ball is in the middle of cell (i, j)
at (i - 0.2, j - 0.2). Unlike `ablate.envs.pointmaze`, whose task has a new, visible goal each
episode, this one is for the files `d4rl/maze2d-*`:

- The observation is [x, y, vx, vy]. The episode starts within 0.1 of the coordinates of a random
  free cell (or the goal's), the velocity from N(0, 0.1^2).
- Actions are clipped to [-1, 1], velocities to [-5, 5] before each step of 0.01 s.
- Reward after each step, sparse: 1 within 0.5 of the goal, else 0; dense: exp(-distance). Never
  terminates; truncated at D4RL's limits. `success` is "ever within 0.5".
"""

from __future__ import annotations

import functools
import xml.etree.ElementTree as ET

import mujoco
import mujoco.rollout
import numpy as np

from ablate.envs.base import Floats, Info, SimulatedEnv, episode_rng
from ablate.envs.gymnasium_env import quiet_mujoco
from ablate.errors import unknown

# d4rl/pointmaze/maze_model.py, rows of the maze; G is the goal.
MAZES = {
    "open": "####### #OOOOO# #OOGOO# #OOOOO# #######",
    "umaze": "##### #GOO# ###O# #OOO# #####",
    "medium": "######## #OO##OO# #OO#OOO# ##OOO### #OO#OOO# #O#OO#O# #OOO#OG# ########",
    "large": (
        "############ #OOOO#OOOOO# #O##O#O#O#O# #OOOOOO#OOO# #O####O###O# #OO#O#OOOOO#"
        " ##O#O#O#O### #OO#OOO#OGO# ############"
    ),
    "eval-umaze": "##### #OOG# #O### #OOO# #####",
    "eval-medium": "######## #OOOOOG# #O#O##O# #OOOO#O# ###OO### #OOOOOO# #OO##OO# ########",
    "eval-large": (
        "############ #OO#OOO#OGO# ##O###O#O#O# #OO#O#OOOOO# #O##O#OO##O# #OOOOOO#OOO#"
        " #O##O#O#O### #OOOO#OOOOO# ############"
    ),
}
GOAL_RADIUS = 0.5
MAX_VELOCITY = 5.0
POSITION_NOISE = 0.1
VELOCITY_NOISE = 0.1
TIME_STEP = 0.01
_BODY = 1.2  # where the ball's body stands, in both coordinates
_TAG = 0xD2


class Maze2D(SimulatedEnv):
    """B episodes in one of MAZES, all of them advanced by one call a step."""

    per_place = ("_state", "_success")

    def __init__(self, num_envs: int, maze: str, horizon: int, dense: bool = False) -> None:
        if maze not in MAZES:
            raise unknown("Maze2D: maze", maze, MAZES)
        super().__init__(num_envs, observation_dim=4, action_dim=2, horizon=horizon)
        self.maze, self.dense = maze, dense
        self.goal = goal_of(maze)
        self.starts = free_cells(maze)
        self._model = _model(maze)
        self._data = mujoco.MjData(self._model)
        self._rollout = mujoco.rollout.Rollout(nthread=0)  # in the calling thread

    def _start(self, seeds: list[int]) -> np.ndarray:
        rows = []
        for seed in seeds:
            rng = episode_rng(seed, _TAG)
            cell = self.starts[rng.integers(len(self.starts))]
            position = cell + rng.uniform(-POSITION_NOISE, POSITION_NOISE, size=2)
            rows.append(np.concatenate([position, VELOCITY_NOISE * rng.standard_normal(2)]))
        self._state = np.stack(rows)  # (B, 4) float64
        self._success = np.zeros(self.num_envs, dtype=bool)
        return self._state

    def goals(self) -> Floats:
        return np.tile(self.goal, (self.num_envs, 1)).astype(np.float32)

    def _advance(
        self, actions: np.ndarray, alive: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Info]:
        self._state = self.physics(self._state, actions)
        distance = np.linalg.norm(self._state[:, :2] - self.goal, axis=1)
        near = distance <= GOAL_RADIUS
        self._success |= near & alive
        rewards = np.exp(-distance) if self.dense else near.astype(np.float64)
        done = np.zeros(self.num_envs, dtype=bool)
        return self._state, rewards, done, {"success": self._success.copy()}

    def physics(self, state: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """One step of B balls: states (B, 4) of positions and velocities, actions (B, 2)."""
        velocity = np.clip(state[:, 2:], -MAX_VELOCITY, MAX_VELOCITY)
        before = np.concatenate([np.zeros((len(state), 1)), state[:, :2], velocity], axis=1)
        control = np.ascontiguousarray(np.clip(actions, -1.0, 1.0)[:, None])  # (B, 1, 2)
        after, _ = self._rollout.rollout(self._model, self._data, before, control)
        return after[:, 0, 1:].copy()

    def mujoco_model(self) -> mujoco.MjModel:
        return self._model

    def simulator_state(self) -> np.ndarray:
        return self._state.copy()


def free_cells(maze: str) -> np.ndarray:
    """Coordinates (x, y) of the free cells and, last, of the goal's: (C, 2) float64."""
    cells = [(i, j) for i, j, kind in _cells(maze) if kind == "O"]
    return np.array([*cells, goal_of(maze)], dtype=np.float64)


def goal_of(maze: str) -> np.ndarray:
    """(2,) float64."""
    return np.array(next((i, j) for i, j, kind in _cells(maze) if kind == "G"), dtype=np.float64)


def _cells(maze: str) -> list[tuple[int, int, str]]:
    rows = MAZES[maze].split()
    return [(i, j, kind) for i, row in enumerate(rows) for j, kind in enumerate(row)]


@functools.cache
def _model(maze: str) -> mujoco.MjModel:
    """The ball and the walls, with the numbers of D4RL's model."""
    root = ET.Element("mujoco")
    option = {"timestep": str(TIME_STEP), "gravity": "0 0 0", "iterations": "20"}
    ET.SubElement(root, "option", {**option, "integrator": "Euler"})
    default = ET.SubElement(root, "default")
    ET.SubElement(default, "joint", damping="1", limited="false")
    shape = {"density": "1000", "margin": "0.002", "condim": "1", "friction": ".5 .1 .1"}
    ET.SubElement(default, "geom", {**shape, "contype": "2", "conaffinity": "1"})
    world = ET.SubElement(root, "worldbody")
    ball = ET.SubElement(world, "body", pos=f"{_BODY} {_BODY} 0")
    ET.SubElement(ball, "geom", type="sphere", size="0.1", contype="1")
    for name, axis in (("x", "1 0 0"), ("y", "0 1 0")):
        ET.SubElement(ball, "joint", name=name, type="slide", axis=axis)
    for i, j, kind in _cells(maze):
        if kind == "#":
            ET.SubElement(world, "geom", type="box", pos=f"{i + 1} {j + 1} 0", size="0.5 0.5 0.2")
    actuator = ET.SubElement(root, "actuator")
    for name in ("x", "y"):
        ET.SubElement(actuator, "motor", joint=name, ctrlrange="-1 1", gear="100")
    with quiet_mujoco():
        return mujoco.MjModel.from_xml_string(ET.tostring(root, encoding="unicode"))
