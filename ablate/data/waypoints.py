"""D4RL's waypoint controller for point mazes, for many walkers at once.

After d4rl/pointmaze/waypoint_controller.py: greedy path over cells to the target's cell (value
iteration in a deterministic grid, that is: shortest paths); the waypoints are the cells' centres, each but
the last moved by -U(0, 0.2)^2; a PD controller steers at the current one and takes the next when it
is nearer than 0.1. The last waypoint is the goal itself (Minari), not its cell's centre (D4RL), so
that the goal that is shown explains where the ball goes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ablate.data.behaviour import Acted, Behaviour, censored_logp, explore
from ablate.envs.pointmaze import free_cells

# First observations (B, N) -> goals (B, 2) and policy ids (B,) int64.
Aim = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]

P_GAIN, D_GAIN = 10.0, -1.0
REACHED = (
    0.1  # D4RL asks for a displacement below 0.1 a step as well; at 5 units/s it is at most 0.05
)
JITTER = 0.2
_NEIGHBOURS = np.array(
    [[0, 1], [0, -1], [-1, 0], [1, 0]]
)  # up, down, left, right; ties go to the first


def next_cells(maze: str) -> np.ndarray:
    """The next cell on a shortest path, (C targets, C cells) int64; at the target, the target."""
    cells = free_cells(maze)
    count = len(cells)
    index = {tuple(cell): i for i, cell in enumerate(cells)}
    beside = [
        [index[key] for move in _NEIGHBOURS if (key := tuple(cell + move)) in index]
        for cell in cells
    ]
    table = np.empty((count, count), dtype=np.int64)
    for target in range(count):
        distance = np.full(count, count + 1)
        distance[target] = 0
        frontier = [target]
        for cell in frontier:  # breadth first: the list grows while it is read
            for other in beside[cell]:
                if distance[other] > count:
                    distance[other] = distance[cell] + 1
                    frontier.append(other)
        table[target] = [min(near, key=lambda c: distance[c]) for near in beside]
        table[target, target] = target
    return table


class Waypoints:
    """The controller of B walkers. It has memory: the waypoints, drawn when a goal is set."""

    def __init__(self, maze: str, walkers: int) -> None:
        self._cells = free_cells(maze)
        self._next = next_cells(maze)
        self._points = np.zeros((walkers, len(self._cells) + 1, 2))
        self._count = np.ones(walkers, dtype=np.int64)
        self._index = np.zeros(walkers, dtype=np.int64)

    def nearest_cell(self, position: np.ndarray) -> np.ndarray:
        """Index of the free cell nearest to positions (..., 2)."""
        gap = np.linalg.norm(position[..., None, :] - self._cells, axis=-1)
        return gap.argmin(axis=-1)

    def set_goal(
        self, walker: int, position: np.ndarray, goal: np.ndarray, rng: np.random.Generator
    ) -> None:
        """Plan the walker's way from its position (2,) to the goal (2,)."""
        cell, target = int(self.nearest_cell(position)), int(self.nearest_cell(goal))
        points = []
        while cell != target:
            cell = int(self._next[target, cell])
            if cell != target:
                points.append(self._cells[cell] - rng.uniform(0.0, JITTER, size=2))
        points.append(goal)
        self._points[walker, : len(points)] = points
        self._count[walker] = len(points)
        self._index[walker] = 0

    def act(self, position: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """Noise-free actions (B, 2) in [-1, 1]; walkers at a waypoint take the next one."""
        rows = np.arange(len(position))
        point = self._points[rows, self._index]  # (B, 2)
        action = np.clip(P_GAIN * (point - position) + D_GAIN * velocity, -1.0, 1.0)
        near = np.linalg.norm(point - position, axis=1) < REACHED
        self._index = np.minimum(self._index + near, self._count - 1)
        return action


class Walker(Behaviour):
    """Walks to a goal with the waypoint controller, one goal an episode, and stays there.

    It acts on observations [x, y, vx, vy, ...]; what follows is for `aim` only, which by default
    reads the goal from the fifth and sixth coordinate. Its memory is the waypoints.

    Attributes:
        goal: (B, 2), where the episodes head.
    """

    def __init__(self, maze: str, noise: float, aim: Aim | None = None) -> None:
        """noise: standard deviation of the Gaussian noise on the actions, 0 for none."""
        self._maze, self._noise = maze, noise
        self._aim = aim or shown_goal

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        self._rng = rng
        self._controller = Waypoints(self._maze, len(observation))
        first = observation.astype(np.float64)
        self.goal, self._ids = self._aim(first, rng)
        for walker, (row, goal) in enumerate(zip(first, self.goal, strict=True)):
            self._controller.set_goal(walker, row[:2], goal, rng)

    def act(self, observation: np.ndarray) -> Acted:
        state = observation.astype(np.float64)
        mean = self._controller.act(state[:, :2], state[:, 2:4]).astype(np.float32)
        action = explore(mean, self._noise, self._rng)
        return Acted(action, self._ids, noisy_logp(action, mean, self._noise), mean)


def shown_goal(observation: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The goal that observations [x, y, vx, vy, goal_x, goal_y] show; there is one policy."""
    return observation[:, 4:6], np.zeros(len(observation), dtype=np.int64)


def noisy_logp(action: np.ndarray, mean: np.ndarray, noise: float) -> np.ndarray:
    """`censored_logp`; 0 without noise, where the only possible action has probability 1."""
    if noise == 0.0:
        return np.zeros(action.shape[:-1])
    return censored_logp(action, mean, noise)
