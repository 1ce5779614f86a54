"""A fork whose arm is decided at t = 0 and taken D steps later: commitment over an ambiguous corridor.

    route shown (t = 0) -> corridor -> junction (t = D) with an arm up (+1) and an arm down (-1)

The agent is carried along the corridor, one cell a step, so that the junction is reached at t = D
whatever it does, and nothing that it does on the way can store the route: there its action has no
effect. From t = D on, its action is its speed across, y' = y + 0.25 a, and the episode ends when an arm
is reached, at |y| = 1, in four steps at the soonest.

Observation: [min(t, D) / D, at the junction (0 or 1), y, route]; the route, +1 or -1, is shown at t = 0
and is 0 from then on. Everything but the route is Markov. The first action that matters is the one at
t = D, which sees the route in a window of K timesteps if and only if K > D; one step later y tells
which way it went.

Reward: 1 for reaching the arm of the route shown, 0 for the other, -1 when none is reached in 12 steps.
Best return 1, best without memory 0 or 1 by chance, 0.5; who stays in the middle gets -1.

`success`: the arm of the route is reached; `reached`: either is; `switches`: how often so far the
direction across has changed, 0 for who sticks to a plan.
"""

from __future__ import annotations

import numpy as np

from ablate.envs.base import Info, SimulatedEnv
from ablate.envs.tmaze import goals
from ablate.errors import UserError

SPEED = 0.25
DECISION_STEPS = 12
PROGRESS, JUNCTION, ACROSS, ROUTE = range(4)  # coordinates of the observation


class ForkCommit(SimulatedEnv):
    """B episodes. An action is (B, 1), the speed across. delay: D, steps from the cue to the junction.

    Routes are balanced as the T-Maze's goals are: in any even number of consecutive seeds that starts
    at an even one, as many are up as down.
    """

    per_place = ("_route", "_across", "_side", "_switches")

    def __init__(self, num_envs: int, delay: int) -> None:
        if delay < 1:
            raise UserError(f"ForkCommit: the delay is {delay}; at least 1 step is needed.")
        super().__init__(num_envs, observation_dim=4, action_dim=1, horizon=delay + DECISION_STEPS)
        self.delay = delay

    def _start(self, seeds: list[int]) -> np.ndarray:
        self._route = goals(seeds)  # (B,) in {-1, +1}
        self._across = np.zeros(self.num_envs)
        self._side = np.zeros(self.num_envs)  # sign of the last move across, 0 before the first
        self._switches = np.zeros(self.num_envs)
        return self._observe(0)

    def _advance(
        self, actions: np.ndarray, alive: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Info]:
        free = np.asarray(self._now >= self.delay)  # for each episode, or for all
        if free.any():
            speed = np.where(free, actions[:, 0], 0.0)
            self._across = np.clip(self._across + SPEED * speed, -1.0, 1.0)
            side = np.where(speed == 0.0, self._side, np.sign(speed))
            self._switches += side * self._side < 0
            self._side = side
        reached = np.abs(self._across) >= 1.0
        success = reached & (np.sign(self._across) == self._route)
        late = ~reached & (self._now + 1 >= self.horizon)
        rewards = success.astype(np.float64) - late
        info = {"success": success, "reached": reached, "switches": self._switches.copy()}
        return self._observe(self._now + 1), rewards, reached | late, info

    def simulator_state(self) -> np.ndarray:
        time = np.full(self.num_envs, self._now, dtype=np.float64)
        return np.stack([time, self._across, self._route], axis=1)

    def _observe(self, time: int | np.ndarray) -> np.ndarray:
        """What is seen at a timestep, or at one (B,) each."""
        everywhere = np.ones(self.num_envs)
        return np.stack(
            [
                np.minimum(time, self.delay) / self.delay * everywhere,
                (time >= self.delay) * everywhere,
                self._across,
                (time == 0) * self._route,
            ],
            axis=1,
        )
