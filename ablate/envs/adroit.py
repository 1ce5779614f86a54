"""D4RL's Adroit tasks: gymnasium-robotics' simulation of the hand with D4RL's rewards.

gymnasium-robotics' AdroitHand*-v1 shows the same observations and simulates the same models, but from
its version 1.2.1 on it rewards the hand's distance to the door's handle, the hammer or the ball, which
D4RL punishes (Gymnasium-Robotics pull request 220), and it goes on after the pen has fallen, where
D4RL ends the episode. Here rewards and terminations are those of `d4rl/hand_manipulation_suite/`, which
the data's rewards and the reference scores are made of.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from ablate.envs.base import Info
from ablate.envs.gymnasium_env import Gymnasium
from ablate.errors import UserError, unknown

TASKS = {
    "door": "AdroitHandDoor-v1",
    "hammer": "AdroitHandHammer-v1",
    "pen": "AdroitHandPen-v1",
    "relocate": "AdroitHandRelocate-v1",
}
FALLEN = 0.075  # height in metres below which the pen has fallen


class Adroit(Gymnasium):
    """B episodes of one of TASKS; `success` is "the task's goal was ever achieved"."""

    per_place = (*Gymnasium.per_place, "_lengths")

    def __init__(self, num_envs: int, task: str, horizon: int) -> None:
        if task not in TASKS:
            raise unknown("Adroit: task", task, TASKS)
        try:
            # It tells of the changed rewards on import, which don't matter here.
            with contextlib.redirect_stderr(io.StringIO()):
                importlib.import_module("gymnasium_robotics")
        except ImportError as error:
            raise UserError(
                "Adroit: gymnasium-robotics is not installed; `pip install gymnasium-robotics`."
            ) from error
        super().__init__(num_envs, TASKS[task], horizon)
        self.task = task
        self._reward = _REWARDS[task]
        # The pen's and its target's lengths are taken once, as D4RL does: reset computes them.
        self._lengths = np.ones((num_envs, 2))

    def _start(self, seeds: list[int]) -> np.ndarray:
        observation = super()._start(seeds)
        if self.task == "pen":
            for row, env in enumerate(self._envs):
                data = _data(env)
                self._lengths[row] = [
                    np.linalg.norm(_site(data, f"{what}_top") - _site(data, f"{what}_bottom"))
                    for what in ("object", "target")
                ]
        return observation

    def _advance(
        self, actions: np.ndarray, alive: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Info]:
        observations, rewards, terminations, info = super()._advance(actions, alive)
        for row in np.flatnonzero(alive):
            data = _data(self._envs[row])
            rewards[row] = self._reward(data, *self._lengths[row])
            terminations[row] = self.task == "pen" and _body(data, "Object")[2] < FALLEN
        return observations, rewards, terminations, info


def _door(data: Any, *_: float) -> float:
    angle = float(data.joint("door_hinge").qpos[0])
    reward = -0.1 * _distance(_site(data, "S_grasp"), _site(data, "S_handle"))
    reward -= 0.1 * (angle - 1.57) ** 2 + 1e-5 * float(np.square(data.qvel).sum())
    return reward + 2.0 * (angle > 0.2) + 8.0 * (angle > 1.0) + 10.0 * (angle > 1.35)


def _hammer(data: Any, *_: float) -> float:
    hammer, head, nail = _body(data, "Object"), _site(data, "tool"), _site(data, "S_target")
    left = _distance(nail, _site(data, "nail_goal"))
    reward = -0.1 * _distance(_site(data, "S_grasp"), hammer) - _distance(head, nail) - 10 * left
    reward -= 1e-2 * float(np.linalg.norm(data.qvel))
    lifted = hammer[2] > 0.04 and head[2] > 0.04
    return reward + 2.0 * lifted + 25.0 * (left < 0.02) + 75.0 * (left < 0.01)


def _pen(data: Any, length: float, wanted_length: float) -> float:
    pen = _body(data, "Object")
    off = _distance(pen, _site(data, "eps_ball"))
    along = (_site(data, "object_top") - _site(data, "object_bottom")) / length
    wanted = (_site(data, "target_top") - _site(data, "target_bottom")) / wanted_length
    similarity = float(along @ wanted)
    near = off < 0.075
    bonus = 10.0 * (near and similarity > 0.9) + 50.0 * (near and similarity > 0.95)
    return similarity - off + bonus - 5.0 * (pen[2] < FALLEN)


def _relocate(data: Any, *_: float) -> float:
    palm, ball, target = _site(data, "S_grasp"), _body(data, "Object"), _site(data, "target")
    left = _distance(ball, target)
    reward = -0.1 * _distance(palm, ball)
    if ball[2] > 0.04:
        reward += 1.0 - 0.5 * _distance(palm, target) - 0.5 * left
    return reward + 10.0 * (left < 0.1) + 20.0 * (left < 0.05)


_REWARDS: dict[str, Callable[..., float]] = {
    "door": _door,
    "hammer": _hammer,
    "pen": _pen,
    "relocate": _relocate,
}


def _data(env: Any) -> Any:
    return env.unwrapped.data


def _site(data: Any, name: str) -> np.ndarray:
    return data.site(name).xpos


def _body(data: Any, name: str) -> np.ndarray:
    return data.body(name).xpos


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b))
