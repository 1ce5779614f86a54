"""Four rooms of which some (start room, goal room) pairs are never seen: does goal conditioning combine?

D4RL's waypoint controller walks from a random cell of one room to a random cell of another (or of
the same), with noise of 0.5 on its actions; the goal is in the observation, and the episode ends
there. Of the 16 ordered pairs of rooms, two are kept out of the training data:

- held out: north-west -> south-east, and south-west -> north-east;
- seen, and their mirror image, so exactly as hard: north-east -> south-west, and south-east ->
  north-west.

`fourrooms/held-out-v0`: trained on the 14 other pairs, evaluated on the two that are held out.
`fourrooms/seen-v0`: the same training data, evaluated on the two mirrored pairs: minus held-out-v0,
what it costs never to have seen a pair.
`fourrooms/covered-v0`: trained on all 16 pairs, evaluated on the pairs that are held out above: minus
held-out-v0, the same cost by other data in the same evaluation.

Every room is start and goal in every set. Held out is more than the pair of start and goal: at no
timestep of the training data of the first two is the ball in the north-west with its goal in the
south-east, or in the south-west with its goal in the north-east. The way can be put together from
what is seen: to the next room, as if the goal were there, and on from there.

In each set the held-out episodes (for action errors) are of the pairs it is evaluated on. The score is
100 times the success rate.
"""

from __future__ import annotations

from dataclasses import replace

from ablate.data.catalogue import Anchors, DataSpec, Family, always
from ablate.data.collect import collect
from ablate.data.trajectories import Trajectories
from ablate.data.waypoints import Walker
from ablate.envs.fourrooms import (
    ALL_PAIRS,
    MAP,
    NORTH_EAST,
    NORTH_WEST,
    SOUTH_EAST,
    SOUTH_WEST,
    FourRooms,
    Pair,
)
from ablate.envs.pointmaze import POSITIONS, VELOCITIES
from ablate.errors import unknown
from ablate.registry import register

HELD_OUT: tuple[Pair, ...] = ((NORTH_WEST, SOUTH_EAST), (SOUTH_WEST, NORTH_EAST))
MIRRORED: tuple[Pair, ...] = ((NORTH_EAST, SOUTH_WEST), (SOUTH_EAST, NORTH_WEST))
TRAINED: tuple[Pair, ...] = tuple(pair for pair in ALL_PAIRS if pair not in HELD_OUT)
# Member -> pairs of the training data, pairs of the evaluation.
PAIRS = {
    "held-out": (TRAINED, HELD_OUT),
    "seen": (TRAINED, MIRRORED),
    "covered": (ALL_PAIRS, HELD_OUT),
}
STEPS = {"train": 150_000, "held_out": 30_000}
ACTION_NOISE = 0.5
BATCH = 250  # episodes at once
GOALS = [4, 5]  # coordinates of the observation


@register("data", "fourrooms", label="Four Rooms")
class FourRoomSets(Family):
    """About 1,000 training and 120 held-out episodes; `fourrooms/held-out-v0` and its controls."""

    def resolve(self, member: str, name: str) -> DataSpec:
        kind = member.removesuffix("-v0")
        if member == kind or kind not in PAIRS:
            raise unknown("data", name, self.names())
        base = f"fourrooms/{member}"
        trained, evaluated = PAIRS[kind]

        def generate() -> tuple[Trajectories, Trajectories]:
            return demonstrate(base, "train", trained), demonstrate(base, "held_out", evaluated)

        def make_env(num_envs: int) -> FourRooms:
            return FourRooms(num_envs, evaluated)

        return DataSpec(
            name=base,
            family="fourrooms",
            recipe={
                "generator": "fourrooms",
                "version": 1,
                "trained": trained,
                "evaluated": evaluated,
                "steps": STEPS,
                "noise": ACTION_NOISE,
                "batch": BATCH,
                "seed": 0,
            },
            generate=generate,
            goal=(0, 1),
            make_env=make_env,
            anchors=lambda: Anchors(
                0.0,
                1.0,
                "100 times the success rate; measured in 1,000 episodes: 100 % for the waypoint"
                " controller, 0.5 % for uniformly random actions",
            ),
            best_policy=0,
            num_policies=1,
            optimal=always(1.0),
        )

    def names(self) -> list[str]:
        return [f"fourrooms/{kind}-v0" for kind in PAIRS]

    def coordinates(self, member: str) -> dict[str, list[int]]:
        return {"position": POSITIONS, "velocity": VELOCITIES, "goal": GOALS}


def demonstrate(name: str, part: str, pairs: tuple[Pair, ...]) -> Trajectories:
    """The controller's episodes between pairs of rooms: a function of part and pairs, not of the name."""
    label = "fourrooms/" + ",".join(f"{start}{goal}" for start, goal in pairs)
    made = collect(
        label,
        part,
        lambda num_envs: FourRooms(num_envs, pairs),
        Walker(MAP, ACTION_NOISE),
        STEPS[part],
        batch=BATCH,
    )
    return replace(made, name=name, goal=made.observations[:, 4:].copy())
