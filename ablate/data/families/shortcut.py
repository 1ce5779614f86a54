"""Walks around a wall, past a shortcut that nobody takes: what lies there, and what it costs, is in no data.

D4RL's waypoint controller walks from the start to the goal (`ablate.envs.shortcut`) on the way around, with noise of
0.5 on its actions, and stays there. The forbidden shortcut joins the two.
"""

from __future__ import annotations

import functools

import numpy as np

from ablate.data.behaviour import Behaviour, UniformBehaviour
from ablate.data.catalogue import Anchors, DataSpec, Family
from ablate.data.collect import collect
from ablate.data.streams import stream
from ablate.data.trajectories import Trajectories
from ablate.data.waypoints import Walker
from ablate.envs.pointmaze import POSITIONS, VELOCITIES
from ablate.envs.shortcut import GOAL, Shortcut
from ablate.errors import unknown
from ablate.registry import register

NAME = "shortcut/umaze-v0"
STEPS = {"train": 30_000, "held_out": 10_000}
ACTION_NOISE = 0.5
BATCH, ANCHOR_EPISODES = 100, 400


@register("data", "shortcut", label="Shortcut")
class Shortcuts(Family):
    """30,000 training and 10,000 held-out timesteps, 60 an episode."""

    def resolve(self, member: str, name: str) -> DataSpec:
        if f"shortcut/{member}" != NAME:
            raise unknown("data", name, self.names())
        return DataSpec(
            name=NAME,
            family="shortcut",
            recipe={
                "generator": "shortcut",
                "version": 1,
                "steps": STEPS,
                "noise": ACTION_NOISE,
                "batch": BATCH,
                "anchor_episodes": ANCHOR_EPISODES,
                "seed": 0,
            },
            generate=lambda: (walks("train"), walks("held_out")),
            make_env=Shortcut,
            anchors=anchors,
            best_policy=0,
            num_policies=1,
            behaviour=lambda: around(ACTION_NOISE),
        )

    def names(self) -> list[str]:
        return [NAME]

    def coordinates(self, member: str) -> dict[str, list[int]]:
        return {"position": POSITIONS, "velocity": VELOCITIES}


def around(noise: float) -> Walker:
    """Who walks around: the controller's map has a wall where the shortcut is."""

    def aim(first: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return np.tile(GOAL, (len(first), 1)), np.zeros(len(first), dtype=np.int64)

    return Walker("umaze", noise, aim)


def walks(part: str) -> Trajectories:
    """Episodes of the walker."""
    return collect(NAME, part, Shortcut, around(ACTION_NOISE), STEPS[part], batch=BATCH)


@functools.cache
def anchors() -> Anchors:
    """Mean returns of uniformly random actions (score 0) and of the walker without noise (100)."""
    return Anchors(
        low=float(returns(UniformBehaviour(2)).mean()),
        high=float(returns(around(0.0)).mean()),
        source="mean returns of uniformly random actions and of the noise-free waypoint controller,"
        f" {ANCHOR_EPISODES} episodes",
    )


def returns(behaviour: Behaviour) -> np.ndarray:
    """Returns (B,) of a policy, one episode each."""
    rng = stream("data", 0, "anchors/shortcut")
    env = Shortcut(ANCHOR_EPISODES)
    seen = env.reset(rng.integers(1 << 62, size=ANCHOR_EPISODES).tolist())
    behaviour.start(seen, rng)
    total = np.zeros(ANCHOR_EPISODES)
    for _ in range(env.horizon):
        seen, reward, *_ = env.step(behaviour.act(seen).actions)
        total += reward
    return total
