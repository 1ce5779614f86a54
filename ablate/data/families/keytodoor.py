"""Key-to-Door as the Decision Transformer's authors use it: trajectories of random moves.

`key-to-door/random-1k-v0` and `random-10k-v0`: 1,000 and 10,000 training episodes of uniformly
random moves, of which 3.15 % succeed; `key-to-door/expert-v0`: 1,000 of an expert that never fails.
`key-to-door/empty-D/...`: the same with D steps in the empty room instead of 30, by which credit
has further to go. Actions are one-hot over (right, up, left, down), scaled to -1 and +1.

The score is 100 times the success rate. Published for the authors' own environment, whose sizes
aren't known (their Table 6; 1K and 10K random trajectories): DT 71.8 and 94.6, cloning of the
successful episodes (%BC) 69.9 and 95.1, CQL 13.1 and 13.3, BC 1.4 and 1.6, random 3.1.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ablate.data.behaviour import Acted, Behaviour, UniformChoice, decided
from ablate.data.catalogue import Anchors, DataSpec, Family, always
from ablate.data.collect import collect
from ablate.data.trajectories import Trajectories
from ablate.envs.keytodoor import EMPTY_STEPS, SIDE, KeyToDoor, random_success
from ablate.envs.tmaze import DOWN, LEFT, RIGHT, UP
from ablate.errors import UserError, unknown
from ablate.registry import register

# Training and held-out episodes.
EPISODES = {"random-1k": (1000, 250), "random-10k": (10_000, 1000), "expert": (1000, 250)}
MAX_EMPTY = 10_000
HALF_A_CELL = 0.5 / (SIDE - 1)
BATCH = 250  # episodes at once; divides every number of episodes


@register("data", "key-to-door", label="Key-to-Door")
class KeyToDoors(Family):
    """Random or expert moves, as many episodes as the name says."""

    def resolve(self, member: str, name: str) -> DataSpec:
        found = re.fullmatch(r"(?:empty-([0-9]+)/)?(.+)-v0", member)
        if not found or found[2] not in EPISODES:
            raise unknown("data", name, self.names())
        empty, kind = int(found[1] or EMPTY_STEPS), found[2]
        if found[1] is not None and (empty > MAX_EMPTY or found[1] != str(empty)):
            raise UserError(
                f"data: '{name}' has an empty room of {found[1]} steps; allowed: 0 to {MAX_EMPTY}."
            )
        base = name.partition("@")[0]

        def make_env(num_envs: int) -> KeyToDoor:
            return KeyToDoor(num_envs, empty)

        def behaviour() -> Behaviour:
            return KeyToDoorExpert() if kind == "expert" else UniformChoice(4)

        def generate() -> tuple[Trajectories, Trajectories]:
            train, held_out = (
                collect(
                    base,
                    part,
                    make_env,
                    behaviour(),
                    episodes * make_env(1).horizon,
                    privileged=False,
                    batch=BATCH,
                )
                for part, episodes in zip(("train", "held_out"), EPISODES[kind], strict=True)
            )
            return train, held_out

        recipe: dict[str, Any] = {
            "generator": "key-to-door",
            "version": 1,
            "behaviour": "expert" if kind == "expert" else "uniform",
            "empty": empty,
            "train": EPISODES[kind][0],
            "held_out": EPISODES[kind][1],
            "batch": BATCH,
            "seed": 0,
        }
        return DataSpec(
            name=base,
            family="key-to-door",
            recipe=recipe,
            generate=generate,
            make_env=make_env,
            anchors=lambda: Anchors(
                0.0,
                1.0,
                "100 times the success rate; uniformly random moves succeed in"
                f" {100 * random_success():.2f} %",
            ),
            best_policy=0,
            num_policies=1,
            behaviour=behaviour,
            optimal=always(1.0),
        )

    def names(self) -> list[str]:
        return [f"key-to-door/{kind}-v0" for kind in EPISODES]


class KeyToDoorExpert(Behaviour):
    """Straight to the key or door, first across, then along; to and fro where there is none.

    Needs no memory and none of what is hidden: it reads the 8 numbers that the environment shows;
    further ones are ignored.
    """

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        pass

    def act(self, observation: np.ndarray) -> Acted:
        lies = observation[:, 5:6] > 0.5
        way = np.where(
            lies, observation[:, 6:8], -observation[:, 3:5]
        )  # (B, 2); else to the middle
        across = np.where(way[:, 0] < 0, LEFT, RIGHT)
        along = np.where(way[:, 1] < 0, DOWN, UP)
        straight = (np.abs(way[:, 0]) < HALF_A_CELL) & (np.abs(way[:, 1]) > HALF_A_CELL)
        return decided(np.where(straight, along, across), 4)
