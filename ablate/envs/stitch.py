"""Two starts, two goals and one corridor that every way shares: where trajectories can be stitched.

    A               good       The ball and its physics are those of `ablate.envs.pointmaze`. From A
    |               |          and from B two cells lead to the left end of the corridor, which is
    +-- corridor ---+          `shared` cells long between its two ends; from its right end two cells
    |               |          lead to either goal.
    B               bad

- The observation is [x, y, vx, vy]. No goal is shown.
- Starts are the centres of A and B, +- U(0.1), with velocity N(0, 0.1^2); those asked for are equally
  likely.
- Reward 1, and termination, within 0.5 of the good goal; reward 0, and termination, within 0.5 of the
  bad one. Truncated after 300 + 50 `shared` steps.
- `success`: the good goal is reached; `bad`: the other one is.
"""

from __future__ import annotations

import numpy as np

from ablate.envs.base import Info, episode_rng
from ablate.envs.pointmaze import GOAL_RADIUS, POSITION_NOISE, VELOCITY_NOISE, BallEnv
from ablate.errors import UserError

ARM = 2  # cells from the corridor's ends to starts and goals
MAX_SHARED = 20
_TAG = 0x57


class Stitch(BallEnv):
    """B episodes. shared: cells of the corridor; starts: a string of "A" and "B", each at most once."""

    def __init__(self, num_envs: int, shared: int, starts: str = "A", spread: float = 0.0) -> None:
        if not 1 <= shared <= MAX_SHARED:
            raise UserError(f"Stitch: the corridor has {shared} cells; allowed: 1 to {MAX_SHARED}.")
        if starts not in ("A", "B", "AB"):
            raise UserError(f"Stitch: starts '{starts}' are not known; allowed: A, B, AB.")
        super().__init__(
            num_envs,
            stitch_map(shared),
            observation_dim=4,
            horizon=300 + 50 * shared,
            spread=spread,
        )
        self._starts = np.stack([start_of(shared)[start] for start in starts])  # (1 or 2, 2)
        self._goals = goals_of(shared)

    def _start(self, seeds: list[int]) -> np.ndarray:
        position, velocity = [], []
        for seed in seeds:
            rng = episode_rng(seed, _TAG)
            start = self._starts[rng.integers(len(self._starts))]
            position.append(start + rng.uniform(-POSITION_NOISE, POSITION_NOISE, size=2))
            velocity.append(VELOCITY_NOISE * rng.standard_normal(2))
        self._place(seeds, np.array(position), np.array(velocity))
        return self._observe()

    def _advance(
        self, actions: np.ndarray, alive: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Info]:
        self._move(actions)
        gap = np.linalg.norm(self._position[:, None] - self._goals, axis=-1)  # (B, 2)
        good, bad = (gap <= GOAL_RADIUS).T
        return self._observe(), good.astype(np.float64), good | bad, {"success": good, "bad": bad}

    def _observe(self) -> np.ndarray:
        return np.concatenate([self._position, self._velocity], axis=1)


def stitch_map(shared: int) -> str:
    """The maze with a corridor of `shared` cells between its ends, as a map's text."""
    wall, arms = "#" * (shared + 4), "#O" + "#" * shared + "O#"
    corridor = "#" + "O" * (shared + 2) + "#"
    return " ".join([wall, *[arms] * ARM, corridor, *[arms] * ARM, wall])


def start_of(shared: int) -> dict[str, np.ndarray]:
    """The centres (2,) of A and B."""
    left = -(shared + 1) / 2
    return {"A": np.array([left, ARM]), "B": np.array([left, -ARM])}


def goals_of(shared: int) -> np.ndarray:
    """The centres of the good and of the bad goal, (2, 2)."""
    right = (shared + 1) / 2
    return np.array([[right, ARM], [right, -ARM]], dtype=np.float64)
