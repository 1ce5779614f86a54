"""Forks whose arm is decided at once and taken D steps later: commitment over an ambiguous corridor.

    route shown (t = 0) -> corridor -> junction (t = D) with an arm up (+1) and an arm down (-1)

The agent is carried along the corridor, one cell a step, so that the junction is reached at t = D
whatever it does, and nothing that it does on the way can store the route: there its action has no
effect. From t = D on, its action is its speed across, y' = y + 0.25 a, and the fork is over when an arm
is reached, at |y| = 1, in four steps at the soonest, or after 12 steps. The episode ends then; with several
`forks` the next one begins at the next timestep, with a route and a t of its own, and the episode ends after
the last.

Observation: [min(t, D) / D, at the junction (0 or 1), y, route]. `cue` says when the route, +1 or -1, is shown:

- first: at t = 0, and 0 from then on. Everything but the route is Markov. The first action that matters is
  the one at t = D, which sees the route in a window of K timesteps if and only if K > D; one step later y
  tells which way it went.
- shown: at every timestep. Markov: whoever sees one timestep knows what to do.
- either: never, and both arms are good. Markov: what is needed is to keep to the arm that one has begun with.

Reward: 1 for reaching the arm of the route (cue `either`: an arm), 0 for the other, -1 when none is reached in
12 steps. Best return 1 a fork, best without memory 0 or 1 by chance, 0.5; who stays in the middle gets -1.

`success`: the arm of the route is reached, or with several forks the share of them in which it was so far;
`reached`: either is; `switches`: how often so far the direction across has changed within a fork, 0 for who
sticks to a plan.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from ablate.envs.base import Info, SimulatedEnv
from ablate.envs.tmaze import goals
from ablate.errors import UserError, unknown

SPEED = 0.25
DECISION_STEPS = 12
AHEAD = 2  # timesteps before the junction from which on it is asked what is planned
PROGRESS, JUNCTION, ACROSS, ROUTE = range(4)  # coordinates of the observation
Cue = Literal["first", "shown", "either"]
_TAG = 0xF0


class ForkCommit(SimulatedEnv):
    """B episodes. An action is (B, 1), the speed across. delay: D, steps from the cue to the junction.

    Routes are balanced as the T-Maze's goals are: in any even number of consecutive seeds that starts
    at an even one, as many are up as down, in each fork.
    """

    per_place = ("_routes", "_fork", "_begun", "_route", "_across", "_side", "_switches", "_right")
    chance = (ROUTE,)

    def __init__(self, num_envs: int, delay: int, forks: int = 1, cue: Cue = "first") -> None:
        if delay < 1:
            raise UserError(f"ForkCommit: the delay is {delay}; at least 1 step is needed.")
        if forks < 1:
            raise UserError(f"ForkCommit: there are {forks} forks; at least 1 is needed.")
        if cue not in get_args(Cue):
            raise unknown("ForkCommit: cue", cue, get_args(Cue))
        horizon = forks * (delay + DECISION_STEPS)
        super().__init__(num_envs, observation_dim=4, action_dim=1, horizon=horizon)
        self.delay, self.forks, self.cue = delay, forks, cue

    def _start(self, seeds: list[int]) -> np.ndarray:
        self._routes = routes(seeds, self.forks)  # (B, forks) in {-1, +1}
        self._route = self._routes[
            :, 0
        ].copy()  # of the fork that it is in, the `_fork`th, since `_begun`
        self._fork = np.zeros(self.num_envs, dtype=np.int64)
        self._begun = np.zeros(self.num_envs, dtype=np.int64)
        self._across = np.zeros(self.num_envs)
        self._side = np.zeros(self.num_envs)  # sign of the last move across, 0 before the first
        self._switches = np.zeros(self.num_envs)
        self._right = np.zeros(self.num_envs)  # forks
        return self._observe(0)

    def _advance(
        self, actions: np.ndarray, alive: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Info]:
        since = self._now - self._begun  # (B,), t of the fork
        speed = np.where(since >= self.delay, actions[:, 0], 0.0)
        self._across = np.clip(self._across + SPEED * speed, -1.0, 1.0)
        side = np.where(speed == 0.0, self._side, np.sign(speed))
        self._switches = self._switches + (side * self._side < 0)
        self._side = side
        reached = np.abs(self._across) >= 1.0
        success = reached & ((np.sign(self._across) == self._route) | (self.cue == "either"))
        late = ~reached & (since + 1 >= self.delay + DECISION_STEPS)
        rewards = success.astype(np.float64) - late
        over = reached | late
        done = over & (self._fork == self.forks - 1)
        self._right = self._right + success
        said = success if self.forks == 1 else self._right / self.forks
        info = {"success": said, "reached": reached, "switches": self._switches.copy()}
        following = over & ~done
        if following.any():
            self._fork = self._fork + following
            self._begun = np.where(following, self._now + 1, self._begun)
            places = np.arange(self.num_envs)
            self._route = np.where(following, self._routes[places, self._fork], self._route)
            self._across = np.where(following, 0.0, self._across)
            self._side = np.where(following, 0.0, self._side)
        return self._observe(self._now + 1), rewards, done, info

    def simulator_state(self) -> np.ndarray:
        """(B, 3): t of the fork, y and the route."""
        time = np.asarray(self._now - self._begun, dtype=np.float64)
        return np.stack([time, self._across, self._route], axis=1)

    def _lay_simulator_state(self, states: np.ndarray, goals: np.ndarray | None) -> np.ndarray:
        self._begun = self._now - states[:, 0].astype(np.int64)
        self._across, self._route = states[:, 1].copy(), states[:, 2].copy()
        self._side = np.sign(self._across)
        return self._observe(self._now)

    def placed(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """See `VectorEnv.placed`. Where the route isn't shown, any will do: only the reward depends on it."""
        across = np.clip(observations[..., ACROSS], -1.0, 1.0)
        progress = np.clip(observations[..., PROGRESS], 0.0, 1.0)
        corridor = np.minimum(np.rint(progress * self.delay), self.delay - 1)
        time = np.where(observations[..., JUNCTION] > 0.5, self.delay, corridor)
        return np.stack([time, across, np.sign(observations[..., ROUTE])], axis=-1), None

    def ways(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `VectorEnv.ways`: the arm of the first junction that is left the middle of, and whether both were
        entered before the next fork."""
        across = observations[..., ACROSS]
        at = observations[..., JUNCTION] > 0.5
        before = np.cumsum(at, axis=-1) - at  # junction timesteps so far
        ended = np.cumsum(~at & (before > 0), axis=-1) > 0  # the next fork has begun
        side = np.where(~ended & (np.abs(across) >= 0.5 * SPEED), np.sign(across), 0.0)
        up, down = (side > 0).any(-1), (side < 0).any(-1)
        last = np.take_along_axis(side, _last(side != 0), axis=-1)[..., 0]
        return last.astype(np.int64), up & down

    def decisive(self) -> np.ndarray:
        """See `VectorEnv.decisive`: from shortly before the junction to the end of the fork."""
        near: np.ndarray = self._now - self._begun >= self.delay - AHEAD
        return near

    def _observe(self, now: int | np.ndarray) -> np.ndarray:
        """What is seen at a timestep, or at one (B,) each."""
        time = now - self._begun
        shown = {"first": time == 0, "shown": np.ones_like(time), "either": np.zeros_like(time)}
        return np.stack(
            [
                np.minimum(time, self.delay) / self.delay,
                time >= self.delay,
                self._across,
                shown[self.cue] * self._route,
            ],
            axis=1,
        )


def routes(seeds: list[int], forks: int) -> np.ndarray:
    """Routes (B, forks): those of the first fork are the T-Maze's goals, and so are, of other pairs, the others'."""
    first = goals(seeds)
    found = [first]
    for fork in range(1, forks):
        coins = [
            np.random.SeedSequence([seed // 2, _TAG, fork]).generate_state(1)[0] for seed in seeds
        ]
        up = np.array([int(coin) & 1 for coin in coins]) ^ (np.array(seeds) % 2)
        found.append(np.where(up == 1, 1, -1))
    return np.stack(found, axis=1)


def _last(where: np.ndarray) -> np.ndarray:
    """Index (..., 1) of the last True along the last axis; the last of all where there is none."""
    return where.shape[-1] - 1 - np.argmax(where[..., ::-1], axis=-1)[..., None]
