"""A selection of POPGym (Morad et al. 2023): the real package behind the vectorised interface.

Card games that ask for what was shown before, and cart-pole and pendulum whose velocities aren't
shown (Noisy: and whose positions are shown with noise). Returns lie in [-1, 1].
"""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from ablate.envs.base import Floats
from ablate.envs.gymnasium_env import Gymnasium
from ablate.errors import UserError, unknown

CARDS = ("RepeatFirst", "RepeatPrevious", "Autoencode", "CountRecall")
CONTROL = (
    "PositionOnlyCartPole",
    "NoisyPositionOnlyCartPole",
    "PositionOnlyPendulum",
    "NoisyPositionOnlyPendulum",
)
DIFFICULTIES = ("Easy", "Medium", "Hard")
TASKS = [f"{game}{difficulty}" for game in (*CARDS, *CONTROL) for difficulty in DIFFICULTIES]


class PopGym(Gymnasium):
    """B episodes of one of TASKS, at the length that POPGym gives them.

    Raises UserError when the package `popgym` isn't installed.
    """

    def __init__(self, num_envs: int, task: str) -> None:
        if task not in TASKS:
            raise unknown("PopGym: task", task, TASKS)
        if importlib.util.find_spec("popgym") is None:
            raise UserError(
                f"PopGym: '{task}' needs the package popgym, which is not installed;"
                " `pip install 'popgym>=1.0.7'`."
            )
        # Naming the module makes gymnasium import it; POPGym registers its environments then.
        env_id = f"popgym:popgym-{task}-v0"
        super().__init__(num_envs, env_id, horizon=_length(env_id))
        self._physical = task.startswith(CONTROL)

    def full_observation(self) -> Floats:
        """What is shown, followed by POPGym's hidden Markov state (`get_state`, flattened)."""
        games: list[Any] = [env.unwrapped for env in self._envs]
        hidden = np.stack(
            [np.asarray(spaces.utils.flatten(g.state_space, g.get_state())) for g in games]
        )
        return np.concatenate([self._last, hidden], axis=1).astype(np.float32)

    def simulator_state(self) -> np.ndarray | None:
        """(B, 4) x, its velocity, angle, its velocity; (B, 2) angle, its velocity; None for cards."""
        if not self._physical:
            return None
        games: list[Any] = [env.unwrapped for env in self._envs]
        return np.array([game.state for game in games], dtype=np.float64)


@functools.cache
def _length(env_id: str) -> int:
    """Steps of an episode at most; POPGym keeps them in its environments, not in its registrations."""
    made: Any = gymnasium.make(env_id, disable_env_checker=True).unwrapped
    return int(made.max_episode_length)
