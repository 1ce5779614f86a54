"""Point mazes: MuJoCo's ball in the mazes of D4RL, all episodes advanced by one call a step.

The physics is that of gymnasium-robotics' PointMaze (v3): its `point.xml` with one box a wall cell,
time step 0.01, frame skip 1, joint damping 1, actions clipped to [-1, 1], and velocities clipped to
[-5, 5] before each step. Coordinates are gymnasium-robotics' too: the maze's centre is the origin,
one cell is one unit, x grows with the column and y falls with the row.

The task is D4RL's, with these choices:
- The observation is [x, y, vx, vy, goal_x, goal_y]. D4RL shows the first four only; the goal is
  shown here, as users of Minari's sets do by appending `desired_goal`, so that state and goal are
  Markov.
- Start and goal are the centres of two different free cells, each +- U(0.1), the start's velocity
  is N(0, 0.1^2): D4RL's reset with gymnasium-robotics' rule that the goal isn't where the ball is.
- Reward 1 at each step that ends within 0.5 of the goal (D4RL; gymnasium-robotics has 0.45), else
  0. Never terminates; truncated at D4RL's v0 limits, but in umaze after 200 steps (150).
  `success` is "ever reached".

A hidden physical parameter, where it is asked for: the strength of the motors, drawn for each episode
from 1 +- U(spread) and shown nowhere. But for the walls and the slight damping, it is the inverse of
the ball's mass.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import xml.etree.ElementTree as ET
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import mujoco
import mujoco.rollout
import numpy as np

from ablate.envs.base import Floats, Info, SimulatedEnv, episode_rng
from ablate.errors import UserError, unknown

# D4RL's maps (d4rl/pointmaze/maze_model.py); the fixed goal cell G is a free cell here.
MAZES = {
    "umaze": "##### #OOO# ###O# #OOO# #####",
    "medium": "######## #OO##OO# #OO#OOO# ##OOO### #OO#OOO# #O#OO#O# #OOO#OO# ########",
    "large": (
        "############ #OOOO#OOOOO# #O##O#O#O#O# #OOOOOO#OOO# #O####O###O# #OO#O#OOOOO#"
        " ##O#O#O#O### #OO#OOO#OOO# ############"
    ),
    "open": "####### #OOOOO# #OOOOO# #OOOOO# #######",
}
HORIZONS = {"umaze": 200, "medium": 250, "large": 600, "open": 150}
GOAL_RADIUS = 0.5
POSITION_NOISE = 0.1
VELOCITY_NOISE = 0.1
MAX_VELOCITY = 5.0
POSITIONS, VELOCITIES = [0, 1], [2, 3]  # coordinates of the observation
_TAG = 0x90
_STRENGTH_TAG = 0x91


class BallEnv(SimulatedEnv):
    """What the environments with a ball share: its state, its physics and its motors' strength.

    Attributes:
        strength: (B,) of this batch of episodes, 1 where the physics isn't hidden.
    """

    per_place: ClassVar[tuple[str, ...]] = ("_position", "_velocity", "strength")
    _goal: np.ndarray  # (B, 2) in tasks that have one

    def __init__(
        self, num_envs: int, maze: str, observation_dim: int, horizon: int, spread: float
    ) -> None:
        super().__init__(num_envs, observation_dim, action_dim=2, horizon=horizon)
        if not 0.0 <= spread < 1.0:
            raise UserError(
                f"{type(self).__name__}: the spread of the motors' strength is {spread}; at least 0"
                " and less than 1 is needed."
            )
        self.cells = free_cells(maze)
        self.spread = spread
        self.strength = np.ones(num_envs)
        self._ball = Ball(maze)

    def mujoco_model(self) -> mujoco.MjModel:
        return self._ball.model

    def simulator_state(self) -> np.ndarray:
        return np.concatenate([self._position, self._velocity], axis=1)

    def _lay_simulator_state(self, states: np.ndarray, goals: np.ndarray | None) -> np.ndarray:
        self._position, self._velocity = states[:, :2], states[:, 2:]
        if goals is not None:
            self._goal = np.array(goals, dtype=np.float64)
        return self._observe()

    def placed(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """See `VectorEnv.placed`."""
        goals = observations[..., 4:]
        return observations[..., :4].astype(np.float64), goals if goals.shape[-1] else None

    @abstractmethod
    def _observe(self) -> np.ndarray:
        """What is seen, (B, N)."""

    def impossible(self, observations: np.ndarray) -> np.ndarray:
        """Where the ball's centre lies in no free cell."""
        apart = np.abs(observations[..., None, :2] - self.cells)  # (..., C, 2)
        inside: np.ndarray = (apart.max(-1) <= 0.5).any(-1)
        return ~inside

    def _place(self, seeds: list[int], position: np.ndarray, velocity: np.ndarray) -> None:
        """Put the balls at (B, 2) with velocities (B, 2), and draw their motors' strength."""
        self._position, self._velocity = position, velocity
        if self.spread:
            draws = [episode_rng(seed, _STRENGTH_TAG).uniform(-1.0, 1.0) for seed in seeds]
            self.strength = 1.0 + self.spread * np.array(draws)

    def _move(self, actions: np.ndarray) -> None:
        """Advance the balls by one step of actions (B, 2) in [-1, 1]."""
        strength = self.strength if self.spread else None
        self._position, self._velocity = self._ball.step(
            self._position, self._velocity, actions, strength
        )


class PointMaze(BallEnv):
    """B episodes in one of MAZES. spread: of the hidden strength of the motors, in [0, 1)."""

    per_place = (*BallEnv.per_place, "_goal", "_success")

    def __init__(self, num_envs: int, maze: str = "umaze", spread: float = 0.0) -> None:
        if maze not in MAZES:
            raise unknown("PointMaze: maze", maze, MAZES)
        super().__init__(num_envs, maze, observation_dim=6, horizon=HORIZONS[maze], spread=spread)
        self.maze = maze

    def _start(self, seeds: list[int]) -> np.ndarray:
        position, velocity, goal = [], [], []
        for seed in seeds:
            rng = episode_rng(seed, _TAG)
            start, end = rng.choice(len(self.cells), size=2, replace=False)
            position.append(
                self.cells[start] + rng.uniform(-POSITION_NOISE, POSITION_NOISE, size=2)
            )
            goal.append(self.cells[end] + rng.uniform(-POSITION_NOISE, POSITION_NOISE, size=2))
            velocity.append(VELOCITY_NOISE * rng.standard_normal(2))
        self._place(seeds, np.array(position), np.array(velocity))
        self._goal = np.array(goal)
        self._success = np.zeros(self.num_envs, dtype=bool)
        return self._observe()

    def goals(self) -> Floats:
        return self._goal.astype(np.float32)

    def _advance(
        self, actions: np.ndarray, alive: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Info]:
        self._move(actions)
        reached = np.linalg.norm(self._position - self._goal, axis=1) <= GOAL_RADIUS
        self._success |= reached
        done = np.zeros(self.num_envs, dtype=bool)
        return self._observe(), reached.astype(np.float64), done, {"success": self._success.copy()}

    def _observe(self) -> np.ndarray:
        return np.concatenate([self._position, self._velocity, self._goal], axis=1)


class Ball:
    """The physics of the ball in a maze: (B, 2) positions, velocities and actions at once.

    maze: a name of MAZES, or a map's own text.
    """

    def __init__(self, maze: str) -> None:
        self.model = _model(maze)
        # Here a motor's force is its gear times whatever it is told; `step` keeps actions in bounds.
        self._unlimited = copy.copy(self.model)
        self._unlimited.actuator_ctrllimited[:] = 0
        self._data = mujoco.MjData(self.model)
        self._rollout = mujoco.rollout.Rollout(nthread=0)  # in the calling thread

    def step(
        self,
        position: np.ndarray,
        velocity: np.ndarray,
        actions: np.ndarray,
        strength: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """One step of 0.01 seconds; returns positions and velocities (B, 2) float64.

        strength: (B,) factors of the motors' force.
        """
        velocity = np.clip(velocity, -MAX_VELOCITY, MAX_VELOCITY)
        time = np.zeros((len(position), 1))
        state = np.concatenate([time, position, velocity], axis=1)  # (B, 5)
        control = np.ascontiguousarray(np.clip(actions, -1.0, 1.0)[:, None])  # (B, 1, 2)
        model = self.model
        if strength is not None:
            model, control = self._unlimited, control * strength[:, None, None]
        after, _ = self._rollout.rollout(model, self._data, state, control)
        return after[:, 0, 1:3].copy(), after[:, 0, 3:5].copy()


def map_rows(maze: str) -> list[str]:
    """The rows of a maze's map, # for a wall and O for a free cell: of a name of MAZES, or of a text."""
    return MAZES.get(maze, maze).split()


def free_cells(maze: str) -> np.ndarray:
    """Centres (x, y) of a maze's free cells, (C, 2) float64, row by row."""
    rows = map_rows(maze)
    return np.array(
        [
            [j + 0.5 - len(rows[0]) / 2, len(rows) / 2 - i - 0.5]
            for i, row in enumerate(rows)
            for j, kind in enumerate(row)
            if kind == "O"
        ]
    )


@functools.cache
def _model(maze: str) -> mujoco.MjModel:
    """gymnasium-robotics' model of the maze.

    Built from its `point.xml` here rather than by its environment class, which writes the model to
    a shared temporary file whose name two processes can share.
    """
    package = importlib.util.find_spec("gymnasium_robotics")
    if package is None or not package.submodule_search_locations:
        raise UserError(
            "PointMaze: gymnasium-robotics is not installed; `pip install gymnasium-robotics`."
        )
    folder = Path(package.submodule_search_locations[0])
    tree = ET.parse(folder / "envs" / "assets" / "point" / "point.xml")
    world = tree.find(".//worldbody")
    assert world is not None
    rows = map_rows(maze)
    for i, row in enumerate(rows):
        for j, kind in enumerate(row):
            if kind == "#":
                x, y = j + 0.5 - len(row) / 2, len(rows) / 2 - i - 0.5
                box = {
                    "name": f"block_{i}_{j}",
                    "type": "box",
                    "pos": f"{x} {y} 0.2",
                    "size": "0.5 0.5 0.2",
                    "contype": "1",
                    "conaffinity": "1",
                }
                ET.SubElement(world, "geom", box)
    return mujoco.MjModel.from_xml_string(ET.tostring(tree.getroot(), encoding="unicode"))
