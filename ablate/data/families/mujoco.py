"""Locomotion data collected from ladders of policies trained for this project: `mujoco/hopper/medium-v0`.

`mujoco/TASK/KIND-v0` holds 1,000,000 training transitions at most (whole episodes) and a tenth more
held out; `mujoco/TASK/KIND-100k-v0` the same recipe at 100,000. Not D4RL's files: the kinds are made as
D4RL's are, by other policies, and scored by D4RL's reference returns.

- random: uniform actions.
- medium, expert: one snapshot of the ladder, the one nearest to a score of 40, and the best.
- medium-replay: the snapshots from the untrained policy to the medium one, in order, as many
  transitions of each; full-replay: all snapshots.
- medium-expert: half of the transitions by either; which policy acts is fixed for an episode.
- step-mixture: the same two policies, one of them drawn anew at each step, so that the past doesn't
  tell who acts.

Policies act on the full observation with half the exploration noise of their training (see
`ablate.data.ladders`). `behaviour_id` counts the policies of the set, `behaviour_logp` is the log
likelihood of the clipped action under the policy that acted, `behaviour_action` its clipped mean,
`simulator_state` MuJoCo's qpos and qvel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ablate.data import d4rl_index, ladders
from ablate.data.behaviour import Behaviour, UniformBehaviour
from ablate.data.catalogue import Anchors, DataSpec, Family
from ablate.data.collect import collect, concatenate
from ablate.data.ladders import LadderBehaviour
from ablate.data.trajectories import Trajectories
from ablate.envs.locomotion import ENVIRONMENTS, Locomotion, coordinates
from ablate.errors import unknown
from ablate.registry import register

KINDS = (
    "random",
    "medium",
    "expert",
    "medium-replay",
    "full-replay",
    "medium-expert",
    "step-mixture",
)
SIZES = {"": 1_000_000, "-100k": 100_000, "-10k": 10_000}
HELD_OUT = 0.1  # of the training transitions, on top of them


@register("data", "mujoco", label="MuJoCo")
class Ladders(Family):
    """`mujoco/TASK/KIND[-SIZE]-v0`."""

    words: ClassVar = {
        "hopper": "Hopper",
        "halfcheetah": "HalfCheetah",
        "walker2d": "Walker2d",
        "ant": "Ant",
    }

    def resolve(self, member: str, name: str) -> DataSpec:
        task, _, rest = member.partition("/")
        known = {f"{kind}{size}-v0": (kind, size) for kind in KINDS for size in SIZES}
        if task not in ladders.tasks() or rest not in known:
            every = [f"mujoco/{each}/{one}" for each in ladders.tasks() for one in known]
            raise unknown("data", name, every)
        kind, size = known[rest]
        steps = SIZES[size]
        base = f"mujoco/{member}"
        mix = mixture(task, kind)

        def generate() -> tuple[Trajectories, Trajectories]:
            held = round(HELD_OUT * steps)
            return make(base, "train", task, mix, steps), make(base, "held_out", task, mix, held)

        def make_env(num_envs: int) -> Locomotion:
            return Locomotion(num_envs, task)

        def hidden_physics(num_envs: int, spread: float) -> Locomotion:
            return Locomotion(num_envs, task, spread)

        reference = d4rl_index.entry(f"{task}-medium-v2")  # the same for all of a task's sets
        return DataSpec(
            name=base,
            family="mujoco",
            recipe={
                "generator": "mujoco",
                "version": 1,
                "environment": ENVIRONMENTS[task],
                "kind": kind,
                "ladder": ladders.load(task).digest,
                "snapshots": mix.snapshots,
                "noise": ladders.NOISE,
                "steps": steps,
                "held_out": HELD_OUT,
                "seed": 0,
            },
            generate=generate,
            make_env=make_env,
            anchors=lambda: Anchors(
                reference.low, reference.high, "D4RL's reference scores of this task"
            ),
            best_policy=mix.best,
            num_policies=mix.count,
            behaviour=mix.behaviour,
            hidden_physics=hidden_physics,
        )

    def names(self) -> list[str]:
        return [f"mujoco/{task}/{kind}-v0" for task in ladders.tasks() for kind in KINDS]

    def coordinates(self, member: str) -> dict[str, list[int]]:
        return coordinates(member.partition("/")[0])


@dataclass(frozen=True)
class Mixture:
    """Which policies make a data set, and how they take turns.

    snapshots: of the ladder, an id is a place in this list; empty for uniform actions. turns:
    `sequence` (as many transitions of each, in order) or `step` (one drawn at each step).
    """

    task: str
    snapshots: list[int]
    turns: str

    @property
    def count(self) -> int:
        return max(1, len(self.snapshots))

    @property
    def best(self) -> int:
        """The id of the policy with the highest measured score."""
        if not self.snapshots:
            return 0
        return int(np.argmax(ladders.load(self.task).scores[self.snapshots]))

    def behaviour(self) -> Behaviour:
        """All policies of the set at once: one drawn for each episode, or for each step."""
        count = self.count

        def draw(batch: int, rng: np.random.Generator) -> np.ndarray:
            return rng.integers(count, size=batch)

        if not self.snapshots:
            return UniformBehaviour(ladders.load(self.task).action_dim)
        return LadderBehaviour(
            ladders.load(self.task), self.snapshots, draw, each_step=self.turns == "step"
        )

    def turn(self, place: int) -> Behaviour:
        """One policy of the set alone."""

        def always(batch: int, rng: np.random.Generator) -> np.ndarray:
            return np.full(batch, place)

        return LadderBehaviour(ladders.load(self.task), self.snapshots, always)


def mixture(task: str, kind: str) -> Mixture:
    """The policies of one of KINDS."""
    ladder = ladders.load(task)
    pair = [ladder.medium, ladder.expert]
    snapshots, turns = {
        "random": ([], "sequence"),
        "medium": ([ladder.medium], "sequence"),
        "expert": ([ladder.expert], "sequence"),
        "medium-replay": (list(range(ladder.medium + 1)), "sequence"),
        "full-replay": (list(range(ladder.size)), "sequence"),
        "medium-expert": (pair, "sequence"),
        "step-mixture": (pair, "step"),
    }[kind]
    return Mixture(task, snapshots, turns)


def make(name: str, part: str, task: str, mix: Mixture, steps: int) -> Trajectories:
    """Whole episodes of at most `steps` transitions; a function of (name, part) alone."""

    def env(num_envs: int) -> Locomotion:
        return Locomotion(num_envs, task)

    if mix.turns == "step" or not mix.snapshots:
        return collect(name, part, env, mix.behaviour(), steps)
    share = steps // len(mix.snapshots)
    return concatenate(
        name,
        [
            collect(name, f"{part}/{place}", env, mix.turn(place), share)
            for place in range(len(mix.snapshots))
        ],
    )
