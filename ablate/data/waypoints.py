"""D4RL's waypoint controller for point mazes, for many walkers at once.

After d4rl/pointmaze/waypoint_controller.py: greedy path over cells to the target's cell (value
iteration
in a deterministic grid, that is: shortest paths); the waypoints are the cells' centres, each but
the last moved by -U(0, 0.2)^2; a PD controller steers at the current one and takes the next when it
is nearer than 0.1. The last waypoint is the goal itself (Minari), not its cell's centre (D4RL), so
that the goal that is shown explains where the ball goes.
"""

from __future__ import annotations

import numpy as np

from ablate.envs.pointmaze import free_cells

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
