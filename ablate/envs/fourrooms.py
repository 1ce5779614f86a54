"""Four rooms with a goal in the observation, and a say in which rooms to start and end in.

The ball and its physics are those of `ablate.envs.pointmaze`; four rooms of 3 x 3 cells are joined
in a ring by four doors of one cell, so that opposite rooms are two doors apart.

- The observation is [x, y, vx, vy, goal_x, goal_y].
- An ordered pair of rooms is drawn uniformly from those asked for, then two different cells of
  them; start and goal are their centres, each +- U(0.1), the start's velocity is N(0, 0.1^2).
- Reward 1, and termination, within 0.5 of the goal; else 0. The return is 1 for success, else 0.
  Truncated after 500 steps; a waypoint controller needs 250 from a room to the opposite one, at most
  380.
- `success` is "reached", `distance` how far the goal is, in cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ablate.envs.base import Floats, Info, episode_rng
from ablate.envs.pointmaze import GOAL_RADIUS, POSITION_NOISE, VELOCITY_NOISE, BallEnv
from ablate.errors import UserError

MAP = "######### #OOO#OOO# #OOOOOOO# #OOO#OOO# ##O###O## #OOO#OOO# #OOOOOOO# #OOO#OOO# #########"
ROOMS = ("north-west", "north-east", "south-east", "south-west")  # clockwise; their numbers below
NORTH_WEST, NORTH_EAST, SOUTH_EAST, SOUTH_WEST = range(4)
Pair = tuple[int, int]  # start room, goal room
ALL_PAIRS: tuple[Pair, ...] = tuple((start, goal) for start in range(4) for goal in range(4))
HORIZON = 500
_QUADRANTS = {(-1, 1): NORTH_WEST, (1, 1): NORTH_EAST, (1, -1): SOUTH_EAST, (-1, -1): SOUTH_WEST}
_TAG = 0x4A


class FourRooms(BallEnv):
    """B episodes from room to room.

    pairs: the (start room, goal room) to draw from; spread: of the hidden strength of the motors.
    """

    per_place = (*BallEnv.per_place, "_goal")

    def __init__(
        self, num_envs: int, pairs: Sequence[Pair] = ALL_PAIRS, spread: float = 0.0
    ) -> None:
        super().__init__(num_envs, MAP, observation_dim=6, horizon=HORIZON, spread=spread)
        for pair in pairs:
            if pair not in ALL_PAIRS:
                raise UserError(
                    f"FourRooms: {pair} is no pair of rooms; each is a number from 0 to 3."
                )
        if not pairs:
            raise UserError("FourRooms: no pair of rooms is given; at least one is needed.")
        self.pairs = tuple(pairs)
        room = room_of(self.cells)
        self._cells_of = [self.cells[room == number] for number in range(4)]  # each (9, 2)

    def _start(self, seeds: list[int]) -> np.ndarray:
        position, velocity, goal = [], [], []
        for seed in seeds:
            rng = episode_rng(seed, _TAG)
            start_room, goal_room = self.pairs[rng.integers(len(self.pairs))]
            start, end = rng.choice(len(self._cells_of[0]), size=2, replace=start_room != goal_room)
            jitter = rng.uniform(-POSITION_NOISE, POSITION_NOISE, size=(2, 2))
            position.append(self._cells_of[start_room][start] + jitter[0])
            goal.append(self._cells_of[goal_room][end] + jitter[1])
            velocity.append(VELOCITY_NOISE * rng.standard_normal(2))
        self._place(seeds, np.array(position), np.array(velocity))
        self._goal = np.array(goal)
        return self._observe()

    def goals(self) -> Floats:
        return self._goal.astype(np.float32)

    def _advance(
        self, actions: np.ndarray, alive: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Info]:
        self._move(actions)
        distance = np.linalg.norm(self._position - self._goal, axis=1)
        reached = distance <= GOAL_RADIUS
        info = {"success": reached, "distance": distance}
        return self._observe(), reached.astype(np.float64), reached, info

    def _observe(self) -> np.ndarray:
        return np.concatenate([self._position, self._velocity, self._goal], axis=1)


def room_of(position: np.ndarray) -> np.ndarray:
    """The number of the room at positions (..., 2), -1 in a door: (...) int64."""
    x, y = position[..., 0], position[..., 1]
    room = np.full(x.shape, -1, dtype=np.int64)
    for (right, up), number in _QUADRANTS.items():
        room[(right * x > 0.5) & (up * y > 0.5)] = number
    return room


def start_and_goal_room(observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rooms of the ball and of the goal in observations (..., 6), -1 in a door."""
    return room_of(observation[..., :2]), room_of(observation[..., 4:6])
