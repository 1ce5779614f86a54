"""Key-to-Door: long-term credit assignment, after Mesnard et al. (2021) as Chen et al. (2021) use it.

Three rooms, one after the other: one with a key, an empty one, one with a door. Standing on the key
picks it up. Reaching the door with the key opens it, once, and gives the only reward, 1. So the
return is the success, and what earns it lies a whole empty room earlier.

The Decision Transformer's environment was never released; these are choices of our own:
- Rooms are 5 x 5 cells. The agent starts each on a random cell; key and door lie on random cells
  other than that. Mesnard et al. fill the second room with apples as distractors; the Decision
  Transformer's is empty, and so is ours.
- Every room lasts a fixed number of steps: 8 with the key, 30 empty (any number may be asked for),
  8 with the door. 8 moves lead from corner to corner, and uniformly random moves succeed in 3.15 %
  of episodes (`random_success`; the Decision Transformer's Table 6: 3.1 %).
- Moves: right, up, left, down; moves into walls stay.
- The observation is the present room and nothing else, as 8 numbers instead of an image: which room
  (3, one-hot), the place in it (2, in [-1, 1]), whether a key or door lies there (1) and the way to
  it (2, in units of 4 cells). The key is gone once it is picked up; the door stays.

What is hidden is the key in the agent's pocket. Acting well doesn't need it, so that the best return
without memory is 1, too: the task is one of credit. Telling what an episode will earn does need it:
given that random moves reach the door, the key was picked up with probability 0.1775, whatever the
present room shows.
"""

from __future__ import annotations

import numpy as np

from ablate.envs.base import Floats, Info, SimulatedEnv, episode_rng, pick
from ablate.envs.tmaze import MOVES
from ablate.errors import UserError

SIDE = 5  # cells
ROOM_STEPS = 8  # in the rooms with key and door
EMPTY_STEPS = 30
CELLS = SIDE * SIDE
PAIRS = CELLS * (CELLS - 1)
KEY_ROOM, _, DOOR_ROOM = range(3)
_TAG = 0x6D
Time = int | np.ndarray  # of all episodes, or (B,)


class KeyToDoor(SimulatedEnv):
    """B episodes. An action is (B, 4), one number a move; the largest is executed.

    `info["key"]`: the key has been picked up; `info["success"]`: the door has been opened.
    Terminates at the end of the last room, and only there.
    """

    per_place = ("_starts", "_objects", "_place", "_found", "_success")

    def __init__(self, num_envs: int, empty_steps: int = EMPTY_STEPS) -> None:
        if empty_steps < 0:
            raise UserError(
                f"KeyToDoor: the empty room lasts {empty_steps} steps; 0 or more are needed."
            )
        super().__init__(
            num_envs, observation_dim=8, action_dim=4, horizon=2 * ROOM_STEPS + empty_steps
        )
        self.empty_steps = empty_steps

    def _start(self, seeds: list[int]) -> np.ndarray:
        draws = np.array(
            [episode_rng(seed, _TAG).integers([PAIRS, CELLS, PAIRS]) for seed in seeds]
        )  # (B, 3)
        key_start, key = pair(draws[:, 0])
        door_start, door = pair(draws[:, 2])
        # (B, 3 rooms, 2); nothing lies in the empty room.
        self._starts = np.stack([place(key_start), place(draws[:, 1]), place(door_start)], axis=1)
        self._objects = np.stack([place(key), np.zeros_like(place(key)), place(door)], axis=1)
        self._place = self._starts[:, KEY_ROOM].copy()
        self._found = np.zeros(self.num_envs, dtype=bool)
        self._success = np.zeros(self.num_envs, dtype=bool)
        return self._observe(0)

    def _advance(
        self, actions: np.ndarray, alive: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Info]:
        time, room = self._now + 1, self.room(self._now)
        after = self._place + MOVES[actions.argmax(axis=1)]  # (B, 2)
        inside = ((after >= 0) & (after < SIDE)).all(axis=1, keepdims=True)
        self._place = np.where(inside, after, self._place)
        there = (self._place == pick(self._objects, room)).all(axis=1)
        self._found = self._found | (there & (room == KEY_ROOM))
        opened = there & (room == DOOR_ROOM) & self._found & ~self._success
        self._success = self._success | opened
        done = np.full(self.num_envs, time >= self.horizon)
        onward = ~done & (self.room(time) != room)
        if onward.any():
            start = pick(self._starts, self.room(time))
            self._place = np.where(onward[:, None], start, self._place)
        info = {"success": self._success.copy(), "key": self._found.copy()}
        return self._observe(time), opened.astype(np.float64), done, info

    def room(self, time: Time) -> Time:
        """The room in which the action of a timestep is taken; of timesteps (B,), the rooms."""
        return 1 * (time >= ROOM_STEPS) + (time >= ROOM_STEPS + self.empty_steps)

    def full_observation(self) -> Floats:
        """(B, 9): the observation, and whether the agent holds the key."""
        return np.concatenate([self._last, self._held()[:, None]], axis=1).astype(np.float32)

    def simulator_state(self) -> np.ndarray:
        """(B, 6): time, place (2), place of the present room's key or door (2), key held.

        0 for the object of the empty room. Later rooms don't depend on anything here; they are
        drawn with the episode's seed.
        """
        thing = pick(self._objects, self._room_shown(self._now))
        now = np.full(self.num_envs, self._now, dtype=np.float64)[:, None]
        return np.concatenate([now, self._place, thing, self._held()[:, None]], axis=1)

    def _held(self) -> np.ndarray:
        return self._found & ~self._success

    def _room_shown(self, time: Time) -> Time:
        """The last room is shown on after its last step."""
        return self.room(np.minimum(time, self.horizon - 1))

    def _observe(self, time: Time) -> np.ndarray:
        """What is seen at a timestep, or at one (B,) each."""
        room = self._room_shown(time)
        offset = pick(self._objects, room) - self._place  # (B, 2)
        there = np.where(room == KEY_ROOM, ~self._found, room == DOOR_ROOM)[:, None]  # (B, 1)
        rooms = np.arange(3) == np.full(self.num_envs, room)[:, None]
        middle = (SIDE - 1) / 2
        where = (self._place - middle) / middle
        return np.concatenate([rooms, where, there, there * offset / (SIDE - 1)], axis=1)


def pair(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two different cells (B,), every ordered pair for one of the numbers (B,) 0 to PAIRS - 1."""
    first, other = np.divmod(draws, CELLS - 1)
    return first, other + (other >= first)


def place(cells: np.ndarray) -> np.ndarray:
    """Coordinates (B, 2), 0 to SIDE - 1 from left and bottom, of cells (B,)."""
    return np.stack([cells % SIDE, cells // SIDE], axis=1)


def random_success() -> float:
    """The exact probability that uniformly random moves succeed.

    The random walk in a room, stopped where the object lies, is a Markov chain over the cells; the
    two rooms are alike and independent of each other.
    """
    where = place(np.arange(CELLS))
    after = where[:, None] + MOVES  # (cells, 4, 2)
    inside = ((after >= 0) & (after < SIDE)).all(axis=-1)
    target = np.where(inside, after[..., 0] + SIDE * after[..., 1], np.arange(CELLS)[:, None])
    walk = np.zeros((CELLS, CELLS))
    np.add.at(walk, (np.arange(CELLS)[:, None], target), 0.25)
    reached = np.eye(CELLS)  # [cell, object]: probability of having been there
    for _ in range(ROOM_STEPS):
        reached = np.where(np.eye(CELLS, dtype=bool), 1.0, walk @ reached)
    found = (reached.sum() - CELLS) / PAIRS
    return float(found**2)
