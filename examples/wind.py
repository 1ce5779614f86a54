"""A data family of one's own with its environment: a boat is to be kept on its line in a wind that it can't see.

`wind/NAME`, where NAME is calm, breeze or gale, is 200 episodes of a helmsman to learn from and 50 held out; agents act
in the same water.

    python -m ablate data show wind/breeze --plugin examples/wind.py
    python -m ablate run examples/wind.yaml
"""

import numpy as np

from ablate.data.behaviour import Acted, Behaviour, censored_logp, explore
from ablate.data.catalogue import Anchors, DataSpec, Family
from ablate.data.collect import collect
from ablate.envs.base import SimulatedEnv, episode_rng
from ablate.errors import unknown
from ablate.registry import register

WINDS = {"calm": 0.0, "breeze": 0.05, "gale": 0.1}  # how strong a wind may be, a timestep
HORIZON, STEP, NOISE = 40, 0.2, 0.2


class Water(SimulatedEnv):
    """x' = x + 0.2 a + w, where the wind w is one of ±strength for a whole episode; reward -x'^2; x is seen."""

    per_place = ("_x", "_wind")  # what, set again, puts an episode back

    def __init__(self, num_envs, strength):
        super().__init__(num_envs, observation_dim=1, action_dim=1, horizon=HORIZON)
        self.strength = strength

    def _start(self, seeds):
        draws = np.array([episode_rng(seed, 0x57).random(2) for seed in seeds])  # (B, 2)
        self._x = 2 * draws[:, 0] - 1
        self._wind = self.strength * np.where(draws[:, 1] < 0.5, -1.0, 1.0)
        return self._x[:, None]

    def _advance(self, actions, alive):
        self._x = self._x + STEP * actions[:, 0] + self._wind
        return self._x[:, None], -(self._x**2), np.zeros(self.num_envs, dtype=bool), {}

    def full_observation(self):
        return np.stack([self._x, self._wind], axis=1)


class Helmsman(Behaviour):
    """Steers back to the line and against the wind, which it sees, with some noise."""

    def start(self, observation, rng):
        self._rng = rng

    def act(self, observation):
        mean = np.clip(-(observation[:, :1] + observation[:, 1:]) / STEP, -1, 1)
        action = explore(mean, NOISE, self._rng)
        ids = np.zeros(len(mean), dtype=np.int64)
        return Acted(action, ids, censored_logp(action, mean, NOISE), mean.astype(np.float32))


@register("data", "wind")
class Wind(Family):
    """Every member is a strength of the wind."""

    def names(self):
        return [f"wind/{name}" for name in WINDS]

    def resolve(self, member, name):
        if member not in WINDS:
            raise unknown("data", name, self.names())

        def make_env(num_envs):
            return Water(num_envs, WINDS[member])

        def part(name, episodes):
            return collect(f"wind/{member}", name, make_env, Helmsman(), episodes * HORIZON)

        return DataSpec(
            name=f"wind/{member}",
            family="wind",
            recipe={"version": 1, "strength": WINDS[member], "episodes": [200, 50]},
            generate=lambda: (part("train", 200), part("held_out", 50)),
            make_env=make_env,
            anchors=lambda: Anchors(
                -HORIZON / 3, 0.0, "the returns of drifting in a calm, and of the line"
            ),
            behaviour=Helmsman,
        )
