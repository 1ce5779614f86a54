"""Expert demonstrations in the passive T-Maze: right along the corridor, then towards the goal.

`tmaze/passive-L` for any corridor length L. Actions are one-hot over (right, up, left, down),
scaled to -1 and +1. The score is 100 times the return: 100 for the expert, 50 for the best policy
without memory (chance at the junction), -100 for one that never moves; for a policy that doesn't
dawdle, 100 times its success rate.
"""

from __future__ import annotations

import numpy as np

from ablate.data.catalogue import Anchors, DataSpec, Family
from ablate.data.trajectories import Trajectories
from ablate.envs.tmaze import DOWN, RIGHT, UP, PassiveTMaze, goals
from ablate.errors import UserError, unknown
from ablate.registry import register

EPISODES = {"train": 400, "held_out": 100}
# First seeds of the two parts; even, so that each part has as many goals up as down.
FIRST_SEED = {"train": 1 << 40, "held_out": 1 << 41}
MAX_LENGTH = 10_000


@register("data", "tmaze")
class TMazes(Family):
    """400 training and 100 held-out expert episodes, goals balanced."""

    def resolve(self, member: str, name: str) -> DataSpec:
        kind, dash, number = member.partition("-")
        if kind != "passive" or not dash or not number.isascii() or not number.isdigit():
            raise unknown("data", name, self.names())
        length = int(number)
        if not 1 <= length <= MAX_LENGTH or number != str(length):
            raise UserError(
                f"data: '{name}' has corridor length {number}; allowed: 1 to {MAX_LENGTH}."
            )
        base = name.partition("@")[0]

        def generate() -> tuple[Trajectories, Trajectories]:
            return demonstrate(base, length, "train"), demonstrate(base, length, "held_out")

        def make_env(num_envs: int) -> PassiveTMaze:
            return PassiveTMaze(num_envs, length)

        return DataSpec(
            name=base,
            family="tmaze",
            recipe={
                "generator": "tmaze",
                "version": 1,
                "length": length,
                "first_seed": FIRST_SEED,
                **EPISODES,
            },
            generate=generate,
            make_env=make_env,
            anchors=lambda: Anchors(0.0, 1.0, "100 times the return; the expert's return is 1"),
            best_policy=0,
            num_policies=1,
        )

    def names(self) -> list[str]:
        return [f"tmaze/passive-{length}" for length in (10, 20, 50, 100, 250)]


def demonstrate(name: str, length: int, part: str) -> Trajectories:
    """The expert's episodes; nothing about them is random but the goals."""
    episodes, horizon = EPISODES[part], length + 1
    seeds = list(range(FIRST_SEED[part], FIRST_SEED[part] + episodes))
    env = PassiveTMaze(episodes, length)
    goal = goals(seeds)  # (B,)
    at_junction = np.where(goal > 0, UP, DOWN)
    moves = np.full((episodes, horizon), RIGHT)
    moves[:, -1] = at_junction
    actions = np.where(np.arange(4) == moves[..., None], 1.0, -1.0).astype(np.float32)  # (B, T, 4)
    observations, rewards = [env.reset(seeds)], []
    for t in range(horizon):
        observation, reward, terminations, _, _ = env.step(actions[:, t])
        observations.append(observation)
        rewards.append(reward)
    assert terminations.all()
    starts = np.arange(episodes + 1) * horizon
    ends = np.zeros(episodes * horizon, dtype=bool)
    ends[starts[1:] - 1] = True
    flat = actions.reshape(-1, 4)
    return Trajectories(
        name=name,
        observations=np.stack(observations[:-1], axis=1).reshape(-1, 2),
        actions=flat,
        rewards=np.stack(rewards, axis=1).reshape(-1).astype(np.float32),
        terminations=ends,
        truncations=np.zeros_like(ends),
        episode_starts=starts,
        behaviour_id=np.zeros(len(flat), dtype=np.int64),
        behaviour_logp=np.zeros(len(flat), dtype=np.float32),
        behaviour_action=flat.copy(),
        goal=np.repeat(goal, horizon).astype(np.float32)[:, None],
    )
