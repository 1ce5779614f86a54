"""Linear-quadratic control: two coupled, damped double integrators, mildly unstable, in discrete time.

    x' = A x + B u + w,    w ~ N(0, 0.05^2 I),    x_0 ~ N(0, I),    x = (p1, p2, v1, v2)
    reward = -min(x'Qx + u'Ru, 50) / 10,    100 steps

It is Markov, its optimum is known in closed form, and so is everything about mixtures of linear
controllers in it (`ablate.data.exact`).
"""

from __future__ import annotations

import numpy as np

from ablate.envs.base import Info, SimulatedEnv, episode_rng, pick
from ablate.errors import UserError

DT = 0.1
# Springs that push outwards (0.1), a coupling (0.1) and friction (0.5): left alone, the slowest mode grows
# by 2.6 % a step. With friction, feedback of the positions alone can hold it.
STIFFNESS = np.array([[0.1, 0.1], [0.1, 0.1]])
FRICTION = 0.5
A = np.block(
    [[np.eye(2), DT * np.eye(2)], [DT * STIFFNESS, (1 - DT * FRICTION) * np.eye(2)]]
)  # (4, 4)
B = np.vstack([np.zeros((2, 2)), DT * np.eye(2)])  # (4, 2)
STATE_COST = np.eye(4)
ACTION_COST = 0.5 * np.eye(2)
COST_DIVISOR = 10.0
# A policy that loses control would else be weighed by how fast the plant explodes. Both controllers reach
# the cap in fewer than one step in 10,000, which the closed forms ignore.
COST_CAP = 50.0
PROCESS_NOISE = 0.05
HORIZON = 100
# Forces are stored as u / ACTION_SCALE in [-1, 1]; fewer than 0.1 % of logged actions are clipped.
ACTION_SCALE = 5.0
POSITIONS, VELOCITIES = [0, 1], [2, 3]  # coordinates of the observation
_TAG, _FRICTION = 0x1C, 0x1D


class LinearQuadratic(SimulatedEnv):
    """B episodes of the linear system; the observation is the state (p1, p2, v1, v2).

    friction_spread: s in [0, 1); each episode multiplies FRICTION by a hidden factor drawn uniformly
    from [1 - s, 1 + s].
    """

    per_place = ("_state", "_noise", "_brake")
    lyapunov = float(1.0 / np.log(np.abs(np.linalg.eigvals(A)).max()))

    def __init__(self, num_envs: int, friction_spread: float = 0.0) -> None:
        if not 0.0 <= friction_spread < 1.0:
            raise UserError(
                f"LinearQuadratic: friction_spread is {friction_spread}; allowed: 0 or more, below 1."
            )
        super().__init__(num_envs, observation_dim=4, action_dim=2, horizon=HORIZON)
        self._spread = friction_spread

    @property
    def hides_friction(self) -> bool:
        """Whether each episode has a friction of its own."""
        return self._spread > 0.0

    def _start(self, seeds: list[int]) -> np.ndarray:
        # Every episode's noise is drawn at once, from its own seed, so that stepping is vectorised.
        draws = np.stack([episode_rng(s, _TAG).standard_normal((HORIZON + 1, 4)) for s in seeds])
        self._state = draws[:, 0]  # (B, 4)
        self._noise = PROCESS_NOISE * draws[:, 1:]  # (B, T, 4)
        drawn = np.array([episode_rng(s, _FRICTION).uniform(-1.0, 1.0) for s in seeds])
        self._brake = DT * FRICTION * self._spread * drawn[:, None]  # (B, 1), beyond A's own
        return self._state

    def _advance(
        self, actions: np.ndarray, alive: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Info]:
        force = ACTION_SCALE * actions  # (B, 2)
        rewards = reward(self._state, force)
        # einsum, unlike a BLAS product, gives a row the same bits in a batch of any size.
        velocity = self._state[:, VELOCITIES]
        self._state = (
            np.einsum("ij,bj->bi", A, self._state)
            + np.einsum("ij,bj->bi", B, force)
            + pick(self._noise, self._now)
        )
        if self._spread:
            self._state[:, VELOCITIES] -= self._brake * velocity
        return self._state, rewards, np.zeros(len(force), dtype=bool), {}

    def simulator_state(self) -> np.ndarray:
        return self._state.copy()

    def _lay_simulator_state(self, states: np.ndarray, goals: np.ndarray | None) -> np.ndarray:
        self._state = states
        return states


def reward(state: np.ndarray, force: np.ndarray) -> np.ndarray:
    """Minus the capped quadratic cost of states (..., 4) and forces (..., 2), divided by 10: (...)."""
    cost = np.einsum("...i,ij,...j->...", state, STATE_COST, state)
    cost = cost + np.einsum("...i,ij,...j->...", force, ACTION_COST, force)
    return -np.minimum(cost, COST_CAP) / COST_DIVISOR
